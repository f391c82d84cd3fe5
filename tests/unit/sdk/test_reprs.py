"""No class that holds a secret, a number or content shows it."""

from __future__ import annotations

import pytest
from letterlock.business.client import BusinessClient
from letterlock.business.events import Event
from letterlock.business.outgoing import OutgoingMessage
from letterlock.cli.settings import Settings
from letterlock.content.v1 import content_pb2
from letterlock.device.device import Device
from letterlock.device.events import IncomingMessage
from letterlock.device.keys import make_keys
from letterlock.device.link import DeviceLink
from letterlock.device.outbox import Waiting
from letterlock.device.rows import Account
from letterlock.device.sessions import Opened
from letterlock.device.store import FileStore, MemoryStore
from letterlock.relay.v1 import mailbox_pb2
from letterlock.v1 import messaging_pb2
from tripleratchet import IdentityKeyPair

SECRET = "sesame"
RAW = SECRET.encode() + bytes(26)
PAYLOAD = content_pb2.Payload(content=content_pb2.Content(text=content_pb2.Text(body=SECRET)))
EVENT = messaging_pb2.Event(event_id="e")
EVENT.message.content.CopyFrom(PAYLOAD.content)

HOLDERS = [
    Account(RAW[:16].replace(b"sesame", b"public"), 1, 1, SECRET, SECRET, RAW),
    DeviceLink(SECRET, SECRET, RAW),
    Settings(given_token=SECRET, profile={"tokens": {"n": SECRET}}),
    OutgoingMessage(SECRET, SECRET, caller_tag=RAW),
    Event(EVENT, lambda _: None),
    IncomingMessage(b"", 1, PAYLOAD, lambda _: None, 1),
    Waiting(mailbox_pb2.Submission(message_id=RAW), RAW, None),
    Opened(RAW, False),
    make_keys(
        IdentityKeyPair.from_private(RAW),
        1,
        lambda count: (RAW * 3)[:count],
        signed=True,
        ec=1,
        kyber=1,
    ),
    BusinessClient("target", SECRET, number=SECRET, insecure=True),
    Device(SECRET, store=MemoryStore(), insecure=True),
    FileStore(SECRET, key=RAW),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: type(holder).__name__)
def test_nothing_shows(holder: object) -> None:
    assert SECRET not in repr(holder)
    assert SECRET not in str(holder)
