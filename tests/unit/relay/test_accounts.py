"""Accounts: verification, registering, taking over, linking, removing, business numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from letterlock.relay.v1 import accounts_pb2, keys_pb2
from letterlockd.relay.tables import (
    ACCOUNTS,
    LINKS,
    MAILBOXES,
    PRE_KEYS,
    PURGES,
    TABLES,
    VERIFICATIONS,
)

from tests.harness.clock import FakeClock
from tests.harness.relay import (
    BUSINESS_NUMBER,
    GATEWAY,
    OTHER_GATEWAY,
    Identity,
    Running,
    as_,
    bearer,
    submission,
)


async def reason_of(call: Awaitable[Any]) -> str:
    """The reason that a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    status = rpc_status.from_call(refused.value)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


def register_request(number: str, identity: Identity, verification_id: str, code: str) -> Any:
    return accounts_pb2.RegisterRequest(
        verification_id=verification_id,
        code=code,
        phone_number=number,
        identity_key=identity.public,
        registration_id=1,
        pre_keys=identity.upload(),
    )


async def requested(running: Running, number: str) -> tuple[str, str]:
    answer = await running.client.accounts.RequestVerification(
        accounts_pb2.RequestVerificationRequest(phone_number=number)
    )
    return answer.verification_id, running.outbox.codes[answer.verification_id]


async def test_a_verified_number_gets_an_account_and_a_working_credential(running: Running) -> None:
    user = await running.client.register()
    answer = await running.client.accounts.ListDevices(
        accounts_pb2.ListDevicesRequest(), metadata=as_(user)
    )
    (device,) = answer.devices
    assert (device.device_id, device.registration_id) == (1, 100)
    assert len(user.account_id) == 16
    assert user.credential.startswith(f"dv.{user.account_id.hex()}.1.")


async def test_five_wrong_codes_use_a_verification_up(running: Running) -> None:
    number, identity = running.client.number(), Identity()
    id_, code = await requested(running, number)
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    for _ in range(5):
        call = running.client.accounts.Register(register_request(number, identity, id_, wrong))
        assert await reason_of(call) == "VERIFICATION_FAILED"
    call = running.client.accounts.Register(register_request(number, identity, id_, code))
    assert await reason_of(call) == "VERIFICATION_FAILED"
    assert await running.store.count(VERIFICATIONS) == 0


async def test_a_code_works_once_for_its_number_and_for_ten_minutes(
    running: Running, clock: FakeClock
) -> None:
    accounts, identity = running.client.accounts, Identity()
    number, other = running.client.number(), running.client.number()
    id_, code = await requested(running, number)
    stolen = accounts.Register(register_request(other, identity, id_, code))
    assert await reason_of(stolen) == "VERIFICATION_FAILED"
    await accounts.Register(register_request(number, identity, id_, code))
    again = accounts.Register(register_request(number, identity, id_, code))
    assert await reason_of(again) == "VERIFICATION_FAILED"
    id_, code = await requested(running, number)
    await clock.advance(600_000)
    late = accounts.Register(register_request(number, identity, id_, code))
    assert await reason_of(late) == "VERIFICATION_FAILED"


async def test_a_number_is_not_flooded_with_codes(running: Running, clock: FakeClock) -> None:
    number = running.client.number()
    for _ in range(3):
        await requested(running, number)
    request = accounts_pb2.RequestVerificationRequest(phone_number=number)
    call = running.client.accounts.RequestVerification(request)
    assert await reason_of(call) == "RATE_LIMITED"
    await clock.advance(300_000)
    await requested(running, number)


async def test_bad_pre_keys_leave_the_verification_usable(running: Running) -> None:
    number, identity = running.client.number(), Identity()
    id_, code = await requested(running, number)
    forged = register_request(number, identity, id_, code)
    forged.pre_keys.CopyFrom(Identity().upload())
    assert await reason_of(running.client.accounts.Register(forged)) == "BAD_PRE_KEYS"
    assert await running.store.count(ACCOUNTS) == 0
    await running.client.accounts.Register(register_request(number, identity, id_, code))


