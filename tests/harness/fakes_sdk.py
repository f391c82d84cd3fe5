"""An in-process gateway that keeps everything in memory, and can be told where to cut a stream.

It obeys the contract of messaging.proto closely enough to test a client; it encrypts nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from letterlock.v1 import errors_pb2, messaging_pb2, messaging_pb2_grpc

from tests.harness.served import served

TOKEN = "business-token"
NUMBER = "+4915112345678"


async def fail(
    context: grpc.aio.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    *,
    retry_ms: int | None = None,
    **metadata: str,
) -> None:
    """End the call with the details that errors.proto promises."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(domain="letterlock", reason=reason, metadata=metadata))
    details = [info]
    if retry_ms is not None:
        retry = any_pb2.Any()
        delay = duration_pb2.Duration(nanos=retry_ms * 1_000_000)
        retry.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        details.append(retry)
    status = status_pb2.Status(code=code.value[0], message=reason.lower(), details=details)
    await context.abort_with_status(rpc_status.to_status(status))


@dataclass
class SendPlan:
    """What one Send stream does: take this many messages, answer that many, then end."""

    opens: bool = True
    takes: int = 0
    answers: int = 0
    drains: bool = False
    refuses_draining: int = 0


@dataclass
class ReceivePlan:
    """What one Receive stream does: give this many events, await that many acks, then end."""

    gives: int = 0
    acks: int = 0
    drains: bool = False


