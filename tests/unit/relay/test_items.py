from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from letterlock.relay.v1.mailbox_pb2 import (
    ConnectResponse,
    Deliveries,
    DeviceEnvelope,
    Envelope,
    Item,
    Resend,
    Submission,
    SubmissionResult,
    SubmissionResults,
)
from letterlockd.relay.items import envelope_item, results_frame
from letterlockd.relay.submissions import acceptance

ids = st.binary(min_size=16, max_size=16)
times_ms = st.integers(1, 4_000_000_000_000)


@given(
    item_id=st.integers(1, 2**63),
    envelope=st.builds(
        DeviceEnvelope,
        device_id=st.integers(1, 127),
        type=st.sampled_from([2, 3]),
        body=st.binary(min_size=1, max_size=20_000),
    ),
    message_id=ids,
    sender=ids,
    recipient=ids,
    times=st.tuples(times_ms, times_ms),
    number=st.sampled_from(["", "+15550100101"]),
    resend=st.none() | st.builds(Resend, message_id=ids, attempt=st.integers(1, 9)),
)
def test_an_item_says_what_the_message_would(
    item_id: int,
    envelope: DeviceEnvelope,
    message_id: bytes,
    sender: bytes,
    recipient: bytes,
    times: tuple[int, int],
    number: str,
    resend: Resend | None,
) -> None:
    accept_ms, expire_ms = times
    said = Envelope(
        message_id=message_id,
        sender_account_id=sender,
        sender_device_id=3,
        recipient_account_id=recipient,
        recipient_device_id=envelope.device_id,
        type=envelope.type,
        body=envelope.body,
        resend=resend,
    )
    said.accept_time.FromMilliseconds(accept_ms)
    said.expire_time.FromMilliseconds(expire_ms)
    stored, delivered = envelope_item(
        item_id,
        envelope,
        message_id=message_id,
        sender=sender,
        sender_device_id=3,
        recipient=recipient,
        accept_ms=accept_ms,
        expire_ms=expire_ms,
        sender_number=number,
        resend=resend,
    )
    expected = Deliveries(items=[Item(item_id=item_id, envelope=said)])
    assert Deliveries.FromString(stored) == expected
    expected.items[0].envelope.sender_phone_number = number
    assert Deliveries.FromString(delivered) == expected


def test_answers_are_the_frame_that_protocol_buffers_would_make() -> None:
    sent = [
        Submission(message_id=bytes([place]) * 16, sender_account_id=sender)
        for place, sender in enumerate([b"", b"s" * 16, b""])
    ]
    refused = SubmissionResult(message_id=b"r" * 16)
    refused.refused.detail = "x" * 300
    accepted = [acceptance(one.message_id, one.sender_account_id) for one in sent]
    results = [SubmissionResult.FromString(one) for one in accepted]
    assert [(one.message_id, one.sender_account_id) for one in results] == [
        (one.message_id, one.sender_account_id) for one in sent
    ]
    frame = ConnectResponse(results=SubmissionResults(results=[*results, refused]))
    made = results_frame([*accepted, refused.SerializeToString()])
    assert made == frame.SerializeToString()
