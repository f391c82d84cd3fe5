"""I7: all pairs of statuses."""

from __future__ import annotations

import itertools

import pytest
from letterlock.v1 import messaging_pb2 as api
from letterlockd.gateway.statuses import advance

ORDER = (
    api.MESSAGE_STATUS_ACCEPTED,
    api.MESSAGE_STATUS_SENT,
    api.MESSAGE_STATUS_DELIVERED,
    api.MESSAGE_STATUS_READ,
)
ENDS = (api.MESSAGE_STATUS_FAILED, api.MESSAGE_STATUS_EXPIRED)
ALL = ORDER + ENDS


@pytest.mark.parametrize(("current", "new"), list(itertools.product(ALL, ALL)))
def test_every_pair(current: api.MessageStatus.ValueType, new: api.MessageStatus.ValueType) -> None:
    if current in ENDS:
        expected = current
    elif new in ENDS:
        undelivered = ORDER.index(current) < ORDER.index(api.MESSAGE_STATUS_DELIVERED)
        expected = new if undelivered else current
    else:
        expected = ORDER[max(ORDER.index(current), ORDER.index(new))]
    assert advance(current, new) == expected


def test_every_status_of_the_contract_is_covered() -> None:
    assert set(api.MessageStatus.values()) == {api.MESSAGE_STATUS_UNSPECIFIED, *ALL}
