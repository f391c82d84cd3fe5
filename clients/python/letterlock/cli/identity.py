"""`letterlock identity`: who a business's users are. Knows no keys: the gateway has them."""

from __future__ import annotations

import click

from letterlock.cli.context import Context, waits
from letterlock.cli.group import Suggesting
from letterlock.cli.output import digits_in_groups
from letterlock.cli.settings import check_user
from letterlock.errors import InvalidRequest

_number = click.option("--number", required=True, help="The business number, E.164.")


@click.group(cls=Suggesting)
def identity() -> None:
    """Identity keys of a business's users."""


@identity.command("show")
@_number
@click.argument("user")
@click.pass_obj
@waits
async def show(context: Context, number: str, user: str) -> None:
    """Show the safety number with a user: the user's device has to show the same."""
    check_user(user, "USER")
    async with context.business(number) as client:
        found = await client.safety_number(user)
    context.out.row(
        {
            "user_id": found.user_id,
            "safety_number": digits_in_groups(found.digits),
            "scannable": found.scannable.hex(),
            "unconfirmed": found.unconfirmed,
        }
    )


@identity.command("confirm")
@_number
@click.option("--digits", help="The safety number that was checked, 60 digits.")
@click.option("--scanned", help="What was scanned from the user's device, in hex.")
@click.argument("user")
@click.pass_obj
@waits
async def confirm(
    context: Context, number: str, digits: str | None, scanned: str | None, user: str
) -> None:
    """Confirm a user's identity key, and let messages that are held go on."""
    if (digits is None) == (scanned is None):
        limit = "--digits or --scanned, one of them"
        raise InvalidRequest("what was checked?", field="options", limit=limit)
    check_user(user, "USER")
    async with context.business(number) as client:
        answer = await client.confirm_identity(user, digits=digits, scanned=_bytes(scanned))
    context.out.row({"user_id": answer.user_id, "released": answer.released})


def _bytes(text: str | None) -> bytes | None:
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError:
        raise InvalidRequest("not in hex", field="--scanned", limit="hex digits") from None
