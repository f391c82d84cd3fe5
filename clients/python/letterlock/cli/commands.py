"""`letterlock`: businesses, numbers and tokens for operators, messages for businesses.

Arguments in, one row or one clear line out. What a command needs of the network it does through the
SDK. Exit codes: 0 done, 1 other, 2 bad input, 3 access, 4 not found, 5 conflict, 6 busy,
7 unavailable.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import click

from letterlock.business.client import Start
from letterlock.business.events import Event
from letterlock.cli.asking import for_good, make_sure
from letterlock.cli.context import Context, listens, run_command, waits
from letterlock.cli.device import device
from letterlock.cli.group import Commands, take_json_anywhere
from letterlock.cli.health import health
from letterlock.cli.identity import identity
from letterlock.cli.inbox import inbox
from letterlock.cli.output import Output, event_row, message_row, values
from letterlock.cli.patience import patiently
from letterlock.cli.settings import (
    DEFAULT_DATA,
    Settings,
    check_recipient,
    forget_business,
    forget_number,
    read_profile,
    save_number,
    save_token,
)
from letterlock.cli.watch import watch_events
from letterlock.errors import InvalidRequest, NotFound
from letterlock.v1 import businesses_pb2

AUDIT_COLUMNS = ("change_time", "actor", "action", "business_id", "object")
BUSINESS_COLUMNS = (
    "business_id",
    "display_name",
    "retention",
    "identity_changes",
    "numbers",
    "tokens",
)
_POLICIES = {
    businesses_pb2.IDENTITY_POLICY_ACCEPT_AND_TELL: "accept",
    businesses_pb2.IDENTITY_POLICY_HOLD_UNTIL_CONFIRMED: "hold",
}


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


main.add_command(device)
main.add_command(health)
main.add_command(identity)
main.add_command(inbox)


identity_changes = click.option(
    "--identity-changes",
    type=click.Choice(["accept", "hold"]),
    help="When a user's identity key changes: go on, or hold messages until it is confirmed.",
)


@main.group()
def business() -> None:
    """Businesses (operator)."""


@business.command("create")
@click.argument("display_name")
@click.option("--retention", type=float, help="Days that anything is kept at most [30].")
@identity_changes
@click.pass_obj
@waits
async def business_create(
    context: Context, display_name: str, retention: float | None, identity_changes: str | None
) -> None:
    """Make a business."""
    seconds = None if retention is None else retention * 86_400
    async with context.admin() as admin:
        made = await admin.create_business(
            display_name, retention=seconds, hold_identity_changes=identity_changes == "hold"
        )
    context.out.row(business_row(made))


@business.command("update")
@click.argument("business_id")
@click.option("--name", help="Its display name.")
@click.option("--retention", type=float, help="Days that messages from now on are kept at most.")
@identity_changes
@click.pass_obj
@waits
async def business_update(
    context: Context,
    business_id: str,
    name: str | None,
    retention: float | None,
    identity_changes: str | None,
) -> None:
    """Change a business; in force at once."""
    seconds = None if retention is None else retention * 86_400
    hold = None if identity_changes is None else identity_changes == "hold"
    async with context.admin() as admin:
        changed = await admin.update_business(
            business_id, display_name=name, hold_identity_changes=hold, retention=seconds
        )
    context.out.row(business_row(changed))


@business.command("list")
@click.pass_obj
@waits
async def business_list(context: Context) -> None:
    """List all businesses."""
    async with context.admin() as admin:
        rows = [business_row(found) async for found in admin.businesses()]
    context.out.rows(rows, BUSINESS_COLUMNS)


@business.command("show")
@click.argument("business_id")
@click.pass_obj
@waits
async def business_show(context: Context, business_id: str) -> None:
    """Show one business with its numbers and tokens."""
    async with context.admin() as admin:
        found = await admin.business(business_id)
    context.out.row(business_row(found))


@business.command("delete")
@click.argument("business_id")
@for_good
@click.pass_obj
def business_delete(context: Context, business_id: str, yes: bool) -> None:
    """Remove a business with its tokens and numbers, for good."""

    async def look() -> str:
        async with context.admin() as admin:
            found = await admin.business(business_id)
        numbers = ", ".join(found.phone_number for found in found.numbers) or "without numbers"
        return f"business {business_id} ({found.display_name}; {numbers})"

    async def delete() -> None:
        async with context.admin() as admin:
            await admin.delete_business(business_id)

    make_sure(yes, look, "its tokens, numbers, keys and messages")
    run_command(delete())
    context.out.note("deleted")
    if (path := forget_business(business_id)) is not None:
        context.out.note(f"its token in {path} is gone, too")


@main.command("audit")
@click.pass_obj
@waits
async def audit(context: Context) -> None:
    """List who changed what in the last year (operator)."""
    async with context.admin() as admin:
        rows = [audit_row(entry) async for entry in admin.audit()]
    context.out.rows(rows, AUDIT_COLUMNS)


@main.group()
def number() -> None:
    """Numbers of businesses (operator)."""


@number.command("add")
@click.argument("business_id")
@click.argument("phone_number")
@click.pass_obj
@waits
async def number_add(context: Context, business_id: str, phone_number: str) -> None:
    """Give a business a phone number (E.164)."""
    async with context.admin() as admin:
        found = await admin.add_number(business_id, phone_number)
    context.out.row(business_row(found))
    if (path := save_number(found.business_id, phone_number)) is not None:
        context.out.note(f"the business's token in {path} serves this number, too")


@number.command("remove")
@click.argument("business_id")
@click.argument("phone_number")
@for_good
@click.pass_obj
def number_remove(context: Context, business_id: str, phone_number: str, yes: bool) -> None:
    """Take a phone number away from a business, for good."""

    async def look() -> str:
        async with context.admin() as admin:
            found = await admin.business(business_id)
        if phone_number not in [number.phone_number for number in found.numbers]:
            raise NotFound("the business does not have this number")
        return f"number {phone_number} of {found.display_name}"

    async def remove() -> businesses_pb2.Business:
        async with context.admin() as admin:
            return await admin.remove_number(business_id, phone_number)

    make_sure(yes, look, "its keys, sessions and messages")
    context.out.row(business_row(run_command(remove())))
    if (path := forget_number(phone_number)) is not None:
        context.out.note(f"{path} has no token for this number any more")


@main.group()
def token() -> None:
    """Tokens of businesses (operator)."""


@token.command("issue")
@click.argument("business_id")
@click.option("--label", default="", help="For people, at most 100 characters.")
@click.option(
    "--save", is_flag=True, help="Keep it in the profile, for all numbers of the business."
)
@click.pass_obj
@waits
async def token_issue(context: Context, business_id: str, label: str, save: bool) -> None:
    """Issue a token: it is shown once."""
    async with context.admin() as admin:
        issued = await admin.issue_token(business_id, label=label)
        numbers = (await admin.business(business_id)).numbers if save else ()
    context.out.row({"token_id": issued.token_id, "token": issued.token})
    if save:
        path = save_token(business_id, [found.phone_number for found in numbers], issued.token)
        context.out.note(f"kept in {path}")


@token.command("revoke")
@click.argument("business_id")
@click.argument("token_id")
@click.pass_obj
@waits
async def token_revoke(context: Context, business_id: str, token_id: str) -> None:
    """Revoke a token; its open streams end."""
    async with context.admin() as admin:
        await admin.revoke_token(business_id, token_id)
    context.out.row({"token_id": token_id, "revoked": True})


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
    check_recipient(to)
    if key == "":  # a fresh one in its place would send twice what was meant to be sent once
        limit = "1 to 64 characters; without --key a fresh one is made"
        raise InvalidRequest("empty key", field="key", limit=limit)
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


def audit_row(entry: businesses_pb2.AuditEntry) -> dict[str, object]:
    """An audit entry in one line."""
    return {"object": ""} | values(entry)


def business_row(found: businesses_pb2.Business) -> dict[str, object]:
    """A business in one row."""
    return {
        "business_id": found.business_id,
        "display_name": found.display_name,
        "retention": f"{found.retention.seconds / 86_400:g} days",
        "identity_changes": _POLICIES.get(found.identity_policy, "unknown"),
        "numbers": [number.phone_number for number in found.numbers],
        "tokens": [
            f"{token.token_id} ({token.label})" if token.label else token.token_id
            for token in found.tokens
            if not token.HasField("revoke_time")
        ],
    }


take_json_anywhere(main)
