"""Rounds a payload up to a size step, so that its ciphertext tells only the step.

    160, 320, … 1,440, 1,600, 3,200, 4,800, …

Both ends use it on what they send; on receipt padding is ignored. Knows no encryption.
Source: letterlock/content/v1/content.proto, message Payload.
"""

from __future__ import annotations

from letterlock.content.v1 import content_pb2

SMALL_STEP = 160
"""Step up to LARGE_STEP. Finer steps tell more, coarser ones cost more for short texts."""

LARGE_STEP = 1_600
"""Step above it: longer texts are rare, so each needs a larger crowd to hide in."""

_PADDING_TAG = b"\x7a"  # field 15, length-delimited


def pad(payload: content_pb2.Payload) -> bytes:
    """`payload` serialised, with zero bytes in `padding` up to the next step; changes it not.

    Any padding that it has already is dropped.
    """
    if payload.padding:
        bare = content_pb2.Payload()
        bare.CopyFrom(payload)
        bare.ClearField("padding")
        payload = bare
    return pad_serialized(payload.SerializeToString())


def pad_serialized(body: bytes) -> bytes:
    """`pad` of a payload that is serialised already and has no padding."""
    target = _next_step(len(body))
    while (field := _field_of(target - len(body))) is None:
        target = _next_step(target + 1)
    return body + field


def _next_step(size: int) -> int:
    step = SMALL_STEP if size <= LARGE_STEP else LARGE_STEP
    return max(-(-size // step), 1) * step


def _field_of(size: int) -> bytes | None:
    # A field takes a tag, a length and the bytes: no field has 1 byte, and none has 130, where the
    # length grows to two bytes. Such a payload goes to the step after.
    if size == 0:
        return b""
    count = size - 2 if size < 130 else size - 3
    if count < 0 or size == 130:
        return None
    length = bytes([count]) if count < 0x80 else bytes([count & 0x7F | 0x80, count >> 7])
    return _PADDING_TAG + length + bytes(count)
