"""The interop peer: named parties that do what they are told on standard input, one JSON a line.

    python -m tripleratchet.peer

For test drivers only: it plays this package against other implementations and hands out private
keys on request. The one module here that may read a clock and do I/O. Byte strings are hex; the
operations are the methods of Peers, their names in camel case.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any, TextIO

from . import keys
from .address import Address
from .decryption_error import DecryptionError, decryption_error_of, plaintext_content
from .errors import (
    CorruptRecord,
    InvalidKyberPreKeyId,
    InvalidMessage,
    InvalidPreKeyId,
    InvalidSignedPreKeyId,
    RatchetError,
)
from .fingerprint import SafetyNumber, safety_number
from .incoming import decrypt
from .keys import IdentityKeyPair
from .messages import CiphertextMessage
from .outgoing import encrypt, process_bundle
from .party import LocalParty
from .post_quantum import PostQuantumPolicy
from .prekeys import (
    KyberPreKey,
    PreKey,
    PreKeyBundle,
    SignedPreKey,
    UsedPreKeys,
    generate_kyber_pre_key,
    generate_pre_key,
    generate_signed_pre_key,
)
from .record import SessionRecord
from .wire import bytes_field
from .xeddsa import sign

Fields = dict[str, Any]
_SAFETY_NUMBER_VERSION = 2


class Party:
    """One party's store: identity, pre-keys, sessions, accepted identities, used Kyber keys."""

    def __init__(self, local: LocalParty) -> None:
        self.local = local
        self.sessions: dict[Address, SessionRecord] = {}
        self.trusted: dict[Address, bytes] = {}
        self._pre_keys: dict[int, PreKey] = {}
        self._signed: dict[int, SignedPreKey] = {}
        self._kyber: dict[int, KyberPreKey] = {}
        self._seen: set[tuple[int, int, bytes]] = set()

    def pre_key(self, id_: int, /) -> PreKey:
        """Part of PreKeys."""
        if id_ not in self._pre_keys:
            raise InvalidPreKeyId("no such one-time pre-key")
        return self._pre_keys[id_]

    def signed_pre_key(self, id_: int, /) -> SignedPreKey:
        """Part of PreKeys."""
        if id_ not in self._signed:
            raise InvalidSignedPreKeyId("no such signed pre-key")
        return self._signed[id_]

    def kyber_pre_key(self, id_: int, /) -> KyberPreKey:
        """Part of PreKeys."""
        if id_ not in self._kyber:
            raise InvalidKyberPreKeyId("no such Kyber pre-key")
        return self._kyber[id_]

    def add_pre_key(self, fields: Fields) -> Fields:
        """Make or take in a one-time pre-key."""
        private = _optional(fields, "priv")
        key = (
            generate_pre_key(fields["id"], os.urandom)
            if private is None
            else PreKey.from_private(fields["id"], private)
        )
        self._pre_keys[key.id] = key
        return {"id": key.id, "priv": key.private.hex(), "pub": key.public.hex()}

    def add_signed_pre_key(self, fields: Fields) -> Fields:
        """Make or take in a signed pre-key; one taken in is signed again."""
        private, identity = _optional(fields, "priv"), self.local.identity
        if private is None:
            key = generate_signed_pre_key(identity, fields["id"], os.urandom)
        else:
            public = keys.public_of(keys.clamp(private))
            signature = sign(identity.private, public, os.urandom)
            key = SignedPreKey.from_private(fields["id"], private, signature)
        self._signed[key.id] = key
        return {"id": key.id, "priv": key.private.hex(), **_public(key)}

    def add_kyber_pre_key(self, fields: Fields) -> Fields:
        """Make or take in a Kyber pre-key; every one is treated as last-resort."""
        seed, identity = _optional(fields, "seed"), self.local.identity
        # Generating from a given seed is taking it in: the seed is the first thing drawn.
        source = os.urandom if seed is None else _first_then_random(seed)
        key = generate_kyber_pre_key(identity, fields["id"], source)
        self._kyber[key.id] = key
        return {"id": key.id, "seed": key.seed.hex(), **_public(key)}

    def accept(
        self, remote: Address, record: SessionRecord, identity: bytes, used: UsedPreKeys | None
    ) -> None:
        """Store what a successful decryption gave, or refuse a repeated last-resort key."""
        if used is not None:
            triple = (used.kyber_pre_key_id, used.signed_pre_key_id, used.base_key)
            if triple in self._seen:
                raise InvalidMessage("last-resort pre-key message seen before")
            self._seen.add(triple)
            if used.pre_key_id is not None:
                del self._pre_keys[used.pre_key_id]
        self.sessions[remote] = record
        self.trusted[remote] = identity


