from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from letterlockd.store.lmdb.wire import Unpacker, pack

messages = st.recursive(
    st.none() | st.integers(0, 2**64) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers(), inner),
    max_leaves=10,
)


@given(sent=st.lists(messages, max_size=5), cuts=st.lists(st.integers(1, 20), min_size=1))
def test_messages_come_whole_however_the_bytes_come(sent: list[object], cuts: list[int]) -> None:
    stream = b"".join(pack(message) for message in sent)
    unpacker, received, turn = Unpacker(), [], 0
    while stream:
        length = cuts[turn % len(cuts)]
        received += unpacker.feed(stream[:length])
        stream, turn = stream[length:], turn + 1
    assert received == sent
