"""Orders of removal: what they end at once, and that they are finished whatever comes between."""

from __future__ import annotations

import pytest
from letterlockd.errors import (
    AlreadyExists,
    Conflict,
    EnvironmentFault,
    Forbidden,
    NotFound,
    Unauthenticated,
)
from letterlockd.registry.tables import AUDIT, BUSINESSES, NUMBERS, TOKENS
from letterlockd.sealing.keyring import SCOPE_KEYS

from tests.unit.registry.conftest import NUMBER, OPERATOR, OTHER_NUMBER, World

AWAY = EnvironmentFault("the relay cannot be reached now", reason="RELAY_UNAVAILABLE")


async def finish(world: World) -> None:
    """What a start does for the orders that are open."""
    registry = world.restarted()
    await registry._removals.finish_all(world.remover)
    world.registry = registry


async def test_a_removed_number_is_nobodys_and_can_be_added_again(world: World) -> None:
    registry, business = world.registry, await world.business()
    await registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    text, _ = await registry.issue_token(OPERATOR, business, "")
    principal = await registry.authenticate(text)
    sender = await registry.sender(principal, NUMBER)
    ended: list[str] = []
    registry.watch_number(sender.account_id, lambda: ended.append("watched"))
    registry.watch_number(sender.account_id, lambda: ended.append("gone"))()
    left = await registry.remove_number(OPERATOR, business, NUMBER, world.remover)
    assert left.numbers == ()
    assert ended == ["watched"]
    assert world.remover.removed == [(sender.account_id, NUMBER)]
    with pytest.raises(Forbidden):
        await registry.sender(principal, NUMBER)
    assert await registry.sender_by_account(sender.account_id) is None
    assert await world.store.count(NUMBERS) == 0
    with pytest.raises(NotFound):
        await registry.remove_number(OPERATOR, business, NUMBER, world.remover)
    other = await world.business("Other")
    await registry.add_number(OPERATOR, other, NUMBER, world.registrar)


async def test_while_the_relay_is_away_the_order_stands_and_is_finished_later(
    world: World,
) -> None:
    registry, business = world.registry, await world.business()
    await registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    world.remover.fault = AWAY
    for _ in range(2):
        with pytest.raises(EnvironmentFault):
            await registry.remove_number(OPERATOR, business, NUMBER, world.remover)
    assert (await registry.business(OPERATOR, business)).numbers == ()
    with pytest.raises(Conflict, match="being removed"):
        await registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    other = await world.business("Other")
    with pytest.raises(AlreadyExists):
        await registry.add_number(OPERATOR, other, NUMBER, world.registrar)
    await finish(world)
    assert await world.store.count(NUMBERS) == 2
    world.remover.fault = None
    await finish(world)
    assert await world.store.count(NUMBERS) == 0
    actions = [row.value for _, row in await world.store.scan(AUDIT, limit=100)]
    assert sum(b"REMOVE_NUMBER" in value for value in actions) == 1
    assert not any(NUMBER.encode() in value for value in actions)


@pytest.mark.parametrize("relay_is_away", [False, True])
async def test_a_deleted_business_loses_its_tokens_at_once_and_then_everything(
    world: World, relay_is_away: bool
) -> None:
    registry, business, other = world.registry, await world.business(), await world.business("B")
    for number in (NUMBER, OTHER_NUMBER):
        await registry.add_number(OPERATOR, business, number, world.registrar)
    text, _ = await registry.issue_token(OPERATOR, business, "")
    kept, _ = await registry.issue_token(OPERATOR, other, "")
    principal, ended = await registry.authenticate(text), []
    registry.watch(principal, lambda: ended.append("token"))
    if relay_is_away:
        world.remover.fault = AWAY
        with pytest.raises(EnvironmentFault):
            await registry.delete_business(OPERATOR, business, world.remover)
    else:
        await registry.delete_business(OPERATOR, business, world.remover)
    assert ended == ["token"]
    with pytest.raises(Unauthenticated):
        await world.restarted().authenticate(text)
    for call in (registry.business(OPERATOR, business), registry.business(principal, business)):
        with pytest.raises(NotFound):
            await call
    page, _ = await registry.list_businesses(OPERATOR, after=b"", limit=10)
    assert [shown.business_id for shown in page] == [other]
    with pytest.raises(NotFound):
        await registry.add_number(OPERATOR, business, "+4930901829", world.registrar)
    if relay_is_away:
        world.remover.fault = None
        await finish(world)
    assert {number for _, number in world.remover.removed} == {NUMBER, OTHER_NUMBER}
    counts = [await world.store.count(table) for table in (BUSINESSES, NUMBERS, TOKENS)]
    assert counts == [1, 0, 1]
    scopes = [key[1:] for key, _ in await world.store.scan(SCOPE_KEYS, limit=10)]
    assert business not in scopes
    await world.registry.authenticate(kept)


async def test_only_the_operator_removes_and_reads_the_audit_trail(world: World) -> None:
    registry, business = world.registry, await world.business()
    text, _ = await registry.issue_token(OPERATOR, business, "")
    principal = await registry.authenticate(text)
    for call in (
        registry.remove_number(principal, business, NUMBER, world.remover),
        registry.delete_business(principal, business, world.remover),
        registry.list_audit(principal, after=b"", limit=1),
    ):
        with pytest.raises(Forbidden):
            await call
