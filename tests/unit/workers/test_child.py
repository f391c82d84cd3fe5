"""The child by itself: what it imports, and what it says when it fails."""

import subprocess
import sys

from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.child import describe
from letterlockd.workers.frames import HEADER, HELLO
from letterlockd.workers.pool import CHILD

HEAVY = {"asyncio", "grpc", "lmdb", "multiprocessing", "socket", "ssl", "uvloop", "pydantic"}


def speak(questions: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(CHILD, input=questions, capture_output=True, timeout=60, check=False)


def test_it_imports_nothing_heavy_and_nothing_of_the_parents_half() -> None:
    program = "import sys, letterlockd.workers.child; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        (sys.executable, "-P", "-c", program), capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert not HEAVY & {name.partition(".")[0] for name in modules}
    assert not modules & {f"letterlockd.workers.{name}" for name in ("pool", "lane", "link")}
    assert not {name for name in modules if name.startswith(("letterlockd.store.lmdb", "nacl.x"))}


def test_it_says_hello_and_ends_with_its_input() -> None:
    done = speak(b"")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == HEADER.pack(len(HELLO), 0) + HELLO


def test_it_answers_under_the_questions_number() -> None:
    done = speak(HEADER.pack(0, 77))
    answer = done.stdout[HEADER.size + len(HELLO) :]
    assert jobs_pb2.JobResult.FromString(answer[HEADER.size :]) == jobs_pb2.JobResult()
    assert HEADER.unpack_from(answer) == (len(answer) - HEADER.size, 77)


def test_it_dies_of_noise_and_says_only_types_and_places() -> None:
    secret = b"\xff top secret"
    done = speak(HEADER.pack(len(secret), 1) + secret)
    assert done.returncode == 1
    assert done.stderr.startswith(b"google.protobuf.message.DecodeError at ")
    assert b" > child.py:" in done.stderr
    assert b"secret" not in done.stderr


def test_an_exception_is_described_without_its_text() -> None:
    def fails() -> None:
        raise KeyError("+491701234567")

    try:
        fails()
    except KeyError as error:
        text = describe(error)
    assert text.startswith("builtins.KeyError at test_child.py:")
    assert text.endswith(" fails")
    assert "+49" not in text


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    assert describe(ValueError("secret")) == "builtins.ValueError at unknown"