async def test_taking_a_number_over_keeps_the_account_and_drops_everything_else(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    old, business = await client.register(), await client.business()
    linked = await client.link(old)
    gateway = await client.connect(GATEWAY)
    await gateway.submitted(
        submission(old, linked, now_ms=clock.now_ms(), sender=business.account_id)
    )
    new = await client.register(old.number)
    assert new.account_id == old.account_id
    (item,) = await gateway.items(1)
    (receipt,) = item.receipts.receipts
    assert receipt.kind == receipt.KIND_GONE
    for gone in (old, linked):
        call = client.accounts.ListDevices(accounts_pb2.ListDevicesRequest(), metadata=as_(gone))
        assert await reason_of(call) == "UNAUTHENTICATED"
    await (await client.connect(new)).expect("queue_empty")
    await running.relay.sweeper.purge()
    assert await running.store.count(PURGES) == 0
    assert await running.store.count(PRE_KEYS) == 2 * 6  # the new device's and the business's


async def test_six_devices_at_most(running: Running) -> None:
    client = running.client
    first = await client.register()
    ids = [(await client.link(first)).device_id for _ in range(5)]
    assert ids == [2, 3, 4, 5, 6]
    call = client.accounts.CreateDeviceLink(
        accounts_pb2.CreateDeviceLinkRequest(), metadata=as_(first)
    )
    assert await reason_of(call) == "TOO_MANY_DEVICES"


async def test_a_link_token_works_once_and_for_ten_minutes(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    first = await client.register()

    async def token() -> str:
        link = await client.accounts.CreateDeviceLink(
            accounts_pb2.CreateDeviceLinkRequest(), metadata=as_(first)
        )
        return str(link.link_token)

    def link(link_token: str) -> Any:
        return client.accounts.LinkDevice(
            accounts_pb2.LinkDeviceRequest(
                link_token=link_token, registration_id=5, pre_keys=first.identity.upload()
            )
        )

    used = await token()
    await link(used)
    assert await reason_of(link(used)) == "VERIFICATION_FAILED"
    late = await token()
    await clock.advance(600_000)
    assert await reason_of(link(late)) == "VERIFICATION_FAILED"
    assert await reason_of(link("x" * 43)) == "VERIFICATION_FAILED"
    assert await reason_of(link("")) == "INVALID_FIELD"


async def test_a_linked_device_can_remove_only_itself(running: Running) -> None:
    client = running.client
    first = await client.register()
    second, third = await client.link(first), await client.link(first)

    def remove(caller: Any, device_id: int) -> Any:
        return client.accounts.RemoveDevice(
            accounts_pb2.RemoveDeviceRequest(device_id=device_id), metadata=as_(caller)
        )

    assert await reason_of(remove(second, third.device_id)) == "FORBIDDEN"
    assert await reason_of(remove(first, 1)) == "INVALID_FIELD"
    assert await reason_of(remove(first, 99)) == "NOT_FOUND"
    stream = await client.connect(third)
    await remove(first, third.device_id)
    assert (await stream.fault()).code() == grpc.StatusCode.UNAUTHENTICATED
    await remove(second, second.device_id)
    listed = await client.accounts.ListDevices(
        accounts_pb2.ListDevicesRequest(), metadata=as_(first)
    )
    assert [device.device_id for device in listed.devices] == [1]


async def test_a_linked_device_cannot_link_or_delete(running: Running) -> None:
    client = running.client
    second = await client.link(await client.register())
    for call in (
        client.accounts.CreateDeviceLink(
            accounts_pb2.CreateDeviceLinkRequest(), metadata=as_(second)
        ),
        client.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(), metadata=as_(second)),
    ):
        assert await reason_of(call) == "FORBIDDEN"


async def test_a_deleted_account_leaves_nothing(running: Running, clock: FakeClock) -> None:
    client = running.client
    user, sender = await client.register(), await client.register()
    stream = await client.connect(sender)
    await stream.submitted(submission(user, now_ms=clock.now_ms(), receipt=False))
    for peer in (user, sender):
        await client.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(), metadata=as_(peer))
    await running.relay.sweeper.purge()
    await clock.advance(60_000)
    await running.relay.sweeper.expire()
    left = {table.name: await running.store.count(table) for table in TABLES}
    assert {name for name, count in left.items() if count} == {"gateways"}


