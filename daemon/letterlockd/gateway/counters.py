"""What the core counts: whole numbers since the start, without any name of a business or user."""

from __future__ import annotations

from dataclasses import dataclass

from letterlockd.model.counting import counted

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Read by telemetry; written on the loop only."""

    accepted: int = counted("Messages of businesses that were taken and are durable.")
    repeated: int = counted(
        "Messages that came again under a known idempotency key and got the first answer."
    )
    refused: int = counted("Messages that were answered with an error.")
    sent: int = counted("Messages that reached the relay.")
    failed: int = counted("Messages that failed for good.")
    expired: int = counted("Messages that expired before they were delivered.")
    repairs: int = counted(
        "Conversations whose messages were encrypted again because the user's devices changed."
    )
    first_contacts: int = counted("Conversations that were begun with keys fetched from the relay.")
    received: int = counted("Messages and signals of users that were decrypted.")
    duplicates: int = counted("Envelopes that the relay delivered again and that were known.")
    unconfirmed_receipts: int = counted(
        "Read receipts that were not believed because the user's identity key is not confirmed."
    )
    undecryptable: int = counted("Envelopes that could not be decrypted and were set aside.")
    asked_again: int = counted("Messages of users that their device was asked to send again.")
    healed: int = counted("Messages of users that could not be decrypted and came again.")
    resent: int = counted(
        "Times that a message was sent again to a device that could not decrypt it."
    )
    not_healed: int = counted(
        "Messages given up because they could not be decrypted, in either direction."
    )
    malformed_items: int = counted("Items from the relay that broke the contract and were dropped.")
    unknown_accounts: int = counted(
        "Envelopes for an account that is not, or not any more, a business number here."
    )
    conflicts: int = counted("Turns that began again because a row changed under them.")
    key_uploads: int = counted("Times that pre-keys of a business number were published.")
    key_rotations: int = counted(
        "Times that a business number's signed and last-resort pre-keys were replaced."
    )
    keys_destroyed: int = counted(
        "Pairs of replaced signed and last-resort pre-keys that were destroyed after their grace."
    )
