"""The Double Ratchet: root steps, chains, skipped seeds, message keys, and the block cipher.

    send      seed, next chain key  <- sending chain
    receive   known ratchet key:    seed <- its chain, at or behind or ahead of its counter
              unknown ratchet key:  new receiving chain, then the same; once the MAC holds, turn:
                                    new sending chain

Every function takes a state and returns the next one; states are never changed in place. Knows no
wire format, no identity and no session record. Source: facts/signal-session.md section 7.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from . import keys
from .errors import DuplicatedMessage, InvalidMessage
from .keys import Random
from .limits import MAX_COUNTER, MAX_RECEIVING_CHAINS, MAX_SKIPPED_SEEDS
from .primitives import aes256_cbc_decrypt, hkdf, hkdf_pair, mac, mac_pair

_CORE = struct.Struct(">32sI32s33s32sI")
CORE_SIZE = _CORE.size
"""An encoded core; in it, as they are sent, the previous counter, ratchet key and counter:"""
PREVIOUS_COUNTER, SENDING_PUBLIC, SENDING_COUNTER = slice(32, 36), slice(68, 101), slice(133, 137)
SENDING_KEY = slice(101, 133)
"""The chain key of the next message to send."""
_CHAIN = struct.Struct(">33s32sI")
_CHAIN_KEY, _COUNTER = slice(33, 65), slice(65, 69)
CHAIN_SIZE = _CHAIN.size
"""An encoded receiving chain without its skipped seeds; in it, the peer's ratchet key:"""
RATCHET_KEY = slice(0, 33)
SKIPPED_SIZE = 36
"""A skipped seed at rest: its counter, big-endian (4 bytes), and the seed (32)."""
_SEED, _NEXT = b"\x01", b"\x02"


class Core(NamedTuple):
    """What a DH step replaces: root key, previous counter, our ratchet key pair, and the chain key
    under it; `counter` messages were sent on that chain."""

    root_key: bytes
    previous_counter: int
    private: bytes
    public: bytes
    chain_key: bytes
    counter: int

    def __repr__(self) -> str:
        return keys.hidden(self)

    @classmethod
    def decode(cls, stored: bytes) -> Core:
        """Undo encode."""
        return cls(*_CORE.unpack(stored))

    def encode(self) -> bytes:
        """At rest: 137 bytes, numbers big-endian."""
        return _CORE.pack(*self)


class ReceivingChain(NamedTuple):
    """A chain under one ratchet key of the peer; `counter` is the next one expected.

    `skipped` is a run of 36-byte entries in ascending counter order: a chain only moves forward,
    so age order and counter order are the same, and the run can be searched without parsing.
    """

    ratchet_key: bytes
    chain_key: bytes
    counter: int
    skipped: bytes

    def __repr__(self) -> str:
        return keys.hidden(self)

    @classmethod
    def decode(cls, stored: bytes) -> ReceivingChain:
        """Undo encode; `stored` has a valid length."""
        ratchet_key, chain_key, counter = _CHAIN.unpack_from(stored)
        return cls(ratchet_key, chain_key, counter, stored[_CHAIN.size :])

    def encode(self) -> bytes:
        """At rest: ratchet key (33), chain key (32), counter (4, big-endian), skipped seeds."""
        return _CHAIN.pack(self.ratchet_key, self.chain_key, self.counter) + self.skipped


class Ratchet(NamedTuple):
    """The whole Double Ratchet state of a session.

    `core` is an encoded Core, `receiving` are encoded chains, oldest first, at most 5: a message
    needs one field of the one or one of the others, and a DH step is rare.
    """

    core: bytes
    receiving: tuple[bytes, ...]

    def __repr__(self) -> str:
        return keys.hidden(self)


def root_step(root_key: bytes, shared: bytes) -> tuple[bytes, bytes]:
    """The next root key and a chain key, from a Diffie-Hellman secret."""
    return hkdf_pair(root_key, shared, b"WhisperRatchet")


def chain_step(chain_key: bytes) -> tuple[bytes, bytes]:
    """The seed at a chain's counter, and the chain key after it."""
    return mac_pair(chain_key, _SEED, _NEXT)


def message_keys(seed: bytes, salt: bytes | None) -> tuple[bytes, bytes, bytes]:
    """Cipher key (32), MAC key (32) and IV (16); `salt` is the post-quantum key, if any."""
    okm = hkdf(salt, seed, b"WhisperMessageKeys", 80)
    return okm[:32], okm[32:64], okm[64:]


def next_sending(ratchet: Ratchet) -> tuple[Ratchet, bytes, int]:
    """Take the seed for the next message to send, and its counter.

    Raises InvalidMessage at the last counter.
    """
    core, receiving = ratchet
    counter = int.from_bytes(core[SENDING_COUNTER], "big")
    if counter >= MAX_COUNTER:
        raise InvalidMessage("sending chain used up")
    seed, following = chain_step(core[SENDING_KEY])
    core = core[: SENDING_KEY.start] + following + (counter + 1).to_bytes(4, "big")
    return Ratchet(core, receiving), seed, counter


