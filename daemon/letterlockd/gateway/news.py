"""News about a sent message, what they change in its record, and the event that tells so. Pure."""

from __future__ import annotations

from typing import NamedTuple

from letterlock.v1 import messaging_pb2 as api

from letterlockd.gateway.statuses import Status, advance
from letterlockd.model.ids import AccountId, ConversationId, MessageId
from letterlockd.records.v1 import gateway_pb2 as records
from letterlockd.records.v1 import inbox_pb2

__all__ = ["MIN_EVENT_LIFE_MS", "Advance", "apply", "fill_event"]

MIN_EVENT_LIFE_MS = 24 * 3_600_000
"""A status that changes at the end of a message's life is still to be told. An event holds
neither content nor number."""


class Advance(NamedTuple):
    """News: `message_id` has come to `status`. `within`: the account, or the conversation, that
    the message must belong to; news about another's message change nothing. `payload`: kept,
    sealed, while the message is SENT. `resent`: to which device it was sent again, how often."""

    message_id: MessageId
    status: Status
    within: AccountId | ConversationId
    failure: api.Failure | None = None
    payload: bytes = b""
    resent: records.Resent | None = None

    def __repr__(self) -> str:
        return f"Advance({self.message_id.hex()}, {self.status})"


def apply(record: records.MessageRecord, news: Advance, now_ms: int) -> bool:
    """Change the record as the news say, never backwards (I7). False: nothing changed."""
    if not record.conversation.startswith(news.within):
        return False
    if news.resent is not None:
        _note_resent(record, news.resent)
    if advance(record.status, news.status) == record.status:
        return news.resent is not None
    record.status = news.status
    record.update_ms = now_ms
    # Somebody may still have to ask for it again; from DELIVERED on nobody will.
    record.sealed_payload = news.payload if news.status == api.MESSAGE_STATUS_SENT else b""
    if news.failure is not None:
        record.failure.CopyFrom(news.failure)
    return True


def fill_event(
    event: inbox_pb2.StoredEvent,
    message_id: MessageId,
    record: records.MessageRecord,
    pseudonym: bytes,
) -> None:
    """Say in an event what the record says."""
    event.time_ms = record.update_ms
    event.pseudonym = pseudonym
    status = event.status
    status.message_id = message_id
    status.reference_key_id = record.reference_key_id
    status.sealed_reference = record.sealed_reference
    status.status = record.status
    if record.HasField("failure"):
        status.failure.CopyFrom(record.failure)


def _note_resent(record: records.MessageRecord, resent: records.Resent) -> None:
    for known in record.resent:
        if known.device_id == resent.device_id:
            known.attempts = max(known.attempts, resent.attempts)
            return
    record.resent.append(resent)