@dataclass
class FakeGateway(messaging_pb2_grpc.MessagingServicer):
    send_plans: deque[SendPlan] = field(default_factory=deque)
    receive_plans: deque[ReceivePlan] = field(default_factory=deque)
    refusals: dict[str, errors_pb2.Refusal] = field(default_factory=dict)
    failures: deque[tuple[grpc.StatusCode, str, int | None]] = field(default_factory=deque)
    max_unanswered: int = 64
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    messages: dict[str, messaging_pb2.OutgoingMessage] = field(default_factory=dict)
    written: Counter[str] = field(default_factory=Counter)
    most_unanswered: int = 0
    sends: int = 0
    receives: int = 0
    inbox: dict[str, messaging_pb2.Event] = field(default_factory=dict)
    given: Counter[str] = field(default_factory=Counter)
    acked: list[str] = field(default_factory=list)
    ack_frames: int = 0
    lease_ms: int = 0
    openings: list[messaging_pb2.ReceiveOpen] = field(default_factory=list)
    extended: Counter[str] = field(default_factory=Counter)
    nacked: list[tuple[str, float]] = field(default_factory=list)
    nacking: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    replaced: asyncio.Event = field(default_factory=asyncio.Event)
    holding: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answering.set()
        self.nacking.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that this gateway did makes the condition true."""
        while not condition():
            self.moved.clear()
            await self.moved.wait()

    def write(self, *texts: str) -> None:
        """Put messages of a user into the inbox."""
        for text in texts:
            event = messaging_pb2.Event(event_id=f"e{len(self.inbox) + len(self.acked)}")
            event.message.user_id = "f" * 32
            event.message.content.text.body = text
            self.inbox[event.event_id] = event
        self.news.set()

    async def _authenticate(self, context: grpc.aio.ServicerContext) -> None:
        if ("authorization", f"Bearer {TOKEN}") not in tuple(context.invocation_metadata() or ()):
            await fail(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")

    def _accept(self, message: messaging_pb2.OutgoingMessage) -> messaging_pb2.SendResult:
        key = message.idempotency_key
        self.written[key] += 1
        if key in self.refusals:
            return messaging_pb2.SendResult(idempotency_key=key, refused=self.refusals[key])
        known = key in self.messages
        self.messages.setdefault(key, message)
        accepted = messaging_pb2.Accepted(message_id=f"id-{key}", user_id="f" * 32, repeated=known)
        return messaging_pb2.SendResult(idempotency_key=key, accepted=accepted)

    async def SendMessage(self, request, context):  # type: ignore[no-untyped-def, override]
        await self._authenticate(context)
        result = self._accept(request.message)
        if self.failures:
            code, reason, retry_ms = self.failures.popleft()
            await fail(context, code, reason, retry_ms=retry_ms, field="message.x", limit="7")
        return messaging_pb2.SendMessageResponse(accepted=result.accepted)

    async def GetMessage(self, request, context):  # type: ignore[no-untyped-def, override]
        await self._authenticate(context)
        key = request.idempotency_key or request.message_id.removeprefix("id-")
        if key not in self.messages:
            await fail(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        return messaging_pb2.Message(
            message_id=f"id-{key}", status=messaging_pb2.MESSAGE_STATUS_ACCEPTED
        )

    async def Send(self, request_iterator, context):  # type: ignore[no-untyped-def, override]
        self.sends += 1
        await self._authenticate(context)
        plan = self.send_plans.popleft() if self.send_plans else None
        first = await anext(request_iterator)
        assert first.open.business_number == NUMBER
        if plan is not None and not plan.opens:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        opened = messaging_pb2.SendOpened(max_batch_messages=16, max_unanswered=self.max_unanswered)
        yield messaging_pb2.SendResponse(opened=opened)
        if plan is None:
            async for frame in request_iterator:
                self.most_unanswered = max(self.most_unanswered, len(frame.batch.messages))
                self.holding = True
                self.moved.set()
                await self.answering.wait()
                results = [self._accept(message) for message in frame.batch.messages]
                yield self._results(results)
            return
        async for response in self._planned(plan, request_iterator):
            yield response
        if not plan.drains:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    async def _planned(self, plan, request_iterator):  # type: ignore[no-untyped-def]
        taken: list[messaging_pb2.SendResult] = []
        while len(taken) < plan.takes:
            frame = await anext(request_iterator)
            room = plan.takes - len(taken)
            taken.extend(self._accept(message) for message in frame.batch.messages[:room])
        if plan.answers:
            yield self._results(taken[: plan.answers])
        if plan.drains:
            yield messaging_pb2.SendResponse(draining=messaging_pb2.Draining())
            async for frame in request_iterator:
                refused = errors_pb2.Refusal(reason=errors_pb2.ERROR_REASON_DRAINING)
                yield self._results(
                    [
                        messaging_pb2.SendResult(
                            idempotency_key=message.idempotency_key, refused=refused
                        )
                        for message in frame.batch.messages
                    ]
                )

    @staticmethod
    def _results(results: list[messaging_pb2.SendResult]) -> messaging_pb2.SendResponse:
        return messaging_pb2.SendResponse(results=messaging_pb2.SendResults(results=results))

    async def Receive(self, request_iterator, context):  # type: ignore[no-untyped-def, override]
        self.receives += 1
        await self._authenticate(context)
        first = await anext(request_iterator)
        assert first.open.business_number == NUMBER
        self.openings.append(first.open)
        window = first.open.window
        plan = self.receive_plans.popleft() if self.receive_plans else None
        opened = messaging_pb2.ReceiveOpened(window=window)
        opened.lease.FromMilliseconds(self.lease_ms)
        yield messaging_pb2.ReceiveResponse(opened=opened)
        on_stream: set[str] = set()
        echoes: deque[messaging_pb2.ReceiveResponse] = deque()
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._acks(request_iterator, on_stream, echoes, ended))
            caught_up = False
            given = 0
            while True:
                self.news.clear()
                while echoes:
                    yield echoes.popleft()
                most = window - len(on_stream & self.inbox.keys())
                if plan is not None:
                    most = min(most, plan.gives - given)
                batch = [event for key, event in self.inbox.items() if key not in on_stream][:most]
                if batch:
                    given += len(batch)
                    on_stream.update(event.event_id for event in batch)
                    for event in batch:
                        event.redelivered = self.given[event.event_id] > 0
                        self.given[event.event_id] += 1
                    self.moved.set()
                    yield messaging_pb2.ReceiveResponse(events=messaging_pb2.Events(events=batch))
                elif not caught_up:
                    caught_up = True
                    yield messaging_pb2.ReceiveResponse(caught_up=messaging_pb2.CaughtUp())
                if plan is not None and given >= plan.gives and len(self.acked) >= plan.acks:
                    break
                if ended.is_set() or self.replaced.is_set():
                    break
                if not batch:
                    await self.news.wait()
            if plan is not None and plan.drains:
                yield messaging_pb2.ReceiveResponse(draining=messaging_pb2.Draining())
                await ended.wait()
            reader.cancel()
        if self.replaced.is_set():
            await fail(context, grpc.StatusCode.FAILED_PRECONDITION, "REPLACED")
        if plan is not None and not plan.drains:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    async def _acks(self, request_iterator, on_stream, echoes, ended):  # type: ignore[no-untyped-def]
        async for frame in request_iterator:
            self.ack_frames += 1
            for event_id in frame.acks.event_ids:
                if event_id in on_stream and self.inbox.pop(event_id, None) is not None:
                    self.acked.append(event_id)
            if frame.HasField("nacks"):
                await self.nacking.wait()
                echo = messaging_pb2.ReceiveNacked(event_ids=frame.nacks.event_ids)
                echoes.append(messaging_pb2.ReceiveResponse(nacked=echo))
            for event_id in frame.nacks.event_ids:
                self.nacked.append((event_id, frame.nacks.delay.ToMilliseconds() / 1_000))
                # all of these events are of one user: those behind it come again, too
                on_stream -= {name for name in on_stream if int(name[1:]) >= int(event_id[1:])}
            self.extended.update(frame.extensions.event_ids)
            self.moved.set()
            self.news.set()
        ended.set()
        self.news.set()


@asynccontextmanager
async def serving(gateway: FakeGateway, port: int = 0) -> AsyncIterator[str]:
    """Serve it on loopback; gives the target. `port`: 0 is a free one."""
    add = partial(messaging_pb2_grpc.add_MessagingServicer_to_server, gateway)
    async with served(add, port=port) as target:
        yield target
