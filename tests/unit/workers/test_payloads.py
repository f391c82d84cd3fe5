from collections.abc import Callable

import pytest
from letterlock.content.padding import pad
from letterlock.content.v1 import content_pb2
from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers import payloads
from letterlockd.workers.payloads import BadPayload

ID = bytes(range(16))


def read_payload(plaintext: bytes) -> jobs_pb2.Decrypted:
    told = jobs_pb2.Decrypted()
    payloads.read_payload(plaintext, told)
    return told


def payload(**kind: object) -> content_pb2.Payload:
    content = content_pb2.Content(**kind)  # type: ignore[arg-type]
    made = content_pb2.Payload(message_id=ID, content=content)
    made.sent_time.FromMilliseconds(1_700_000_000_123)
    return made


def text(body: str = "x") -> content_pb2.Payload:
    return payload(text=content_pb2.Text(body=body))


def receipt(*ids: bytes) -> content_pb2.Payload:
    return payload(read_receipt=content_pb2.ReadReceipt(message_ids=ids))


def reaction(message_id: bytes, emoji: str) -> content_pb2.Payload:
    return payload(reaction=content_pb2.Reaction(message_id=message_id, emoji=emoji))


def test_a_message_tells_its_id_and_time_and_no_content() -> None:
    told = read_payload(pad(text("secret")))
    assert told == jobs_pb2.Decrypted(
        message_id=ID, kind=jobs_pb2.PAYLOAD_KIND_MESSAGE, sent_ms=1_700_000_000_123
    )


def test_a_read_receipt_tells_what_was_read() -> None:
    ids = [bytes([n]) * 16 for n in range(100)]
    told = read_payload(pad(receipt(*ids)))
    assert told.kind == jobs_pb2.PAYLOAD_KIND_READ_RECEIPT
    assert list(told.read_message_ids) == ids


@pytest.mark.parametrize("started", [True, False])
def test_a_typing_sign_tells_its_direction(started: bool) -> None:
    told = read_payload(pad(payload(typing=content_pb2.Typing(started=started))))
    assert told.kind == jobs_pb2.PAYLOAD_KIND_TYPING
    assert told.typing_started == started


def test_no_time_is_told_as_0() -> None:
    silent = text()
    silent.ClearField("sent_time")
    assert read_payload(silent.SerializeToString()).sent_ms == 0


@pytest.mark.parametrize(
    "made",
    [text("x" * 16_384), reaction(ID, "é" * 32), payload(media=content_pb2.Media(locator="x"))],
    ids=["longest text", "longest emoji", "media"],
)
def test_what_is_within_limits_is_a_message(made: content_pb2.Payload) -> None:
    told = read_payload(pad(made))
    assert told.kind == jobs_pb2.PAYLOAD_KIND_MESSAGE


def test_content_of_a_kind_from_the_future_is_a_message() -> None:
    future = text().SerializeToString()
    unknown = content_pb2.Payload(message_id=ID).SerializeToString() + b"\x1a\x04\xfa\x06\x01x"
    assert read_payload(unknown).kind == jobs_pb2.PAYLOAD_KIND_MESSAGE
    assert content_pb2.Payload.FromString(future).content.WhichOneof("kind") == "text"


def changed(change: Callable[[content_pb2.Payload], object]) -> bytes:
    made = text()
    change(made)
    return made.SerializeToString()


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\xff",
        pad(text())[:-1],
        changed(lambda made: made.ClearField("content")),
        changed(lambda made: made.ClearField("message_id")),
        changed(lambda made: setattr(made, "message_id", ID + b"x")),
        changed(lambda made: setattr(made.sent_time, "seconds", -1)),
        changed(lambda made: setattr(made.sent_time, "seconds", 2**62)),
        changed(lambda made: setattr(made.sent_time, "nanos", 1_000_000_000)),
        pad(text("")),
        pad(text("é" * 8_193)),
        pad(receipt()),
        pad(receipt(*[ID] * 101)),
        pad(receipt(ID, b"short")),
        pad(reaction(b"short", "x")),
        pad(reaction(ID, "")),
        pad(reaction(ID, "x" * 65)),
    ],
    ids=[
        "empty",
        "noise",
        "cut",
        "no content",
        "no id",
        "long id",
        "before 1970",
        "after 9999",
        "a second of nanos",
        "empty text",
        "text too long",
        "nothing read",
        "too much read",
        "read id of a wrong size",
        "reaction to a wrong id",
        "no emoji",
        "emoji too long",
    ],
)
def test_what_is_past_a_limit_is_bad(plaintext: bytes) -> None:
    with pytest.raises(BadPayload):
        read_payload(plaintext)
