import importlib
import pkgutil

import grpc
import letterlockd
import pytest
from google.rpc import error_details_pb2, status_pb2
from letterlock.v1 import errors_pb2
from letterlockd import errors
from letterlockd.errors import BrokenInvariant, BusyError, EnvironmentFault, InvalidField
from letterlockd.rpc.faults import STATUS_OF_REASON, refusal, to_status, unwrap, wire_reason

ALLOWED_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


def tree(root: type[errors.LetterlockError]) -> list[type[errors.LetterlockError]]:
    """Every class below `root`, from every importable module of the daemon."""
    for module in pkgutil.walk_packages(letterlockd.__path__, "letterlockd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, todo = [], [root]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += kind.__subclasses__()
    return found


def details(
    status: grpc.Status,
) -> tuple[error_details_pb2.ErrorInfo, list[error_details_pb2.RetryInfo]]:
    ((_, packed),) = status.trailing_metadata
    rich = status_pb2.Status.FromString(packed)
    info = error_details_pb2.ErrorInfo()
    assert rich.details[0].Unpack(info)
    retries = []
    for extra in rich.details[1:]:
        retry = error_details_pb2.RetryInfo()
        assert extra.Unpack(retry)
        retries.append(retry)
    return info, retries


def test_table_has_every_reason_of_the_wire_and_no_other() -> None:
    names = {
        name.removeprefix("ERROR_REASON_")
        for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    assert STATUS_OF_REASON.keys() == names - {"UNSPECIFIED"}


def test_table_uses_only_the_documented_codes() -> None:
    assert set(STATUS_OF_REASON.values()) == ALLOWED_CODES


def test_every_class_of_the_tree_has_a_reason_on_the_wire() -> None:
    for kind in tree(errors.LetterlockError):
        error = Exception.__new__(kind)
        expected_bug = issubclass(kind, BrokenInvariant) or kind is errors.LetterlockError
        assert (wire_reason(error) == "INTERNAL") == expected_bug, kind


@pytest.mark.parametrize("reason", sorted(STATUS_OF_REASON))
def test_reason_reaches_status_and_refusal(reason: str) -> None:
    error = errors.LetterlockError("text", reason=reason)
    status = to_status(error)
    info, retries = details(status)
    assert (status.code, info.domain, info.reason) == (
        STATUS_OF_REASON[reason],
        "letterlock",
        reason,
    )
    assert retries == []
    answer = refusal(error)
    assert errors_pb2.ErrorReason.Name(answer.reason) == f"ERROR_REASON_{reason}"
    assert answer.scope == errors_pb2.REFUSAL_SCOPE_MESSAGE
    assert not answer.HasField("retry_after")


def test_bad_input_names_field_and_limit() -> None:
    error = InvalidField("content.text", "1 to 4,096 characters")
    info, _ = details(to_status(error))
    assert dict(info.metadata) == {"field": "content.text", "limit": "1 to 4,096 characters"}
    answer = refusal(error, errors_pb2.REFUSAL_SCOPE_RECIPIENT)
    assert (answer.field, answer.limit) == ("content.text", "1 to 4,096 characters")
    assert answer.scope == errors_pb2.REFUSAL_SCOPE_RECIPIENT


def test_retry_time_is_told_to_the_millisecond() -> None:
    error = BusyError("busy", retry_after_ms=1_250, reason="RATE_LIMITED")
    _, retries = details(to_status(error))
    assert retries[0].retry_delay.ToMilliseconds() == 1_250
    assert refusal(error).retry_after.ToMilliseconds() == 1_250


def test_a_bug_tells_only_its_request_id() -> None:
    status = to_status(BrokenInvariant("row of +491701234567"), request_id="abc")
    info, _ = details(status)
    assert (status.details, info.metadata["request_id"]) == ("internal error", "abc")
    assert refusal(BrokenInvariant("secret")).detail == "internal error"


def test_what_only_the_operator_may_see_is_hidden() -> None:
    error = EnvironmentFault("/srv/keys/gateway.key is unreadable", reason="KEY_UNREADABLE")
    status = to_status(error)
    assert status.code == grpc.StatusCode.UNAVAILABLE
    assert "/srv" not in str(status)


def test_a_group_of_ours_is_unwrapped_and_a_mixed_one_is_not() -> None:
    ours = InvalidField("a", "b")
    assert unwrap(ExceptionGroup("g", [ExceptionGroup("h", [ours])])) is ours
    assert unwrap(ExceptionGroup("g", [ours, ValueError()])) is None
    assert unwrap(ValueError()) is None
