"""A relay over an in-process gRPC server on a Unix socket, and callers with real signatures."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from letterlock.relay.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    mailbox_pb2,
    mailbox_pb2_grpc,
)
from letterlockd.clock import Clock
from letterlockd.relay.room import Relay
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.tables import TABLES
from letterlockd.rpc.interceptors import Gatekeeper
from letterlockd.rpc.relay_accounts import AccountsServicer
from letterlockd.rpc.relay_keys import KeysServicer
from letterlockd.rpc.relay_mailbox import MailboxServicer, add_mailbox_servicer
from letterlockd.rpc.server import OPEN_METHODS
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.history import HISTORY, History
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Store
from letterlockd.traces import Traces
from tripleratchet import xeddsa
from tripleratchet.keys import IdentityKeyPair

from tests.harness.channels import OWN_CONNECTION

GATEWAY = "gw.main.0123456789abcdef0123456789abcdef"
OTHER_GATEWAY = "gw.other.fedcba9876543210fedcba9876543210"
GATEWAYS = {
    credential.split(".")[1]: hashlib.sha256(credential.encode()).hexdigest()
    for credential in (GATEWAY, OTHER_GATEWAY)
}
BUSINESS_NUMBER = "+4930123456"


def memory_store() -> MemoryStore:
    return MemoryStore([*TABLES, *keyring.TABLES, DELETIONS, HISTORY])


class Outbox:
    """A `VerificationSender` that keeps what it was to send."""

    def __init__(self) -> None:
        self.codes: dict[str, str] = {}
        self.cleared = asyncio.Event()

    async def send(self, verification_id: str, number: str, code: str) -> None:
        self.codes[verification_id] = code

    async def clear(self, pending: Callable[[str], Awaitable[bool]]) -> None:
        """Told alone: tests look at codes after their time."""
        self.cleared.set()


@dataclass
class Identity:
    """An account's identity on the caller's side, with a source of key ids."""

    pair: IdentityKeyPair = field(default_factory=lambda: IdentityKeyPair.generate(os.urandom))
    next_id: int = 1

    @property
    def public(self) -> bytes:
        return self.pair.public

    def sign(self, message: bytes) -> bytes:
        return xeddsa.sign(self.pair.private, message, os.urandom)

    def upload(self, one_time: int = 2, kyber: int = 2) -> keys_pb2.PreKeyUpload:
        return keys_pb2.PreKeyUpload(
            signed_pre_key=self.signed(),
            last_resort_kyber_pre_key=self.kyber(),
            one_time_pre_keys=[
                keys_pb2.PreKey(key_id=self._id(), public_key=b"\x05" + os.urandom(32))
                for _ in range(one_time)
            ],
            one_time_kyber_pre_keys=[self.kyber() for _ in range(kyber)],
        )

    def signed(self) -> keys_pb2.SignedPreKey:
        public = b"\x05" + os.urandom(32)
        return keys_pb2.SignedPreKey(
            key_id=self._id(), public_key=public, signature=self.sign(public)
        )

    def kyber(self) -> keys_pb2.KyberPreKey:
        public = b"\x08" + os.urandom(1568)
        return keys_pb2.KyberPreKey(
            key_id=self._id(), public_key=public, signature=self.sign(public)
        )

    def _id(self) -> int:
        self.next_id += 1
        return self.next_id


@dataclass
class Peer:
    """A registered device or business number."""

    credential: str
    account_id: bytes
    device_id: int
    registration_id: int
    identity: Identity
    number: str = ""


class Stream:
    """A mailbox stream on the caller's side: frames by kind, in the order they came."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def frame(self) -> mailbox_pb2.ConnectResponse:
        frame = await self.call.read()
        assert frame is not grpc.aio.EOF
        return frame

    async def expect(self, kind: str) -> Any:
        frame = await self.frame()
        assert frame.WhichOneof("frame") == kind, frame
        return getattr(frame, kind)

    async def next(self, kind: str) -> Any:
        """The next frame of this kind; `queue_empty` in between is passed over."""
        while True:
            frame = await self.frame()
            found = frame.WhichOneof("frame")
            if found == kind:
                return getattr(frame, kind)
            assert found == "queue_empty", frame

    async def items(self, count: int) -> list[mailbox_pb2.Item]:
        found: list[mailbox_pb2.Item] = []
        while len(found) < count:
            found += (await self.next("deliveries")).items
        assert len(found) == count
        return found

    async def submit(self, *submissions: mailbox_pb2.Submission) -> None:
        await self.call.write(
            mailbox_pb2.ConnectRequest(submissions=mailbox_pb2.Submissions(submissions=submissions))
        )

    async def submitted(
        self, *submissions: mailbox_pb2.Submission
    ) -> list[mailbox_pb2.SubmissionResult]:
        await self.submit(*submissions)
        results: list[mailbox_pb2.SubmissionResult] = []
        while len(results) < len(submissions):
            results += (await self.next("results")).results
        return results

    async def ack(self, items: Iterable[mailbox_pb2.Item]) -> None:
        ids = [item.item_id for item in items]
        await self.call.write(mailbox_pb2.ConnectRequest(acks=mailbox_pb2.Acks(item_ids=ids)))

    async def close(self) -> None:
        self.call.cancel()

    async def fault(self) -> grpc.aio.AioRpcError:
        """The error that the stream ends with."""
        try:
            while await self.call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("the stream ended without an error")


