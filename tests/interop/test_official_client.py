"""Live sessions with official clients: 0.103.0, in which the post-quantum ratchet is required, and
0.90.0, in which it is optional; ours under every policy that each of them can talk to.

Seeded random schedules in both roles, with loss, reordering, duplication and damage; both sides'
verdicts are compared where the official client has a name for its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tripleratchet import SessionRecord
from tripleratchet.sparse_pq import SparseRatchet

from tests.harness.node import CURRENT_CLIENT, LAST_WITHOUT_SPQR
from tests.harness.peers import Party, Peer, PeerError, official_peer, our_peer

pytestmark = pytest.mark.interop

_OURS = {"addr": "6838237d-02f6-4098-b110-698253d15961", "dev": 2}
_THEIRS = {"addr": "9d0652a3-dcc3-4d11-975f-74d61598733f", "dev": 1}
_KEPT_CHAINS = 5


_PAIRINGS = [
    pytest.param((CURRENT_CLIENT, "0.103.0", "required"), id="0.103 required"),
    pytest.param((CURRENT_CLIENT, "0.103.0", "optional"), id="0.103 optional"),
    pytest.param((LAST_WITHOUT_SPQR, "0.90.0", "required"), id="0.90 required"),
    pytest.param((LAST_WITHOUT_SPQR, "0.90.0", "optional"), id="0.90 optional"),
    pytest.param((LAST_WITHOUT_SPQR, "0.90.0", "declined"), id="0.90 declined"),
]


@dataclass(frozen=True)
class Peers:
    """Our peer, an official one of this version, and our policy towards it."""

    ours: Peer
    official: Peer
    version: str
    policy: str


@pytest.fixture(scope="module", params=_PAIRINGS)
def peers(request: pytest.FixtureRequest) -> Iterator[Peers]:
    package, version, policy = request.param
    with official_peer(package) as official, our_peer() as ours:
        yield Peers(ours, official, version, policy)


@pytest.fixture(params=["we initiate", "official initiates"])
def pair(request: pytest.FixtureRequest, peers: Peers) -> tuple[Party, Party]:
    """Initiator and responder, freshly made."""
    us = Party(peers.ours, "us", _OURS, 7001, policy=peers.policy).create()
    official = Party(peers.official, "official", _THEIRS, 7002).create()
    return (us, official) if request.param == "we initiate" else (official, us)


def _start(initiator: Party, responder: Party, *, one_time: int | None = 1) -> dict[str, Any]:
    bundle = responder.bundle(one_time=one_time, signed=1, kyber=1)
    initiator.process_bundle(responder, bundle)
    return bundle


def test_the_official_client_is_the_pinned_one(peers: Peers) -> None:
    assert peers.official.call("version")["version"] == peers.version


@pytest.mark.parametrize("one_time", [None, 0, 2**32 - 1])
def test_a_conversation(pair: tuple[Party, Party], one_time: int | None) -> None:
    initiator, responder = pair
    _start(initiator, responder, one_time=one_time)
    first = initiator.encrypt(responder, b"")
    assert first["type"] == 3
    assert responder.decrypt(initiator, first) == b""
    for turn in range(12):
        sender, receiver = (responder, initiator) if turn % 2 == 0 else (initiator, responder)
        for repeat in range(3):
            text = f"turn {turn} message {repeat}".encode() * (repeat * 40 + 1)
            message = sender.encrypt(receiver, text)
            assert message["type"] == 2
            assert receiver.decrypt(sender, message) == text


@dataclass
class Wire:
    """Messages under way in one direction, those delivered, and the receiver's chains so far."""

    sender: Party
    receiver: Party
    under_way: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    delivered: list[dict[str, Any]] = field(default_factory=list)
    chains: list[str] = field(default_factory=list)


