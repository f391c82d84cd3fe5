"""Pre-key bundles for first contact: one-time keys are handed out once, and only after a commit.

    targets ──▶ accounts ──▶ choose keys, lowest id first ──▶ one commit deletes them ──▶ bundles
                                   ▲                              │ a key was taken meanwhile
                                   └──────────── again ───────────┘

A key that is chosen is held back from other calls until its commit is known, so that they do not
run into each other; that no key leaves twice does not rest on it but on the check in the commit.
When no one-time key is left the last-resort key goes out, which never runs out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from letterlock.relay.v1.keys_pb2 import (
    AccountBundles,
    BundleResult,
    BundleTarget,
    DeviceBundle,
    KyberPreKey,
    PreKey,
    SignedPreKey,
)

from letterlockd import failpoints
from letterlockd.clock import Clock
from letterlockd.errors import BusyError, InvalidField
from letterlockd.model.phone import check_e164
from letterlockd.relay.accounts import Account, Device
from letterlockd.relay.credentials import Caller, GatewayCaller
from letterlockd.relay.directory import Change, Directory
from letterlockd.relay.rates import RateLimiter
from letterlockd.relay.refusals import rate_limited, unknown_recipient
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.tables import (
    LAST_RESORT,
    ONE_TIME,
    ONE_TIME_KYBER,
    PRE_KEYS,
    SIGNED,
    pre_key_key,
    pre_key_prefix,
)
from letterlockd.store.port import Check, Delete, Store

__all__ = ["MAX_TARGETS", "Bundles"]

MAX_TARGETS = 100
"""One commit takes at most 100 accounts x 6 devices x 2 keys."""

_TARGETS_PER_TURN = 10
_TRIES = 5
_BUSY_RETRY_MS = 200


class _Taken(NamedTuple):
    """A one-time key that a call has chosen."""

    key: bytes
    version: int
    value: bytes


class Bundles:
    """Hands out bundles."""

    def __init__(
        self, store: Store, directory: Directory, clock: Clock, settings: RelaySettings
    ) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._settings = settings
        self._limits = RateLimiter(settings.cached_buckets)
        self._held: set[bytes] = set()
        self._held_by_prefix: Counter[bytes] = Counter()

    async def fetch(self, caller: Caller, targets: Sequence[BundleTarget]) -> list[BundleResult]:
        """One result for each target, in order. Raises `InvalidField`."""
        if not 1 <= len(targets) <= MAX_TARGETS:
            raise InvalidField("targets", f"1 to {MAX_TARGETS}")
        for place, target in enumerate(targets):
            _check_target(target, f"targets[{place}]")
        for _ in range(_TRIES):
            chosen: list[_Taken] = []
            try:
                results = await self._choose_all(caller, targets, chosen)
                if await self._take(chosen):
                    return results
            finally:
                self._let_go(chosen)
        raise BusyError("keys are being taken by others", retry_after_ms=_BUSY_RETRY_MS)

    async def _take(self, chosen: Sequence[_Taken]) -> bool:
        if not chosen:
            return True
        commit: list[Change] = [Check(PRE_KEYS, key, version) for key, version, _ in chosen]
        commit += [Delete(PRE_KEYS, key) for key, _, _ in chosen]
        failpoints.hit("relay.bundle.before_commit")
        (conflict,) = await self._store.commit([commit])
        failpoints.hit("relay.bundle.after_commit")
        return conflict is None

    async def _choose_all(
        self, caller: Caller, targets: Sequence[BundleTarget], chosen: list[_Taken]
    ) -> list[BundleResult]:
        results = []
        for place, target in enumerate(targets):
            results.append(await self._choose(caller, target, chosen))
            if place % _TARGETS_PER_TURN == _TARGETS_PER_TURN - 1:
                await asyncio.sleep(0)
        return results

    async def _choose(
        self, caller: Caller, target: BundleTarget, chosen: list[_Taken]
    ) -> BundleResult:
        if wait := self._over_rate(caller, b""):
            return BundleResult(refused=rate_limited(wait))
        account = await self._account(target)
        wanted = [] if account is None else _wanted(account, target.device_ids)
        if account is None or not wanted:
            return BundleResult(refused=unknown_recipient())
        if wait := self._over_rate(caller, account.account_id):
            return BundleResult(refused=rate_limited(wait))
        bundles = AccountBundles(account_id=account.account_id, identity_key=account.identity_key)
        for device in wanted:
            bundle = await self._device(device, chosen)
            if bundle is not None:
                bundles.devices.append(bundle)
        if not bundles.devices:
            return BundleResult(refused=unknown_recipient())
        return BundleResult(bundles=bundles)

    async def _account(self, target: BundleTarget) -> Account | None:
        if target.WhichOneof("account") == "phone_number":
            return await self._directory.by_number(target.phone_number)
        return await self._directory.get(target.account_id)

    async def _device(self, device: Device, chosen: list[_Taken]) -> DeviceBundle | None:
        slot = device.slot
        signed, last_resort = await self._store.get_many(
            PRE_KEYS, [pre_key_key(slot, SIGNED, 0), pre_key_key(slot, LAST_RESORT, 0)]
        )
        if signed is None or last_resort is None:
            return None  # removed since the account was read
        kyber = await self._one_time(slot, ONE_TIME_KYBER, chosen)
        one_time = await self._one_time(slot, ONE_TIME, chosen)
        return DeviceBundle(
            device_id=device.device_id,
            registration_id=device.registration_id,
            signed_pre_key=SignedPreKey.FromString(signed.value),
            kyber_pre_key=KyberPreKey.FromString(kyber or last_resort.value),
            one_time_pre_key=None if one_time is None else PreKey.FromString(one_time),
        )

    async def _one_time(self, slot: int, kind: int, chosen: list[_Taken]) -> bytes | None:
        prefix = pre_key_prefix(slot, kind)
        limit = self._held_by_prefix[prefix] + 1
        for key, record in await self._store.scan(PRE_KEYS, prefix=prefix, limit=limit):
            if key not in self._held:
                self._held.add(key)
                self._held_by_prefix[prefix] += 1
                chosen.append(_Taken(key, record.version, record.value))
                return record.value
        return None

    def _let_go(self, chosen: Sequence[_Taken]) -> None:
        for key, _, _ in chosen:
            self._held.discard(key)
            self._held_by_prefix[key[:-4]] -= 1
            if not self._held_by_prefix[key[:-4]]:
                del self._held_by_prefix[key[:-4]]

    def _over_rate(self, caller: Caller, account_id: bytes) -> int:
        settings = self._settings
        if isinstance(caller, GatewayCaller):
            rates = settings.bundles_per_gateway, settings.bundles_per_gateway_and_target
        else:
            rates = settings.bundles_per_device, settings.bundles_per_device_and_target
        rate = rates[1] if account_id else rates[0]
        return self._limits.take((caller, account_id), rate, self._clock.monotonic())


def _check_target(target: BundleTarget, field: str) -> None:
    kind = target.WhichOneof("account")
    if kind == "phone_number":
        check_e164(target.phone_number, f"{field}.phone_number")
    elif kind is None or len(target.account_id) != 16:
        raise InvalidField(f"{field}.account_id", "must be 16 bytes")
    if len(target.device_ids) > 127:
        raise InvalidField(f"{field}.device_ids", "at most 127")


def _wanted(account: Account, device_ids: Sequence[int]) -> list[Device]:
    wanted = set(device_ids)
    return [device for id_, device in account.devices.items() if not wanted or id_ in wanted]
