"""When statuses are written: at once, together in traffic, and never against a waiting turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from letterlock.v1 import messaging_pb2 as api
from letterlockd.gateway import progress as progress_module
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.inbox import INBOX, Inbox
from letterlockd.gateway.milestones import Milestones
from letterlockd.gateway.news import Advance
from letterlockd.gateway.progress import Progress
from letterlockd.gateway.recent import Written
from letterlockd.gateway.tables import MESSAGES
from letterlockd.model.ids import AccountId, ConversationId, MessageId
from letterlockd.records.v1 import gateway_pb2 as records
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Check, Commit, Outcome, Put, StoreFull

from tests.harness.clock import FakeClock, settle

ACCOUNT = AccountId(b"a" * 16)
CONVERSATION = ConversationId(ACCOUNT + b"u" * 16)
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
SENT, DELIVERED = api.MESSAGE_STATUS_SENT, api.MESSAGE_STATUS_DELIVERED


class Desk:
    """A running Progress over a store that holds some accepted messages."""

    def __init__(
        self,
        progress: Progress,
        inbox: Inbox,
        messages: list[MessageId],
        store: MemoryStore,
        clock: FakeClock,
    ) -> None:
        self.progress = progress
        self.clock = clock
        self.store = store
        self.messages = messages
        self._inbox = inbox

    def record(self, news: list[Advance]) -> asyncio.Event:
        done = asyncio.Event()
        self.progress.record(news, [], done.set)
        return done

    def record_overtakable(self, news: list[Advance]) -> asyncio.Event:
        done = asyncio.Event()
        self.progress.record_overtakable(news, [], done.set)
        return done

    def news(self, message: MessageId, status: api.MessageStatus.ValueType) -> Advance:
        return Advance(message, status, CONVERSATION)

    async def rest(self) -> None:
        """Nothing happens for so long that the next batch need not gather."""
        await self.clock.advance(HOUR_MS)

    async def events(self, message: MessageId) -> list[int]:
        page = await self._inbox.read(ACCOUNT, 0, limit=1_000)
        told = [item.content.status for item in page.items]
        return [status.status for status in told if status.message_id == message]


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(progress_module, "_GATHER_SECONDS", 3_600.0)
    clock = FakeClock()
    store = MemoryStore([MESSAGES, INBOX])
    messages = [MessageId(bytes([n]) * 16) for n in range(1, 100)]
    value = records.MessageRecord(
        conversation=CONVERSATION, status=api.MESSAGE_STATUS_ACCEPTED
    ).SerializeToString()
    dies = clock.now_ms() + DAY_MS
    await store.commit([[Put(MESSAGES, message, value, dies) for message in messages]])
    inbox = await Inbox.open(store, clock)
    progress = Progress(store, inbox, clock, Milestones(clock, Counters(), None))
    running = asyncio.create_task(progress.run())
    yield Desk(progress, inbox, messages, store, clock)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def busy(desk: Desk) -> MessageId:
    """Just after a batch; returns a message that was not in it."""
    one, other, *_ = desk.messages
    await desk.record([desk.news(one, SENT)]).wait()
    return other


async def test_with_little_to_do_each_status_is_told_at_once(desk: Desk) -> None:
    message = desk.messages[0]
    await desk.record([desk.news(message, SENT)]).wait()
    await desk.rest()
    await desk.record([desk.news(message, DELIVERED)]).wait()
    assert await desk.events(message) == [SENT, DELIVERED]


async def test_in_traffic_two_changes_of_a_message_become_one_event(desk: Desk) -> None:
    message = await busy(desk)
    sent = desk.record([desk.news(message, SENT)])
    await settle()
    assert not sent.is_set()
    delivered = desk.record([desk.news(message, DELIVERED)])
    await desk.progress.record_with([], [])  # a turn comes, and with it all that waits
    assert sent.is_set()
    assert delivered.is_set()
    assert await desk.events(message) == [DELIVERED]


async def test_in_traffic_sent_is_overtaken_by_delivered(
    desk: Desk,
) -> None:
    message = await busy(desk)
    sent = desk.record_overtakable([desk.news(message, SENT)])
    await desk.progress.record_with([desk.news(message, DELIVERED)], [])
    assert not sent.is_set()
    await desk.progress.idle()
    assert sent.is_set()
    assert await desk.events(message) == [DELIVERED]


async def test_sent_is_told_when_nothing_better_comes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "_OVERTAKE_SECONDS", 0.0)
    message = await busy(desk)
    sent = desk.record_overtakable([desk.news(message, SENT)])
    await settle()
    await desk.progress.record_with([], [])  # a turn comes, and with it all that waits
    assert sent.is_set()
    assert await desk.events(message) == [SENT]
    await desk.rest()
    await desk.record([desk.news(message, DELIVERED)]).wait()
    assert await desk.events(message) == [SENT, DELIVERED]


async def test_with_little_to_do_nothing_is_kept_back(desk: Desk) -> None:
    message = desk.messages[0]
    await desk.record_overtakable([desk.news(message, SENT)]).wait()
    assert await desk.events(message) == [SENT]


async def test_a_turn_is_not_kept_waiting(desk: Desk) -> None:
    message = await busy(desk)
    outcome = await desk.progress.record_with([desk.news(message, SENT)], [])
    assert outcome is None
    assert await desk.events(message) == [SENT]


async def test_a_turn_that_fails_leaves_no_status_behind_that_is_not_on_disk(desk: Desk) -> None:
    message = desk.messages[0]
    record = records.MessageRecord(conversation=CONVERSATION, status=api.MESSAGE_STATUS_ACCEPTED)
    desk.progress.accepted(message, Written(record, DAY_MS * 100_000), DAY_MS)
    failing = Check(MESSAGES, message, 99)
    assert await desk.progress.record_with([desk.news(message, SENT)], [failing]) is not None
    await desk.rest()
    await desk.record([desk.news(message, SENT)]).wait()
    assert await desk.events(message) == [SENT]


async def test_what_was_accepted_need_not_be_read_back(desk: Desk) -> None:
    message = MessageId(b"m" * 16)  # has no row: only `accepted` tells of it
    record = records.MessageRecord(conversation=CONVERSATION, status=api.MESSAGE_STATUS_ACCEPTED)
    desk.progress.accepted(message, Written(record, DAY_MS * 100_000), DAY_MS)
    await desk.record([desk.news(message, SENT)]).wait()
    await desk.rest()
    await desk.record([desk.news(message, SENT), desk.news(message, DELIVERED)]).wait()
    assert await desk.events(message) == [SENT, DELIVERED]


async def test_events_of_one_business_end_with_its_own_messages(desk: Desk) -> None:
    """Another one's longer retention, in the same batch, keeps nothing longer."""
    other, now_ms = ConversationId(b"b" * 16 + b"u" * 16), FakeClock().now_ms()
    for message, conversation, days in ((b"1", CONVERSATION, 2), (b"2", other, 30)):
        record = records.MessageRecord(
            conversation=conversation, status=api.MESSAGE_STATUS_ACCEPTED
        )
        written = Written(record, now_ms + days * DAY_MS)
        desk.progress.accepted(MessageId(message * 16), written, now_ms)
    news = [
        Advance(MessageId(b"1" * 16), SENT, CONVERSATION),
        Advance(MessageId(b"2" * 16), SENT, other),
    ]
    await desk.record(news).wait()
    ends = {key[:16]: row.expires_at_ms for key, row in await desk.store.scan(INBOX, limit=10)}
    assert ends == {ACCOUNT: now_ms + 2 * DAY_MS, b"b" * 16: now_ms + 30 * DAY_MS}


async def test_a_full_store_keeps_statuses_rather_than_what_could_be_sent_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for room would keep waiting what makes room: news are told in order."""
    commit = desk.store.commit

    async def room_for_little(commits: Sequence[Commit]) -> list[Outcome]:
        if sum(len(put.value) for one in commits for put in one if isinstance(put, Put)) > 1_000:
            raise StoreFull("no space left", retry_after_ms=3_600_000)
        return await commit(commits)

    monkeypatch.setattr(desk.store, "commit", room_for_little)
    message = desk.messages[0]
    await desk.record([desk.news(message, SENT)._replace(payload=b"p" * 2_000)]).wait()
    row = await desk.store.get(MESSAGES, message)
    assert row is not None
    record = records.MessageRecord.FromString(row.value)
    assert (record.status, record.sealed_payload) == (SENT, b"")
