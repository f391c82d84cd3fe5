"""The `Identities` service: safety numbers and confirmations of a business's users.

Checks what was sent and hands it to the gateway; decides nothing.
"""

from __future__ import annotations

from letterlock.v1 import identities_pb2, identities_pb2_grpc

from letterlockd.errors import InvalidField
from letterlockd.gateway.user_identities import UserIdentities
from letterlockd.limits import MAX_SCANNED_BYTES, SAFETY_NUMBER_DIGITS
from letterlockd.model.ids import Pseudonym
from letterlockd.model.phone import check_e164
from letterlockd.model.sender import Sender
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.rpc.business_caller import Senders, calling_sender
from letterlockd.rpc.validate import check_user_id

__all__ = ["IdentitiesServicer"]


class IdentitiesServicer(identities_pb2_grpc.IdentitiesServicer):
    """Serves `identities`; `senders` says for which number a caller may act."""

    def __init__(self, senders: Senders, identities: UserIdentities) -> None:
        self._senders = senders
        self._identities = identities

    async def GetSafetyNumber(  # noqa: N802
        self, request: identities_pb2.GetSafetyNumberRequest, _: object
    ) -> identities_pb2.SafetyNumber:
        """See the contract."""
        sender = await calling_sender(self._senders, request.business_number)
        user = await self._user(sender, request)
        found = await self._identities.safety_number(sender, user)
        return identities_pb2.SafetyNumber(
            user_id=user.hex(),
            digits=found.digits,
            scannable=found.scannable,
            unconfirmed=found.unconfirmed,
        )

    async def ConfirmIdentity(  # noqa: N802
        self, request: identities_pb2.ConfirmIdentityRequest, _: object
    ) -> identities_pb2.ConfirmIdentityResponse:
        """See the contract. A deadline that passes ends the wait; the same call again goes on."""
        sender = await calling_sender(self._senders, request.business_number)
        checked = _checked(request)
        user = await self._user(sender, request)
        released = await self._identities.confirm(sender, user, checked)
        return identities_pb2.ConfirmIdentityResponse(user_id=user.hex(), released=released)

    async def _user(
        self,
        sender: Sender,
        request: identities_pb2.GetSafetyNumberRequest | identities_pb2.ConfirmIdentityRequest,
    ) -> Pseudonym:
        given = request.WhichOneof("user")
        if given == "user_id":
            return check_user_id(request.user_id)
        if given == "phone_number":
            check_e164(request.phone_number, "phone_number")
            return await self._identities.find(sender, request.phone_number)
        raise InvalidField("user", "user_id or phone_number is required")


def _checked(request: identities_pb2.ConfirmIdentityRequest) -> jobs.CheckIdentity:
    given = request.WhichOneof("checked")
    if given == "digits":
        digits = request.digits
        if len(digits) != SAFETY_NUMBER_DIGITS or not (digits.isascii() and digits.isdecimal()):
            raise InvalidField("digits", f"{SAFETY_NUMBER_DIGITS} digits")
        return jobs.CheckIdentity(digits=digits)
    if given == "scanned":
        if not 1 <= len(request.scanned) <= MAX_SCANNED_BYTES:
            raise InvalidField("scanned", f"1 to {MAX_SCANNED_BYTES} bytes")
        return jobs.CheckIdentity(scanned=request.scanned)
    raise InvalidField("checked", "digits or scanned is required")
