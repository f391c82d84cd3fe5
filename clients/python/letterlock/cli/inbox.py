"""`letterlock inbox`: dead letters of a business number, replay, and how its events are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import click

from letterlock.business.inbox import MAX_ATTEMPTS
from letterlock.cli.asking import for_good, make_sure
from letterlock.cli.context import Context, run_command, waits
from letterlock.cli.group import Suggesting
from letterlock.cli.output import moment, values
from letterlock.errors import InvalidRequest, NotFound
from letterlock.v1 import receiving_pb2

COLUMNS = ("event_id", "user_id", "kind", "event_time", "dead_time", "attempts", "last_failure")
MAX_KEEP_HOURS = 7 * 24
"""The contract's limit, a week."""
_PART = 1_000

_number = click.option("--number", required=True, help="The business number, E.164.")
_which = click.argument("event_ids", nargs=-1, metavar="[EVENT_ID]...")
_all = click.option("--all", "every", is_flag=True, help="All that there are.")


@click.group(cls=Suggesting)
def inbox() -> None:
    """Dead letters and replay of a business number."""


@inbox.command("dead-letters")
@_number
@click.pass_obj
@waits
async def dead_letters(context: Context, number: str) -> None:
    """List events that were given up, oldest first, without content."""
    async with context.business(number) as client:
        rows = [_row(letter) async for letter in client.inbox.dead_letters()]
    context.out.rows(rows, COLUMNS)


@inbox.command("show")
@_number
@click.argument("event_id")
@click.pass_obj
@waits
async def show(context: Context, number: str, event_id: str) -> None:
    """Show one dead letter with its content."""
    async with context.business(number) as client:
        letter = await client.inbox.dead_letter(event_id)
    context.out.row(_row(letter) | {"event": values(letter.event)})


@inbox.command("replay-dead-letters")
@_number
@_all
@_which
@click.pass_obj
@waits
async def replay_dead_letters(
    context: Context, number: str, every: bool, event_ids: tuple[str, ...]
) -> None:
    """Have dead letters given to the backend again."""
    _check_choice(every, event_ids)
    async with context.business(number) as client:
        ids = await _chosen(client.inbox.dead_letters(), every, event_ids)
        count = sum([await client.inbox.replay_dead_letters(part) for part in _parts(ids)])
    context.out.row({"replayed": count})


@inbox.command("drop-dead-letters")
@_number
@_all
@_which
@for_good
@click.pass_obj
def drop_dead_letters(
    context: Context, number: str, every: bool, event_ids: tuple[str, ...], yes: bool
) -> None:
    """Delete dead letters for good; --all asks first, and deletes those that it has counted."""
    _check_choice(every, event_ids)
    counted: list[str] = []

    async def look() -> str:
        async with context.business(number) as client:
            counted.extend(await _chosen(client.inbox.dead_letters(), every, event_ids))
        if not counted:
            raise NotFound("the number has no dead letters")
        return f"{len(counted)} dead letter{'s' if len(counted) > 1 else ''} of {number}"

    async def drop() -> int:
        async with context.business(number) as client:
            ids = counted or await _chosen(client.inbox.dead_letters(), every, event_ids)
            return sum([await client.inbox.drop_dead_letters(part) for part in _parts(ids)])

    make_sure(yes or not every, look, "their content")
    context.out.row({"dropped": run_command(drop())})


class Moment(click.ParamType[datetime]):
    """A time in ISO 8601; without an offset it is in UTC, as every time that the CLI prints."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The time in UTC."""
        try:
            found = datetime.fromisoformat(str(value))
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            form = "ISO 8601, such as 2026-11-22T07:50:00.051Z or 2026-11-22T08:50:00+01:00"
            self.fail(f"no time: it has to be in {form}", param, ctx)


@inbox.command("replay")
@_number
@click.option(
    "--since",
    type=Moment(),
    help="From this time on, in ISO 8601 (2026-11-22T07:50:00.051Z); UTC where no offset is given.",
)
@click.option("--from-event", "event_id", help="From this event on.")
@click.pass_obj
@waits
async def replay(
    context: Context, number: str, since: datetime | None, event_id: str | None
) -> None:
    """Have acknowledged events given to the backend again, as far as the policy kept them."""
    if (since is None) == (event_id is None):
        limit = "--since or --from-event, one of them"
        raise InvalidRequest("from where?", field="options", limit=limit)
    async with context.business(number) as client:
        count = await client.inbox.replay(since=since, event_id=event_id)
    context.out.row({"replayed": count})


@inbox.command("policy")
@_number
@click.option(
    "--max-attempts",
    type=click.IntRange(1, MAX_ATTEMPTS),
    help="Failed attempts before an event is given up.",
)
@click.option("--keep", type=float, help="Hours that acknowledged events are kept for replay.")
@click.pass_obj
@waits
async def policy(
    context: Context, number: str, max_attempts: int | None, keep: float | None
) -> None:
    """Show how the number's events are treated, or change what is given."""
    if keep is not None and not 0 <= keep <= MAX_KEEP_HOURS:
        raise InvalidRequest("out of range", field="keep", limit=f"0 to {MAX_KEEP_HOURS} hours")
    async with context.business(number) as client:
        found = await client.inbox.policy()
        if max_attempts is not None or keep is not None:
            kept = found.keep_acknowledged.ToNanoseconds() / 1e9
            found = await client.inbox.set_policy(
                max_attempts=found.max_attempts if max_attempts is None else max_attempts,
                keep_acknowledged=kept if keep is None else keep * 3_600,
            )
    hours = found.keep_acknowledged.ToNanoseconds() / 3.6e12
    context.out.row({"max_attempts": found.max_attempts, "keep_acknowledged": f"{hours:g} hours"})


def _check_choice(every: bool, event_ids: tuple[str, ...]) -> None:
    if every == bool(event_ids):
        raise InvalidRequest("which ones?", field="EVENT_ID", limit="one or more, or --all")


async def _chosen(
    letters: AsyncIterator[receiving_pb2.DeadLetter], every: bool, event_ids: tuple[str, ...]
) -> list[str]:
    return [letter.event_id async for letter in letters] if every else list(event_ids)


def _parts(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + _PART] for start in range(0, len(ids), _PART)]


def _row(letter: receiving_pb2.DeadLetter) -> dict[str, object]:
    failure = receiving_pb2.AttemptFailure.Name(letter.last_failure)
    return {
        "event_id": letter.event_id,
        "user_id": letter.user_id,
        "kind": letter.kind,
        "event_time": moment(letter.event_time.ToDatetime(UTC)),
        "dead_time": moment(letter.dead_time.ToDatetime(UTC)),
        "expire_time": moment(letter.expire_time.ToDatetime(UTC)),
        "attempts": letter.attempts,
        "last_failure": failure.removeprefix("ATTEMPT_FAILURE_"),
    }
