"""A business that holds messages when a user's identity key changes, through all real processes."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from letterlock.errors import (
    IdentityUnconfirmed,
    InvalidRequest,
    NotFound,
    SafetyNumberMismatch,
)

from tests.harness.people import (
    DELIVERED,
    SENT,
    Shop,
    next_message,
    open_shop,
    operator,
    receiving,
    user,
)
from tests.harness.supervised import Daemon, daemon
from tests.harness.terminal import Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

Numbers = Callable[[], str]


async def hold(shop: Shop) -> None:
    async with operator(shop.daemon) as admin:
        await admin.update_business(shop.business_id, hold_identity_changes=True)


async def test_a_safety_number_is_the_same_at_both_ends(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with shop.client() as business, user(shared, (ana_number := number())) as ana:
        accepted = await business.send(to=ana_number, text="Hello")
        account = (await next_message(ana)).sender
        shown = await business.safety_number(ana_number)
        assert shown == await business.safety_number(accepted.user_id)
        theirs = ana.safety_number(account)
        assert shown.digits == theirs.displayable
        assert theirs.compare(shown.scannable)
        confirmed = await business.confirm_identity(accepted.user_id, scanned=theirs.scannable)
        assert (confirmed.user_id, confirmed.released) == (accepted.user_id, 0)


async def test_what_has_no_safety_number(shared: Daemon, shop: Shop, number: Numbers) -> None:
    async with shop.client() as business, user(shared, number()) as ana:
        for nobody in ("0" * 32, number()):
            with pytest.raises(NotFound):
                await business.safety_number(nobody)
        for malformed in ("0" * 31, "+1"):
            with pytest.raises(InvalidRequest):
                await business.safety_number(malformed)
        with pytest.raises(NotFound):
            ana.safety_number(bytes(16))


async def test_a_new_phone_waits_for_the_confirmation_while_others_are_served(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    ana_number, ben_number = number(), number()
    async with shop.client() as business, receiving(business) as events:
        await hold(shop)
        async with user(shared, ana_number) as old_phone:
            first = await business.send(to=ana_number, text="To the old phone")
            await next_message(old_phone)
        async with user(shared, ana_number) as new_phone, user(shared, ben_number) as ben:
            held = await business.send(to=ana_number, text="Held")
            await events.until(lambda: "identity_change" in events.kinds())
            changes = [event.identity_change for event in events.events if event.identity_change]
            assert [(change.user_id, change.held) for change in changes] == [(first.user_id, True)]
            with pytest.raises(IdentityUnconfirmed) as refused:
                await business.send(to=ana_number, text="Refused", idempotency_key="again")
            assert refused.value.reason == "IDENTITY_UNCONFIRMED"
            await business.send(to=ben_number, text="To somebody else")
            assert (await next_message(ben)).text == "To somebody else"
            await new_phone.send_text(shop.number, "It is me")
            await events.until(lambda: (first.user_id, "It is me") in events.texts)
            written = next(event.message for event in events.events if event.message is not None)
            assert written.identity_unconfirmed

            shown = await business.safety_number(first.user_id)
            assert shown.unconfirmed
            wrong = shown.digits[::-1]
            with pytest.raises(SafetyNumberMismatch):
                await business.confirm_identity(first.user_id, digits=wrong)
            assert (await business.message(held.message_id)).status < SENT
            theirs = new_phone.safety_number(shop.number)
            spaced = " ".join(theirs.displayable[at : at + 5] for at in range(0, 60, 5))
            confirmed = await business.confirm_identity(first.user_id, digits=spaced)
            assert confirmed.released == 1
            await business.send(to=ana_number, text="Again", idempotency_key="again")
            assert [(await next_message(new_phone)).text for _ in range(2)] == ["Held", "Again"]
            await events.until(events.reached(held.message_id, DELIVERED))


async def test_a_second_change_and_a_restart_while_messages_are_held(
    tmp_path: Path, number: Numbers
) -> None:
    ana_number = number()
    async with daemon(tmp_path) as running:
        await running.ready()
        shop = await open_shop(running, number())
        await hold(shop)
        async with shop.client() as business:
            async with user(running, ana_number) as old_phone:
                await business.send(to=ana_number, text="To the old phone")
                await next_message(old_phone)
            async with user(running, ana_number) as second_phone:
                accepted = await business.send(to=ana_number, text="Held")
                async with receiving(business) as events:
                    await events.until(lambda: "identity_change" in events.kinds())
                    await second_phone.send_text(shop.number, "Second phone")
                    await events.until(lambda: len(events.texts) == 1)
                checked = second_phone.safety_number(shop.number).displayable
            await running.kill("gateway")
            with pytest.raises(IdentityUnconfirmed):
                await business.send(to=accepted.user_id, text="Refused")
            async with user(running, ana_number) as third_phone:
                await third_phone.send_text(shop.number, "Third phone")
                async with receiving(business) as events:
                    await events.until(lambda: "Third phone" in [said for _, said in events.texts])
                    with pytest.raises(SafetyNumberMismatch):
                        await business.confirm_identity(accepted.user_id, digits=checked)
                    now = third_phone.safety_number(shop.number).displayable
                    confirmed = await business.confirm_identity(accepted.user_id, digits=now)
                    assert confirmed.released == 1
                    async with asyncio.timeout(30):
                        assert (await next_message(third_phone)).text == "Held"
                    await events.until(events.reached(accepted.message_id, DELIVERED))


async def test_the_commands_at_both_ends(shared: Daemon, shop: Shop, number: Numbers) -> None:
    ana_number, terminal = number(), Terminal(shared)
    state = ("--state", f"{ana_number}.db")
    update = ("business", "update", shop.business_id, "--identity-changes", "hold")
    (updated,) = await terminal.done(*update, "--name", "Strict shop")
    assert (updated["identity_changes"], updated["display_name"]) == ("hold", "Strict shop")
    await terminal.done("device", "register", *state, ana_number)
    await terminal.done("device", "send", *state, "--to", shop.number, "Hello")
    async with shop.client() as business, receiving(business) as events:
        await events.until(lambda: len(events.texts) == 1)
        ((user_id, _),) = events.texts
    here = ("--number", shop.number, user_id)
    shop_token = ("--token", shop.token)
    (ours,) = await terminal.done(*shop_token, "identity", "show", *here)
    (theirs,) = await terminal.done("device", "safety-number", *state, shop.number)
    assert ours["safety_number"] == theirs["safety_number"]
    assert ours["unconfirmed"] is False
    confirm = (*shop_token, "identity", "confirm", *here)
    for checked in (("--digits", ours["safety_number"]), ("--scanned", theirs["scannable"])):
        (confirmed,) = await terminal.done(*confirm, *map(str, checked))
        assert confirmed == {"user_id": user_id, "released": 0}
    for wrong, code, said in (
        (("--digits", "1" * 60), 5, "SAFETY_NUMBER_MISMATCH"),
        (("--scanned", "xyz"), 2, "hex"),
    ):
        found, rows, told = await terminal.type(*confirm, *wrong)
        assert (found, rows, told.count("\n")) == (code, [], 1)
        assert said in told
