"""The key chains: one pair for each epoch, a key for every message.

    start      next root, A2B start, B2A start = HKDF(auth key)
    step       next, key(counter) = HKDF(next, counter)         first key has index 1
    new epoch  next root, A2B start, B2A start = HKDF(salt next root, epoch secret)

A message of epoch e is keyed from chain e - 1. At most three chains are kept: the one before the
one we send on, that one, and (between an encapsulation and the swap of roles) the one after it.
Knows no state machine and no wire format. Source: facts/spqr.md section 7.
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import InvalidMessage
from ..keys import hidden
from .limits import MAX_INDEX, MAX_KEPT_KEYS

_SHA256 = SHA256()
_START = b"Signal PQ Ratchet V1 Chain  Start"  # two spaces: a quirk both sides must share
_STEP = b"Signal PQ Ratchet V1 Chain Next"
_ADD = b"Signal PQ Ratchet V1 Chain Add Epoch"
KEPT_SIZE = 36
"""A skipped key at rest: its index, big-endian (4 bytes), and the key (32)."""


class Link(NamedTuple):
    """One epoch's pair of chains; the counters are the last index used in each direction.

    `send` is empty once a newer epoch is sent on. `kept` is a run of 36-byte skipped keys in
    ascending index order.
    """

    sent: int
    send: bytes
    received: int
    receive: bytes
    kept: bytes

    def __repr__(self) -> str:
        return hidden(self)


class Chains(NamedTuple):
    """All kept chains, oldest first; `first` is the number of the oldest, `sending` of the newest
    sent on."""

    is_initiator: bool
    next_root: bytes
    first: int
    sending: int
    links: tuple[Link, ...]

    def __repr__(self) -> str:
        return hidden(self)

    @classmethod
    def start(cls, auth_key: bytes, *, is_initiator: bool) -> Chains:
        """Chain 0, from the session's auth key (32 bytes)."""
        okm = HKDF(_SHA256, 96, None, _START).derive(auth_key)
        return cls(is_initiator, okm[:32], 0, 0, (_link(okm, is_initiator),))

    def add_epoch(self, secret: bytes) -> Chains:
        """With the chain after the newest, from the epoch's secret."""
        is_initiator, next_root, first, sending, links = self
        okm = HKDF(_SHA256, 96, next_root, _ADD).derive(secret)
        links = (*links, _link(okm, is_initiator))
        return Chains(is_initiator, okm[:32], first, sending, links)

    def next_sending(self, number: int) -> tuple[Chains, int, bytes]:
        """Take the next key of chain `number` to send with: its index and its 32 bytes.

        Raises InvalidMessage at the last index.
        """
        chains = self if number == self.sending else self._send_on(number)
        is_initiator, next_root, first, sending, links = chains
        at = number - first
        sent, send, received, receive, kept = links[at]
        if sent >= MAX_INDEX:
            raise InvalidMessage("post-quantum sending chain used up")
        sent += 1
        okm = _step(send, sent)
        link = Link(sent, okm[:32], received, receive, kept)
        links = (*links[:at], link, *links[at + 1 :])
        return Chains(is_initiator, next_root, first, sending, links), sent, okm[32:]

    def receiving(self, number: int, index: int, max_jump: int) -> tuple[Chains, bytes]:
        """Take the key of chain `number` with this index.

        Raises InvalidMessage: chain not kept, key used before, too late, or too far ahead.
        """
        is_initiator, next_root, first, sending, links = self
        at = number - first
        if not 0 <= at < len(links):
            raise InvalidMessage("post-quantum epoch out of range")
        link, key = _take(links[at], index, max_jump)
        links = (*links[:at], link, *links[at + 1 :])
        return Chains(is_initiator, next_root, first, sending, links), key

    def _send_on(self, number: int) -> Chains:
        """Move sending to a newer chain: forget those before the former one, and how to send on
        any older one."""
        is_initiator, next_root, first, _, links = self
        kept_from = max(first, number - 1)
        links = tuple(
            link if kept_from + at >= number else Link(0, b"", *link[2:])
            for at, link in enumerate(links[kept_from - first :])
        )
        return Chains(is_initiator, next_root, kept_from, number, links)


def _link(okm: bytes, is_initiator: bool) -> Link:
    a2b, b2a = okm[32:64], okm[64:]
    return Link(0, a2b, 0, b2a, b"") if is_initiator else Link(0, b2a, 0, a2b, b"")


def _step(current: bytes, counter: int) -> bytes:
    return HKDF(_SHA256, 64, None, counter.to_bytes(4, "big") + _STEP).derive(current)


def _take(link: Link, index: int, max_jump: int) -> tuple[Link, bytes]:
    sent, send, received, receive, kept = link
    if index == received + 1:
        okm = _step(receive, index)
        return Link(sent, send, index, okm[:32], kept and _trimmed(kept, index)), okm[32:]
    if index <= received:
        return _take_kept(link, index)
    if index - received > max_jump:
        raise InvalidMessage("post-quantum index too far ahead")
    return _jump(link, index)


def _take_kept(link: Link, index: int) -> tuple[Link, bytes]:
    sent, send, received, receive, kept = link
    wanted, size = index.to_bytes(4, "big"), len(kept)
    if index + MAX_KEPT_KEYS < received:
        raise InvalidMessage("post-quantum key is too old")
    low, high = 0, size // KEPT_SIZE
    while low < high:
        middle = (low + high) // 2
        if kept[middle * KEPT_SIZE : middle * KEPT_SIZE + 4] < wanted:
            low = middle + 1
        else:
            high = middle
    start = low * KEPT_SIZE
    if kept[start : start + 4] != wanted:
        raise InvalidMessage("post-quantum key was used before")
    left = kept[:start] + kept[start + KEPT_SIZE :]
    return Link(sent, send, received, receive, left), kept[start + 4 : start + KEPT_SIZE]


def _jump(link: Link, index: int) -> tuple[Link, bytes]:
    sent, send, received, current, kept = link
    skipped = [_trimmed(kept, index)]
    for passed in range(received + 1, index):
        okm = _step(current, passed)
        current = okm[:32]
        if passed + MAX_KEPT_KEYS >= index:
            skipped.append(passed.to_bytes(4, "big") + okm[32:])
    okm = _step(current, index)
    return Link(sent, send, index, okm[:32], b"".join(skipped)), okm[32:]


def _trimmed(kept: bytes, newest: int) -> bytes:
    """Without the keys that are now too old to be asked for."""
    oldest = newest - MAX_KEPT_KEYS
    if oldest <= 0 or not kept or int.from_bytes(kept[:4], "big") >= oldest:
        return kept
    at = 0
    while at < len(kept) and int.from_bytes(kept[at : at + 4], "big") < oldest:
        at += KEPT_SIZE
    return kept[at:]
