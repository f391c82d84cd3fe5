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
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from letterlock import BusinessClient, Device, Event, IncomingMessage, OutgoingMessage
from letterlock.v1 import messaging_pb2
from rich.console import Console
from rich.table import Table

from tests.harness.daemon import Daemon, Shop, leaks, number_patterns, open_shop, running_daemon
from tests.harness.node import install_official_client
from tests.harness.node_device import NodeDevice, node_device

SHOP, ANA, BEN, CLEO = "+15550100100", "+15550100101", "+15550100102", "+15550100103"
WAIT_SECONDS = 60
BURST = 300
KILL_AFTER = 100
STATUS = messaging_pb2.MessageStatus
OFFER = "Your order 4711 is ready; the code for the locker is 90210."
THANKS = "Thank you, I will fetch it this evening."

console = Console()


@dataclass
class Story:
    """What was promised and whether it came true."""

    rows: list[tuple[str, str, bool]] = field(default_factory=list)

    def tell(self, what: str, seen: str, *, true: bool) -> None:
        self.rows.append((what, seen, true))
        console.print(f"  {'[green]✓[/]' if true else '[red]✗[/]'} {what}: {seen}")

    @property
    def came_true(self) -> bool:
        return all(true for *_, true in self.rows)


@dataclass
class Collected:
    """What a business's Receive stream gave."""

    texts: list[tuple[str, str]] = field(default_factory=list)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, event: Event) -> None:
        if event.message is not None:
            self.texts.append((event.message.user_id, event.text or ""))
        if event.status is not None:
            self.statuses.setdefault(event.status.message_id, []).append(event.status.status)
        event.ack()
        self.changed.set()

    async def until(self, happened: Callable[[], bool]) -> bool:
        """Wait for something; False when it did not come in time."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not happened():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def receiving(business: BusinessClient) -> AsyncIterator[Collected]:
    """Collect the number's events in the background."""
    collected = Collected()

    async def collect() -> None:
        async with business.receive() as events:
            async for event in events:
                collected.add(event)

    task = asyncio.create_task(collect())
    try:
        yield collected
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def next_message(device: Device) -> IncomingMessage:
    """The next message that a user's device gets, acknowledged."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            event = await device.next_event()
            if isinstance(event, IncomingMessage):
                event.ack()
                return event


class OfficialUser:
    """A user on the official libsignal client."""

    label = "official libsignal client (Node)"

    def __init__(self, device: NodeDevice) -> None:
        self._device = device

    async def join(self, daemon: Daemon, number: str) -> None:
        verification = (await self._device.call("requestVerification", phone=number))[
            "verificationId"
        ]
        code = daemon.code(verification)
        await self._device.call("register", verificationId=verification, code=code, phone=number)
        await self._device.call("connect")

    async def read(self) -> str:
        return str((await self._device.message())["text"])

    async def write(self, text: str) -> None:
        await self._device.call("send", phone=SHOP, text=text)


class PythonUser:
    """A user on our own device SDK."""

    label = "Letterlock device SDK (Python)"

    def __init__(self) -> None:
        self.device: Device | None = None

    async def join(self, daemon: Daemon, number: str) -> None:
        self.device = await daemon.device(number)
        await self.device.connect()

    async def read(self) -> str:
        assert self.device is not None
        return (await next_message(self.device)).text or ""

    async def write(self, text: str) -> None:
        assert self.device is not None
        await self.device.send_text(SHOP, text)


async def cleo(stack: AsyncExitStack, daemon: Daemon) -> OfficialUser | PythonUser:
    """The third user: the official client where Node exists, else ours; says which."""
    missing = await asyncio.to_thread(install_official_client)
    if missing is not None:
        console.print(f"  [yellow]skipped the official client: {missing}[/]")
        return PythonUser()
    return OfficialUser(await stack.enter_async_context(node_device(daemon.relay, daemon.ca)))


async def both_ways(
    story: Story,
    name: str,
    user: OfficialUser | PythonUser,
    number: str,
    business: BusinessClient,
    events: Collected,
) -> None:
    """The business writes, the user reads and answers, the business reads."""
    accepted = await business.send(to=number, text=OFFER)
    got = await user.read()
    await user.write(THANKS)
    answer = (accepted.user_id, THANKS)
    answered = await events.until(lambda: answer in events.texts)
    seen = f"{user.label}: read {got == OFFER}, answered {answered}"
    story.tell(f"{name} and the business talk", seen, true=got == OFFER and answered)


async def offline_first(
    story: Story, daemon: Daemon, business: BusinessClient, events: Collected
) -> Device:
    """Ben registered but is away; his message waits at the relay until he connects."""
    device = await daemon.device(BEN)
    accepted = await business.send(to=BEN, text=OFFER)

    def reached(status: int) -> Callable[[], bool]:
        return lambda: status in events.statuses.get(accepted.message_id, [])

    waiting = await events.until(reached(STATUS.MESSAGE_STATUS_SENT))
    early = reached(STATUS.MESSAGE_STATUS_DELIVERED)()
    story.tell("Ben is offline", "sent, and waits at the relay", true=waiting and not early)
    await device.connect()
    message = await next_message(device)
    await device.send_read_receipt(message.sender, [message.message_id])
    read = await events.until(reached(STATUS.MESSAGE_STATUS_READ))
    path = [
        STATUS.Name(s).removeprefix("MESSAGE_STATUS_") for s in events.statuses[accepted.message_id]
    ]
    story.tell(
        "Ben comes back", " → ".join(["ACCEPTED", *path]), true=read and message.text == OFFER
    )
    return device


async def killed_in_the_middle(
    story: Story, daemon: Daemon, business: BusinessClient, ben: Device
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
                killed = asyncio.create_task(daemon.kill("gateway"))
    if killed is not None:
        await killed
    got = [(await next_message(ben)).text for _ in range(BURST)]
    story.tell(
        "the gateway is killed (SIGKILL) while it sends",
        f"{accepted} of {BURST} accepted, {len(set(got))} delivered, "
        f"{'each once, in order' if got == texts else 'NOT each once in order'}, "
        f"in {time.monotonic() - began:.1f} s with the restart",
        true=killed is not None and accepted == BURST and got == texts,
    )


def searched(story: Story, folder: Path, shop: Shop) -> None:
    """Nothing of what was said, nor any number, is in the files and the log of the daemon."""
    needles = {"content": OFFER[:24].encode(), "the answer": THANKS[:24].encode()}
    for person, number in {"shop": SHOP, "Ana": ANA, "Ben": BEN, "Cleo": CLEO}.items():
        needles |= {f"{name} of {person}": p for name, p in number_patterns(number).items()}
    found = leaks(folder, needles)
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    seen = (
        ", ".join(found)
        or f"nothing of {len(needles)} patterns in {len(files)} files, {size:,} bytes"
    )
    story.tell("content and phone numbers on disk and in the log", seen, true=not found)
    control = leaks(folder, {"control": bytes.fromhex(shop.business_id)})
    story.tell("the search itself finds what is there", "the business's id", true=bool(control))


async def play(story: Story, folder: Path) -> None:
    """The whole story."""
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(running_daemon(folder))
        console.print(
            f"  letterlockd serves: gateway {daemon.gateway}, relay {daemon.relay}, TLS on"
        )
        shop = await open_shop(daemon, "Corner shop", SHOP)
        business = await stack.enter_async_context(daemon.business(shop.token, SHOP))
        events = await stack.enter_async_context(receiving(business))
        users: dict[str, OfficialUser | PythonUser] = {
            "Ana": PythonUser(),
            "Cleo": await cleo(stack, daemon),
        }
        for (name, user), number in zip(users.items(), (ANA, CLEO), strict=True):
            await user.join(daemon, number)
            await both_ways(story, name, user, number, business, events)
        ben = await offline_first(story, daemon, business, events)
        stack.push_async_callback(ben.aclose)
        await killed_in_the_middle(story, daemon, business, ben)
        await _close(users["Ana"])
        searched(story, folder, shop)  # while it runs, and so before anything is tidied away
    code = daemon.process.returncode
    story.tell("SIGTERM", f"drained and ended with exit code {code}", true=code == 0)


async def _close(user: OfficialUser | PythonUser) -> None:
    if isinstance(user, PythonUser) and user.device is not None:
        await user.device.aclose()


def summary(story: Story, seconds: float) -> Table:
    """What happened, as a table."""
    table = Table(title=f"What happened, in {seconds:.0f} seconds", title_justify="left")
    table.add_column("")
    table.add_column("what", overflow="fold")
    table.add_column("seen", overflow="fold")
    for what, seen, true in story.rows:
        table.add_row("[green]✓[/]" if true else "[red]✗[/]", what, seen)
    return table


def main() -> int:
    """Play in a fresh folder, which is removed when all went well."""
    folder = Path(tempfile.mkdtemp(prefix="letterlock-demo-"))
    story = Story()
    began = time.monotonic()
    console.print("[bold]Letterlock demo[/]: real processes, real keys, a fresh folder")
    uvloop.run(play(story, folder))
    console.print(summary(story, time.monotonic() - began))
    if not story.came_true:
        console.print(f"[red]Not everything came true.[/] Log and data are in {folder}")
        return 1
    shutil.rmtree(folder)
    console.print("Everything came true. Next: README.md, “Five minutes to a conversation”.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
