"""Bearer credentials: what they look like, and who is behind one.

    dv.<account, 32 hex>.<device>.<secret>     a device; its row keeps the SHA-256
    gw.<gateway id>.<secret>                   a gateway; the relay was started with the SHA-256

Secrets are 32 random bytes, so a plain hash is enough. All comparisons take constant time.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from letterlockd.errors import EnvironmentFault, Unauthenticated
from letterlockd.model.ids import AccountId
from letterlockd.relay.directory import Directory

__all__ = [
    "Caller",
    "CredentialAuthenticator",
    "DeviceCaller",
    "GatewayCaller",
    "device_credential",
]

SECRET_BYTES = 32

_DEVICE = re.compile(r"dv\.([0-9a-f]{32})\.([1-9][0-9]{0,2})\.[A-Za-z0-9_-]{43}")
_GATEWAY = re.compile(r"gw\.([A-Za-z0-9_-]{1,64})\.[A-Za-z0-9_-]{16,256}")
_GATEWAY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WRONG = "the credential is wrong or was revoked"


@dataclass(frozen=True, slots=True)
class DeviceCaller:
    """A device of an account; `slot` tells it from a later device with the same number."""

    account_id: AccountId
    device_id: int
    slot: int


@dataclass(frozen=True, slots=True)
class GatewayCaller:
    """A gateway, for all business numbers that it registered."""

    gateway_id: str


Caller = DeviceCaller | GatewayCaller


def device_credential(
    account_id: AccountId, device_id: int, random: Callable[[int], bytes]
) -> tuple[str, bytes]:
    """A new credential and the hash to keep of it."""
    credential = f"dv.{account_id.hex()}.{device_id}.{secret_text(random)}"
    return credential, sha256(credential.encode()).digest()


def secret_text(random: Callable[[int], bytes]) -> str:
    """32 random bytes as 43 characters that fit in a URL."""
    return base64.urlsafe_b64encode(random(SECRET_BYTES)).rstrip(b"=").decode()


class CredentialAuthenticator:
    """Answers who a bearer credential stands for; the directory's cache is all it needs.

    `gateways` maps gateway ids to the hex SHA-256 of their whole credential.
    """

    def __init__(self, directory: Directory, gateways: Mapping[str, str]) -> None:
        self._directory = directory
        self._gateways = {id_: _gateway_hash(id_, text) for id_, text in gateways.items()}

    async def authenticate(self, bearer: str) -> Caller:
        """The caller; raises `Unauthenticated`."""
        presented = sha256(bearer.encode()).digest()
        if gateway := _GATEWAY.fullmatch(bearer):
            return self._gateway(gateway[1], presented)
        if device := _DEVICE.fullmatch(bearer):
            return await self._device(bytes.fromhex(device[1]), int(device[2]), presented)
        raise Unauthenticated(_WRONG)

    def _gateway(self, gateway_id: str, presented: bytes) -> GatewayCaller:
        if not hmac.compare_digest(self._gateways.get(gateway_id, b""), presented):
            raise Unauthenticated(_WRONG)
        return GatewayCaller(gateway_id)

    async def _device(self, account_id: bytes, device_id: int, presented: bytes) -> DeviceCaller:
        account = await self._directory.get(account_id)
        device = None if account is None else account.devices.get(device_id)
        known = b"" if device is None else device.credential_hash
        if account is None or device is None or not hmac.compare_digest(known, presented):
            raise Unauthenticated(_WRONG)
        return DeviceCaller(account.account_id, device_id, device.slot)


def _gateway_hash(gateway_id: str, text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != sha256().digest_size or _GATEWAY_ID.fullmatch(gateway_id) is None:
        raise EnvironmentFault(
            f"gateway {gateway_id!r}: id of 1 to 64 letters, digits, - and _, "
            "and the SHA-256 of its credential in hex",
            reason="GATEWAY_HASH_INVALID",
        )
    return digest
