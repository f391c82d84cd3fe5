import asyncio
import dataclasses
import io
import json
import logging
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from letterlockd import telemetry
from letterlockd.gateway.counters import Counters as GatewayCounters
from letterlockd.registry import tokens
from letterlockd.relay.counters import Counters as RelayCounters
from letterlockd.telemetry import Counters, redact, set_up_logs, watch_loop

SECRET = "meet me at the harbour"

numbers = st.from_regex(r"\+[1-9][0-9]{7,14}", fullmatch=True)
prose = st.text(alphabet="abc xyz,;", max_size=20)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is written to standard error as JSON; the set-up is undone afterwards."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    root = logging.getLogger()
    before = (root.handlers, root.level, sys.excepthook)
    set_up_logs("test", level="info", style="json")
    yield out
    root.handlers, level, sys.excepthook = before
    root.setLevel(level)
    structlog.reset_defaults()


def entries(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


@given(prose, numbers, prose)
def test_no_phone_number_passes(before: str, number: str, after: str) -> None:
    for text in (f"{before} {number} {after}", f"'{number}'", number[1:]):
        assert number[1:] not in str(redact(text))
        assert number[1:] not in str(redact({"x": [(text,)]}))


@pytest.mark.parametrize("number", ["+49 30 901820", "+49-30-901820", "+1 (555) 0100-200"])
def test_grouped_numbers_are_masked(number: str) -> None:
    assert redact(f"call {number} now") == "call [redacted] now"


@given(st.binary(min_size=40, max_size=40), st.booleans())
def test_no_token_passes(seed: bytes, operator: bool) -> None:
    parts = iter([seed[:8], seed[8:]] if not operator else [seed[8:]])
    text, _ = tokens.mint(lambda _: next(parts), tokens.OPERATOR if operator else None)
    shown = str(redact(f"got Bearer {text}, refused"))
    assert text.rpartition(".")[2] not in shown
    assert shown.endswith(", refused")


@given(st.binary(max_size=200))
def test_bytes_show_their_size_alone(content: bytes) -> None:
    assert redact(content) == f"[{len(content)} bytes]"
    assert redact(memoryview(content)) == f"[{len(content)} bytes]"


@given(st.binary(min_size=32, max_size=64))
def test_keys_in_hex_or_base64_are_masked(key: bytes) -> None:
    assert key.hex() not in str(redact(f"key={key.hex()}"))


@pytest.mark.parametrize("name", ["token", "phone_number", "Content", "payload", "secret"])
def test_what_is_called_a_secret_is_dropped(name: str) -> None:
    assert redact({name: SECRET}) == {name: "[redacted]"}


@pytest.mark.parametrize(
    "harmless",
    ["127.0.0.1:7443", "[::1]:7443", "5f0c2a91b3d4e6f7", "role_ready", 7443, 12.5, True, None],
)
def test_what_operators_need_stays(harmless: object) -> None:
    assert redact(harmless) == harmless


def test_lines_are_json_with_role_level_and_time(lines: io.StringIO) -> None:
    structlog.get_logger("a.b").info("role_ready", address="127.0.0.1:7443")
    (entry,) = entries(lines)
    assert entry["event"] == "role_ready"
    assert entry["address"] == "127.0.0.1:7443"
    assert (entry["role"], entry["level"], entry["logger"]) == ("test", "info", "a.b")
    assert "timestamp" in entry


def test_other_libraries_log_the_same_way(lines: io.StringIO) -> None:
    logging.getLogger("grpc").warning("lost %s", "+4930901820")
    (entry,) = entries(lines)
    assert (entry["event"], entry["level"]) == ("lost [redacted]", "warning")


def test_fields_of_other_libraries_are_shown_and_redacted(lines: io.StringIO) -> None:
    logging.getLogger("x").warning("happened", extra={"key_id": "k1", "token": "t"})
    (entry,) = entries(lines)
    assert (entry["event"], entry["key_id"], entry["token"]) == ("happened", "k1", "[redacted]")


EVENT = re.compile(r"_log\.(?:info|warning|error)\(\s*([^,)]*)")


def test_every_event_of_our_log_has_a_stable_name() -> None:
    source = Path(telemetry.__file__).parent
    events = [event for file in source.rglob("*.py") for event in EVENT.findall(file.read_text())]
    assert len(events) > 20
    assert [event for event in events if not re.fullmatch(r'"[a-z_]+"|self\._event', event)] == []


@pytest.mark.parametrize("logger", [structlog.get_logger("x"), logging.getLogger("x")])
def test_an_exception_is_logged_without_its_text(lines: io.StringIO, logger) -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("failed")
    (entry,) = entries(lines)
    assert entry["error"] == "ValueError"
    assert SECRET not in lines.getvalue()
    assert any("test_telemetry.py" in frame for frame in entry["frames"])


async def test_a_lost_exception_is_logged_without_its_text(lines: io.StringIO) -> None:
    loop = asyncio.get_running_loop()
    watch_loop(loop)
    loop.call_exception_handler({"message": SECRET, "exception": ValueError(SECRET)})
    (entry,) = entries(lines)
    assert (entry["event"], entry["error"]) == ("lost_exception", "ValueError")
    assert SECRET not in lines.getvalue()


def test_an_uncaught_exception_is_logged_without_its_text(lines: io.StringIO) -> None:
    sys.excepthook(ValueError, ValueError(SECRET), None)
    (entry,) = entries(lines)
    assert (entry["event"], entry["error"]) == ("uncaught_exception", "ValueError")
    assert SECRET not in lines.getvalue()


def test_counters_are_read_when_asked() -> None:
    counters = Counters()
    value = 1.0
    counters.gauge("open_streams", "Streams that are open.", lambda: value)
    value = 7.0
    (metric,) = counters.collect()
    assert (metric.name, metric.samples[0].value) == ("letterlock_open_streams", 7.0)


def test_what_only_grows_is_a_counter_with_words_of_its_own() -> None:
    for counted in (GatewayCounters(), RelayCounters()):
        counters = Counters()
        counters.count(counted)
        first = dataclasses.fields(counted)[0].name
        setattr(counted, first, 3)
        metrics = counters.collect()
        assert {metric.type for metric in metrics} == {"counter"}
        assert len({metric.documentation for metric in metrics}) == len(metrics)
        (sample,) = metrics[0].samples
        assert (sample.name, sample.value) == (f"letterlock_{first}_total", 3)


def test_counters_are_served_on_loopback(unused_tcp_port: int) -> None:
    counters = Counters()
    counters.gauge("calls", "Calls in flight.", lambda: 3)
    counters.counter("sent", "Messages.", lambda: 4)
    stop = counters.expose(f"127.0.0.1:{unused_tcp_port}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{unused_tcp_port}/metrics") as answer:
            text = answer.read()
        assert b"letterlock_calls 3.0" in text
        assert b"# TYPE letterlock_sent_total counter\nletterlock_sent_total 4.0" in text
    finally:
        stop()
