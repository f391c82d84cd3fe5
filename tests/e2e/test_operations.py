"""What an operator meets: TLS, health, reflection, draining, and faults around the daemon."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from letterlock import BusinessClient, MemoryStore, OutgoingMessage
from letterlock.errors import Unavailable
from letterlockd.rpc.tls import local_identity
from letterlockd.sealing.provider import FileKeyProvider

from tests.harness.people import (
    DELIVERED,
    Shop,
    new_device,
    next_message,
    open_shop,
    receiving,
    user,
)
from tests.harness.supervised import LISTEN_ANYWHERE, Daemon, daemon

pytestmark = pytest.mark.e2e
shared_loop = pytest.mark.asyncio(loop_scope="session")

Numbers = Callable[[], str]


@shared_loop
@pytest.mark.parametrize("role", ["gateway", "relay"])
async def test_plaintext_and_a_stranger_s_authority_are_refused(
    shared: Daemon, tmp_path: Path, role: str
) -> None:
    local_identity(tmp_path, [], datetime.now(UTC))
    other = grpc.ssl_channel_credentials((tmp_path / "ca.crt").read_bytes())
    address = shared.addresses[role]
    for channel in (grpc.aio.insecure_channel(address), grpc.aio.secure_channel(address, other)):
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=20
                )
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@shared_loop
async def test_workers_hold_nothing_of_the_stores(shared: Daemon, shop: Shop) -> None:
    children = shared.role("gateway").children()
    workers = [child for child in children if "letterlockd.workers.child" in child.cmdline()]
    assert workers
    for worker in workers:
        assert not [file.path for file in worker.open_files() if str(shared.data) in file.path]


@shared_loop
async def test_the_sdk_does_not_trust_a_stranger_s_authority(
    shared: Daemon, shop: Shop, tmp_path: Path
) -> None:
    local_identity(tmp_path, [], datetime.now(UTC))
    client = BusinessClient(
        shared.addresses["gateway"], shop.token, number=shop.number, ca=tmp_path / "ca.crt"
    )
    async with client:
        with pytest.raises(Unavailable):
            await client.message("0" * 32)


@shared_loop
@pytest.mark.parametrize(
    ("role", "services"),
    [
        (
            "gateway",
            {"letterlock.v1.Messaging", "letterlock.v1.Receiving", "letterlock.v1.Businesses"},
        ),
        (
            "relay",
            {
                "letterlock.relay.v1.Accounts",
                "letterlock.relay.v1.Keys",
                "letterlock.relay.v1.Mailbox",
            },
        ),
    ],
)
async def test_health_and_reflection_answer_without_a_token(
    shared: Daemon, role: str, services: set[str]
) -> None:
    async with shared.channel(role) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in {"", *services}:
            watch = health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=20)
            async for answer in watch:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
            watch.cancel()
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]))
        answer = await call.read()
        listed = {service.name for service in answer.list_services_response.service}
        assert services <= listed


async def test_sigterm_in_the_middle_of_streams_and_the_same_keys_after_the_restart(
    tmp_path: Path, number: Numbers
) -> None:
    shop_number, ana_number, store = number(), number(), MemoryStore()
    messages = [OutgoingMessage(ana_number, f"{n}") for n in range(200)]
    async with daemon(tmp_path) as running:
        shop = await open_shop(running, shop_number)
        async with (
            shop.client() as business,
            receiving(business) as before,
            user(running, ana_number, store=store) as ana,
            business.send_many(messages, window=64) as sending,
        ):
            accepted = [await anext(sending) for _ in range(100)]
            assert all(result.accepted is not None for result in accepted)
            first = (await next_message(ana)).text
            assert await running.stop() == 0
    ends = [entry for entry in running.entries if entry["event"] == "role_stopped"]
    assert [(end["name"], end["exit_code"]) for end in ends] == [("gateway", 0), ("relay", 0)]
    async with daemon(tmp_path) as again:
        shop = Shop(again, shop.business_id, shop_number, shop.token)
        async with (
            shop.client() as business,
            receiving(business) as events,
            new_device(again, store=store) as ana,
        ):
            await ana.connect()
            repeated = [result.accepted async for result in business.send_many(messages)]
            ids = {result.accepted.message_id for result in accepted if result.accepted}
            assert ids <= {r.message_id for r in repeated if r is not None and r.repeated}
            got = [first, *[(await next_message(ana)).text for _ in range(199)]]
            assert got == [f"{n}" for n in range(200)]
            told = [
                (before.reached(message_id, DELIVERED), events.reached(message_id, DELIVERED))
                for message_id in {r.message_id for r in repeated if r is not None}
            ]
            assert len(told) == 200
            await events.until(lambda: all(earlier() or now() for earlier, now in told))


async def test_a_full_store_refuses_by_name_and_works_again(
    tmp_path: Path, number: Numbers
) -> None:
    """Short-lived messages to a user who is away fill the stores; their expiry makes space."""
    ana_number, ben_number = number(), number()
    small = ("--set", f"store.max_bytes={16 * 1024 * 1024}", "--set", "store.sweep_seconds=0.2")
    async with daemon(tmp_path, *small) as running:
        shop = await open_shop(running, number())
        async with (
            shop.client() as business,
            user(running, ana_number, connect=False),
            user(running, ben_number) as ben,
        ):
            text = "x" * 16_000
            results = [
                result
                async for result in business.send_many(
                    OutgoingMessage(ana_number, text, time_to_live=20.0) for _ in range(1_500)
                )
            ]
            reasons = {result.error.reason for result in results if result.error is not None}
            assert reasons
            assert reasons <= {"STORAGE_FULL"}
            assert all(r.error.retry_after for r in results if r.error is not None)
            await running.logged(
                lambda entry: (
                    entry["event"] == "messages_do_not_move"
                    and entry["role"] == "gateway"
                    and "space" in entry["unproven"]
                )
            )
            async with asyncio.timeout(60):
                while True:
                    (again,) = [
                        r async for r in business.send_many([OutgoingMessage(ben_number, "Now?")])
                    ]
                    if again.accepted is not None:
                        break
            assert (await next_message(ben)).text == "Now?"
        assert await running.stop() == 0


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A daemon that cannot run ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "letterlockd", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--set", "gateway.lisen=x"], 3, "there is no setting gateway.lisen; did you mean"),
        (["--set", "gateway.workers=0"], 3, "gateway.workers"),
        (["--set", "relay.listen=nowhere"], 3, "relay.listen: must be host:port"),
        (["--set", "store.max_bytes=1"], 3, "store.max_bytes"),
        (["--config", "none.toml"], 3, "none.toml cannot be read"),
        (
            ["--set", "gateway.listen=192.0.2.1:1"],
            7,
            "gateway.listen: cannot listen on 192.0.2.1:1",
        ),
    ],
)
def test_a_wrong_setting_ends_the_daemon_with_its_name(
    tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    anywhere = [] if "gateway.listen" in str(arguments) else list(LISTEN_ANYWHERE)
    done = run("serve", "--set", "relay.listen=127.0.0.1:0", *anywhere, *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_something_else_is_refused_and_not_touched(tmp_path: Path) -> None:
    foreign = tmp_path / "letterlock-data" / "relay"
    foreign.mkdir(parents=True)
    (foreign / "data.mdb").write_bytes(b"not ours" * 1000)
    FileKeyProvider(tmp_path / "letterlock-data" / "keys" / "relay.key")
    done = run("serve", *LISTEN_ANYWHERE, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "relay" in done.stderr
    assert (foreign / "data.mdb").read_bytes() == b"not ours" * 1000


async def test_key_files_that_others_can_read_are_refused(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        await running.stop()
    os.chmod(running.data / "keys" / "gateway.key", 0o644)
    done = run("serve", *LISTEN_ANYWHERE, cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    assert "gateway.key" in done.stderr


async def test_two_daemons_and_a_port_that_is_taken(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        second = await asyncio.to_thread(run, "serve", *LISTEN_ANYWHERE, cwd=tmp_path)
        assert second.returncode == 4, second.stderr
        assert "DATA_FOLDER_LOCKED" in second.stderr
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        taken = ("--set", f"relay.listen={running.addresses['relay']}")
        third = await asyncio.to_thread(run, "serve", *LISTEN_ANYWHERE, *taken, cwd=elsewhere)
        assert third.returncode == 7, third.stderr
        assert running.process.returncode is None


async def test_ctrl_c_stops_it_in_order(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        running.process.send_signal(signal.SIGINT)
        assert await running.process.wait() == 0


async def test_a_gateway_without_its_relay_says_so_in_its_own_log(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    assert run("init", cwd=tmp_path).returncode == 0
    address = f"127.0.0.1:{unused_tcp_port}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "letterlockd", "gateway", "--set", f"gateway.relay={address}"),
        *("--set", "gateway.listen=127.0.0.1:0"),
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    entries = []
    async for line in process.stderr:  # each line is JSON: nothing of gRPC's own in between
        entries.append(json.loads(line))
        if entries[-1]["event"] == "relay_unreachable":
            process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    (told,) = [entry for entry in entries if entry["event"] == "relay_unreachable"]
    assert (told["level"], told["address"]) == ("warning", address)
    assert "connection refused" in told["reason"]
