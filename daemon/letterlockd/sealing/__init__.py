"""Encryption at rest: master key, business keys, day keys, seals."""
