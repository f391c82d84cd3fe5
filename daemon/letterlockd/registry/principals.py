"""From a bearer token to whom it acts for, and the end of that.

    token known? ──no──▶ Unauthenticated
         │ yes, and its secret's digest is equal
         ▼
    Principal ──revoke──▶ the cache forgets it, every watcher is called

A revocation is durable before it is announced here. Knows nothing of gRPC: who serves a call
watches its principal and ends the call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from letterlockd.errors import BrokenInvariant
from letterlockd.model.ids import BusinessId
from letterlockd.records.v1 import registry_pb2
from letterlockd.registry.tables import TOKENS
from letterlockd.registry.tokens import OPERATOR, Bearer, matches, parse, unknown_token
from letterlockd.store.port import Store

__all__ = ["Principal", "Principals"]

_MAX_CACHED = 10_000
"""Tokens whose digest is kept in memory, some 3 MB; others cost a read of the store."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `business_id` is None for the operator."""

    business_id: BusinessId | None
    token_id: str


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    digest: bytes


class Principals:
    """Authenticates bearer tokens. `operator_digest` is SHA-256 of the operator token's secret."""

    def __init__(self, store: Store, operator_digest: bytes) -> None:
        self._store = store
        self._operator = _Known(Principal(None, OPERATOR), operator_digest)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._revoked_here: set[str] = set()
        self._watchers: dict[str, list[Callable[[], None]]] = {}

    async def authenticate(self, text: str) -> Principal:
        """The principal of a token; `Unauthenticated` when it is malformed, wrong or revoked."""
        bearer = parse(text)
        known = await self._find(bearer)
        if known is None or not matches(bearer, known.digest):
            raise unknown_token()
        return known.principal

    def watch(self, caller: object, revoked: Callable[[], None]) -> Callable[[], None]:
        """Call `revoked` once when the caller's token is revoked, or at once if it was since this
        process started. Returns what ends the watch."""
        if not isinstance(caller, Principal):
            raise BrokenInvariant("only principals can be watched")
        if caller.token_id in self._revoked_here:
            revoked()
            return lambda: None
        self._watchers.setdefault(caller.token_id, []).append(revoked)
        return lambda: self._unwatch(caller.token_id, revoked)

    def announce_revoked(self, token_id: str) -> None:
        """The token was revoked, durably: nobody gets in with it from now on, and who is in is
        told."""
        self._known.pop(token_id, None)
        self._revoked_here.add(token_id)  # 16 characters for each revocation since the start
        for revoked in self._watchers.pop(token_id, []):
            revoked()

    async def _find(self, bearer: Bearer) -> _Known | None:
        if bearer.token_id == OPERATOR:
            return self._operator
        if bearer.token_id in self._revoked_here:
            return None
        known = self._known.get(bearer.token_id)
        if known is not None:
            self._known.move_to_end(bearer.token_id)
            return known
        return await self._load(bearer.token_id)

    async def _load(self, token_id: str) -> _Known | None:
        row = await self._store.get(TOKENS, bytes.fromhex(token_id))
        if row is None:
            return None
        record = registry_pb2.TokenRecord.FromString(row.value)
        if record.revoke_ms or token_id in self._revoked_here:  # revoked while we read
            return None
        known = _Known(Principal(BusinessId(record.business_id), token_id), record.digest)
        self._known[token_id] = known
        while len(self._known) > _MAX_CACHED:
            self._known.popitem(last=False)
        return known

    def _unwatch(self, token_id: str, revoked: Callable[[], None]) -> None:
        watchers = self._watchers.get(token_id, [])
        if revoked in watchers:
            watchers.remove(revoked)
        if not watchers:
            self._watchers.pop(token_id, None)