@pytest.mark.parametrize("seed", range(4))
def test_a_lossy_reordering_network(pair: tuple[Party, Party], seed: int) -> None:
    choose = random.Random(seed)
    initiator, responder = pair
    _start(initiator, responder)
    # The initiator's first receiving chain is the responder's signed pre-key, never sent on.
    there, back = Wire(initiator, responder), Wire(responder, initiator, chains=["signed pre-key"])
    _send(there, b"opening")
    _deliver(there, 0)
    for step in range(160):
        wire = choose.choice((there, back))
        action = choose.choices(("send", "deliver", "lose", "repeat"), (5, 5, 1, 1))[0]
        if action == "send":
            _send(wire, f"{seed} {step}".encode())
        elif action == "deliver" and wire.under_way:
            _deliver(wire, min(choose.randrange(4), len(wire.under_way) - 1))
        elif action == "lose" and wire.under_way:
            wire.under_way.pop(0)
        elif action == "repeat" and wire.delivered:
            _refused(wire, wire.delivered[-1], "DuplicatedMessage")
    for wire in (there, back):  # both ends still talk
        wire.under_way.clear()
        _send(wire, b"at the end")
        _deliver(wire, 0)


def _send(wire: Wire, text: bytes) -> None:
    wire.under_way.append((wire.sender.encrypt(wire.receiver, text), text))


def _deliver(wire: Wire, position: int) -> None:
    message, text = wire.under_way.pop(position)
    chain = _chain(message)
    if chain in wire.chains[:-_KEPT_CHAINS]:
        # The one way an honest message fails: its chain is no longer among the newest five.
        _refused(wire, message, "InvalidMessage")
        return
    assert wire.receiver.decrypt(wire.sender, message) == text
    wire.delivered.append(message)
    if chain not in wire.chains:
        wire.chains.append(chain)


def _chain(message: dict[str, Any]) -> str:
    """Which chain a message is on; pre-key messages are all on the initiator's first."""
    return "first" if message["type"] == 3 else message["ct"][6:72]


def _refused(wire: Wire, message: dict[str, Any], verdict: str) -> None:
    with pytest.raises(PeerError) as caught:
        wire.receiver.decrypt(wire.sender, message)
    assert caught.value.name == verdict


def test_verdicts_on_damage(pair: tuple[Party, Party]) -> None:
    initiator, responder = pair
    _start(initiator, responder)
    wire = Wire(initiator, responder)
    first = initiator.encrypt(responder, b"first")
    _refused(wire, _flip(first, -1), "InvalidMessage")
    assert responder.decrypt(initiator, first) == b"first"
    _refused(wire, first, "DuplicatedMessage")
    reply = responder.encrypt(initiator, b"reply")
    back = Wire(responder, initiator)
    for position in (-1, -9, 5):
        _refused(back, _flip(reply, position), "InvalidMessage")
    assert initiator.decrypt(responder, reply) == b"reply"
    _refused(back, _flip(reply, -1), "DuplicatedMessage")


@pytest.mark.parametrize(
    ("type_", "body", "verdict"),
    [
        (2, "", "CiphertextMessageTooShort"),
        (3, "", "CiphertextMessageTooShort"),
        (3, "44", "InvalidProtobufEncoding"),
        (2, "44" + "00" * 20, "InvalidProtobufEncoding"),
    ],
)
def test_verdicts_on_unreadable_messages(
    pair: tuple[Party, Party], type_: int, body: str, verdict: str
) -> None:
    for receiver, sender in (pair, pair[::-1]):
        _refused(Wire(sender, receiver), {"type": type_, "ct": body}, verdict)


def _flip(message: dict[str, Any], position: int) -> dict[str, Any]:
    body = bytearray.fromhex(message["ct"])
    body[position] ^= 1
    return message | {"ct": body.hex()}


def test_simultaneous_initiation(pair: tuple[Party, Party]) -> None:
    one, other = pair
    _start(one, other)
    _start(other, one)
    crossing = one.encrypt(other, b"from one"), other.encrypt(one, b"from other")
    assert other.decrypt(one, crossing[0]) == b"from one"
    assert one.decrypt(other, crossing[1]) == b"from other"
    for turn in range(6):
        sender, receiver = (one, other) if turn % 2 else (other, one)
        text = f"after {turn}".encode()
        assert receiver.decrypt(sender, sender.encrypt(receiver, text)) == text


