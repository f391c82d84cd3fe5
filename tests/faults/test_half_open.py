"""Connections whose other end is gone without a word: each end notices by its own keep-alive.

The link reads from both sides and passes nothing on, so TCP itself sees nothing wrong. Keep-alive
is as in production, but for its times. The connections are quiet before: gRPC slows its pings down
then, unless it is told not to.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
import letterlock.channel
import letterlockd.uplink.channel
import pytest
from letterlock.relay.v1 import mailbox_pb2, mailbox_pb2_grpc
from letterlock.v1 import messaging_pb2, messaging_pb2_grpc
from letterlockd.rpc.server import Limits, RpcServer, Service
from letterlockd.rpc.tls import local_identity
from letterlockd.uplink import Answered, Uplink

from tests.harness.channels import OWN_CONNECTION
from tests.harness.link import DOWN, UP, Link
from tests.harness.past import Unseen

WAIT_SECONDS = 40
"""Less than gRPC needs to notice by its own: keep-alive that is not set up makes the test fail."""

QUIET_PINGS = 4
TIMES = {
    "grpc.keepalive_time_ms": 300,
    "grpc.keepalive_timeout_ms": 2_000,
    "grpc.http2.ping_timeout_ms": 2_000,
}


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (letterlockd.uplink.channel, letterlock.channel):
        monkeypatch.setattr(module, "_OPTIONS", _shortened(module))


def _shortened(module: ModuleType) -> list[tuple[str, int]]:
    options = dict(module._OPTIONS)
    assert options.keys() >= TIMES.keys()
    return list((options | TIMES).items())


class Relay(mailbox_pb2_grpc.MailboxServicer):
    """Opens every stream and answers every submission."""

    async def Connect(self, requests: object, context: Any) -> None:
        await context.read()
        opened = mailbox_pb2.Opened(window=10)
        await context.write(mailbox_pb2.ConnectResponse(opened=opened))
        while (frame := await context.read()) is not grpc.aio.EOF:
            answer = mailbox_pb2.ConnectResponse()
            for one in frame.submissions.submissions:
                answer.results.results.add(
                    message_id=one.message_id, sender_account_id=one.sender_account_id
                )
            await context.write(answer)


class Backend(messaging_pb2_grpc.MessagingServicer):
    """Holds every Receive stream open, and says when one is over."""

    def __init__(self) -> None:
        self.opened, self.ended = asyncio.Event(), asyncio.Event()

    async def Receive(self, requests: object, context: Any) -> None:
        await context.write(messaging_pb2.ReceiveResponse())
        self.opened.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


class Heard:
    """What an uplink tells."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[int] = asyncio.Queue()
        self.losses: asyncio.Queue[None] = asyncio.Queue()

    def answered(self, answers: Sequence[Answered[int]]) -> None:
        for answer in answers:
            self.answers.put_nowait(answer.tag)

    def delivered(self, items: Sequence[mailbox_pb2.Item], epoch: int) -> None:
        raise AssertionError

    def lost(self) -> None:
        self.losses.put_nowait(None)


@asynccontextmanager
async def behind_a_link(add: Any, servicer: object) -> AsyncIterator[Link]:
    """A server that takes any number of pings, and a link to it."""
    server = grpc.aio.server(options=[("grpc.http2.max_ping_strikes", 0)])
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Link(lambda: f"127.0.0.1:{port}").listening() as link:
            yield link
    finally:
        await server.stop(0)


def offer(uplink: Uplink[int], tag: int) -> None:
    message_id, account = tag.to_bytes(16, "big"), b"a" * 16
    submission = mailbox_pb2.Submission(message_id=message_id, sender_account_id=account)
    uplink.offer(tag, account, message_id, submission.SerializeToString())


async def test_the_gateway_notices_that_its_relay_is_gone_and_goes_on_elsewhere() -> None:
    add = mailbox_pb2_grpc.add_MailboxServicer_to_server
    async with (
        behind_a_link(add, Relay()) as link,
        letterlockd.uplink.open_channel(link.address, None) as channel,
        asyncio.timeout(WAIT_SECONDS),
    ):
        heard = Heard()
        uplink: Uplink[int] = Uplink(
            channel, "gw.x.y", window=10, past=Unseen(), fraction=lambda: 0.0
        )
        running = asyncio.create_task(uplink.run(heard))
        offer(uplink, 1)
        assert await heard.answers.get() == 1
        await link.passes(UP, QUIET_PINGS)
        async with link.held(UP, DOWN):
            offer(uplink, 2)  # goes nowhere
            await heard.losses.get()
            assert await heard.answers.get() == 2  # over another connection
            assert link.opened >= 2
        running.cancel()
        await asyncio.wait({running})


async def test_a_backend_notices_that_its_gateway_is_gone() -> None:
    add = messaging_pb2_grpc.add_MessagingServicer_to_server
    async with (
        behind_a_link(add, Backend()) as link,
        letterlock.channel.open_channel(link.address, insecure=True) as channel,
        asyncio.timeout(WAIT_SECONDS),
    ):
        call = messaging_pb2_grpc.MessagingStub(channel).Receive()
        await call.read()
        await link.passes(UP, QUIET_PINGS)
        async with link.held(UP, DOWN):
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await call.read()
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE


class NoTokens:
    async def authenticate(self, bearer: str) -> object:
        return "caller"


async def test_a_server_notices_that_its_caller_is_gone(tmp_path: Path) -> None:
    """Gateway and relay alike: both serve with `RpcServer`."""
    backend = Backend()
    identity = local_identity(tmp_path, [], dt.datetime.now(dt.UTC))
    assert identity.ca_path is not None
    server = RpcServer(
        [
            Service(
                "letterlock.v1.Messaging",
                backend,
                messaging_pb2_grpc.add_MessagingServicer_to_server,
            )
        ],
        listen="127.0.0.1:0",
        identity=identity,
        authenticator=NoTokens(),
        limits=Limits(keepalive_s=1, keepalive_timeout_s=2),
        reflect=False,
    )
    await server.start()
    trusted = grpc.ssl_channel_credentials(identity.ca_path.read_bytes())
    async with (
        Link(lambda: f"127.0.0.1:{server.port}").listening() as link,
        grpc.aio.secure_channel(link.address, trusted, OWN_CONNECTION) as channel,
        asyncio.timeout(WAIT_SECONDS),
    ):
        stub = messaging_pb2_grpc.MessagingStub(channel)
        call = stub.Receive(metadata=(("authorization", "Bearer good"),))
        await call.read()
        await link.passes(DOWN, QUIET_PINGS)
        async with link.held(UP, DOWN):
            assert not backend.ended.is_set()
            await backend.ended.wait()
        call.cancel()
    await server.drain(0)
