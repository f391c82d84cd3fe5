import asyncio

import pytest
from letterlockd.errors import (
    AlreadyExists,
    Conflict,
    EnvironmentFault,
    Forbidden,
    InvalidField,
    NotFound,
    Unauthenticated,
)
from letterlockd.records.v1 import registry_pb2
from letterlockd.registry.enrolment import MAX_NUMBERS
from letterlockd.registry.room import MAX_TOKENS, Registry
from letterlockd.registry.tables import AUDIT

from tests.unit.registry.conftest import NUMBER, OPERATOR, OTHER_NUMBER, World


async def test_a_business_number_can_act_after_it_was_added(world: World) -> None:
    business = await world.business()
    shown = await world.registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    text, _ = await world.registry.issue_token(OPERATOR, business, "backend")
    for registry in (world.registry, world.restarted()):
        principal = await registry.authenticate(text)
        sender = await registry.sender(principal, NUMBER)
        assert (sender.business_id, sender.phone_number) == (business, NUMBER)
        assert sender.retention_ms == 86_400_000
        assert await registry.sender_by_account(sender.account_id) == sender
    assert [number.phone_number for number in shown.numbers] == [NUMBER]


async def test_an_unknown_account_has_no_sender(world: World) -> None:
    assert await world.registry.sender_by_account(b"\x00" * 16) is None


async def test_another_businesses_number_and_nobodys_are_refused_alike(world: World) -> None:
    mine, other = await world.business("Mine"), await world.business("Other")
    await world.registry.add_number(OPERATOR, other, OTHER_NUMBER, world.registrar)
    text, _ = await world.registry.issue_token(OPERATOR, mine, "")
    principal = await world.registry.authenticate(text)
    refusals = []
    for number in (OTHER_NUMBER, "+4930901829"):
        with pytest.raises(Forbidden) as caught:
            await world.registry.sender(principal, number)
        refusals.append((caught.value.message, caught.value.reason, caught.value.metadata))
    assert refusals[0] == refusals[1]


async def test_the_operator_does_not_speak_for_a_business(world: World) -> None:
    business = await world.business()
    await world.registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    with pytest.raises(Forbidden):
        await world.registry.sender(OPERATOR, NUMBER)


async def test_a_malformed_number_names_the_field(world: World) -> None:
    with pytest.raises(InvalidField) as caught:
        await world.registry.sender(OPERATOR, "030 901820")
    assert (caught.value.field, caught.value.reason) == (
        "business_number",
        "INVALID_PHONE_NUMBER",
    )


async def test_adding_a_number_twice_changes_nothing(world: World) -> None:
    business = await world.business()
    first = await world.registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    assert await world.registry.add_number(OPERATOR, business, NUMBER, world.registrar) == first
    assert world.registrar.calls == [NUMBER]


async def test_adding_a_number_twice_at_a_time_adds_it_once(world: World) -> None:
    business = await world.business()
    shown = await asyncio.gather(
        *(world.registry.add_number(OPERATOR, business, NUMBER, world.registrar) for _ in range(3))
    )
    assert [len(one.numbers) for one in shown] == [1, 1, 1]


async def test_a_number_belongs_to_one_business(world: World) -> None:
    first, second = await world.business("A"), await world.business("B")
    await world.registry.add_number(OPERATOR, first, NUMBER, world.registrar)
    with pytest.raises(AlreadyExists):
        await world.registry.add_number(OPERATOR, second, NUMBER, world.registrar)
    assert world.registrar.calls == [NUMBER]


async def test_a_claim_outlives_an_unreachable_relay(world: World) -> None:
    first, second = await world.business("A"), await world.business("B")
    world.registrar.fault = EnvironmentFault("relay gone", reason="RELAY_UNAVAILABLE")
    with pytest.raises(EnvironmentFault):
        await world.registry.add_number(OPERATOR, first, NUMBER, world.registrar)
    assert (await world.registry.business(OPERATOR, first)).numbers == ()
    world.registrar.fault = None
    with pytest.raises(AlreadyExists):
        await world.registry.add_number(OPERATOR, second, NUMBER, world.registrar)
    shown = await world.registry.add_number(OPERATOR, first, NUMBER, world.registrar)
    assert len(shown.numbers) == 1


async def test_a_number_that_the_relay_refuses_is_free_for_others(world: World) -> None:
    first, second = await world.business("A"), await world.business("B")
    world.registrar.fault = AlreadyExists("taken at the relay")
    with pytest.raises(AlreadyExists):
        await world.registry.add_number(OPERATOR, first, NUMBER, world.registrar)
    world.registrar.fault = None
    shown = await world.registry.add_number(OPERATOR, second, NUMBER, world.registrar)
    assert len(shown.numbers) == 1


