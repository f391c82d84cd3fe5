"""The client of a business backend: sends and receives the messages of one business number.

Joins the channel, the token and the streams; the streams' logic is in sending.py, receiving.py and
their drivers. Knows nothing of encryption: that is the gateway's work.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Unpack
from uuid import uuid4
from weakref import WeakSet

from letterlock.business.events import MAX_SECONDS
from letterlock.business.gateway import GatewayClient, GatewayOptions
from letterlock.business.inbox import BusinessInbox
from letterlock.business.outgoing import OutgoingMessage, name_user, new_idempotency_key
from letterlock.business.receive_stream import ReceiveStream
from letterlock.business.send_stream import Messages, SendStream
from letterlock.content.v1 import content_pb2
from letterlock.durations import check_seconds, set_seconds
from letterlock.errors import InvalidRequest
from letterlock.retry import Backoff
from letterlock.v1 import (
    identities_pb2,
    identities_pb2_grpc,
    messaging_pb2,
    messaging_pb2_grpc,
    receiving_pb2_grpc,
)

DEFAULT_WINDOW = 1_000
MAX_WINDOW = 10_000
DEFAULT_HOLD = 3_600.0
"""An hour, then the gateway may give the event to others: its holder has probably lost it."""


class Start(IntEnum):
    """Where a Receive stream starts."""

    OLDEST = messaging_pb2.RECEIVE_START_OLDEST
    """With the oldest event that is not acknowledged."""
    NEW = messaging_pb2.RECEIVE_START_NEW
    """With events from now on. What comes while the stream is away waits for OLDEST."""


class BusinessClient(GatewayClient):
    """A business number at its gateway. Use it with `async with`.

    `token` is the business's bearer token; a single call is tried five times, or as often as
    `retry` says.
    """

    def __init__(
        self, target: str, token: str, *, number: str, **options: Unpack[GatewayOptions]
    ) -> None:
        super().__init__(target, token, **options)
        self._number = number
        self._streams: WeakSet[SendStream | ReceiveStream] = WeakSet()  # ended ones drop out

    async def aclose(self) -> None:
        """End every stream, then the connection."""
        for stream in list(self._streams):
            await stream.aclose()
        self._streams.clear()
        await super().aclose()

    async def send(
        self,
        *,
        to: str,
        text: str | None = None,
        content: content_pb2.Content | None = None,
        idempotency_key: str | None = None,
        time_to_live: float | None = None,
        caller_tag: bytes = b"",
    ) -> messaging_pb2.Accepted:
        """Send one message to a phone number (+...) or user id; returns once the gateway has it
        durably. Tried again under the same key where the outcome is unknown. Raises what the
        gateway refused it for.
        """
        key = new_idempotency_key() if idempotency_key is None else idempotency_key
        message = OutgoingMessage(to, text, content, key, time_to_live, caller_tag)
        request = messaging_pb2.SendMessageRequest(
            business_number=self._number, message=message.to_proto()
        )
        answer = await self._calls.repeated(self._stub.SendMessage, request)
        return answer.accepted

    def send_many(self, messages: Messages, *, window: int = DEFAULT_WINDOW) -> SendStream:
        """Send messages as they come from an iterable, sync or async; gives a SendResult for each.

        At most `window` messages are in hand. Lost streams are opened again without end, and what
        was not answered is sent again under the same keys. Raises InvalidRequest.
        """
        _check_window(window)
        stream = SendStream(
            lambda: self._stub.Send(metadata=self._calls.metadata),
            self._number,
            messages,
            window=window,
            backoff=self._backoff(),
            sleep=self._sleep,
        )
        self._streams.add(stream)
        return stream

    def receive(
        self,
        *,
        window: int = DEFAULT_WINDOW,
        window_bytes: int = 0,
        start: Start = Start.OLDEST,
        lease: float | None = None,
        hold: float = DEFAULT_HOLD,
        consumer: str | None = None,
    ) -> ReceiveStream:
        """Events of the number, shared with all others that receive for it; each is in the window
        until its `ack()` or `nack()`. Raises InvalidRequest.

        `window_bytes`: 0 is no bound. `lease` (1 to 600 s; not given: the gateway's): how long an
        event stays here without a sign of life; it is renewed for up to `hold` seconds while the
        event is in hand. `consumer`: a newer stream of the same name ends this one with Replaced;
        not given: a fresh name, so that only this stream's own reconnects take its place.
        """
        _check_window(window)
        check_seconds(hold, field="hold", least=0, most=math.inf)
        opening = messaging_pb2.ReceiveOpen(
            business_number=self._number,
            window=window,
            window_bytes=window_bytes,
            start=start.value,
            consumer=uuid4().hex if consumer is None else consumer,
        )
        if lease is not None:
            set_seconds(opening.lease, lease, field="lease", least=1, most=MAX_SECONDS)
        stream = ReceiveStream(
            lambda: self._stub.Receive(metadata=self._calls.metadata),
            opening,
            hold=hold,
            backoff=self._backoff(),
            sleep=self._sleep,
        )
        self._streams.add(stream)
        return stream

    async def message(
        self, message_id: str | None = None, *, idempotency_key: str | None = None
    ) -> messaging_pb2.Message:
        """How far a sent message has come, by one of its two names. Raises NotFound."""
        if (message_id is None) == (idempotency_key is None):
            limit = "message_id or idempotency_key, one"
            raise InvalidRequest("which message?", field="key", limit=limit)
        request = messaging_pb2.GetMessageRequest(business_number=self._number)
        if message_id is not None:
            request.message_id = message_id
        elif idempotency_key is not None:
            request.idempotency_key = idempotency_key
        return await self._calls.repeated(self._stub.GetMessage, request)

    async def safety_number(self, user: str) -> identities_pb2.SafetyNumber:
        """The safety number with a user, by user id, or by phone number (+...) while there is a
        message with that number. Raises NotFound."""
        request = identities_pb2.GetSafetyNumberRequest(business_number=self._number)
        name_user(request, user)
        return await self._calls.repeated(self._identities.GetSafetyNumber, request)

    async def confirm_identity(
        self, user: str, *, digits: str | None = None, scanned: bytes | None = None
    ) -> identities_pb2.ConfirmIdentityResponse:
        """Let messages to a user go on whose identity key changed, after the safety number was
        checked with them: its 60 digits, or what was scanned from their device.

        Raises SafetyNumberMismatch when the key is not the one that was checked, and NotFound.
        """
        if (digits is None) == (scanned is None):
            raise InvalidRequest("what was checked?", field="checked", limit="digits or scanned")
        request = identities_pb2.ConfirmIdentityRequest(business_number=self._number)
        name_user(request, user)
        if digits is not None:
            request.digits = "".join(digits.split())
        elif scanned is not None:
            request.scanned = scanned
        return await self._calls.repeated(self._identities.ConfirmIdentity, request)

    @property
    def inbox(self) -> BusinessInbox:
        """Dead letters, replay, and how events are kept."""
        return BusinessInbox(
            receiving_pb2_grpc.ReceivingStub(self._connected), self._number, self._calls
        )

    @property
    def _stub(self) -> messaging_pb2_grpc.MessagingAsyncStub:
        return messaging_pb2_grpc.MessagingStub(self._connected)

    @property
    def _identities(self) -> identities_pb2_grpc.IdentitiesAsyncStub:
        return identities_pb2_grpc.IdentitiesStub(self._connected)

    def _backoff(self) -> Backoff:
        return Backoff(self._retry, self._jitter)


def _check_window(window: int) -> None:
    if not 1 <= window <= MAX_WINDOW:
        raise InvalidRequest("window", field="window", limit=f"1 to {MAX_WINDOW}")
