"""An in-process relay that keeps everything in memory, and can be told where to cut a stream.

It obeys the contracts of accounts.proto, keys.proto and mailbox.proto closely enough to test a
device; it verifies no signature and knows no rate.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import grpc
import grpc.aio
from letterlock.relay.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    mailbox_pb2,
    mailbox_pb2_grpc,
)
from letterlock.v1 import errors_pb2

from tests.harness.fakes_sdk import fail
from tests.harness.served import served

CODE = "123456"


@dataclass
class FakeDevice:
    account_id: bytes
    device_id: int
    registration_id: int
    credential: str
    keys: keys_pb2.PreKeyUpload
    items: dict[int, mailbox_pb2.Item] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    stream: int = 0


@dataclass
class FakeAccount:
    account_id: bytes
    phone_number: str
    identity_key: bytes
    devices: dict[int, FakeDevice] = field(default_factory=dict)


@dataclass
class ConnectPlan:
    """What one Connect stream does before it is cut; each number is how many pass first."""

    opens: bool = True
    stores: int | None = None
    answers: bool = True
    delivers: int | None = None


@dataclass
class FakeRelay:
    accounts: dict[bytes, FakeAccount] = field(default_factory=dict)
    plans: dict[bytes, deque[ConnectPlan]] = field(default_factory=dict)
    submitted: dict[tuple[bytes, bytes], mailbox_pb2.Submission] = field(default_factory=dict)
    refusals: deque[errors_pb2.Refusal] = field(default_factory=deque)
    received: list[mailbox_pb2.Submission] = field(default_factory=list)
    acked: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    streams: int = 0
    uploads: int = 0
    fetches: int = 0
    tamper: Callable[[mailbox_pb2.Envelope], None] | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    links: dict[str, bytes] = field(default_factory=dict)
    _item_id: int = 0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that this relay did makes the condition true."""
        while not condition():
            self.moved.clear()
            await self.moved.wait()

    def by_number(self, phone_number: str) -> FakeAccount | None:
        for account in self.accounts.values():
            if account.phone_number == phone_number:
                return account
        return None

    async def caller(self, context: grpc.aio.ServicerContext) -> FakeDevice:
        metadata = dict(context.invocation_metadata() or ())
        credential = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        for account in self.accounts.values():
            for device in account.devices.values():
                if device.credential == credential:
                    return device
        await fail(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        raise AssertionError

    def store(
        self, sender: FakeDevice, submission: mailbox_pb2.Submission
    ) -> mailbox_pb2.SubmissionResult:
        self.received.append(submission)
        result = mailbox_pb2.SubmissionResult(message_id=submission.message_id)
        if self.refusals:
            result.refused.CopyFrom(self.refusals.popleft())
            return result
        recipient = self.accounts[submission.recipient_account_id]
        given = {e.device_id: e.registration_id for e in submission.envelopes}
        known = {d.device_id: d.registration_id for d in recipient.devices.values()}
        if submission.HasField("resend") or submission.envelopes[0].type == 8:
            known = {device: known[device] for device in given if device in known}
        if submission.envelopes[0].type == 8:
            known = dict.fromkeys(known, 0)
        result.missing_device_ids.extend(sorted(known.keys() - given.keys()))
        result.extra_device_ids.extend(sorted(given.keys() - known.keys()))
        result.stale_device_ids.extend(d for d in given if d in known and given[d] != known[d])
        if given != known:
            result.refused.reason = errors_pb2.ERROR_REASON_DEVICES_CHANGED
            return result
        key = (sender.account_id, submission.message_id)
        if key not in self.submitted:
            self.submitted[key] = submission
            for envelope in submission.envelopes:
                self._put(sender, submission, envelope)
        self.moved.set()
        return result

    def _put(
        self,
        sender: FakeDevice,
        submission: mailbox_pb2.Submission,
        sealed: mailbox_pb2.DeviceEnvelope,
    ) -> None:
        device = self.accounts[submission.recipient_account_id].devices[sealed.device_id]
        if submission.ephemeral and not device.stream:
            return
        envelope = mailbox_pb2.Envelope(
            message_id=submission.message_id,
            sender_account_id=sender.account_id,
            sender_device_id=sender.device_id,
            recipient_account_id=device.account_id,
            recipient_device_id=device.device_id,
            type=sealed.type,
            body=sealed.body,
            resend=submission.resend if submission.HasField("resend") else None,
            expire_time=submission.expire_time,
        )
        if self.tamper is not None:
            self.tamper(envelope)
        self.put_item(device, mailbox_pb2.Item(envelope=envelope))

    def put_item(self, device: FakeDevice, item: mailbox_pb2.Item) -> None:
        self._item_id += 1
        item.item_id = self._item_id
        device.items[item.item_id] = item
        device.news.set()


class FakeAccounts(accounts_pb2_grpc.AccountsServicer):
    def __init__(self, relay: FakeRelay) -> None:
        self.relay = relay

    async def RequestVerification(self, request, context):  # type: ignore[no-untyped-def, override]
        return accounts_pb2.RequestVerificationResponse(verification_id="a" * 32)

    async def Register(self, request, context):  # type: ignore[no-untyped-def, override]
        if request.code != CODE:
            await fail(context, grpc.StatusCode.FAILED_PRECONDITION, "VERIFICATION_FAILED")
        account = self.relay.by_number(request.phone_number)
        if account is None:
            account = FakeAccount(uuid.uuid4().bytes, request.phone_number, request.identity_key)
            self.relay.accounts[account.account_id] = account
        account.identity_key = request.identity_key
        for former in account.devices.values():
            former.stream, former.credential = -1, ""
            former.news.set()
        account.devices.clear()
        return self._join(account, request)

    async def CreateDeviceLink(self, request, context):  # type: ignore[no-untyped-def, override]
        device = await self.relay.caller(context)
        token = uuid.uuid4().hex
        self.relay.links[token] = device.account_id
        return accounts_pb2.CreateDeviceLinkResponse(link_token=token)

    async def LinkDevice(self, request, context):  # type: ignore[no-untyped-def, override]
        return self._join(self.relay.accounts[self.relay.links.pop(request.link_token)], request)

    async def ListDevices(self, request, context):  # type: ignore[no-untyped-def, override]
        caller = await self.relay.caller(context)
        devices = self.relay.accounts[caller.account_id].devices
        return accounts_pb2.ListDevicesResponse(
            devices=[accounts_pb2.Device(device_id=device_id) for device_id in devices]
        )

    async def RemoveDevice(self, request, context):  # type: ignore[no-untyped-def, override]
        caller = await self.relay.caller(context)
        del self.relay.accounts[caller.account_id].devices[request.device_id]
        return accounts_pb2.RemoveDeviceResponse()

    async def DeleteAccount(self, request, context):  # type: ignore[no-untyped-def, override]
        caller = await self.relay.caller(context)
        del self.relay.accounts[caller.account_id]
        return accounts_pb2.DeleteAccountResponse()

    @staticmethod
    def _join(account, request):  # type: ignore[no-untyped-def]
        device_id = 1 + max(account.devices, default=0)
        credential = uuid.uuid4().hex
        account.devices[device_id] = FakeDevice(
            account.account_id, device_id, request.registration_id, credential, request.pre_keys
        )
        return accounts_pb2.RegisterResponse(
            account_id=account.account_id, device_id=device_id, credential=credential
        )


class FakeKeys(keys_pb2_grpc.KeysServicer):
    def __init__(self, relay: FakeRelay) -> None:
        self.relay = relay

    async def UploadPreKeys(self, request, context):  # type: ignore[no-untyped-def, override]
        device = await self.relay.caller(context)
        self.relay.uploads += 1
        device.keys.MergeFrom(request.pre_keys)
        self.relay.moved.set()
        return keys_pb2.UploadPreKeysResponse()

    async def GetPreKeyCount(self, request, context):  # type: ignore[no-untyped-def, override]
        device = await self.relay.caller(context)
        return keys_pb2.GetPreKeyCountResponse(
            one_time_pre_keys=len(device.keys.one_time_pre_keys),
            one_time_kyber_pre_keys=len(device.keys.one_time_kyber_pre_keys),
        )

    async def FetchBundles(self, request, context):  # type: ignore[no-untyped-def, override]
        await self.relay.caller(context)
        self.relay.fetches += 1
        answer = keys_pb2.FetchBundlesResponse()
        for target in request.targets:
            account = (
                self.relay.by_number(target.phone_number)
                if target.phone_number
                else self.relay.accounts.get(target.account_id)
            )
            result = answer.results.add()
            if account is None:
                result.refused.reason = errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT
                continue
            result.bundles.account_id = account.account_id
            result.bundles.identity_key = account.identity_key
            for device in account.devices.values():
                if not target.device_ids or device.device_id in target.device_ids:
                    result.bundles.devices.append(_bundle(device))
        return answer


class FakeMailbox(mailbox_pb2_grpc.MailboxServicer):
    def __init__(self, relay: FakeRelay) -> None:
        self.relay = relay

    async def Connect(self, request_iterator, context):  # type: ignore[no-untyped-def, override]
        device = await self.relay.caller(context)
        first = await anext(request_iterator)
        plans = self.relay.plans.get(device.account_id)
        plan = plans.popleft() if plans else None
        if plan is not None and not plan.opens:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        self.relay.streams += 1
        mine = device.stream = self.relay.streams
        device.news.set()
        answers: deque[mailbox_pb2.ConnectResponse] = deque()
        ended = asyncio.Event()
        yield mailbox_pb2.ConnectResponse(opened=mailbox_pb2.Opened(window=first.open.window))
        self.relay.moved.set()
        on_stream: set[int] = set()
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read(device, request_iterator, plan, answers, ended))
            while device.stream == mine:
                device.news.clear()
                while answers:
                    yield answers.popleft()
                room = first.open.window - len(on_stream & device.items.keys())
                if plan is not None and plan.delivers is not None:
                    room = min(room, plan.delivers - len(on_stream))
                items = [i for k, i in device.items.items() if k not in on_stream][:room]
                if items:
                    on_stream.update(item.item_id for item in items)
                    deliveries = mailbox_pb2.Deliveries(items=items)
                    yield mailbox_pb2.ConnectResponse(deliveries=deliveries)
                    self.relay.moved.set()
                elif ended.is_set():
                    break
                elif plan is not None and plan.delivers == len(on_stream):
                    ended.set()
                    break
                else:
                    await device.news.wait()
            reader.cancel()
        if not device.credential:
            await fail(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        if device.stream != mine:
            await fail(context, grpc.StatusCode.FAILED_PRECONDITION, "REPLACED")
        device.stream = 0
        if plan is not None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    async def _read(self, device, request_iterator, plan, answers, ended):  # type: ignore[no-untyped-def]
        stored = 0
        async for frame in request_iterator:
            for item_id in (*frame.acks.item_ids, *frame.acks.failed_item_ids):
                if device.items.pop(item_id, None) is not None:
                    self.relay.acked.append(item_id)
            self.relay.failed += frame.acks.failed_item_ids
            for submission in frame.submissions.submissions:
                if plan is not None and plan.stores is not None and stored >= plan.stores:
                    ended.set()
                    break
                stored += 1
                result = self.relay.store(device, submission)
                if plan is None or plan.answers:
                    results = mailbox_pb2.SubmissionResults(results=[result])
                    answers.append(mailbox_pb2.ConnectResponse(results=results))
            if plan is not None and plan.stores is not None and stored >= plan.stores:
                ended.set()
            device.news.set()
            self.relay.moved.set()
            if ended.is_set():
                return
        ended.set()
        device.news.set()


def _bundle(device: FakeDevice) -> keys_pb2.DeviceBundle:
    keys = device.keys
    bundle = keys_pb2.DeviceBundle(
        device_id=device.device_id,
        registration_id=device.registration_id,
        signed_pre_key=keys.signed_pre_key,
        kyber_pre_key=keys.last_resort_kyber_pre_key,
    )
    if keys.one_time_kyber_pre_keys:
        bundle.kyber_pre_key.CopyFrom(keys.one_time_kyber_pre_keys.pop(0))
    if keys.one_time_pre_keys:
        bundle.one_time_pre_key.CopyFrom(keys.one_time_pre_keys.pop(0))
    return bundle


@asynccontextmanager
async def serving_relay(relay: FakeRelay) -> AsyncIterator[str]:
    """Serve it on loopback; gives the target."""
    async with served(
        partial(accounts_pb2_grpc.add_AccountsServicer_to_server, FakeAccounts(relay)),
        partial(keys_pb2_grpc.add_KeysServicer_to_server, FakeKeys(relay)),
        partial(mailbox_pb2_grpc.add_MailboxServicer_to_server, FakeMailbox(relay)),
    ) as target:
        yield target
