"""The ledger of a run: every numbered message arrives once, or the figures mean nothing.

Used where messages arrive: by the users' process, by the relay's devices, by the peers' consumers.
Knows no transport.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple


class LedgerError(Exception):
    """A message was lost, repeated or refused: the figures mean nothing."""


class Balance(NamedTuple):
    """What a ledger has seen: numbers that came, that came again, that nobody sent."""

    arrived: int
    repeated: int
    strange: int

    def check(self, expected: int) -> None:
        """Raise `LedgerError` unless each of `expected` messages came once and nothing else did."""
        if self != (expected, 0, 0):
            raise LedgerError(
                f"of {expected} messages {self.arrived} arrived, {self.repeated} of them again, "
                f"{self.strange} with a number that was not sent"
            )


class Ledger:
    """Numbers 0 to `expected` - 1 that have arrived since `begin`."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, expected: int) -> None:
        """Count from nothing."""
        self._expected = expected
        self._seen = bytearray(expected)
        self._arrived = self._repeated = self._strange = 0
        self.last_s = 0.0
        self.complete = asyncio.Event()

    def note(self, number: int) -> None:
        """A message has arrived."""
        self.last_s = time.monotonic()
        if not 0 <= number < self._expected:
            self._strange += 1
        elif self._seen[number]:
            self._repeated += 1
        else:
            self._seen[number] = 1
            self._arrived += 1
            if self._arrived == self._expected:
                self.complete.set()

    @property
    def balance(self) -> Balance:
        """What has come so far."""
        return Balance(self._arrived, self._repeated, self._strange)
