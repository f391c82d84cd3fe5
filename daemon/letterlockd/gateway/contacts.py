"""How a phone number finds its conversation: a bounded memory, the lookup table, the relay.

    number ──▶ memory ──▶ LOOKUPS ──▶ first contact: bundles from the relay (`first_contacts`)

A lookup row lives no longer than the newest message with that number, and may die up to a day (or
a quarter of that message's life) earlier, so that not every message has to write it: then the relay
is asked again. The store holds tags, not numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from letterlockd.clock import Clock
from letterlockd.gateway.numbers import Number
from letterlockd.gateway.tables import LOOKUPS
from letterlockd.model.ids import AccountId, Pseudonym
from letterlockd.sealing.keyring import DAY_MS
from letterlockd.store.port import Put, Store

__all__ = ["Contact", "Contacts", "phone_write"]

_MAX_CACHED = 65_536
"""Some 20 MB; a campaign to more recipients reads the table again."""


@dataclass(slots=True)
class Contact:
    """Who has a phone number, for one business number, until `until_ms`. `row_until_ms`: how long
    its row lives; 0: there is none."""

    tag: bytes = field(repr=False)
    pseudonym: Pseudonym
    until_ms: int
    row_until_ms: int = 0


class Contacts:
    """Lookups of all business numbers."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._cache: OrderedDict[tuple[AccountId, str], Contact] = OrderedDict()

    def known(self, number: Number, phone_number: str) -> Contact | None:
        """The contact, if it is in memory."""
        contact = self._cache.get((number.account, phone_number))
        if contact is None or contact.until_ms <= self._clock.now_ms():
            return None
        return contact

    async def find(self, number: Number, phone_numbers: Iterable[str]) -> dict[str, Contact]:
        """The contacts of those numbers that are known, in memory or in the table."""
        now_ms, account = self._clock.now_ms(), number.account
        found: dict[str, Contact] = {}
        unknown = []
        for phone_number in phone_numbers:
            contact = self._cache.get((account, phone_number))
            if contact is not None and contact.until_ms > now_ms:
                found[phone_number] = contact
            else:
                unknown.append(phone_number)
        if unknown:
            await self._read(number, unknown)
            for phone_number in unknown:
                if (contact := self.known(number, phone_number)) is not None:
                    found[phone_number] = contact
        return found

    async def _read(self, number: Number, phone_numbers: Sequence[str]) -> None:
        tags = [number.phone_tag(phone_number) for phone_number in phone_numbers]
        rows = await self._store.get_many(LOOKUPS, [number.account + tag for tag in tags])
        for phone_number, tag, row in zip(phone_numbers, tags, rows, strict=True):
            if row is not None:
                contact = Contact(tag, Pseudonym(row.value), row.expires_at_ms, row.expires_at_ms)
                self._remember(number, phone_number, contact)

    def learn(
        self, number: Number, phone_number: str, pseudonym: Pseudonym, until_ms: int
    ) -> Contact:
        """The contact of a number that is known to be this user's until `until_ms`; whoever works
        with it writes its row (`phone_write`)."""
        known = self._cache.get((number.account, phone_number))
        if known is not None and known.pseudonym == pseudonym:
            return known
        contact = Contact(number.phone_tag(phone_number), pseudonym, until_ms)
        self._remember(number, phone_number, contact)
        return contact

    def _remember(self, number: Number, phone_number: str, contact: Contact) -> None:
        self._cache[number.account, phone_number] = contact
        while len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)


def phone_write(number: Number, contact: Contact, needed_until_ms: int, now_ms: int) -> list[Put]:
    """What keeps the lookup row alive for a message that lives until `needed_until_ms`.

    Taken as written at once: if the commit fails, the row dies early, and the relay is asked.
    """
    slack_ms = min(DAY_MS, (needed_until_ms - now_ms) // 4)
    if contact.row_until_ms >= needed_until_ms - slack_ms:
        return []
    contact.row_until_ms = needed_until_ms
    contact.until_ms = max(contact.until_ms, needed_until_ms)
    return [Put(LOOKUPS, number.account + contact.tag, contact.pseudonym, needed_until_ms)]
