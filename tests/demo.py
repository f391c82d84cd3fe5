"""The demo: a real daemon on loopback, one business, three users, a killed gateway, and a search.

    python -m tests.demo

Runs the same `letterlockd serve` that an operator would run, in a fresh folder, lets a business and
its users talk, kills the gateway with SIGKILL while messages flow, and then looks for content and
phone numbers in everything that the daemon wrote. Prints what happened; exits 0 only when every
line of it came true.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import uvloop
from letterlock import BusinessClient, Device, OutgoingMessage
from rich.console import Console
from rich.table import Table

from tests.harness.people import (
    DELIVERED,
    READ,
    SENT,
    STATUS,
    Collected,
    Shop,
    next_message,
    open_shop,
    receiving,
    user,
)
from tests.harness.search import leaks, number_patterns, text_patterns
from tests.harness.supervised import Daemon, daemon
from tests.harness.typescript import Driver, build_typescript_client, typescript_device

SHOP, ANA, BEN, CLEO = "+15550100100", "+15550100101", "+15550100102", "+15550100103"
BURST = 1_000
KILL_AFTER = 300
OFFER = "Your order 4711 is ready; the code for the locker is 90210."
THANKS = "Thank you, I will fetch it this evening."

UNWRAPPED = 1_000
"""Columns in which every line has room."""


def console_on(out: TextIO) -> Console:
    """Wraps lines to fit a terminal, and nowhere else."""
    return Console(file=out, width=None if out.isatty() else UNWRAPPED)


console = console_on(sys.stdout)


@dataclass
class Story:
    """What was promised and whether it came true."""

    rows: list[tuple[str, str, bool]] = field(default_factory=list)

    def tell(self, what: str, seen: str, *, true: bool) -> None:
        self.rows.append((what, seen, true))
        console.print(f"  {_mark(true)} [bold]{what}[/]: {seen}", highlight=False)

    @property
    def came_true(self) -> bool:
        return all(true for *_, true in self.rows)


class OfficialUser:
    """A user on the TypeScript device client."""

    label = "TypeScript client on the official libsignal 0.103.0"

    def __init__(self, device: Driver) -> None:
        self._device = device

    async def read(self) -> str:
        return str((await self._device.message())["text"])

    async def write(self, text: str) -> None:
        await self._device.call("send", to=SHOP, text=text)


class PythonUser:
    """A user on our own device SDK."""

    label = "Letterlock device SDK, Python"

    def __init__(self, device: Device) -> None:
        self._device = device

    async def read(self) -> str:
        return (await next_message(self._device)).text or ""

    async def write(self, text: str) -> None:
        await self._device.send_text(SHOP, text)


async def cleo(stack: AsyncExitStack, running: Daemon) -> OfficialUser | PythonUser:
    """The third user: on the official client where Node exists, else on ours; says which."""
    missing = await asyncio.to_thread(build_typescript_client)
    if missing is not None:
        console.print(f"  [yellow]- without the official client: {missing}[/]")
        return PythonUser(await stack.enter_async_context(user(running, CLEO)))
    device = await stack.enter_async_context(typescript_device(running))
    await device.register(running, CLEO)
    return OfficialUser(device)


async def both_ways(
    story: Story,
    name: str,
    person: OfficialUser | PythonUser,
    number: str,
    business: BusinessClient,
    events: Collected,
) -> None:
    """The business writes, the user reads and answers, the business reads; then the user writes
    of their own accord."""
    accepted = await business.send(to=number, text=OFFER)
    got = await person.read()
    await person.write(THANKS)
    await events.until(lambda: (accepted.user_id, THANKS) in events.texts)
    told = "read the offer, answered" if got == OFFER else "read something else"
    story.tell(f"{name} and the business talk", f"{told} ({person.label})", true=got == OFFER)


async def offline_first(
    story: Story, ben: Device, business: BusinessClient, events: Collected
) -> None:
    """Ben registered but is away; his message waits at the relay until he connects."""
    accepted = await business.send(to=BEN, text=OFFER)
    await events.until(events.reached(accepted.message_id, SENT))
    early = events.reached(accepted.message_id, DELIVERED)()
    story.tell("Ben is offline", "sent; waits in his mailbox at the relay", true=not early)
    await ben.connect()
    message = await next_message(ben)
    await ben.send_read_receipt(message.sender, [message.message_id])
    await events.until(events.reached(accepted.message_id, READ))
    path = events.statuses[accepted.message_id]
    names = [STATUS.Name(status).removeprefix("MESSAGE_STATUS_").lower() for status in path]
    story.tell(
        "Ben comes back",
        " → ".join(["accepted", *names]),
        true=message.text == OFFER and path == sorted(path),
    )


async def killed_in_the_middle(
    story: Story, running: Daemon, business: BusinessClient, ben: Device
) -> None:
    """SIGKILL to the gateway while a stream of messages is under way."""
    texts = [f"{OFFER} Part {n}." for n in range(BURST)]
    messages = [OutgoingMessage(BEN, text) for text in texts]
    accepted = 0
    killed: asyncio.Task[None] | None = None
    began = time.monotonic()
    async with business.send_many(messages, window=64) as results:
        async for result in results:
            accepted += result.accepted is not None
            if accepted == KILL_AFTER:
                killed = asyncio.create_task(running.kill("gateway"))
    if killed is not None:
        await killed
    got = [(await next_message(ben)).text for _ in range(BURST)]
    once_in_order = got == texts
    story.tell(
        "The gateway is killed (SIGKILL) in the middle of a stream",
        f"{accepted:,} of {BURST:,} accepted, {len(set(got)):,} read, "
        f"{'each once and in order' if once_in_order else 'NOT each once and in order'}, "
        f"{time.monotonic() - began:.1f} s with the restart",
        true=killed is not None and accepted == BURST and once_in_order,
    )


def searched(story: Story, folder: Path, shop: Shop) -> None:
    """Nothing of what was said, nor any number, is in the files and the log of the daemon."""
    needles = {}
    for name, said in {"offer": OFFER, "answer": THANKS}.items():
        needles |= {f"{name} as {kind}": p for kind, p in text_patterns(said[:30]).items()}
    for person, number in {"shop": SHOP, "Ana": ANA, "Ben": BEN, "Cleo": CLEO}.items():
        needles |= {f"{kind} of {person}": p for kind, p in number_patterns(number).items()}
    found = leaks(folder, needles)
    files = [path for path in folder.rglob("*") if path.is_file()]
    stored = sum(path.stat().st_blocks * 512 for path in files)
    nothing = f"none of {len(needles)} patterns in {len(files)} files, {stored / 1e6:.1f} MB"
    story.tell(
        "Content and phone numbers in the data folder and the log",
        ", ".join(found) or nothing,
        true=not found,
    )
    control = leaks(folder, {"control": bytes.fromhex(shop.business_id)})
    where = control[0].removeprefix("control in ") if control else "nowhere"
    story.tell(
        "The search finds what is there", f"the business's id is in {where}", true=bool(control)
    )


async def play(story: Story, folder: Path) -> None:
    """The whole story."""
    async with daemon(folder) as running:
        addresses = running.addresses
        console.print(
            f"  [dim]letterlockd serves: gateway {addresses['gateway']}, "
            f"relay {addresses['relay']}, TLS on[/]",
            highlight=False,
        )
        async with AsyncExitStack() as stack:
            shop = await open_shop(running, SHOP)
            business = await stack.enter_async_context(shop.client())
            events = await stack.enter_async_context(receiving(business))
            ana = PythonUser(await stack.enter_async_context(user(running, ANA)))
            await both_ways(story, "Ana", ana, ANA, business, events)
            await both_ways(story, "Cleo", await cleo(stack, running), CLEO, business, events)
            ben = await stack.enter_async_context(user(running, BEN, connect=False))
            await offline_first(story, ben, business, events)
            await killed_in_the_middle(story, running, business, ben)
            (folder / "log.jsonl").write_text(running.text)
            searched(story, folder, shop)  # while it runs: before anything is tidied away
        code = await running.stop()
        story.tell("SIGTERM", f"drained, ended with exit code {code}", true=code == 0)


def summary(story: Story, seconds: float) -> Table:
    """What happened, as a table."""
    table = Table(title=f"What happened, in {seconds:.0f} seconds", title_justify="left")
    table.add_column("")
    table.add_column("what", overflow="fold", ratio=2)
    table.add_column("seen", overflow="fold", ratio=3)
    for what, seen, true in story.rows:
        table.add_row(_mark(true), what, seen)
    return table


def _mark(true: bool) -> str:
    return "[green]✓[/]" if true else "[red]✗[/]"


def main() -> int:
    """Play in a fresh folder, which is removed when all went well."""
    folder = Path(tempfile.mkdtemp(prefix="letterlock-demo-"))
    story = Story()
    began = time.monotonic()
    console.print("\n[bold]Letterlock demo[/]: real processes, real keys, a fresh folder")
    try:
        uvloop.run(play(story, folder))
    except Exception:
        console.print_exception()
        story.tell("The story went on to its end", "it broke off, see above", true=False)
    console.print()
    console.print(summary(story, time.monotonic() - began))
    if not story.came_true:
        console.print(f"[red]Not everything came true.[/] The data folder is kept: {folder}")
        return 1
    shutil.rmtree(folder)
    console.print("Everything came true. Next: README.md, “Five minutes to a conversation”.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
