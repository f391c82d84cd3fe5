"""The two sides of the crypto benchmark: our ratchet here, the official client in Node.

Each does one round of a workload and tells the mean microseconds for one operation, by the clock
and of the processor: a stored record in, one message of 256 bytes, a record out, records kept in
memory. Both speak the whole Triple Ratchet; the other end of the official client is ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import tripleratchet as tr
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.harness.node import CURRENT_CLIENT, NODE_PEER
from tests.harness.ratchet import Device

TEXT = b"x" * 256
BATCH = 64
PRIMITIVES = "bare primitives of a message"
_TURNS_BEFORE = 6
_OUR_NAME = "9d0652a3-dcc3-4d11-975f-74d61598733f"
_THEIR_NAME = "6838237d-02f6-4098-b110-698253d15961"


class Taken(NamedTuple):
    """Microseconds for one operation: by the clock, and of the processor, which is what to compare
    on a machine that others use too."""

    wall: float
    cpu: float

    def over(self, count: int) -> Taken:
        """For one of that many operations."""
        return Taken(self.wall / count, self.cpu / count)


class Side(Protocol):
    """One implementation under test."""

    name: str

    def taken(self, workload: str, count: int) -> Taken | None:
        """Mean of `count` operations; None where it has no such way."""
        ...


def _timed(count: int, operation: Callable[[int], object]) -> Taken:
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for number in range(count):
        operation(number)
    wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
    return Taken(wall / 1000, cpu / 1000).over(count)


def _conversation() -> tuple[Device, Device]:
    one, other = _with_system_randomness(Device.create(_OUR_NAME)), _responder()
    one.start(other)
    for _ in range(_TURNS_BEFORE):
        other.decrypt(one, one.encrypt(other, TEXT))
        one.decrypt(other, other.encrypt(one, TEXT))
    return one, other


def _responder() -> Device:
    return _with_system_randomness(Device.create(_THEIR_NAME))


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

    def taken(self, workload: str, count: int) -> Taken | None:
        """One round of a workload."""
        return _OURS[workload](count)


def _encrypt_round(count: int) -> Taken:
    one, other = _conversation()
    return _timed(count, lambda _: _encrypt(one, other))


def _decrypt_round(count: int) -> Taken:
    one, other = _conversation()
    messages = [_encrypt(one, other) for _ in range(count)]
    return _timed(count, lambda number: _decrypt(other, one, messages[number]))


def _ping_pong_round(count: int) -> Taken:
    one, other = _conversation()

    def turn(number: int) -> None:
        sender, receiver = (one, other) if number % 2 == 0 else (other, one)
        _decrypt(receiver, sender, _encrypt(sender, receiver))

    return _timed(count, turn)


def _first_ciphertext_round(count: int) -> Taken:
    other = _responder()
    senders = [_with_system_randomness(Device.create(f"sender {n}")) for n in range(count)]
    bundles = [other.bundle(one_time=number) for number in range(count)]

    def set_up(number: int) -> None:
        senders[number].start(other, bundles[number])
        _encrypt(senders[number], other)

    return _timed(count, set_up)


def _first_decrypt_round(count: int) -> Taken:
    other, messages = _responder(), []
    senders = [_with_system_randomness(Device.create(f"sender {n}")) for n in range(count)]
    for number, sender in enumerate(senders):
        sender.start(other, other.bundle(one_time=number))
        messages.append(_encrypt(sender, other))
    return _timed(count, lambda number: _decrypt(other, senders[number], messages[number]))


def _encrypt_batch_round(count: int) -> Taken:
    one, other = _conversation()

    def batch(_: int) -> None:
        record = tr.SessionRecord.from_bytes(one.records[other.address])
        for _ in range(BATCH):
            record, _message = _encrypt_record(record, one, other.address)
        one.records[other.address] = record.to_bytes()

    return _timed(count // BATCH, batch).over(BATCH)


def _decrypt_batch_round(count: int) -> Taken:
    one, other = _conversation()
    messages = [_encrypt(one, other) for _ in range(count)]

    def batch(number: int) -> None:
        record = tr.SessionRecord.from_bytes(other.records[one.address])
        for message in messages[number * BATCH : (number + 1) * BATCH]:
            record = _decrypt_record(record, other, one, message).record
        other.records[one.address] = record.to_bytes()

    return _timed(count // BATCH, batch).over(BATCH)


def _primitives_round(count: int) -> Taken:
    """What one message needs of the library, and nothing around it: two chain steps, message keys,
    AES-256-CBC of 256 bytes and the MAC. The same in both directions."""
    key, iv, info, body = bytes(32), bytes(16), b"i" * 18, b"x" * 390
    padded = TEXT + bytes([16]) * 16

    def one(_: int) -> None:
        chain = HMAC(key, SHA256())
        following = chain.copy()
        for step, label in ((chain, b"\x01"), (following, b"\x02")):
            step.update(label)
            step.finalize()
        HKDF(SHA256(), 64, None, info).derive(key)
        HKDF(SHA256(), 80, key, info).derive(key)
        Cipher(AES256(key), CBC(iv)).encryptor().update(padded)
        mac = HMAC(key, SHA256())
        mac.update(body)
        mac.finalize()

    return _timed(count, one)


_OURS: dict[str, Callable[[int], Taken]] = {
    PRIMITIVES: _primitives_round,
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
            ["node", "bench.mjs", CURRENT_CLIENT],
            cwd=NODE_PEER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = f"libsignal-client {_official_version()}"

    def taken(self, workload: str, count: int) -> Taken | None:
        """One round of a workload; None for the ways only we have."""
        if workload.startswith("set-up"):
            return _taken(self._call(workload, count=count))
        rounds = {
            "encrypt": self._encrypt_round,
            "decrypt": self._decrypt_round,
            "ping-pong": self._ping_pong_round,
        }
        return rounds[workload](count) if workload in rounds else None

    def close(self) -> None:
        """End the process by ending its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _encrypt_round(self, count: int) -> Taken:
        self._conversation()
        return _taken(self._call("encrypt", count=count))

    def _decrypt_round(self, count: int) -> Taken:
        one, other = self._conversation()
        messages = [_on_the_line(_encrypt(one, other)) for _ in range(count)]
        return _taken(self._call("decrypt", messages=messages))

    def _ping_pong_round(self, count: int) -> Taken:
        one, other = self._conversation()
        turns = [self._turn(one, other) for _ in range(count)]
        return Taken(*map(sum, zip(*turns, strict=True))).over(count)

    def _conversation(self) -> tuple[Device, Device]:
        """Our device with a session, and the other's address and identity to talk to it."""
        one = _with_system_randomness(Device.create(_OUR_NAME))
        other = Device.create(_THEIR_NAME)
        opened = {name: bytes.fromhex(value) for name, value in self._call("open").items()}
        other.local = tr.LocalParty(
            other.address, tr.IdentityKeyPair(bytes(32), opened["identity"]), 1
        )
        bundle = tr.PreKeyBundle(
            registration_id=1,
            device_id=1,
            identity_key=opened["identity"],
            signed_pre_key_id=1,
            signed_pre_key=opened["signed"],
            signed_pre_key_signature=opened["signedSignature"],
            kyber_pre_key_id=1,
            kyber_pre_key=opened["kyber"],
            kyber_pre_key_signature=opened["kyberSignature"],
        )
        one.start(other, bundle)
        for _ in range(_TURNS_BEFORE):
            self._turn(one, other)
        return one, other

    def _turn(self, one: Device, other: Device) -> Taken:
        """Our message and its answer: the other's time to decrypt the one and encrypt the next."""
        received = self._call("receive", **_on_the_line(_encrypt(one, other)))
        sent = self._call("send")
        answer = tr.CiphertextMessage(sent["type"], bytes.fromhex(sent["ct"]))
        assert _decrypt(one, other, answer) == TEXT
        return Taken(received["micros"] + sent["micros"], received["cpu"] + sent["cpu"])

    def _call(self, op: str, **fields: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def _taken(answer: dict[str, Any]) -> Taken:
    return Taken(answer["micros"], answer["cpu"])


def _on_the_line(message: tr.CiphertextMessage) -> dict[str, Any]:
    return {"type": int(message.type), "ct": message.body.hex()}


def _official_version() -> str:
    locked = json.loads((NODE_PEER / "package.json").read_text())
    pinned: str = locked["dependencies"][CURRENT_CLIENT]
    return pinned.rpartition("@")[2]
