"""Every limit of the contract, from both sides."""

import pytest
from google.protobuf.duration_pb2 import Duration
from letterlock.content.v1 import content_pb2
from letterlock.v1 import errors_pb2, messaging_pb2
from letterlockd import limits
from letterlockd.errors import InvalidField
from letterlockd.rpc import validate

from tests.harness.messaging import text, text_message

RETENTION_MS = 3_600_000
SECRET = "a secret word"
ID = b"i" * 16


def receipt(*ids: bytes) -> content_pb2.Content:
    return content_pb2.Content(read_receipt=content_pb2.ReadReceipt(message_ids=ids))


def reaction(emoji: str, message_id: bytes = ID) -> content_pb2.Content:
    return content_pb2.Content(reaction=content_pb2.Reaction(message_id=message_id, emoji=emoji))


def message(**fields: object) -> messaging_pb2.OutgoingMessage:
    good = {
        "idempotency_key": "key",
        "phone_number": "+4915112345678",
        "content": text("hello"),
    }
    return messaging_pb2.OutgoingMessage(**{**good, **fields})  # type: ignore[arg-type]


GOOD = [
    message(),
    message(idempotency_key="k"),
    message(idempotency_key="~" * 64),
    message(idempotency_key="with space"),
    message(phone_number=None, user_id="0123456789abcdef" * 2),
    message(content=text("x" * 16_384)),
    message(content=text("é" * 8_192)),
    message(content=receipt(*[ID] * 100)),
    message(content=reaction("👍")),
    message(content=reaction("x" * 64)),
    message(content=content_pb2.Content(typing=content_pb2.Typing())),
    message(time_to_live=Duration(seconds=1)),
    message(time_to_live=Duration(seconds=3_600)),
    message(caller_tag=b"t" * 128),
]

BAD = [
    (message(idempotency_key=""), "idempotency_key", "INVALID_FIELD"),
    (message(idempotency_key="k" * 65), "idempotency_key", "INVALID_FIELD"),
    (message(idempotency_key="käse"), "idempotency_key", "INVALID_FIELD"),
    (message(idempotency_key="a\nb"), "idempotency_key", "INVALID_FIELD"),
    (message(phone_number=None), "recipient", "INVALID_FIELD"),
    (message(phone_number="015112345678"), "phone_number", "INVALID_PHONE_NUMBER"),
    (message(phone_number="+49 151 12345678"), "phone_number", "INVALID_PHONE_NUMBER"),
    (message(phone_number=None, user_id="A" * 32), "user_id", "INVALID_FIELD"),
    (message(phone_number=None, user_id="a" * 31), "user_id", "INVALID_FIELD"),
    (message(phone_number=None, user_id="a" * 15 + "-" + "a" * 16), "user_id", "INVALID_FIELD"),
    (message(content=None), "content", "INVALID_FIELD"),
    (message(content=text("")), "content.text.body", "INVALID_FIELD"),
    (message(content=text("x" * 16_385)), "content.text.body", "TOO_LARGE"),
    (message(content=text("é" * 8_193)), "content.text.body", "TOO_LARGE"),
    (message(content=receipt()), "content.read_receipt.message_ids", "INVALID_FIELD"),
    (message(content=receipt(*[ID] * 101)), "content.read_receipt.message_ids", "INVALID_FIELD"),
    (message(content=receipt(ID, b"x")), "content.read_receipt.message_ids", "INVALID_FIELD"),
    (message(content=reaction("")), "content.reaction.emoji", "INVALID_FIELD"),
    (message(content=reaction("é" * 33)), "content.reaction.emoji", "INVALID_FIELD"),
    (message(content=reaction("x", b"")), "content.reaction.message_id", "INVALID_FIELD"),
    (
        message(content=content_pb2.Content(media=content_pb2.Media())),
        "content.media",
        "UNSUPPORTED_CONTENT",
    ),
    (message(time_to_live=Duration()), "time_to_live", "INVALID_FIELD"),
    (message(time_to_live=Duration(nanos=999_999_999)), "time_to_live", "INVALID_FIELD"),
    (message(time_to_live=Duration(seconds=3_601)), "time_to_live", "INVALID_FIELD"),
    (message(time_to_live=Duration(seconds=5, nanos=-1)), "time_to_live", "INVALID_FIELD"),
    (message(time_to_live=Duration(seconds=1 << 62)), "time_to_live", "INVALID_FIELD"),
    (message(caller_tag=b"t" * 129), "caller_tag", "TOO_LARGE"),
]


@pytest.mark.parametrize("good", GOOD)
def test_what_is_within_its_limits_passes(good: messaging_pb2.OutgoingMessage) -> None:
    validate.check_message(good, RETENTION_MS)


@pytest.mark.parametrize(("bad", "field", "reason"), BAD)
def test_what_is_past_a_limit_names_field_and_limit(
    bad: messaging_pb2.OutgoingMessage, field: str, reason: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        validate.check_message(bad, RETENTION_MS)
    assert (caught.value.field, caught.value.reason) == (field, reason)
    assert caught.value.limit
    assert bad.phone_number == "" or bad.phone_number not in str(caught.value)


def test_neighbours_of_bad_messages_keep_their_order() -> None:
    messages = [
        text_message("1"),
        text_message("2", "x" * 20_000),
        text_message("3"),
        text_message("4" * 1_000),
    ]
    valid, refused = validate.sort_messages(messages, RETENTION_MS)
    assert [one.idempotency_key for one in valid] == ["1", "3"]
    assert [one.refused.field for one in refused] == ["content.text.body", "idempotency_key"]
    assert refused[0].refused.reason == errors_pb2.ERROR_REASON_TOO_LARGE
    assert len(refused[1].idempotency_key) == limits.MAX_KEY_ECHO_CHARS


def test_a_refusal_never_repeats_what_was_sent() -> None:
    bad = text_message("k", SECRET * 2_000, phone_number="+4915112345678")
    _, (refused,) = validate.sort_messages([bad], RETENTION_MS)
    assert SECRET.encode() not in refused.SerializeToString()
    assert b"4915112345678" not in refused.SerializeToString()


def test_the_window_has_a_default_and_a_bound() -> None:
    opening = messaging_pb2.ReceiveOpen
    assert validate.check_receive_open(opening())[0] == limits.DEFAULT_WINDOW
    assert validate.check_receive_open(opening(window=limits.MAX_WINDOW))[0] == limits.MAX_WINDOW
    with pytest.raises(InvalidField):
        validate.check_receive_open(opening(window=limits.MAX_WINDOW + 1))
