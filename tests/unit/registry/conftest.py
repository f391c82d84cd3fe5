import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from letterlockd.errors import LetterlockError
from letterlockd.model.ids import AccountId, BusinessId
from letterlockd.model.number import RegisteredNumber
from letterlockd.registry import tokens
from letterlockd.registry.principals import Principal
from letterlockd.registry.room import Registry
from letterlockd.registry.tables import TABLES
from letterlockd.sealing import keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.memory import MemoryStore

NUMBER, OTHER_NUMBER = "+4930901820", "+4930901821"
OPERATOR = Principal(None, "operator")


class FixedClock:
    def __init__(self) -> None:
        self.ms = 1_770_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


class Registrar:
    """Makes an account for each number, the same one each time; fails when told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fault: LetterlockError | None = None
        self.retentions: dict[AccountId, int] = {}

    async def register_number(
        self, business_id: BusinessId, phone_number: str, retention_ms: int
    ) -> RegisteredNumber:
        self.calls.append(phone_number)
        if self.fault is not None:
            raise self.fault
        account = AccountId(hashlib.sha256(phone_number.encode()).digest()[:16])
        return RegisteredNumber(account, b"\x05" + bytes(32))

    async def set_retention(self, account: AccountId, retention_ms: int) -> None:
        if self.fault is not None:
            raise self.fault
        self.retentions[account] = retention_ms


class Remover:
    """Notes what it removes; fails when told to."""

    def __init__(self) -> None:
        self.removed: list[tuple[AccountId, str]] = []
        self.fault: LetterlockError | None = None

    async def remove_number(self, account: AccountId, phone_number: str) -> None:
        if self.fault is not None:
            raise self.fault
        self.removed.append((account, phone_number))


@dataclass
class World:
    store: MemoryStore
    ring: keyring.Keyring
    operator_token: str
    operator_digest: bytes
    clock: FixedClock = field(default_factory=FixedClock)
    registrar: Registrar = field(default_factory=Registrar)
    remover: Remover = field(default_factory=Remover)

    def __post_init__(self) -> None:
        self.registry = self.restarted()

    def restarted(self) -> Registry:
        """A registry with nothing in memory, over the same store."""
        return Registry(self.store, self.ring, self.clock, operator_digest=self.operator_digest)

    async def business(self, name: str = "Acme") -> BusinessId:
        made = await self.registry.create_business(OPERATOR, name, 86_400_000)
        return made.business_id

    async def bytes_at_rest(self) -> bytes:
        """Keys and values of every row, one after another."""
        rows = [row for table in TABLES for row in await self.store.scan(table, limit=10_000)]
        return b"".join(key + row.value for key, row in rows)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = MemoryStore([*TABLES, *keyring.TABLES])
    clock = FixedClock()
    ring = await keyring.Keyring.open(
        store, FileKeyProvider(tmp_path / "keys" / "gateway.key"), clock
    )
    text, bearer = tokens.mint(lambda n: bytes(range(n)), tokens.OPERATOR)
    yield World(store, ring, text, bearer.digest, clock)
    await store.aclose()
