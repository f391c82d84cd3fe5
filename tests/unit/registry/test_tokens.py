"""The text form of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letterlockd.errors import Unauthenticated
from letterlockd.registry import tokens

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.binary(min_size=32, max_size=32))
def test_a_secret_has_one_spelling(secret: bytes) -> None:
    text, minted = tokens.mint(lambda _: secret, tokens.OPERATOR)
    assert tokens.parse(text) == minted
    for last in ALPHABET.replace(text[-1], ""):
        try:
            other = tokens.parse(text[:-1] + last)
        except Unauthenticated:
            continue
        assert not tokens.matches(minted, other.digest)


def test_bits_to_spare_are_refused() -> None:
    text, _ = tokens.mint(lambda _: b"\x00" * 31 + b"\x07", tokens.OPERATOR)
    assert text.endswith("c")
    for last in "def":
        with pytest.raises(Unauthenticated):
            tokens.parse(text[:-1] + last)
