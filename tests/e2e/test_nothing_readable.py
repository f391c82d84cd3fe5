"""No content and no phone number in any file or log line of a daemon that carried both."""

import os
from pathlib import Path

import pytest
from letterlock import BusinessClient, Device, OutgoingMessage
from letterlock.errors import VerificationFailed

from tests.harness.people import (
    READ,
    Collected,
    new_device,
    next_message,
    open_shop,
    receiving,
    user,
    verification_code,
)
from tests.harness.search import leaks, number_patterns, text_patterns
from tests.harness.supervised import daemon

pytestmark = pytest.mark.e2e

SHOP, ANA, BEN = "+15591234567", "+15592345678", "+15593456789"
OFFER = "the locker code is 90210-zebra"
ANSWER = "i will fetch it with quagga"
REFUSED = "this goes to nobody, said okapi"
KEY, TAG = "invoice-of-mrs-bongo-4711", "ticket of the gnu 0815"


def needles() -> dict[str, bytes]:
    wanted = {}
    texts = {"offer": OFFER, "answer": ANSWER, "refused": REFUSED, "key": KEY, "tag": TAG}
    for name, text in texts.items():
        wanted |= {f"{name}: {kind}": pattern for kind, pattern in text_patterns(text).items()}
    for name, number in {"shop": SHOP, "ana": ANA, "ben": BEN}.items():
        wanted |= {f"{name}: {kind}": pattern for kind, pattern in number_patterns(number).items()}
    return wanted


async def talk(business: BusinessClient, events: Collected, ana: Device) -> None:
    """Everything that carries content or a number, and some that goes wrong."""
    accepted = await business.send(to=ANA, text=OFFER, idempotency_key=KEY, caller_tag=TAG.encode())
    message = await next_message(ana)
    await ana.send_read_receipt(message.sender, [message.message_id])
    await ana.send_text(SHOP, ANSWER)
    await ana.send_reaction(SHOP, message.message_id, "👍")
    await events.until(events.reached(accepted.message_id, READ))
    await events.until(lambda: len(events.contents) == 2)
    told = {
        (event.status.idempotency_key, event.status.caller_tag)
        for event in events.events
        if event.status is not None
    }
    assert told == {(KEY, TAG.encode())}
    # Waits at the relay.
    await business.send(to=BEN, text=OFFER, idempotency_key=f"{KEY}-ben", caller_tag=TAG.encode())
    for bad in ("+15590000000", "+1559", "nobody"):
        results = business.send_many([OutgoingMessage(bad, REFUSED)])
        assert [result.error is not None async for result in results] == [True]


async def test_nothing_readable_on_disk_or_in_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "daemon"
    folder.mkdir()
    async with daemon(folder, "--set", "log.level=debug") as running:
        shop = await open_shop(running, SHOP)
        async with (
            shop.client() as business,
            user(running, ANA) as ana,
            user(running, BEN, connect=False),
        ):
            async with receiving(business) as events:
                await talk(business, events, ana)
            await ana.send_text(SHOP, ANSWER)  # waits for the business
            await running.kill("gateway")
            await business.send(to=ANA, text=OFFER)
            async with new_device(running) as thief:
                verification = await thief.request_verification(ANA)
                code = f"{(int(verification_code(running, verification)) + 1) % 1_000_000:06}"
                with pytest.raises(VerificationFailed):
                    await thief.register(ANA, verification, code)
            (folder / "log.jsonl").write_text(running.text)
            assert leaks(folder, needles()) == []
        await running.stop()
        (folder / "log.jsonl").write_text(running.text)
    assert leaks(folder, needles()) == []
    control = leaks(folder, {"id": bytes.fromhex(shop.business_id), "log": b"role_ready"})
    assert {hit.partition(" in ")[0] for hit in control} == {"id", "log"}


def test_the_search_finds_every_pattern_that_is_there(tmp_path: Path) -> None:
    wanted = needles()
    (tmp_path / "deep").mkdir()
    for n, (name, pattern) in enumerate(wanted.items()):
        (tmp_path / "deep" / f"{n}").write_bytes(os.urandom(5_000_000 if n < 2 else 99) + pattern)
        assert leaks(tmp_path, {name: pattern}) == [f"{name} in deep/{n}"]
