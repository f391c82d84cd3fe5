"""The ratchet against the official client: the same work, in turns, in one run.

    python -m bench.crypto [--json] [--rounds N]

Every operation takes a stored record in, works on one message of 256 bytes and gives a record out,
both sides keeping records in memory; each side times itself in its own process. "Batch" is how a
worker does it: the record opened once for 64 messages, which the official interface has no
counterpart for, so it is set beside the single operation. Rounds of both sides alternate after a
warm-up; medians are given with the 10th and 90th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import tripleratchet as tr
from rich.console import Console
from rich.table import Table

from tests.harness.node import NODE_PEER, install_official_client
from tests.harness.ratchet import Device

TEXT = b"x" * 256
BATCH = 64
WARM_UP_ROUNDS = 2
_TURNS_BEFORE = 6

COUNTS = {
    "encrypt": 640,
    "decrypt": 640,
    "ping-pong": 320,
    "set-up, first ciphertext": 60,
    "set-up, first decrypt": 60,
    "encrypt, batch of 64": 640,
    "decrypt, batch of 64": 640,
}
COUNTERPARTS = {"encrypt, batch of 64": "encrypt", "decrypt, batch of 64": "decrypt"}


class Side(Protocol):
    """One implementation under test."""

    name: str

    def micros(self, workload: str, count: int) -> float | None:
        """Microseconds for one operation, mean over `count`; None where it has no such way."""
        ...


def _timed(count: int, operation: Callable[[int], object]) -> float:
    began = time.perf_counter_ns()
    for number in range(count):
        operation(number)
    return (time.perf_counter_ns() - began) / 1000 / count


def _conversation() -> tuple[Device, Device]:
    one, other = Device.create("9d0652a3-dcc3-4d11-975f-74d61598733f"), _responder()
    one.start(other)
    for _ in range(_TURNS_BEFORE):
        other.decrypt(one, one.encrypt(other, TEXT))
        one.decrypt(other, other.encrypt(one, TEXT))
    return one, other


def _responder() -> Device:
    return _with_system_randomness(Device.create("6838237d-02f6-4098-b110-698253d15961"))


def _with_system_randomness(device: Device) -> Device:
    device.random = os.urandom
    return device


def _encrypt_record(
    record: tr.SessionRecord, sender: Device, receiver: tr.Address
) -> tuple[tr.SessionRecord, tr.CiphertextMessage]:
    return tr.encrypt(
        record,
        local=sender.local,
        remote=receiver,
        plaintext=TEXT,
        now_ms=sender.now_ms,
        random=sender.random,
    )


def _decrypt_record(
    record: tr.SessionRecord | None, receiver: Device, sender: Device, message: tr.CiphertextMessage
) -> tr.Decrypted:
    return tr.decrypt(
        record,
        local=receiver.local,
        remote=sender.address,
        message=message,
        trusted_identity=sender.local.identity.public,
        pre_keys=receiver.keyring,
        now_ms=receiver.now_ms,
        random=receiver.random,
    )


def _encrypt(sender: Device, receiver: Device) -> tr.CiphertextMessage:
    stored = tr.SessionRecord.from_bytes(sender.records[receiver.address])
    record, message = _encrypt_record(stored, sender, receiver.address)
    sender.records[receiver.address] = record.to_bytes()
    return message


def _decrypt(receiver: Device, sender: Device, message: tr.CiphertextMessage) -> bytes:
    stored = receiver.records.get(sender.address)
    record = None if stored is None else tr.SessionRecord.from_bytes(stored)
    opened = _decrypt_record(record, receiver, sender, message)
    receiver.records[sender.address] = opened.record.to_bytes()
    return opened.plaintext


class Ours:
    """tripleratchet, in this process."""

    name = "tripleratchet"

    def micros(self, workload: str, count: int) -> float | None:
        """One round of a workload."""
        return _OURS[workload](count)


def _encrypt_round(count: int) -> float:
    one, other = _conversation()
    return _timed(count, lambda _: _encrypt(one, other))


def _decrypt_round(count: int) -> float:
    one, other = _conversation()
    messages = [_encrypt(one, other) for _ in range(count)]
    return _timed(count, lambda number: _decrypt(other, one, messages[number]))


def _ping_pong_round(count: int) -> float:
    one, other = _conversation()

    def turn(number: int) -> None:
        sender, receiver = (one, other) if number % 2 == 0 else (other, one)
        _decrypt(receiver, sender, _encrypt(sender, receiver))

    return _timed(count, turn)


def _first_ciphertext_round(count: int) -> float:
    other = _responder()
    senders = [_with_system_randomness(Device.create(f"sender {n}")) for n in range(count)]
    bundles = [other.bundle(one_time=number) for number in range(count)]

    def set_up(number: int) -> None:
        senders[number].start(other, bundles[number])
        _encrypt(senders[number], other)

    return _timed(count, set_up)


def _first_decrypt_round(count: int) -> float:
    other, messages = _responder(), []
    senders = [_with_system_randomness(Device.create(f"sender {n}")) for n in range(count)]
    for number, sender in enumerate(senders):
        sender.start(other, other.bundle(one_time=number))
        messages.append(_encrypt(sender, other))
    return _timed(count, lambda number: _decrypt(other, senders[number], messages[number]))


def _encrypt_batch_round(count: int) -> float:
    one, other = _conversation()

    def batch(_: int) -> None:
        record = tr.SessionRecord.from_bytes(one.records[other.address])
        for _ in range(BATCH):
            record, _message = _encrypt_record(record, one, other.address)
        one.records[other.address] = record.to_bytes()

    return _timed(count // BATCH, batch) / BATCH


def _decrypt_batch_round(count: int) -> float:
    one, other = _conversation()
    messages = [_encrypt(one, other) for _ in range(count)]

    def batch(number: int) -> None:
        record = tr.SessionRecord.from_bytes(other.records[one.address])
        for message in messages[number * BATCH : (number + 1) * BATCH]:
            record = _decrypt_record(record, other, one, message).record
        other.records[one.address] = record.to_bytes()

    return _timed(count // BATCH, batch) / BATCH


_OURS: dict[str, Callable[[int], float]] = {
    "encrypt": _encrypt_round,
    "decrypt": _decrypt_round,
    "ping-pong": _ping_pong_round,
    "set-up, first ciphertext": _first_ciphertext_round,
    "set-up, first decrypt": _first_decrypt_round,
    "encrypt, batch of 64": _encrypt_batch_round,
    "decrypt, batch of 64": _decrypt_batch_round,
}


class Official:
    """The official client, in a Node process that times itself."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", "bench.mjs"],
            cwd=NODE_PEER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = f"libsignal-client {_official_version()}"

    def micros(self, workload: str, count: int) -> float | None:
        """One round of a workload; None for the ways only we have."""
        if workload in COUNTERPARTS:
            return None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"workload": workload, "count": count}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer["micros"]

    def close(self) -> None:
        """End the process by ending its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def _official_version() -> str:
    locked = json.loads((NODE_PEER / "package.json").read_text())
    version: str = locked["dependencies"]["@signalapp/libsignal-client"]
    return version


@dataclass(frozen=True)
class Result:
    """One implementation on one workload, in microseconds for one operation."""

    workload: str
    implementation: str
    median: float
    p10: float
    p90: float
    rounds: int

    @classmethod
    def of(cls, workload: str, implementation: str, samples: list[float]) -> Result:
        deciles = statistics.quantiles(samples, n=10, method="inclusive")
        median = statistics.median(samples)
        return cls(workload, implementation, median, deciles[0], deciles[-1], len(samples))


def measure(sides: list[Side], rounds: int) -> Iterator[Result]:
    """All workloads, rounds of the sides alternating."""
    for workload, count in COUNTS.items():
        samples: dict[str, list[float]] = {side.name: [] for side in sides}
        for number in range(WARM_UP_ROUNDS + rounds):
            for side in sides:
                taken = side.micros(workload, count)
                if taken is not None and number >= WARM_UP_ROUNDS:
                    samples[side.name].append(taken)
        for name, taken_samples in samples.items():
            if taken_samples:
                yield Result.of(workload, name, taken_samples)


def ratio(results: list[Result], workload: str) -> float | None:
    """How many times faster ours is than the official client; None where it was not measured."""
    medians = {(result.workload, result.implementation): result.median for result in results}
    ours = medians[workload, Ours.name]
    official = [
        median
        for (name, implementation), median in medians.items()
        if name == COUNTERPARTS.get(workload, workload) and implementation != Ours.name
    ]
    return official[0] / ours if official else None


def json_lines(results: list[Result]) -> Iterator[str]:
    """The conditions, then one line for each result."""
    yield json.dumps({"bench": "crypto", "conditions": conditions()})
    for result in results:
        line: dict[str, Any] = {
            "bench": "crypto",
            "workload": result.workload,
            "implementation": result.implementation,
            "median_us": round(result.median, 2),
            "p10_us": round(result.p10, 2),
            "p90_us": round(result.p90, 2),
            "rounds": result.rounds,
            "operations_per_round": COUNTS[result.workload],
        }
        if result.implementation == Ours.name:
            times = ratio(results, result.workload)
            line["times_faster_than_official"] = None if times is None else round(times, 2)
        yield json.dumps(line)


def conditions() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "message_bytes": len(TEXT),
    }


def table(results: list[Result]) -> Table:
    """The results for people."""
    shown = Table(title="Crypto, microseconds for one operation: median (10 % to 90 %)")
    names = list(dict.fromkeys(result.implementation for result in results))
    shown.add_column("workload")
    for name in names:
        shown.add_column(name, justify="right")
    shown.add_column("times faster", justify="right")
    for workload in COUNTS:
        cells = [_cell(results, workload, name) for name in names]
        times = ratio(results, workload)
        shown.add_row(workload, *cells, "" if times is None else f"{times:.2f}")
    return shown


def _cell(results: list[Result], workload: str, name: str) -> str:
    for result in results:
        if (result.workload, result.implementation) == (workload, name):
            return f"{result.median:.1f} ({result.p10:.1f} to {result.p90:.1f})"
    return ""


def main() -> None:
    """Measure, and print JSON lines or a table."""
    parser = argparse.ArgumentParser(description="The ratchet against the official client.")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds (default 9)")
    arguments = parser.parse_args()
    problem = install_official_client()
    if problem is not None:
        print(f"The official client is not measured: {problem}", file=sys.stderr)
    official = None if problem is not None else Official()
    try:
        sides: list[Side] = [Ours()] if official is None else [Ours(), official]
        results = list(measure(sides, max(arguments.rounds, 2)))
    finally:
        if official is not None:
            official.close()
    if arguments.json:
        print("\n".join(json_lines(results)))
    else:
        Console(width=110).print(table(results))


if __name__ == "__main__":
    main()
