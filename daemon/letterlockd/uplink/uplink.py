"""The Connect stream to the relay, kept up: open, pump both ways, and after a loss again.

    connect ──▶ opened ──▶ pump ──▶ lost ──▶ wait (backoff) ──▶ connect
                             │ writer: acks and submissions, as `Flight` says
                             └ reader: results, deliveries ──▶ Traffic

Nothing is lost with a stream: unanswered submissions go out again (the relay knows them by their
message id), and items that were not acknowledged come again. The reader hands over without
waiting; what is open is bounded by the window towards us and by `Flight`'s owner from us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

import grpc
import grpc.aio
from letterlock.relay.v1 import mailbox_pb2 as wire

from letterlockd.errors import BusyError
from letterlockd.model.histogram import Histogram
from letterlockd.model.varint import varint
from letterlockd.store.history import WentBack
from letterlockd.uplink.backoff import Backoff
from letterlockd.uplink.calls import RelayCalls, RelayUnavailable
from letterlockd.uplink.flight import Answered, Flight
from letterlockd.uplink.past import Past
from letterlockd.uplink.reach import Reach

__all__ = ["Traffic", "Uplink"]

_CONNECT = "/letterlock.relay.v1.Mailbox/Connect"
_OPEN_SECONDS = 10.0
_MAX_MARK_BYTES = 64
_POSITION_TAG = b"\x20"  # ConnectRequest.store_position: field 4, varint

T = TypeVar("T", bound=Hashable)


class Traffic(Protocol[T]):
    """What the gateway does with what comes from the relay. No method may block."""

    def answered(self, answers: Sequence[Answered[T]]) -> None:
        """The relay answered submissions."""
        ...

    def delivered(self, items: Sequence[wire.Item], epoch: int) -> None:
        """Items came on stream number `epoch`; `Uplink.acknowledge` them when they are safe."""
        ...

    def lost(self) -> None:
        """The stream ended; what was not answered is in `Uplink.flight` again, not yet said."""
        ...


class Uplink(Generic[T]):
    """One gateway's connection to its relay. `run` keeps it until cancelled. `address` is what log
    lines call the relay."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        credential: str,
        *,
        window: int,
        fraction: Callable[[], float],
        past: Past,
        address: str = "",
    ) -> None:
        self.calls = RelayCalls(channel, credential)
        self.flight: Flight[T] = Flight()
        # Requests are bytes already: the generated stub would serialise.
        self._connect: grpc.aio.StreamStreamMultiCallable[bytes, wire.ConnectResponse] = (
            channel.stream_stream(_CONNECT, response_deserializer=wire.ConnectResponse.FromString)
        )
        self._metadata = (("authorization", f"Bearer {credential}"),)
        self._window = window
        self._past = past
        self._backoff = Backoff(fraction)
        self._reach = Reach(address)
        self._something_to_say = asyncio.Event()
        self._mark = b""
        self._new_mark = asyncio.Event()
        self._epoch = 0
        self._connected = False
        self.proofs = 0
        """How often the relay has said that messages move there."""
        self.round_trips = Histogram()
        """From a submission to its answer: one at a time, not each."""
        self._timed: tuple[tuple[bytes, bytes], float] | None = None

    @property
    def connected(self) -> bool:
        """Whether a stream is open now."""
        return self._connected

    async def prove(self) -> None:
        """Have a stream, and the relay's word. Raises `RelayUnavailable`."""
        if not self._connected:
            raise RelayUnavailable
        await self.calls.prove()
        self.proofs += 1

    def offer(self, tag: T, account: bytes, message_id: bytes, submission: bytes) -> None:
        """Submit this serialised Submission, on this stream or a later one."""
        self.flight.offer(tag, account, message_id, submission)
        self._something_to_say.set()

    def acknowledge(self, item_ids: Sequence[int], epoch: int, failed: Sequence[int] = ()) -> None:
        """Acknowledge items, and those that were not decrypted. Items of an earlier stream come
        again and are known then."""
        if epoch == self._epoch and self._connected:
            self.flight.acknowledge(item_ids, failed)
            self._something_to_say.set()

    async def run(self, traffic: Traffic[T]) -> None:
        """Connect again and again, until cancelled. Raises `WentBack`, and what the store raises
        that the past is kept in."""
        while True:
            try:
                await self._stream(traffic)
            except (grpc.aio.AioRpcError, _StreamEnded, TimeoutError) as error:
                tell = self._reach.lost if self._connected else self._reach.failed
                tell(error)
            finally:
                self._connected = False
                self.flight.lost()
                self._timed = None
            traffic.lost()
            await asyncio.sleep(self._backoff.next_seconds())

    async def _stream(self, traffic: Traffic[T]) -> None:
        call = self._connect(metadata=self._metadata)
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                opening = wire.ConnectRequest(
                    open=wire.Open(
                        window=self._window,
                        store_generation=self._past.generation,
                        store_position=self._past.opened_at,
                        store_mark=self._past.mark,
                    )
                )
                await _say(call, opening.SerializeToString())
                first = await self._read(call)
            if first.WhichOneof("frame") != "opened":
                raise _StreamEnded("the relay did not open the stream")
            await self._compare(first.opened)
            self._epoch += 1
            self._connected = True
            self._backoff.succeeded()
            self._reach.reached()
            await self._pump(call, traffic)
        finally:
            call.cancel()

    async def _compare(self, opened: wire.Opened) -> None:
        if not opened.HasField("newer_generation"):
            await self._past.agreed()
            return
        try:
            await self._past.went_back(opened.newer_generation)
        except BusyError as error:  # a full disk: nothing is sent before it is noted
            raise _StreamEnded("the store is older than the relay knows") from error
        raise WentBack(
            "the relay knows a newer state of this gateway's store: it was copied back, and is "
            "treated as restored from the next start on"
        )

    async def _pump(self, call: _Call, traffic: Traffic[T]) -> None:
        work = (self._write(call), self._receive(call, traffic), self._keep_marks())
        tasks = {asyncio.create_task(each) for each in work}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_marks(self) -> None:
        while True:
            await self._new_mark.wait()
            self._new_mark.clear()
            await self._past.keep_mark(self._mark)

    async def _write(self, call: _Call) -> None:
        while True:
            self._something_to_say.clear()
            before = self.flight.newest
            while (frame := self.flight.next_frame()) is not None:
                if self._timed is None and (newest := self.flight.newest) not in (None, before):
                    self._timed = newest, asyncio.get_running_loop().time()
                # Fields may be concatenated. The position covers all that the frame releases.
                await _say(call, frame + _POSITION_TAG + varint(self._past.position))
            await self._something_to_say.wait()

    async def _receive(self, call: _Call, traffic: Traffic[T]) -> None:
        while True:
            frame = await self._read(call)
            kind = frame.WhichOneof("frame")
            if kind == "results":
                answers = self.flight.answered(frame.results)
                self._time()
                traffic.answered(answers)
            elif kind == "deliveries":
                traffic.delivered(frame.deliveries.items, self._epoch)

    def _time(self) -> None:
        if self._timed is not None and not self.flight.awaits(self._timed[0]):
            self.round_trips.observe(asyncio.get_running_loop().time() - self._timed[1])
            self._timed = None

    async def _read(self, call: _Call) -> wire.ConnectResponse:
        frame = await call.read()
        if not isinstance(frame, wire.ConnectResponse):
            raise _StreamEnded("the relay ended the stream")
        if 0 < len(frame.store_mark) <= _MAX_MARK_BYTES:
            self._mark = frame.store_mark
            self._new_mark.set()
        return frame


_Call = grpc.aio.StreamStreamCall[bytes, wire.ConnectResponse]


class _StreamEnded(Exception):
    """The relay ended the stream in good order, or broke its rules."""


async def _say(call: _Call, frame: bytes) -> None:
    try:
        await call.write(frame)
    except asyncio.InvalidStateError:  # how grpc.aio says that the call has ended
        await call.read()  # raises what it ended with, if that was a fault
        raise _StreamEnded("the relay ended the stream") from None