async def test_numbers_and_tokens_have_a_bound(world: World) -> None:
    business = await world.business()
    for at in range(MAX_NUMBERS):
        await world.registry.add_number(OPERATOR, business, f"+49309018{at:04}", world.registrar)
    with pytest.raises(Conflict, match=str(MAX_NUMBERS)):
        await world.registry.add_number(OPERATOR, business, "+493090190000", world.registrar)
    for _ in range(MAX_TOKENS):
        _, last = await world.registry.issue_token(OPERATOR, business, "")
    with pytest.raises(Conflict, match=str(MAX_TOKENS)):
        await world.registry.issue_token(OPERATOR, business, "")
    await world.registry.revoke_token(OPERATOR, business, last)
    await world.registry.issue_token(OPERATOR, business, "")


async def test_the_list_of_revoked_tokens_has_a_bound(world: World) -> None:
    business = await world.business()
    kept, _ = await world.registry.issue_token(OPERATOR, business, "kept")
    first, first_id = await world.registry.issue_token(OPERATOR, business, "first")
    await world.registry.revoke_token(OPERATOR, business, first_id)
    for _ in range(2 * MAX_TOKENS):
        _, token_id = await world.registry.issue_token(OPERATOR, business, "")
        await world.registry.revoke_token(OPERATOR, business, token_id)
    listed = (await world.registry.business(OPERATOR, business)).tokens
    assert len(listed) == 2 * MAX_TOKENS
    assert (listed[0].label, listed[0].revoke_ms) == ("kept", None)
    registry = world.restarted()
    assert (await registry.authenticate(kept)).business_id == business
    with pytest.raises(Unauthenticated):
        await registry.authenticate(first)


async def test_a_revoked_token_is_refused_at_once_and_after_a_restart(world: World) -> None:
    business = await world.business()
    text, token_id = await world.registry.issue_token(OPERATOR, business, "")
    principal = await world.registry.authenticate(text)
    told: list[str] = []
    unwatch = world.registry.watch(principal, lambda: told.append("now"))
    await world.registry.revoke_token(OPERATOR, business, token_id)
    assert told == ["now"]
    unwatch()
    for registry in (world.registry, world.restarted()):
        with pytest.raises(Unauthenticated):
            await registry.authenticate(text)
    world.registry.watch(principal, lambda: told.append("late"))
    assert told == ["now", "late"]


async def test_revoking_twice_succeeds_and_keeps_the_first_time(world: World) -> None:
    business = await world.business()
    _, token_id = await world.registry.issue_token(OPERATOR, business, "")
    await world.registry.revoke_token(OPERATOR, business, token_id)
    first = await world.registry.business(OPERATOR, business)
    world.clock.ms += 1_000
    await world.registry.revoke_token(OPERATOR, business, token_id)
    assert await world.registry.business(OPERATOR, business) == first


async def test_a_watch_that_ended_is_not_told(world: World) -> None:
    business = await world.business()
    text, token_id = await world.registry.issue_token(OPERATOR, business, "")
    told: list[str] = []
    world.registry.watch(await world.registry.authenticate(text), lambda: told.append("x"))()
    await world.registry.revoke_token(OPERATOR, business, token_id)
    assert told == []


async def test_another_businesses_token_cannot_be_revoked(world: World) -> None:
    mine, other = await world.business("A"), await world.business("B")
    text, token_id = await world.registry.issue_token(OPERATOR, other, "")
    with pytest.raises(NotFound):
        await world.registry.revoke_token(OPERATOR, mine, token_id)
    await world.registry.authenticate(text)