async def test_a_business_number_registered_again_is_the_same_account(running: Running) -> None:
    client, identity = running.client, Identity()
    first = await client.business(identity=identity)
    again = await client.business(identity=identity, registration_id=301)
    assert again.account_id == first.account_id
    assert await running.store.count(PURGES) == 0
    count = await client.keys.GetPreKeyCount(
        keys_pb2.GetPreKeyCountRequest(account_id=first.account_id), metadata=bearer(GATEWAY)
    )
    assert MessageToDict(count) == {"oneTimePreKeys": 4, "oneTimeKyberPreKeys": 4}


async def test_another_identity_drops_what_waited_for_the_business(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    old, user = await client.business(), await client.register()
    untouched = await client.business("+4930765432")
    device = await client.connect(user)
    await device.submitted(
        submission(old, now_ms=clock.now_ms(), receipt=False),
        submission(untouched, now_ms=clock.now_ms(), receipt=False),
    )
    new = await client.business(registration_id=301)
    assert new.account_id == old.account_id
    await running.relay.sweeper.purge()
    assert await running.store.count(MAILBOXES) == 1
    count = await client.keys.GetPreKeyCount(
        keys_pb2.GetPreKeyCountRequest(account_id=new.account_id), metadata=bearer(GATEWAY)
    )
    assert count.one_time_pre_keys == 2


async def test_a_removed_business_number_leaves_nothing(running: Running, clock: FakeClock) -> None:
    client = running.client
    gone, user = await client.business(), await client.register()
    stays = await client.business("+4930765432")
    device = await client.connect(user)
    await device.submitted(
        submission(gone, now_ms=clock.now_ms(), receipt=False),
        submission(stays, now_ms=clock.now_ms(), receipt=False),
    )

    def remove(account_id: bytes, credential: str = GATEWAY) -> Awaitable[Any]:
        request = accounts_pb2.RemoveBusinessNumberRequest(account_id=account_id)
        return client.accounts.RemoveBusinessNumber(request, metadata=bearer(credential))

    assert await reason_of(remove(gone.account_id, OTHER_GATEWAY)) == "FORBIDDEN"
    assert await reason_of(remove(user.account_id)) == "FORBIDDEN"
    assert await reason_of(remove(gone.account_id, user.credential)) == "FORBIDDEN"
    assert await reason_of(remove(b"short")) == "INVALID_FIELD"
    accounts, keys = await running.store.count(ACCOUNTS), await running.store.count(PRE_KEYS)
    for _ in range(2):
        await remove(gone.account_id)
    await running.relay.sweeper.purge()
    assert await running.store.count(ACCOUNTS) == accounts - 1
    assert await running.store.count(MAILBOXES) == 1
    assert await running.store.count(PRE_KEYS) == keys - 6
    assert (await client.business()).account_id != gone.account_id


async def test_numbers_of_others_are_refused(running: Running) -> None:
    client = running.client
    user = await client.register()
    await client.business()
    other = client.business(BUSINESS_NUMBER, credential=OTHER_GATEWAY)
    assert await reason_of(other) == "FORBIDDEN"
    assert await reason_of(client.business(user.number)) == "ALREADY_EXISTS"
    assert await reason_of(client.register(BUSINESS_NUMBER)) == "ALREADY_EXISTS"
    assert await reason_of(client.business(credential=user.credential)) == "FORBIDDEN"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: setattr(r, "phone_number", "030123"), "INVALID_PHONE_NUMBER"),
        (lambda r: setattr(r, "verification_id", "zz"), "INVALID_FIELD"),
        (lambda r: setattr(r, "code", "12345"), "INVALID_FIELD"),
        (lambda r: setattr(r, "identity_key", b"\x05" * 32), "INVALID_FIELD"),
        (lambda r: setattr(r, "identity_key", b"\x04" * 33), "INVALID_FIELD"),
        (lambda r: setattr(r, "registration_id", 0), "INVALID_FIELD"),
        (lambda r: setattr(r, "registration_id", 16_384), "INVALID_FIELD"),
        (lambda r: r.pre_keys.ClearField("signed_pre_key"), "INVALID_FIELD"),
        (lambda r: r.pre_keys.ClearField("last_resort_kyber_pre_key"), "INVALID_FIELD"),
    ],
)
async def test_bad_registrations_change_nothing(running: Running, change: Any, reason: str) -> None:
    number, identity = running.client.number(), Identity()
    id_, code = await requested(running, number)
    request = register_request(number, identity, id_, code)
    change(request)
    assert await reason_of(running.client.accounts.Register(request)) == reason
    assert await running.store.count(ACCOUNTS) == 0


