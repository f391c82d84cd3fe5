"""Which messages of a Send stream are unanswered, and which of them to write next: pure.

    admitted ──take──▶ written ──answer──▶ gone
        ▲                 │
        └──── lost ───────┘   the stream ended: everything unanswered is written again, in the order
                              of its admission, under the same keys

Knows no stream, no clock, no task. A message is in here until the gateway has answered it.
"""

from __future__ import annotations

from collections import deque

from letterlock.errors import InvalidRequest
from letterlock.v1 import errors_pb2, messaging_pb2

MAX_BATCH_MESSAGES = 256
MAX_BATCH_BYTES = 3 * 1024 * 1024
"""Below the contract's 4 MiB by more than one message and the framing."""


class SendWindow:
    """The unanswered messages of one sender, by idempotency key."""

    def __init__(self, limit: int) -> None:
        """`limit`: how many messages may be unanswered at a time."""
        self.limit = limit
        self._unanswered: dict[str, messaging_pb2.OutgoingMessage] = {}
        self._to_write: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._unanswered)

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be admitted now."""
        return len(self._unanswered) >= self.limit

    @property
    def has_work(self) -> bool:
        """Whether take() would give something."""
        return bool(self._to_write)

    def admit(self, message: messaging_pb2.OutgoingMessage) -> None:
        """Take a message in. Raises InvalidRequest when its key is waiting for an answer already:
        two answers under one key could not be told apart."""
        key = message.idempotency_key
        if key in self._unanswered:
            limit = "unique among unanswered messages"
            raise InvalidRequest("key is in use", field="idempotency_key", limit=limit)
        self._unanswered[key] = message
        self._to_write.append(key)

    def take(self, max_messages: int) -> list[messaging_pb2.OutgoingMessage]:
        """The next batch to write: in order of admission, within both limits of a batch."""
        batch: list[messaging_pb2.OutgoingMessage] = []
        size = 0
        while self._to_write and len(batch) < min(max_messages, MAX_BATCH_MESSAGES):
            message = self._unanswered[self._to_write[0]]
            size += message.ByteSize()
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(message)
            self._to_write.popleft()
        return batch

    def answer(self, result: messaging_pb2.SendResult) -> bool:
        """Note an answer; True when the caller is to hear of it.

        A refusal because the process is draining is not the end of a message: it stays, and is
        written again on the next stream. An answer to an unknown key is ignored.
        """
        if result.refused.reason == errors_pb2.ERROR_REASON_DRAINING:
            return False
        return self._unanswered.pop(result.idempotency_key, None) is not None

    def lost(self) -> None:
        """The stream has ended: everything unanswered is to be written again."""
        self._to_write = deque(self._unanswered)
