"""A session left as it was stored, for messages that change a few of its bytes.

In one direction nearly every message moves one chain and one post-quantum chain by a step, and
nothing else. Those are written over in the stored bytes; the rest is never taken apart:

    .. core: .. chain key, counter | .. newest chain: .. key, counter | ..
                ^ seal()                                 ^ open()
    .. pair of epoch - 1: u32 sent, send | u32 received, receive | .. u32 chunk counter ..
                          ^ seal()         ^ open()                   ^ seal()

Whatever else a message does, and whatever cannot be opened this way, is session.py's, with its
verdicts, on the decoded session; so both give the same bytes (tests/property/test_resting.py).
Source: stored.py and sparse_pq/stored.py, whose forms and limits these are.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from . import double, stored
from .double import CHAIN_SIZE, SKIPPED_SIZE
from .errors import InvalidMessage
from .kdf import hkdf_pair
from .keys import PUBLIC_KEY_SIZE, hidden
from .limits import MAX_COUNTER, MAX_RECEIVING_CHAINS, MAX_SKIPPED_SEEDS, MESSAGE_VERSION
from .messages import SignalMessage, build_signal_message
from .session import LOCAL, PARTIES_SIZE, REMOTE, SENDER_FIRST, Pending, Session
from .sparse_pq import SparseRatchet, erasure
from .sparse_pq.chains import SENDING_SIZE, STEP
from .sparse_pq.erasure import Encoder
from .sparse_pq.layouts import Layout, locate
from .sparse_pq.limits import MAX_INDEX, MAX_KEPT_KEYS
from .sparse_pq.stored import NONE_KEPT
from .sparse_pq.wire import build, parse_content
from .wire import varint

_SENDING = struct.Struct(">I32x33s32sI")
_SENDING_AT = stored.CORE_AT + double.PREVIOUS_COUNTER.start
_SENDING_KEY_AT = stored.CORE_AT + double.SENDING_KEY.start
"""Of the core: previous counter, (private key,) public key, then what seal() changes."""
_RECEIVING = struct.Struct(">33s32sI")
_STEP = struct.Struct(">32sI")
_PAIR_STEP = struct.Struct(">I32s")


class Resting(NamedTuple):
    """The stored bytes, where their newest receiving chain begins, where the rest is, and, once it
    has been needed, what makes the chunks that are sent."""

    data: bytes
    newest: int
    layout: Layout
    chunks: Encoder | None = None

    def __repr__(self) -> str:
        return hidden(self)

    @property
    def parties(self) -> bytes:
        """As in a Session."""
        return self.data[:PARTIES_SIZE]

    @property
    def pending(self) -> Pending | None:
        """As in a Session; a resting one has been answered."""
        return None

    def decoded(self) -> Session:
        """The session itself."""
        return stored.decode(self.data)

    def seal(self, plaintext: bytes) -> tuple[Resting, bytes] | None:
        """Encrypt one message, as session.seal does. None where it would do more."""
        data, newest, layout, chunks = self
        pair, fields = layout.pair, layout.fields
        previous_counter, public, chain_key, counter = _SENDING.unpack_from(data, _SENDING_AT)
        index, send = _PAIR_STEP.unpack_from(data, pair)
        if layout.says is None or index >= MAX_INDEX or counter >= MAX_COUNTER:
            return None
        number, piece, counted = 0, b"", b""
        if layout.is_counted:
            number = int.from_bytes(data[fields : fields + 4], "big")
            chunks = chunks or erasure.encoder(data[layout.start : layout.end])
            piece = chunks.chunk(number)
            counted = (number + 1).to_bytes(4, "big")
        index += 1
        send, salt = hkdf_pair(None, send, index.to_bytes(4, "big") + STEP)
        seed, chain_key = double.chain_step(chain_key)
        cipher_key, mac_key, iv = double.message_keys(seed, salt)
        body = build_signal_message(
            mac_key,
            data[SENDER_FIRST],
            ratchet_key=public,
            counter=counter,
            previous_counter=previous_counter,
            ciphertext=double.encrypt_block(cipher_key, iv, plaintext),
            pq_ratchet=build(layout.epoch, index, layout.says, number, piece),
            addresses=None,
        )
        parts = (
            data[:_SENDING_KEY_AT],
            _STEP.pack(chain_key, counter + 1),
            data[_SENDING_KEY_AT + _STEP.size : pair],
            _PAIR_STEP.pack(index, send),
            data[pair + _PAIR_STEP.size : fields],
            counted,
            data[fields + len(counted) :],
        )
        return Resting(b"".join(parts), newest, layout, chunks), body

    def open(self, message: SignalMessage) -> tuple[Resting, bytes] | None:
        """Decrypt the message that comes next, as session.open_message does. None for another, and
        for one that does not open."""
        data, newest, layout, chunks = self
        ratchet_key, chain_key, counter = _RECEIVING.unpack_from(data, newest)
        if (
            message.ratchet_key != ratchet_key
            or message.counter != counter
            or counter >= MAX_COUNTER
            or message.version != MESSAGE_VERSION
            or message.addresses is not None
        ):
            return None
        received_at = layout.pair + SENDING_SIZE
        index, receive = _PAIR_STEP.unpack_from(data, received_at)
        kept_at = received_at + _PAIR_STEP.size
        index += 1
        if not _is_next(layout, message.pq_ratchet, index, data[kept_at : kept_at + 6]):
            return None
        receive, salt = hkdf_pair(None, receive, index.to_bytes(4, "big") + STEP)
        seed, chain_key = double.chain_step(chain_key)
        cipher_key, mac_key, iv = double.message_keys(seed, salt)
        if not message.verify(mac_key, data[REMOTE] + data[LOCAL]):
            return None
        try:
            plaintext = double.decrypt_block(cipher_key, iv, message.ciphertext)
        except InvalidMessage:
            return None
        key_at = newest + PUBLIC_KEY_SIZE
        parts = (
            data[:key_at],
            _STEP.pack(chain_key, counter + 1),
            data[key_at + _STEP.size : received_at],
            _PAIR_STEP.pack(index, receive),
            data[kept_at:],
        )
        return Resting(b"".join(parts), newest, layout, chunks), plaintext


def _is_next(layout: Layout, wire: bytes, index: int, kept: bytes) -> bool:
    """Whether `wire` has this index of this epoch, and does nothing but take its key; `kept` is the
    count of skipped keys and the oldest one's index, which must not be too old now."""
    start = layout.prefix + varint(index)
    if not wire.startswith(start) or not layout.is_heard or index > MAX_INDEX:
        return False
    if kept[:2] != NONE_KEPT and int.from_bytes(kept[2:], "big") < index - MAX_KEPT_KEYS:
        return False
    try:
        return parse_content(wire, len(start))[0] not in layout.heeds
    except InvalidMessage:
        return False