@pytest.mark.parametrize("seconds", [0, 31 * 86_400])
async def test_a_business_has_a_retention(running: Running, seconds: int) -> None:
    call = running.client.business(retention_s=seconds)
    assert await reason_of(call) == "INVALID_FIELD"


async def test_a_retention_changes_for_what_comes_and_only_by_its_gateway(running: Running) -> None:
    accounts, business = running.client.accounts, await running.client.business()
    user = await running.client.register()
    request = accounts_pb2.SetBusinessRetentionRequest(account_id=business.account_id)
    request.retention.FromSeconds(300)
    for credential, reason in ((user.credential, "FORBIDDEN"), (OTHER_GATEWAY, "FORBIDDEN")):
        call = accounts.SetBusinessRetention(request, metadata=bearer(credential))
        assert await reason_of(call) == reason
    await accounts.SetBusinessRetention(request, metadata=bearer(GATEWAY))
    account = await running.relay.directory.get(business.account_id)
    assert account is not None
    assert account.retention_ms == 300_000


@pytest.mark.parametrize(
    ("account_id", "seconds", "reason"),
    [(b"x", 300, "INVALID_FIELD"), (b"x" * 16, 300, "FORBIDDEN"), (b"x" * 16, 0, "INVALID_FIELD")],
)
async def test_bad_retentions_are_refused(
    running: Running, account_id: bytes, seconds: int, reason: str
) -> None:
    request = accounts_pb2.SetBusinessRetentionRequest(account_id=account_id)
    request.retention.FromSeconds(seconds)
    call = running.client.accounts.SetBusinessRetention(request, metadata=bearer(GATEWAY))
    assert await reason_of(call) == reason


@pytest.mark.parametrize("number", ["", "+1", "0049301234567", "+49 30 123456"])
async def test_codes_are_sent_to_possible_numbers_only(running: Running, number: str) -> None:
    request = accounts_pb2.RequestVerificationRequest(phone_number=number)
    call = running.client.accounts.RequestVerification(request)
    assert await reason_of(call) == "INVALID_PHONE_NUMBER"


async def test_wrong_credentials_are_all_alike(running: Running) -> None:
    user = await running.client.register()
    wrong = user.credential[:-1] + ("A" if user.credential[-1] != "A" else "B")
    unknown = f"dv.{'0' * 32}.1.{user.credential.rpartition('.')[2]}"
    other_device = user.credential.replace(".1.", ".2.")
    texts = set()
    for credential in (wrong, unknown, other_device, "dv", GATEWAY + "x", "gw.nobody." + "x" * 32):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await running.client.accounts.ListDevices(
                accounts_pb2.ListDevicesRequest(), metadata=bearer(credential)
            )
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        texts.add(refused.value.details())
    assert len(texts) == 1


async def test_nothing_at_rest_shows_a_number_a_code_or_a_credential(running: Running) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    id_, code = await requested(running, user.number)
    link = await client.accounts.CreateDeviceLink(
        accounts_pb2.CreateDeviceLinkRequest(), metadata=as_(user)
    )
    assert await running.store.count(LINKS) == 1
    stored = b""
    for table in TABLES:
        for key, record in await running.store.scan(table, limit=1_000):
            stored += key + record.value
    secret = user.credential.rpartition(".")[2]
    for text in (user.number, business.number, code, secret, link.link_token, id_):
        assert text.encode() not in stored
        assert text[1:].encode() not in stored


async def test_codes_are_cleared_at_the_start_and_at_every_sweep(running: Running) -> None:
    for _ in range(2):
        await asyncio.wait_for(running.outbox.cleared.wait(), 30)
        running.outbox.cleared.clear()
        running.relay.sweeper.wake()
