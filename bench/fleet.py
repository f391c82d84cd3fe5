"""The users of the daemon's workloads: many devices in a process of their own.

Run by `bench.stage`, which writes one JSON command a line to standard input and reads one
answer a line from standard output. The devices are the SDK's, with their state in memory, about a
hundred to a connection. Each text begins with its number and the time at which it was due
(CLOCK_MONOTONIC, the same in all processes of a machine), so that the ledger and the latencies are
made here, where a message arrives.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import uvloop
from letterlock import Device, MemoryStore
from letterlock.channel import open_channel
from letterlock.device.events import IncomingMessage, SendRefused
from letterlock.errors import Busy
from letterlockd import collector

from bench.ledger import Ledger

DEVICES_A_CHANNEL = 100
AT_ONCE = 16
"""Registrations in flight: the folder of codes keeps the newest hundred."""


class Fleet:
    """All devices; one method for each command."""

    def __init__(self, relay: str, ca: Path, codes: Path, opened: AsyncExitStack) -> None:
        self._relay, self._ca, self._codes = relay, ca, codes
        self._opened = opened
        self._channels: list[grpc.aio.Channel] = []
        self._devices: list[Device] = []
        self._business = b""
        self._ledger = Ledger()
        self._latencies_ms: list[float] = []
        self._echoes = False
        self._refused: Counter[str] = Counter()
        self._readers: list[asyncio.Task[None]] = []
        self._registering = asyncio.Semaphore(AT_ONCE)

    async def register(self, users: int, devices_each: int, first_number: int) -> dict[str, Any]:
        """Register and connect users, each with some devices; they take everything from now on."""
        numbers = range(first_number, first_number + users)
        await asyncio.gather(*(self._register(f"+{number}", devices_each) for number in numbers))
        return {"devices": len(self._devices)}

    async def begin(self, expected: int, echo: bool = False) -> dict[str, Any]:
        """Count from nothing, up to `expected`; with `echo`, answer each text with itself."""
        self._ledger.begin(expected)
        self._latencies_ms.clear()
        self._echoes = echo
        return {}

    async def finish(self, patience_s: float) -> dict[str, Any]:
        """Wait for what is expected, and tell what came."""
        ledger = self._ledger
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await ledger.complete.wait()
        return {
            "balance": ledger.balance,
            "last_s": ledger.last_s,
            "latencies_ms": sorted(round(taken, 3) for taken in self._latencies_ms),
        }

    async def answer(self, each: int) -> dict[str, Any]:
        """Every device writes to the business and waits for the relay: sessions are then used by
        both sides."""
        await asyncio.gather(*(self._send(device, each, "answer") for device in self._devices))
        return {}

    async def send(self, count: int, body: str) -> dict[str, Any]:
        """Write `count` messages to the business, spread over all devices, as fast as the devices'
        outboxes take them."""
        began = time.monotonic()
        share = count // len(self._devices)
        starts = range(0, count, share)
        await asyncio.gather(
            *(
                self._send_numbered(device, range(start, start + share), body)
                for device, start in zip(self._devices, starts, strict=False)
            )
        )
        return {"began_s": began, "sent": share * len(self._devices)}

    async def refusals(self) -> dict[str, Any]:
        """How many messages that no device waited for were refused, by reason, since the start."""
        return {"refused": dict(self._refused)}

    async def _register(self, number: str, devices_each: int) -> None:
        async with self._registering:
            first = await self._open()
            verification = await self._verification(first, number)
            code = (self._codes / verification).read_text().strip()
            await first.register(number, verification, code)
            await self._run(first)
            for _ in range(devices_each - 1):
                further = await self._open()
                await further.link(await first.create_link())
                await self._run(further)

    async def _verification(self, device: Device, number: str) -> str:
        """Codes are rationed by the relay: many users take their time."""
        while True:
            try:
                return await device.request_verification(number)
            except Busy as busy:
                await asyncio.sleep(busy.retry_after or 1.0)

    async def _open(self) -> Device:
        place = len(self._devices)
        self._devices.append(
            device := Device(
                self._relay,
                store=MemoryStore(),
                channel=self._channel(place // DEVICES_A_CHANNEL),
                one_time_pre_keys=0,
            )
        )
        return await self._opened.enter_async_context(device)

    def _channel(self, place: int) -> grpc.aio.Channel:
        while place >= len(self._channels):
            channel = open_channel(self._relay, ca=self._ca)
            self._opened.push_async_callback(channel.close, None)
            self._channels.append(channel)
        return self._channels[place]

    async def _run(self, device: Device) -> None:
        await device.connect()
        self._readers.append(asyncio.create_task(self._read(device)))

    async def _read(self, device: Device) -> None:
        async for event in device.events():
            if isinstance(event, SendRefused):
                self._refused[event.error.reason] += 1
            if not isinstance(event, IncomingMessage):
                continue
            self._business = event.sender
            if event.text is not None:
                self._take(event.text)
                if self._echoes:
                    await device.send_text(event.sender, event.text, wait=False)
            event.ack()

    def _take(self, text: str) -> None:
        number, due_s, _ = text.split(" ", 2)
        self._ledger.note(int(number))
        self._latencies_ms.append((self._ledger.last_s - float(due_s)) * 1e3)

    async def _send(self, device: Device, count: int, text: str) -> None:
        for _ in range(count):
            await device.send_text(self._business, text)

    async def _send_numbered(self, device: Device, numbers: range, body: str) -> None:
        for number in numbers:
            text = f"{number} {time.monotonic():.6f} "
            text += body[len(text) :]
            await device.send_text(self._business, text, wait=False)

    async def stop(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)


async def run(relay: str, ca: Path, codes: Path) -> None:
    """Do commands until standard input ends."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    collector.calm()
    async with AsyncExitStack() as opened:
        fleet = Fleet(relay, ca, codes, opened)
        async for line in lines:
            command = json.loads(line)
            answer = await getattr(fleet, command.pop("do"))(**command)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        await fleet.stop()


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
