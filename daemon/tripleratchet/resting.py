"""A session left as it was stored, for the message that comes next.

Such a message moves one chain of the Double Ratchet by a step, and the post-quantum ratchet. The
step is written over in the stored bytes; the rest is never taken apart:

    parties | flags | core .. chain key, counter | .. newest chain: .. key, counter | post-quantum
                              ^ seal()                              ^ open()

Whatever else a message does, and whatever cannot be opened this way, is session.py's, with its
verdicts, on the decoded session; so both give the same bytes (tests/property/test_resting.py).
Source: stored.py, whose form and limits these are.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from . import double, post_quantum, stored
from .errors import InvalidMessage
from .keys import PUBLIC_KEY_SIZE, Random, hidden
from .limits import MAX_COUNTER, MAX_FORWARD_JUMP, MESSAGE_VERSION
from .messages import SignalMessage, build_signal_message
from .post_quantum import DECLINED, PostQuantum
from .primitives import aes256_cbc_encrypt
from .session import LOCAL, PARTIES_SIZE, REMOTE, SENDER_FIRST, Session

_SENDING = struct.Struct(">I32x33s32sI")
_SENDING_AT = stored.CORE_AT + double.PREVIOUS_COUNTER.start
_SENDING_KEY_AT = stored.CORE_AT + double.SENDING_KEY.start
"""Of the core: previous counter, (private key,) public key, then what seal() changes."""
_RECEIVING = struct.Struct(">33s32sI")
_STEP = struct.Struct(">32sI")


class Resting(NamedTuple):
    """An answered session: its stored bytes up to the post-quantum ratchet, where in them the
    newest receiving chain begins, and that ratchet."""

    front: bytes
    newest: int
    post_quantum: PostQuantum

    def __repr__(self) -> str:
        return hidden(self)

    @property
    def parties(self) -> bytes:
        """As in a Session."""
        return self.front[:PARTIES_SIZE]

    @property
    def pending(self) -> None:
        """As in a Session: nothing, since the peer has answered."""

    def to_bytes(self) -> bytes:
        """At rest: holds keys, so it must be sealed before it is stored."""
        return self.front + self.post_quantum.to_bytes()

    def decoded(self) -> Session:
        """The session itself."""
        return stored.with_post_quantum(self.front, self.post_quantum)

    def seal(self, plaintext: bytes, random: Random) -> tuple[Resting, bytes]:
        """Encrypt one message, as session.seal does. Raises InvalidMessage likewise."""
        front, newest, pq = self
        previous_counter, public, chain_key, counter = _SENDING.unpack_from(front, _SENDING_AT)
        if counter >= MAX_COUNTER:
            raise InvalidMessage("sending chain used up")
        pq, pq_message, salt = post_quantum.rested(pq).send(random)
        seed, chain_key = double.chain_step(chain_key)
        cipher_key, mac_key, iv = double.message_keys(seed, salt)
        body = build_signal_message(
            mac_key,
            front[SENDER_FIRST],
            ratchet_key=public,
            counter=counter,
            previous_counter=previous_counter,
            ciphertext=aes256_cbc_encrypt(cipher_key, iv, plaintext),
            pq_ratchet=pq_message,
            addresses=None,
        )
        rest = front[_SENDING_KEY_AT + _STEP.size :]
        front = b"".join((front[:_SENDING_KEY_AT], _STEP.pack(chain_key, counter + 1), rest))
        return Resting(front, newest, pq), body

    def open(self, message: SignalMessage) -> tuple[Resting, bytes] | None:
        """Decrypt the message that comes next, as session.open_message does. None for another;
        raises InvalidMessage for one that does not open."""
        front, newest, pq = self
        ratchet_key, chain_key, counter = _RECEIVING.unpack_from(front, newest)
        if (
            message.ratchet_key != ratchet_key
            or message.counter != counter
            or counter >= MAX_COUNTER
            or message.version != MESSAGE_VERSION
            or message.addresses is not None
            or front[LOCAL] == front[REMOTE]  # a session with oneself has other limits
        ):
            return None
        following, salt = post_quantum.rested(pq).receive(message.pq_ratchet, MAX_FORWARD_JUMP)
        seed, chain_key = double.chain_step(chain_key)
        cipher_key, mac_key, iv = double.message_keys(seed, salt)
        if not message.verify(mac_key, front[REMOTE] + front[LOCAL]):
            raise InvalidMessage("MAC does not match")
        plaintext = double.decrypt_block(cipher_key, iv, message.ciphertext)
        at = newest + PUBLIC_KEY_SIZE
        rest = front[at + _STEP.size :]
        front = b"".join((front[:at], _STEP.pack(chain_key, counter + 1), rest))
        return Resting(front, newest, following or DECLINED), plaintext


def restore(data: bytes) -> Resting | Session:
    """The session that is stored as `data`, decoded where it has not been answered. Raises
    CorruptRecord for the same bytes as stored.decode."""
    place = stored.newest_chain(data)
    if place is None:
        return stored.decode(data)
    newest, end = place
    return Resting(data[:end], newest, stored.post_quantum_at(data, end))


def rest(session: Session) -> Resting | Session:
    """The same session in the form that restore() gives."""
    if session.pending is not None or not session.ratchet.receiving:
        return session
    front = stored.front(session)
    newest = len(front) - len(session.ratchet.receiving[-1])
    return Resting(front, newest, post_quantum.rested(session.post_quantum))
