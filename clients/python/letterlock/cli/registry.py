"""`letterlock business`, `number`, `token` and `audit`: what an operator manages at a gateway."""

from __future__ import annotations

import click

from letterlock.cli.asking import for_good, make_sure
from letterlock.cli.context import Context, run_command, waits
from letterlock.cli.group import Suggesting
from letterlock.cli.output import values
from letterlock.cli.settings import (
    forget_business,
    forget_number,
    forget_token,
    save_number,
    save_token,
)
from letterlock.errors import InvalidRequest, NotFound
from letterlock.v1 import businesses_pb2

MIN_RETENTION_SECONDS = 300
MAX_RETENTION_SECONDS = 30 * 86_400
"""The contract's limits of a business's retention."""
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

identity_changes = click.option(
    "--identity-changes",
    type=click.Choice(["accept", "hold"]),
    help="When a user's identity key changes: go on, or hold messages until it is confirmed.",
)


@click.group(cls=Suggesting)
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
    seconds = _seconds(retention)
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
    if (name, retention, identity_changes) == (None, None, None):
        limit = "--name, --retention or --identity-changes"
        raise InvalidRequest("nothing to change", field="options", limit=limit)
    seconds = _seconds(retention)
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


@click.command()
@click.pass_obj
@waits
async def audit(context: Context) -> None:
    """List who changed what in the last year (operator)."""
    async with context.admin() as admin:
        rows = [audit_row(entry) async for entry in admin.audit()]
    context.out.rows(rows, AUDIT_COLUMNS)


@click.group(cls=Suggesting)
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


@click.group(cls=Suggesting)
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
    if (path := forget_token(token_id)) is not None:
        context.out.note(f"it is gone from {path}, too")


def _seconds(days: float | None) -> float | None:
    """A retention. Raises InvalidRequest for what the contract does not take; NaN never is."""
    if days is None:
        return None
    seconds = days * 86_400
    if not MIN_RETENTION_SECONDS <= seconds <= MAX_RETENTION_SECONDS:
        limit = "in days, from 5 minutes (0.0035) to 30 days"
        raise InvalidRequest("out of range", field="--retention", limit=limit)
    return seconds


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
