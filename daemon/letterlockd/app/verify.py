"""`letterlockd verify`: whether the stores agree with themselves, page by page and seal by seal.

    each store, in a child ──▶ structure (`store.lmdb.verify`) ─▶ counters ─▶ seals ──▶ report

In a child, because LMDB trusts its file: a damaged page can end the process that reads it, and that
is a finding, too. Reads only; works beside a running daemon and on a backup. A report names tables,
counts and what is wrong; never a key, a number or content.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from letterlockd.app.parts import protections_of
from letterlockd.app.seals import broken_seals
from letterlockd.app.stores import STORES
from letterlockd.clock import SystemClock
from letterlockd.errors import EnvironmentFault
from letterlockd.gateway.tables import OUTBOX
from letterlockd.layout import STORES_OF_KEY, Layout
from letterlockd.relay.tables import MAILBOXES
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.sealing.errors import SealBroken
from letterlockd.sealing.rotation import open_master_keys
from letterlockd.settings import Settings
from letterlockd.store.history import GENERATION, HISTORY, restorations
from letterlockd.store.lmdb.reader import Reader
from letterlockd.store.lmdb.verify import Report, verify
from letterlockd.store.port import StoreUnavailable, Table

__all__ = ["StoreReport", "VerifyStopped", "verify_all", "verify_one"]

_LIMIT = 1_000
_UNBOUND = "master-check: the binding to the master key is lost"
_CHILD_SECONDS = 24 * 3600


class VerifyStopped(Exception):
    """A child could not look at its store, and has said why; carries its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


_COUNTED = {"gateway": (OUTBOX, OUTBOX.name), "relay": (MAILBOXES, "relay.items")}
"""Tables whose keys end in numbers of a sequence: none may be there that is still to be given."""


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What was found in one store: records by table, and how often each thing is wrong."""

    store: str
    records: dict[str, int] = field(default_factory=dict)
    expiry_entries: int = 0
    seals_checked: bool = False
    wrong: dict[str, int] = field(default_factory=dict)
    restorations: int = 0
    """How often it was restored, or was found to have gone back."""

    def lines(self) -> list[str]:
        """For people."""
        seals = "seals checked" if self.seals_checked else "seals not checked"
        total = sum(self.records.values())
        return [
            f"{self.store}: {total} records, {self.expiry_entries} expiry entries, {seals}: "
            + ("DAMAGED" if self.wrong else "good"),
            *([f"  restored or gone back: {self.restorations}"] if self.restorations else []),
            *(f"  {what}: {count}" for what, count in self.wrong.items()),
        ]

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return asdict(self)


def verify_all(
    names: Sequence[str], arguments: Sequence[str], inherited: Sequence[int]
) -> list[StoreReport]:
    """Reports on these stores of what `arguments` name, each by a child that gets the same
    `arguments` (settings) and `inherited` file descriptors. Raises `VerifyStopped`."""
    return [_by_a_child(name, arguments, inherited) for name in names]


def verify_one(settings: Settings, stores: Path, name: str, *, seals: bool) -> StoreReport:
    """One store of `stores`, in this process, with the master key of the settings' data folder.
    Raises `EnvironmentFault`."""
    tables = [*keyring.TABLES, *STORES[name], HISTORY, DELETIONS]
    folder = stores / name
    try:
        found = verify(folder, limit=_LIMIT)
    except EnvironmentFault as fault:
        if fault.reason != "STORAGE_DAMAGED":
            raise
        return StoreReport(name, wrong={"a page cannot be read": 1})
    wrong = Counter(
        f"{_name(tables, difference.table_number)}: {difference.what}"
        for difference in found.differences
    )
    wrong.update(_counters(name, found))
    existing = [table for table in tables if table.number in found.tables]
    if seals:
        wrong.update(asyncio.run(_seals(settings, folder, name, existing)))
    records = {_name(tables, number): count for number, count in found.tables.items()}
    return StoreReport(
        name, records, found.expiry_entries, seals, dict(wrong), _restorations(folder, existing)
    )


def _restorations(folder: Path, tables: Sequence[Table]) -> int:
    if HISTORY not in tables:
        return 0
    reader = Reader(folder, tables)
    try:
        return restorations(reader.get_many(HISTORY.number, (GENERATION,))[0])
    except StoreUnavailable:
        return 0  # a damaged page, which the structure's check has told of
    finally:
        reader.close()


def _counters(name: str, found: Report) -> list[str]:
    if name not in _COUNTED:
        return []
    table, sequence = _COUNTED[name]
    highest = found.highest.get(table.number, 0)
    if highest < found.sequences.get(sequence, 1):
        return []
    return [f"{table.name}: a number that the sequence is still to give"]


async def _seals(settings: Settings, folder: Path, name: str, tables: Sequence[Table]) -> list[str]:
    role = next(role for role, names in STORES_OF_KEY.items() if name in names)
    path = Layout(settings.data_folder).master_key(role)
    if not path.exists():
        raise EnvironmentFault(
            f"{path} does not exist: without it only `--no-seals` works", reason="KEY_FILE_UNUSABLE"
        )
    if keyring.MASTER_CHECK not in tables:
        return [_UNBOUND]
    provider, former = await asyncio.to_thread(open_master_keys, path, protections_of(settings))
    reader = Reader(folder, tables)
    try:
        broken = await broken_seals(
            reader, tables, provider, SystemClock(), former=former, limit=_LIMIT
        )
    except SealBroken:
        return [_UNBOUND]
    except StoreUnavailable:
        return ["a record cannot be read"]
    finally:
        reader.close()
    return [f"{one.table}: {one.what}" for one in broken]


def _by_a_child(name: str, arguments: Sequence[str], inherited: Sequence[int]) -> StoreReport:
    ran = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-P", "-m", "letterlockd", "verify", "--only", name, *arguments],
        stdout=subprocess.PIPE,
        pass_fds=inherited,
        timeout=_CHILD_SECONDS,
        check=False,
        process_group=0,  # Ctrl-C is for us, who then end the child: one line, not one of each
    )
    if ran.returncode < 0:
        how = signal.Signals(-ran.returncode).name
        return StoreReport(name, wrong={f"reading it ended the process ({how})": 1})
    if ran.returncode != 0:
        raise VerifyStopped(ran.returncode)
    return StoreReport(**json.loads(ran.stdout))


def _name(tables: Sequence[Table], number: int) -> str:
    return next((table.name for table in tables if table.number == number), f"table-{number}")
