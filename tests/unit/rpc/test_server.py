import asyncio
import datetime as dt

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from letterlock.v1 import businesses_pb2, businesses_pb2_grpc
from letterlockd.errors import Unauthenticated
from letterlockd.rpc.server import Limits, ListenFault, RpcServer, Service
from letterlockd.rpc.tls import ServerIdentity, local_identity

from tests.harness.channels import OWN_CONNECTION


class NoTokens:
    async def authenticate(self, bearer: str) -> object:
        if bearer != "good":
            raise Unauthenticated("unknown token")
        return "caller"


class SlowBusinesses(businesses_pb2_grpc.BusinessesServicer):
    def __init__(self) -> None:
        self.entered, self.release = asyncio.Event(), asyncio.Event()

    async def GetBusiness(self, request, context):
        self.entered.set()
        await self.release.wait()
        return businesses_pb2.Business(display_name=request.business_id)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ServerIdentity:
    return local_identity(tmp_path_factory.mktemp("tls"), [], dt.datetime.now(dt.UTC))


def build(identity: ServerIdentity, servicer: object, **options) -> RpcServer:
    settings = {"listen": "127.0.0.1:0", "limits": Limits(), "reflect": True} | options
    add = businesses_pb2_grpc.add_BusinessesServicer_to_server
    service = Service("letterlock.v1.Businesses", servicer, add)
    return RpcServer([service], identity=identity, authenticator=NoTokens(), **settings)


def channel(identity: ServerIdentity, server: RpcServer) -> grpc.aio.Channel:
    assert identity.ca_path is not None
    credentials = grpc.ssl_channel_credentials(identity.ca_path.read_bytes())
    return grpc.aio.secure_channel(f"localhost:{server.port}", credentials, OWN_CONNECTION)


async def test_health_needs_no_token_and_turns_at_the_drain(identity: ServerIdentity) -> None:
    servicer = SlowBusinesses()
    server = build(identity, servicer)
    await server.start()
    async with channel(identity, server) as link:
        watch = health_pb2_grpc.HealthStub(link).Watch(
            health_pb2.HealthCheckRequest(service="letterlock.v1.Businesses")
        )
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await server.report("letterlock.v1.Businesses", healthy=True)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        drain = asyncio.create_task(server.drain(30))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        await drain


async def test_reflection_names_the_services_to_who_has_no_token(identity: ServerIdentity) -> None:
    server = build(identity, SlowBusinesses())
    await server.start()
    async with channel(identity, server) as link:
        stub = reflection_pb2_grpc.ServerReflectionStub(link)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([request]))
        answer = await call.read()
        names = {service.name for service in answer.list_services_response.service}
        assert names >= {"letterlock.v1.Businesses", "grpc.health.v1.Health"}
        call.cancel()
    await server.drain(1)


async def test_without_reflection_it_is_not_served(identity: ServerIdentity) -> None:
    server = build(identity, SlowBusinesses(), reflect=False)
    await server.start()
    async with channel(identity, server) as link:
        stub = reflection_pb2_grpc.ServerReflectionStub(link)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ServerReflectionInfo(iter([request])).read()
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    await server.drain(1)


async def test_draining_lets_a_running_call_end(identity: ServerIdentity) -> None:
    servicer = SlowBusinesses()
    server = build(identity, servicer)
    await server.start()
    async with channel(identity, server) as link:
        call = businesses_pb2_grpc.BusinessesStub(link).GetBusiness(
            businesses_pb2.GetBusinessRequest(business_id="b"),
            metadata=(("authorization", "Bearer good"),),
        )
        await servicer.entered.wait()
        drain = asyncio.create_task(server.drain(30))
        servicer.release.set()
        assert (await call).display_name == "b"
        await drain


async def test_a_second_daemon_on_the_port_is_refused(identity: ServerIdentity) -> None:
    first = build(identity, SlowBusinesses())
    await first.start()
    with pytest.raises(ListenFault, match=f"127.0.0.1:{first.port}"):
        build(identity, SlowBusinesses(), listen=f"127.0.0.1:{first.port}")
    await first.drain(0)


async def test_an_oversized_message_is_refused(identity: ServerIdentity) -> None:
    server = build(identity, SlowBusinesses(), limits=Limits(message_bytes=1_000))
    await server.start()
    async with channel(identity, server) as link:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await businesses_pb2_grpc.BusinessesStub(link).GetBusiness(
                businesses_pb2.GetBusinessRequest(business_id="b" * 2_000),
                metadata=(("authorization", "Bearer good"),),
            )
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await server.drain(1)
