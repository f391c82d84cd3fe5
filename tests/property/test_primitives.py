"""The primitives, portable and compiled, held against the libraries and against each other."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tripleratchet import primitives
from tripleratchet.primitives import portable

from tests.harness.peers import missing
from tests.harness.ratchet import ORDER_8

_NAMES = sorted(set(primitives.__all__) - {"PRIMITIVES"})
_KEYS = st.binary(min_size=32, max_size=32)
_IVS = st.binary(min_size=16, max_size=16)
_PRIME = 2**255 - 19
_ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
_SOMEBODY_ELSE = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
_LOW_ORDER = [
    u.to_bytes(32, "little")
    for u in (0, 1, *ORDER_8, _PRIME - 1, _PRIME, _PRIME + 1, 2**255, 2**255 + 1)
]


def _native() -> ModuleType:
    try:
        return importlib.import_module("tripleratchet_native")
    except ModuleNotFoundError:
        missing("Rust: the ratchet's primitives are not compiled")


@pytest.fixture(params=["portable", "native"], scope="module")
def made(request: pytest.FixtureRequest) -> ModuleType:
    """One implementation."""
    return portable if request.param == "portable" else _native()


@given(_KEYS, st.none() | _KEYS, st.binary(max_size=300), st.binary(max_size=50))
def test_the_hashes_are_the_librarys(
    made: ModuleType, key: bytes, salt: bytes | None, message: bytes, info: bytes
) -> None:
    expected = HMAC(key, SHA256())
    expected.update(message)
    assert made.mac(key, message) == expected.finalize()
    assert made.mac_pair(key, message, info) == (made.mac(key, message), made.mac(key, info))
    okm = HKDF(SHA256(), 96, salt, info).derive(message)
    assert b"".join(made.hkdf_pair(salt, message, info)) == okm[:64]
    assert [made.hkdf(salt, message, info, size) for size in (32, 80, 96)] == [
        okm[:32],
        okm[:80],
        okm,
    ]


@given(_KEYS, _IVS, st.binary(max_size=300))
def test_the_cipher_is_the_librarys(
    made: ModuleType, key: bytes, iv: bytes, plaintext: bytes
) -> None:
    padder, cipher = PKCS7(128).padder(), Cipher(AES256(key), CBC(iv)).encryptor()
    expected = cipher.update(padder.update(plaintext) + padder.finalize())
    assert made.aes256_cbc_encrypt(key, iv, plaintext) == expected
    assert made.aes256_cbc_decrypt(key, iv, expected) == plaintext


@given(_KEYS, _IVS, st.binary(min_size=32, max_size=32))
@example(bytes(32), bytes(16), b"\x01" * 31 + b"\x00")
@example(bytes(32), bytes(16), b"\x02" * 31 + b"\x11")
@example(bytes(32), bytes(16), b"\x01" * 30 + b"\x01\x02")
def test_padding_is_judged_alike(key: bytes, iv: bytes, padded: bytes) -> None:
    blocks = Cipher(AES256(key), CBC(iv)).encryptor().update(padded)
    assert _of(portable, "aes256_cbc_decrypt", key, iv, blocks) == _of(
        _native(), "aes256_cbc_decrypt", key, iv, blocks
    )


@pytest.mark.parametrize("size", [0, 1, 15, 17, 33])
def test_what_is_not_whole_blocks_does_not_decrypt(made: ModuleType, size: int) -> None:
    with pytest.raises(ValueError, match=r"block|adding"):
        made.aes256_cbc_decrypt(bytes(32), bytes(16), bytes(size))


@given(_KEYS, _KEYS)
def test_the_agreement_is_the_librarys(made: ModuleType, private: bytes, public: bytes) -> None:
    assume(public not in _LOW_ORDER)
    key = X25519PrivateKey.from_private_bytes(private)
    assert made.x25519_base(private) == key.public_key().public_bytes_raw()
    expected = key.exchange(X25519PublicKey.from_public_bytes(public))
    assert made.x25519(private, public) == expected


@pytest.mark.parametrize("public", _LOW_ORDER)
def test_points_of_low_order_are_refused(made: ModuleType, public: bytes) -> None:
    with pytest.raises(ValueError, match="low order"):
        made.x25519(b"\x5a" * 32, public)


@given(_KEYS, st.binary(max_size=200), st.integers(0, 511))
def test_signatures_are_the_librarys(
    made: ModuleType, seed: bytes, message: bytes, bit: int
) -> None:
    signer = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = signer.public_key().public_bytes_raw(), signer.sign(message)
    changed = bytearray(signature)
    changed[bit // 8] ^= 1 << bit % 8
    assert made.ed25519_verify(public, message, signature) is True
    assert made.ed25519_verify(public, message + b"\0", signature) is False
    assert made.ed25519_verify(_SOMEBODY_ELSE, message, signature) is False
    assert made.ed25519_verify(public, message, bytes(changed)) is False
    above = (int.from_bytes(signature[32:], "little") + _ED25519_ORDER).to_bytes(32, "little")
    assert made.ed25519_verify(public, message, signature[:32] + above) is False


@settings(max_examples=20)
@given(st.binary(min_size=64, max_size=64))
def test_an_encapsulated_secret_is_what_the_library_decapsulates(
    made: ModuleType, seed: bytes
) -> None:
    private = MLKEM1024PrivateKey.from_seed_bytes(seed)
    secret, ciphertext = made.mlkem1024_encapsulate(private.public_key().public_bytes_raw())
    assert private.decapsulate(ciphertext) == secret


@pytest.mark.parametrize("public", [b"", bytes(1567), bytes(1569), b"\xff" * 1568])
def test_an_encapsulation_key_that_is_none_is_refused(made: ModuleType, public: bytes) -> None:
    # The last has the right size and coefficients out of range.
    assert _of(made, "mlkem1024_encapsulate", public) is ValueError


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("aes256_cbc_encrypt", (bytes(31), bytes(16), b"")),
        ("aes256_cbc_decrypt", (bytes(33), bytes(16), bytes(16))),
    ],
)
def test_a_key_of_another_size_is_refused(
    made: ModuleType, name: str, arguments: tuple[bytes, ...]
) -> None:
    assert _of(made, name, *arguments) is ValueError


def test_the_compiled_ones_are_taken_where_they_are_installed() -> None:
    native = _native()
    assert primitives.PRIMITIVES == "native"
    assert all(getattr(primitives, name) is getattr(native, name) for name in _NAMES)


def test_without_a_compiler_the_portable_ones_are_taken() -> None:
    names = " and ".join(f"p.{name} is portable.{name}" for name in _NAMES)
    printed = _python(
        "import sys; sys.modules['tripleratchet_native'] = None\n"
        "from tripleratchet import primitives as p\n"
        "from tripleratchet.primitives import portable\n"
        f"print(p.PRIMITIVES, {names})"
    )
    assert printed.stdout.split() == ["portable", "True"], printed.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("def mac(): ...", "ImportError: cannot import name"),
        ("import a_part_that_is_gone", "ModuleNotFoundError: No module named 'a_part_that"),
    ],
)
def test_a_compiled_package_that_does_not_fit_is_an_error(
    tmp_path: Path, content: str, told: str
) -> None:
    (tmp_path / "tripleratchet_native.py").write_text(f"{content}\n")
    printed = _python("import tripleratchet", first=tmp_path)
    assert printed.returncode == 1
    assert told in printed.stderr


def _of(made: ModuleType, name: str, *arguments: bytes) -> bytes | type[Exception]:
    try:
        result: bytes = getattr(made, name)(*arguments)
    except ValueError:
        return ValueError
    return result


def _python(program: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    paths = [str(first)] if first else []
    given_path = os.environ.get("PYTHONPATH")
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [given_path])])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_vectors_hold_without_a_compiler_too() -> None:
    _native()  # else they are all that the other tests have used
    printed = _python(
        "import sys; sys.modules['tripleratchet_native'] = None\n"
        "import pytest; sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider',"
        " 'tests/unit/tripleratchet']))"
    )
    assert printed.returncode == 0, printed.stdout
