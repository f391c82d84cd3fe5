"""Turns stored events into what the business is given: the only place where content is opened
after it was sealed for rest.

    sealed payload, sealed number ──day key──▶ letterlock.v1.Event

A message whose day key is destroyed is deleted already (I4): it yields None, and the caller
acknowledges it. One whose seal does not open is given as undecryptable, since an event that nobody
can open must neither vanish silently nor hold up those behind it (I9).

Knows no stream and no store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from letterlock.content.v1.content_pb2 import Payload
from letterlock.v1 import messaging_pb2

from letterlockd.gateway.inbox import Waiting
from letterlockd.model.ids import AccountId
from letterlockd.records.v1 import inbox_pb2
from letterlockd.sealing.errors import KeyDestroyed, SealBroken
from letterlockd.sealing.keyring import DayKey
from letterlockd.sealing.seal import seal, unseal

__all__ = ["DayKeys", "Handover", "HandoverCounts", "Opened", "event_id", "seal_number"]

_NUMBER = b"number"


class DayKeys(Protocol):
    """The keyring, as far as it is needed here. The scope is the business number's account."""

    async def day_key_by_id(self, scope: bytes, id: bytes, /) -> DayKey:  # noqa: A002
        """Raises `KeyDestroyed`, or `SealBroken` for what is no id."""
        ...


class Opened(NamedTuple):
    """An event ready to be given; `event` is None when it is deleted."""

    waiting: Waiting
    event: messaging_pb2.Event | None


class HandoverCounts:
    """How many events could not be given as they were: `destroyed` with their day key, `broken`
    where a seal did not open."""

    def __init__(self) -> None:
        self.destroyed = 0
        self.broken = 0


def event_id(waiting: Waiting) -> str:
    """The public name of an event: opaque to the caller, at most 20 characters."""
    return f"{waiting.place.sequence:x}.{waiting.place.position}"


def seal_number(day_key: DayKey, context: bytes, phone_number: str) -> bytes:
    """A user's number for `StoredInbound.sealed_number`; `context`: conversation || message id."""
    return seal(day_key.key, phone_number.encode(), context + _NUMBER)


class Handover:
    """Opens events of all business numbers."""

    def __init__(self, day_keys: DayKeys) -> None:
        self._day_keys = day_keys
        self.counts = HandoverCounts()

    async def open(self, account: AccountId, waiting: Sequence[Waiting]) -> list[Opened]:
        """One answer for each event, in order. Finds each day key once."""
        keys = await self._keys_of(account, waiting)
        return [Opened(one, self._event(account, one, keys)) for one in waiting]

    async def _keys_of(
        self, account: AccountId, waiting: Iterable[Waiting]
    ) -> Mapping[bytes, DayKey | None]:
        ids = {one.event.inbound.day_key_id for one in waiting if one.event.HasField("inbound")}
        return {id_: await self._find(account, id_) for id_ in ids}

    async def _find(self, account: AccountId, id_: bytes) -> DayKey | None:
        try:
            return await self._day_keys.day_key_by_id(account, id_)
        except KeyDestroyed:
            return None

    def _event(
        self, account: AccountId, waiting: Waiting, keys: Mapping[bytes, DayKey | None]
    ) -> messaging_pb2.Event | None:
        stored = waiting.event
        event = messaging_pb2.Event(
            event_id=event_id(waiting), event_time=_timestamp(stored.time_ms)
        )
        kind = stored.WhichOneof("kind")
        user_id = stored.pseudonym.hex()
        if kind == "inbound":
            day_key = keys[stored.inbound.day_key_id]
            if day_key is None:
                self.counts.destroyed += 1
                return None
            self._set_inbound(event, account, stored, day_key)
        elif kind == "status":
            _set_status(event.status, stored.status, user_id)
        elif kind == "identity_change":
            event.identity_change.user_id = user_id
        else:
            _set_undecryptable(event, user_id, stored.undecryptable.device_id)
        return event

    def _set_inbound(
        self,
        event: messaging_pb2.Event,
        account: AccountId,
        stored: inbox_pb2.StoredEvent,
        day_key: DayKey,
    ) -> None:
        inbound, user_id = stored.inbound, stored.pseudonym.hex()
        context = account + stored.pseudonym + inbound.message_id
        try:
            payload = Payload.FromString(unseal(day_key.key, inbound.sealed_payload, context))
            number = _opened_number(day_key, inbound.sealed_number, context)
        except (SealBroken, DecodeError):
            self.counts.broken += 1
            _set_undecryptable(event, user_id, inbound.device_id)
            return
        event.message.MergeFrom(
            messaging_pb2.InboundMessage(
                user_id=user_id,
                phone_number=number,
                device_id=inbound.device_id,
                message_id=inbound.message_id.hex(),
                content=payload.content,
                sent_time=payload.sent_time,
            )
        )


def _opened_number(day_key: DayKey, sealed: bytes, context: bytes) -> str:
    return unseal(day_key.key, sealed, context + _NUMBER).decode() if sealed else ""


def _set_undecryptable(event: messaging_pb2.Event, user_id: str, device_id: int) -> None:
    event.undecryptable.user_id = user_id
    event.undecryptable.device_id = device_id


def _set_status(
    update: messaging_pb2.StatusUpdate, stored: inbox_pb2.StoredStatus, user_id: str
) -> None:
    update.message_id = stored.message_id.hex()
    update.idempotency_key = stored.idempotency_key
    update.caller_tag = stored.caller_tag
    update.user_id = user_id
    update.status = stored.status
    if stored.HasField("failure"):
        update.failure.CopyFrom(stored.failure)


def _timestamp(milliseconds: int) -> Timestamp:
    seconds, rest = divmod(milliseconds, 1000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000_000)
