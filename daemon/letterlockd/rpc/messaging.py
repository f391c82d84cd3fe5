"""The `letterlock.v1.Messaging` servicer: what a business backend calls.

Thin: finds out for which number the caller may act, then hands the call to its stream
(`send_call`, `receive_call`) or to the gateway. Keeps the open streams, so that a newer receiver
can end an older one of its name, and so that all of them can be told that the process stops.

Revoked tokens are the gatekeeper's (`letterlockd.rpc.interceptors`): it cancels the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import grpc
from letterlock.v1 import errors_pb2, messaging_pb2, messaging_pb2_grpc

from letterlockd.errors import BrokenInvariant, BusyError, CallerError, Forbidden, InvalidField
from letterlockd.gateway.handover import Handover
from letterlockd.gateway.reception import Receptions
from letterlockd.limits import DRAIN_RETRY_MS, DRAIN_SHARE, REPLACE_WAIT_S
from letterlockd.model.ids import AccountId
from letterlockd.model.sender import Sender
from letterlockd.rpc.business_caller import Senders, calling_sender
from letterlockd.rpc.receive_call import ReceiveCall
from letterlockd.rpc.send_call import Outbound, SendCall
from letterlockd.rpc.validate import check_idempotency_key, check_message, check_message_id

__all__ = ["MessageRefused", "Messaging", "add_messaging_servicer"]

_SendContext: TypeAlias = "grpc.aio.ServicerContext[messaging_pb2.SendRequest, bytes]"
_ReceiveContext: TypeAlias = (
    "grpc.aio.ServicerContext[messaging_pb2.ReceiveRequest, messaging_pb2.ReceiveResponse]"
)
_REASON_PREFIX = "ERROR_REASON_"
_SERVICE = "letterlock.v1.Messaging"


class MessageRefused(CallerError):
    """The one message of a unary call was refused; carries the refusal's reason."""


