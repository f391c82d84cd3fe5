"""Microseconds a message of ratchet jobs: the function alone (of the processor), and through a pool
of one worker (by the clock).

    python -m bench.workers [--json] [--seconds S]

A job holds 64 messages of 256 B text (padded to 320 B), for one conversation or for 64, with
sealing of state and content; sessions are established and answered. "ratchet" is what
`tripleratchet` takes by itself on opened state, also as a multiple of the library calls that any
message needs (bench.crypto). A job is a pure question, so the same one is asked
again and again; the pool has two in flight, as a busy gateway has.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable
from functools import partial

import tripleratchet as tr
import uvloop
from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.execute import execute
from letterlockd.workers.pool import WorkerPool

from bench import measure as measurements
from bench.crypto_sides import PRIMITIVES, Ours
from tests.harness.conversations import Number, Talk, User, encrypt_step, text_payload
from tests.harness.ratchet import NOW_MS

MESSAGES = 64
_PRIMITIVE_ROUNDS = 100
TEXT = "x" * 256


def talks(count: int) -> list[Talk]:
    """Conversations of one number whose sessions both sides have used."""
    number = Number.create()
    return [_answered(Talk(number, User.create())) for _ in range(count)]


def encrypt_job(count: int) -> jobs_pb2.Job:
    """All messages over `count` conversations, outbound."""
    each = MESSAGES // count
    payload, mail = text_payload(TEXT), bytes(16)
    tasks = (
        talk.task(*[encrypt_step(payload, talk.context(mail))] * each) for talk in talks(count)
    )
    return jobs_pb2.Job(tasks=tasks)


def decrypt_job(count: int) -> jobs_pb2.Job:
    """All messages over `count` conversations, inbound."""
    each = MESSAGES // count
    made = []
    for talk in talks(count):
        steps = [talk.envelope(1, text_payload(TEXT)) for _ in range(each + 1)]
        talk.step(steps[0])  # the next ones are on a known chain
        made.append(talk.task(*steps[1:]))
    return jobs_pb2.Job(tasks=made)


def ratchet_alone(seconds: float) -> dict[str, float]:
    """Encrypt and decrypt on opened records."""
    (talk,) = talks(1)
    device, there = talk.user.devices[1], talk.number.address
    record = tr.SessionRecord.from_bytes(device.records[there])
    payload = text_payload(TEXT)

    def encrypt() -> None:
        tr.encrypt(
            record,
            local=device.local,
            remote=there,
            plaintext=payload,
            now_ms=NOW_MS,
            random=os.urandom,
        )

    (envelope,) = talk.send(payload)
    message = tr.CiphertextMessage(envelope.type, envelope.body)
    talk.receive(envelope)
    (envelope,) = talk.send(payload)
    message = tr.CiphertextMessage(envelope.type, envelope.body)
    known = tr.SessionRecord.from_bytes(device.records[there])

    def decrypt() -> None:
        tr.decrypt(
            known,
            local=device.local,
            remote=there,
            message=message,
            trusted_identity=None,
            pre_keys=device.keyring,
            now_ms=NOW_MS,
            random=os.urandom,
        )

    return {"encrypt": _each(encrypt, seconds), "decrypt": _each(decrypt, seconds)}


async def through_pool(pool: WorkerPool, job: jobs_pb2.Job, seconds: float) -> float:
    """Seconds a job with two in flight."""
    until = time.perf_counter() + seconds
    done = 0

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await pool.run(0, job)
            done += 1

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as asking:
        asking.create_task(ask())
        asking.create_task(ask())
    return (time.perf_counter() - begun) / done


async def measure(seconds: float) -> list[dict[str, object]]:
    """One row for each direction and number of conversations."""
    alone = ratchet_alone(seconds)
    bare = _each(partial(Ours().taken, PRIMITIVES, _PRIMITIVE_ROUNDS), seconds) / _PRIMITIVE_ROUNDS
    rows: list[dict[str, object]] = []
    async with WorkerPool(1) as pool:
        for direction, make in (("encrypt", encrypt_job), ("decrypt", decrypt_job)):
            for count in (1, MESSAGES):
                job = make(count)
                asked = job.SerializeToString()
                here = _each(partial(execute, asked, os.urandom, _fail), seconds)
                piped = await through_pool(pool, job, seconds)
                rows.append(
                    {
                        "direction": direction,
                        "conversations": count,
                        "job_bytes": len(asked),
                        "ratchet_us": round(alone[direction] * 1e6, 1),
                        "times_primitives": round(alone[direction] / bare, 2),
                        "execute_us": round(here * 1e6 / MESSAGES, 1),
                        "pool_us": round(piped * 1e6 / MESSAGES, 1),
                    }
                )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    arguments = parser.parse_args()
    rows = uvloop.run(measure(arguments.seconds))
    title = f"ratchet jobs of {MESSAGES} messages, µs a message"
    measurements.show("workers", title, rows, as_json=arguments.json)


def _answered(talk: Talk) -> Talk:
    talk.work(talk.user.establish())
    for _ in range(2):
        (envelope,) = talk.send(text_payload())
        talk.receive(envelope)
        talk.step(talk.envelope(1, text_payload()))
    return talk


def _each(call: Callable[[], object], seconds: float) -> float:
    """Processor seconds a call, the best of five rounds: what others do only adds to it."""
    best = float("inf")
    for _ in range(5):
        done, begun = 0, time.process_time()
        while time.process_time() - begun < seconds / 5:
            call()
            done += 1
        best = min(best, (time.process_time() - begun) / done)
    return best


def _fail(error: BaseException) -> None:
    raise error


if __name__ == "__main__":
    main()