def next_receiving(
    ratchet: Ratchet, ratchet_key: bytes, counter: int, max_jump: int
) -> tuple[Ratchet, bytes, bool]:
    """Take the seed for a received counter; the caller keeps the new state only if the MAC holds.

    The flag says that the ratchet key is new: turn() must follow. Raises DuplicatedMessage,
    InvalidMessage (too far ahead), InvalidKeyAgreement.
    """
    core, chains = ratchet
    if chains and chains[-1].startswith(ratchet_key):  # nearly always: the newest chain
        stored, seed = _take(chains[-1], counter, max_jump)
        return Ratchet(core, (*chains[:-1], stored)), seed, False
    position = _position(chains, ratchet_key)
    is_new = position < 0
    if is_new:
        ratchet = _add_receiving(ratchet, ratchet_key)
    chains = ratchet.receiving
    stored, seed = _take(chains[position], counter, max_jump)
    chains = (*chains[:-1], stored) if is_new else _replaced(chains, position, stored)
    return Ratchet(ratchet.core, chains), seed, is_new


def turn(ratchet: Ratchet, random: Random) -> Ratchet:
    """The second half of a DH step: a fresh sending chain against the newest ratchet key.

    Kept apart from the first half so that a forged message, tried on every session, buys neither
    a key pair nor randomness.
    """
    old, ratchet_key = Core.decode(ratchet.core), ratchet.receiving[-1][: keys.PUBLIC_KEY_SIZE]
    private, public = keys.generate(random)
    root_key, chain_key = root_step(old.root_key, keys.agree(private, ratchet_key))
    # One less than what was sent; peers ignore it on receipt (section 7).
    previous_counter = max(old.counter - 1, 0)
    core = Core(root_key, previous_counter, private, public, chain_key, 0)
    return Ratchet(core.encode(), ratchet.receiving)


def decrypt_block(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Undo the block cipher. Raises InvalidMessage; call it only after the MAC (padding oracle)."""
    try:
        return aes256_cbc_decrypt(key, iv, ciphertext)
    except ValueError:
        raise InvalidMessage("ciphertext is not whole blocks, or badly padded") from None


def _position(chains: tuple[bytes, ...], ratchet_key: bytes) -> int:
    for position in range(len(chains) - 1, -1, -1):
        if chains[position].startswith(ratchet_key):
            return position
    return -1


def _replaced(chains: tuple[bytes, ...], position: int, stored: bytes) -> tuple[bytes, ...]:
    return (*chains[:position], stored, *chains[position + 1 :])


def _add_receiving(ratchet: Ratchet, ratchet_key: bytes) -> Ratchet:
    core = Core.decode(ratchet.core)
    root_key, chain_key = root_step(core.root_key, keys.agree(core.private, ratchet_key))
    chains = (*ratchet.receiving, ReceivingChain(ratchet_key, chain_key, 0, b"").encode())
    return Ratchet(core._replace(root_key=root_key).encode(), chains[-MAX_RECEIVING_CHAINS:])


def _take(stored: bytes, counter: int, max_jump: int) -> tuple[bytes, bytes]:
    expected = int.from_bytes(stored[_COUNTER], "big")
    if counter == expected and counter < MAX_COUNTER:  # nearly always: not worth decoding for
        seed, following = chain_step(stored[_CHAIN_KEY])
        counted = (counter + 1).to_bytes(4, "big")
        return stored[:33] + following + counted + stored[CHAIN_SIZE:], seed
    chain = ReceivingChain.decode(stored)
    if counter < expected:
        chain, seed = _take_skipped(chain, counter)
    else:
        chain, seed = _jump(chain, counter, max_jump)
    return chain.encode(), seed


def _take_skipped(chain: ReceivingChain, counter: int) -> tuple[ReceivingChain, bytes]:
    skipped, wanted = chain.skipped, counter.to_bytes(4, "big")
    low, high = 0, len(skipped) // SKIPPED_SIZE
    while low < high:
        middle = (low + high) // 2
        if skipped[middle * SKIPPED_SIZE : middle * SKIPPED_SIZE + 4] < wanted:
            low = middle + 1
        else:
            high = middle
    start, end = low * SKIPPED_SIZE, (low + 1) * SKIPPED_SIZE
    if skipped[start : start + 4] != wanted:
        raise DuplicatedMessage("counter already used")
    left = skipped[:start] + skipped[end:]
    used = ReceivingChain(chain.ratchet_key, chain.chain_key, chain.counter, left)
    return used, skipped[start + 4 : end]


def _jump(chain: ReceivingChain, counter: int, max_jump: int) -> tuple[ReceivingChain, bytes]:
    if counter - chain.counter > max_jump or counter >= MAX_COUNTER:
        raise InvalidMessage("counter too far ahead")
    chain_key, skipped = chain.chain_key, [chain.skipped]
    first_kept = max(chain.counter, counter - MAX_SKIPPED_SEEDS)
    for _ in range(chain.counter, first_kept):  # nobody can ask for these seeds any more
        chain_key = mac(chain_key, _NEXT)
    for passed in range(first_kept, counter):
        seed, chain_key = chain_step(chain_key)
        skipped.append(passed.to_bytes(4, "big") + seed)
    seed, following = chain_step(chain_key)
    kept = b"".join(skipped)[-MAX_SKIPPED_SEEDS * SKIPPED_SIZE :]
    return ReceivingChain(chain.ratchet_key, following, counter + 1, kept), seed
