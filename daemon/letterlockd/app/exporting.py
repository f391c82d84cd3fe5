"""Hands spans to OpenTelemetry, whose packages come with the extra `otel`.

    Span ──▶ ReadableSpan ──▶ batch ──▶ exporter of the name in `traces.exporter`

The exporter is found as OpenTelemetry's own programs find it, by entry point, and takes its address
and headers from the OTEL_EXPORTER_… environment variables. Nothing here runs unless messages are
traced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from letterlockd.clock import Clock
from letterlockd.errors import EnvironmentFault
from letterlockd.settings import Settings
from letterlockd.traces import MESSAGE, Span, Traces

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

__all__ = ["TracesFault", "open_traces", "to_processor"]


class TracesFault(EnvironmentFault):
    """Messages are to be traced, and the means for it are not installed."""

    reason = "TRACES_UNAVAILABLE"


async def open_traces(
    role: str, settings: Settings, clock: Clock, opened: AsyncExitStack
) -> Traces | None:
    """The role's traces; None when none are wanted. Raises `TracesFault`."""
    if settings.traces.share == 0:
        return None
    try:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise TracesFault("traces.share is set: install letterlock[daemon,otel]") from None
    found = entry_points(group="opentelemetry_traces_exporter", name=settings.traces.exporter)
    if not found:
        raise TracesFault(
            f"traces.exporter: no exporter {settings.traces.exporter} is installed; "
            "otlp comes with opentelemetry-exporter-otlp"
        )
    processor = BatchSpanProcessor(next(iter(found)).load()())
    opened.push_async_callback(asyncio.to_thread, processor.shutdown)
    return Traces(to_processor(processor, role), settings.traces.share, clock)


def to_processor(processor: SpanProcessor, role: str) -> Callable[[Span], None]:
    """What gives `processor` each span, as the service letterlock-<role>."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.trace import SpanContext, TraceFlags

    resource = Resource({SERVICE_NAME: f"letterlock-{role}"})
    sampled = TraceFlags(TraceFlags.SAMPLED)
    draw = RandomIdGenerator().generate_span_id

    def export(span: Span) -> None:
        trace_id = int.from_bytes(span.message_id, "big")
        # The whole's id follows from the message's: every part knows it, whoever tells the whole.
        whole = SpanContext(trace_id, int.from_bytes(span.message_id[-8:], "big"), True, sampled)
        is_whole = span.name == MESSAGE
        processor.on_end(
            ReadableSpan(
                span.name,
                whole if is_whole else SpanContext(trace_id, draw(), False, sampled),
                None if is_whole else whole,
                resource,
                start_time=span.begin_ns,
                end_time=span.end_ns,
            )
        )

    return export