@pytest.mark.parametrize("answered", [False, True])
def test_a_session_that_fails_is_healed(pair: tuple[Party, Party], answered: bool) -> None:
    initiator, responder = pair
    _start(initiator, responder)
    if answered:
        responder.decrypt(initiator, initiator.encrypt(responder, b"hello"))
        initiator.decrypt(responder, responder.encrypt(initiator, b"hello"))
    lost = initiator.encrypt(responder, b"important")
    complaint = responder.call("complain", **{"from": initiator.address}, **lost)["ct"]
    assert initiator.call("heal", **{"from": responder.address}, ct=complaint)["archived"]
    with pytest.raises(PeerError):  # there is none to send with now
        initiator.encrypt(responder, b"important")
    again = responder.bundle(one_time=2, signed=1, kyber=1)
    initiator.process_bundle(responder, again)
    message = initiator.encrypt(responder, b"important")
    assert message["type"] == 3
    assert responder.decrypt(initiator, message) == b"important"
    # The same complaint once more is old news: it must not cost the new session.
    assert not initiator.call("heal", **{"from": responder.address}, ct=complaint)["archived"]
    assert initiator.decrypt(responder, responder.encrypt(initiator, b"got it")) == b"got it"


def test_an_archived_session_still_receives(pair: tuple[Party, Party]) -> None:
    initiator, responder = pair
    _start(initiator, responder)
    responder.decrypt(initiator, initiator.encrypt(responder, b"first"))
    initiator.decrypt(responder, responder.encrypt(initiator, b"reply"))
    responder.call("archive", to=initiator.address)
    with pytest.raises(PeerError) as caught:
        responder.encrypt(initiator, b"no session to send with")
    assert caught.value.name == "SessionNotFound"
    assert responder.decrypt(initiator, initiator.encrypt(responder, b"back")) == b"back"
    assert initiator.decrypt(responder, responder.encrypt(initiator, b"again")) == b"again"


def test_a_replay_after_the_session_was_lost(pair: tuple[Party, Party]) -> None:
    initiator, responder = pair
    _start(initiator, responder)
    first = initiator.encrypt(responder, b"first")
    responder.decrypt(initiator, first)
    responder.call("dropSession", to=initiator.address)
    _refused(Wire(initiator, responder), first, "InvalidPreKeyId")


def test_a_changed_identity_is_refused(pair: tuple[Party, Party]) -> None:
    initiator, responder = pair
    _start(initiator, responder)
    responder.decrypt(initiator, initiator.encrypt(responder, b"first"))
    initiator.create()
    bundle = responder.bundle(one_time=2, signed=2, kyber=2)
    initiator.process_bundle(responder, bundle)
    message = initiator.encrypt(responder, b"who is this")
    _refused(Wire(initiator, responder), message, "UntrustedIdentity")


def test_a_forged_bundle_is_refused(pair: tuple[Party, Party]) -> None:
    initiator, responder = pair
    bundle = responder.bundle(one_time=1, signed=1, kyber=1)
    for kind in ("spk", "kpk"):
        signature = bytearray.fromhex(bundle[kind]["sig"])
        signature[0] ^= 1
        forged = bundle | {kind: bundle[kind] | {"sig": signature.hex()}}
        with pytest.raises(PeerError) as caught:
            initiator.process_bundle(responder, forged)
        assert caught.value.name == "SignatureValidationFailed"
    initiator.process_bundle(responder, bundle)


@pytest.fixture(scope="module")
def current() -> Iterator[tuple[Peer, Peer]]:
    with official_peer() as official, our_peer() as ours:
        yield ours, official


@pytest.fixture(params=["we initiate", "official initiates"])
def current_pair(request: pytest.FixtureRequest, current: tuple[Peer, Peer]) -> tuple[Party, Party]:
    """Initiator and responder, the other one being the current official client."""
    us = Party(current[0], "long", _OURS, 7001).create()
    official = Party(current[1], "long", _THEIRS, 7002).create()
    return (us, official) if request.param == "we initiate" else (official, us)


def test_several_epochs_in_bursts_with_loss(current_pair: tuple[Party, Party]) -> None:
    """Bursts of either side, a quarter lost and the rest out of order, beyond the fourth epoch."""
    choose = random.Random(11)
    initiator, responder = current_pair
    _start(initiator, responder)
    for turn in range(160):
        sender, receiver = (initiator, responder) if turn % 2 == 0 else (responder, initiator)
        texts = [f"{turn} {number}".encode() for number in range(choose.randrange(1, 8))]
        sent = list(zip(sender.encrypt_many(receiver, texts), texts, strict=True))
        kept = [pair for pair in sent if choose.randrange(4)] or sent[-1:]
        choose.shuffle(kept)
        opened = receiver.decrypt_many(sender, [message for message, _ in kept])
        assert opened == [text for _, text in kept]
    assert _epoch(initiator, responder) >= 4


