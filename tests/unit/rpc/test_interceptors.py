"""The gatekeeper in a real server, over plain generic handlers of all four kinds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from letterlockd.errors import EnvironmentFault, Forbidden, InvalidField, Unauthenticated
from letterlockd.rpc.caller import current_caller
from letterlockd.rpc.interceptors import Gatekeeper

from tests.harness.channels import OWN_CONNECTION

SECRET = "the content of a message"


class Tokens:
    """Knows one token, and can revoke it."""

    def __init__(self) -> None:
        self.cuts: list[Callable[[], None]] = []

    async def authenticate(self, bearer: str) -> object:
        if bearer != "good":
            raise Unauthenticated("unknown token")
        return "alice"

    def watch(self, caller: object, revoked: Callable[[], None]) -> Callable[[], None]:
        self.cuts.append(revoked)
        return lambda: self.cuts.remove(revoked)


class Handlers:
    """One method of each kind and style; the request says what to do."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()

    async def unary(self, request: bytes, context: object) -> bytes:
        return await self._act(request)

    async def server_stream(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        yield b"one"
        yield await self._act(request)

    async def client_stream(self, requests: AsyncIterator[bytes], context: object) -> bytes:
        return b"".join([await self._act(request) async for request in requests])

    async def both(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        async for request in requests:
            await context.write(await self._act(request))

    async def _act(self, request: bytes) -> bytes:
        match request:
            case b"who":
                return str(current_caller()).encode()
            case b"bad":
                raise InvalidField("field", "limit")
            case b"group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._act(b"bad"))
            case b"forbidden":
                raise Forbidden("not for you")
            case b"disk":
                raise EnvironmentFault("the disk is gone")
            case b"broken" | b"stopped" | b"misused":
                async with asyncio.TaskGroup() as group:
                    group.create_task(_fails_in_grpc(request))
            case b"bug":
                raise ValueError(SECRET)
            case b"wait":
                self.entered.set()
                await self.release.wait()
        return request

    def generic(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test.Test",
            {
                "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
                "Open": grpc.unary_unary_rpc_method_handler(self.unary),
                "ServerStream": grpc.unary_stream_rpc_method_handler(self.server_stream),
                "ClientStream": grpc.stream_unary_rpc_method_handler(self.client_stream),
                "Both": grpc.stream_stream_rpc_method_handler(self.both),
            },
        )


class ServerStopped(grpc.aio.BaseError):
    """As gRPC's own, which it does not export."""


async def _fails_in_grpc(how: bytes) -> None:
    errors = {
        b"broken": grpc.aio.InternalError("Failed grpc_call_start_batch: 10"),
        b"stopped": ServerStopped("Server already stopped."),
        b"misused": grpc.aio.UsageError("Cannot read after the end"),
    }
    raise errors[how]


GOOD = (("authorization", "Bearer good"),)
KINDS = ["Unary", "ServerStream", "ClientStream", "Both"]


@asynccontextmanager
async def serving(tokens: Tokens, handlers: Handlers, max_calls: int = 10):
    gatekeeper = Gatekeeper(
        tokens, open_methods={"/test.Test/Open"}, max_calls=max_calls, revocations=tokens
    )
    server = grpc.aio.server(interceptors=[gatekeeper])
    server.add_generic_rpc_handlers((handlers.generic(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=OWN_CONNECTION
        ) as channel:
            yield channel, gatekeeper
    finally:
        handlers.release.set()
        await server.stop(None)


async def play(channel: grpc.aio.Channel, kind: str, request: bytes, metadata=GOOD) -> list[bytes]:
    async def requests() -> AsyncIterator[bytes]:
        yield request

    path = f"/test.Test/{kind}"
    match kind:
        case "ServerStream":
            return [r async for r in channel.unary_stream(path)(request, metadata=metadata)]
        case "ClientStream":
            return [await channel.stream_unary(path)(requests(), metadata=metadata)]
        case "Both":
            return [r async for r in channel.stream_stream(path)(requests(), metadata=metadata)]
    return [await channel.unary_unary(path)(request, metadata=metadata)]


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str]]:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason, dict(info.metadata)


@pytest.mark.parametrize("kind", KINDS)
async def test_handler_sees_its_caller(kind: str) -> None:
    async with serving(Tokens(), Handlers()) as (channel, gatekeeper):
        assert (await play(channel, kind, b"who"))[-1] == b"alice"
        assert gatekeeper.calls == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("request_", [b"bad", b"group"])
async def test_typed_error_becomes_a_rich_status(kind: str, request_: bytes) -> None:
    async with serving(Tokens(), Handlers()) as (channel, gatekeeper):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await play(channel, kind, request_)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(caught.value) == ("INVALID_FIELD", {"field": "field", "limit": "limit"})
        assert gatekeeper.calls == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bug_is_logged_without_its_text(kind: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(Tokens(), Handlers()) as (channel, _):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await play(channel, kind, b"bug")
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    reason, metadata = reason_of(caught.value)
    (entry,) = logs
    assert reason == "INTERNAL"
    assert entry["request_id"] == metadata["request_id"]
    assert (entry["error"], entry["log_level"]) == ("ValueError", "error")
    assert SECRET not in str(entry)
    assert SECRET not in str(caught.value)
    assert any("_act" in frame for frame in entry["frames"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [b"broken", b"stopped"])
async def test_a_connection_that_breaks_under_a_call_is_not_taken_for_a_bug(
    kind: str, how: bytes
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(Tokens(), Handlers()) as (channel, gatekeeper):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await play(channel, kind, how)
            assert gatekeeper.calls == 0
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert logs == []


async def test_a_misuse_of_grpc_is_a_bug() -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(Tokens(), Handlers()) as (channel, _):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await play(channel, "Both", b"misused")
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert [entry["event"] for entry in logs] == ["call_failed"]


async def test_a_fault_of_the_environment_is_in_the_log_for_the_operator() -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(Tokens(), Handlers()) as (channel, _):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await play(channel, "Unary", b"disk")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    (entry,) = logs
    assert (entry["log_level"], entry["why"]) == ("warning", "the disk is gone")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "good"),),
        (("authorization", "Basic good"),),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer wrong"),),
        (("authorization", "Bearer " + "x" * 600),),
    ],
)
async def test_without_a_good_token_nothing_is_served(kind: str, metadata: tuple) -> None:
    async with serving(Tokens(), Handlers()) as (channel, gatekeeper):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await play(channel, kind, b"who", metadata)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert reason_of(caught.value)[0] == "UNAUTHENTICATED"
        assert gatekeeper.denials.counters.unauthenticated == 1


@pytest.mark.parametrize(
    ("request_", "metadata", "event"),
    [
        (b"who", (("authorization", "Bearer guessed"),), "unauthenticated"),
        (b"forbidden", GOOD, "forbidden"),
    ],
)
async def test_a_denied_call_is_in_the_log_for_the_operator(
    request_: bytes, metadata: tuple, event: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(Tokens(), Handlers()) as (channel, gatekeeper):
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError):
                    await play(channel, "Unary", request_, metadata)
            assert await play(channel, "Unary", b"who") == [b"alice"]
            assert getattr(gatekeeper.denials.counters, event) == 3
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == (event, "warning")
    assert (entry["count"], entry["latest"]) == (1, "/test.Test/Unary")
    assert "guessed" not in str(entry)


async def test_an_open_method_needs_no_token_and_has_no_caller() -> None:
    with structlog.testing.capture_logs():
        async with serving(Tokens(), Handlers()) as (channel, _):
            assert await play(channel, "Open", b"x", ()) == [b"x"]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await play(channel, "Open", b"who", ())
            assert caught.value.code() == grpc.StatusCode.INTERNAL


async def test_more_calls_than_the_bound_are_refused_with_a_retry_time() -> None:
    handlers = Handlers()
    async with serving(Tokens(), handlers, max_calls=1) as (channel, _):
        first = asyncio.create_task(play(channel, "Both", b"wait"))
        await handlers.entered.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await play(channel, "Unary", b"x")
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(caught.value)[0] == "QUEUE_FULL"
        handlers.release.set()
        assert await first == [b"wait"]
        assert await play(channel, "Unary", b"x") == [b"x"]


@pytest.mark.parametrize("kind", KINDS)
async def test_revoking_the_token_ends_open_calls(kind: str) -> None:
    tokens, handlers = Tokens(), Handlers()
    async with serving(tokens, handlers) as (channel, gatekeeper):
        call = asyncio.create_task(play(channel, kind, b"wait"))
        await handlers.entered.wait()
        tokens.cuts[0]()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert (gatekeeper.calls, tokens.cuts) == (0, [])


async def test_a_deadline_stays_a_deadline() -> None:
    tokens, handlers = Tokens(), Handlers()
    with structlog.testing.capture_logs() as logs:
        async with serving(tokens, handlers) as (channel, _):
            call = channel.unary_unary("/test.Test/Unary")(b"wait", metadata=GOOD, timeout=0.2)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


async def test_unknown_methods_stay_unimplemented() -> None:
    async with serving(Tokens(), Handlers()) as (channel, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await play(channel, "Nothing", b"x")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
