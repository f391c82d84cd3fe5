"""Takes items from the relay: whose they are, whether they were seen; then they wait their turn.

    items ──▶ envelopes ──▶ seen or in hand? ──▶ lane ──▶ committed ──▶ acknowledged
          └─▶ receipts ───▶ statuses ────────────────────▶ committed ──▶ acknowledged

An item is acknowledged only after the commit that makes it safe (I1, I9). How many are in hand is
bounded by the window that the relay was given.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from letterlock.relay.v1 import mailbox_pb2
from letterlock.v1 import errors_pb2, messaging_pb2

from letterlockd import failpoints
from letterlockd.clock import Clock
from letterlockd.errors import LetterlockError
from letterlockd.gateway.contacts import Contact, Contacts
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.decryption_errors import PLAINTEXT
from letterlockd.gateway.healing import Healing, ReportedWork
from letterlockd.gateway.incoming import IncomingWork, Mending
from letterlockd.gateway.news import Advance
from letterlockd.gateway.numbers import Number, NumberBook, SenderLookup
from letterlockd.gateway.progress import Progress
from letterlockd.gateway.tables import SEEN, seen_key
from letterlockd.legs import Reading
from letterlockd.model.ids import ID_BYTES, AccountId, MessageId, conversation_id
from letterlockd.model.phone import check_e164
from letterlockd.sealing.keyring import Keyring
from letterlockd.store.port import Store, StoreFull
from letterlockd.traces import Traces

__all__ = ["Inbound"]

_MAX_BATCH = 512
_MAX_DEVICE = 127
_RETRY_SECONDS = 1.0

_RECEIPTS: dict[
    mailbox_pb2.Receipt.Kind.ValueType,
    tuple[messaging_pb2.MessageStatus.ValueType, messaging_pb2.Failure | None],
] = {
    mailbox_pb2.Receipt.KIND_DELIVERED: (messaging_pb2.MESSAGE_STATUS_DELIVERED, None),
    mailbox_pb2.Receipt.KIND_EXPIRED: (
        messaging_pb2.MESSAGE_STATUS_EXPIRED,
        messaging_pb2.Failure(
            hop=messaging_pb2.HOP_RELAY, reason=errors_pb2.ERROR_REASON_EXPIRED, retryable=True
        ),
    ),
    mailbox_pb2.Receipt.KIND_GONE: (
        messaging_pb2.MESSAGE_STATUS_FAILED,
        messaging_pb2.Failure(
            hop=messaging_pb2.HOP_RELAY,
            reason=errors_pb2.ERROR_REASON_DEVICES_GONE,
            retryable=True,
        ),
    ),
}

_Place = tuple[int, int]
"""Item id and stream number."""

_Found = tuple[bytes, IncomingWork | ReportedWork, _Place]
"""A work, the key under which it is seen once, and what to acknowledge."""


class Inbound:
    """Items of this gateway's mailbox. `acknowledge`: tells the relay, per stream."""

    def __init__(
        self,
        *,
        store: Store,
        keyring: Keyring,
        numbers: NumberBook,
        contacts: Contacts,
        progress: Progress,
        clock: Clock,
        counters: Counters,
        senders: SenderLookup,
        put: Callable[[IncomingWork | ReportedWork], None],
        acknowledge: Callable[[list[int], int, list[int]], None],
        keys_used: Callable[[AccountId, int, int], None],
        mending: Mending,
        healing: Healing,
        traces: Traces | None = None,
    ) -> None:
        self._traces = traces
        self._store = store
        self._keyring = keyring
        self._numbers = numbers
        self._contacts = contacts
        self._progress = progress
        self._clock = clock
        self._counters = counters
        self._senders = senders
        self._put = put
        self._acknowledge = acknowledge
        self._keys_used = keys_used
        self._mending = mending
        self._healing = healing
        self._arrived: deque[tuple[mailbox_pb2.Item, int]] = deque()
        self._in_hand: dict[bytes, IncomingWork | ReportedWork] = {}
        self._safe: list[_Place] = []
        self._failed: list[_Place] = []
        self._news = asyncio.Event()
        self._came = 0
        self._settled = 0

    @property
    def reading(self) -> Reading:
        """Items that are not safe yet, and those that are."""
        return Reading(self._came - self._settled, self._settled)

    def delivered(self, items: Sequence[mailbox_pb2.Item], epoch: int) -> None:
        """Items came on stream number `epoch`."""
        self._arrived.extend((item, epoch) for item in items)
        self._came += len(items)
        self._news.set()

    async def run(self) -> None:
        """Work what arrives until cancelled."""
        while True:
            self._acknowledge_safe()
            if not self._arrived:
                self._news.clear()
                await self._news.wait()
                continue
            count = min(len(self._arrived), _MAX_BATCH)
            batch = [self._arrived.popleft() for _ in range(count)]
            await self._work(batch)

    async def _work(self, batch: Sequence[tuple[mailbox_pb2.Item, int]]) -> None:
        works = []
        for item, epoch in batch:
            if item.HasField("receipts"):
                self._receipts(item, epoch)
            elif (work := await self._insist(item, epoch)) is not None:
                works.append(work)
        await self._enter(works)

    async def _insist(self, item: mailbox_pb2.Item, epoch: int) -> _Found | None:
        """As `_work_of`. While the disk is too full for a new day key, nothing more is taken."""
        while True:
            try:
                return await self._work_of(item, epoch)
            except StoreFull:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _work_of(self, item: mailbox_pb2.Item, epoch: int) -> _Found | None:
        """The work of an envelope; None when it is none, which is acknowledged at once."""
        place = (item.item_id, epoch)
        envelope = item.envelope
        if not _is_sound(envelope):
            self._counters.malformed_items += 1
            self._is_safe(place)
            return None
        account = AccountId(envelope.recipient_account_id)
        sender, number = await self._senders(account), await self._numbers.get(account)
        if sender is None or number is None:
            self._counters.unknown_accounts += 1
            self._is_safe(place)
            return None
        user = AccountId(envelope.sender_account_id)
        seen = seen_key(account, user, MessageId(envelope.message_id))
        if (earlier := self._in_hand.get(seen)) is not None:
            self._join(earlier, place)
            return None
        expire_ms = self._clock.now_ms() + sender.retention_ms
        if envelope.type == PLAINTEXT:
            reported = await self._healing.work_of(number, envelope, seen, expire_ms)
            if reported is None:
                self._is_safe(place)
                return None
            return seen, reported, place
        pseudonym = number.pseudonym(user)
        work = IncomingWork(
            number,
            conversation_id(account, pseudonym),
            envelope,
            seen=seen,
            day_key=await self._keyring.day_key(account, expire_ms),
            expire_ms=expire_ms,
            contact=self._contact(number, envelope, expire_ms),
            counters=self._counters,
            used=self._keys_used,
            mending=self._mending,
        )
        return seen, work, place

    def _contact(
        self, number: Number, envelope: mailbox_pb2.Envelope, until_ms: int
    ) -> Contact | None:
        phone_number = envelope.sender_phone_number
        try:
            check_e164(phone_number, "sender_phone_number")
        except LetterlockError:
            envelope.sender_phone_number = ""
            return None
        user = AccountId(envelope.sender_account_id)
        return self._contacts.learn(number, phone_number, number.pseudonym(user), until_ms)

    async def _enter(self, found: Sequence[_Found]) -> None:
        rows = await self._store.get_many(SEEN, [seen for seen, _, _ in found]) if found else []
        for (seen, work, place), row in zip(found, rows, strict=True):
            earlier = self._in_hand.get(seen)
            if row is not None:
                self._counters.duplicates += 1
                self._is_safe(place)
            elif earlier is not None:
                self._join(earlier, place)
            else:
                self._in_hand[seen] = work
                work.safe.append(lambda seen=seen, place=place: self._done(seen, place))  # type: ignore[misc]
                self._put(work)

    def _join(self, earlier: IncomingWork | ReportedWork, place: _Place) -> None:
        """It came again, on a newer stream, while it was in hand."""
        self._counters.duplicates += 1
        earlier.safe.append(lambda: self._is_safe(place, failed=earlier.undecrypted))

    def _receipts(self, item: mailbox_pb2.Item, epoch: int) -> None:
        place = (item.item_id, epoch)
        receipts = item.receipts.receipts
        advances = []
        for receipt in receipts:
            means = _RECEIPTS.get(receipt.kind)
            message_id, sender = receipt.message_id, receipt.sender_account_id
            if means is not None and len(message_id) == len(sender) == ID_BYTES:
                advances.append(
                    Advance(MessageId(message_id), means[0], AccountId(sender), means[1])
                )
        self._counters.malformed_items += len(receipts) - len(advances)
        came_ns = 0 if self._traces is None else self._traces.now_ns()

        def done() -> None:
            self._is_safe(place)
            if self._traces is not None:
                ids = [advance.message_id for advance in advances]
                self._traces.tell("receipt", ids, came_ns, self._traces.now_ns())

        self._progress.record(advances, (), done)

    def _done(self, seen: bytes, place: _Place) -> None:
        work = self._in_hand.pop(seen)
        self._is_safe(place, failed=work.undecrypted)

    def _is_safe(self, place: _Place, *, failed: bool = False) -> None:
        (self._failed if failed else self._safe).append(place)
        self._settled += 1
        self._news.set()

    def _acknowledge_safe(self) -> None:
        if not self._safe and not self._failed:
            return
        safe, self._safe = self._safe, []
        failed, self._failed = self._failed, []
        for epoch in sorted({epoch for _, epoch in (*safe, *failed)}):
            self._acknowledge(_of(epoch, safe), epoch, _of(epoch, failed))
        failpoints.hit("gateway.inbound.after_ack")


def _of(epoch: int, places: Sequence[_Place]) -> list[int]:
    return [item_id for item_id, of in places if of == epoch]


def _is_sound(envelope: mailbox_pb2.Envelope) -> bool:
    """Whether an envelope's ids are ids. The relay vouches for the sender, not for its sanity."""
    ids = (envelope.message_id, envelope.sender_account_id, envelope.recipient_account_id)
    return (
        all(len(id_) == ID_BYTES for id_ in ids)
        and 1 <= envelope.sender_device_id <= _MAX_DEVICE
        and len(envelope.body) > 0
    )
