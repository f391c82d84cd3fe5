"""The side of an epoch that makes the key pair: one type for each state, with its legal moves.

                     send: key pair          CT1                 ct1 complete
    KeysUnsampled ──────────────▶ KeysSampled ───▶ HeaderSent ──────────────▶ Ct1Received
    (NoHeaderReceived of the next epoch) ◀── EkSentCt1Received ◀──────────────── │
                                   ct2 complete               CT2

Moves return the next state; a secret goes with the move that yields it. A state repeats what it
sends, as further chunks, until the peer's messages move it on. The types know only their own
epoch: older and newer messages, and types a state does not know, are left to states.py.
Source: facts/spqr.md sections 3.1 to 3.3.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import InvalidMessage
from ..keys import Random, hidden
from . import authenticator, kem
from .authenticator import epoch_secret
from .erasure import Chunks, chunk
from .limits import CHUNK_SIZE, CT1_SIZE, CT2_SIZE, MAC_SIZE, SEED_SIZE

CT1_CHUNKS = CT1_SIZE // CHUNK_SIZE
CT2_CHUNKS = (CT2_SIZE + MAC_SIZE) // CHUNK_SIZE


class KeysUnsampled(NamedTuple):
    """Nothing sent yet in this epoch."""

    epoch: int
    auth: bytes

    def __repr__(self) -> str:
        return hidden(self)

    def sample(self, random: Random) -> KeysSampled:
        """Draw the seed of a key pair; its header is what will be sent first."""
        return KeysSampled(self.epoch, self.auth, random(SEED_SIZE), b"", 0)


class KeysSampled(NamedTuple):
    """Sending the header (with its MAC, 96 bytes); `counter` is the next chunk.

    The header is empty at first: its first chunk is rho, which takes one hash, and a key pair takes
    a third of a first contact. Many a conversation is one message long.
    """

    epoch: int
    auth: bytes
    seed: bytes
    header: bytes
    counter: int

    def __repr__(self) -> str:
        return hidden(self)

    def send(self) -> tuple[KeysSampled, bytes]:
        """One chunk further, and that chunk."""
        epoch, auth, seed, header, counter = self
        if counter == 0:
            return KeysSampled(epoch, auth, seed, header, 1), kem.first_header_chunk(seed)
        if not header:
            header, _ = kem.key_pair(seed)
            header += authenticator.header_mac(auth, epoch, header)
        return KeysSampled(epoch, auth, seed, header, counter + 1), chunk(header, counter)

    def ct1(self, index: int, data: bytes) -> HeaderSent:
        """The first chunk of ct1: the peer has the header."""
        _, ek = kem.key_pair(self.seed)
        return HeaderSent(
            self.epoch, self.auth, self.seed, ek, 0, Chunks().add(index, data, CT1_CHUNKS)
        )


class HeaderSent(NamedTuple):
    """Sending the ek vector (1152 bytes) while ct1 comes in."""

    epoch: int
    auth: bytes
    seed: bytes
    ek: bytes
    counter: int
    chunks: Chunks

    def __repr__(self) -> str:
        return hidden(self)

    def sent(self) -> HeaderSent:
        """One chunk further."""
        epoch, auth, seed, ek, counter, chunks = self
        return HeaderSent(epoch, auth, seed, ek, counter + 1, chunks)

    def ct1(self, index: int, data: bytes) -> HeaderSent | Ct1Received:
        """A chunk of ct1; the ek vector goes on where it was."""
        epoch, auth, seed, ek, counter, chunks = self
        chunks = chunks.add(index, data, CT1_CHUNKS)
        ct1 = chunks.message(CT1_CHUNKS)
        if ct1 is None:
            return HeaderSent(epoch, auth, seed, ek, counter, chunks)
        return Ct1Received(epoch, auth, seed, ek, counter, ct1)


class Ct1Received(NamedTuple):
    """Still sending the ek vector, each chunk saying that ct1 (960 bytes) is here."""

    epoch: int
    auth: bytes
    seed: bytes
    ek: bytes
    counter: int
    ct1: bytes

    def __repr__(self) -> str:
        return hidden(self)

    def sent(self) -> Ct1Received:
        """One chunk further."""
        epoch, auth, seed, ek, counter, ct1 = self
        return Ct1Received(epoch, auth, seed, ek, counter + 1, ct1)

    def ct2(self, index: int, data: bytes) -> EkSentCt1Received:
        """The first chunk of ct2: the peer has the ek vector."""
        chunks = Chunks().add(index, data, CT2_CHUNKS)
        return EkSentCt1Received(self.epoch, self.auth, self.seed, self.ct1, chunks)


class EkSentCt1Received(NamedTuple):
    """Nothing left to send but the word that ct1 is here; ct2 with its MAC (160 bytes) comes in."""

    epoch: int
    auth: bytes
    seed: bytes
    ct1: bytes
    chunks: Chunks

    def __repr__(self) -> str:
        return hidden(self)

    def ct2(self, index: int, data: bytes) -> EkSentCt1Received | Completed:
        """A chunk of ct2. Raises InvalidMessage when it completes to something unauthentic."""
        epoch, auth, seed, ct1, chunks = self
        chunks = chunks.add(index, data, CT2_CHUNKS)
        message = chunks.message(CT2_CHUNKS)
        if message is None:
            return EkSentCt1Received(epoch, auth, seed, ct1, chunks)
        ciphertext, mac = ct1 + message[:CT2_SIZE], message[CT2_SIZE:]
        try:
            shared = kem.decapsulate(seed, ciphertext)
        except ValueError:
            raise InvalidMessage("key exchange ciphertext is malformed") from None
        secret = epoch_secret(shared, epoch)
        auth = authenticator.update(auth, epoch, secret)
        authenticator.check_ciphertext(auth, epoch, ciphertext, mac)
        return Completed(epoch, auth, secret)


class Completed(NamedTuple):
    """The end of the epoch on this side: its secret (32 bytes), and what goes into the next."""

    epoch: int
    auth: bytes
    secret: bytes

    def __repr__(self) -> str:
        return hidden(self)
