"""The certificate a server shows: made by a local CA on first start, or the operator's own.

    <folder>/ca.crt      0644  what clients trust          ca.key      0600
    <folder>/server.crt  0644  leaf, then the CA           server.key  0600

All keys are ECDSA P-256. The leaf is issued again at a start that finds less than 200 days left on
it, or a name missing from it; the CA stays, so clients keep what they trust. Knows files and
certificates, nothing of servers.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from letterlockd.errors import EnvironmentFault
from letterlockd.files import read_file, write_file

__all__ = ["ServerIdentity", "TlsFault", "local_identity", "own_identity"]

CA_LIFETIME = dt.timedelta(days=3650)
LEAF_LIFETIME = dt.timedelta(days=397)  # what strict clients accept at most
RENEW_BEFORE = dt.timedelta(days=200)  # a start every six months is enough
_BACKDATED = dt.timedelta(hours=1)  # clients whose clock runs behind
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

_Ca = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


class TlsFault(EnvironmentFault):
    """A certificate or key that cannot be used; the message names the file."""

    reason = "TLS_UNUSABLE"


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """PEM chain and key of a server. `ca_path` is what clients should trust, when it is ours."""

    chain: bytes
    private_key: bytes = field(repr=False)
    ca_path: Path | None


def own_identity(certificate: Path, key: Path, now: dt.datetime) -> ServerIdentity:
    """The operator's certificate chain and key. `TlsFault` when a file cannot be read, the two do
    not belong together, or the certificate's time is over."""
    chain, key_pem = _read(certificate), _read(key)
    leaf = _parse_certificate(certificate, chain)
    if not _belongs(leaf, _parse_key(key, key_pem)):
        raise TlsFault(f"{key} is not the key of the certificate {certificate}")
    if leaf.not_valid_after_utc <= now:
        raise TlsFault(f"{certificate} expired on {leaf.not_valid_after_utc:%Y-%m-%d}")
    return ServerIdentity(chain, key_pem, None)


def local_identity(folder: Path, names: Sequence[str], now: dt.datetime) -> ServerIdentity:
    """The identity from the local CA in `folder`, made as far as it is missing or due.

    `names` are host names and addresses in addition to the local ones. Safe when two processes
    start at once: the folder is locked meanwhile.
    """
    wanted = list(dict.fromkeys((*_LOCAL_NAMES, socket.gethostname(), *names)))
    with _locked(folder):
        ca = _ca(folder, now)
        if not _leaf_serves(folder, ca, wanted, now):
            _issue_leaf(folder, ca, wanted, now)
        chain, key = _read(folder / "server.crt"), _read(folder / "server.key")
    return ServerIdentity(chain, key, folder / "ca.crt")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise TlsFault(f"{folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _ca(folder: Path, now: dt.datetime) -> _Ca:
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if not certificate.exists() and not key.exists():
        return _make_ca(folder, now)
    if not key.exists():
        raise TlsFault(
            f"{certificate} is there without {key}: if it is another machine's CA, put it "
            "elsewhere and name it in gateway.relay_ca"
        )
    ca = _parse_certificate(certificate, _read(certificate)), _parse_key(key, _read(key))
    if not _belongs(*ca):
        raise TlsFault(f"{key} is not the key of {certificate}")
    if ca[0].not_valid_after_utc <= now:
        raise TlsFault(f"{certificate} expired: remove {folder} and give clients the new CA")
    return ca


def _make_ca(folder: Path, now: dt.datetime) -> _Ca:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Letterlock local CA {x509.random_serial_number():x}"[:48])
    certificate = (
        _builder(name, name, key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_file(folder / "ca.key", _key_pem(key), mode=0o600)
    write_file(folder / "ca.crt", certificate.public_bytes(Encoding.PEM), mode=0o644)
    return certificate, key


def _issue_leaf(folder: Path, ca: _Ca, names: Sequence[str], now: dt.datetime) -> None:
    issuer, issuer_key = ca
    key = ec.generate_private_key(ec.SECP256R1())
    lifetime = min(LEAF_LIFETIME, issuer.not_valid_after_utc - now)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    certificate = (
        _builder(_name("letterlockd"), issuer.subject, key.public_key(), now, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(x509.SubjectAlternativeName(list(map(_san, names))), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    chain = certificate.public_bytes(Encoding.PEM) + issuer.public_bytes(Encoding.PEM)
    write_file(folder / "server.key", _key_pem(key), mode=0o600)
    write_file(folder / "server.crt", chain, mode=0o644)


def _leaf_serves(folder: Path, ca: _Ca, names: Sequence[str], now: dt.datetime) -> bool:
    """Whether the leaf on disk is whole, from this CA, long enough valid, and has all names. A
    key that is not its own is what a crash between the two writes leaves: issued again."""
    certificate, key = folder / "server.crt", folder / "server.key"
    if not certificate.exists() or not key.exists():
        return False
    leaf = _parse_certificate(certificate, _read(certificate))
    try:
        leaf.verify_directly_issued_by(ca[0])
    except (InvalidSignature, ValueError, TypeError):
        return False
    alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        _belongs(leaf, _parse_key(key, _read(key)))
        and leaf.not_valid_after_utc - now > RENEW_BEFORE
        and all(_san(name) in alternatives for name in names)
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    lifetime: dt.timedelta,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _BACKDATED).not_valid_after(now + lifetime)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> bytes:
    return read_file(path, limit=256 * 1024, fault=TlsFault)


def _parse_certificate(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise TlsFault(f"{path} is not a certificate in PEM form") from None


def _parse_key(path: Path, pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        raise TlsFault(f"{path} is not an unencrypted private key in PEM form") from None
    return key  # type: ignore[return-value]  # an operator's own may be RSA: only compared


def _belongs(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    def encoded(public: object) -> bytes:
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]

    return encoded(certificate.public_key()) == encoded(key.public_key())
