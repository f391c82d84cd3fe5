"""Opens every seal of a store, and says nothing of what was in it.

    gateway    identities, pre-keys, conversations, content in outbox, held, messages and inbox,
               references in messages and inbox
    registry   numbers of businesses
    relay      numbers of users and businesses
    each       scope keys under the master key, day keys under scope keys, the record of deletions

Rows without a seal are parsed. What is due may be gone while it is looked at, and is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from google.protobuf.message import DecodeError, Message

from letterlockd.clock import Clock
from letterlockd.errors import LetterlockError, NotFound
from letterlockd.gateway import tables as gateway
from letterlockd.gateway.handover import open_number
from letterlockd.gateway.inbox_rows import ACKNOWLEDGED, DEAD_LETTERS, INBOX, RECEIVE_POLICIES
from letterlockd.gateway.references import open_reference
from letterlockd.model.ids import AccountId
from letterlockd.records.v1 import gateway_pb2, inbox_pb2, jobs_pb2, registry_pb2, relay_pb2
from letterlockd.registry import senders as registry_senders
from letterlockd.registry import tables as registry
from letterlockd.relay import numbers as relay_numbers
from letterlockd.relay import tables as relay
from letterlockd.sealing.deletions import DELETIONS, Chain, deletions_key
from letterlockd.sealing.errors import KeyDestroyed, SealBroken
from letterlockd.sealing.keyring import DAY_KEYS, SCOPE_KEYS, Keyring
from letterlockd.sealing.provider import KeyProvider
from letterlockd.sealing.seal import Cipher, unseal
from letterlockd.store.lmdb.reader import Reader
from letterlockd.store.port import Commit, Outcome, Record, StoreUnavailable, Swept, Table
from letterlockd.workers.sealed import (
    ConversationSeal,
    Unreadable,
    open_identity,
    open_pre_key,
)

__all__ = ["BrokenSeal", "broken_seals"]


_Open = Callable[[bytes, Record], Awaitable[None]]
"""Opens a row (key, record). Raises what is wrong with it."""


class BrokenSeal(NamedTuple):
    """A row that does not open. `key` is not for logs."""

    table: str
    key: bytes
    what: str


class _ReadOnly:
    """A `Store` over a `Reader`: what would have to be written is missing."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get(self, table: Table, key: bytes) -> Record | None:
        return self._reader.get_many(table.number, (key,))[0]

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[Record | None]:
        return self._reader.get_many(table.number, keys)

    async def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int
    ) -> list[tuple[bytes, Record]]:
        return self._reader.scan(table.number, prefix, after, limit)[0]

    async def count(self, table: Table) -> int:
        return self._reader.count(table.number)

    async def commit(self, commits: Sequence[Commit]) -> list[Outcome]:
        _refuse()

    async def due(self, table: Table, now_ms: int, *, limit: int) -> list[tuple[bytes, Record]]:
        _refuse()

    async def sweep(
        self, now_ms: int, *, limit: int, keep: frozenset[Table] = frozenset()
    ) -> Swept:
        _refuse()

    async def reserve(self, name: str, count: int) -> int:
        _refuse()

    async def aclose(self) -> None:
        self._reader.close()


async def broken_seals(
    reader: Reader,
    tables: Sequence[Table],
    provider: KeyProvider,
    clock: Clock,
    *,
    former: KeyProvider | None,
    limit: int,
) -> list[BrokenSeal]:
    """The rows of these tables that do not open, at most `limit`. Raises `MasterKeyFault`, and
    `SealBroken` when the store's binding to its master key is lost."""
    keyring = await Keyring.reading(_ReadOnly(reader), provider, clock, former=former)
    openers = _Openers(reader, keyring).by_table()
    broken: list[BrokenSeal] = []
    for table in tables:
        if (opener := openers.get(table)) is None:
            continue
        for key, record in reader.records(table.number):
            if what := await _what_is_wrong(opener, key, record, clock.now_ms()):
                broken.append(BrokenSeal(table.name, key, what))
            if len(broken) == limit:
                return broken
    return broken


async def _what_is_wrong(opener: _Open, key: bytes, record: Record, now_ms: int) -> str:
    if 0 < record.expires_at_ms <= now_ms:
        return ""
    try:
        await opener(key, record)
    except (Unreadable, SealBroken):
        return "seal does not open"
    except (DecodeError, ValueError):
        return "cannot be parsed"
    except NotFound:
        return "its day key is gone"
    except LetterlockError:
        return "its key is missing"
    return ""


