"""Submissions on their way to the relay, and acks: what a lost stream must say again.

    offered ──▶ waiting ──frame──▶ in flight ──answered──▶ gone
                   ▲                   │
                   └────── lost ───────┘   in the order in which they were first sent

Pure bookkeeping: no I/O, no time. The tag of a submission is its owner's and opaque here. Bounds
are the owner's too: it offers only as many as it may have open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from letterlock.relay.v1 import mailbox_pb2 as wire

from letterlockd.model.varint import varint

__all__ = ["MAX_FRAME_MESSAGES", "Answered", "Flight"]

MAX_FRAME_MESSAGES = 256
"""Submissions in one frame, by contract."""

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""Serialised size of the submissions of one frame, by contract."""

MAX_ACKS = 10_000
"""Item ids in one ack frame, by contract."""

_FRAMING_BYTES = 8

_SUBMISSIONS_TAG = b"\x12"  # ConnectRequest.submissions: field 2, length-delimited
_SUBMISSION_TAG = b"\x0a"  # Submissions.submissions: field 1, length-delimited

T = TypeVar("T", bound=Hashable)

_Name = tuple[bytes, bytes]
"""Account and submission id."""


class Answered(NamedTuple, Generic[T]):
    """The relay's answer to a submission, with its owner's tag."""

    tag: T
    result: wire.SubmissionResult


@dataclass(slots=True)
class _Open(Generic[T]):
    tag: T
    submission: bytes
    name: _Name


class Flight(Generic[T]):
    """What is waiting to be said and what is said but not answered, on one stream after another."""

    def __init__(self) -> None:
        self._waiting: deque[_Open[T]] = deque()
        self._in_flight: dict[_Name, _Open[T]] = {}
        self._acks: deque[int] = deque()
        self._failed: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    def offer(self, tag: T, account: bytes, message_id: bytes, submission: bytes) -> None:
        """Send this serialised Submission after those that wait."""
        self._waiting.append(_Open(tag, submission, (account, message_id)))

    @property
    def newest(self) -> _Name | None:
        """What was sent last of all that is not answered."""
        return next(reversed(self._in_flight), None)

    def awaits(self, name: _Name) -> bool:
        """Whether this was sent and is not answered."""
        return name in self._in_flight

    def acknowledge(self, item_ids: Sequence[int], failed: Sequence[int] = ()) -> None:
        """Tell the relay that these items of the present stream are safe, or were not decrypted."""
        self._acks.extend(item_ids)
        self._failed.extend(failed)

    def lost(self) -> None:
        """The stream ended: what was not answered is said again first, acks are void."""
        self._waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()
        self._acks.clear()
        self._failed.clear()

    def withdraw(self, tags: set[T]) -> None:
        """Forget submissions; an answer that still comes for one is ignored."""
        self._waiting = deque(entry for entry in self._waiting if entry.tag not in tags)
        self._in_flight = {n: e for n, e in self._in_flight.items() if e.tag not in tags}

    def next_frame(self) -> bytes | None:
        """The next ConnectRequest to write, serialised, acks before submissions; None: nothing to
        say."""
        if self._acks or self._failed:
            ids = _taken(self._acks, MAX_ACKS)
            failed = _taken(self._failed, MAX_ACKS - len(ids))
            acks = wire.Acks(item_ids=ids, failed_item_ids=failed)
            return wire.ConnectRequest(acks=acks).SerializeToString()
        if not self._waiting:
            return None
        return self._submissions_frame()

    def _submissions_frame(self) -> bytes:
        """As many as fit, at least one, joined as they are: to parse them would serve nobody."""
        parts: list[bytes] = []
        count = size = 0
        while self._waiting and count < MAX_FRAME_MESSAGES:
            entry = self._waiting[0]
            submission = entry.submission
            size += len(submission) + _FRAMING_BYTES
            if count and size > MAX_FRAME_BYTES:
                break
            parts += (_SUBMISSION_TAG, varint(len(submission)), submission)
            count += 1
            self._in_flight[entry.name] = self._waiting.popleft()
        body = b"".join(parts)
        return b"".join((_SUBMISSIONS_TAG, varint(len(body)), body))

    def answered(self, results: wire.SubmissionResults) -> list[Answered[T]]:
        """Match answers with what is in flight; answers to anything else are ignored."""
        matched = []
        for result in results.results:
            entry = self._in_flight.pop((result.sender_account_id, result.message_id), None)
            if entry is not None:
                matched.append(Answered(entry.tag, result))
        return matched


def _taken(ids: deque[int], limit: int) -> list[int]:
    return [ids.popleft() for _ in range(min(len(ids), limit))]
