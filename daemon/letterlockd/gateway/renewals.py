"""How often the session of a conversation may be given up for a new one.

A decryption-error message is not authenticated, and a message that does not decrypt may be
anybody's noise: whoever writes them could make every message cost a new session, and drain one-time
pre-keys. So each conversation has a few renewals, and gets them back slowly. In memory: a restart
gives them back, too, and is not in an attacker's hand.
"""

from __future__ import annotations

from collections import OrderedDict

from letterlockd.clock import Clock
from letterlockd.model.ids import ConversationId

__all__ = ["Renewals"]

_MOST = 6
"""A user with six devices may restore all of them at once."""

_BACK_SECONDS = 600.0
"""One renewal is given back in this time: 144 a day at most."""

_MAX_CONVERSATIONS = 65_536


class Renewals:
    """Of all conversations that renewed something lately."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent: OrderedDict[ConversationId, float] = OrderedDict()  # when all is given back

    def allowed(self, conversation: ConversationId) -> bool:
        """Whether this conversation has a renewal left."""
        owed = self._spent.get(conversation, 0.0) - self._clock.monotonic()
        return owed <= (_MOST - 1) * _BACK_SECONDS

    def spend(self, conversation: ConversationId) -> None:
        """A session was archived."""
        now = self._clock.monotonic()
        self._spent[conversation] = max(now, self._spent.get(conversation, now)) + _BACK_SECONDS
        self._spent.move_to_end(conversation)
        while len(self._spent) > _MAX_CONVERSATIONS:
            self._spent.popitem(last=False)
