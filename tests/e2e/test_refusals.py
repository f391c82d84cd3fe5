"""Bad input and bad tokens through all real processes: typed answers, and the rest goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from letterlock import Event, OutgoingMessage, SendResult
from letterlock.channel import bearer
from letterlock.content.v1 import content_pb2
from letterlock.errors import (
    Forbidden,
    InvalidRequest,
    LetterlockError,
    Unauthenticated,
    UnknownRecipient,
)
from letterlock.faults import from_rpc
from letterlock.v1 import messaging_pb2 as api
from letterlock.v1 import messaging_pb2_grpc

from tests.harness.people import Shop, next_message, open_shop, operator, user
from tests.harness.supervised import Daemon

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

Numbers = Callable[[], str]


async def test_bad_messages_are_answered_one_by_one_and_the_others_go_on(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    unknown = number()
    async with shop.client() as business, user(shared, (ana_number := number())) as ana:
        bad = {
            "unknown": OutgoingMessage(unknown, "x"),
            "national": OutgoingMessage("+0123", "x"),
            "letters": OutgoingMessage("+1555CALLNOW", "x"),
            "no such id": OutgoingMessage("0" * 32, "x"),
            "not an id": OutgoingMessage("nobody", "x"),
            "too long": OutgoingMessage(ana_number, "x" * 16_385),
            "far too long": OutgoingMessage(ana_number, "x" * 300_000),
            "empty": OutgoingMessage(ana_number, ""),
            "no time": OutgoingMessage(ana_number, "x", time_to_live=0.5),
            "too much time": OutgoingMessage(ana_number, "x", time_to_live=31 * 86_400.0),
            "long tag": OutgoingMessage(ana_number, "x", caller_tag=bytes(129)),
            "key with a line break": OutgoingMessage(ana_number, "x", idempotency_key="a\nb"),
            "no kind": OutgoingMessage(ana_number, content=content_pb2.Content()),
        }
        keys = {message.idempotency_key: name for name, message in bad.items()}
        messages = []
        for n, message in enumerate(bad.values()):
            messages += [message, OutgoingMessage(ana_number, f"good {n}")]
        results = [result async for result in business.send_many(messages)]
        refused = {keys[r.idempotency_key]: r.error for r in results if r.idempotency_key in keys}
        assert _reasons(refused) == {
            "unknown": "UNKNOWN_RECIPIENT",
            "national": "INVALID_PHONE_NUMBER",
            "letters": "INVALID_PHONE_NUMBER",
            "no such id": "UNKNOWN_RECIPIENT",
            "not an id": "INVALID_FIELD",
            "too long": "TOO_LARGE",
            "far too long": "TOO_LARGE",
            "empty": "INVALID_FIELD",
            "no time": "INVALID_FIELD",
            "too much time": "INVALID_FIELD",
            "long tag": "TOO_LARGE",
            "key with a line break": "INVALID_FIELD",
            "no kind": "INVALID_FIELD",
        }
        for name, error in refused.items():
            if not isinstance(error, UnknownRecipient):
                assert error is not None, name
                assert error.field, name
                assert error.limit, name
        assert sum(_is_accepted(result) for result in results) == len(bad)
        assert [(await next_message(ana)).text for _ in bad] == [
            f"good {n}" for n in range(len(bad))
        ]


def _reasons(refused: dict[str, LetterlockError | None]) -> dict[str, str]:
    return {name: "" if error is None else error.reason for name, error in refused.items()}


def _is_accepted(result: SendResult) -> bool:
    return result.accepted is not None


async def test_tokens_that_do_not_reach_the_number(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    other = await open_shop(shared, number())
    to = number()
    async with shop.client(token="nothing") as client:
        with pytest.raises(Unauthenticated):
            await client.send(to=to, text="x")
    async with shop.client(token=shop.token[:-3] + "abc") as client:
        with pytest.raises(Unauthenticated):
            await client.send(to=to, text="x")
    async with shop.client(number=other.number) as client:
        with pytest.raises(Forbidden):
            await client.send(to=to, text="x")
        with pytest.raises(Forbidden):
            await anext(client.send_many([OutgoingMessage(to, "x")]))
        with pytest.raises(Forbidden):
            async with client.receive() as events:
                await anext(events)
        with pytest.raises(Forbidden):
            await client.message("0" * 32)
    async with shop.client(token=shared.operator_token) as client:
        with pytest.raises(Forbidden):
            await client.send(to=to, text="x")


async def test_a_message_of_another_business_cannot_be_seen(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    other = await open_shop(shared, number())
    async with (
        user(shared, (to := number()), connect=False),
        shop.client() as client,
        other.client() as stranger,
    ):
        accepted = await client.send(to=to, text="x", idempotency_key="one")
        for key in ({"message_id": accepted.message_id}, {"idempotency_key": "one"}):
            with pytest.raises(LetterlockError) as caught:
                await stranger.message(**key)
            assert caught.value.reason == "NOT_FOUND"
        with pytest.raises(UnknownRecipient):
            await stranger.send(to=accepted.user_id, text="x")


async def test_no_token_at_all(shared: Daemon, shop: Shop) -> None:
    async with shared.channel("gateway") as channel:
        call = messaging_pb2_grpc.MessagingStub(channel).GetMessage
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(api.GetMessageRequest(business_number=shop.number), timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert from_rpc(caught.value).reason == "UNAUTHENTICATED"


async def test_a_token_revoked_while_it_sends_and_receives(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    more = asyncio.Event()
    to = number()

    async def messages() -> AsyncIterator[OutgoingMessage]:
        yield OutgoingMessage(to, "before")
        await more.wait()
        yield OutgoingMessage(to, "after")

    async with user(shared, to) as ana, operator(shared) as admin, shop.client() as client:
        sending = client.send_many(messages())
        assert (await anext(sending)).accepted is not None
        assert (await next_message(ana)).text == "before"
        (token,) = (await admin.business(shop.business_id)).tokens
        async with client.receive() as events:
            await anext(events)
            await admin.revoke_token(shop.business_id, token.token_id)
            with pytest.raises(Unauthenticated):
                await asyncio.wait_for(_acknowledge_all(events), 30)
        more.set()
        with pytest.raises(Unauthenticated):
            await anext(sending)


async def test_a_number_removed_while_it_sends_and_receives_and_added_again(
    shared: Daemon, number: Numbers
) -> None:
    shop = await open_shop(shared, number())
    more = asyncio.Event()
    to = number()

    async def messages() -> AsyncIterator[OutgoingMessage]:
        yield OutgoingMessage(to, "before")
        await more.wait()
        yield OutgoingMessage(to, "after")

    async with user(shared, to) as ana, operator(shared) as admin, shop.client() as client:
        sending = client.send_many(messages())
        assert (await anext(sending)).accepted is not None
        assert (await next_message(ana)).text == "before"
        async with client.receive() as events:
            await anext(events)
            left = await admin.remove_number(shop.business_id, shop.number)
            assert list(left.numbers) == []
            with pytest.raises(Forbidden):
                await asyncio.wait_for(_acknowledge_all(events), 30)
        more.set()
        with pytest.raises(Forbidden):
            await anext(sending)
        with pytest.raises(UnknownRecipient):
            await ana.send_text(shop.number, "nobody there")
        await admin.add_number(shop.business_id, shop.number)
        await client.send(to=to, text="a new number")
        assert (await next_message(ana)).text == "a new number"
        await admin.delete_business(shop.business_id)
        with pytest.raises(Unauthenticated):
            await client.send(to=to, text="nobody's token")
        done = [
            entry.action async for entry in admin.audit() if entry.business_id == shop.business_id
        ]
        assert done[-3:] == ["REMOVE_NUMBER", "ADD_NUMBER", "DELETE_BUSINESS"]


async def _acknowledge_all(events: AsyncIterator[Event]) -> None:
    async for event in events:
        event.ack()


async def _to_the_end(call: grpc.aio.StreamStreamCall) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_frames_against_the_streams_rules(shared: Daemon, shop: Shop) -> None:
    opening = api.SendRequest(open=api.SendOpen(business_number=shop.number))
    empty = api.SendRequest(batch=api.SendBatch())
    one = api.SendRequest(batch=api.SendBatch(messages=[api.OutgoingMessage()]))
    many = api.SendRequest(
        batch=api.SendBatch(
            messages=[api.OutgoingMessage(idempotency_key=str(n)) for n in range(257)]
        )
    )
    async with shared.channel("gateway") as channel:
        send = messaging_pb2_grpc.MessagingStub(channel).Send
        for frames, reason in (
            ([one], "UNEXPECTED_FRAME"),
            *[([opening, opening], "UNEXPECTED_FRAME")] * 8,  # races with the answer to the first
            ([opening, empty], "INVALID_FIELD"),
            ([opening, many], "TOO_LARGE"),
            ([api.SendRequest()], "UNEXPECTED_FRAME"),
        ):
            call = send(metadata=bearer(shop.token), timeout=20)
            for frame in frames:
                await call.write(frame)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _to_the_end(call)
            assert from_rpc(caught.value).reason == reason, frames[-1].WhichOneof("frame")


async def test_a_frame_beyond_the_transports_limit(shared: Daemon, shop: Shop) -> None:
    text = content_pb2.Content(text=content_pb2.Text(body="x" * 9_000_000))
    frame = api.SendRequest(batch=api.SendBatch(messages=[api.OutgoingMessage(content=text)]))
    async with shared.channel("gateway") as channel:
        call = messaging_pb2_grpc.MessagingStub(channel).Send(
            metadata=bearer(shop.token), timeout=20
        )
        await call.write(api.SendRequest(open=api.SendOpen(business_number=shop.number)))
        assert (await call.read()).HasField("opened")
        await call.write(frame)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _to_the_end(call)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_deadline_that_is_over(shared: Daemon, shop: Shop, number: Numbers) -> None:
    request = api.SendMessageRequest(
        business_number=shop.number,
        message=api.OutgoingMessage(
            idempotency_key="late",
            phone_number=number(),
            content=content_pb2.Content(text=content_pb2.Text(body="x")),
        ),
    )
    async with shared.channel("gateway") as channel:
        call = messaging_pb2_grpc.MessagingStub(channel).SendMessage
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request, metadata=bearer(shop.token), timeout=0.000_001)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    "wrong", ["", "555", "+1", "0049301234567", "+4930 1234567", "+49(30)1234567"]
)
async def test_a_business_number_in_a_wrong_form(shared: Daemon, shop: Shop, wrong: str) -> None:
    async with shop.client() as business:
        business._number = wrong
        with pytest.raises(InvalidRequest) as caught:
            await business.send(to=shop.number, text="x")
    assert caught.value.field == "business_number"
    async with operator(shared) as admin:
        with pytest.raises(InvalidRequest) as caught:
            await admin.add_number(shop.business_id, wrong)
    assert caught.value.field == "phone_number"
