"""`letterlock health`, against the standard health service."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.harness.served import served
from tests.unit.sdk.test_cli import letterlock


@pytest.mark.parametrize("serving", [True, False])
async def test_health_of_both_servers(tmp_path: Path, serving: bool) -> None:
    status = health_pb2.HealthCheckResponse
    servicer = health.aio.HealthServicer()
    await servicer.set("", status.SERVING if serving else status.NOT_SERVING)
    async with served(partial(health_pb2_grpc.add_HealthServicer_to_server, servicer)) as target:
        code, lines, err = await letterlock(tmp_path, target, "--relay", target, "health")
    name = "SERVING" if serving else "NOT_SERVING"
    assert [json.loads(line)["health"] for line in lines] == [name, name]
    look = "the daemon's log, event messages_do_not_move, names what does not move"
    told = f"letterlock: UNAVAILABLE: not serving: gateway, relay; {look}\n"
    assert (code, err) == ((0, "") if serving else (7, told))


async def test_who_does_not_answer_is_told(tmp_path: Path) -> None:
    gone = "127.0.0.1:1"
    code, lines, err = await letterlock(tmp_path, gone, "--relay", gone, "health")
    assert code == 7
    rows = [json.loads(line) for line in lines]
    assert [row["server"] for row in rows] == ["gateway", "relay"]
    assert all(f"nothing answers at {gone}" in row["health"] for row in rows)
    assert err == "letterlock: UNAVAILABLE: not serving: gateway, relay\n"