class Peers:
    """All parties of one process, and the operations on them."""

    def __init__(self) -> None:
        self._parties: dict[str, Party] = {}
        self._operations: dict[str, Callable[[Fields], Fields]] = {
            "version": self.version,
            "party": self.party,
            "preKeys": self.pre_keys,
            "processBundle": self.process_bundle,
            "encrypt": self.encrypt,
            "encryptMany": self.encrypt_many,
            "decrypt": self.decrypt,
            "decryptMany": self.decrypt_many,
            "archive": self.archive,
            "complain": self.complain,
            "heal": self.heal,
            "session": self.session,
            "setSession": self.set_session,
            "dropSession": self.drop_session,
            "safetyNumber": self.safety_number,
            "compareSafetyNumber": self.compare_safety_number,
        }

    def run(self, fields: Fields) -> Fields:
        """One operation; a refused one answers its error's name and has changed nothing."""
        try:
            return self._operations[fields["op"]](fields)
        except (RatchetError, CorruptRecord) as refused:
            return {"err": f"{type(refused).__name__}: {refused}"}
        except (KeyError, TypeError, ValueError) as unreadable:
            return {"err": f"BadRequest: {type(unreadable).__name__}"}

    def version(self, fields: Fields) -> Fields:
        """Which release this is."""
        return {"version": version("letterlock")}

    def party(self, fields: Fields) -> Fields:
        """Make a party, or replace one of the same name. `pq`, optional, is its policy for the
        post-quantum ratchet: required, optional or declined."""
        private = _optional(fields, "priv")
        identity = (
            IdentityKeyPair.generate(os.urandom)
            if private is None
            else IdentityKeyPair.from_private(private)
        )
        address = Address(fields["addr"], fields["dev"])
        policy = PostQuantumPolicy(fields.get("pq", PostQuantumPolicy.REQUIRED.value))
        local = LocalParty(address, identity, fields["reg"], policy)
        self._parties[fields["name"]] = Party(local)
        return {"priv": identity.private.hex(), "pub": identity.public.hex()}

    def pre_keys(self, fields: Fields) -> Fields:
        """Make or take in pre-keys of any kind."""
        party = self._of(fields)
        kinds = {
            "opk": party.add_pre_key,
            "spk": party.add_signed_pre_key,
            "kpk": party.add_kyber_pre_key,
        }
        return {kind: add(fields[kind]) for kind, add in kinds.items() if fields.get(kind)}

    def process_bundle(self, fields: Fields) -> Fields:
        """Start a session with the party a bundle describes."""
        party, remote, bundle = self._of(fields), _address(fields["to"]), _bundle(fields["b"])
        party.sessions[remote] = process_bundle(
            party.sessions.get(remote),
            local=party.local,
            remote=remote,
            bundle=bundle,
            trusted_identity=party.trusted.get(remote),
            now_ms=_now(fields),
            random=os.urandom,
        )
        party.trusted.setdefault(remote, keys.parse_public(bundle.identity_key))
        return {}

    def encrypt(self, fields: Fields) -> Fields:
        """Encrypt one message."""
        party, remote = self._of(fields), _address(fields["to"])
        record, message = encrypt(
            party.sessions.get(remote),
            local=party.local,
            remote=remote,
            plaintext=bytes.fromhex(fields["pt"]),
            trusted_identity=party.trusted.get(remote),
            now_ms=_now(fields),
            random=os.urandom,
        )
        party.sessions[remote] = record
        return {"type": int(message.type), "ct": message.body.hex()}

    def encrypt_many(self, fields: Fields) -> Fields:
        """Encrypt a list of messages, in order."""
        return {"out": [self.encrypt(fields | {"pt": plaintext}) for plaintext in fields["pts"]]}

    def decrypt(self, fields: Fields) -> Fields:
        """Decrypt one message."""
        party, remote = self._of(fields), _address(fields["from"])
        opened = decrypt(
            party.sessions.get(remote),
            local=party.local,
            remote=remote,
            message=CiphertextMessage(fields["type"], bytes.fromhex(fields["ct"])),
            trusted_identity=party.trusted.get(remote),
            pre_keys=party,
            now_ms=_now(fields),
            random=os.urandom,
        )
        party.accept(remote, opened.record, opened.remote_identity, opened.used)
        return {"pt": opened.plaintext.hex()}

    def decrypt_many(self, fields: Fields) -> Fields:
        """Decrypt a list of messages, in order; a refused one leaves the others alone."""
        return {"out": [self.run(fields | each | {"op": "decrypt"}) for each in fields["cts"]]}

    def archive(self, fields: Fields) -> Fields:
        """Archive the current session."""
        party, remote = self._of(fields), _address(fields["to"])
        if remote in party.sessions:
            party.sessions[remote] = party.sessions[remote].archive()
        return {}

    def complain(self, fields: Fields) -> Fields:
        """The type 8 message for the device that sent a message which does not open."""
        message = CiphertextMessage(fields["type"], bytes.fromhex(fields["ct"]))
        error = DecryptionError.of(
            message, timestamp_ms=_now(fields), device_id=fields["from"]["dev"]
        ).to_bytes()
        return {"ct": plaintext_content(bytes_field(8, error)).hex()}

    def heal(self, fields: Fields) -> Fields:
        """Take in a type 8 message: archive the session that the other end cannot decrypt."""
        party, remote = self._of(fields), _address(fields["from"])
        key = decryption_error_of(bytes.fromhex(fields["ct"])).ratchet_key
        record = party.sessions.get(remote)
        archived = key is not None and record is not None and record.sends_under(key)
        if archived and record is not None:
            party.sessions[remote] = record.archive()
        return {"archived": archived}

    def session(self, fields: Fields) -> Fields:
        """The serialised record, private keys and all."""
        record = self._of(fields).sessions.get(_address(fields["to"]))
        return {"session": None if record is None else record.to_bytes().hex()}

    def set_session(self, fields: Fields) -> Fields:
        """Put a serialised record in place."""
        record = SessionRecord.from_bytes(bytes.fromhex(fields["session"]))
        self._of(fields).sessions[_address(fields["to"])] = record
        return {}

    def drop_session(self, fields: Fields) -> Fields:
        """Forget all sessions with an address."""
        self._of(fields).sessions.pop(_address(fields["to"]), None)
        return {}

    def safety_number(self, fields: Fields) -> Fields:
        """The safety number with another identity key."""
        number = self._safety_number(fields)
        return {"displayable": number.displayable, "scannable": number.scannable.hex()}

    def compare_safety_number(self, fields: Fields) -> Fields:
        """Whether what was scanned on the other side is the same."""
        return {"same": self._safety_number(fields).compare(bytes.fromhex(fields["scanned"]))}

    def _safety_number(self, fields: Fields) -> SafetyNumber:
        return safety_number(
            version=_SAFETY_NUMBER_VERSION,
            local_identifier=bytes.fromhex(fields["id"]),
            local_identity=self._of(fields).local.identity.public,
            remote_identifier=bytes.fromhex(fields["peerId"]),
            remote_identity=keys.parse_public(bytes.fromhex(fields["peerPub"])),
        )

    def _of(self, fields: Fields) -> Party:
        return self._parties[fields["name"]]


