"""Receive through real processes: backends that share a number, dead letters, replay, restarts."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from letterlock.business.events import Event
from letterlock.business.receive_stream import ReceiveStream
from letterlock.cli.commands import main
from letterlock.v1 import receiving_pb2

from tests.harness.people import Shop, user
from tests.harness.supervised import Daemon

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

Numbers = Callable[[], str]


async def next_text(events: ReceiveStream) -> Event:
    """The next message; what else comes is acknowledged."""
    async with asyncio.timeout(60):
        async for event in events:
            if event.text is not None:
                return event
            event.ack()
    raise AssertionError("the stream ended")


async def letterlock(shop: Shop, *arguments: str) -> dict[str, object]:
    """Run the command against the shop's gateway; its one line."""
    shared = (f"--gateway={shop.daemon.addresses['gateway']}", f"--ca={shop.daemon.ca}")
    call = [*shared, f"--token={shop.token}", "inbox", arguments[0], f"--number={shop.number}"]
    done = await asyncio.to_thread(CliRunner().invoke, main, [*call, *arguments[1:]])
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.output)
    return found


async def test_a_dead_letter_is_listed_shown_replayed_and_dropped(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    told = await letterlock(shop, "policy", "--max-attempts=2", "--keep=1")
    assert told == {"max_attempts": 2, "keep_acknowledged": "1 hours"}
    async with (
        shop.client() as business,
        user(shared, number()) as ana,
        business.receive() as events,
    ):
        await ana.send_text(shop.number, "poison")
        await ana.send_text(shop.number, "after it")
        for attempt in (1, 2):
            event = await next_text(events)
            assert (event.text, event.attempt, event.redelivered) == (
                "poison",
                attempt,
                attempt == 2,
            )
            event.nack()
        dead_id = event.event_id
        event = await next_text(events)
        assert (event.text, event.attempt) == ("after it", 1)
        event.ack()
        async with asyncio.timeout(60):
            while not (dead := [letter async for letter in business.inbox.dead_letters()]):
                pass  # it becomes one a moment after the nack
        assert [letter.event_id for letter in dead] == [dead_id]
        assert dead[0].last_failure == receiving_pb2.ATTEMPT_FAILURE_NACKED
        listed = await letterlock(shop, "dead-letters")
        assert (listed["event_id"], listed["attempts"]) == (dead_id, 2)
        assert "poison" not in str(listed)
        assert "poison" in str(await letterlock(shop, "show", dead_id))
        assert await letterlock(shop, "replay-dead-letters", "--all") == {"replayed": 1}
        again = await next_text(events)
        assert (again.event_id, again.text, again.redelivered) == (dead_id, "poison", True)
        again.nack()
        (await next_text(events)).nack()
        async with asyncio.timeout(60):
            while await letterlock(shop, "drop-dead-letters", dead_id) != {"dropped": 1}:
                pass


async def test_kept_events_are_given_again_from_a_time_on(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with (
        shop.client() as business,
        user(shared, number()) as ana,
    ):
        await business.inbox.set_policy(keep_acknowledged=600)
        async with business.receive() as events:
            await ana.send_text(shop.number, "before")
            (await next_text(events)).ack()
            since = datetime.now(UTC)
            await ana.send_text(shop.number, "once more")
            (first := await next_text(events)).ack()
        assert await business.inbox.replay(since=since) >= 1
        async with business.receive() as events:
            again = await next_text(events)
            assert (again.event_id, again.text) == (first.event_id, "once more")
            assert again.redelivered
            again.ack()


async def test_backends_share_a_number_and_a_lost_one_s_work_goes_to_the_other(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with (
        shop.client() as first,
        shop.client() as second,
        user(shared, number()) as ana,
        first.receive(window=1) as ones,
        second.receive(window=1) as twos,
    ):
        for text in ("1", "2"):
            await ana.send_text(shop.number, text)
        waiting = [asyncio.ensure_future(next_text(stream)) for stream in (ones, twos)]
        async with asyncio.timeout(60):
            done, (other,) = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        held = done.pop().result()
        assert held.text == "1"
        await (ones if waiting[0] is not other else twos).aclose()  # unacknowledged
        async with asyncio.timeout(60):
            again = await other
        assert (again.event_id, again.attempt, again.redelivered) == (held.event_id, 1, True)
        again.ack()
        assert (await next_text(twos if waiting[0] is not other else ones)).text == "2"
