"""Log lines without secrets, and where metrics can be asked for.

    event (structlog or logging) ──▶ redact ──▶ JSON line, or colours on a terminal ──▶ stderr

Redaction is the second line of defence: code does not log content, numbers or tokens in the first
place. It masks what looks like one, drops what is called like one, and never prints an
exception's text, only its type and where it came from. Levels: error is a bug of ours, warning
is the operator's to look at, info is what happened, debug is for development.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from letterlockd.model.counting import HELP
from letterlockd.model.histogram import Histogram
from letterlockd.tracebacks import frames_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Counters", "redact", "set_up_logs", "watch_loop"]

MASK = "[redacted]"

_SECRET_NAMES = frozenset(
    {
        "authorization",
        "body",
        "caller_tag",
        "ciphertext",
        "code",
        "content",
        "credential",
        "key",
        "number",
        "password",
        "payload",
        "phone",
        "phone_number",
        "plaintext",
        "recipient",
        "secret",
        "text",
        "token",
    }
)

_SECRET_SHAPES = re.compile(
    r"""
    \b(?:ll|gw|dv)\.[\w.-]*[\w-]{16,}         # bearer tokens
    | (?<![\w./:-])\+?(?:\d[ ()-]{0,2}){7,14}\d(?![\w:])   # phone numbers, also grouped
    | [A-Za-z0-9+/_=-]{44,}                    # keys and sealed bytes in base64 or hex
    """,
    re.VERBOSE,
)
"""Times of our own log lines are added after redaction, so that they need no exception here."""


def redact(value: object) -> object:
    """`value` with everything masked that looks like a phone number, a token, a key or bytes."""
    match value:
        case str():
            return _SECRET_SHAPES.sub(MASK, value)
        case bool() | int() | float() | None:
            return value if not isinstance(value, int) or abs(value) < 10**7 else redact(str(value))
        case bytes() | bytearray() | memoryview():
            return f"[{len(value)} bytes]"
        case Mapping():
            return {redact(name): _named(name, inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [redact(inner) for inner in value]
    return redact(repr(value))


def _named(name: object, value: object) -> object:
    return MASK if str(name).lower() in _SECRET_NAMES else redact(value)


def _redact_event(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The processor. `_record` and `_from_structlog` belong to structlog's bridge to `logging`."""
    _name_exception(event)
    for name, value in event.items():
        if name not in {"_record", "_from_structlog", "level", "logger"}:
            event[name] = _named(name, value)
    return event


def _name_exception(event: MutableMapping[str, Any]) -> None:
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["frames"] = frames_of(error)


def set_up_logs(role: str, *, level: str, style: str) -> None:
    """Send structlog's and logging's events to standard error, redacted. `style`: auto, json,
    console."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())

    def add_role(
        logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event["role"] = role
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _redact_event,
        add_role,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    sys.excepthook = _log_uncaught


def watch_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Log what asyncio would report of lost exceptions, without their text."""
    loop.set_exception_handler(_log_lost)


def _log_lost(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    # The message is asyncio's, but it may hold the repr of a task with its exception.
    error = context.get("exception")
    structlog.get_logger(__name__).error("lost_exception", exc_info=error)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    structlog.get_logger(__name__).error("uncaught_exception", exc_info=error)


class LegsOfHealth(Protocol):
    """What `health.Health` tells of each leg, by name."""

    @property
    def names(self) -> Sequence[str]: ...

    def proven(self, name: str) -> bool: ...

    def age_s(self, name: str) -> float: ...

    def waiting(self, name: str) -> int: ...


class Counters(Collector):
    """Numbers that are read when Prometheus asks; nothing is counted twice on the way of messages.

    Names are `letterlock_<name>`, and `letterlock_<name>_total` for what only grows. The only label
    is `leg`, with names from our code: no id, number or business can become one. What is read must
    not block; it is read in another thread.
    """

    def __init__(self) -> None:
        self._read: dict[str, Callable[[], Metric]] = {}

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Have `read` asked at each scrape for what goes up and down."""
        full = f"letterlock_{name}"
        self._read[name] = lambda: GaugeMetricFamily(full, text, value=read())

    def counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Have `read` asked at each scrape for what only grows, from 0 at the start."""
        full = f"letterlock_{name}"
        self._read[name] = lambda: CounterMetricFamily(full, text, value=read())

    def legs(self, health: LegsOfHealth) -> None:
        """Of each leg: is it proven, how old is its proof, what waits."""
        self._of_legs(
            "leg_proven", "1 while messages are known to move there.", health.proven, health
        )
        self._of_legs(
            "leg_proof_age_seconds", "Time since something came out there.", health.age_s, health
        )
        self._of_legs(
            "leg_waiting", "What went in there and has not come out.", health.waiting, health
        )

    def _of_legs(
        self, name: str, text: str, read: Callable[[str], float], health: LegsOfHealth
    ) -> None:
        full = f"letterlock_{name}"

        def family() -> Metric:
            told = GaugeMetricFamily(full, text, labels=("leg",))
            for leg in health.names:
                told.add_metric((leg,), read(leg))
            return told

        self._read[name] = family

    def histogram(self, name: str, text: str, times: Histogram) -> None:
        """Durations, in buckets."""
        full = f"letterlock_{name}_seconds"

        def family() -> Metric:
            buckets, total = times.read()
            return HistogramMetricFamily(full, text, buckets=buckets, sum_value=total)

        self._read[name] = family

    def count(self, counters: DataclassInstance) -> None:
        """A counter for each field; see `model.counting`."""
        for field in dataclasses.fields(counters):
            read = functools.partial(getattr, counters, field.name)
            self.counter(field.name, field.metadata[HELP], read)

    def collect(self) -> list[Metric]:
        """What Prometheus gets."""
        return [read() for read in self._read.values()]

    def expose(self, address: str) -> Callable[[], None]:
        """Serve over HTTP on `address` (loopback, by configuration). Returns what stops it. Raises
        `OSError` when the address cannot be used."""
        registry = CollectorRegistry()
        registry.register(self)
        host, _, port = address.rpartition(":")
        server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop
