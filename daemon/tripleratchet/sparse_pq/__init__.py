"""The sparse post-quantum ratchet, SPQR version 1: ML-KEM-768, a chunk at a time.

Read in this order: ratchet (what a session sees), wire, chains, states with ek_side and ct_side,
then authenticator, kem with lattice, erasure with evaluation and
field, stored, layouts and resting. docs/protocol.md beside it.
"""

from .ratchet import SparseRatchet

__all__ = ["SparseRatchet"]
