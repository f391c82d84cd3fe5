import datetime as dt
import stat
from pathlib import Path

import pytest
from cryptography import x509
from letterlockd.rpc.tls import (
    CA_LIFETIME,
    LEAF_LIFETIME,
    RENEW_BEFORE,
    ServerIdentity,
    TlsFault,
    local_identity,
    own_identity,
)

NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)


def leaf(identity: ServerIdentity) -> x509.Certificate:
    return x509.load_pem_x509_certificates(identity.chain)[0]


def names(identity: ServerIdentity) -> set[str]:
    extension = leaf(identity).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(name.value) for name in extension.value}


def test_first_start_makes_a_ca_and_a_leaf_with_the_local_names(tmp_path: Path) -> None:
    identity = local_identity(tmp_path / "tls", ["gateway.example", "10.0.0.7"], NOW)
    assert names(identity) >= {"localhost", "127.0.0.1", "::1", "gateway.example", "10.0.0.7"}
    ca = x509.load_pem_x509_certificate((tmp_path / "tls" / "ca.crt").read_bytes())
    leaf(identity).verify_directly_issued_by(ca)
    assert identity.ca_path == tmp_path / "tls" / "ca.crt"
    assert b"PRIVATE" not in repr(identity).encode()


def test_private_files_are_private(tmp_path: Path) -> None:
    local_identity(tmp_path, [], NOW)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600}


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    first = local_identity(tmp_path, [], NOW)
    assert local_identity(tmp_path, [], NOW + dt.timedelta(days=1)) == first


@pytest.mark.parametrize(
    ("left", "renewed"), [(RENEW_BEFORE, True), (RENEW_BEFORE + dt.timedelta(days=1), False)]
)
def test_the_leaf_is_renewed_when_little_time_is_left(
    tmp_path: Path, left: dt.timedelta, renewed: bool
) -> None:
    first = local_identity(tmp_path, [], NOW)
    ca = (tmp_path / "ca.crt").read_bytes()
    second = local_identity(tmp_path, [], NOW + LEAF_LIFETIME - left)
    assert (leaf(second) != leaf(first)) is renewed
    assert (tmp_path / "ca.crt").read_bytes() == ca


def test_a_start_every_half_year_keeps_the_leaf_valid(tmp_path: Path) -> None:
    now = NOW
    for _ in range(8):
        end = leaf(local_identity(tmp_path, [], now)).not_valid_after_utc
        now += dt.timedelta(days=184)
        assert now < end


def test_a_new_name_renews_the_leaf(tmp_path: Path) -> None:
    first = local_identity(tmp_path, [], NOW)
    second = local_identity(tmp_path, ["new.example"], NOW)
    assert "new.example" in names(second) - names(first)


def test_a_leaf_of_another_ca_is_replaced(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    local_identity(mine, [], NOW)
    local_identity(other, [], NOW)
    for name in ("server.crt", "server.key"):
        (mine / name).write_bytes((other / name).read_bytes())
    ca = x509.load_pem_x509_certificate((mine / "ca.crt").read_bytes())
    leaf(local_identity(mine, [], NOW)).verify_directly_issued_by(ca)


def test_an_interrupted_renewal_is_finished(tmp_path: Path) -> None:
    first = local_identity(tmp_path, [], NOW)
    other = local_identity(tmp_path / "other", [], NOW)
    (tmp_path / "server.key").write_bytes(other.private_key)  # the key was written, the leaf not
    second = local_identity(tmp_path, [], NOW)
    assert second.private_key not in (first.private_key, other.private_key)
    own_identity(tmp_path / "server.crt", tmp_path / "server.key", NOW)


def test_an_expired_ca_is_the_operators_to_replace(tmp_path: Path) -> None:
    local_identity(tmp_path, [], NOW)
    with pytest.raises(TlsFault, match=r"ca\.crt expired"):
        local_identity(tmp_path, [], NOW + CA_LIFETIME)


def test_a_ca_without_its_key_is_named(tmp_path: Path) -> None:
    local_identity(tmp_path, [], NOW)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(TlsFault, match=r"ca\.crt is there without .*ca\.key.* gateway\.relay_ca"):
        local_identity(tmp_path, [], NOW)


def test_own_certificates_are_used_as_they_are(tmp_path: Path) -> None:
    made = local_identity(tmp_path, [], NOW)
    identity = own_identity(tmp_path / "server.crt", tmp_path / "server.key", NOW)
    assert (identity.chain, identity.private_key) == (made.chain, made.private_key)
    assert identity.ca_path is None


@pytest.mark.parametrize("missing", ["server.crt", "server.key"])
def test_an_unreadable_file_is_named(tmp_path: Path, missing: str) -> None:
    local_identity(tmp_path, [], NOW)
    (tmp_path / missing).unlink()
    with pytest.raises(TlsFault, match=missing):
        own_identity(tmp_path / "server.crt", tmp_path / "server.key", NOW)


@pytest.mark.parametrize("broken", ["server.crt", "server.key"])
@pytest.mark.parametrize("content", [b"", b"not pem", b"x" * 300_000])
def test_a_broken_file_is_named(tmp_path: Path, broken: str, content: bytes) -> None:
    local_identity(tmp_path, [], NOW)
    (tmp_path / broken).write_bytes(content)
    with pytest.raises(TlsFault, match=broken):
        own_identity(tmp_path / "server.crt", tmp_path / "server.key", NOW)


def test_a_pair_that_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    local_identity(tmp_path / "a", [], NOW)
    local_identity(tmp_path / "b", [], NOW)
    with pytest.raises(TlsFault, match="is not the key of"):
        own_identity(tmp_path / "a" / "server.crt", tmp_path / "b" / "server.key", NOW)


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    local_identity(tmp_path, [], NOW)
    with pytest.raises(TlsFault, match="expired on"):
        own_identity(tmp_path / "server.crt", tmp_path / "server.key", NOW + LEAF_LIFETIME)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TlsFault, match="cannot be used"):
        local_identity(tmp_path / "file" / "tls", [], NOW)
