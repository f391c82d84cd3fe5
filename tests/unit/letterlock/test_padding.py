import pytest
from hypothesis import given
from hypothesis import strategies as st
from letterlock.content.padding import LARGE_STEP, SMALL_STEP, pad
from letterlock.content.v1 import content_pb2


def payload(size: int) -> content_pb2.Payload:
    """A payload whose text has `size` bytes."""
    text = content_pb2.Text(body="x" * size)
    return content_pb2.Payload(message_id=bytes(16), content=content_pb2.Content(text=text))


def bare_size(size: int) -> int:
    return len(payload(size).SerializeToString())


def is_step(size: int) -> bool:
    return size % (SMALL_STEP if size <= LARGE_STEP else LARGE_STEP) == 0


@pytest.mark.parametrize("first", [0, 1_300, 1_500, 4_600, 16_200])
def test_every_size_lands_on_a_step_and_reads_back(first: int) -> None:
    for size in range(first, first + 400):
        padded = pad(payload(size))
        assert is_step(len(padded))
        read = content_pb2.Payload.FromString(padded)
        assert set(read.padding) <= {0}
        read.ClearField("padding")
        assert read == payload(size)


@given(st.integers(min_value=0, max_value=16_384))
def test_padding_is_never_more_than_two_steps(size: int) -> None:
    added = len(pad(payload(size))) - bare_size(size)
    step = SMALL_STEP if bare_size(size) <= LARGE_STEP - SMALL_STEP else LARGE_STEP
    assert 0 <= added <= step + SMALL_STEP


def test_an_exact_fit_gets_no_padding() -> None:
    size = next(size for size in range(200) if bare_size(size) == SMALL_STEP)
    assert pad(payload(size)) == payload(size).SerializeToString()


@pytest.mark.parametrize("gap", [1, 130])
def test_a_gap_that_no_field_fills_goes_to_the_next_step(gap: int) -> None:
    size = next(size for size in range(300) if bare_size(size) == 2 * SMALL_STEP - gap)
    assert len(pad(payload(size))) == 3 * SMALL_STEP


def test_earlier_padding_is_replaced_and_the_payload_left_alone() -> None:
    given_ = payload(10)
    given_.padding = bytes(3_000)
    before = given_.SerializeToString()
    assert len(pad(given_)) == SMALL_STEP
    assert given_.SerializeToString() == before


def test_the_empty_payload_has_the_size_of_the_first_step() -> None:
    assert len(pad(content_pb2.Payload())) == SMALL_STEP
