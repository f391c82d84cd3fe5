import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letterlockd.workers.frames import (
    HEADER,
    MAX_BODY_BYTES,
    BadFrame,
    Unpacker,
    read_frame,
    write_frame,
)

Frames = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=50)), max_size=8)


@given(Frames, st.integers(min_value=1, max_value=20))
def test_frames_come_back_whole_however_the_bytes_are_cut(
    frames: list[tuple[int, bytes]], chunk: int
) -> None:
    stream = io.BytesIO()
    for sequence, body in frames:
        write_frame(stream, sequence, body)
    data = stream.getvalue()
    unpacker, seen = Unpacker(), []
    for start in range(0, len(data), chunk):
        seen += unpacker.feed(data[start : start + chunk])
    assert seen == frames


@given(Frames)
def test_the_blocking_reader_reads_the_same_and_then_the_end(
    frames: list[tuple[int, bytes]],
) -> None:
    stream = io.BytesIO()
    for sequence, body in frames:
        write_frame(stream, sequence, body)
    stream.seek(0)
    assert list(iter(lambda: read_frame(stream), None)) == frames


def test_a_cut_frame_reads_as_the_end() -> None:
    whole = HEADER.pack(3, 1) + b"abc"
    for end in range(len(whole)):
        assert read_frame(io.BytesIO(whole[:end])) is None


def test_a_length_past_the_limit_is_refused_at_once() -> None:
    with pytest.raises(BadFrame):
        Unpacker().feed(HEADER.pack(MAX_BODY_BYTES + 1, 0))
