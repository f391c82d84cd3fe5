"""What happens around every call: bound, authentication, and the translation of errors.

One interceptor wraps each method's handler once, for all four kinds. Work is done per call, never
per message: the handler gets gRPC's own request iterator and writes to gRPC's own context. Knows
no servicer, no token format and no message.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol, TypeAlias

import grpc
import structlog

from letterlockd.errors import (
    BrokenInvariant,
    BusyError,
    EnvironmentFault,
    LetterlockError,
    Unauthenticated,
)
from letterlockd.rpc.caller import calling_as
from letterlockd.rpc.denials import Denials
from letterlockd.rpc.faults import leaves, to_status, unwrap
from letterlockd.tracebacks import frames_of

__all__ = ["Authenticator", "Gatekeeper", "Revocations"]

_log = structlog.get_logger(__name__)

BEARER_LIMIT = 512
"""Characters of a bearer token at most; longer ones are wrong without being looked at."""

_FULL_RETRY_MS = 1_000

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic in the stubs alone
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Authenticator(Protocol):
    """Turns a bearer token into the caller that it stands for."""

    async def authenticate(self, bearer: str) -> object:
        """The caller; `Unauthenticated` when the token is malformed, unknown or revoked."""
        ...


class Revocations(Protocol):
    """Tells when a caller's credential stops being good while a call is open."""

    def watch(self, caller: object, revoked: Callable[[], None]) -> Callable[[], None]:
        """Call `revoked` once when the credential is revoked (at once if it is already). Returns
        what ends the watch; to be called exactly once."""
        ...


class Gatekeeper(grpc.aio.ServerInterceptor):
    """Admits, authenticates, serves, and translates what is raised into rich statuses.

    `open_methods` need no token: full method names ("/package.Service/Method") or, with a slash at
    the end, all methods of a service. More than `max_calls` calls at a time are refused with
    QUEUE_FULL. An open call ends with UNAUTHENTICATED when its token is revoked.
    `denials` counts what was refused for want of a credential or a right.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        open_methods: Collection[str],
        max_calls: int,
        revocations: Revocations | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._open = frozenset(open_methods)
        self._max_calls = max_calls
        self._revocations = revocations
        self.denials = Denials()
        self._calls = 0
        self._wrapped: dict[str, _Handler] = {}  # bounded by the methods that the server has

    @property
    def calls(self) -> int:
        """Calls in flight."""
        return self._calls

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """The method's handler within its guard."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # no such method: gRPC answers UNIMPLEMENTED
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        kind, make = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
        serve = _unary_answer if not handler.response_streaming else _streamed_answer
        work = serve(getattr(handler, kind))

        async def guarded(request: Any, context: _Context) -> Any:
            return await self._guard(method, context, lambda: work(request, context))

        wrapped: _Handler = make(
            guarded,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return wrapped

    async def _guard(
        self, method: str, context: _Context, work: Callable[[], Awaitable[Any]]
    ) -> Any:
        try:
            with self._one_call():
                if self._is_open(method):
                    return await work()
                caller = await self._authenticator.authenticate(_bearer(context))
                async with self._while_in_force(caller):
                    with calling_as(caller):
                        return await work()
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            self.denials.note(method, error)  # also when the caller did not wait for the answer
            await _abort(method, context, error)

    def _is_open(self, method: str) -> bool:
        return method in self._open or f"{method.rpartition('/')[0]}/" in self._open

    @contextmanager
    def _one_call(self) -> Iterator[None]:
        if self._calls >= self._max_calls:
            raise BusyError("too many calls at a time", retry_after_ms=_FULL_RETRY_MS)
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    @asynccontextmanager
    async def _while_in_force(self, caller: object) -> AsyncIterator[None]:
        """Cancels the block when the caller's credential is revoked, and says so."""
        if self._revocations is None:
            yield
            return
        task = asyncio.current_task()
        if task is None:
            raise BrokenInvariant("a call is served outside of a task")
        revoked = False

        def cut() -> None:
            nonlocal revoked
            revoked = True
            task.cancel()

        unwatch = self._revocations.watch(caller, cut)
        try:
            yield
        except asyncio.CancelledError:
            if revoked and task.uncancel() == 0:
                raise Unauthenticated("the token was revoked") from None
            raise
        finally:
            unwatch()


_KINDS: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}

_Work = Callable[[Any, _Context], Awaitable[Any]]


def _unary_answer(handler: Callable[..., Any]) -> _Work:
    work: _Work = handler
    return work


def _streamed_answer(handler: Callable[..., Any]) -> _Work:
    """A coroutine for either style of handler: gRPC itself writes each item that an asynchronous
    generator gives to the context in just this way, so this costs nothing more.

    The initial metadata leave before all else. gRPC takes them for sent only when the first write
    is done: if that write is cancelled, because reading failed meanwhile, it sends them again with
    the status, the transport refuses, and the caller waits for a status until its deadline.
    """
    generates = inspect.isasyncgenfunction(handler)

    async def answered(request: Any, context: _Context) -> None:
        await context.send_initial_metadata(())
        if not generates:
            await handler(request, context)
            return
        async for response in handler(request, context):
            await context.write(response)

    return answered


def _bearer(context: _Context) -> str:
    """The token of `authorization: Bearer …`; `Unauthenticated` when there is none."""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and 0 < len(token) <= BEARER_LIMIT:
                return token
    raise Unauthenticated("metadata `authorization: Bearer <token>` is required")


def _is_of_the_connection(error: BaseException) -> bool:
    """What gRPC raises where nothing is wrong with our calling it: a read or write that failed."""
    return isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError)


async def _abort(method: str, context: _Context, error: Exception) -> None:
    """End the call with the status of `error`. Does not return normally."""
    if context.cancelled() or context.done():
        return  # the other side left: nobody to tell, and what failed is our writing to it
    if all(map(_is_of_the_connection, leaves(error))):
        # So it did here, or the server has stopped under the call: this may reach nobody either.
        with suppress(grpc.aio.InternalError):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
        return
    ours = unwrap(error)
    if ours is not None and not isinstance(ours, BrokenInvariant):
        if isinstance(ours, EnvironmentFault):  # the caller is told that the operator can see why
            _log.warning("environment_fault", method=method, reason=ours.reason, why=ours.message)
        await context.abort_with_status(to_status(ours))
    request_id = secrets.token_hex(8)
    # The exception's text stays out of the log: it may quote what it choked on.
    _log.error(
        "call_failed",
        method=method,
        request_id=request_id,
        error=type(error).__name__,
        frames=frames_of(error),
    )
    bug: LetterlockError = BrokenInvariant("unexpected exception")
    await context.abort_with_status(to_status(bug, request_id=request_id))
