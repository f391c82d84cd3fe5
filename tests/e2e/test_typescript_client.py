"""The TypeScript client as business and as user, through a real daemon: its device is the official
libsignal client."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from letterlock.errors import SafetyNumberMismatch

from tests.harness.peers import missing
from tests.harness.people import DELIVERED, READ, Shop, next_message, open_shop, receiving, user
from tests.harness.supervised import Daemon, daemon
from tests.harness.typescript import (
    CLIENT,
    Driver,
    DriverError,
    build_typescript_client,
    by_name,
    typescript_business,
    typescript_device,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="session"),
]

Numbers = Callable[[], str]


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """Skips, or fails where toolchains are required, when the client cannot be had."""
    problem = build_typescript_client()
    if problem is not None:
        missing(problem)


@pytest_asyncio.fixture(loop_scope="session")
async def official(shared: Daemon, number: Numbers) -> AsyncIterator[tuple[Driver, str]]:
    """A registered, connected user on the official client, and their number."""
    own_number = number()
    async with typescript_device(shared) as device:
        await device.register(shared, own_number)
        yield device, own_number


async def test_a_user_answers_a_business_that_begins(
    shop: Shop, official: tuple[Driver, str]
) -> None:
    device, own_number = official
    async with shop.client() as business, receiving(business) as events:
        for n in range(5):
            accepted = await business.send(to=own_number, text=f"offer {n}")
            got = await device.message()
            assert (got["text"], got["messageId"]) == (f"offer {n}", accepted.message_id)
            await device.call("send", to=got["sender"], text=f"answer {n}")
            await device.call("read", to=got["sender"], messageId=got["messageId"])
            await events.until(events.reached(accepted.message_id, READ))
        assert [text for _, text in events.texts] == [f"answer {n}" for n in range(5)]


async def test_a_user_begins_and_a_business_answers(
    shop: Shop, official: tuple[Driver, str]
) -> None:
    device, _ = official
    async with shop.client() as business, receiving(business) as events:
        for n in range(5):  # all before an answer: all are pre-key messages
            await device.call("send", to=shop.number, text=f"question {n}")
        await events.until(lambda: len(events.texts) == 5)
        assert [text for _, text in events.texts] == [f"question {n}" for n in range(5)]
        user_id = events.texts[0][0]
        for n in range(3):
            await business.send(to=user_id, text=f"answer {n}")
            assert (await device.message())["text"] == f"answer {n}"
        await device.call("send", to=shop.number, text="thanks")
        await events.until(lambda: (user_id, "thanks") in events.texts)


async def test_both_ends_have_the_same_safety_number(
    shop: Shop, official: tuple[Driver, str]
) -> None:
    device, own_number = official
    async with shop.client() as business:
        accepted = await business.send(to=own_number, text="Who are you?")
        account = (await device.message())["sender"]
        ours = await business.safety_number(accepted.user_id)
        theirs = await device.call("safetyNumber", **{"with": account})
        assert ours.digits == theirs["digits"]
        scanned = {"with": account, "scanned": ours.scannable.hex()}
        assert (await device.call("compare", **scanned))["same"] is True
        own = {"with": account, "scanned": theirs["scannable"]}
        assert (await device.call("compare", **own))["same"] is False
        for wrong in ({"with": "00" * 16, "scanned": ""}, {"with": account, "scanned": "ff"}):
            with pytest.raises(DriverError):
                await device.call("compare", **wrong)
        code = bytes.fromhex(theirs["scannable"])
        confirmed = await business.confirm_identity(accepted.user_id, scanned=code)
        assert confirmed.user_id == accepted.user_id
        with pytest.raises(SafetyNumberMismatch):
            await business.confirm_identity(accepted.user_id, scanned=ours.scannable)
    async with typescript_business(shop) as backend:
        shown = await backend.call("safetyNumber", user=own_number)
        assert shown == {"digits": ours.digits, "unconfirmed": False}
        spaced = f"{ours.digits[:30]} {ours.digits[30:]}"
        for checked in ({"digits": spaced}, {"scanned": theirs["scannable"]}):
            confirmed_there = await backend.call("confirm", user=accepted.user_id, **checked)
            assert confirmed_there == {"userId": accepted.user_id, "released": 0}
        with pytest.raises(DriverError) as refused:
            await backend.call("confirm", user=accepted.user_id, digits="1" * 60)
        assert refused.value.name == "SafetyNumberMismatch"


async def test_both_begin_at_the_same_time(shop: Shop, official: tuple[Driver, str]) -> None:
    device, own_number = official
    async with shop.client() as business, receiving(business) as events:
        accepted = await business.send(to=own_number, text="from us")
        await device.call("send", to=shop.number, text="from you")
        assert (await device.message())["text"] == "from us"
        await events.until(lambda: (accepted.user_id, "from you") in events.texts)
        for n in range(3):
            await business.send(to=own_number, text=f"then {n}")
            assert (await device.message())["text"] == f"then {n}"
            await device.call("send", to=shop.number, text=f"so {n}")
        await events.until(lambda: len(events.texts) == 4)


async def test_users_of_both_device_clients_talk(
    shared: Daemon, official: tuple[Driver, str], number: Numbers
) -> None:
    device, own_number = official
    async with user(shared, number()) as ana:
        await ana.send_text(own_number, "hello from Python")
        got = await device.message()
        assert got["text"] == "hello from Python"
        await device.call("send", to=got["sender"], text="hello from TypeScript")
        assert (await next_message(ana)).text == "hello from TypeScript"


async def test_a_typescript_business_talks_to_users_of_both_device_clients(
    shared: Daemon, shop: Shop, official: tuple[Driver, str], number: Numbers
) -> None:
    device, own_number = official
    ana_number = number()
    async with typescript_business(shop) as business, user(shared, ana_number) as ana:
        await business.call("receive")
        to_device = await business.call("send", to=own_number, text="offer", key="order 1")
        to_ana = await business.call("send", to=ana_number, text="offer", key="order 2")
        again = await business.call("send", to=ana_number, text="offer", key="order 2")
        assert again == {**to_ana, "repeated": True}
        got, got_by_ana = await device.message(), await next_message(ana)
        assert got["text"] == got_by_ana.text == "offer"

        await device.call("send", to=got["sender"], text="answer of TypeScript")
        answer = await business.message()
        assert (answer["userId"], answer["text"]) == (to_device["userId"], "answer of TypeScript")
        await ana.send_text(shop.number, "answer of Python")
        answer = await business.message()
        assert (answer["userId"], answer["text"]) == (to_ana["userId"], "answer of Python")

        await device.call("read", to=got["sender"], messageId=got["messageId"])
        await ana.send_read_receipt(got_by_ana.sender, [got_by_ana.message_id])
        read = {(await _status(business, "READ"))["messageId"] for _ in range(2)}
        assert read == {to_device["messageId"], to_ana["messageId"]}
        state = await business.call("message", messageId=to_ana["messageId"])
        assert state == {"status": "READ"}


async def test_a_typescript_business_gives_events_back_and_works_its_dead_letters(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with typescript_business(shop) as business, user(shared, number()) as ana:
        policy = {"maxAttempts": 2, "keep": 600}
        assert await business.call("policy", maxAttempts="2", keep="600") == policy
        await business.call("receive", hold="yes", lease="30", consumer="orders")
        await ana.send_text(shop.number, "poison")
        poison = await business.message()
        await ana.send_text(shop.number, "after it")
        after = await business.message()
        assert (poison["attempt"], after["text"]) == (1, "after it")
        await business.call("nack")
        again = await business.message()
        assert (again["eventId"], again["attempt"]) == (poison["eventId"], 2)
        await business.call("ack")  # "after it", whose lease the nack ended: good all the same
        await business.call("nack")
        async with asyncio.timeout(60):
            while not (letters := (await business.call("deadLetters"))["letters"]):
                pass  # it becomes one a moment after the nack
        event_id = poison["eventId"]
        assert letters == [{"eventId": event_id, "attempts": 2, "lastFailure": "NACKED"}]
        assert await business.call("deadLetter", eventId=event_id) == {"text": "poison"}
        assert await business.call("replayDeadLetter", eventId=event_id) == {"count": 1}
        replayed = await business.message()
        assert (replayed["eventId"], replayed["attempt"]) == (event_id, 1)
        await business.call("ack")
        for operation in ("deadLetter", "replay"):
            with pytest.raises(DriverError) as refused:
                await business.call(operation, eventId="no event")
            assert refused.value.name in {"NotFound", "InvalidRequest"}
        assert await business.call("dropDeadLetter", eventId=event_id) == {"count": 0}
        with pytest.raises(DriverError) as refused:
            await business.call("policy", maxAttempts="2", keep="1000000")
        assert refused.value.name == "InvalidRequest"
        assert "keep_acknowledged" in refused.value.field
        assert refused.value.limit

        async with typescript_business(shop) as newer:  # the same name: takes its place
            await newer.call("receive", consumer="orders")
            while (ended := await business.events.get())["event"] != "ended":
                pass
            assert ended["error"]["name"] == "Replaced"
            assert (await business.call("replay", eventId=event_id))["count"] >= 1
            assert (await newer.message())["text"] in {"poison", "after it"}


async def test_every_device_of_a_user_gets_each_message_once(
    shared: Daemon, shop: Shop, official: tuple[Driver, str]
) -> None:
    first, own_number = official
    async with typescript_device(shared) as second, shop.client() as business:
        await business.send(to=own_number, text="before")  # knows of one device
        link = (await first.call("createLink"))["link"]
        assert (await second.call("link", link=link))["deviceId"] == 2
        await second.call("connect")
        await business.send(to=own_number, text="after")
        assert [(await first.message())["text"] for _ in range(2)] == ["before", "after"]
        assert (await second.message())["text"] == "after"
        # The relay finds the second device's list out of date: it is mended on the way.
        async with receiving(business) as events:
            await second.call("send", to=shop.number, text="from the second")
            await events.until(lambda: bool(events.texts))


async def test_wrong_calls_give_typed_errors_with_field_and_limit(
    shop: Shop, official: tuple[Driver, str], number: Numbers
) -> None:
    device, _ = official
    async with typescript_business(shop) as business:
        for fields, name, reason, field in (
            ({"to": "+1", "text": "x"}, "InvalidRequest", "INVALID_PHONE_NUMBER", "phone_number"),
            ({"to": number(), "text": "x"}, "UnknownRecipient", "UNKNOWN_RECIPIENT", ""),
            ({"to": shop.number, "text": "x" * 16_385}, "TooLarge", "TOO_LARGE", "content"),
            (
                {"to": shop.number, "text": "x", "key": "x" * 65},
                "InvalidRequest",
                "",
                "idempotency",
            ),
        ):
            with pytest.raises(DriverError) as refused:
                await business.call("send", **fields)
            assert refused.value.name == name
            assert reason in refused.value.reason
            assert field in refused.value.field
            assert bool(refused.value.limit) == bool(field)
        with pytest.raises(DriverError) as refused:
            await business.call("message", messageId="0" * 32)
        assert refused.value.name == "NotFound"
        sent = await business.call("sendMany", to="+1", prefix="x", count="1")
        assert sent == {"accepted": 0}
        error = (await business.event("result"))["error"]
        assert (error["name"], error["field"]) == ("InvalidRequest", "phone_number")
        assert error["limit"]
    for wrong, name in (
        ({"token": "ll.wrong"}, "Unauthenticated"),
        ({"number": number()}, "Forbidden"),
    ):
        async with typescript_business(shop, **wrong) as stranger:
            for operation in (
                {"op": "send", "to": shop.number, "text": "x"},
                {"op": "sendMany", "to": shop.number, "prefix": "x", "count": "1"},
            ):
                with pytest.raises(DriverError) as refused:
                    await stranger.call(**operation)
                assert refused.value.name == name
            await stranger.call("receive")
            assert (await stranger.events.get())["error"]["name"] == name
    for to, name, field in (("+1", "InvalidRequest", "phone"), ("nobody", "InvalidRequest", "to")):
        with pytest.raises(DriverError) as refused:
            await device.call("send", to=to, text="x")
        assert (refused.value.name, bool(refused.value.limit)) == (name, True)
        assert field in refused.value.field


async def test_nothing_is_lost_or_doubled_when_the_gateway_is_killed_in_both_streams(
    tmp_path: Path,
) -> None:
    count = 200
    async with daemon(tmp_path) as running:
        shop = await open_shop(running, "+15550100100")
        async with typescript_business(shop) as business, typescript_device(running) as device:
            await device.register(running, "+15550100101")
            await business.call("receive")
            sending = asyncio.create_task(
                business.call(
                    "sendMany", to="+15550100101", prefix="offer", count=str(count), window="32"
                )
            )
            for _ in range(50):
                await business.event("result")
            await device.call("send", to=shop.number, text="answer 0")
            killed = asyncio.create_task(running.kill("gateway"))
            for n in range(1, 20):
                await device.call("send", to=shop.number, text=f"answer {n}")
            await killed
            assert await sending == {"accepted": count}
            got = [(await device.message())["text"] for _ in range(count)]
            assert got == [f"offer {n}" for n in range(count)]
            answers = [(await business.message())["text"] for _ in range(20)]
            assert answers == [f"answer {n}" for n in range(20)]


async def test_a_device_killed_at_work_goes_on_where_it_was(
    shared: Daemon, shop: Shop, number: Numbers, tmp_path: Path
) -> None:
    own_number, state = number(), tmp_path / "device"
    async with typescript_business(shop) as business:
        async with typescript_device(shared, state) as device:
            await device.register(shared, own_number)
            await business.call("send", to=own_number, text="0")
            got = await device.message()
            await device.call("send", to=got["sender"], text="before")
            await business.call("receive")
            assert (await business.message())["text"] == "before"
            for n in range(1, 40):
                await business.call("send", to=own_number, text=str(n))
            texts = [got["text"]]
            while len(texts) < 10:
                texts.append((await device.message())["text"])
        while not device.events.empty():  # lines written before the SIGKILL
            event = device.events.get_nowait()
            texts += [event["text"]] if event["event"] == "message" else []
        async with typescript_device(shared, state) as device:
            await device.call("connect")
            while texts[-1] != "39":
                texts.append((await device.message())["text"])
            # An event is given again until its acknowledgement is committed; nothing is left out.
            assert list(dict.fromkeys(texts)) == [str(n) for n in range(40)]
            await device.call("send", to=got["sender"], text="after")
            assert (await business.message())["text"] == "after"
            await device.call("close")


@pytest.mark.parametrize("other", ["business", "user"])
async def test_a_device_that_was_set_back_is_sent_again_what_it_cannot_decrypt(
    shared: Daemon,
    shop: Shop,
    official: tuple[Driver, str],
    number: Numbers,
    tmp_path: Path,
    other: str,
) -> None:
    state, copy = tmp_path / "device", tmp_path / "copy"
    async with typescript_business(shop) as business:
        await business.call("receive")
        ana, ana_number = official if other == "user" else (business, shop.number)

        async def both_write(ben: Driver, text: str) -> str:
            await ben.call("send", to=ana_number, text=text)
            got = await ana.message()
            assert got["text"] == text
            sender = str(got["sender"] if other == "user" else got["userId"])
            await ana.call("send", to=sender, text=f"{text}, too")
            assert (await ben.message())["text"] == f"{text}, too"
            return sender

        async with typescript_device(shared, state) as ben:
            await ben.register(shared, number())
            sender = await both_write(ben, "one")
            await ben.call("close")
        shutil.copy(state, copy)
        async with typescript_device(shared, state) as ben:
            await ben.call("connect")
            for text in ("two", "three"):  # turns of the ratchet that the copy knows nothing of
                await both_write(ben, text)
            await ben.call("close")
        copy.replace(state)
        async with typescript_device(shared, state) as ben:
            await ben.call("connect")
            sent = await ana.call("send", to=sender, text="four")
            lost = await ben.event("undecryptable")
            assert (lost["messageId"], lost["resendRequested"]) == (sent["messageId"], True)
            healed = await ben.message()
            assert (healed["text"], healed["messageId"]) == ("four", sent["messageId"])
            await both_write(ben, "five")


async def test_the_readme_s_five_minutes(tmp_path: Path) -> None:
    readme = (CLIENT / "README.md").read_text()
    (program,) = re.findall(r"```js\n(.*?)```", readme, flags=re.DOTALL)
    installed = tmp_path / "node_modules" / "@letterlock"
    installed.mkdir(parents=True)
    (installed / "client").symlink_to(CLIENT)
    async with daemon(tmp_path) as running:
        shop = await open_shop(running, "+15550100300")
        for printed, role in (("localhost:7443", "gateway"), ("localhost:7444", "relay")):
            assert printed in program
            program = program.replace(printed, by_name(running.addresses[role]))
        (tmp_path / "conversation.mjs").write_text(program)
        for _ in ("the user is registered", "and is known"):
            process = await asyncio.create_subprocess_exec(
                *("node", "conversation.mjs", shop.token),
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(60):
                said, _ = await process.communicate()
            assert said.decode().splitlines() == [
                "Ana reads: Hello",
                "Ana reads: Offer 1",
                "Ana reads: Offer 2",
                "the business reads: Thank you",
                "all were read",
            ]
            assert process.returncode == 0


async def _status(business: Driver, name: str) -> dict[str, str]:
    return dict(await business.event("status", lambda event: event["status"] == name))


async def test_an_official_device_and_the_gateway_heal_each_other(
    shared: Daemon, shop: Shop, number: Numbers, tmp_path: Path
) -> None:
    own_number, state, copy = number(), tmp_path / "device", tmp_path / "copy"

    async with shop.client() as business, receiving(business) as events:

        async def talk(device: Driver, rounds: int) -> None:
            for _ in range(rounds):
                await business.send(to=own_number, text="and you?")
                heard = len(events.texts)
                sender = (await device.message())["sender"]
                await device.call("send", to=sender, text="fine")
                await events.until(lambda heard=heard: len(events.texts) > heard)  # type: ignore[misc]

        async with typescript_device(shared, state) as device:
            await device.register(shared, own_number)
            await talk(device, 2)
            await device.call("close")
        shutil.copy(state, copy)
        async with typescript_device(shared, state) as device:
            await device.call("connect")
            await talk(device, 7)  # more turns than the gateway keeps chains
            await device.call("close")
        shutil.copy(copy, state)

        # The device is back where it was: each end has what the other cannot decrypt.
        async with typescript_device(shared, state) as device:
            await device.call("connect")
            accepted = await business.send(to=own_number, text="Your order is ready")
            lost = await device.events.get()
            while lost["event"] != "undecryptable":
                lost = await device.events.get()
            assert (lost["messageId"], lost["resendRequested"]) == (accepted.message_id, True)
            healed = await device.event(
                "message", lambda event: event["messageId"] == accepted.message_id
            )
            assert healed["text"] == "Your order is ready"
            await events.until(events.reached(accepted.message_id, DELIVERED))
            await talk(device, 1)
            await device.call("close")
        shutil.copy(copy, state)

        async with typescript_device(shared, state) as device:
            await device.call("connect")
            # By account: for a number that the copy does not know a session would be new.
            sent = await device.call("send", to=healed["sender"], text="Thank you")
            await events.until(lambda: events.texts[-1][1] == "Thank you")
            told = next(e.undecryptable for e in events.events if e.undecryptable is not None)
            assert (told.message_id, told.resend_requested) == (sent["messageId"], True)
            came = [e.message for e in events.events if e.message is not None][-1]
            assert (came.message_id, came.resent) == (sent["messageId"], True)
            await talk(device, 1)
            await device.call("close")
