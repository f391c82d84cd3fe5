"""`letterlock`: businesses, numbers and tokens for operators, messages for businesses.

Arguments in, one row or one clear line out. What a command needs of the network it does through the
SDK. Exit codes: 0 done, 1 other, 2 bad input, 3 access, 4 not found, 5 conflict, 6 busy,
7 unavailable.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import click

from letterlock.business.client import Start
from letterlock.business.events import Event
from letterlock.cli.context import Context, listens, waits
from letterlock.cli.device import device
from letterlock.cli.group import Commands, take_json_anywhere
from letterlock.cli.health import health
from letterlock.cli.identity import identity
from letterlock.cli.inbox import inbox
from letterlock.cli.outages import telling_outages
from letterlock.cli.output import Output, event_row, message_row, values
from letterlock.cli.patience import patiently
from letterlock.cli.registry import MAX_RETENTION_SECONDS, audit, business, number, token
from letterlock.cli.settings import DEFAULT_DATA, Settings, check_user, read_profile
from letterlock.cli.watch import watch_events
from letterlock.errors import InvalidRequest


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--gateway", envvar="LETTERLOCK_GATEWAY", help="host:port of the gateway.")
@click.option("--relay", envvar="LETTERLOCK_RELAY", help="host:port of the relay.")
@click.option("--ca", envvar="LETTERLOCK_CA", help="PEM file of the authority to trust.")
@click.option("--token", envvar="LETTERLOCK_TOKEN", help="Operator or business token.")
@click.option(
    "--data",
    envvar="LETTERLOCK_DATA",
    type=click.Path(path_type=Path),
    default=DEFAULT_DATA,
    show_default=True,
    help="Data folder of a daemon on this machine: its token and certificate are used.",
)
@click.option("--insecure", is_flag=True, help="Plaintext: for tests on one machine.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines, as when output is piped.")
@click.version_option(package_name="letterlock", prog_name="letterlock")
@click.pass_context
def main(
    ctx: click.Context,
    gateway: str | None,
    relay: str | None,
    ca: str | None,
    token: str | None,
    data: Path,
    insecure: bool,
    as_json: bool,
) -> None:
    """Manage businesses on a Letterlock gateway, and send and receive their messages."""
    logging.getLogger("letterlock").setLevel(logging.ERROR)  # what fails is told in one line
    settings = Settings(data, gateway, relay, ca, token, insecure, read_profile())
    ctx.obj = Context(settings, Output(as_json))


main.add_command(audit)
main.add_command(business)
main.add_command(device)
main.add_command(health)
main.add_command(identity)
main.add_command(inbox)
main.add_command(number)
main.add_command(token)


@main.command()
@click.option("--from", "sender", required=True, help="The business number, E.164.")
@click.option("--to", required=True, help="The user's number (E.164) or user id.")
@click.option("--key", help="Idempotency key [a fresh one].")
@click.option("--ttl", type=float, help="Seconds that delivery is tried.")
@click.argument("text")
@click.pass_obj
@waits
async def send(
    context: Context, sender: str, to: str, key: str | None, ttl: float | None, text: str
) -> None:
    """Send a text from a business number to a user."""
    check_user(to, "--to")
    if key == "":  # a fresh one in its place would send twice what was meant to be sent once
        limit = "1 to 64 characters; without --key a fresh one is made"
        raise InvalidRequest("empty key", field="key", limit=limit)
    if ttl is not None and not 1 <= ttl <= MAX_RETENTION_SECONDS:
        limit = "1 second to the business's retention, which is 30 days at most"
        raise InvalidRequest("out of range", field="--ttl", limit=limit)
    async with context.business(sender) as client:
        accepted = await client.send(to=to, text=text, idempotency_key=key, time_to_live=ttl)
    context.out.row(values(accepted))


@main.command()
@click.option("--from", "sender", required=True, help="The business number, E.164.")
@click.option("--id", "message_id", help="The message id.")
@click.option("--key", help="Its idempotency key.")
@click.pass_obj
@waits
async def status(context: Context, sender: str, message_id: str | None, key: str | None) -> None:
    """Show how far a sent message has come."""
    if (message_id is None) == (key is None):
        raise InvalidRequest("which message?", field="options", limit="--id or --key, one of them")
    async with context.business(sender) as client:
        found = await client.message(message_id, idempotency_key=key)
    context.out.row(message_row(found))


@main.command()
@click.option("--number", required=True, help="The business number, E.164.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many events.")
@click.option("--wait/--no-wait", default=True, help="Wait for events to come, or stop when none.")
@click.option("--ack/--no-ack", default=True, help="Acknowledge what is printed.")
@click.pass_obj
@listens
async def receive(context: Context, number: str, count: int | None, wait: bool, ack: bool) -> None:
    """Print the events of a business number, one JSON line each, and acknowledge them."""
    told = telling_outages(context, "gateway") if wait else nullcontext()
    with told:
        async with context.business(number, patient=wait) as client, client.receive() as events:
            left = count
            async for event in events if wait else soon(events.until_caught_up()):
                context.out.line(event_row(event))
                if ack:
                    event.ack()
                left = None if left is None else left - 1
                if left == 0:
                    return


@main.command()
@click.option("--number", required=True, help="The business number, E.164.")
@click.option("--ack/--no-ack", default=False, help="Acknowledge what is shown.")
@click.option("--new", is_flag=True, help="Only what happens from now on.")
@click.pass_obj
@listens
async def watch(context: Context, number: str, ack: bool, new: bool) -> None:
    """Watch a business number: its events and statuses as they come. Ctrl-C ends it.

    It shares the number with its other receivers: they do not get what is shown here, until this
    ends without having acknowledged it.
    """
    start = Start.NEW if new else Start.OLDEST
    with telling_outages(context, "gateway"):
        async with context.business(number) as client, client.receive(start=start) as events:
            await watch_events(context.out, events, ack=ack)


async def soon(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """The events, each of which has to come within the CLI's patience. Raises Unavailable."""
    while True:
        async with patiently():
            event = await anext(events, None)
        if event is None:
            return
        yield event


take_json_anywhere(main)
