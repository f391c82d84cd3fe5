"""Keeps the order of a gateway's submissions over a refusal that passes (no space, too fast).

    refused for now ──▶ the pair is refused with it ──▶ one of the refused comes again ──▶ taken
                        (sender and recipient)

What was on its way behind a refused submission would otherwise be taken as soon as there is space,
and overtake it. The gateway offers again only when all answers are back, so one id that comes
again says that it has gone back. Any of them does: the first may have expired meanwhile.

One for each stream, and it ends with the stream. Knows no rates and no disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from letterlock.relay.v1.mailbox_pb2 import Submission
from letterlock.v1.errors_pb2 import Refusal

from letterlockd.relay.submissions import is_healing

__all__ = ["RefusedPairs"]

_Pair = tuple[bytes, bytes]


@dataclass(slots=True)
class _Refused:
    refusal: Refusal
    ids: set[bytes] = field(default_factory=set)


class RefusedPairs:
    """The pairs that are refused. `len`: the message ids that it remembers for them."""

    def __init__(self) -> None:
        self._pairs: dict[_Pair, _Refused] = {}
        self._ids = 0

    def __len__(self) -> int:
        return self._ids

    def add(self, submission: Submission, refusal: Refusal) -> None:
        """This submission is refused for now: refuse what follows it."""
        if not _has_a_place(submission):
            return
        refused = self._pairs.setdefault(_pair(submission), _Refused(refusal))
        self._ids += submission.message_id not in refused.ids
        refused.ids.add(submission.message_id)

    def behind(self, submission: Submission) -> Refusal | None:
        """Why to refuse a submission of a refused pair. None: it may be judged; when it is one
        that comes again, its pair is no longer refused."""
        pair = _pair(submission)
        refused = self._pairs.get(pair)
        if refused is None or not _has_a_place(submission):
            return None
        if submission.message_id in refused.ids:
            self._ids -= len(self._pairs.pop(pair).ids)
            return None
        self.add(submission, refused.refusal)
        return refused.refusal


def _pair(submission: Submission) -> _Pair:
    return submission.sender_account_id, submission.recipient_account_id


def _has_a_place(submission: Submission) -> bool:
    """What mends a session, and what is not stored, comes in no order."""
    return not (submission.ephemeral or is_healing(submission))
