"""The stream against relays that are cut, absent, or break the rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from letterlock.relay.v1 import keys_pb2, keys_pb2_grpc, mailbox_pb2, mailbox_pb2_grpc
from letterlockd.errors import CallerError, InvalidField
from letterlockd.rpc.faults import to_status
from letterlockd.uplink import Answered, RelayUnavailable, Uplink, open_channel

from tests.harness.past import Unseen

ACCOUNT, CREDENTIAL = b"a" * 16, "gw.test.secret"

Script = Callable[[Any, Any], Awaitable[None]]


class ScriptedRelay(mailbox_pb2_grpc.MailboxServicer, keys_pb2_grpc.KeysServicer):
    """Plays one script for each stream, then ends it."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.credentials: list[object] = []
        self.fault: Exception | None = None

    async def Connect(self, requests: object, context: Any) -> None:
        self.credentials.append(dict(context.invocation_metadata()).get("authorization"))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        await script(context, await context.read())

    async def FetchBundles(self, request: Any, context: Any) -> keys_pb2.FetchBundlesResponse:
        if self.fault is not None:
            status = to_status(self.fault)
            context.set_trailing_metadata(status.trailing_metadata)
            await context.abort(status.code, status.details)
        return keys_pb2.FetchBundlesResponse(results=[keys_pb2.BundleResult()])


class Heard:
    """A `Traffic` that remembers."""

    def __init__(self) -> None:
        self.tags: list[int] = []
        self.items: list[tuple[int, int]] = []
        self.losses = 0
        self.news = asyncio.Event()

    def answered(self, answers: Sequence[Answered[int]]) -> None:
        self.tags += [answer.tag for answer in answers]
        self.news.set()

    def delivered(self, items: Sequence[mailbox_pb2.Item], epoch: int) -> None:
        self.items += [(item.item_id, epoch) for item in items]
        self.news.set()

    def lost(self) -> None:
        self.losses += 1
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.news.clear()
            await self.news.wait()


OPENED = mailbox_pb2.ConnectResponse(opened=mailbox_pb2.Opened(window=10))


async def opens_and_ends(context: Any, first: Any) -> None:
    await context.write(OPENED)


async def does_not_open(context: Any, first: Any) -> None:
    await context.write(mailbox_pb2.ConnectResponse(queue_empty=mailbox_pb2.QueueEmpty()))
    await asyncio.Event().wait()


async def answers_everything(context: Any, first: Any) -> None:
    assert first.open.window == 10
    await context.write(OPENED)
    while True:
        frame = await context.read()
        if frame is grpc.aio.EOF:
            return
        answer = mailbox_pb2.ConnectResponse()
        for one in frame.submissions.submissions:
            answer.results.results.add(
                message_id=one.message_id, sender_account_id=one.sender_account_id
            )
        await context.write(answer)


async def takes_one_frame_and_ends(context: Any, first: Any) -> None:
    await context.write(OPENED)
    await context.read()


async def delivers_and_hears_acks(context: Any, first: Any) -> None:
    await context.write(OPENED)
    answer = mailbox_pb2.ConnectResponse()
    answer.deliveries.items.add(item_id=5)
    await context.write(answer)
    frame = await context.read()
    answer = mailbox_pb2.ConnectResponse()
    answer.deliveries.items.add(item_id=1000 + frame.acks.item_ids[0])
    await context.write(answer)
    await asyncio.Event().wait()


@asynccontextmanager
async def linked(folder: Path, relay: ScriptedRelay) -> AsyncIterator[tuple[Uplink[int], Heard]]:
    server = grpc.aio.server()
    mailbox_pb2_grpc.add_MailboxServicer_to_server(relay, server)
    keys_pb2_grpc.add_KeysServicer_to_server(relay, server)
    server.add_insecure_port(f"unix:{folder}/relay.sock")
    await server.start()
    heard = Heard()
    async with open_channel(f"unix:{folder}/relay.sock", None) as channel:
        uplink: Uplink[int] = Uplink(
            channel, CREDENTIAL, window=10, past=Unseen(), fraction=lambda: 0.0
        )
        task = asyncio.create_task(uplink.run(heard))
        try:
            yield uplink, heard
        finally:
            task.cancel()
            await asyncio.wait({task})
            await server.stop(0)