class RelayClient:
    """Calls a relay as whoever is asked for."""

    def __init__(self, channel: grpc.aio.Channel, outbox: Outbox) -> None:
        self.accounts: Any = accounts_pb2_grpc.AccountsStub(channel)
        self.keys: Any = keys_pb2_grpc.KeysStub(channel)
        self.mailbox: Any = mailbox_pb2_grpc.MailboxStub(channel)
        self.outbox = outbox
        self._numbers = 0

    def number(self) -> str:
        self._numbers += 1
        return f"+49301{self._numbers:06d}"

    async def register(
        self,
        number: str | None = None,
        *,
        identity: Identity | None = None,
        registration_id: int = 100,
        upload: keys_pb2.PreKeyUpload | None = None,
    ) -> Peer:
        number = number or self.number()
        identity = identity or Identity()
        sent = await self.accounts.RequestVerification(
            accounts_pb2.RequestVerificationRequest(phone_number=number)
        )
        answer = await self.accounts.Register(
            accounts_pb2.RegisterRequest(
                verification_id=sent.verification_id,
                code=self.outbox.codes[sent.verification_id],
                phone_number=number,
                identity_key=identity.public,
                registration_id=registration_id,
                pre_keys=upload or identity.upload(),
            )
        )
        return Peer(
            answer.credential,
            answer.account_id,
            answer.device_id,
            registration_id,
            identity,
            number,
        )

    async def link(self, first: Peer, *, registration_id: int = 200) -> Peer:
        link = await self.accounts.CreateDeviceLink(
            accounts_pb2.CreateDeviceLinkRequest(), metadata=as_(first)
        )
        answer = await self.accounts.LinkDevice(
            accounts_pb2.LinkDeviceRequest(
                link_token=link.link_token,
                registration_id=registration_id,
                pre_keys=first.identity.upload(),
            )
        )
        return Peer(
            answer.credential,
            answer.account_id,
            answer.device_id,
            registration_id,
            first.identity,
            first.number,
        )

    async def business(
        self,
        number: str = BUSINESS_NUMBER,
        *,
        identity: Identity | None = None,
        credential: str = GATEWAY,
        registration_id: int = 300,
        retention_s: int = 30 * 86_400,
    ) -> Peer:
        identity = identity or Identity()
        request = accounts_pb2.RegisterBusinessNumberRequest(
            phone_number=number,
            identity_key=identity.public,
            registration_id=registration_id,
            pre_keys=identity.upload(),
        )
        request.retention.FromSeconds(retention_s)
        answer = await self.accounts.RegisterBusinessNumber(request, metadata=bearer(credential))
        return Peer(credential, answer.account_id, 1, registration_id, identity, number)

    async def connect(self, peer: Peer | str, window: int = 0) -> Stream:
        credential = peer if isinstance(peer, str) else peer.credential
        stream = Stream(self.mailbox.Connect(metadata=bearer(credential)))
        await stream.call.write(mailbox_pb2.ConnectRequest(open=mailbox_pb2.Open(window=window)))
        await stream.expect("opened")
        return stream


def bearer(credential: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {credential}"),)


def as_(peer: Peer) -> tuple[tuple[str, str], ...]:
    return bearer(peer.credential)


def submission(
    *to: Peer,
    now_ms: int,
    sender: bytes = b"",
    body: bytes = b"ciphertext",
    message_id: bytes | None = None,
    ttl_ms: int = 60_000,
    receipt: bool = True,
    ephemeral: bool = False,
) -> mailbox_pb2.Submission:
    made = mailbox_pb2.Submission(
        message_id=message_id or os.urandom(16),
        sender_account_id=sender,
        recipient_account_id=to[0].account_id,
        envelopes=[
            mailbox_pb2.DeviceEnvelope(
                device_id=peer.device_id,
                registration_id=peer.registration_id,
                type=2,
                body=body,
            )
            for peer in to
        ],
        receipt_wanted=receipt,
        ephemeral=ephemeral,
    )
    made.expire_time.FromMilliseconds(now_ms + ttl_ms)
    return made


@dataclass
class Running:
    relay: Relay
    client: RelayClient
    store: Store
    outbox: Outbox


@asynccontextmanager
async def running_relay(
    folder: Path,
    store: Store,
    clock: Clock,
    *,
    settings: RelaySettings | None = None,
    traces: Traces | None = None,
) -> AsyncIterator[Running]:
    """A relay that serves on a socket in `folder`; the store stays open afterwards."""
    outbox = Outbox()
    keys = await keyring.Keyring.open(store, FileKeyProvider(folder / "master.key"), clock)
    relay = await Relay.open(
        store,
        keys,
        clock,
        os.urandom,
        settings or RelaySettings(),
        GATEWAYS,
        outbox,
        await History.open(store, lambda: 1),
        traces,
    )
    gatekeeper = Gatekeeper(relay.authenticator, open_methods=OPEN_METHODS, max_calls=1_000)
    server = grpc.aio.server(interceptors=[gatekeeper])
    accounts_pb2_grpc.add_AccountsServicer_to_server(AccountsServicer(relay), server)
    keys_pb2_grpc.add_KeysServicer_to_server(KeysServicer(relay), server)
    add_mailbox_servicer(MailboxServicer(relay), server)
    address = f"unix:{folder / 'relay.sock'}"
    server.add_insecure_port(address)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as channel:
            yield Running(relay, RelayClient(channel, outbox), store, outbox)
    finally:
        await server.stop(0)
        await asyncio.wait_for(relay.aclose(), 30)
