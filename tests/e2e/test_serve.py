"""`letterlockd serve` as a whole: real processes, stores, TLS and tokens."""

import os
import signal
from pathlib import Path

import grpc
import psutil
import pytest
from letterlock.v1 import businesses_pb2 as pb
from letterlock.v1 import businesses_pb2_grpc, messaging_pb2, messaging_pb2_grpc

from tests.harness.supervised import Daemon, daemon

pytestmark = pytest.mark.e2e

NUMBER = "+4930901820"


class Operator:
    """Calls Businesses with a token."""

    def __init__(
        self, running: Daemon, channel: grpc.aio.Channel, token: str | None = None
    ) -> None:
        self.stub = businesses_pb2_grpc.BusinessesStub(channel)
        self.metadata = (("authorization", f"Bearer {token or running.operator_token}"),)

    async def __call__(self, method: str, request):
        call = getattr(self.stub, method)
        return await call(request, metadata=self.metadata, timeout=30, wait_for_ready=True)


async def read_to_the_end(stream: grpc.aio.StreamStreamCall) -> None:
    """A status arrives only behind the frames that came before it."""
    while await stream.read() is not grpc.aio.EOF:
        pass


def files_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_business_from_the_first_start_to_a_clean_stop(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        async with running.channel("gateway") as channel:
            operator = Operator(running, channel)
            made = await operator("CreateBusiness", pb.CreateBusinessRequest(display_name="Acme"))
            request = pb.AddNumberRequest(business_id=made.business_id, phone_number=NUMBER)
            added = await operator("AddNumber", request)
            assert [number.phone_number for number in added.numbers] == [NUMBER]
            assert await operator("AddNumber", request) == added
            issued = await operator(
                "IssueToken", pb.IssueTokenRequest(business_id=made.business_id)
            )
            business = Operator(running, channel, issued.token)
            shown = await business(
                "GetBusiness", pb.GetBusinessRequest(business_id=made.business_id)
            )
            assert shown.numbers == added.numbers
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await business("ListBusinesses", pb.ListBusinessesRequest())
            assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
            wrong = Operator(running, channel, issued.token[:-2] + "xx")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await wrong("ListBusinesses", pb.ListBusinessesRequest())
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert await running.stop() == 0
    stopped = [entry["name"] for entry in running.entries if entry["event"] == "role_stopped"]
    assert stopped == ["gateway", "relay"]
    assert NUMBER[1:].encode() not in files_below(tmp_path) + running.text.encode()
    assert issued.token.rpartition(".")[2] not in running.text


async def test_revoking_a_token_ends_its_open_streams(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running, running.channel("gateway") as channel:
        operator = Operator(running, channel)
        made = await operator("CreateBusiness", pb.CreateBusinessRequest(display_name="Acme"))
        id_ = made.business_id
        await operator("AddNumber", pb.AddNumberRequest(business_id=id_, phone_number=NUMBER))
        issued = await operator("IssueToken", pb.IssueTokenRequest(business_id=id_))
        stream = messaging_pb2_grpc.MessagingStub(channel).Receive(
            metadata=(("authorization", f"Bearer {issued.token}"),)
        )
        opening = messaging_pb2.ReceiveOpen(business_number=NUMBER)
        await stream.write(messaging_pb2.ReceiveRequest(open=opening))
        assert (await stream.read()).HasField("opened")
        revocation = pb.RevokeTokenRequest(business_id=id_, token_id=issued.token_id)
        await operator("RevokeToken", revocation)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_to_the_end(stream)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_the_wrong_master_key_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        keys = running.data / "keys"
        assert await running.stop() == 0
    (keys / "gateway.key").write_bytes((keys / "relay.key").read_bytes())
    with pytest.raises(AssertionError, match="MASTER_KEY_WRONG"):
        async with daemon(tmp_path):
            pass


@pytest.mark.parametrize("role", ["gateway", "relay"])
async def test_a_killed_role_comes_back_with_what_it_committed(tmp_path: Path, role: str) -> None:
    async with daemon(tmp_path) as running:
        async with running.channel("gateway") as channel:
            operator = Operator(running, channel)
            made = await operator("CreateBusiness", pb.CreateBusinessRequest(display_name="Acme"))
            await running.logged(lambda entry: entry["event"] == "relay_reached")
            place = len(running.entries)
            running.role(role).send_signal(signal.SIGKILL)
            await running.logged(lambda entry: entry["event"] == "role_ready", after=place)
            await running.logged(lambda entry: entry["event"] == "relay_reached", after=place)
            request = pb.AddNumberRequest(business_id=made.business_id, phone_number=NUMBER)
            assert (await operator("AddNumber", request)).display_name == "Acme"
        assert await running.stop() == 0


async def test_a_lost_committer_restarts_its_role(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        place = len(running.entries)
        (committer,) = running.role("relay").children()
        os.kill(committer.pid, signal.SIGKILL)
        at = await running.logged(lambda entry: entry["event"] == "role_ended", after=place)
        assert running.entries[at - 1]["exit_code"] == 8
        await running.logged(lambda entry: entry["event"] == "role_ready", after=at)
        assert await running.stop() == 0


async def test_nothing_is_left_running_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        descendants = psutil.Process(running.process.pid).children(recursive=True)
        assert len(descendants) >= 6  # two roles, three committers, workers
        running.process.kill()
        gone, left = psutil.wait_procs(descendants, timeout=30)
        assert (len(gone), left) == (len(descendants), [])


async def test_a_second_daemon_in_the_folder_is_refused(tmp_path: Path) -> None:
    async with daemon(tmp_path):
        with pytest.raises(AssertionError, match="DATA_FOLDER_LOCKED"):
            async with daemon(tmp_path):
                pass
