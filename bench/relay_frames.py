"""Frames to the relay, put together as bytes: as the gateway does it, so that the load generator
takes no more of the machine than a peer's client. Knows no streams.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from letterlock.relay.v1.mailbox_pb2 import Acks, ConnectRequest, DeviceEnvelope, Submission
from letterlockd.model.varint import varint

from bench import hop
from tests.harness.relay import Peer

_SUBMISSIONS_TAG = bytes((ConnectRequest.SUBMISSIONS_FIELD_NUMBER << 3 | 2,))
_SUBMISSION_TAG = b"\x0a"  # Submissions.submissions: field 1, length-delimited
_ACKS_TAG = bytes((ConnectRequest.ACKS_FIELD_NUMBER << 3 | 2,))
_ITEM_IDS_TAG = bytes((Acks.ITEM_IDS_FIELD_NUMBER << 3 | 2,))
_MESSAGE_ID_TAG = b"\x0a\x10"  # Submission.message_id: field 1, 16 bytes
_CIPHERTEXT = 2


class Address:
    """A peer, with all that submissions to it have in common but their body, which ends them."""

    def __init__(self, peer: Peer) -> None:
        envelope = DeviceEnvelope(
            device_id=peer.device_id,
            registration_id=peer.registration_id,
            type=_CIPHERTEXT,
            body=bytes(hop.BODY_BYTES),
        )
        made = Submission(recipient_account_id=peer.account_id, envelopes=[envelope])
        self.head = made.SerializeToString()[: -hop.BODY_BYTES]


def terms(sender: bytes, expire_ms: int, *, receipt: bool) -> bytes:
    """What the submissions of a frame share."""
    shared = Submission(sender_account_id=sender, receipt_wanted=receipt)
    shared.expire_time.FromMilliseconds(expire_ms)
    return shared.SerializeToString()


def submissions(messages: Iterable[tuple[Address, int, bytes]]) -> bytes:
    """A serialised frame of messages: to whom, their numbers and their `terms`."""
    parts = []
    for to, number, shared in messages:
        body = hop.body(number)
        made = b"".join((_MESSAGE_ID_TAG, os.urandom(16), shared, to.head, body))
        parts += (_SUBMISSION_TAG, varint(len(made)), made)
    frame = b"".join(parts)
    return _SUBMISSIONS_TAG + varint(len(frame)) + frame


def acks(item_ids: Sequence[int]) -> bytes:
    """A serialised frame of acknowledgements."""
    packed = b"".join(map(varint, item_ids))
    said = _ITEM_IDS_TAG + varint(len(packed)) + packed
    return _ACKS_TAG + varint(len(said)) + said
