"""The pre-key directory: uploads are all or nothing, one-time keys leave once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from letterlock.relay.v1 import keys_pb2
from letterlock.v1 import errors_pb2
from letterlockd.relay.settings import Rate, RelaySettings
from letterlockd.relay.tables import PRE_KEYS
from letterlockd.store.port import Commit, Outcome, StoreFull

from tests.harness.clock import FakeClock
from tests.harness.relay import GATEWAY, Identity, Running, as_, bearer, memory_store, running_relay
from tests.unit.relay.test_accounts import reason_of

Target = keys_pb2.BundleTarget


def fetch(running: Running, *targets: Target, credential: str = GATEWAY) -> Any:
    return running.client.keys.FetchBundles(
        keys_pb2.FetchBundlesRequest(targets=targets), metadata=bearer(credential)
    )


async def bundle(running: Running, account_id: bytes) -> keys_pb2.DeviceBundle:
    answer = await fetch(running, Target(account_id=account_id))
    (device,) = answer.results[0].bundles.devices
    return device


async def test_one_time_keys_go_lowest_id_first_and_then_the_last_resort(running: Running) -> None:
    identity = Identity()
    upload = identity.upload(one_time=2, kyber=2)
    user = await running.client.register(identity=identity, upload=upload)
    bundles = [await bundle(running, user.account_id) for _ in range(3)]
    ec_ids = sorted(key.key_id for key in upload.one_time_pre_keys)
    kyber_ids = sorted(key.key_id for key in upload.one_time_kyber_pre_keys)
    assert [one.one_time_pre_key.key_id for one in bundles[:2]] == ec_ids
    assert [one.kyber_pre_key.key_id for one in bundles[:2]] == kyber_ids
    assert not bundles[2].HasField("one_time_pre_key")
    assert bundles[2].kyber_pre_key == upload.last_resort_kyber_pre_key
    assert all(one.signed_pre_key == upload.signed_pre_key for one in bundles)
    assert bundles[0].registration_id == 100


async def test_an_upload_withdraws_the_one_time_keys_that_are_left(running: Running) -> None:
    """Those of an end that was restored: it may not have their private halves."""
    identity = Identity()
    user = await running.client.register(
        identity=identity, upload=identity.upload(one_time=3, kyber=3)
    )
    fresh = identity.upload(one_time=1, kyber=1)
    fresh.withdraw_one_time = True
    await running.client.keys.UploadPreKeys(
        keys_pb2.UploadPreKeysRequest(pre_keys=fresh), metadata=as_(user)
    )
    first, second = [await bundle(running, user.account_id) for _ in range(2)]
    assert first.one_time_pre_key == fresh.one_time_pre_keys[0]
    assert first.kyber_pre_key == fresh.one_time_kyber_pre_keys[0]
    assert not second.HasField("one_time_pre_key")
    assert second.kyber_pre_key == fresh.last_resort_kyber_pre_key


async def test_by_number_by_id_and_by_device(running: Running) -> None:
    user = await running.client.register()
    linked = await running.client.link(user)
    answer = await fetch(
        running,
        Target(phone_number=user.number),
        Target(account_id=user.account_id, device_ids=[linked.device_id]),
        Target(phone_number="+4930999999"),
        Target(account_id=os.urandom(16)),
        Target(account_id=user.account_id, device_ids=[77]),
    )
    both, one, *unknown = answer.results
    assert both.bundles.account_id == user.account_id
    assert both.bundles.identity_key == user.identity.public
    assert [device.device_id for device in both.bundles.devices] == [1, linked.device_id]
    assert [device.device_id for device in one.bundles.devices] == [linked.device_id]
    for result in unknown:
        assert result.refused.reason == errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT


async def test_concurrent_callers_never_get_the_same_one_time_key(running: Running) -> None:
    identity = Identity()
    user = await running.client.register(
        identity=identity, upload=identity.upload(one_time=40, kyber=20)
    )
    target = Target(account_id=user.account_id)
    answers = await asyncio.gather(*(fetch(running, target, target) for _ in range(25)))
    devices = [result.bundles.devices[0] for answer in answers for result in answer.results]
    ec_ids = [d.one_time_pre_key.key_id for d in devices if d.HasField("one_time_pre_key")]
    last_resort = max(d.kyber_pre_key.key_id for d in devices)
    kyber_ids = [d.kyber_pre_key.key_id for d in devices]
    assert len(ec_ids) == len(set(ec_ids)) == 40
    once = [id_ for id_ in kyber_ids if kyber_ids.count(id_) == 1]
    assert len(once) == 20
    assert last_resort in kyber_ids


async def test_a_bundle_leaves_only_after_its_keys_are_gone(
    tmp_path: Path, clock: FakeClock
) -> None:
    store = memory_store()
    async with running_relay(tmp_path, store, clock) as running:
        user = await running.client.register()
        before = await store.count(PRE_KEYS)

        async def refuse(commits: list[Commit]) -> list[Outcome]:
            raise StoreFull("no space left", retry_after_ms=1_000)

        store.commit, kept = refuse, store.commit  # type: ignore[method-assign, assignment]
        call = fetch(running, Target(account_id=user.account_id))
        assert await reason_of(call) == "STORAGE_FULL"
        store.commit = kept  # type: ignore[method-assign]
        assert await store.count(PRE_KEYS) == before
        first = await bundle(running, user.account_id)
        assert await store.count(PRE_KEYS) == before - 2
        assert first.HasField("one_time_pre_key")


async def test_fetching_is_limited_per_caller_and_target(tmp_path: Path, clock: FakeClock) -> None:
    settings = RelaySettings(
        bundles_per_device=Rate(4, 1), bundles_per_device_and_target=Rate(2, 0.1)
    )
    async with running_relay(tmp_path, memory_store(), clock, settings=settings) as running:
        user, other = await running.client.register(), await running.client.register()
        mine = Target(account_id=other.account_id)
        answer = await fetch(running, mine, mine, mine, credential=user.credential)
        assert [result.WhichOneof("outcome") for result in answer.results] == [
            "bundles",
            "bundles",
            "refused",
        ]
        refused = answer.results[2].refused
        assert refused.reason == errors_pb2.ERROR_REASON_RATE_LIMITED
        assert refused.retry_after.ToMilliseconds() == 10_000
        own = Target(account_id=user.account_id)
        answer = await fetch(running, own, own, credential=user.credential)
        assert [result.WhichOneof("outcome") for result in answer.results] == ["bundles", "refused"]
        assert answer.results[1].refused.retry_after.ToMilliseconds() == 1_000


async def test_uploads_add_one_time_keys_and_replace_the_others(running: Running) -> None:
    user = await running.client.register()
    more = user.identity.upload(one_time=3, kyber=1)
    answer = await running.client.keys.UploadPreKeys(
        keys_pb2.UploadPreKeysRequest(pre_keys=more), metadata=as_(user)
    )
    assert (answer.count.one_time_pre_keys, answer.count.one_time_kyber_pre_keys) == (5, 3)
    got = await bundle(running, user.account_id)
    assert got.signed_pre_key == more.signed_pre_key
    count = await running.client.keys.GetPreKeyCount(
        keys_pb2.GetPreKeyCountRequest(), metadata=as_(user)
    )
    assert (count.one_time_pre_keys, count.one_time_kyber_pre_keys) == (4, 2)


def _forge(upload: keys_pb2.PreKeyUpload) -> None:
    upload.one_time_kyber_pre_keys[1].signature = upload.one_time_kyber_pre_keys[0].signature


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_forge, "BAD_PRE_KEYS"),
        (lambda u: setattr(u.signed_pre_key, "signature", bytes(64)), "BAD_PRE_KEYS"),
        (lambda u: setattr(u.signed_pre_key, "signature", b""), "INVALID_FIELD"),
        (lambda u: setattr(u.signed_pre_key, "public_key", b"\x05"), "INVALID_FIELD"),
        (lambda u: setattr(u.last_resort_kyber_pre_key, "public_key", b""), "INVALID_FIELD"),
        (lambda u: setattr(u.one_time_pre_keys[0], "public_key", b"\x04" * 33), "INVALID_FIELD"),
        (lambda u: setattr(u.one_time_pre_keys[0], "key_id", 3 + 2**31), None),
        (lambda u: u.one_time_pre_keys.append(u.one_time_pre_keys[0]), "INVALID_FIELD"),
        (
            lambda u: u.one_time_pre_keys.extend(
                keys_pb2.PreKey(key_id=1_000 + n, public_key=b"\x05" + bytes(32)) for n in range(99)
            ),
            "INVALID_FIELD",
        ),
    ],
)
async def test_an_upload_is_good_as_a_whole_or_changes_nothing(
    running: Running, change: Any, reason: str | None
) -> None:
    user = await running.client.register()
    before = await running.store.scan(PRE_KEYS, limit=1_000)
    upload = user.identity.upload()
    change(upload)
    call = running.client.keys.UploadPreKeys(
        keys_pb2.UploadPreKeysRequest(pre_keys=upload), metadata=as_(user)
    )
    if reason is None:
        await call
        return
    assert await reason_of(call) == reason
    assert await running.store.scan(PRE_KEYS, limit=1_000) == before


async def test_the_directory_holds_at_most_200_of_a_kind(running: Running) -> None:
    user = await running.client.register()

    def add(start: int, count: int) -> Any:
        keys = [
            keys_pb2.PreKey(key_id=start + n, public_key=b"\x05" + bytes(32)) for n in range(count)
        ]
        return running.client.keys.UploadPreKeys(
            keys_pb2.UploadPreKeysRequest(pre_keys=keys_pb2.PreKeyUpload(one_time_pre_keys=keys)),
            metadata=as_(user),
        )

    await add(1_000, 100)
    await add(2_000, 98)
    assert await reason_of(add(3_000, 1)) == "INVALID_FIELD"
    await add(2_000, 98)  # the same ids again: no more than before


async def test_gateways_serve_their_own_accounts_only(running: Running) -> None:
    user, business = await running.client.register(), await running.client.business()
    for account_id, credential, reason in (
        (b"", GATEWAY, "INVALID_FIELD"),
        (user.account_id, GATEWAY, "FORBIDDEN"),
        (os.urandom(16), GATEWAY, "FORBIDDEN"),
        (user.account_id, user.credential, "INVALID_FIELD"),
    ):
        request = keys_pb2.GetPreKeyCountRequest(account_id=account_id)
        call = running.client.keys.GetPreKeyCount(request, metadata=bearer(credential))
        assert await reason_of(call) == reason
    upload = business.identity.upload()
    await running.client.keys.UploadPreKeys(
        keys_pb2.UploadPreKeysRequest(account_id=business.account_id, pre_keys=upload),
        metadata=bearer(GATEWAY),
    )


@pytest.mark.parametrize(
    "targets",
    [
        [],
        [Target(account_id=bytes(16))] * 101,
        [Target()],
        [Target(account_id=b"short")],
        [Target(account_id=bytes(16), device_ids=[1] * 128)],
    ],
)
async def test_bad_targets_are_refused(running: Running, targets: list[Target]) -> None:
    assert await reason_of(fetch(running, *targets)) == "INVALID_FIELD"


async def test_a_bad_number_is_refused(running: Running) -> None:
    call = fetch(running, Target(phone_number="0301"))
    assert await reason_of(call) == "INVALID_PHONE_NUMBER"