def serve(lines: Iterable[str], out: TextIO) -> None:
    """Answer every line until the input ends."""
    peers = Peers()
    for line in lines:
        try:
            answer = peers.run(json.loads(line))
        except ValueError:
            answer = {"err": "BadRequest: not JSON"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


def _address(fields: Fields) -> Address:
    return Address(fields["addr"], fields["dev"])


def _bundle(fields: Fields) -> PreKeyBundle:
    one_time, signed, kyber_key = fields.get("opk"), fields["spk"], fields["kpk"]
    return PreKeyBundle(
        registration_id=fields["reg"],
        device_id=fields["dev"],
        identity_key=bytes.fromhex(fields["id"]),
        signed_pre_key_id=signed["id"],
        signed_pre_key=bytes.fromhex(signed["pub"]),
        signed_pre_key_signature=bytes.fromhex(signed["sig"]),
        kyber_pre_key_id=kyber_key["id"],
        kyber_pre_key=bytes.fromhex(kyber_key["pub"]),
        kyber_pre_key_signature=bytes.fromhex(kyber_key["sig"]),
        pre_key_id=None if one_time is None else one_time["id"],
        pre_key=None if one_time is None else bytes.fromhex(one_time["pub"]),
    )


def _public(key: SignedPreKey | KyberPreKey) -> Fields:
    return {"pub": key.public.hex(), "sig": key.signature.hex()}


def _optional(fields: Fields, name: str) -> bytes | None:
    return None if fields.get(name) is None else bytes.fromhex(fields[name])


def _first_then_random(first: bytes) -> Callable[[int], bytes]:
    given = iter((first,))
    return lambda size: next(given, None) or os.urandom(size)


def _now(fields: Fields) -> int:
    given: int | None = fields.get("nowMs")
    return time.time_ns() // 1_000_000 if given is None else given


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