def offer(uplink: Uplink[int], tag: int) -> None:
    message_id = tag.to_bytes(16, "big")
    submission = mailbox_pb2.Submission(message_id=message_id, sender_account_id=ACCOUNT)
    uplink.offer(tag, ACCOUNT, message_id, submission.SerializeToString())


async def test_it_says_who_it_is_and_submits(tmp_path: Path) -> None:
    relay = ScriptedRelay(answers_everything)
    async with linked(tmp_path, relay) as (uplink, heard):
        for tag in range(600):
            offer(uplink, tag)
        await heard.until(lambda: len(heard.tags) == 600)
        assert heard.tags == list(range(600))
        assert uplink.connected
        assert relay.credentials == [f"Bearer {CREDENTIAL}"]


@pytest.mark.parametrize("bad", [opens_and_ends, does_not_open, takes_one_frame_and_ends])
async def test_after_a_lost_stream_it_says_again_what_was_not_answered(
    tmp_path: Path, bad: Script
) -> None:
    relay = ScriptedRelay(bad, answers_everything)
    async with linked(tmp_path, relay) as (uplink, heard):
        for tag in range(3):
            offer(uplink, tag)
        await heard.until(lambda: len(heard.tags) == 3)
        assert heard.tags == [0, 1, 2]
        assert len(relay.credentials) == 2
        assert heard.losses == 1


@pytest.mark.parametrize(("given", "shown"), [(b"m" * 64, b"m" * 64), (b"m" * 65, b"")])
async def test_it_shows_the_relay_the_newest_mark_that_it_keeps(
    tmp_path: Path, given: bytes, shown: bytes
) -> None:
    marks: list[bytes] = []

    async def gives_a_mark_and_ends(context: Any, first: Any) -> None:
        marks.append(first.open.store_mark)
        opened = mailbox_pb2.ConnectResponse(store_mark=given)
        opened.opened.window = 10
        await context.write(opened)
        await context.read()

    async def answers(context: Any, first: Any) -> None:
        marks.append(first.open.store_mark)
        await answers_everything(context, first)

    relay = ScriptedRelay(gives_a_mark_and_ends, answers)
    async with linked(tmp_path, relay) as (uplink, heard):
        offer(uplink, 1)
        await heard.until(lambda: heard.tags == [1])
    assert marks == [b"", shown]


async def test_items_are_acknowledged_on_their_own_stream_only(tmp_path: Path) -> None:
    async with linked(tmp_path, ScriptedRelay(delivers_and_hears_acks)) as (uplink, heard):
        await heard.until(lambda: len(heard.items) == 1)
        ((item_id, epoch),) = heard.items
        uplink.acknowledge([77], epoch + 1)
        uplink.acknowledge([item_id], epoch)
        await heard.until(lambda: len(heard.items) == 2)
        assert heard.items[1] == (1000 + item_id, epoch)


async def test_calls_to_a_relay_that_is_away(tmp_path: Path) -> None:
    async with open_channel(f"unix:{tmp_path}/nobody.sock", None) as channel:
        uplink: Uplink[int] = Uplink(
            channel, CREDENTIAL, window=1, past=Unseen(), fraction=lambda: 0.0
        )
        with pytest.raises(RelayUnavailable) as raised:
            await uplink.calls.fetch_bundles([keys_pb2.BundleTarget()])
        assert raised.value.reason == "RELAY_UNAVAILABLE"
        assert raised.value.retry_after_ms


async def test_calls_that_the_relay_refuses_keep_their_reason(tmp_path: Path) -> None:
    relay = ScriptedRelay(answers_everything)
    relay.fault = InvalidField("targets", "at most 100")
    async with linked(tmp_path, relay) as (uplink, _):
        with pytest.raises(CallerError) as raised:
            await uplink.calls.fetch_bundles([keys_pb2.BundleTarget()])
        assert raised.value.reason == "INVALID_FIELD"


async def test_an_answer_to_another_question_is_no_answer(tmp_path: Path) -> None:
    async with linked(tmp_path, ScriptedRelay(answers_everything)) as (uplink, _):
        targets = [keys_pb2.BundleTarget(), keys_pb2.BundleTarget()]
        with pytest.raises(RelayUnavailable):
            await uplink.calls.fetch_bundles(targets)
