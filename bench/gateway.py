"""What a message costs the gateway's front process on its way out, workers and disk apart.

    python -m bench.gateway [--messages N] [--users N] [--text BYTES] [--store lmdb] [--profile]

Real workers in their processes, a store in memory or LMDB, a relay that answers at once. Sessions
are established before the clock starts. The CPU time is that of this process alone: admission,
jobs, commits, outbox, statuses and events, and making the messages. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import uvloop
from letterlock.content.v1 import content_pb2
from letterlock.relay.v1 import keys_pb2, mailbox_pb2
from letterlock.v1 import messaging_pb2 as api
from letterlockd import collector
from letterlockd.clock import SystemClock
from letterlockd.gateway import tables
from letterlockd.gateway.inbox import Inbox
from letterlockd.gateway.inbox_rows import INBOX_TABLES
from letterlockd.gateway.room import Gateway
from letterlockd.gateway.settings import GatewaySettings
from letterlockd.model.ids import AccountId
from letterlockd.model.sender import Sender
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.sealing.keyring import Keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.history import HISTORY, History
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.store.port import Store
from letterlockd.uplink import open_channel
from letterlockd.workers.pool import WorkerPool

from tests.harness.conversations import User
from tests.harness.gateway import BUSINESS, RETENTION_MS, gateway_store

FRAME = 64


class InstantRelay:
    """Stands in for the uplink: knows every number, and has every submission at once. All accounts
    have the same keys, since nobody opens what is sent to them."""

    def __init__(self, gateway: Gateway) -> None:
        user = User.create()
        self._identity_key, self._bundle = user.identity_key, user.bundle(1)
        self._gateway = gateway
        self._frame = asyncio.get_running_loop().call_soon
        self._waiting = False
        uplink = gateway.uplink
        uplink._something_to_say.set = self._wake  # type: ignore[method-assign]
        uplink.calls.fetch_bundles = self.fetch_bundles  # type: ignore[method-assign]
        uplink.calls.register_business_number = self.register  # type: ignore[method-assign]

    def _wake(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._frame(self._answer)

    def _answer(self) -> None:
        self._waiting = False
        flight = self._gateway.uplink.flight
        while (frame := flight.next_frame()) is not None:
            sent = mailbox_pb2.ConnectRequest.FromString(frame)
            results = mailbox_pb2.SubmissionResults()
            for one in sent.submissions.submissions:
                results.results.add(
                    message_id=one.message_id, sender_account_id=one.sender_account_id
                )
            self._gateway.answered(flight.answered(results))

    async def fetch_bundles(
        self, targets: Sequence[keys_pb2.BundleTarget]
    ) -> list[keys_pb2.BundleResult]:
        results = []
        for target in targets:
            account = sha256(target.phone_number.encode()).digest()[:16]
            bundles = keys_pb2.AccountBundles(account_id=account, identity_key=self._identity_key)
            bundles.devices.add().MergeFromString(self._bundle)
            results.append(keys_pb2.BundleResult(bundles=bundles))
        return results

    async def register(self, request: object) -> AccountId:
        return AccountId(os.urandom(16))


class Load:
    """Sends rounds of messages and waits for all answers."""

    def __init__(self, gateway: Gateway, sender: Sender, text: str) -> None:
        self._gateway = gateway
        self._sender = sender
        self._text = text
        self._answered = 0
        self._all = asyncio.Event()
        self._until = 0
        self._key = 0

    async def send(self, numbers: Sequence[str], count: int) -> None:
        self._answered, self._until = 0, count
        self._all.clear()
        for start in range(0, count, FRAME):
            frame = [
                self._message(numbers[n % len(numbers)])
                for n in range(start, min(start + FRAME, count))
            ]
            await self._gateway.outbound.submit(self._sender, frame, self._take)
        await self._all.wait()
        await self._gateway.progress.idle()

    def _message(self, number: str) -> api.OutgoingMessage:
        self._key += 1
        return api.OutgoingMessage(
            idempotency_key=f"key-{self._key}",
            phone_number=number,
            content=content_pb2.Content(text=content_pb2.Text(body=self._text)),
        )

    def _take(self, results: list[api.SendResult]) -> None:
        for result in results:
            if result.WhichOneof("outcome") != "accepted":
                sys.exit(f"refused: {result}")
        self._answered += len(results)
        if self._answered == self._until:
            self._all.set()


def numbers(first: int, end: int) -> list[str]:
    """Numbers of users."""
    return [f"+4915{number:09d}" for number in range(first, end)]


@dataclass(frozen=True)
class OpenGateway:
    """A gateway's front in this process, its children, and what sends through it."""

    load: Load
    pids: dict[int, str]
    """Of all processes, by role."""


@asynccontextmanager
async def open_gateway(
    folder: Path, *, store_kind: str, text_bytes: int
) -> AsyncIterator[OpenGateway]:
    """A gateway of one business number over a store in `folder`."""
    clock = SystemClock()
    store = await _open_store(store_kind, folder)
    keys = await Keyring.open(store, FileKeyProvider(folder / "master.key"), clock)

    async def nobody(account: AccountId) -> Sender | None:
        return None

    async with (
        WorkerPool(2) as pool,
        Gateway.open(
            store=store,
            keyring=keys,
            pool=pool,
            open_channel=lambda: open_channel(f"unix:{folder}/none", None),
            credential="",
            inbox=await Inbox.open(store, clock),
            senders=nobody,
            clock=clock,
            random=secrets.token_bytes,
            settings=GatewaySettings(),
            history=await History.open(store, lambda: 0),
        ) as gateway,
    ):
        InstantRelay(gateway)
        registered = await gateway.identities.register_number(BUSINESS, "+493012345", RETENTION_MS)
        sender = Sender(BUSINESS, registered.account_id, "+493012345", RETENTION_MS)
        pids = {os.getpid(): "gateway front and load"}
        pids |= {pid: "gateway workers" for pid in pool.pids if pid is not None}
        if isinstance(store, LmdbStore):
            pids[store.committer_pid] = "gateway committers"
        yield OpenGateway(Load(gateway, sender, "x" * text_bytes), pids)
    await store.aclose()


async def run(arguments: argparse.Namespace, folder: Path) -> None:
    """One measurement; prints its line."""
    users = numbers(0, arguments.users)
    async with open_gateway(
        folder, store_kind=arguments.store, text_bytes=arguments.text
    ) as opened:
        await opened.load.send(users, 2 * len(users))
        collector.calm()
        profiler = cProfile.Profile() if arguments.profile else None
        wall, cpu = time.perf_counter(), time.process_time()
        if profiler is not None:
            profiler.enable()
        await opened.load.send(users, arguments.messages)
        if profiler is not None:
            profiler.disable()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if profiler is not None:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    print(
        json.dumps(
            {
                "bench": "gateway",
                "messages": arguments.messages,
                "users": arguments.users,
                "store": arguments.store,
                "text_bytes": arguments.text,
                "front_us_per_message": round(cpu / arguments.messages * 1e6, 1),
                "messages_per_s": round(arguments.messages / wall),
            }
        )
    )


async def _open_store(kind: str, folder: Path) -> Store:
    if kind == "memory":
        return gateway_store()
    all_tables = [*tables.TABLES, *INBOX_TABLES, *keyring.TABLES, HISTORY, DELETIONS]
    return await LmdbStore.open(folder / "store", all_tables, kind="gateway", schema_version=1)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--text", type=int, default=256)
    parser.add_argument("--store", choices=["memory", "lmdb"], default="memory")
    parser.add_argument("--profile", action="store_true")
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(run(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    main()
