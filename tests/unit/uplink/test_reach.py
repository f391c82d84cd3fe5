"""What the operator is told of a relay that cannot be reached, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from letterlock.relay.v1 import mailbox_pb2, mailbox_pb2_grpc
from letterlockd.rpc.tls import local_identity
from letterlockd.uplink import Answered, Uplink, open_channel
from letterlockd.uplink.reach import Reach
from structlog.testing import capture_logs

from tests.harness.past import Unseen

DELIVERS = mailbox_pb2.ConnectResponse(deliveries=mailbox_pb2.Deliveries())
OPENED = mailbox_pb2.ConnectResponse(opened=mailbox_pb2.Opened(window=10))

Entries = list[dict[str, Any]]


class Refuses(mailbox_pb2_grpc.MailboxServicer):
    """Does not know the first callers, takes the next one."""

    def __init__(self, refused: int) -> None:
        self.refused = refused

    async def Connect(self, requests: object, context: Any) -> None:
        if self.refused:
            self.refused -= 1
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "secret words")
        await context.read()
        await context.write(OPENED)
        await context.write(DELIVERS)
        await asyncio.Event().wait()


class Heard:
    """Hears that something was delivered."""

    def __init__(self) -> None:
        self.news = asyncio.Event()

    def answered(self, answers: Sequence[Answered[int]]) -> None:
        raise AssertionError

    def delivered(self, items: Sequence[mailbox_pb2.Item], epoch: int) -> None:
        self.news.set()

    def lost(self) -> None:
        pass


async def told(channel: grpc.aio.Channel, address: str, entries: Entries, event: str) -> None:
    """Runs an uplink until `event` is logged."""
    failed, heard = asyncio.Event(), Heard()

    def fraction() -> float:  # asked after each failed try
        failed.set()
        return 0.0

    uplink: Uplink[int] = Uplink(
        channel, "gw.x.y", window=1, past=Unseen(), fraction=fraction, address=address
    )
    task = asyncio.create_task(uplink.run(heard))
    try:
        async with asyncio.timeout(60):
            await (failed if event == "relay_unreachable" else heard.news).wait()
        assert event in {entry["event"] for entry in entries}
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_credential_that_is_not_known_is_told_once_and_then_that_it_is(
    tmp_path: Path,
) -> None:
    server, relay = grpc.aio.server(), Refuses(3)
    mailbox_pb2_grpc.add_MailboxServicer_to_server(relay, server)
    server.add_insecure_port(f"unix:{tmp_path}/relay.sock")
    await server.start()
    try:
        with capture_logs() as entries:
            async with open_channel(f"unix:{tmp_path}/relay.sock", None) as channel:
                await told(channel, "relay:1", entries, "relay_reached")
    finally:
        await server.stop(0)
    assert [entry["event"] for entry in entries] == ["relay_unreachable", "relay_reached"]
    refused, reached = entries
    assert (refused["log_level"], reached["log_level"]) == ("warning", "info")
    assert refused["address"] == reached["address"] == "relay:1"
    assert "keys/gateways/<id>.hash" in refused["reason"]
    assert "secret words" not in str(entries)


@pytest.mark.parametrize(
    ("authority", "name", "words"),
    [("other", "", "not vouched for"), ("own", "elsewhere.example", "another name")],
)
async def test_a_certificate_that_does_not_fit(
    tmp_path: Path, authority: str, name: str, words: str
) -> None:
    now = datetime.now(UTC)
    own = local_identity(tmp_path / "own", [], now)
    local_identity(tmp_path / "other", [], now)
    server = grpc.aio.server()
    pair = (own.private_key, own.chain)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    trust = grpc.ssl_channel_credentials((tmp_path / authority / "ca.crt").read_bytes())
    try:
        with capture_logs() as entries:
            async with open_channel(f"127.0.0.1:{port}", trust, name=name) as channel:
                await told(channel, "relay:1", entries, "relay_unreachable")
    finally:
        await server.stop(0)
    assert words in entries[0]["reason"]


async def test_nothing_listens_there(unused_tcp_port: int) -> None:
    address = f"127.0.0.1:{unused_tcp_port}"
    with capture_logs() as entries:
        async with open_channel(address, None) as channel:
            await told(channel, address, entries, "relay_unreachable")
    assert "connection refused" in entries[0]["reason"]


def test_another_reason_is_told_again_and_the_same_is_not() -> None:
    reach = Reach("relay:1")
    with capture_logs() as entries:
        for error in (TimeoutError(), TimeoutError(), ValueError("x"), TimeoutError()):
            reach.failed(error)
        reach.reached()
        reach.failed(TimeoutError())
    assert [entry.get("reason") for entry in entries] == [
        *("no answer in time", "x", "no answer in time"),
        None,
        "no answer in time",
    ]
