"""The writer's engine: a group of requests becomes one transaction and one fsync.

    group ──begin──▶ apply all ──▶ commit (fsync) ──▶ answers
                        │             │
                 map full             no space on the device
                        ▼             ▼
          grow and repeat,   ▶   each removal again on its own, FULL for the rest
          at the limit

Every failure aborts the whole transaction before anything is answered, so a repeat starts from
the last committed state. It knows nothing of pipes and processes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any

import lmdb

from letterlockd import failpoints
from letterlockd.store.lmdb.transaction import Databases, Transaction
from letterlockd.store.lmdb.wire import COMMIT, DONE, FULL, SWEEP

__all__ = ["Answer", "Engine", "NoSpace", "Request", "grow"]

Request = tuple[int, int, Any]
"""Request id, kind, body: see `wire`."""

Answer = tuple[int, int, Any]
"""Request id, status, body: see `wire`."""

_PAGE_BYTES = 4096

_NEARLY_FULL_BYTES = 1024 * 1024

_NO_SPACE_TEXTS = (os.strerror(errno.EDQUOT), os.strerror(errno.EFBIG))


class Engine:
    """An open environment with its databases, and the size that it may grow to."""

    def __init__(
        self, env: lmdb.Environment, databases: Databases, *, kind: str, max_size_bytes: int | None
    ) -> None:
        self._env = env
        self._databases = databases
        self._limit = max_size_bytes
        self._before = f"store.{kind}.commit.before"
        self._after = f"store.{kind}.commit.after"

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        """Make all requests durable, each as it says, and return their answers in order."""
        try:
            return self._in_one_transaction(requests, self._limit)
        except NoSpace:
            return self._removals_only(requests)

    def _removals_only(self, requests: Sequence[Request]) -> list[Answer]:
        """Refuse what adds, but let removals through: they are what makes space again (I4).

        Removing is copy-on-write and needs pages as well. So removals may exceed the size limit a
        little, and on a full device they are made one by one and sweeps in smaller steps, which
        fit in what is free inside the file.
        """
        return [
            self._removal(request) if _only_removes(request) else (request[0], FULL, None)
            for request in requests
        ]

    def _removal(self, request: Request) -> Answer:
        while True:
            try:
                return self._in_one_transaction([request], _with_headroom(self._limit))[0]
            except NoSpace:
                id_, kind, body = request
                if kind != SWEEP or body[1] == 1:
                    return id_, FULL, None
                now_ms, limit, kept = body
                request = id_, kind, (now_ms, max(1, limit // 8), kept)

    def _in_one_transaction(self, requests: Sequence[Request], limit: int | None) -> list[Answer]:
        while True:
            try:
                return self._attempt(requests)
            except lmdb.MapFullError:
                grow(self._env, limit)
            except lmdb.Error as error:
                if not _is_no_space(error) and not self._was_cut_short(error):
                    raise
                raise NoSpace from error

    def _was_cut_short(self, error: lmdb.Error) -> bool:
        """LMDB reports a write that the last free blocks cut short as an input/output error.

        On a device without space it is taken for that, if LMDB is willing to go on: after a
        failed write of its root page the outcome is unknown, and it refuses (PanicError).
        """
        device = os.statvfs(self._env.path())
        if (
            not str(error).endswith(os.strerror(errno.EIO))
            or device.f_bavail * device.f_frsize > _NEARLY_FULL_BYTES
        ):
            return False
        with self._env.begin(write=True):
            return True

    def _attempt(self, requests: Sequence[Request]) -> list[Answer]:
        with self._env.begin(write=True, buffers=True) as txn:
            transaction = Transaction(txn, self._databases)
            answers = [(id_, DONE, _apply(transaction, kind, body)) for id_, kind, body in requests]
            failpoints.hit(self._before)
        failpoints.hit(self._after)
        return answers


def grow(env: lmdb.Environment, limit: int | None) -> None:
    """Double the map, to `limit` bytes at most; no transaction may be open in this process.

    Raises `NoSpace` at the limit. The front follows by itself (MapResizedError).
    """
    size = env.info()["map_size"]
    larger = size * 2 if limit is None else min(size * 2, limit)
    larger -= larger % _PAGE_BYTES
    if larger <= size:
        raise NoSpace
    env.set_mapsize(larger)


class NoSpace(Exception):
    """The size limit is reached, or the device is full; the transaction is aborted."""


def _apply(transaction: Transaction, kind: int, body: Any) -> Any:
    if kind == COMMIT:
        return [transaction.commit(checks, writes) for checks, writes in body]
    operation: Callable[..., Any] = transaction.sweep if kind == SWEEP else transaction.reserve
    return operation(*body)


def _only_removes(request: Request) -> bool:
    _, kind, body = request
    if kind == COMMIT:
        return all(len(write) == 2 for _, writes in body for write in writes)
    return kind == SWEEP


def _with_headroom(limit: int | None) -> int | None:
    return None if limit is None else limit + max(limit // 8, 1024 * 1024)


def _is_no_space(error: lmdb.Error) -> bool:
    """LMDB's binding tells ENOSPC by type, a quota or file size limit only by its text."""
    return isinstance(error, lmdb.DiskError) or str(error).endswith(_NO_SPACE_TEXTS)
