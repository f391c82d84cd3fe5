"""The relay alone: one gateway that submits, N devices that take and acknowledge.

    python bench/relay.py                        throughput, then latency at a fixed rate
    python bench/relay.py --idle 2000            memory of connected devices that get nothing
    python bench/relay.py --json                 one JSON line for each measurement

The relay runs in a process of its own over LMDB in a fresh folder, each commit synced to disk, and
speaks gRPC without TLS over a Unix socket. The load generator shares the machine with it. A message
counts when its DELIVERED receipt has come back: submit, commit, deliver, acknowledge, delete.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import uvloop
from letterlock.relay.v1 import accounts_pb2_grpc, keys_pb2_grpc, mailbox_pb2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from letterlockd.clock import SystemClock
from letterlockd.relay.room import Relay
from letterlockd.relay.settings import Rate, RelaySettings
from letterlockd.relay.tables import TABLES
from letterlockd.rpc.interceptors import Gatekeeper
from letterlockd.rpc.relay_accounts import AccountsServicer
from letterlockd.rpc.relay_keys import KeysServicer
from letterlockd.rpc.relay_mailbox import MailboxServicer, add_mailbox_servicer
from letterlockd.rpc.server import OPEN_METHODS
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.lmdb.front import LmdbStore

from tests.harness.relay import (
    GATEWAY,
    GATEWAYS,
    Outbox,
    Peer,
    RelayClient,
    Stream,
    submission,
)

FRAME = 64
SETTINGS = RelaySettings(verifications_in_all=Rate(1e9, 1e9))


class _FolderCodes(dict[str, str]):
    """Codes as the relay process wrote them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, verification_id: str) -> str:
        return (self._folder / verification_id).read_text()


async def serve(folder: Path) -> None:
    """The relay process: until SIGTERM."""
    from letterlockd.relay.senders import FolderSender

    store = await LmdbStore.open(
        folder / "relay", [*TABLES, *keyring.TABLES, DELETIONS], kind="relay", schema_version=1
    )
    clock = SystemClock()
    keys = await keyring.Keyring.open(store, FileKeyProvider(folder / "master.key"), clock)
    sender = FolderSender(folder / "codes")
    relay = await Relay.open(store, keys, clock, os.urandom, SETTINGS, GATEWAYS, sender)
    gatekeeper = Gatekeeper(relay.authenticator, open_methods=OPEN_METHODS, max_calls=100_000)
    server = grpc.aio.server(interceptors=[gatekeeper])
    accounts_pb2_grpc.add_AccountsServicer_to_server(AccountsServicer(relay), server)
    keys_pb2_grpc.add_KeysServicer_to_server(KeysServicer(relay), server)
    add_mailbox_servicer(MailboxServicer(relay), server)
    server.add_insecure_port(f"unix:{folder / 'relay.sock'}")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(f"ready {store.committer_pid}", flush=True)
    profile = None
    if os.environ.get("BENCH_PROFILE"):
        import cProfile

        profile = cProfile.Profile()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, profile.enable)
    await stop.wait()
    if profile is not None:
        profile.disable()
        profile.dump_stats(os.environ["BENCH_PROFILE"])
    await relay.drain(1)
    await server.stop(1)
    await relay.aclose()
    await store.aclose()


