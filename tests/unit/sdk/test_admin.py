"""The operator's client, over TLS with a certificate authority of its own."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.duration_pb2 import Duration
from letterlock.business.admin import AdminClient
from letterlock.errors import Forbidden, InvalidRequest, Unavailable
from letterlock.v1 import businesses_pb2, businesses_pb2_grpc

from tests.harness.fakes_sdk import fail


def certificate() -> tuple[bytes, bytes]:
    """A self-signed certificate for localhost and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM), private


class FakeBusinesses(businesses_pb2_grpc.BusinessesServicer):
    def __init__(self) -> None:
        self.made: list[businesses_pb2.Business] = []
        self.failing = 0
        self.updates: list[businesses_pb2.UpdateBusinessRequest] = []

    async def _fail_if_told(self, context: grpc.aio.ServicerContext) -> None:
        if self.failing:
            self.failing -= 1
            await fail(context, grpc.StatusCode.UNAVAILABLE, "DRAINING")

    async def CreateBusiness(self, request, context):  # type: ignore[no-untyped-def, override]
        made = businesses_pb2.Business(
            business_id=f"{len(self.made):032x}",
            display_name=request.display_name,
            retention=request.retention,
            identity_policy=request.identity_policy,
        )
        self.made.append(made)
        await self._fail_if_told(context)
        return made

    async def UpdateBusiness(self, request, context):  # type: ignore[no-untyped-def, override]
        await self._fail_if_told(context)
        self.updates.append(request)
        assert request.HasField("display_name") == bool(request.display_name)
        return businesses_pb2.Business(
            business_id=request.business_id,
            display_name=request.display_name,
            identity_policy=request.identity_policy,
        )

    async def GetBusiness(self, request, context):  # type: ignore[no-untyped-def, override]
        await fail(context, grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")

    async def ListBusinesses(self, request, context):  # type: ignore[no-untyped-def, override]
        await self._fail_if_told(context)
        start = int(request.page_token or 0)
        page = self.made[start : start + 2]
        following = str(start + 2) if start + 2 < len(self.made) else ""
        return businesses_pb2.ListBusinessesResponse(businesses=page, next_page_token=following)

    async def AddNumber(self, request, context):  # type: ignore[no-untyped-def, override]
        await self._fail_if_told(context)
        number = businesses_pb2.BusinessNumber(phone_number=request.phone_number)
        return businesses_pb2.Business(business_id=request.business_id, numbers=[number])

    async def IssueToken(self, request, context):  # type: ignore[no-untyped-def, override]
        return businesses_pb2.IssueTokenResponse(token="t", token_id=request.label)

    async def RevokeToken(self, request, context):  # type: ignore[no-untyped-def, override]
        return businesses_pb2.RevokeTokenResponse()


@pytest.fixture
def businesses() -> FakeBusinesses:
    return FakeBusinesses()


@pytest.fixture
async def admin(businesses: FakeBusinesses, tmp_path: Path) -> AsyncIterator[AdminClient]:
    made, key = certificate()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(made)
    server = grpc.aio.server()
    businesses_pb2_grpc.add_BusinessesServicer_to_server(businesses, server)
    credentials = grpc.ssl_server_credentials([(key, made)])
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()

    async def no_sleep(seconds: float) -> None:
        assert seconds >= 0

    async with AdminClient(f"localhost:{port}", "operator", ca=ca, sleep=no_sleep) as client:
        yield client
    await server.stop(None)


async def test_businesses_page_by_page(admin: AdminClient) -> None:
    for name in "abcde":
        await admin.create_business(name, retention=3600)
    found = [business async for business in admin.businesses()]
    assert [business.display_name for business in found] == list("abcde")
    assert found[0].retention.seconds == 3600


async def test_the_policy_for_identity_changes(
    admin: AdminClient, businesses: FakeBusinesses
) -> None:
    made = await admin.create_business("a", hold_identity_changes=True)
    assert made.identity_policy == businesses_pb2.IDENTITY_POLICY_HOLD_UNTIL_CONFIRMED
    businesses.failing = 1
    changed = await admin.update_business("id", hold_identity_changes=False)
    assert changed.identity_policy == businesses_pb2.IDENTITY_POLICY_ACCEPT_AND_TELL
    named = await admin.update_business("id", display_name="b")
    assert (named.display_name, named.identity_policy) == ("b", 0)


async def test_a_retention_is_changed_alone(admin: AdminClient, businesses: FakeBusinesses) -> None:
    await admin.update_business("id", retention=300)
    (request,) = businesses.updates
    assert request == businesses_pb2.UpdateBusinessRequest(
        business_id="id", retention=Duration(seconds=300)
    )


async def test_numbers_and_tokens(admin: AdminClient) -> None:
    added = await admin.add_number("id", "+4915112345678")
    assert added.numbers[0].phone_number == "+4915112345678"
    assert (await admin.issue_token("id", label="l")).token_id == "l"
    await admin.revoke_token("id", "l")


async def test_only_what_is_safe_is_repeated(
    admin: AdminClient, businesses: FakeBusinesses
) -> None:
    businesses.failing = 1
    await admin.add_number("id", "+4915112345678")
    businesses.failing = 1
    with pytest.raises(Unavailable):
        await admin.create_business("a")
    assert len(businesses.made) == 1


async def test_refusals_are_typed(admin: AdminClient) -> None:
    with pytest.raises(Forbidden):
        await admin.business("id")


async def test_a_server_of_another_authority_is_not_spoken_to(
    admin: AdminClient, tmp_path: Path
) -> None:
    other, _ = certificate()
    ca = tmp_path / "other.pem"
    ca.write_bytes(other)
    async with AdminClient(admin._target, "operator", ca=ca) as stranger:
        with pytest.raises(Unavailable):
            await stranger.create_business("a")


async def test_outside_its_context_it_says_so() -> None:
    with pytest.raises(InvalidRequest, match="not connected"):
        await AdminClient("localhost:1", "operator").create_business("a")
