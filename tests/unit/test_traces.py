"""Which messages are traced, and what their spans hold."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from letterlockd.app import exporting
from letterlockd.app.exporting import TracesFault, open_traces
from letterlockd.clock import SystemClock
from letterlockd.model.ids import new_message_id
from letterlockd.settings import Settings, TracesSection
from letterlockd.traces import Span, Traces

from tests.harness.clock import FakeClock

IDS = [new_message_id(1_800_000_000_000, os.urandom) for _ in range(2_000)]


def traces(share: float, clock: FakeClock | None = None) -> tuple[Traces, list[Span]]:
    spans: list[Span] = []
    return Traces(spans.append, share, clock or FakeClock()), spans


def test_two_roles_trace_the_same_messages_and_about_the_share() -> None:
    (here, ours), (there, theirs) = traces(0.25), traces(0.25)
    here.tell("a", IDS, 1, 2)
    there.tell("b", IDS, 3, 4)
    assert [span.message_id for span in ours] == [span.message_id for span in theirs]
    assert 350 < len(ours) < 650


def test_a_whole_share_traces_all() -> None:
    here, spans = traces(1)
    here.tell("a", IDS, 1, 2)
    assert spans == [Span("a", message_id, 1, 2) for message_id in IDS]


async def test_a_span_ends_once_and_only_if_it_began() -> None:
    clock = FakeClock()
    here, spans = traces(1, clock)
    here.end("submit", IDS[0])
    here.begin("submit", IDS[0])
    began = clock.now_ns()
    await clock.advance(5)
    here.begin("submit", IDS[0])
    here.end("delivery", IDS[0])
    here.end("submit", IDS[0])
    here.end("submit", IDS[0])
    assert spans == [Span("submit", IDS[0], began, began + 5_000_000)]


def test_spans_that_never_end_take_no_more_than_their_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("letterlockd.traces._MAX_OPEN", 10)
    here, spans = traces(1)
    for message_id in IDS[:11]:
        here.begin("delivery", message_id)
    for message_id in IDS[:11]:
        here.end("delivery", message_id)
    assert [span.message_id for span in spans] == IDS[1:11]


def settings(share: float, exporter: str = "console") -> Settings:
    chosen = TracesSection(share=share, exporter=exporter)
    return Settings.model_construct(data_folder=Path("nowhere"), traces=chosen)


async def test_without_a_share_nothing_is_made() -> None:
    async with AsyncExitStack() as opened:
        assert await open_traces("gateway", settings(0), SystemClock(), opened) is None


async def test_an_exporter_that_is_not_installed_is_named() -> None:
    async with AsyncExitStack() as opened:
        with pytest.raises(TracesFault, match="no exporter carrier_pigeon is installed"):
            await open_traces("gateway", settings(1, "carrier_pigeon"), SystemClock(), opened)


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    async with AsyncExitStack() as opened:
        with pytest.raises(TracesFault, match="install letterlock"):
            await open_traces("gateway", settings(1), SystemClock(), opened)


async def test_what_was_told_is_exported_before_the_role_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    monkeypatch.setattr(InMemorySpanExporter, "__new__", lambda cls: exporter)
    group = "opentelemetry_traces_exporter"
    place = "opentelemetry.sdk.trace.export.in_memory_span_exporter:InMemorySpanExporter"
    found = EntryPoints([EntryPoint("memory", place, group)])
    monkeypatch.setattr(exporting, "entry_points", lambda **wanted: found.select(**wanted))
    async with AsyncExitStack() as opened:
        made = await open_traces("relay", settings(1, "memory"), SystemClock(), opened)
        assert made is not None
        made.tell("relay commit", IDS[:1], 1, 2)
    (span,) = exporter.get_finished_spans()
    assert span.name == "relay commit"
    assert span.resource.attributes["service.name"] == "letterlock-relay"