def restore(data: bytes) -> Resting | Session:
    """The session that is stored as `data`, decoded only where its next message may change more
    than resting allows. Raises CorruptRecord for the same bytes as stored.decode."""
    place = _newest_chain(data)
    if place is None:
        return stored.decode(data)
    newest, end = place
    layout = locate(data, end)
    return stored.decode(data) if layout is None else Resting(data, newest, layout)


def rest(session: Session) -> Resting | Session:
    """The same session as its bytes, where its next message may leave most of them alone."""
    pq = session.post_quantum
    if session.pending is not None or not isinstance(pq, SparseRatchet) or not pq.repeats:
        return session
    return restore(stored.encode(session))


def _newest_chain(data: bytes) -> tuple[int, int] | None:
    """Where the newest receiving chain begins and ends; None in a session that cannot rest."""
    if len(data) < stored.TABLE_AT or data[stored.FLAGS_AT] != stored.POST_QUANTUM:
        return None
    count = data[stored.TABLE_AT - 1]
    if not 0 < count <= MAX_RECEIVING_CHAINS:
        return None
    at = stored.TABLE_AT + 2 * count
    end = at + count * CHAIN_SIZE
    if data[stored.TABLE_AT : at] == stored.NONE_SKIPPED[count]:
        return end - CHAIN_SIZE, end
    if len(data) < at:
        return None
    skipped = stored.SKIPPED_COUNTS[count].unpack_from(data, stored.TABLE_AT)
    if max(skipped) > MAX_SKIPPED_SEEDS:
        return None
    end += sum(skipped) * SKIPPED_SIZE
    return end - CHAIN_SIZE - skipped[-1] * SKIPPED_SIZE, end
