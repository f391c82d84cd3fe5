"""Messages that are put together from their fields are what protobuf would have made of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from letterlock.content.padding import pad
from letterlock.content.v1 import content_pb2
from letterlock.relay.v1.mailbox_pb2 import DeviceEnvelope, Submission
from letterlockd.gateway.outgoing import submission
from letterlockd.gateway.payload import padded_payload
from letterlockd.model.ids import AccountId, MessageId

ids = st.binary(min_size=16, max_size=16)
times_ms = st.integers(1, 4_000_000_000_000)


@given(message_id=ids, now_ms=times_ms, text=st.text(min_size=1, max_size=600))
def test_payload(message_id: bytes, now_ms: int, text: str) -> None:
    content = content_pb2.Content(text=content_pb2.Text(body=text))
    payload = content_pb2.Payload(message_id=message_id, content=content)
    payload.sent_time.FromMilliseconds(now_ms)
    made = padded_payload(MessageId(message_id), now_ms, content.SerializeToString())
    assert made == pad(payload)


@given(
    message_id=ids,
    sender=ids,
    recipient=ids,
    expire_ms=times_ms,
    envelopes=st.lists(
        st.builds(DeviceEnvelope, device_id=st.integers(1, 127), body=st.binary(max_size=300)),
        max_size=6,
    ),
)
def test_submission(
    message_id: bytes,
    sender: bytes,
    recipient: bytes,
    expire_ms: int,
    envelopes: list[DeviceEnvelope],
) -> None:
    expected = Submission(
        message_id=message_id,
        sender_account_id=sender,
        recipient_account_id=recipient,
        receipt_wanted=True,
        envelopes=envelopes,
    )
    expected.expire_time.FromMilliseconds(expire_ms)
    parts = [envelope.SerializeToString() for envelope in envelopes]
    made = submission(
        MessageId(message_id), AccountId(sender), AccountId(recipient), expire_ms, parts
    )
    assert Submission.FromString(made) == expected
