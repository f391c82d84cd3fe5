"""`letterlock health`, against the standard health service."""

from __future__ import annotations

import json
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.unit.sdk.test_cli import letterlock


@pytest.mark.parametrize("serving", [True, False])
async def test_health_of_both_servers(tmp_path: Path, serving: bool) -> None:
    status = health_pb2.HealthCheckResponse
    servicer = health.aio.HealthServicer()
    await servicer.set("", status.SERVING if serving else status.NOT_SERVING)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        asked = await letterlock(tmp_path, target, "--relay", target, "health")
    finally:
        await server.stop(None)
    code, lines, err = asked
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
