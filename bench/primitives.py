"""The ratchet's primitives, portable beside compiled: microseconds of a call in a loop of its own.

    python -m bench.primitives [--json] [--rounds N]

Rounds alternate; the figure is the median. Without the compiled package only the portable ones.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import time
from collections.abc import Iterator
from types import ModuleType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from tripleratchet.primitives import PRIMITIVES, portable

from bench import measure
from bench.row import Row

_ROUND_S = 0.02


def _calls() -> dict[str, tuple[object, ...]]:
    """Arguments as a message of 256 bytes, and a bundle, have them."""
    key, iv, text = os.urandom(32), os.urandom(16), os.urandom(256)
    signer, pre_key = Ed25519PrivateKey.generate(), os.urandom(1_569)
    kem = MLKEM1024PrivateKey.generate().public_key()
    return {
        "mac_pair": (key, b"\x01", b"\x02"),
        "hkdf": (key, key, b"WhisperMessageKeys", 80),
        "hkdf_pair": (None, key, os.urandom(40)),
        "aes256_cbc_encrypt": (key, iv, text),
        "aes256_cbc_decrypt": (key, iv, portable.aes256_cbc_encrypt(key, iv, text)),
        "mac": (key, os.urandom(520)),
        "x25519": (key, portable.x25519_base(os.urandom(32))),
        "x25519_base": (key,),
        "ed25519_verify": (signer.public_key().public_bytes_raw(), pre_key, signer.sign(pre_key)),
        "mlkem1024_encapsulate": (kem.public_bytes_raw(),),
    }


def _taken_us(made: ModuleType, name: str, arguments: tuple[object, ...]) -> float:
    call, count, began = getattr(made, name), 0, time.perf_counter()
    passed = 0.0
    while not count or passed < _ROUND_S:
        for _ in range(20):
            call(*arguments)
        count += 20
        passed = time.perf_counter() - began
    return passed / count * 1e6


def _rows(rounds: int) -> Iterator[Row]:
    kinds = {"portable": portable}
    if PRIMITIVES == "native":
        kinds["compiled"] = importlib.import_module("tripleratchet_native")
    for name, arguments in _calls().items():
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind, made in kinds.items():
                taken[kind].append(_taken_us(made, name, arguments))
        medians = {kind: round(statistics.median(times), 2) for kind, times in taken.items()}
        yield {"primitive": name, **medians}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.primitives", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    rows = list(_rows(arguments.rounds))
    measure.show("primitives", "primitives, µs a call", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
