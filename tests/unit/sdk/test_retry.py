"""When the SDK tries again, and what it makes of statuses and refusals."""

from __future__ import annotations

import inspect

import grpc
import grpc.aio
import pytest
from letterlock import errors
from letterlock.channel import bearer, open_channel
from letterlock.errors import Busy, Forbidden, InvalidRequest, ServerError, Unavailable
from letterlock.faults import from_refusal, from_rpc
from letterlock.retry import SERVER_ERROR_ATTEMPTS, Backoff, RetryPolicy
from letterlock.v1 import errors_pb2


def test_waits_grow_up_to_a_bound_and_start_again_after_progress() -> None:
    backoff = Backoff(RetryPolicy(first=1, most=5, factor=2), lambda: 1.0)
    lost = Unavailable("lost")
    assert [backoff.after(lost) for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.succeeded()
    assert backoff.after(lost) == 1


def test_jitter_covers_the_whole_wait() -> None:
    assert Backoff(RetryPolicy(first=1), lambda: 0.0).after(Unavailable("lost")) == 0
    assert Backoff(RetryPolicy(first=1), lambda: 0.25).after(Unavailable("lost")) == 0.25


def test_the_bound_does_not_overflow_after_years() -> None:
    assert RetryPolicy().bound(1_000_000) == 10.0


def test_a_named_time_is_the_least_that_is_waited() -> None:
    backoff = Backoff(RetryPolicy(first=1), lambda: 0.5)
    assert backoff.after(Busy("full", retry_after=3)) == 3.5


def test_attempts_run_out() -> None:
    backoff = Backoff(RetryPolicy(attempts=2), lambda: 0.0)
    backoff.after(Unavailable("lost"))
    with pytest.raises(Unavailable):
        backoff.after(Unavailable("lost"))


def test_a_bug_on_the_other_side_is_not_met_for_ever() -> None:
    backoff = Backoff(RetryPolicy(), lambda: 0.0)
    for _ in range(SERVER_ERROR_ATTEMPTS - 1):
        backoff.after(ServerError("bug"))
    with pytest.raises(ServerError):
        backoff.after(ServerError("bug"))


@pytest.mark.parametrize("error", [InvalidRequest("x"), Forbidden("x"), errors.Replaced("x")])
def test_what_will_be_refused_again_is_not_repeated(error: errors.LetterlockError) -> None:
    with pytest.raises(type(error)):
        Backoff(RetryPolicy(), lambda: 0.0).after(error)


@pytest.mark.parametrize("reason", errors_pb2.ErrorReason.values()[1:])
def test_every_reason_has_its_class(reason: errors_pb2.ErrorReason.ValueType) -> None:
    error = from_refusal(errors_pb2.Refusal(reason=reason, field="f", limit="l"))
    assert type(error) is not errors.LetterlockError
    assert f"ERROR_REASON_{error.reason}" == errors_pb2.ErrorReason.Name(reason)
    assert (error.field, error.limit, error.retry_after) == ("f", "l", None)


def test_a_reason_of_a_newer_server_is_kept() -> None:
    error = from_refusal(errors_pb2.Refusal(reason=999))  # type: ignore[arg-type]
    assert type(error) is errors.LetterlockError
    assert error.reason == "999"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.INTERNAL, Unavailable),
        (grpc.StatusCode.CANCELLED, Unavailable),
        (grpc.StatusCode.UNKNOWN, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.UNIMPLEMENTED, ServerError),
    ],
)
def test_a_status_without_our_details_is_the_connections_doing(
    code: grpc.StatusCode, kind: type[errors.LetterlockError]
) -> None:
    made = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "cut")
    error = from_rpc(made)
    assert type(error) is kind
    assert error.reason == code.name


def test_the_tree_is_exported_and_drawn() -> None:
    assert errors.__doc__ is not None
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.LetterlockError):
            assert name in errors.__all__
            assert name in errors.__doc__


def test_an_error_reads_as_one_line() -> None:
    error = InvalidRequest("too long", field="text", limit="7 bytes")
    assert str(error) == "INVALID_FIELD: too long (text: 7 bytes)"
    told = InvalidRequest("text: 7 bytes", field="text", limit="7 bytes")
    assert str(told) == "INVALID_FIELD: text: 7 bytes"


async def test_plaintext_is_only_by_request_and_never_with_a_ca(tmp_path) -> None:
    with pytest.raises(InvalidRequest, match="insecure"):
        open_channel("localhost:1", ca=tmp_path / "ca.pem", insecure=True)
    with pytest.raises(InvalidRequest, match="PEM"):
        open_channel("localhost:1", ca=tmp_path / "missing.pem")


@pytest.mark.parametrize(
    "target", ["", "nonsense", "host:", ":1", "host:0", "host:65536", "host:http"]
)
def test_an_address_names_its_port(target: str) -> None:
    with pytest.raises(InvalidRequest, match="host:port") as failed:
        open_channel(target, insecure=True)
    assert failed.value.field == "target"


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\x00"])
def test_an_authority_is_a_pem_file(tmp_path, content: bytes) -> None:
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(InvalidRequest) as failed:
        open_channel("localhost:1", ca=tmp_path / "ca.pem")
    assert (failed.value.field, failed.value.limit) == ("ca", "a PEM file")


@pytest.mark.parametrize("token", ["", "two\nlines", "nö"])
def test_unusable_tokens(token: str) -> None:
    with pytest.raises(InvalidRequest, match="token"):
        bearer(token)
