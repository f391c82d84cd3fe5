from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from letterlock.relay.v1.mailbox_pb2 import (
    ConnectResponse,
    Deliveries,
    DeviceEnvelope,
    Envelope,
    Item,
    Receipt,
    Resend,
    Submission,
    SubmissionResult,
    SubmissionResults,
)
from letterlockd.records.v1.relay_pb2 import ReceiptDebt, StoredItem
from letterlockd.relay.items import (
    Debt,
    envelope_item,
    read_row,
    receipt,
    receipts_item,
    results_frame,
    write_row,
)
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


debts = st.builds(
    Debt, st.integers(1, 2**63), message_id=ids, sender=ids, recipient=ids, shared=st.booleans()
)


@given(debt=st.none() | debts, delivery=st.binary(max_size=5_000), recipient=st.just(b"") | ids)
def test_a_row_is_the_message_that_its_record_says(
    debt: Debt | None, delivery: bytes, recipient: bytes
) -> None:
    said = StoredItem(delivery=delivery, recipient=recipient)
    if debt is not None:
        said.debt.CopyFrom(ReceiptDebt(**debt._asdict()))
    row = write_row(delivery, debt, recipient)
    assert StoredItem.FromString(row) == said
    assert read_row(row) == (delivery, debt, recipient)


@given(
    item_id=st.integers(1, 2**63),
    given_debts=st.lists(debts, min_size=1, max_size=5),
    kind=st.sampled_from([Receipt.KIND_DELIVERED, Receipt.KIND_EXPIRED, Receipt.KIND_GONE]),
    device_id=st.integers(0, 127),
    now_ms=times_ms,
)
def test_receipts_say_what_the_messages_would(
    item_id: int, given_debts: list[Debt], kind: Any, device_id: int, now_ms: int
) -> None:
    expected = Deliveries(items=[Item(item_id=item_id)])
    for debt in given_debts:
        one = expected.items[0].receipts.receipts.add(kind=kind, device_id=device_id)
        one.message_id, one.sender_account_id = debt.message_id, debt.sender
        one.recipient_account_id = debt.recipient
        one.receipt_time.FromMilliseconds(now_ms)
    made = [receipt(debt, kind, device_id, now_ms) for debt in given_debts]
    assert Deliveries.FromString(receipts_item(item_id, made)) == expected
