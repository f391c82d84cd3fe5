"""The audit trail: a row for everything that changes who may do what, in the change's own commit.

Names ids only: no token secret, no phone number, no label.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from letterlockd.model.ids import BusinessId, new_message_id
from letterlockd.records.v1 import registry_pb2
from letterlockd.registry.principals import Principal
from letterlockd.registry.tables import AUDIT
from letterlockd.store.port import Put

__all__ = ["RETENTION_MS", "Action", "entry"]

RETENTION_MS = 365 * 86_400_000
"""A year: long enough for a yearly review, and an end to it."""


class Action(StrEnum):
    """What was done; the text is on disk."""

    CREATE_BUSINESS = "CREATE_BUSINESS"
    UPDATE_BUSINESS = "UPDATE_BUSINESS"
    DELETE_BUSINESS = "DELETE_BUSINESS"
    ADD_NUMBER = "ADD_NUMBER"
    REMOVE_NUMBER = "REMOVE_NUMBER"
    ISSUE_TOKEN = "ISSUE_TOKEN"  # noqa: S105 - the name of an action
    REVOKE_TOKEN = "REVOKE_TOKEN"  # noqa: S105


def entry(
    now_ms: int,
    random: Callable[[int], bytes],
    principal: Principal,
    action: Action,
    business: BusinessId,
    thing: str = "",
) -> Put:
    """The row to write with the change. `thing` is the id of what was made or ended,
    or what is in force now."""
    record = registry_pb2.AuditRecord(
        time_ms=now_ms,
        actor=principal.token_id,
        action=action.value,
        business_id=business,
        object=thing,
    )
    key = new_message_id(now_ms, random)  # ids of this kind sort by time
    return Put(AUDIT, key, record.SerializeToString(), now_ms + RETENTION_MS)
