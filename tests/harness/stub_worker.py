"""A worker child that does what the conversation's bytes say. Arguments: start mode, log file.

    start mode   serve | mute | wrong-hello | dies
    conversation kill, exit, hang             at once, each time
                 noise, endless, short, late  answers that nobody asked for
                 once:PATH                    kills itself unless PATH exists, makes it first
                 meet:PATH                    hangs unless PATH exists; makes it, opens PATH.fifo
                 anything else                answers with itself

Every conversation that is begun is noted in the log file, so that a test can see what ran.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from pathlib import Path
from typing import NoReturn

from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.frames import HELLO, read_frame, write_frame


def main(mode: str, log: str) -> None:
    answers = sys.stdout.buffer
    if mode == "dies":
        sys.exit(3)
    if mode == "mute":
        hang()
    write_frame(answers, 0, HELLO if mode == "serve" else b"hello?")
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        sequence, body = frame
        job = jobs_pb2.Job.FromString(body)
        result = jobs_pb2.JobResult()
        for task in job.tasks:
            note(log, task.conversation)
            sequence = begin(task.conversation, sequence)
            result.results.add(sealed_record=task.conversation)
        if any(task.conversation == b"short" for task in job.tasks):
            del result.results[-1]
        write_frame(answers, sequence, result.SerializeToString())


def begin(conversation: bytes, sequence: int) -> int:
    what, _, path = conversation.decode().partition(":")
    if what == "kill" or (what == "once" and first_time(path)):
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        sys.exit(0)
    elif what == "hang":
        hang()
    elif what == "noise":
        write_frame(sys.stdout.buffer, sequence, b"\xff\xff")
    elif what == "endless":
        sys.stdout.buffer.write(struct.pack(">II", 2**32 - 1, sequence))
        sys.stdout.buffer.flush()
        hang()
    elif what == "late":
        return sequence - 1
    elif what == "meet" and first_time(path):
        with open(path + ".fifo", "wb"):
            hang()
    return sequence


def first_time(path: str) -> bool:
    """True for one caller ever."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def note(log: str, conversation: bytes) -> None:
    with Path(log).open("ab") as file:
        file.write(conversation + b"\n")


def hang() -> NoReturn:
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
