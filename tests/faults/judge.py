"""The verdict on a ledger: a pure function, so that it can be shown to find each violation.

lost       accepted and never read, or taken by the relay and never heard; or FAILED, EXPIRED
repeated   one idempotency key with two messages, a message read twice, a text heard twice
altered    a text that nobody wrote, or that stands under another message
disordered a message before one that was surely accepted earlier, in the same conversation
backwards  a status that is not further than the one before it
key reuse  two messages encrypted under one message key
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from tests.faults.ledger import Ledger, Sent
from tests.harness.people import DELIVERED, EXPIRED, FAILED, READ


def judge(ledger: Ledger) -> list[str]:
    """Every violation, in words; empty if all promises were kept."""
    return [
        *_outgoing(ledger),
        *_outgoing_order(ledger),
        *_incoming(ledger),
        *_statuses(ledger),
        *(
            f"key reuse: {len(uses)} messages under one message key"
            for uses in ledger.keys.values()
            if len(uses) > 1
        ),
    ]


def is_settled(ledger: Ledger) -> bool:
    """Whether everything that was promised has come; cheap, to be asked often."""
    last = {message_id: told[-1] for message_id, told in ledger.statuses.items()}
    wanted = sum(map(len, ledger.written.values()))
    return (
        all(sent.answered is not None for sent in ledger.sent.values())
        and len(ledger.readings) >= len(ledger.sent)
        and len(ledger.hearings) >= wanted
        and all(
            last.get(message_id, 0) >= (READ if sent.receipt_wanted else DELIVERED)
            for sent in ledger.sent.values()
            for message_id in sent.message_ids[:1]
        )
    )


def _outgoing(ledger: Ledger) -> Iterator[str]:
    texts = {reading.message_id: (reading.number, reading.text) for reading in ledger.readings}
    written: dict[str, tuple[str, str]] = {}
    for key, sent in ledger.sent.items():
        ids = set(sent.message_ids)
        if not ids:
            yield f"lost: {key} was never answered"
        if len(ids) > 1:
            yield f"repeated: {key} was answered with {len(ids)} messages"
        for message_id in ids:
            written[message_id] = (sent.to, sent.text)
            if message_id not in texts:
                yield f"lost: {key} was accepted and never read"
    for message_id, times in Counter(r.message_id for r in ledger.readings).items():
        if times > 1:
            yield f"repeated: {message_id} was read {times} times"
        if message_id not in written:
            yield f"altered: {message_id} was read and never accepted"
        elif texts[message_id] != written[message_id]:
            yield f"altered: {message_id} says something else than was sent"
    for text, times in Counter((r.number, r.text) for r in ledger.readings).items():
        if times > 1:
            yield f"repeated: {text[1]} was read {times} times"


def _outgoing_order(ledger: Ledger) -> Iterator[str]:
    """In what a user read, nobody stands behind a message that had to follow it."""
    by_id = {m: sent for sent in ledger.sent.values() for m in sent.message_ids}
    read: dict[str, list[Sent]] = {}
    for reading in ledger.readings:
        if reading.message_id in by_id:
            read.setdefault(reading.number, []).append(by_id[reading.message_id])
    for messages in read.values():
        for at, later in enumerate(messages):
            for earlier in messages[:at]:
                if _must_precede(later, earlier):
                    yield f"disordered: {later.text} was read after {earlier.text}"


def _must_precede(first: Sent, second: Sent) -> bool:
    if first.answered is not None and first.answered < second.submitted:
        return True
    never_refused = first.refusals == second.refusals == 0
    return never_refused and first.submitted < second.submitted


def _incoming(ledger: Ledger) -> Iterator[str]:
    heard: dict[str, list[str]] = {}
    for hearing in ledger.hearings:
        heard.setdefault(hearing.number, []).append(hearing.text)
    for number in ledger.written.keys() | heard.keys():
        wanted, got = ledger.written.get(number, []), heard.get(number, [])
        times = Counter(got)
        lost = [text for text in wanted if text not in times]
        yield from (f"lost: {text} was taken by the relay and never heard" for text in lost)
        yield from (f"repeated: {t} was heard {n} times" for t, n in times.items() if n > 1)
        yield from (f"altered: {t} was heard and never written" for t in times.keys() - set(wanted))
        if not lost and list(times) != wanted and set(wanted) == times.keys():
            yield f"disordered: a user wrote {wanted} and was heard with {list(times)}"


def _statuses(ledger: Ledger) -> Iterator[str]:
    accepted = {sent.message_ids[0]: sent for sent in ledger.sent.values() if sent.message_ids}
    for message_id in accepted.keys() | ledger.statuses.keys():
        told = ledger.statuses.get(message_id, [])
        if any(later <= earlier for earlier, later in pairwise(told)):
            yield f"backwards: {message_id} was told as {told}"
        if not {FAILED, EXPIRED}.isdisjoint(told):
            yield f"lost: {message_id} ended as {told}"
        elif not told or told[-1] < DELIVERED:
            yield f"lost: {message_id} was not told as delivered, but as {told}"
        if message_id not in accepted:
            yield f"altered: statuses of {message_id}, which nobody sent"
