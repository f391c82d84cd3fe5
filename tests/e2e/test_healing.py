"""Broken sessions through all real processes: a device that lost its sessions, and noise from a
device, each healed without a word from the application."""

from collections.abc import Callable

import pytest
from letterlock.device.events import IncomingMessage, Undecryptable

from tests.harness.people import (
    DELIVERED,
    Shop,
    forget_sessions,
    next_event,
    next_message,
    receiving,
    user,
)
from tests.harness.supervised import Daemon

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]


async def test_a_device_without_its_sessions_gets_its_messages(
    shared: Daemon, shop: Shop, number: Callable[[], str]
) -> None:
    ana_number = number()
    async with (
        shop.client() as business,
        receiving(business) as events,
        user(shared, ana_number) as ana,
    ):
        await business.send(to=ana_number, text="Hello")
        account = (await next_message(ana)).sender
        await ana.send_text(account, "Hello back")
        await events.until(lambda: len(events.texts) == 1)
        forget_sessions(ana)
        accepted = await business.send(to=ana_number, text="Your order is ready")
        lost = await next_event(ana)
        while not isinstance(lost, Undecryptable):
            lost = await next_event(ana)
        assert (lost.message_id.hex(), lost.resend_requested) == (accepted.message_id, True)
        healed = await next_message(ana)
        assert healed.text == "Your order is ready"
        assert healed.message_id.hex() == accepted.message_id
        await ana.send_text(account, "Thank you")
        await events.until(events.reached(accepted.message_id, DELIVERED))
        assert events.is_delivered(accepted.message_id)
        await events.until(lambda: len(events.texts) == 2)


async def test_what_the_gateway_cannot_decrypt_comes_again_and_is_told(
    shared: Daemon, shop: Shop, number: Callable[[], str]
) -> None:
    async with (
        shop.client() as business,
        receiving(business) as events,
        user(shared, number()) as ana,
    ):
        await ana.send_text(shop.number, "Hello")
        await events.until(lambda: len(events.texts) == 1)
        await business.send(to=events.texts[0][0], text="Hello back")
        await next_message(ana)  # from now on her messages are ordinary ones
        assert ana._state is not None
        encrypt = ana._state.sessions.encrypt

        def noise(*args: object) -> object:
            envelope = encrypt(*args)  # type: ignore[arg-type]
            envelope.body = envelope.body[:-1] + bytes([envelope.body[-1] ^ 1])
            ana._state.sessions.encrypt = encrypt  # type: ignore[union-attr,method-assign]
            return envelope

        ana._state.sessions.encrypt = noise  # type: ignore[method-assign,assignment]
        sent = await ana.send_text(shop.number, "Important")
        # Her application waits for events, as applications do; that is when reports are read.
        await events.until(lambda: "undecryptable" in events.kinds())
        await business.send(to=events.texts[0][0], text="What was that?")
        while not isinstance(await next_event(ana), IncomingMessage):
            pass
        await events.until(lambda: len(events.texts) == 2)
        lost = next(e.undecryptable for e in events.events if e.undecryptable is not None)
        healed = [e.message for e in events.events if e.message is not None][-1]
        assert lost.resend_requested
        assert lost.message_id == healed.message_id == sent.hex()
        assert healed.resent
        assert healed.content.text.body == "Important"
