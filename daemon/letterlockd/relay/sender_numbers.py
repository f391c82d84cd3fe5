"""Tells a gateway the numbers of the users who wrote to it, on items that waited on disk.

Rows hold the sender's account and not the number, so that a number stands sealed in the account's
row and nowhere else (I5). Of an account that is gone the number is not known any more, and is
left empty. Knows nothing of streams.
"""

from __future__ import annotations

from collections.abc import Sequence

from letterlock.relay.v1.mailbox_pb2 import Deliveries

from letterlockd.relay.directory import Directory

__all__ = ["SenderNumbers"]


class SenderNumbers:
    """Looks numbers up in the directory."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def complete(self, deliveries: Sequence[bytes]) -> list[bytes]:
        """Deliveries of one item each as stored, with the numbers as delivered."""
        made = [Deliveries.FromString(delivery) for delivery in deliveries]
        said = [item.envelope for each in made for item in each.items if item.HasField("envelope")]
        accounts = await self._directory.get_many({e.sender_account_id for e in said})
        for envelope in said:
            account = accounts[envelope.sender_account_id]
            if account is not None and not account.is_business:
                envelope.sender_phone_number = account.number
        return [each.SerializeToString() for each in made]
