"""Every limit of the session layer, on both of its sides."""

from __future__ import annotations

import pytest
import tripleratchet as tr
from tripleratchet import limits
from tripleratchet.double import Core, Ratchet, ReceivingChain

from tests.harness.ratchet import Device, pair


def _sent(sender: Device, receiver: Device, count: int) -> list[tr.CiphertextMessage]:
    record, messages = sender.record(receiver), []
    for number in range(count):
        assert record is not None
        record, message = tr.encrypt(
            record,
            local=sender.local,
            remote=receiver.address,
            plaintext=str(number).encode(),
            now_ms=sender.now_ms,
            random=sender.random,
        )
        messages.append(message)
    assert record is not None
    sender.records[receiver.address] = record.to_bytes()
    return messages


@pytest.mark.parametrize("device", [0, 128, -1])
def test_a_device_number_out_of_range(device: int) -> None:
    with pytest.raises(tr.InvalidAddress):
        tr.Address("+14155550100", device)


def test_forward_jump_and_skipped_seeds() -> None:
    """Of the Double Ratchet alone: the other ratchet counts on, and refuses one message sooner."""
    one, other = pair(policy=tr.PostQuantumPolicy.DECLINED)
    messages = _sent(one, other, limits.MAX_FORWARD_JUMP + 2)
    with pytest.raises(tr.InvalidMessage):
        other.decrypt(one, messages[25_001])
    assert other.decrypt(one, messages[25_000]) == b"25000"
    with pytest.raises(tr.DuplicatedMessage):  # trimmed seeds answer as used ones do
        other.decrypt(one, messages[22_999])
    for number in (23_000, 24_999, 24_000, 25_001):
        assert other.decrypt(one, messages[number]) == str(number).encode()
        with pytest.raises(tr.DuplicatedMessage):
            other.decrypt(one, messages[number])
    assert len(other.records[one.address]) < 73_000


def test_seeds_of_two_jumps_share_one_store() -> None:
    one, other = pair(policy=tr.PostQuantumPolicy.DECLINED)
    messages = _sent(one, other, 2_102)
    for number in (1_000, 2_101):  # 2,100 seeds passed over: the oldest hundred are gone
        assert other.decrypt(one, messages[number]) == str(number).encode()
    for number in (0, 99):
        with pytest.raises(tr.DuplicatedMessage):
            other.decrypt(one, messages[number])
    for number in (100, 999, 1_001, 2_100):
        assert other.decrypt(one, messages[number]) == str(number).encode()


def test_the_limits_are_those_of_the_protocol() -> None:
    assert (limits.MAX_FORWARD_JUMP, limits.MAX_SKIPPED_SEEDS) == (25_000, 2_000)
    assert (limits.MAX_RECEIVING_CHAINS, limits.MAX_ARCHIVED_SESSIONS) == (5, 40)
    assert limits.MAX_UNACKNOWLEDGED_SECONDS == 2_592_000


