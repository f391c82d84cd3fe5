"""`letterlock device`: a user's device in a file, for trying things out.

The state file holds private keys and the messages not yet shown; it is readable by its owner alone.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from letterlock.cli.context import INTERRUPTED, Context, run_command
from letterlock.cli.group import Suggesting
from letterlock.cli.outages import telling_outages
from letterlock.cli.output import Output, digits_in_groups, moment, values
from letterlock.cli.patience import PATIENCE, patiently, whole
from letterlock.cli.settings import Settings, check_user
from letterlock.device.device import Device
from letterlock.device.events import (
    DeviceEvent,
    IdentityChanged,
    IncomingMessage,
    Receipt,
    Undecryptable,
)
from letterlock.device.store import FileStore
from letterlock.durations import MOST_SECONDS, check_seconds
from letterlock.errors import DeviceError, InvalidRequest, Unavailable

DEFAULT_STATE = Path("letterlock-device.db")


def _command(
    command: Callable[..., Coroutine[Any, Any, None]], *, interrupted: int = INTERRUPTED
) -> Callable[..., None]:
    """Give an async command its state file, and run it."""

    @click.option(
        "--state",
        envvar="LETTERLOCK_DEVICE",
        type=click.Path(path_type=Path),
        default=DEFAULT_STATE,
        show_default=True,
        help="The device's state file.",
    )
    @click.pass_obj
    @functools.wraps(command)
    def run(context: Context, /, state: Path, **options: Any) -> None:
        run_command(command(context, state, **options), interrupted=interrupted)

    return run


_listener = functools.partial(_command, interrupted=0)
"""The same for a command that goes on until it is stopped."""


def open_device(settings: Settings, state: Path) -> Device:
    """The device of a state file."""
    return Device(
        settings.relay,
        store=FileStore(state),
        ca=settings.ca,
        insecure=settings.insecure,
        read_receipts=True,
        retry=PATIENCE,
        jitter=whole,
    )


@asynccontextmanager
async def registered_device(settings: Settings, state: Path) -> AsyncIterator[Device]:
    """The open device of a state file that has one. Raises DeviceError, and makes no file."""
    missing = DeviceError(
        f"no device is registered in {state}; `letterlock device register` makes one (--state)"
    )
    if not await asyncio.to_thread(state.exists):
        raise missing
    async with open_device(settings, state) as device:
        if not device.is_registered:
            raise missing
        yield device


@click.group(cls=Suggesting)
def device() -> None:
    """A user's device, for trying things out."""


@device.command("register")
@click.argument("phone_number")
@click.option("--code", help="The code, where you know it; else it is read or asked for.")
@_command
async def register(context: Context, state: Path, phone_number: str, code: str | None) -> None:
    """Make an account for a phone number, with this as its first device."""
    async with open_device(context.settings, state) as device:
        if device.is_registered:
            taken = f"a device is registered in {state} already; --state names another file"
            raise DeviceError(taken)
        verification_id = await device.request_verification(phone_number)
        found = code or find_code(context.settings, verification_id)
        if found is None:
            found = await ask_for_code(context.settings)
        await device.register(phone_number, verification_id, found)
        await device.connect()
        context.out.row({"account_id": device.account_id.hex(), "device_id": device.device_id})


async def ask_for_code(settings: Settings) -> str:
    """The code that the person at the terminal types. Raises InvalidRequest where nobody is."""
    if not sys.stdin.isatty():
        looked = settings.data / "verification"
        limit = "--data FOLDER of a relay on this machine, --code CODE, or run it at a terminal"
        raise InvalidRequest(f"found no code in {looked}", field="code", limit=limit)
    found: str = await asyncio.to_thread(click.prompt, "Code", err=True)
    return found


def find_code(settings: Settings, verification_id: str) -> str | None:
    """The code that a local development relay wrote into its data folder."""
    if not verification_id.isalnum():
        return None
    try:
        return (settings.data / "verification" / verification_id).read_text().strip()
    except OSError:
        return None


@device.command("send")
@click.option("--to", required=True, help="A number (E.164), or an account id in hex.")
@click.argument("text")
@_command
async def send(context: Context, state: Path, to: str, text: str) -> None:
    """Send a text."""
    account = account_of(to, "--to")
    async with registered_device(context.settings, state) as device:
        before = device.unsent
        try:
            async with patiently():
                message_id = await device.send_text(account, text)
        except (Unavailable, asyncio.CancelledError):
            if device.unsent > before:
                kept = f"the message is kept in {state}, and sent when a command reaches the relay"
                context.out.note(kept)
            raise
    context.out.row({"message_id": message_id.hex()})


@device.command("receive")
@click.option("--count", type=click.IntRange(1), help="Stop after so many messages.")
@click.option("--seconds", type=float, help="Stop after so long without an event.")
@_listener
async def receive(context: Context, state: Path, count: int | None, seconds: float | None) -> None:
    """Print what arrives, one JSON line each, and report texts as read."""
    if seconds is not None:
        check_seconds(seconds, field="seconds", least=0, most=MOST_SECONDS)
    with telling_outages(context, "relay"):
        async with registered_device(context.settings, state) as device:
            async with patiently():
                await device.connect()
            if sys.stderr.isatty():
                context.out.note("waiting for messages")
            await print_events(context.out, device, count, seconds)


@device.command("safety-number")
@click.argument("party")
@_command
async def safety_number(context: Context, state: Path, party: str) -> None:
    """Show the safety number with a party, by number or account id: they have to see the same."""
    account = account_of(party, "PARTY")
    async with registered_device(context.settings, state) as device:
        found = device.safety_number(account)
    context.out.row(
        {
            "safety_number": digits_in_groups(found.displayable),
            "scannable": found.scannable.hex(),
        }
    )


async def print_events(
    out: Output, device: Device, count: int | None, seconds: float | None
) -> None:
    """Print and acknowledge events until there were enough messages, or no event for a while."""
    left = count
    while left is None or left > 0:
        try:
            async with asyncio.timeout(seconds):
                event = await device.next_event()
        except TimeoutError:
            return
        out.line(event_row(event))
        if isinstance(event, IncomingMessage):
            event.ack()
        if left is not None and is_message(event):
            left -= 1


def is_message(event: DeviceEvent) -> bool:
    """Whether somebody said something; receipts and typing are not meant for reading."""
    if not isinstance(event, IncomingMessage):
        return False
    return event.content.WhichOneof("kind") not in ("read_receipt", "typing")


def event_row(event: DeviceEvent) -> dict[str, object]:
    """An event of a device in one line."""
    if isinstance(event, IncomingMessage):
        return {
            "kind": "message",
            "sender": event.sender.hex(),
            "device_id": event.device_id,
            "message_id": event.message_id.hex(),
            "sent_time": moment(event.sent_time),
            "content": values(event.content),
        }
    if isinstance(event, Receipt):
        return {"kind": "receipt", "message_id": event.message_id.hex(), "receipt": event.kind}
    if isinstance(event, IdentityChanged):
        return {"kind": "identity_changed", "account": event.account.hex()}
    if isinstance(event, Undecryptable):
        return {
            "kind": "undecryptable",
            "sender": event.sender.hex(),
            "reason": event.reason,
            "message_id": event.message_id.hex(),
            "resend_requested": event.resend_requested,
        }
    return {
        "kind": "refused",
        "message_id": event.message_id.hex(),
        "reason": event.error.reason,
    }


def account_of(user: str, typed_as: str) -> str | bytes:
    """A number as it is, an account id as bytes. Raises InvalidRequest."""
    check_user(user, typed_as)
    return user if user.startswith("+") else bytes.fromhex(user)
