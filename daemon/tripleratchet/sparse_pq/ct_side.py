"""The side of an epoch that encapsulates: one type for each state, with its legal moves.

                        header complete               send: phase 1
    NoHeaderReceived ──────────────▶ HeaderReceived ──────────────▶ Ct1Sampled
                                                         EK complete │  │  │ EK_ACK, ek incomplete
                                              EkReceivedCt1Sampled ◀─┘  │  └─▶ Ct1Acknowledged
                                                EK_ACK, ACK │    EK_ACK │          │ ek complete
                                                            ▼  complete ▼          ▼
    (KeysUnsampled of the next epoch) ◀──────────────────────── Ct2Sampled ◀───────┘
                           a message of the next epoch

Phase 1 yields the epoch's secret long before the peer has it: until it leaves Ct2Sampled, this side
goes on sending in the epoch before. Phase 2 comes as soon as the ek vector is whole. Moves return
the next state. The types know only their own epoch: older and newer messages, and types a state
does not know, are left to states.py.
Source: facts/spqr.md sections 3.1 to 3.4.
"""

from __future__ import annotations

from typing import NamedTuple

from ..keys import Random, hidden
from . import authenticator, kem
from .authenticator import epoch_secret
from .ek_side import KeysUnsampled
from .erasure import Chunks
from .limits import CHUNK_SIZE, EK_SIZE, ENCAPSULATION_SIZE, HEADER_SIZE, MAC_SIZE

HEADER_CHUNKS = (HEADER_SIZE + MAC_SIZE) // CHUNK_SIZE
EK_CHUNKS = EK_SIZE // CHUNK_SIZE


class NoHeaderReceived(NamedTuple):
    """Waiting for the header with its MAC (96 bytes)."""

    epoch: int
    auth: bytes
    chunks: Chunks

    def __repr__(self) -> str:
        return hidden(self)

    def header(self, index: int, data: bytes) -> NoHeaderReceived | HeaderReceived:
        """A chunk of the header. Raises InvalidMessage when it completes to an unauthentic one."""
        chunks = self.chunks.add(index, data, HEADER_CHUNKS)
        message = chunks.message(HEADER_CHUNKS)
        if message is None:
            return NoHeaderReceived(self.epoch, self.auth, chunks)
        header, mac = message[:HEADER_SIZE], message[HEADER_SIZE:]
        authenticator.check_header(self.auth, self.epoch, header, mac)
        return HeaderReceived(self.epoch, self.auth, header)


class HeaderReceived(NamedTuple):
    """The header is here; the next send encapsulates to it."""

    epoch: int
    auth: bytes
    header: bytes

    def __repr__(self) -> str:
        return hidden(self)

    def encapsulate(self, random: Random) -> tuple[Ct1Sampled, bytes]:
        """Phase 1, and the epoch's secret (32 bytes)."""
        message = random(ENCAPSULATION_SIZE)
        shared, ct1 = kem.encapsulate(self.header, message)
        secret = epoch_secret(shared, self.epoch)
        auth = authenticator.update(self.auth, self.epoch, secret)
        return Ct1Sampled(self.epoch, auth, self.header, message, ct1, 0, Chunks()), secret


class Ct1Sampled(NamedTuple):
    """Sending ct1 (960 bytes) while the ek vector comes in; `message` is what was encapsulated."""

    epoch: int
    auth: bytes
    header: bytes
    message: bytes
    ct1: bytes
    counter: int
    chunks: Chunks

    def __repr__(self) -> str:
        return hidden(self)

    def sent(self) -> Ct1Sampled:
        """One chunk further."""
        epoch, auth, header, message, ct1, counter, chunks = self
        return Ct1Sampled(epoch, auth, header, message, ct1, counter + 1, chunks)

    def ek(self, index: int, data: bytes) -> Ct1Sampled | EkReceivedCt1Sampled:
        """A chunk of the ek vector. Raises InvalidMessage when it completes to a wrong one."""
        epoch, auth, header, message, ct1, counter, chunks = self
        chunks = chunks.add(index, data, EK_CHUNKS)
        ek = chunks.message(EK_CHUNKS)
        if ek is None:
            return Ct1Sampled(epoch, auth, header, message, ct1, counter, chunks)
        ct2 = _complete(epoch, auth, header, message, ct1, ek)
        return EkReceivedCt1Sampled(epoch, auth, ct1, counter, ct2)

    def ek_ack(self, index: int, data: bytes) -> Ct1Acknowledged | Ct2Sampled:
        """The same, and the peer has all of ct1. Raises InvalidMessage likewise."""
        epoch, auth, header, message, _, _, chunks = self
        return Ct1Acknowledged(epoch, auth, header, message, chunks).ek(index, data)


class EkReceivedCt1Sampled(NamedTuple):
    """The ek vector was here, and ct2 with its MAC (160 bytes) is made; still sending ct1.

    Phase 2 needs no randomness, so it is done as soon as it can be: the secrets behind it go then.
    """

    epoch: int
    auth: bytes
    ct1: bytes
    counter: int
    ct2: bytes

    def __repr__(self) -> str:
        return hidden(self)

    def sent(self) -> EkReceivedCt1Sampled:
        """One chunk further."""
        return EkReceivedCt1Sampled(self.epoch, self.auth, self.ct1, self.counter + 1, self.ct2)

    def ack(self) -> Ct2Sampled:
        """The peer has all of ct1."""
        return Ct2Sampled(self.epoch, self.auth, self.ct2, 0)


class Ct1Acknowledged(NamedTuple):
    """The peer has ct1, which is no longer kept; nothing to send until the ek vector is here."""

    epoch: int
    auth: bytes
    header: bytes
    message: bytes
    chunks: Chunks

    def __repr__(self) -> str:
        return hidden(self)

    def ek(self, index: int, data: bytes) -> Ct1Acknowledged | Ct2Sampled:
        """A chunk of the ek vector. Raises InvalidMessage when it completes to a wrong one."""
        epoch, auth, header, message, chunks = self
        chunks = chunks.add(index, data, EK_CHUNKS)
        ek = chunks.message(EK_CHUNKS)
        if ek is None:
            return Ct1Acknowledged(epoch, auth, header, message, chunks)
        _, ct1 = kem.encapsulate(header, message)  # the same as before: it is in the MAC
        return Ct2Sampled(epoch, auth, _complete(epoch, auth, header, message, ct1, ek), 0)


class Ct2Sampled(NamedTuple):
    """Sending ct2 with its MAC (160 bytes) until the peer speaks in the next epoch."""

    epoch: int
    auth: bytes
    ct2: bytes
    counter: int

    def __repr__(self) -> str:
        return hidden(self)

    def sent(self) -> Ct2Sampled:
        """One chunk further."""
        return Ct2Sampled(self.epoch, self.auth, self.ct2, self.counter + 1)

    def next_epoch(self) -> KeysUnsampled:
        """The peer has the secret too: roles swap."""
        return KeysUnsampled(self.epoch + 1, self.auth)


def _complete(
    epoch: int, auth: bytes, header: bytes, message: bytes, ct1: bytes, ek: bytes
) -> bytes:
    kem.check_ek(header, ek)
    ct2 = kem.complete(header, message, ek)
    return ct2 + authenticator.ciphertext_mac(auth, epoch, ct1 + ct2)
