"""Health over real processes: whatever is stopped, it is told within the bound, and so is its
return. The signals reach processes that nobody uses, so that only the proof can find them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.supervised import Daemon, daemon

pytestmark = pytest.mark.e2e

BOUND = ("--set", "health.bound_seconds=2", "--set", "gateway.workers=1")
MESSAGING = "letterlock.v1.Messaging"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Watching:
    """The health of one service, as it changes."""

    def __init__(self, statuses: AsyncIterator[health_pb2.HealthCheckResponse]) -> None:
        self._statuses = statuses

    async def until(self, status: int) -> None:
        async for told in self._statuses:
            if told.status == status:
                return
        raise AssertionError("the watch ended")


@asynccontextmanager
async def watching(running: Daemon, role: str, service: str = "") -> AsyncIterator[Watching]:
    async with running.channel(role) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        call = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=100)
        yield Watching(aiter(call))
        call.cancel()


async def status(running: Daemon, role: str, service: str) -> int:
    async with running.channel(role) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return (await health_pb2_grpc.HealthStub(channel).Check(request, timeout=20)).status


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def committers(role: psutil.Process) -> Callable[[str], psutil.Process]:
    """By the store that each has open."""
    children = [child for child in role.children() if "committer" in " ".join(child.cmdline())]

    def of(store: str) -> psutil.Process:
        (found,) = [child for child in children if writes(child, store)]
        return found

    return of


def writes(process: psutil.Process, store: str) -> bool:
    files = [(Path(file.path).parts[-2:], file.mode) for file in process.open_files()]
    return ((store, "data.mdb"), "r+") in files


async def test_whatever_stands_still_is_told_within_the_bound(tmp_path: Path) -> None:
    async with daemon(tmp_path, *BOUND) as running, watching(running, "gateway") as gateway:
        await gateway.until(SERVING)
        role = running.role("gateway")
        (worker,) = [each for each in role.children() if "workers.child" in str(each.cmdline())]
        for process in (committers(role)("gateway"), committers(role)("registry"), worker):
            with stopped(process):
                await gateway.until(NOT_SERVING)
                assert await status(running, "gateway", MESSAGING) == NOT_SERVING
            await gateway.until(SERVING)
        with stopped(running.role("relay")):
            await gateway.until(NOT_SERVING)
            assert await status(running, "gateway", MESSAGING) == SERVING, "messages wait"
        await gateway.until(SERVING)
        async with watching(running, "relay") as relay:
            await relay.until(SERVING)
            with stopped(committers(running.role("relay"))("relay")):
                await relay.until(NOT_SERVING)
                await gateway.until(NOT_SERVING)
            await relay.until(SERVING)
            await gateway.until(SERVING)
    told = [entry for entry in running.entries if entry["event"] == "messages_do_not_move"]
    unproven = [set(entry["unproven"]) for entry in told if entry["level"] == "warning"]
    assert {"relay"} in unproven
    assert any("worker" in each for each in unproven)
    assert any("registry" in each for each in unproven)
    assert any("store" in each for each in unproven)


DOCS = Path(__file__).parents[2] / "docs"


async def test_documents_alerts_and_dashboard_name_the_metrics_that_exist(
    tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    at = {role: f"127.0.0.1:{unused_tcp_port_factory()}" for role in ("gateway", "relay")}
    metrics = [f"{role}.metrics={address}" for role, address in at.items()]
    async with daemon(tmp_path, "--set", metrics[0], "--set", metrics[1]):
        found = {role: await asyncio.to_thread(scrape, address) for role, address in at.items()}
    samples = [
        sample for families in found.values() for each in families for sample in each.samples
    ]
    labels = {label for sample in samples for label in sample.labels}
    assert labels == {"leg", "le"}, "a label with an id, a number or content would never end"
    listed = re.findall(r"^\| (\w+) \| `(letterlock_\w+)` \|", operations(), re.MULTILINE)
    for role, families in found.items():
        documented = {name for of, name in listed if of in {role, "both"}}
        assert documented == {name_of(family) for family in families}
    for example in ("alerts.yml", "dashboard.json"):
        named = set(re.findall(r"letterlock_\w+", (DOCS / "examples" / example).read_text()))
        assert named
        assert named <= {sample.name for sample in samples}


def scrape(address: str) -> list[Metric]:
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def name_of(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_the_dashboard_is_one() -> None:
    panels = json.loads((DOCS / "examples" / "dashboard.json").read_text())["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels) == len({panel["id"] for panel in panels})
    assert all(target["expr"] for panel in panels for target in panel["targets"])


def test_every_alert_has_words_and_somebody_to_hear_them() -> None:
    rules = (DOCS / "examples" / "alerts.yml").read_text().split("- alert: ")[1:]
    assert rules
    for rule in rules:
        assert re.search(r"^ +expr: \S", rule, re.MULTILINE), rule
        assert re.search(r"severity: (page|ticket)", rule), rule
        assert re.search(r'summary: ".+"$', rule, re.MULTILINE), rule


def operations() -> str:
    return (DOCS / "operations.md").read_text()