class Messaging(messaging_pb2_grpc.MessagingServicer):
    """One for each gateway process; belongs to one event loop. Add it with
    `add_messaging_servicer`."""

    def __init__(
        self, senders: Senders, outbound: Outbound, receptions: Receptions, handover: Handover
    ) -> None:
        self._senders = senders
        self._outbound = outbound
        self._receptions = receptions
        self._handover = handover
        self._calls: set[SendCall | ReceiveCall] = set()  # bounded by the gatekeeper
        self._named: dict[tuple[AccountId, str], ReceiveCall] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls and tell open streams to come to an end: Send answers what it took in,
        Receive takes acknowledgements. Returns when all have ended, or after `grace_s`; the server
        cuts what is left then."""
        self._draining = True
        for call in tuple(self._calls):
            call.drain(grace_s * DRAIN_SHARE)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle.wait()

    @property
    def open_streams(self) -> int:
        """Streams that are open now."""
        return len(self._calls)

    async def Send(  # type: ignore[override]  # noqa: N802  # reads and writes by the context
        self, _: object, context: _SendContext
    ) -> None:
        """See the contract."""
        self._check_serving()
        with self._while_ours() as sender_of:
            call = SendCall(context, sender_of, self._outbound)
            with self._kept(call):
                await call.run()

    async def Receive(  # type: ignore[override]  # noqa: N802
        self, _: object, context: _ReceiveContext
    ) -> None:
        """See the contract."""
        self._check_serving()
        with self._while_ours() as sender_of:
            call = ReceiveCall(context, sender_of, self._claim, self._receptions, self._handover)
            with self._kept(call):
                await call.run()

    async def SendMessage(  # noqa: N802
        self, request: messaging_pb2.SendMessageRequest, _: object
    ) -> messaging_pb2.SendMessageResponse:
        """See the contract. A deadline that passes ends the wait, not the message: the same key
        again gives its outcome."""
        self._check_serving()
        sender = await calling_sender(self._senders, request.business_number)
        check_message(request.message, sender.retention_ms)
        answered: asyncio.Future[messaging_pb2.SendResult] = (
            asyncio.get_running_loop().create_future()
        )

        def answer(results: list[messaging_pb2.SendResult]) -> None:
            if not answered.done():  # the caller may have left
                answered.set_result(results[0])

        await self._outbound.submit(sender, [request.message], answer)
        result = await answered
        if result.HasField("refused"):
            raise _error_of(result.refused)
        return messaging_pb2.SendMessageResponse(accepted=result.accepted)

    async def GetMessage(  # noqa: N802
        self, request: messaging_pb2.GetMessageRequest, _: object
    ) -> messaging_pb2.Message:
        """See the contract."""
        self._check_serving()
        sender = await calling_sender(self._senders, request.business_number)
        key = request.WhichOneof("key")
        if key == "message_id":
            message_id = check_message_id(request.message_id)
            return await self._outbound.message(sender, message_id=message_id, idempotency_key=None)
        if key == "idempotency_key":
            name = check_idempotency_key(request.idempotency_key)
            return await self._outbound.message(sender, message_id=None, idempotency_key=name)
        raise InvalidField("key", "message_id or idempotency_key is required")

    @contextmanager
    def _while_ours(self) -> Iterator[Callable[[str], Awaitable[Sender]]]:
        """Gives what finds a stream's sender, again with each frame: its policies may change.
        Cancels the block when that number is taken away, and says so."""
        task = asyncio.current_task()
        if task is None:
            raise BrokenInvariant("a call is served outside of a task")
        removed = False
        unwatch: Callable[[], None] = _nothing

        def cut() -> None:
            nonlocal removed
            removed = True
            task.cancel()

        async def sender_of(business_number: str) -> Sender:
            nonlocal unwatch
            sender = await calling_sender(self._senders, business_number)
            unwatch()
            unwatch = self._senders.watch_number(sender.account_id, cut)
            return sender

        try:
            yield sender_of
        except asyncio.CancelledError:
            if removed and task.uncancel() == 0:
                raise Forbidden("the business number was removed") from None
            raise
        finally:
            unwatch()

    async def _claim(self, account: AccountId, name: str, call: ReceiveCall) -> None:
        older = self._named.get((account, name))
        self._named[account, name] = call
        if older is not None:
            older.replace()
            with suppress(TimeoutError):
                async with asyncio.timeout(REPLACE_WAIT_S):
                    await older.released.wait()

    @contextmanager
    def _kept(self, call: SendCall | ReceiveCall) -> Iterator[None]:
        self._calls.add(call)
        self._idle.clear()
        try:
            yield
        finally:
            self._calls.discard(call)
            if not self._calls:
                self._idle.set()
            if isinstance(call, ReceiveCall) and call.name and self._named.get(call.name) is call:
                del self._named[call.name]

    def _check_serving(self) -> None:
        if self._draining:
            raise BusyError(
                "the process is about to stop", retry_after_ms=DRAIN_RETRY_MS, reason="DRAINING"
            )


def _nothing() -> None:
    return


def add_messaging_servicer(servicer: Messaging, server: grpc.aio.Server) -> None:
    """Add the service; the frames of Send are bytes already, where the generated code would
    serialise. Of handlers for a method the one that was registered last serves it."""
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        servicer.Send,
        request_deserializer=messaging_pb2.SendRequest.FromString,
        response_serializer=None,
    )
    methods: dict[str, Any] = {"Send": handler}
    messaging_pb2_grpc.add_MessagingServicer_to_server(servicer, server)
    server.add_registered_method_handlers(_SERVICE, methods)


def _error_of(refused: errors_pb2.Refusal) -> MessageRefused:
    reason = errors_pb2.ErrorReason.Name(refused.reason).removeprefix(_REASON_PREFIX)
    where = {"field": refused.field, "limit": refused.limit} if refused.field else {}
    retry_ms = refused.retry_after.ToMilliseconds() if refused.HasField("retry_after") else None
    return MessageRefused(refused.detail, reason=reason, retry_after_ms=retry_ms, **where)
