"""Letterlock: the public contract and the Python SDK."""
