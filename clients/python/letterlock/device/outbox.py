"""What a device has encrypted and the relay has not answered yet.

    add ──▶ waiting ──settle──▶ gone
              │  ▲
              └──┘ replace: encrypted again because the recipient's devices changed

Each entry is a row until it is settled, so that after a crash the very same ciphertext goes out
again. Knows no ratchet and no network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from letterlock.device.rows import OUT, Rows
from letterlock.errors import LetterlockError
from letterlock.relay.v1 import mailbox_pb2

MAX_WAITING = 256
"""Messages that may wait for the relay; then sending waits, too."""

MAX_HEALING = 256
"""Reports and resends that may wait beside them; then no more are made."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One submission without an answer. `plaintext` is kept to encrypt it for further devices."""

    submission: mailbox_pb2.Submission = field(repr=False)
    plaintext: bytes = field(repr=False)
    answered: asyncio.Future[None] | None
    is_durable: bool = False
    repairs: int = 0

    @property
    def is_healing(self) -> bool:
        """A decryption-error message, or a message sent again because of one: nobody waits for
        it, and it takes nobody's room."""
        return self.submission.HasField("resend") or not self.plaintext


class Outbox:
    """The unanswered submissions by message id, oldest first."""

    def __init__(self, rows: Rows, stored: dict[bytes, bytes]) -> None:
        """`stored`: all rows of the device."""
        self._rows = rows
        self._waiting: dict[bytes, Waiting] = {}
        for name in sorted(name for name in stored if name.startswith(OUT)):
            row = stored[name]
            end = 4 + int.from_bytes(row[:4], "big")
            submission = mailbox_pb2.Submission.FromString(row[4:end])
            self._waiting[name[len(OUT) :]] = Waiting(submission, row[end:], None, True)
        messages = len(self._waiting) - self._healing
        self.room = asyncio.Semaphore(max(0, MAX_WAITING - messages))
        """One permit for each message that add() may take; settle() gives it back."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def may_heal(self) -> bool:
        """Whether a report or a resend more may be added."""
        return self._healing < MAX_HEALING

    @property
    def _healing(self) -> int:
        return sum(entry.is_healing for entry in self._waiting.values())

    def submissions(self) -> Iterator[mailbox_pb2.Submission]:
        """Everything unanswered that may leave this device, oldest first."""
        return (entry.submission for entry in self._waiting.values() if entry.is_durable)

    def get(self, message_id: bytes) -> Waiting | None:
        """An entry, while it waits."""
        return self._waiting.get(message_id)

    def add(self, entry: Waiting) -> None:
        """Keep an entry; an ephemeral one in memory only, it is worthless later.

        The caller sets `is_durable` once the commit is through: a stream that opens meanwhile must
        not take it along.
        """
        self._waiting[entry.submission.message_id] = entry
        self._note(entry)

    def replace(self, entry: Waiting, submission: mailbox_pb2.Submission) -> None:
        """The entry was encrypted again; durable once the caller has committed it."""
        entry.is_durable = False
        entry.submission = submission
        self._note(entry)

    def settle(self, message_id: bytes, error: LetterlockError | None) -> bool:
        """The relay has answered: forget the entry and tell who waits.

        False when an error has nobody who waits for it.
        """
        entry = self._waiting.pop(message_id, None)
        if entry is None:
            return True
        self._rows.delete(OUT + message_id)
        if entry.is_healing:
            return True
        self.room.release()
        answered = entry.answered
        if answered is None or answered.done():
            return error is None
        if error is None:
            answered.set_result(None)
        else:
            answered.set_exception(error)
        return True

    def fail(self, error: LetterlockError) -> None:
        """The connection is gone for good: whoever waits hears it; the entries stay."""
        for entry in self._waiting.values():
            if entry.answered is not None and not entry.answered.done():
                entry.answered.set_exception(error)
        for _ in range(MAX_WAITING):  # who waits for room finds the failure
            self.room.release()

    def _note(self, entry: Waiting) -> None:
        if entry.submission.ephemeral:
            return
        submission = entry.submission.SerializeToString()
        row = len(submission).to_bytes(4, "big") + submission + entry.plaintext
        self._rows.put(OUT + entry.submission.message_id, row)
