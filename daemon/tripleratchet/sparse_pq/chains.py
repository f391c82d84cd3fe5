"""The key chains: one pair for each epoch, a key for every message.

    start      next root, A2B start, B2A start = HKDF(auth key)
    step       next, key(counter) = HKDF(next, counter)         first key has index 1
    new epoch  next root, A2B start, B2A start = HKDF(salt next root, epoch secret)

A message of epoch e is keyed from chain e - 1. At most three chains are kept: the one before the
one we send on, that one, and (between an encapsulation and the swap of roles) the one after it.
A chain pair stays bytes, because a message needs one of them at most:

    u32 sent | send (32) | u32 received | receive (32) | skipped keys: u32 index, key (32)

Knows no state machine and no wire format. Source: facts/spqr.md section 7.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import InvalidMessage
from ..keys import hidden
from ..primitives import hkdf, hkdf_pair
from .limits import MAX_INDEX, MAX_KEPT_KEYS

_START = b"Signal PQ Ratchet V1 Chain  Start"  # two spaces: a quirk both sides must share
STEP = b"Signal PQ Ratchet V1 Chain Next"
_ADD = b"Signal PQ Ratchet V1 Chain Add Epoch"
_COUNTER, _KEY = 4, 32
SENDING_SIZE = _COUNTER + _KEY
"""Bytes of one direction: the last index used and the chain key after it."""
KEPT_AT = 2 * SENDING_SIZE
"""Where skipped keys begin in a chain pair."""
KEPT_SIZE = _COUNTER + _KEY
ENDED = bytes(SENDING_SIZE)
"""In place of a sending chain that is over."""


class Chains(NamedTuple):
    """All kept chain pairs, oldest first; `first` is the number of the oldest, `sending` of the
    newest sent on."""

    is_initiator: bool
    next_root: bytes
    first: int
    sending: int
    pairs: tuple[bytes, ...]

    def __repr__(self) -> str:
        return hidden(self)

    @classmethod
    def start(cls, auth_key: bytes, *, is_initiator: bool) -> Chains:
        """Chain 0, from the session's auth key (32 bytes)."""
        okm = hkdf(None, auth_key, _START, 96)
        return cls(is_initiator, okm[:32], 0, 0, (_pair(okm, is_initiator),))

    def add_epoch(self, secret: bytes) -> Chains:
        """With the chain after the newest, from the epoch's secret."""
        is_initiator, root, first, sending, pairs = self
        okm = hkdf(root, secret, _ADD, 96)
        pairs = (*pairs, _pair(okm, is_initiator))
        return Chains(is_initiator, okm[:32], first, sending, pairs)

    def next_sending(self, number: int) -> tuple[Chains, int, bytes]:
        """Take the next key of chain `number` to send with: its index and its 32 bytes.

        Raises InvalidMessage at the last index.
        """
        chains = self if number == self.sending else self._send_on(number)
        is_initiator, next_root, first, sending, pairs = chains
        at = number - first
        pair = pairs[at]
        index = int.from_bytes(pair[:_COUNTER], "big") + 1
        if index > MAX_INDEX:
            raise InvalidMessage("post-quantum sending chain used up")
        counter = index.to_bytes(_COUNTER, "big")
        following, key = hkdf_pair(None, pair[_COUNTER:SENDING_SIZE], counter + STEP)
        pairs = _replaced(pairs, at, counter + following + pair[SENDING_SIZE:])
        return Chains(is_initiator, next_root, first, sending, pairs), index, key

    def receiving(self, number: int, index: int, max_jump: int) -> tuple[Chains, bytes]:
        """Take the key of chain `number` with this index.

        Raises InvalidMessage: chain not kept, key used before, too late, or too far ahead.
        """
        is_initiator, next_root, first, sending, pairs = self
        at = number - first
        if not 0 <= at < len(pairs):
            raise InvalidMessage("post-quantum epoch out of range")
        pair, key = _take(pairs[at], index, max_jump)
        pairs = _replaced(pairs, at, pair)
        return Chains(is_initiator, next_root, first, sending, pairs), key

    def _send_on(self, number: int) -> Chains:
        """Move sending to a newer chain: forget those before the former one, and how to send on
        any older one."""
        is_initiator, next_root, first, _, pairs = self
        kept_from = max(first, number - 1)
        pairs = tuple(
            pair if at >= number else ENDED + pair[SENDING_SIZE:]
            for at, pair in enumerate(pairs[kept_from - first :], kept_from)
        )
        return Chains(is_initiator, next_root, kept_from, number, pairs)


def _pair(okm: bytes, is_initiator: bool) -> bytes:
    a2b, b2a = okm[32:64], okm[64:]
    send, receive = (a2b, b2a) if is_initiator else (b2a, a2b)
    return b"".join((bytes(_COUNTER), send, bytes(_COUNTER), receive))


def _replaced(pairs: tuple[bytes, ...], at: int, pair: bytes) -> tuple[bytes, ...]:
    return (pair,) if len(pairs) == 1 else (*pairs[:at], pair, *pairs[at + 1 :])


def _take(pair: bytes, index: int, max_jump: int) -> tuple[bytes, bytes]:
    received = int.from_bytes(pair[SENDING_SIZE : SENDING_SIZE + _COUNTER], "big")
    if index <= received:
        return _take_kept(pair, received, index)
    if index - received > max_jump:
        raise InvalidMessage("post-quantum index too far ahead")
    current, kept = pair[SENDING_SIZE + _COUNTER : KEPT_AT], pair[KEPT_AT:]
    if index > received + 1:
        current, kept = _skip(current, kept, received, index)
    counter = index.to_bytes(_COUNTER, "big")
    current, key = hkdf_pair(None, current, counter + STEP)
    left = _trimmed(kept, index) if kept else b""
    return pair[:SENDING_SIZE] + counter + current + left, key


def _take_kept(pair: bytes, received: int, index: int) -> tuple[bytes, bytes]:
    if index + MAX_KEPT_KEYS < received:
        raise InvalidMessage("post-quantum key is too old")
    wanted = index.to_bytes(_COUNTER, "big")
    low, high = 0, (len(pair) - KEPT_AT) // KEPT_SIZE
    while low < high:
        middle = (low + high) // 2
        start = KEPT_AT + middle * KEPT_SIZE
        if pair[start : start + _COUNTER] < wanted:
            low = middle + 1
        else:
            high = middle
    start = KEPT_AT + low * KEPT_SIZE
    if pair[start : start + _COUNTER] != wanted:
        raise InvalidMessage("post-quantum key was used before")
    end = start + KEPT_SIZE
    return pair[:start] + pair[end:], pair[start + _COUNTER : end]


def _skip(current: bytes, kept: bytes, received: int, index: int) -> tuple[bytes, bytes]:
    """Step to just before `index`, keeping the keys that may still be asked for."""
    first_kept = index - MAX_KEPT_KEYS
    for passed in range(received + 1, min(first_kept, index)):
        current = hkdf(None, current, passed.to_bytes(_COUNTER, "big") + STEP, 32)
    skipped = [kept]
    for passed in range(max(received + 1, first_kept), index):
        counter = passed.to_bytes(_COUNTER, "big")
        current, key = hkdf_pair(None, current, counter + STEP)
        skipped += (counter, key)
    return current, b"".join(skipped)


def _trimmed(kept: bytes, newest: int) -> bytes:
    """Without the keys that are now too old to be asked for."""
    oldest, at = newest - MAX_KEPT_KEYS, 0
    while at < len(kept) and int.from_bytes(kept[at : at + _COUNTER], "big") < oldest:
        at += KEPT_SIZE
    return kept[at:] if at else kept
