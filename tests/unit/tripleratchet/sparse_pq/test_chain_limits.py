"""The key chains at their limits."""

from __future__ import annotations

import pytest
from tripleratchet import InvalidMessage
from tripleratchet.sparse_pq import chains, limits
from tripleratchet.sparse_pq.chains import Chains

_JUMP = 25_000


def _ends() -> tuple[Chains, Chains]:
    auth_key = b"\x07" * 32
    return (
        Chains.start(auth_key, is_initiator=True),
        Chains.start(auth_key, is_initiator=False),
    )


def test_the_jump_limit() -> None:
    _, receiver = _ends()
    receiver, _ = receiver.receiving(0, 3, _JUMP)
    receiver.receiving(0, 3 + _JUMP, _JUMP)
    with pytest.raises(InvalidMessage, match="too far ahead"):
        receiver.receiving(0, 4 + _JUMP, _JUMP)
    with pytest.raises(InvalidMessage, match="too far ahead"):
        receiver.receiving(0, limits.MAX_INDEX, _JUMP)


def test_skipped_keys_are_kept_two_thousand_back() -> None:
    sender, receiver = _ends()
    keys = {}
    for _ in range(5_000):
        sender, index, keys[index] = sender.next_sending(0)
    receiver, key = receiver.receiving(0, 5_000, _JUMP)
    assert key == keys[5_000]
    assert len(receiver.pairs[0]) == chains.KEPT_AT + limits.MAX_KEPT_KEYS * chains.KEPT_SIZE
    with pytest.raises(InvalidMessage, match="too old"):
        receiver.receiving(0, 2_999, _JUMP)
    for index in (3_001, 3_000, 4_999):
        receiver, key = receiver.receiving(0, index, _JUMP)
        assert key == keys[index]
        with pytest.raises(InvalidMessage, match="used before"):
            receiver.receiving(0, index, _JUMP)
    with pytest.raises(InvalidMessage, match="used before"):
        receiver.receiving(0, 5_000, _JUMP)


def test_keys_grow_too_old_one_by_one() -> None:
    sender, receiver = _ends()
    keys = {}
    for _ in range(2_020):
        sender, index, keys[index] = sender.next_sending(0)
    receiver, _ = receiver.receiving(0, 11, _JUMP)  # keeps 1 to 10
    for index in range(12, 2_006):
        receiver, _ = receiver.receiving(0, index, _JUMP)
    with pytest.raises(InvalidMessage, match="too old"):
        receiver.receiving(0, 4, _JUMP)
    receiver, key = receiver.receiving(0, 5, _JUMP)
    assert key == keys[5]


def test_index_zero_is_never_a_key() -> None:
    with pytest.raises(InvalidMessage):
        _ends()[1].receiving(0, 0, _JUMP)


def test_the_last_index_is_used_and_no_further() -> None:
    sender, _ = _ends()
    nearly = (limits.MAX_INDEX - 1).to_bytes(4, "big") + sender.pairs[0][4:]
    sender, index, _ = sender._replace(pairs=(nearly,)).next_sending(0)
    assert index == limits.MAX_INDEX
    with pytest.raises(InvalidMessage, match="used up"):
        sender.next_sending(0)


def test_which_epochs_are_kept() -> None:
    sender, receiver = _ends()
    keys = {}
    for number in range(4):
        if number:
            secret = bytes([number]) * 32
            sender, receiver = sender.add_epoch(secret), receiver.add_epoch(secret)
        sender, index, keys[number] = sender.next_sending(number)
        receiver, _, _ = receiver.next_sending(number)
        assert index == 1
        assert (sender.first, sender.sending) == (max(number - 1, 0), number)
        assert len(sender.pairs) == min(number + 1, 2)
        assert all(pair[: chains.SENDING_SIZE] == chains.ENDED for pair in sender.pairs[:-1])
    assert receiver.receiving(2, 1, _JUMP)[1] == keys[2]
    assert receiver.receiving(3, 1, _JUMP)[1] == keys[3]
    for number in (-1, 0, 1, 4):
        with pytest.raises(InvalidMessage, match="epoch"):
            receiver.receiving(number, 1, _JUMP)


def test_an_epoch_added_early_is_not_sent_on_before_its_time() -> None:
    sender, receiver = (end.add_epoch(b"s" * 32) for end in _ends())
    sender, _, key = sender.next_sending(0)
    assert (sender.sending, len(sender.pairs)) == (0, 2)
    assert receiver.receiving(0, 1, _JUMP)[1] == key
