"""One message's way through gateway, relay and device, as OpenTelemetry gets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from letterlock.v1 import messaging_pb2 as api
from letterlockd.app.exporting import to_processor
from letterlockd.clock import SystemClock
from letterlockd.traces import Span, Traces
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.harness.gateway import NUMBER, message, outbox_empty, reading, running_world

USER = "+15550100101"
TEXT = "where the treasure is"
PARTS = ["accept", "encrypt", "commit", "submit", "relay commit", "delivery", "receipt"]


def to_memory(memory: InMemorySpanExporter, role: str) -> Callable[[Span], None]:
    return to_processor(SimpleSpanProcessor(memory), role)


async def test_a_message_leaves_a_whole_trace_without_anything_of_it(tmp_path: Path) -> None:
    memory, clock = InMemorySpanExporter(), SystemClock()
    at = {role: Traces(to_memory(memory, role), 1, clock) for role in ("gateway", "relay")}
    async with (
        running_world(tmp_path, clock, relay_traces=at["relay"]) as world,
        world.gateway(traces=at["gateway"]) as gateway,
    ):
        business = await world.business(gateway)
        device = await world.device(USER)
        async with reading(device) as (reader,):
            (result,) = await business.send(message("key", to=USER, text=TEXT))
            await reader.texts(1)
            message_id = result.accepted.message_id
            await business.status(message_id, api.MESSAGE_STATUS_DELIVERED)
            await outbox_empty(gateway)
    spans = [s for s in memory.get_finished_spans() if f"{s.context.trace_id:032x}" == message_id]
    by_name = {span.name: span for span in spans}
    assert set(by_name) == {"message", *PARTS}
    assert len(spans) == len(by_name)
    assert by_name["message"].parent is None
    for part in PARTS:
        assert by_name[part].parent is not None
        assert by_name[part].parent.span_id == by_name["message"].context.span_id
    assert all(begins(span) <= ends(span) for span in spans)
    committed = [ends(by_name[part]) for part in ("commit", "relay commit", "receipt")]
    assert committed == sorted(committed)
    services = {name: span.resource.attributes["service.name"] for name, span in by_name.items()}
    assert {name for name in by_name if services[name] == "letterlock-relay"} == {
        "relay commit",
        "delivery",
    }
    assert all(not span.attributes and not span.events for span in spans)
    told = "".join(span.to_json() for span in memory.get_finished_spans())
    for secret in (TEXT, USER, USER[1:], NUMBER, NUMBER[1:]):
        assert secret not in told


async def test_untraced_messages_leave_nothing(tmp_path: Path) -> None:
    memory, clock = InMemorySpanExporter(), SystemClock()
    async with (
        running_world(tmp_path, clock) as world,
        world.gateway(traces=Traces(to_memory(memory, "gateway"), 1e-12, clock)) as gateway,
    ):
        business = await world.business(gateway)
        await world.device(USER)
        (result,) = await business.send(message("key", to=USER, text=TEXT))
        assert result.HasField("accepted")
    assert memory.get_finished_spans() == ()


def begins(span: ReadableSpan) -> int:
    assert span.start_time is not None
    return span.start_time


def ends(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time