class Served:
    """The relay process as the load generator sees it."""

    def __init__(self, relay: int, committer: int, folder: Path) -> None:
        self.relay = psutil.Process(relay)
        self.committer = psutil.Process(committer)
        self.folder = folder

    def cpu_s(self) -> tuple[float, float]:
        return tuple(sum(p.cpu_times()[:2]) for p in (self.relay, self.committer))  # type: ignore[return-value]

    def channel(self, number: int = 0) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("bench.number", number)]
        return grpc.aio.insecure_channel(f"unix:{self.folder / 'relay.sock'}", options=options)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    command = [sys.executable, __file__, "--serve", str(folder)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    ready = await process.stdout.readline()
    try:
        yield Served(process.pid, int(ready.split()[1]), folder)
    finally:
        process.terminate()
        await process.wait()


class Device:
    """Takes everything and acknowledges each frame; knows when each message came."""

    def __init__(self, stream: Stream, arrivals: dict[bytes, float]) -> None:
        self.stream = stream
        self._arrivals = arrivals

    async def run(self) -> None:
        while True:
            frame = await self.stream.frame()
            if frame.WhichOneof("frame") != "deliveries":
                continue
            now = time.perf_counter()
            ids = []
            for item in frame.deliveries.items:
                self._arrivals[item.envelope.message_id] = now
                ids.append(item.item_id)
            acks = mailbox_pb2.Acks(item_ids=ids)
            await self.stream.call.write(mailbox_pb2.ConnectRequest(acks=acks))


class Gateway:
    """Submits batches; counts answers and receipts."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.answered = self.received = 0
        self.changed = asyncio.Event()
        self._writing = asyncio.Lock()

    async def write(self, frame: mailbox_pb2.ConnectRequest) -> None:
        async with self._writing:
            await self.stream.call.write(frame)

    async def run(self) -> None:
        while True:
            frame = await self.stream.frame()
            kind = frame.WhichOneof("frame")
            if kind == "results":
                for result in frame.results.results:
                    assert not result.HasField("refused"), result
                self.answered += len(frame.results.results)
            elif kind == "deliveries":
                ids = [item.item_id for item in frame.deliveries.items]
                for item in frame.deliveries.items:
                    self.received += len(item.receipts.receipts)
                await self.write(mailbox_pb2.ConnectRequest(acks=mailbox_pb2.Acks(item_ids=ids)))
            self.changed.set()

    async def until(self, reached: Any) -> None:
        while not reached():
            self.changed.clear()
            await self.changed.wait()


async def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with served(folder) as relay, asyncio.TaskGroup() as tasks:
        client = RelayClient(relay.channel(), Outbox())
        client.outbox.codes = _FolderCodes(folder / "codes")
        business = await client.business()
        peers = [await client.register() for _ in range(options.devices)]
        arrivals: dict[bytes, float] = {}
        runs = []
        for number, peer in enumerate(peers):
            own = RelayClient(relay.channel(number), Outbox())
            device = Device(await own.connect(peer, window=1024), arrivals)
            runs.append(tasks.create_task(device.run()))
        gateway = Gateway(await client.connect(GATEWAY, window=10_000))
        runs.append(tasks.create_task(gateway.run()))
        if os.environ.get("BENCH_PROFILE"):
            os.kill(relay.relay.pid, signal.SIGUSR1)
        rows.append(await throughput(options, relay, gateway, business, peers))
        rows.append(await latency(options, relay, gateway, business, peers, arrivals))
        for run in runs:
            run.cancel()
    return rows


def batch(business: Peer, peers: list[Peer], start: int, body: bytes) -> Any:
    now_ms = time.time_ns() // 1_000_000
    return mailbox_pb2.ConnectRequest(
        submissions=mailbox_pb2.Submissions(
            submissions=[
                submission(
                    peers[(start + place) % len(peers)],
                    now_ms=now_ms,
                    sender=business.account_id,
                    body=body,
                    ttl_ms=3_600_000,
                )
                for place in range(FRAME)
            ]
        )
    )


async def throughput(
    options: argparse.Namespace, relay: Served, gateway: Gateway, business: Peer, peers: list[Peer]
) -> dict[str, Any]:
    body = os.urandom(options.body)
    frames = [batch(business, peers, start, body) for start in range(0, options.messages, FRAME)]
    count = len(frames) * FRAME
    cpu, own = relay.cpu_s(), time.process_time()
    started = time.perf_counter()
    for number, frame in enumerate(frames):
        enough = number * FRAME - options.outstanding
        await gateway.until(lambda enough=enough: gateway.received > enough)
        await gateway.write(frame)
    await gateway.until(lambda: gateway.received >= count)
    seconds = time.perf_counter() - started
    used = relay.cpu_s()
    return {
        "what": "throughput",
        "devices": len(peers),
        "messages": count,
        "messages_per_s": round(count / seconds),
        "relay_us_per_message": round((used[0] - cpu[0]) / count * 1e6, 1),
        "committer_us_per_message": round((used[1] - cpu[1]) / count * 1e6, 1),
        "load_us_per_message": round((time.process_time() - own) / count * 1e6, 1),
    }


async def latency(
    options: argparse.Namespace,
    relay: Served,
    gateway: Gateway,
    business: Peer,
    peers: list[Peer],
    arrivals: dict[bytes, float],
) -> dict[str, Any]:
    body = os.urandom(options.body)
    count = options.rate * options.seconds
    starts: dict[bytes, float] = {}
    received = gateway.received
    cpu = relay.cpu_s()
    begin = time.perf_counter()
    for number in range(count):
        due = begin + number / options.rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        now_ms = time.time_ns() // 1_000_000
        message = submission(
            peers[number % len(peers)],
            now_ms=now_ms,
            sender=business.account_id,
            body=body,
            ttl_ms=3_600_000,
        )
        starts[message.message_id] = due
        single = mailbox_pb2.Submissions(submissions=[message])
        await gateway.write(mailbox_pb2.ConnectRequest(submissions=single))
    await gateway.until(lambda: gateway.received >= received + count)
    used = relay.cpu_s()
    took = sorted((arrivals[id_] - start) * 1000 for id_, start in starts.items())
    return {
        "what": f"latency at {options.rate}/s",
        "devices": len(peers),
        "messages": count,
        "p50_ms": round(took[len(took) // 2], 1),
        "p99_ms": round(took[len(took) * 99 // 100], 1),
        "relay_us_per_message": round((used[0] - cpu[0]) / count * 1e6, 1),
    }


async def idle(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    async with served(folder) as relay:
        client = RelayClient(relay.channel(), Outbox())
        client.outbox.codes = _FolderCodes(folder / "codes")
        peers = [await client.register() for _ in range(options.idle)]
        before = relay.relay.memory_info().rss
        streams = []
        for number, peer in enumerate(peers):
            own = RelayClient(relay.channel(number), Outbox())
            streams.append(await own.connect(peer))
            await streams[-1].expect("queue_empty")
        after = relay.relay.memory_info().rss
        return [
            {
                "what": "idle devices",
                "devices": len(streams),
                "relay_rss_mb": round(after / 1e6, 1),
                "kb_per_device": round((after - before) / len(streams) / 1e3, 1),
            }
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--outstanding", type=int, default=2_048)
    parser.add_argument("--body", type=int, default=400, help="bytes of ciphertext")
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--idle", type=int, default=0, help="connected devices that get nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.serve))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = idle if options.idle else measure
        rows = uvloop.run(work(options, Path(folder)))
    for row in rows:
        if options.json:
            print(json.dumps(row))
        else:
            print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