class _Openers:
    def __init__(self, reader: Reader, keyring: Keyring) -> None:
        self._reader = reader
        self._keyring = keyring
        self._deletions: Chain | None = None

    def by_table(self) -> Mapping[Table, _Open]:
        """How each table's rows are opened; tables whose values say nothing are not in it."""
        return {
            SCOPE_KEYS: self._scope_key,
            DELETIONS: self._deletion,
            DAY_KEYS: self._day_key,
            gateway.NUMBERS: self._number,
            gateway.PRE_KEYS: self._pre_key,
            gateway.CONVERSATIONS: self._conversation,
            gateway.OUTBOX: self._outbox,
            gateway.HELD: self._outbox,
            INBOX: self._inbox,
            ACKNOWLEDGED: self._inbox,
            DEAD_LETTERS: self._dead_letter,
            RECEIVE_POLICIES: _parsed(inbox_pb2.ReceivePolicyRecord),
            gateway.MESSAGES: self._message,
            gateway.IDEMPOTENCY: _parsed(gateway_pb2.IdempotencyRecord),
            registry.NUMBERS: self._business_number,
            registry.BUSINESSES: _parsed(registry_pb2.BusinessRecord),
            registry.TOKENS: _parsed(registry_pb2.TokenRecord),
            registry.AUDIT: _parsed(registry_pb2.AuditRecord),
            relay.ACCOUNTS: self._relay_account,
            relay.MAILBOXES: _parsed(relay_pb2.StoredItem),
            relay.SUBMITTED: _parsed(relay_pb2.SubmittedMessage),
        }

    async def _scope_key(self, key: bytes, record: Record) -> None:
        await self._keyring.scope_key(key[1:])

    async def _day_key(self, key: bytes, record: Record) -> None:
        await self._keyring.day_key(key[1:-4], record.expires_at_ms - 1)

    async def _deletion(self, key: bytes, record: Record) -> None:
        if self._deletions is None:
            self._deletions = Chain(await deletions_key(self._keyring))
        self._deletions.opened(key, record.value)

    async def _number(self, key: bytes, record: Record) -> None:
        number = gateway_pb2.NumberRecord.FromString(record.value)
        scope_key = await self._keyring.scope_key(number.key_scope)
        open_identity(scope_key, number.key_scope, number.sealed_identity)

    async def _pre_key(self, key: bytes, record: Record) -> None:
        scope, key_id = key[:16], int.from_bytes(key[17:], "big")
        kind = jobs_pb2.PreKeyKind.Value(jobs_pb2.PreKeyKind.Name(key[16]))  # type: ignore[arg-type]
        stored = jobs_pb2.SealedPreKey(kind=kind, key_id=key_id, sealed=record.value)
        open_pre_key(await self._keyring.scope_key(scope), scope, stored)

    async def _conversation(self, key: bytes, record: Record) -> None:
        user, sealed = gateway.split_conversation(record.value)
        opened = ConversationSeal(await self._key_of(AccountId(key[:16])), key).open(sealed)
        if opened.user_account_id != user:
            raise Unreadable

    async def _key_of(self, account: AccountId) -> bytes:
        row = self._reader.get_many(gateway.NUMBERS.number, (account,))[0]
        if row is None:
            raise Unreadable
        scope = gateway_pb2.NumberRecord.FromString(row.value).key_scope
        return await self._keyring.scope_key(scope)

    async def _outbox(self, key: bytes, record: Record) -> None:
        row = gateway_pb2.OutboxRecord.FromString(record.value)
        if not row.sealed_payload:
            return
        day_key = await self._keyring.day_key(row.conversation[:16], row.expire_ms)
        unseal(day_key.key, row.sealed_payload, row.conversation + row.message_id)

    async def _message(self, key: bytes, record: Record) -> None:
        row = gateway_pb2.MessageRecord.FromString(record.value)
        await self._reference(row.conversation[:16], key, row)
        if not row.sealed_payload:
            return
        with contextlib.suppress(KeyDestroyed):  # the status outlives the payload's day
            day_key = await self._keyring.day_key(row.conversation[:16], row.expire_ms)
            unseal(day_key.key, row.sealed_payload, row.conversation + key)

    async def _inbox(self, key: bytes, record: Record) -> None:
        for event in inbox_pb2.StoredEvents.FromString(record.value).events:
            await self._event(key[:16], event)

    async def _dead_letter(self, key: bytes, record: Record) -> None:
        await self._event(key[:16], inbox_pb2.DeadLetterRecord.FromString(record.value).event)

    async def _reference(
        self,
        account: bytes,
        message_id: bytes,
        row: gateway_pb2.MessageRecord | inbox_pb2.StoredStatus,
    ) -> None:
        day_key = await self._keyring.day_key_by_id(account, row.reference_key_id)
        open_reference(Cipher(day_key.key), message_id, row.sealed_reference)

    async def _event(self, account: bytes, event: inbox_pb2.StoredEvent) -> None:
        if event.HasField("status"):
            with contextlib.suppress(KeyDestroyed):  # other events of its row may live longer
                await self._reference(account, event.status.message_id, event.status)
        inbound = event.inbound
        if not inbound.sealed_payload:
            return
        day_key = await self._keyring.day_key_by_id(account, inbound.day_key_id)
        cipher, context = Cipher(day_key.key), account + event.pseudonym + inbound.message_id
        cipher.unseal(inbound.sealed_payload, context)
        open_number(cipher, context, inbound.sealed_number)

    async def _business_number(self, key: bytes, record: Record) -> None:
        if key[:1] != registry.number_key(b""):
            return
        stored = registry_pb2.BusinessNumberRecord.FromString(record.value)
        await registry_senders.NumberVault(self._keyring).open(key[1:], stored)

    async def _relay_account(self, key: bytes, record: Record) -> None:
        vault = await relay_numbers.NumberVault.open(self._keyring, bytes)
        vault.unseal(relay_pb2.RelayAccount.FromString(record.value).sealed_number, key)


def _parsed(kind: type[Message]) -> _Open:
    async def parse(key: bytes, record: Record) -> None:
        kind.FromString(record.value)

    return parse


def _refuse() -> NoReturn:
    raise StoreUnavailable("the store is only looked at")
