"""Vectors, and the parties they describe."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tripleratchet as tr
from tripleratchet import CiphertextMessage, SessionRecord

from tests.harness.ratchet import NOW_MS, Keyring

VECTORS = Path(__file__).parents[2] / "vectors"


def load(name: str) -> list[dict[str, Any]]:
    """The cases of a vector file."""
    cases: list[dict[str, Any]] = load_file(name)["cases"]
    return cases


def load_file(name: str) -> dict[str, Any]:
    """A whole vector file."""
    content: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    return content


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def unbase64(text: str) -> bytes:
    return base64.b64decode(text)


class Scripted:
    """Randomness that is handed out in the order given; asking for more fails the test."""

    def __init__(self, *values: bytes) -> None:
        self._values = list(values)

    def __call__(self, size: int) -> bytes:
        value = self._values.pop(0)
        assert len(value) == size
        return value

    @property
    def used_up(self) -> bool:
        return not self._values


@dataclass
class Receiver:
    """One responder of a vector file: its keys, and the state a caller would store."""

    local: tr.LocalParty
    keyring: Keyring
    record: SessionRecord | None = None
    trusted: dict[tuple[str, int], bytes] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        responder: dict[str, Any],
        policy: tr.PostQuantumPolicy = tr.PostQuantumPolicy.REQUIRED,
    ) -> Receiver:
        identity = tr.IdentityKeyPair.from_private(unhex(responder["identity_private"]))
        assert identity.public == unhex(responder["identity_public"])
        keyring = Keyring()
        for key in responder["one_time_prekeys"]:
            keyring.ec[key["id"]] = tr.PreKey.from_private(key["id"], unhex(key["private"]))
        for key in responder["signed_prekeys"]:
            keyring.signed[key["id"]] = tr.SignedPreKey.from_private(
                key["id"], unhex(key["private"]), unhex(key["signature"])
            )
        for key in responder["kyber_prekeys"]:
            keyring.kyber[key["id"]] = tr.KyberPreKey.from_private(
                key["id"], unhex(key["seed"]), unhex(key["signature"])
            )
        address = tr.Address(responder["address"]["name"], responder["address"]["device_id"])
        local = tr.LocalParty(address, identity, responder["registration_id"], policy)
        return cls(local, keyring)

    def receive(self, sender: dict[str, Any], type_: int, body: bytes, random: tr.Random) -> bytes:
        """Decrypt as a caller would: through stored bytes, committing only on success."""
        remote = tr.Address(sender["name"], sender["device_id"])
        stored = None if self.record is None else SessionRecord.from_bytes(self.record.to_bytes())
        before = None if stored is None else stored.to_bytes()
        trusted = self.trusted.get((remote.name, remote.device))
        try:
            decrypted = tr.decrypt(
                stored,
                local=self.local,
                remote=remote,
                message=CiphertextMessage(type_, body),
                trusted_identity=trusted,
                pre_keys=self.keyring,
                now_ms=NOW_MS,
                random=random,
            )
        except tr.RatchetError:
            assert stored is None or stored.to_bytes() == before
            raise
        if decrypted.used is not None:
            self.keyring.use(decrypted.used)
        self.trusted[remote.name, remote.device] = decrypted.remote_identity
        self.record = decrypted.record
        return decrypted.plaintext