def _epoch(*parties: Party) -> int:
    """The post-quantum epoch that our party is in."""
    for party, other in (parties, parties[::-1]):
        if party.address == _OURS:
            stored = party.call("session", to=other.address)["session"]
            record = SessionRecord.from_bytes(bytes.fromhex(stored))
            current = record.current_session()
            assert current is not None
            return SparseRatchet.from_bytes(current.post_quantum.to_bytes()).epoch
    raise AssertionError("no party of ours")


@pytest.mark.parametrize("answers", [0, 1, 6])
def test_thousands_in_one_direction(current_pair: tuple[Party, Party], answers: int) -> None:
    """From the start, and from states further on in the first epoch."""
    initiator, responder = current_pair
    _start(initiator, responder)
    for _ in range(answers):
        responder.decrypt(initiator, initiator.encrypt(responder, b"there"))
        initiator.decrypt(responder, responder.encrypt(initiator, b"and back"))
    for sender, receiver in ((initiator, responder), (responder, initiator)):
        for batch in range(3):
            texts = [f"{batch} {number}".encode() for number in range(500)]
            assert receiver.decrypt_many(sender, sender.encrypt_many(receiver, texts)) == texts


@pytest.mark.timeout(240)
@pytest.mark.parametrize("direction", ["to the official client", "from it"])
def test_the_chunk_index_wraps_around(current: tuple[Peer, Peer], direction: str) -> None:
    """66,000 messages in one direction, each delivered, those around the wrap out of order; then
    the conversation goes on into the next epoch."""
    us = Party(current[0], "wrap", _OURS, 7001).create()
    official = Party(current[1], "wrap", _THEIRS, 7002).create()
    sender, receiver = (us, official) if direction == "to the official client" else (official, us)
    _start(receiver, sender)
    for _ in range(4):
        sender.decrypt(receiver, receiver.encrypt(sender, b"there"))
        receiver.decrypt(sender, sender.encrypt(receiver, b"and back"))
    choose = random.Random(direction)
    for batch in range(33):
        texts = [b"%d" % number for number in range(batch * 2_000, (batch + 1) * 2_000)]
        sent = list(zip(sender.encrypt_many(receiver, texts), texts, strict=True))
        if batch == 65_536 // 2_000:
            around = sent[1_400:1_700]
            choose.shuffle(around)
            sent[1_400:1_700] = around
        opened = receiver.decrypt_many(sender, [message for message, _ in sent])
        assert opened == [text for _, text in sent]
    for turn in range(120):
        for one, other in ((receiver, sender), (sender, receiver)):
            text = f"after {turn}".encode()
            assert other.decrypt(one, one.encrypt(other, text)) == text
    assert _epoch(us, official) >= 2


def test_safety_numbers_agree(pair: tuple[Party, Party]) -> None:
    one, other = pair
    ids = (b"\x01" * 16).hex(), (b"\x02" * 16).hex()
    mine = one.call("safetyNumber", peerPub=other.identity, id=ids[0], peerId=ids[1])
    theirs = other.call("safetyNumber", peerPub=one.identity, id=ids[1], peerId=ids[0])
    assert mine["displayable"] == theirs["displayable"]
    assert len(mine["displayable"]) == 60
    scannable = bytes.fromhex(mine["scannable"])
    for scanner, scanned, said in (
        (one, theirs["scannable"], True),
        (other, mine["scannable"], True),
        (one, mine["scannable"], False),  # its own
        (other, (scannable[:-1] + bytes((scannable[-1] ^ 1,))).hex(), False),
    ):
        us, them = (one, other) if scanner is one else (other, one)
        own, peer = ids if scanner is one else ids[::-1]
        fields = {"peerPub": them.identity, "id": own, "peerId": peer, "scanned": scanned}
        assert us.call("compareSafetyNumber", **fields)["same"] is said
    with pytest.raises(PeerError):
        one.call(
            "compareSafetyNumber", peerPub=other.identity, id=ids[0], peerId=ids[1], scanned="ff"
        )
    another = other.create()
    changed = one.call("safetyNumber", peerPub=another.identity, id=ids[0], peerId=ids[1])
    assert changed["displayable"] != mine["displayable"]