@pytest.mark.parametrize(
    ("addresses", "allowed"),
    [
        (("9d0652a3-dcc3-4d11-975f-74d61598733f",) * 2, True),
        (("9d0652a3-dcc3-4d11-975f-74d61598733f", "9D0652A3-DCC3-4D11-975F-74D61598733F"), True),
        (("+14155550100",) * 2, False),
    ],
)
def test_only_a_session_with_oneself_may_jump_further(
    addresses: tuple[str, str], *, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tripleratchet.session.MAX_FORWARD_JUMP", 5)
    one, other = Device.create(addresses[0], 1), Device.create(addresses[1], 2)
    other.local = tr.LocalParty(other.address, one.local.identity, 1)
    one.start(other)
    other.decrypt(one, one.encrypt(other, b"first"))
    far = _sent(one, other, 7)[-1]
    if allowed:
        assert other.decrypt(one, far) == b"6"
    else:
        with pytest.raises(tr.InvalidMessage):
            other.decrypt(one, far)


def test_receiving_chains() -> None:
    one, other = pair()
    late = []
    for turn in range(limits.MAX_RECEIVING_CHAINS):
        late.append(one.encrypt(other, f"late {turn}".encode()))
        other.decrypt(one, one.encrypt(other, b"turn"))
        one.decrypt(other, other.encrypt(one, b"and back"))
    for turn, message in enumerate(late):
        assert other.decrypt(one, message) == f"late {turn}".encode()
    forgotten = one.encrypt(other, b"forgotten")
    for _ in range(limits.MAX_RECEIVING_CHAINS + 1):
        other.decrypt(one, one.encrypt(other, b"turn"))
        one.decrypt(other, other.encrypt(one, b"and back"))
    with pytest.raises(tr.InvalidMessage):
        other.decrypt(one, forgotten)


def test_archived_sessions() -> None:
    one, other = Device.create("one"), Device.create("other")
    firsts = []
    for number in range(limits.MAX_ARCHIVED_SESSIONS + 2):
        one.start(other, other.bundle(one_time=number))
        message = one.encrypt(other, f"first {number}".encode())
        other.decrypt(one, message)
        firsts.append(_sent(one, other, 1)[0])
    record = other.record(one)
    assert record is not None
    assert len(record.archived) == limits.MAX_ARCHIVED_SESSIONS
    assert other.decrypt(one, firsts[1]) == b"0"  # promotes the second, drops nothing
    with pytest.raises(tr.RatchetError):
        other.decrypt(one, firsts[0])


def test_age_of_an_unanswered_session() -> None:
    one, other = pair(acknowledged=False)
    one.now_ms += limits.MAX_UNACKNOWLEDGED_SECONDS * 1000
    one.encrypt(other, b"exactly thirty days")
    one.now_ms += 1
    with pytest.raises(tr.SessionNotFound):
        one.encrypt(other, b"a millisecond more")


def test_an_answered_session_has_no_age() -> None:
    one, other = pair()
    one.now_ms += 10 * limits.MAX_UNACKNOWLEDGED_SECONDS * 1000
    assert one.encrypt(other, b"still fine").type == 2


def test_a_pre_key_session_sends_pre_key_messages_until_it_is_answered() -> None:
    one, other = pair(acknowledged=False)
    messages = [one.encrypt(other, str(number).encode()) for number in range(3)]
    assert [message.type for message in messages] == [3, 3, 3]
    assert [other.decrypt(one, messages[number]) for number in (2, 0, 1)] == [b"2", b"0", b"1"]
    one.decrypt(other, other.encrypt(one, b"answer"))
    assert one.encrypt(other, b"now").type == 2


def _at_counter(sender: Device, receiver: Device, counter: int) -> None:
    """Both ends as they were after so many messages on the chain that `sender` sends on."""
    for device, peer, is_sender in ((sender, receiver, True), (receiver, sender, False)):
        record = device.record(peer)
        assert record is not None
        session = record.current_session()
        assert session is not None
        core, chains = session.ratchet
        if is_sender:
            core = Core.decode(core)._replace(counter=counter).encode()
        else:
            newest = ReceivingChain.decode(chains[-1])._replace(counter=counter)
            chains = (*chains[:-1], newest.encode())
        changed = session._replace(ratchet=Ratchet(core, chains))
        device.records[peer.address] = record.with_current(changed).to_bytes()


@pytest.mark.parametrize("policy", [tr.PostQuantumPolicy.REQUIRED, tr.PostQuantumPolicy.DECLINED])
def test_the_last_counter_is_sent_and_no_further(policy: tr.PostQuantumPolicy) -> None:
    one, other = pair(policy=policy)
    other.decrypt(one, one.encrypt(other, b"on the chain"))
    _at_counter(one, other, limits.MAX_COUNTER - 1)
    before_last = one.encrypt(other, b"before the last")
    assert other.decrypt(one, before_last) == b"before the last"
    stored = one.records[other.address]
    with pytest.raises(tr.InvalidMessage):
        one.encrypt(other, b"there is no counter after this one")
    assert one.records[other.address] == stored
    with pytest.raises(tr.DuplicatedMessage):
        other.decrypt(one, before_last)
    assert one.decrypt(other, other.encrypt(one, b"a turn")) == b"a turn"  # makes a new chain
    assert other.decrypt(one, one.encrypt(other, b"on a new one")) == b"on a new one"


def test_a_forged_counter_at_the_end_of_its_range_is_refused() -> None:
    one, other = pair()
    message = one.encrypt(other, b"text")
    body = bytearray(message.body)
    at = body.index(b"\x10", 36)
    for counter in (b"\xff\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\x0f", b"\xa8\xc3\x01"):
        forged = bytes(body[: at + 1]) + counter + bytes(body[at + 2 :])
        with pytest.raises(tr.InvalidMessage):
            other.decrypt(one, tr.CiphertextMessage(message.type, forged))
    assert other.decrypt(one, message) == b"text"
