"""How a device comes to an account: makes its keys, asks the relay, gives the first rows.

Knows no store: the caller commits the rows before it does anything with the account.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tripleratchet import IdentityKeyPair, Random

from letterlock.device.keys import NewKeys, OwnKeys, make_keys
from letterlock.device.link import DeviceLink
from letterlock.device.relay import Relay
from letterlock.device.rows import SELF, Account, Rows
from letterlock.relay.v1 import accounts_pb2

MAX_REGISTRATION_ID = 16_383
FIRST_KEY_ID = 1


@dataclass(frozen=True, slots=True)
class Registration:
    """Registers one device, with that many one-time pre-keys of each kind."""

    relay: Relay
    one_time_pre_keys: int
    random: Random = field(repr=False)
    now_ms: Callable[[], int]

    async def register(
        self, phone_number: str, verification_id: str, code: str
    ) -> dict[bytes, bytes]:
        """Make or take over the account of a number; the rows to commit."""
        identity = await asyncio.to_thread(IdentityKeyPair.generate, self.random)

        async def ask(registration_id: int, keys: NewKeys) -> accounts_pb2.RegisterResponse:
            return await self.relay.register(
                accounts_pb2.RegisterRequest(
                    verification_id=verification_id,
                    code=code,
                    phone_number=phone_number,
                    identity_key=identity.public,
                    registration_id=registration_id,
                    pre_keys=keys.to_upload(),
                )
            )

        return await self._become(phone_number, identity, ask)

    async def link(self, link: DeviceLink) -> dict[bytes, bytes]:
        """Join the account of a link; the rows to commit."""
        identity = IdentityKeyPair.from_private(link.identity_private)

        async def ask(registration_id: int, keys: NewKeys) -> accounts_pb2.RegisterResponse:
            return await self.relay.link_device(
                accounts_pb2.LinkDeviceRequest(
                    link_token=link.token,
                    registration_id=registration_id,
                    pre_keys=keys.to_upload(),
                )
            )

        return await self._become(link.phone_number, identity, ask)

    async def _become(
        self,
        phone_number: str,
        identity: IdentityKeyPair,
        ask: Callable[[int, NewKeys], Awaitable[accounts_pb2.RegisterResponse]],
    ) -> dict[bytes, bytes]:
        count = self.one_time_pre_keys
        keys = await asyncio.to_thread(
            make_keys, identity, FIRST_KEY_ID, self.random, signed=True, ec=count, kyber=count
        )
        registration_id = 1 + int.from_bytes(self.random(4), "big") % MAX_REGISTRATION_ID
        answer = await ask(registration_id, keys)
        rows = Rows()
        account = Account(
            account_id=answer.account_id,
            device_id=answer.device_id,
            registration_id=registration_id,
            phone_number=phone_number,
            credential=answer.credential,
            identity_private=identity.private,
        )
        rows.put(SELF, account.to_bytes())
        own = OwnKeys(rows, {})
        own.keep(keys, self.now_ms())
        own.published(self.now_ms())
        return {name: value for name, value in rows.take().items() if value is not None}
