"""Proves that a caller reads the messages of a phone number: a code sent out, and checked once.

    asked ──rate──▶ code made, hash stored, code sent ──right code──▶ used (with what it is for)
                                │ wrong code: a try less, durably, before the answer
                                ▼
                       no tries left or 10 minutes over: gone

It knows nothing of accounts: `confirm` gives back the changes that use a verification up, and
whoever acts on it puts them into the same commit.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from letterlockd.clock import Clock
from letterlockd.errors import BusyError, Forbidden, InvalidField
from letterlockd.model.phone import check_e164
from letterlockd.records.v1.relay_pb2 import PendingVerification
from letterlockd.relay.directory import Change
from letterlockd.relay.numbers import NumberVault
from letterlockd.relay.rates import RateLimiter
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.tables import VERIFICATIONS
from letterlockd.store.port import Check, Delete, Put, Record, Store

__all__ = ["CODE_DIGITS", "Verification", "VerificationSender", "Verifications"]

CODE_DIGITS = 6

_ID_BYTES = 16
_CODES = 10**CODE_DIGITS
_FLOOD_RETRY_FLOOR_MS = 1_000


class VerificationSender(Protocol):
    """Gets a code to whoever has the number."""

    async def send(self, verification_id: str, number: str, code: str) -> None:
        """Hand the code over to the carrier; raises `EnvironmentFault` when that fails."""
        ...

    async def clear(self, pending: Callable[[str], Awaitable[bool]]) -> None:
        """Destroy what was kept here of codes whose verifications (by id) are not `pending`."""
        ...


class Verification(NamedTuple):
    """A verification that was sent."""

    verification_id: str
    expires_at_ms: int


class Verifications:
    """Verifications in flight."""

    def __init__(
        self,
        store: Store,
        vault: NumberVault,
        sender: VerificationSender,
        clock: Clock,
        random: Callable[[int], bytes],
        settings: RelaySettings,
    ) -> None:
        self._store = store
        self._vault = vault
        self._sender = sender
        self._clock = clock
        self._random = random
        self._settings = settings
        self._limits = RateLimiter(settings.cached_buckets)

    async def request(self, number: str) -> Verification:
        """Send a code to `number`. Raises `InvalidField`, or `BusyError` with RATE_LIMITED."""
        check_e164(number, "phone_number")
        index = self._vault.index(number)
        self._check_rate(index)
        id_, code = self._random(_ID_BYTES), self._new_code()
        expires_at_ms = self._clock.now_ms() + self._settings.verification_ms
        pending = PendingVerification(
            number_index=index,
            code_hash=self._vault.code_hash(id_, code),
            tries_left=self._settings.verification_tries,
        )
        put = Put(VERIFICATIONS, id_, pending.SerializeToString(), expires_at_ms)
        await self._store.commit([[put]])
        await self._sender.send(id_.hex(), number, code)
        return Verification(id_.hex(), expires_at_ms)

    async def confirm(self, verification_id: str, number: str, code: str) -> list[Change]:
        """Check a code; the changes that use the verification up.

        Raises `InvalidField`, or `Forbidden` with VERIFICATION_FAILED, which says no more: not
        whether the id, the number or the code was wrong.
        """
        check_e164(number, "phone_number")
        id_ = _parse_id(verification_id)
        if len(code) != CODE_DIGITS or not (code.isascii() and code.isdecimal()):
            raise InvalidField("code", f"must be {CODE_DIGITS} digits")
        record = await self._store.get(VERIFICATIONS, id_)
        if record is None or record.expires_at_ms <= self._clock.now_ms():
            raise _failed()
        pending = PendingVerification.FromString(record.value)
        right_number = hmac.compare_digest(pending.number_index, self._vault.index(number))
        right_code = hmac.compare_digest(pending.code_hash, self._vault.code_hash(id_, code))
        if not (right_number and right_code):
            await self._count_wrong_try(id_, record, pending)
            raise _failed()
        return [Check(VERIFICATIONS, id_, record.version), Delete(VERIFICATIONS, id_)]

    async def clear(self) -> None:
        """Destroy codes that are still with the sender, of verifications that are used or over."""
        await self._sender.clear(self._pending)

    async def _pending(self, verification_id: str) -> bool:
        record = await self._store.get(VERIFICATIONS, _parse_id(verification_id))
        return record is not None and record.expires_at_ms > self._clock.now_ms()

    async def _count_wrong_try(
        self, id_: bytes, record: Record, pending: PendingVerification
    ) -> None:
        # A conflict means that another try was counted or used it up: this one fails all the same,
        # and guessing in parallel gains nothing, because a right code commits on the same version.
        pending.tries_left -= 1
        change: Change = (
            Put(VERIFICATIONS, id_, pending.SerializeToString(), record.expires_at_ms)
            if pending.tries_left
            else Delete(VERIFICATIONS, id_)
        )
        await self._store.commit([[Check(VERIFICATIONS, id_, record.version), change]])

    def _check_rate(self, index: bytes) -> None:
        now, settings = self._clock.monotonic(), self._settings
        wait = self._limits.take(b"", settings.verifications_in_all, now)
        wait = wait or self._limits.take(index, settings.verifications_per_number, now)
        if wait:
            raise BusyError(
                "too many verifications were asked for",
                retry_after_ms=max(wait, _FLOOD_RETRY_FLOOR_MS),
                reason="RATE_LIMITED",
            )

    def _new_code(self) -> str:
        # 64 bits over 10^6 codes: the bias is below 10^-13.
        return f"{int.from_bytes(self._random(8), 'big') % _CODES:0{CODE_DIGITS}d}"


def _parse_id(text: str) -> bytes:
    try:
        id_ = bytes.fromhex(text)
    except ValueError:
        id_ = b""
    if len(id_) != _ID_BYTES or id_.hex() != text:
        raise InvalidField("verification_id", "must be 32 characters of lower-case hex")
    return id_


def _failed() -> Forbidden:
    return Forbidden("the verification failed", reason="VERIFICATION_FAILED")
