"""The order of a gateway's submissions over refusals that pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc
from letterlock.relay.v1 import mailbox_pb2
from letterlock.v1 import errors_pb2
from letterlockd.relay.refusals import rate_limited
from letterlockd.relay.refused_pairs import RefusedPairs
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.tables import TABLES
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.store.history import HISTORY
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Commit, Outcome, StoreFull

from tests.harness.clock import FakeClock, until
from tests.harness.relay import GATEWAY, Running, memory_store, running_relay, submission

FULL = errors_pb2.ERROR_REASON_STORAGE_FULL
TAKEN = errors_pb2.ERROR_REASON_UNSPECIFIED


def made(
    message_id: bytes, recipient: bytes = b"r", *, sender: bytes = b"s"
) -> mailbox_pb2.Submission:
    return mailbox_pb2.Submission(
        message_id=message_id, sender_account_id=sender, recipient_account_id=recipient
    )


def test_what_follows_is_refused_alike_until_one_comes_again() -> None:
    pairs, refusal = RefusedPairs(), rate_limited(70)
    pairs.add(made(b"1"), refusal)
    assert pairs.behind(made(b"2")) == refusal
    assert pairs.behind(made(b"3", b"other")) is None
    assert pairs.behind(made(b"3", sender=b"other")) is None
    assert len(pairs) == 2
    assert pairs.behind(made(b"2")) is None  # 1 may have expired at the gateway
    assert pairs.behind(made(b"4")) is None
    assert len(pairs) == 0


def test_what_has_no_place_in_the_order_neither_waits_nor_holds_up() -> None:
    resend, report, typing = made(b"1"), made(b"2"), made(b"3")
    resend.resend.attempt = 1
    report.envelopes.add(type=8)
    typing.ephemeral = True
    pairs = RefusedPairs()
    for one in (resend, report, typing):
        pairs.add(one, rate_limited(1))
    assert not pairs
    pairs.add(made(b"4"), rate_limited(1))
    assert [pairs.behind(one) for one in (resend, report, typing)] == [None] * 3


def reasons(results: Sequence[mailbox_pb2.SubmissionResult]) -> dict[bytes, int]:
    return {result.message_id: result.refused.reason for result in results}


class HeldStore(MemoryStore):
    """Holds a commit up while `go` is set and not yet so, then refuses it."""

    def __init__(self) -> None:
        super().__init__([*TABLES, *keyring.TABLES, DELETIONS, HISTORY])
        self.go: asyncio.Event | None = None
        self.reached = asyncio.Event()

    async def commit(self, commits: Sequence[Commit]) -> list[Outcome]:
        if self.go is not None:
            self.reached.set()
            await self.go.wait()
            self.go = None
            raise StoreFull("no space left", retry_after_ms=1_000)
        return await super().commit(commits)


async def test_no_submission_overtakes_one_that_a_full_disk_refused(
    running: Running, clock: FakeClock
) -> None:
    client, store = running.client, running.store
    user, other, business = (
        await client.register(),
        await client.register(),
        await client.business(),
    )
    now_ms, gateway = clock.now_ms(), await client.connect(GATEWAY)
    first, second = (submission(user, now_ms=now_ms, sender=business.account_id) for _ in "12")
    elsewhere = submission(other, now_ms=now_ms, sender=business.account_id)
    store.full = True  # type: ignore[attr-defined]
    assert reasons(await gateway.submitted(first)) == {first.message_id: FULL}
    store.full = False  # type: ignore[attr-defined]
    (result,) = await gateway.submitted(second)
    assert result.refused.reason == FULL
    assert result.refused.retry_after.ToMilliseconds() > 0
    assert reasons(await gateway.submitted(elsewhere)) == {elsewhere.message_id: TAKEN}
    assert set(reasons(await gateway.submitted(first, second)).values()) == {TAKEN}
    device = await client.connect(user)
    assert [item.envelope.message_id for item in await device.items(2)] == [
        first.message_id,
        second.message_id,
    ]


async def test_what_is_staged_behind_a_refused_batch_is_refused_with_it(
    tmp_path: Path, clock: FakeClock
) -> None:
    store = HeldStore()
    async with running_relay(tmp_path, store, clock) as running:
        client = running.client
        user, business = await client.register(), await client.business()
        gateway = await client.connect(GATEWAY)
        sent = [
            submission(user, now_ms=clock.now_ms(), sender=business.account_id) for _ in range(2)
        ]
        store.go = asyncio.Event()
        await gateway.submit(sent[0])
        await store.reached.wait()
        await gateway.submit(sent[1])
        await until(lambda: running.relay.mailing.waiting >= 2)
        store.go.set()
        results: list[mailbox_pb2.SubmissionResult] = []
        while len(results) < 2:
            results += (await gateway.next("results")).results
        assert reasons(results) == {one.message_id: FULL for one in sent}
        assert set(reasons(await gateway.submitted(*sent)).values()) == {TAKEN}


async def test_the_rule_ends_with_the_stream(running: Running, clock: FakeClock) -> None:
    client, store = running.client, running.store
    user, business = await client.register(), await client.business()
    first, second = (
        submission(user, now_ms=clock.now_ms(), sender=business.account_id) for _ in "12"
    )
    gateway = await client.connect(GATEWAY)
    store.full = True  # type: ignore[attr-defined]
    await gateway.submitted(first)
    store.full = False  # type: ignore[attr-defined]
    gateway = await client.connect(GATEWAY)
    assert reasons(await gateway.submitted(second)) == {second.message_id: TAKEN}


async def test_a_device_may_go_on_after_a_refusal(running: Running, clock: FakeClock) -> None:
    client, store = running.client, running.store
    user, business = await client.register(), await client.business()
    first, second = (submission(business, now_ms=clock.now_ms()) for _ in "12")
    device = await client.connect(user)
    store.full = True  # type: ignore[attr-defined]
    await device.submitted(first)
    store.full = False  # type: ignore[attr-defined]
    assert reasons(await device.submitted(second)) == {second.message_id: TAKEN}


async def test_too_many_that_do_not_come_again_end_the_stream(
    tmp_path: Path, clock: FakeClock
) -> None:
    store, settings = memory_store(), RelaySettings(max_refused=1)
    async with running_relay(tmp_path, store, clock, settings=settings) as running:
        user, business = await running.client.register(), await running.client.business()
        gateway = await running.client.connect(GATEWAY)
        store.full = True
        for _ in range(2):
            await gateway.submitted(
                submission(user, now_ms=clock.now_ms(), sender=business.account_id)
            )
        await gateway.submit(submission(user, now_ms=clock.now_ms(), sender=business.account_id))
        assert (await gateway.fault()).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
