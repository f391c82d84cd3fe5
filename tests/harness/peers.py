"""Starts interop peers and talks their line protocol, so that two implementations can be played
against each other message by message.

A peer is any program that reads one JSON object a line and answers one a line. To add one, write a
function here that starts it (see `our_peer`, `official_peer`).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.node import CURRENT_CLIENT, NODE_PEER, install_official_client

REQUIRE_TOOLCHAINS = "LETTERLOCK_REQUIRE_TOOLCHAINS"
_STOP_SECONDS = 10


class PeerError(Exception):
    """A peer refused an operation; `name` is the verdict without its text."""

    def __init__(self, verdict: str) -> None:
        super().__init__(verdict)
        self.name = verdict.partition(":")[0]


@dataclass
class Peer:
    """A running peer process."""

    process: subprocess.Popen[str]

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """One operation and its answer. Raises PeerError where the peer refuses."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"the peer ended with exit code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "err" in answer:
            raise PeerError(answer["err"])
        return answer


@dataclass
class Party:
    """A named party living in a peer."""

    peer: Peer
    name: str
    address: dict[str, Any]
    registration_id: int
    identity: str = ""
    policy: str = "required"

    def create(self) -> Party:
        """Make (or replace) the party with a fresh identity."""
        answer = self.call("party", **self.address, reg=self.registration_id, pq=self.policy)
        self.identity = answer["pub"]
        return self

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """One operation of this party."""
        return self.peer.call(op, name=self.name, **fields)

    def bundle(self, *, one_time: int | None, signed: int, kyber: int) -> dict[str, Any]:
        """Make pre-keys and publish them as a bundle, in the protocol's form."""
        wanted: dict[str, Any] = {"spk": {"id": signed}, "kpk": {"id": kyber}}
        if one_time is not None:
            wanted["opk"] = {"id": one_time}
        made = self.call("preKeys", **wanted)
        opk = made.get("opk")
        return {
            "reg": self.registration_id,
            "dev": self.address["dev"],
            "id": self.identity,
            "opk": None if opk is None else {"id": opk["id"], "pub": opk["pub"]},
            "spk": {part: made["spk"][part] for part in ("id", "pub", "sig")},
            "kpk": {part: made["kpk"][part] for part in ("id", "pub", "sig")},
        }

    def process_bundle(self, other: Party, bundle: dict[str, Any]) -> None:
        """Start a session with `other`."""
        self.call("processBundle", to=other.address, b=bundle)

    def encrypt(self, other: Party, plaintext: bytes) -> dict[str, Any]:
        """A message for `other`: its type and bytes in hex."""
        return self.call("encrypt", to=other.address, pt=plaintext.hex())

    def decrypt(self, other: Party, message: dict[str, Any]) -> bytes:
        """A message from `other`. Raises PeerError."""
        fields = {"type": message["type"], "ct": message["ct"]}
        return bytes.fromhex(self.call("decrypt", **{"from": other.address}, **fields)["pt"])

    def encrypt_many(self, other: Party, plaintexts: list[bytes]) -> list[dict[str, Any]]:
        """Messages for `other`, in order."""
        texts = [plaintext.hex() for plaintext in plaintexts]
        messages: list[dict[str, Any]]
        messages = self.call("encryptMany", to=other.address, pts=texts)["out"]
        return messages

    def decrypt_many(self, other: Party, messages: list[dict[str, Any]]) -> list[bytes | str]:
        """What each message opens to, or the verdict on it."""
        answers = self.call("decryptMany", **{"from": other.address}, cts=messages)["out"]
        return [bytes.fromhex(each["pt"]) if "pt" in each else each["err"] for each in answers]


@contextlib.contextmanager
def running(command: list[str], folder: Path | None = None) -> Iterator[Peer]:
    """A peer process for the length of the block; it ends when its input does."""
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Peer(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def our_peer() -> contextlib.AbstractContextManager[Peer]:
    """This project's peer."""
    return running([sys.executable, "-m", "tripleratchet.peer"])


def official_peer(package: str = CURRENT_CLIENT) -> contextlib.AbstractContextManager[Peer]:
    """The official client for Node, by its package's name in the lock file.

    Without Node the test is skipped, or failed where LETTERLOCK_REQUIRE_TOOLCHAINS=1 says that
    every toolchain must be there.
    """
    problem = install_official_client()
    if problem is not None:
        missing(problem)
    return running(["node", "peer.mjs", package], NODE_PEER)


def missing(what: str) -> None:
    """Skip for want of a toolchain, or fail where all of them are required."""
    if os.environ.get(REQUIRE_TOOLCHAINS) == "1":
        pytest.fail(what)
    pytest.skip(what)