async def test_the_operators_token(world: World) -> None:
    assert await world.registry.authenticate(world.operator_token) == OPERATOR


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ll",
        "ll.operator.",
        "ll.operator." + "A" * 43,
        "ll.0123456789abcdef." + "A" * 43,
        "ll.0123456789ABCDEF." + "A" * 43,
        "gw.0123456789abcdef." + "A" * 43,
        "ll.0123456789abcdef." + "A" * 44,
        "ll.0123456789abcdef." + "é" * 43,
    ],
)
async def test_what_is_no_token_is_refused(world: World, text: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await world.registry.authenticate(text)
    assert text == "" or text not in str(caught.value)


async def test_a_token_with_one_character_changed_is_refused(world: World) -> None:
    business = await world.business()
    text, _ = await world.registry.issue_token(OPERATOR, business, "")
    await world.registry.authenticate(text)
    swapped = text[:-2] + ("A" if text[-2] != "A" else "B") + text[-1]
    with pytest.raises(Unauthenticated):
        await world.registry.authenticate(swapped)


async def test_a_business_sees_itself_and_nobody_else(world: World) -> None:
    mine, other = await world.business("A"), await world.business("B")
    text, _ = await world.registry.issue_token(OPERATOR, mine, "")
    principal = await world.registry.authenticate(text)
    assert (await world.registry.business(principal, mine)).display_name == "A"
    for id_ in (other, b"\x00" * 16):
        with pytest.raises(Forbidden):
            await world.registry.business(principal, id_)


async def test_a_business_changes_nothing(world: World) -> None:
    business = await world.business()
    text, token_id = await world.registry.issue_token(OPERATOR, business, "")
    principal = await world.registry.authenticate(text)
    before = await world.bytes_at_rest()
    for call in (
        world.registry.create_business(principal, "x", 86_400_000),
        world.registry.list_businesses(principal, after=b"", limit=10),
        world.registry.add_number(principal, business, NUMBER, world.registrar),
        world.registry.issue_token(principal, business, ""),
        world.registry.revoke_token(principal, business, token_id),
    ):
        with pytest.raises(Forbidden):
            await call
    assert await world.bytes_at_rest() == before


async def test_changes_leave_an_audit_trail_without_secrets(world: World) -> None:
    business = await world.business()
    await world.registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    _, token_id = await world.registry.issue_token(OPERATOR, business, "label")
    await world.registry.revoke_token(OPERATOR, business, token_id)
    rows = await world.store.scan(AUDIT, limit=100)
    entries = [registry_pb2.AuditRecord.FromString(row.value) for _, row in rows]
    assert sorted(entry.action for entry in entries) == [
        "ADD_NUMBER",
        "CREATE_BUSINESS",
        "ISSUE_TOKEN",
        "REVOKE_TOKEN",
    ]
    assert {entry.actor for entry in entries} == {"operator"}
    assert {entry.object for entry in entries if entry.action == "REVOKE_TOKEN"} == {token_id}
    assert all(row.expires_at_ms for _, row in rows)


async def test_neither_numbers_nor_tokens_are_at_rest_in_clear(world: World) -> None:
    business = await world.business()
    await world.registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    text, _ = await world.registry.issue_token(OPERATOR, business, "")
    at_rest = await world.bytes_at_rest()
    assert NUMBER[1:].encode() not in at_rest
    assert text.rpartition(".")[2].encode() not in at_rest
    sender = await world.registry.sender(await world.registry.authenticate(text), NUMBER)
    assert NUMBER not in repr(sender) + repr(await world.registry.business(OPERATOR, business))


async def test_pages_cover_every_business_once(world: World) -> None:
    made = {await world.business(f"B{at}") for at in range(5)}
    seen, after = [], b""
    while True:
        page, after = await world.registry.list_businesses(OPERATOR, after=after, limit=2)
        seen += [business.business_id for business in page]
        if not after:
            break
    assert (set(seen), len(seen)) == (made, 5)


async def test_a_changed_policy_is_in_force_at_once_and_after_a_restart(world: World) -> None:
    business = await world.business()
    shown = await world.registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    account = shown.numbers[0].account_id

    async def holds(registry: Registry) -> bool:
        sender = await registry.sender_by_account(account)
        assert sender is not None
        return sender.hold_identity_changes

    assert not await holds(world.registry)
    changed = await world.registry.update_business(
        OPERATOR, business, world.registrar, hold_identity_changes=True
    )
    assert changed.hold_identity_changes
    assert await holds(world.registry)
    renamed = await world.registry.update_business(
        OPERATOR, business, world.registrar, display_name="New"
    )
    assert (renamed.display_name, renamed.hold_identity_changes) == ("New", True)
    assert await holds(world.restarted())
    rows = [
        registry_pb2.AuditRecord.FromString(row.value)
        for _, row in await world.store.scan(AUDIT, limit=100)
    ]
    updates = [row.object for row in rows if row.action == "UPDATE_BUSINESS"]
    assert updates == ["identity-changes=hold retention=86400s"] * 2


async def test_a_sender_that_is_read_while_its_business_changes_is_not_kept(world: World) -> None:
    business = await world.business()
    shown = await world.registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    account = shown.numbers[0].account_id
    registry = world.restarted()
    await asyncio.gather(
        registry.sender_by_account(account),
        registry.update_business(OPERATOR, business, world.registrar, hold_identity_changes=True),
        *(registry.sender_by_account(account) for _ in range(5)),
    )
    sender = await registry.sender_by_account(account)
    assert sender is not None
    assert sender.hold_identity_changes


async def test_a_retention_is_told_to_the_relay_and_then_in_force(world: World) -> None:
    business = await world.business()
    shown = await world.registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    account = shown.numbers[0].account_id

    async def retention_ms(registry: Registry) -> int:
        sender = await registry.sender_by_account(account)
        assert sender is not None
        return sender.retention_ms

    assert await retention_ms(world.registry) == 86_400_000
    changed = await world.registry.update_business(
        OPERATOR, business, world.registrar, retention_ms=300_000
    )
    assert (changed.retention_ms, world.registrar.retentions) == (300_000, {account: 300_000})
    assert await retention_ms(world.registry) == await retention_ms(world.restarted()) == 300_000


async def test_a_retention_that_the_relay_does_not_hear_changes_nothing(world: World) -> None:
    business = await world.business()
    await world.registry.add_number(OPERATOR, business, NUMBER, world.registrar)
    world.registrar.fault = EnvironmentFault("away", reason="RELAY_UNAVAILABLE")
    with pytest.raises(EnvironmentFault):
        await world.registry.update_business(
            OPERATOR, business, world.registrar, display_name="New", retention_ms=300_000
        )
    kept = await world.registry.business(OPERATOR, business)
    assert (kept.display_name, kept.retention_ms) == ("Acme", 86_400_000)
