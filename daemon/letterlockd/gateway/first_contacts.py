"""First contact: messages wait here until the relay has given the recipient's bundles.

    add ──▶ waiting by recipient ──fetch (up to 100 recipients a call)──▶ lanes, in order
                                           └── refused, relay away ──▶ answered with a refusal

One call at a time: what comes meanwhile makes the next call larger. No turn is held here. How many
messages wait is bounded by those who admit them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from letterlock.relay.v1 import keys_pb2
from letterlock.v1 import errors_pb2

from letterlockd.errors import LetterlockError
from letterlockd.gateway.contacts import Contacts
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.outgoing import Introduction, OutgoingWork
from letterlockd.gateway.refusals import of_error, refuse
from letterlockd.model.ids import ID_BYTES, AccountId

__all__ = ["BundleSource", "FirstContacts"]

_MAX_TARGETS = 100
"""Recipients in one FetchBundles call, by contract."""


class BundleSource(Protocol):
    """The relay's directory."""

    async def fetch_bundles(
        self, targets: Sequence[keys_pb2.BundleTarget], /
    ) -> list[keys_pb2.BundleResult]:
        """One result for each target, in order. Raises `LetterlockError`."""
        ...


@dataclass(slots=True)
class _Recipient:
    """One recipient of one business number, and the messages that wait for them."""

    phone_number: str = field(repr=False)
    user: AccountId | None
    works: list[OutgoingWork] = field(default_factory=list)

    def target(self) -> keys_pb2.BundleTarget:
        if self.user is not None:
            return keys_pb2.BundleTarget(account_id=self.user)
        return keys_pb2.BundleTarget(phone_number=self.phone_number)


_Key = tuple[AccountId, str | AccountId]


class FirstContacts:
    """`put`: queues a work in its lane."""

    def __init__(
        self,
        source: BundleSource,
        contacts: Contacts,
        put: Callable[[OutgoingWork], None],
        counters: Counters,
    ) -> None:
        self._source = source
        self._contacts = contacts
        self._put = put
        self._counters = counters
        self._waiting: OrderedDict[_Key, _Recipient] = OrderedDict()
        self._asked: dict[_Key, _Recipient] = {}
        self._news = asyncio.Event()

    def pending(self, account: AccountId, phone_number: str) -> bool:
        """Whether messages to this number wait already: later ones must stand behind them."""
        key = (account, phone_number)
        return key in self._waiting or key in self._asked

    def add(self, work: OutgoingWork) -> None:
        """Wait for the bundles of the work's phone number."""
        phone_number = work.letter.phone_number
        self._add((work.number.account, phone_number), _Recipient(phone_number, None), work)

    def add_known(self, work: OutgoingWork, user: AccountId) -> None:
        """Wait for new bundles of a user with whom no session can send any more."""
        self._add((work.number.account, user), _Recipient("", user), work)

    async def run(self) -> None:
        """Fetch until cancelled."""
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            while self._waiting and len(self._asked) < _MAX_TARGETS:
                key, recipient = self._waiting.popitem(last=False)
                self._asked[key] = recipient
            await self._fetch(list(self._asked.values()))
            self._asked.clear()

    def _add(self, key: _Key, recipient: _Recipient, work: OutgoingWork) -> None:
        place = self._asked.get(key) or self._waiting.setdefault(key, recipient)
        place.works.append(work)
        self._news.set()

    async def _fetch(self, recipients: list[_Recipient]) -> None:
        try:
            results = await self._source.fetch_bundles([one.target() for one in recipients])
        except LetterlockError as error:
            for recipient in recipients:
                for work in recipient.works:
                    work.refuse(of_error(error))
            return
        for recipient, result in zip(recipients, results, strict=True):
            if result.HasField("bundles") and len(result.bundles.account_id) == ID_BYTES:
                self._found(recipient, result.bundles)
            else:
                _refuse(recipient, result.refused)

    def _found(self, recipient: _Recipient, bundles: keys_pb2.AccountBundles) -> None:
        if not bundles.devices:
            _refuse(recipient, errors_pb2.Refusal())
            return
        self._counters.first_contacts += 1
        user = AccountId(bundles.account_id)
        introduction = Introduction(bundles, anew=recipient.user is not None)
        for work in recipient.works:
            pseudonym = work.number.pseudonym(user)
            if recipient.user is None:
                until_ms = work.letter.expire_ms
                work.contact = self._contacts.learn(
                    work.number, recipient.phone_number, pseudonym, until_ms
                )
                work.address(pseudonym)
            work.user = user
            work.introduction = introduction
            self._put(work)


def _refuse(recipient: _Recipient, theirs: errors_pb2.Refusal) -> None:
    """Tell those who wait. Only reasons that concern them are passed on."""
    for work in recipient.works:
        if theirs.reason == errors_pb2.ERROR_REASON_RATE_LIMITED:
            retry_ms = theirs.retry_after.ToMilliseconds() or 1_000
            limited = "too many first contacts at the relay"
            work.refuse(refuse(theirs.reason, limited, retry_after_ms=retry_ms))
        else:
            unknown = errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT
            work.refuse(refuse(unknown, "no user is registered under this number"))
