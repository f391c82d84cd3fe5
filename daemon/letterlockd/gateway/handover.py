"""Turns stored events into what the business is given: the only place where content is opened
after it was sealed for rest.

    sealed payload, sealed number, sealed reference ──day key──▶ letterlock.v1.Event

An event whose row is gone, or whose day key is destroyed, is deleted already (I4): it is left out,
and the caller acknowledges it. One whose seal does not open is given as undecryptable, a status
without its reference, since an event that nobody can open must neither vanish silently nor hold up
those behind it (I9).

Knows no stream and no store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from letterlock.content.v1.content_pb2 import Payload
from letterlock.v1 import messaging_pb2

from letterlockd.gateway.references import open_reference
from letterlockd.model.counting import counted
from letterlockd.model.ids import AccountId
from letterlockd.records.v1 import inbox_pb2
from letterlockd.sealing.errors import KeyDestroyed, SealBroken
from letterlockd.sealing.keyring import DayKey
from letterlockd.sealing.seal import Cipher, seal
from letterlockd.streams.held import Item

__all__ = ["DayKeys", "Handover", "HandoverCounters", "Opened", "open_number", "seal_number"]

_NUMBER = b"number"


class DayKeys(Protocol):
    """The keyring, as far as it is needed here. The scope is the business number's account."""

    async def day_key_by_id(self, scope: bytes, id: bytes, /) -> DayKey:  # noqa: A002
        """Raises `KeyDestroyed`, or `SealBroken` for what is no id."""
        ...


class Opened(NamedTuple):
    """What became of events: `given` are in the frame, in order; `gone` are deleted already."""

    given: list[Item]
    gone: list[Item]


@dataclass(slots=True)
class HandoverCounters:
    """Read by telemetry; written on the loop only."""

    outlived: int = counted("Events not given because their day key was destroyed before.")
    unreadable: int = counted("Events given without what was sealed, as the seal does not open.")


def seal_number(day_key: DayKey, context: bytes, phone_number: str) -> bytes:
    """A user's number for `StoredInbound.sealed_number`; `context`: conversation || message id."""
    return seal(day_key.key, phone_number.encode(), context + _NUMBER)


def open_number(cipher: Cipher, context: bytes, sealed: bytes) -> str:
    """Undo `seal_number`; where nothing was sealed, there is no number. Raises `SealBroken`."""
    return cipher.unseal(sealed, context + _NUMBER).decode() if sealed else ""


class Handover:
    """Opens events of all business numbers."""

    def __init__(self, day_keys: DayKeys) -> None:
        self._day_keys = day_keys
        self.counters = HandoverCounters()

    async def open(
        self, account: AccountId, items: Sequence[Item], frame: messaging_pb2.Events
    ) -> Opened:
        """Add the events to `frame`, built in place: each copy of a protobuf message is a
        serialisation and a parse. Finds each day key once."""
        keys = await self._keys_of(account, items)
        opened = Opened([], [])
        for item in items:
            stored = item.content
            if not isinstance(stored, inbox_pb2.StoredEvent):
                opened.gone.append(item)
                continue
            key_id = _key_id(stored)
            cipher = keys[key_id]
            if key_id and cipher is None:
                self.counters.outlived += 1
                opened.gone.append(item)
            else:
                self._fill(frame.events.add(), account, item, stored, cipher)
                opened.given.append(item)
        return opened

    async def _keys_of(
        self, account: AccountId, items: Iterable[Item]
    ) -> Mapping[bytes, Cipher | None]:
        ids = {
            _key_id(item.content)
            for item in items
            if isinstance(item.content, inbox_pb2.StoredEvent)
        }
        return {id_: await self._find(account, id_) if id_ else None for id_ in ids}

    async def _find(self, account: AccountId, id_: bytes) -> Cipher | None:
        try:
            return Cipher((await self._day_keys.day_key_by_id(account, id_)).key)
        except KeyDestroyed:
            return None

    def _fill(
        self,
        event: messaging_pb2.Event,
        account: AccountId,
        item: Item,
        stored: inbox_pb2.StoredEvent,
        cipher: Cipher | None,
    ) -> None:
        event.event_id = item.event_id
        event.attempt = item.failures + 1
        if item.given:
            event.redelivered = True
        _set_time(event.event_time, stored.time_ms)
        user_id = stored.pseudonym.hex()
        kind = stored.WhichOneof("kind")
        if kind == "inbound" and cipher is not None:
            self._fill_message(event, account, stored, cipher)
        elif kind == "status" and cipher is not None:
            self._fill_status(event.status, stored.status, user_id, cipher)
        elif stored.HasField("identity_change"):
            event.identity_change.user_id = user_id
            event.identity_change.held = stored.identity_change.held
        else:
            _fill_undecryptable(event.undecryptable, user_id, stored.undecryptable)

    def _fill_message(
        self,
        event: messaging_pb2.Event,
        account: AccountId,
        stored: inbox_pb2.StoredEvent,
        cipher: Cipher,
    ) -> None:
        inbound, user_id = stored.inbound, stored.pseudonym.hex()
        context = account + stored.pseudonym + inbound.message_id
        try:
            payload = Payload.FromString(cipher.unseal(inbound.sealed_payload, context))
            number = open_number(cipher, context, inbound.sealed_number)
        except (SealBroken, DecodeError):
            self.counters.unreadable += 1
            unreadable = inbox_pb2.StoredUndecryptable(
                device_id=inbound.device_id,
                message_id=inbound.message_id,
                reason=messaging_pb2.UndecryptableMessage.REASON_GATEWAY,
            )
            _fill_undecryptable(event.undecryptable, user_id, unreadable)
            return
        message = event.message
        message.user_id = user_id
        message.phone_number = number
        message.device_id = inbound.device_id
        message.message_id = payload.message_id.hex()
        message.resent = payload.message_id != inbound.message_id
        message.identity_unconfirmed = inbound.identity_unconfirmed
        message.content.CopyFrom(payload.content)
        if payload.HasField("sent_time"):
            message.sent_time.CopyFrom(payload.sent_time)

    def _fill_status(
        self,
        update: messaging_pb2.StatusUpdate,
        stored: inbox_pb2.StoredStatus,
        user_id: str,
        cipher: Cipher,
    ) -> None:
        update.message_id = stored.message_id.hex()
        update.user_id = user_id
        update.status = stored.status
        if stored.HasField("failure"):
            update.failure.CopyFrom(stored.failure)
        try:
            update.idempotency_key, update.caller_tag = open_reference(
                cipher, stored.message_id, stored.sealed_reference
            )
        except SealBroken:
            self.counters.unreadable += 1


def _key_id(stored: inbox_pb2.StoredEvent) -> bytes:
    """Names the day key of what is sealed in the event; empty: nothing is."""
    kind = stored.WhichOneof("kind")
    if kind == "inbound":
        return stored.inbound.day_key_id
    return stored.status.reference_key_id if kind == "status" else b""


def _fill_undecryptable(
    lost: messaging_pb2.UndecryptableMessage,
    user_id: str,
    stored: inbox_pb2.StoredUndecryptable,
) -> None:
    lost.user_id = user_id
    lost.device_id = stored.device_id
    lost.message_id = stored.message_id.hex()
    lost.reason = stored.reason
    lost.resend_requested = stored.resend_requested


def _set_time(field: Timestamp, milliseconds: int) -> None:
    seconds, rest = divmod(milliseconds, 1000)
    field.seconds = seconds
    field.nanos = rest * 1_000_000
