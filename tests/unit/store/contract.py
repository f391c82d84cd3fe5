"""What every engine of the storage port must do; each engine's test module subclasses it."""

from __future__ import annotations

import asyncio

import pytest
from letterlockd.errors import BrokenInvariant
from letterlockd.store.limits import MAX_KEY_BYTES
from letterlockd.store.port import (
    ABSENT,
    Check,
    CommitConflict,
    Delete,
    Put,
    Record,
    Store,
    StoreUnavailable,
    Table,
)

LETTERS = Table("letters", 10, expires=True)
PEOPLE = Table("people", 11, expires=False)
FOREIGN = Table("foreign", 12, expires=False)
OTHERS = Table("others", 13, expires=True)
TABLES = (LETTERS, PEOPLE, OTHERS)


class StoreContract:
    """Subclasses provide the fixture `store`, opened with `TABLES`."""

    async def test_put_then_get_gives_value_version_and_expiry(self, store: Store) -> None:
        outcomes = await store.commit([[Put(LETTERS, b"k", b"v", 50)], [Put(PEOPLE, b"k", b"w")]])
        assert outcomes == [None, None]
        assert await store.get(LETTERS, b"k") == Record(b"v", 1, 50)
        assert await store.get(PEOPLE, b"k") == Record(b"w", 1, 0)

    async def test_every_write_counts_the_version_and_a_new_life_begins_at_one(
        self, store: Store
    ) -> None:
        await store.commit([[Put(PEOPLE, b"k", b"1")], [Put(PEOPLE, b"k", b"2")]])
        await store.commit([[Put(PEOPLE, b"k", b"3")]])
        assert await store.get(PEOPLE, b"k") == Record(b"3", 3, 0)
        await store.commit([[Delete(PEOPLE, b"k"), Put(PEOPLE, b"k", b"4")]])
        assert await store.get(PEOPLE, b"k") == Record(b"4", 1, 0)

    async def test_absent_keys_and_their_removal(self, store: Store) -> None:
        assert await store.get(PEOPLE, b"none") is None
        assert await store.commit([[Delete(PEOPLE, b"none")]]) == [None]

    async def test_no_commits_are_no_outcomes(self, store: Store) -> None:
        assert await store.commit([]) == []
        assert await store.commit([[]]) == [None]

    async def test_a_failed_check_stops_its_commit_alone_and_wholly(self, store: Store) -> None:
        await store.commit([[Put(PEOPLE, b"a", b"1")]])
        outcomes = await store.commit(
            [
                [Put(PEOPLE, b"b", b"1"), Check(PEOPLE, b"b", ABSENT)],
                [Put(PEOPLE, b"c", b"1"), Check(PEOPLE, b"a", 2), Check(PEOPLE, b"b", 7)],
                [Check(PEOPLE, b"a", 1), Put(PEOPLE, b"a", b"2")],
            ]
        )
        assert outcomes == [None, CommitConflict(PEOPLE, b"a", 1), None]
        assert await store.get(PEOPLE, b"c") is None
        assert await store.get(PEOPLE, b"a") == Record(b"2", 2, 0)

    async def test_checks_see_earlier_commits_of_the_same_call(self, store: Store) -> None:
        create = [Check(PEOPLE, b"k", ABSENT), Put(PEOPLE, b"k", b"v")]
        assert await store.commit([create, create]) == [None, CommitConflict(PEOPLE, b"k", 1)]

    async def test_of_many_racing_creators_one_wins(self, store: Store) -> None:
        calls = [
            store.commit([[Check(PEOPLE, b"k", ABSENT), Put(PEOPLE, b"k", b"%d" % racer)]])
            for racer in range(20)
        ]
        outcomes = [outcome for (outcome,) in await asyncio.gather(*calls)]
        assert outcomes.count(None) == 1
        winner = outcomes.index(None)
        assert await store.get(PEOPLE, b"k") == Record(b"%d" % winner, 1, 0)

    async def test_get_many_answers_in_order(self, store: Store) -> None:
        await store.commit([[Put(PEOPLE, b"a", b"1"), Put(PEOPLE, b"b", b"2")]])
        found = await store.get_many(PEOPLE, [b"b", b"x", b"a", b"b"])
        assert [record and record.value for record in found] == [b"2", None, b"1", b"2"]

    async def test_scan_by_prefix_position_and_limit(self, store: Store) -> None:
        keys = [b"a", b"b", b"b\x00", b"b1", b"b2", b"b\xff", b"c"]
        await store.commit([[Put(PEOPLE, key, key) for key in reversed(keys)]])

        async def scan(prefix: bytes = b"", after: bytes = b"", limit: int = 100) -> list[bytes]:
            found = await store.scan(PEOPLE, prefix=prefix, after=after, limit=limit)
            assert all(record.value == key for key, record in found)
            return [key for key, _ in found]

        assert await scan() == sorted(keys)
        assert await scan(prefix=b"b") == [b"b", b"b\x00", b"b1", b"b2", b"b\xff"]
        assert await scan(prefix=b"b", after=b"b") == [b"b\x00", b"b1", b"b2", b"b\xff"]
        assert await scan(prefix=b"b", after=b"b1", limit=1) == [b"b2"]
        assert await scan(prefix=b"b", after=b"a") == [b"b", b"b\x00", b"b1", b"b2", b"b\xff"]
        assert await scan(prefix=b"b", after=b"c") == []
        assert await scan(after=b"c") == []
        assert await scan(prefix=b"x") == []

    async def test_long_scans_are_complete(self, store: Store) -> None:
        keys = [b"%05d" % number for number in range(1_700)]
        await store.commit([[Put(PEOPLE, key, bytes(2_000))] for key in keys])
        found = await store.scan(PEOPLE, limit=10_000)
        assert [key for key, _ in found] == keys
        assert [key for key, _ in await store.scan(PEOPLE, limit=1_234)] == keys[:1_234]

    async def test_count(self, store: Store) -> None:
        await store.commit([[Put(PEOPLE, b"%d" % number, b"") for number in range(7)]])
        await store.commit([[Delete(PEOPLE, b"3"), Put(PEOPLE, b"4", b"again")]])
        assert (await store.count(PEOPLE), await store.count(LETTERS)) == (6, 0)

    async def test_sweep_removes_what_is_due_oldest_first(self, store: Store) -> None:
        await store.commit(
            [[Put(LETTERS, b"%d" % expiry, b"", expiry) for expiry in (40, 10, 30, 20)]]
        )
        swept = await store.sweep(30, limit=2)
        assert (swept.removed, swept.more) == ((("letters", 2),), True)
        assert [key for key, _ in await store.scan(LETTERS, limit=9)] == [b"30", b"40"]
        swept = await store.sweep(30, limit=2)
        assert (swept.removed, swept.more) == ((("letters", 1),), False)
        assert (await store.sweep(39, limit=9)).removed == ()
        assert await store.count(LETTERS) == 1

    async def test_sweep_follows_the_latest_expiry(self, store: Store) -> None:
        await store.commit([[Put(LETTERS, key, b"", 10)] for key in (b"later", b"gone", b"again")])
        await store.commit([[Put(LETTERS, b"later", b"", 90)], [Delete(LETTERS, b"gone")]])
        await store.commit([[Put(LETTERS, b"again", b"", 90)], [Put(LETTERS, b"again", b"", 10)]])
        assert (await store.sweep(50, limit=9)).removed == (("letters", 1),)
        assert [key for key, _ in await store.scan(LETTERS, limit=9)] == [b"later"]
        assert (await store.sweep(90, limit=9)).removed == (("letters", 1),)

    async def test_what_is_due_in_a_table_earliest_first(self, store: Store) -> None:
        puts = [Put(LETTERS, b"%d" % expiry, bytes(9), expiry) for expiry in (300, 10, 30, 20)]
        await store.commit([[*puts, Put(OTHERS, b"x", b"", 5), Put(PEOPLE, b"y", b"")]])
        found = await store.due(LETTERS, 30, limit=9)
        assert found == [(b"%d" % expiry, Record(bytes(9), 1, expiry)) for expiry in (10, 20, 30)]
        assert [key for key, _ in await store.due(LETTERS, 30, limit=2)] == [b"10", b"20"]
        assert [key for key, _ in await store.due(OTHERS, 1_000, limit=9)] == [b"x"]
        assert await store.due(LETTERS, 9, limit=9) == []
        assert await store.due(PEOPLE, 1_000, limit=9) == []
        assert await store.count(LETTERS) == 4

    async def test_long_due_lists_are_complete(self, store: Store) -> None:
        keys = [b"%05d" % number for number in range(1_700)]
        await store.commit([[Put(LETTERS, key, bytes(2_000), 1 + int(key) // 7)] for key in keys])
        found = await store.due(LETTERS, 10_000, limit=10_000)
        assert [key for key, _ in found] == keys
        found = await store.due(LETTERS, 10_000, limit=1_234)
        assert [key for key, _ in found] == keys[:1_234]

    async def test_sweep_leaves_kept_tables_to_their_owners(self, store: Store) -> None:
        await store.commit(
            [[Put(table, b"%d" % n, b"", 10) for table in (LETTERS, OTHERS) for n in range(3)]]
        )
        swept = await store.sweep(10, limit=2, keep=frozenset({LETTERS}))
        assert (swept.removed, swept.more) == ((("others", 2),), True)
        swept = await store.sweep(10, limit=2, keep=frozenset({LETTERS, PEOPLE}))
        assert (swept.removed, swept.more) == ((("others", 1),), False)
        assert await store.count(LETTERS) == 3
        swept = await store.sweep(10, limit=9)
        assert (swept.removed, swept.more) == ((("letters", 3),), False)
        with pytest.raises(BrokenInvariant):
            await store.sweep(10, limit=2, keep=frozenset({FOREIGN}))

    async def test_reserved_numbers_never_overlap(self, store: Store) -> None:
        firsts = await asyncio.gather(*(store.reserve("inbox", 10) for _ in range(10)))
        assert sorted(firsts) == list(range(1, 101, 10))
        assert await store.reserve("other", 1) == 1

    @pytest.mark.parametrize(
        "operation",
        [
            Put(LETTERS, b"k", b"v"),
            Put(LETTERS, b"k", b"v", -1),
            Put(PEOPLE, b"k", b"v", 10),
            Put(PEOPLE, b"", b"v"),
            Put(PEOPLE, bytes(MAX_KEY_BYTES + 1), b"v"),
            Delete(PEOPLE, b""),
            Check(PEOPLE, bytes(MAX_KEY_BYTES + 1), 0),
            Put(FOREIGN, b"k", b"v"),
        ],
    )
    async def test_what_the_port_rules_out_is_refused_before_anything_happens(
        self, store: Store, operation: Put | Delete | Check
    ) -> None:
        with pytest.raises(BrokenInvariant):
            await store.commit([[Put(PEOPLE, b"first", b"v")], [operation]])
        assert await store.count(PEOPLE) == 0

    async def test_longest_keys_and_a_large_value(self, store: Store) -> None:
        key, value = b"\xff" * MAX_KEY_BYTES, bytes(3_000_000)
        await store.commit([[Put(LETTERS, key, value, 10), Put(PEOPLE, key, value)]])
        assert await store.get(LETTERS, key) == Record(value, 1, 10)
        assert (await store.sweep(10, limit=1)).removed == (("letters", 1),)

    @pytest.mark.parametrize("limit", [0, -1, 10_001])
    async def test_limits_out_of_range(self, store: Store, limit: int) -> None:
        with pytest.raises(BrokenInvariant):
            await store.scan(PEOPLE, limit=limit)
        with pytest.raises(BrokenInvariant):
            await store.sweep(1, limit=limit)
        with pytest.raises(BrokenInvariant):
            await store.due(LETTERS, 1, limit=limit)

    @pytest.mark.parametrize(("name", "count"), [("", 1), ("x" * 101, 1), ("x", 0)])
    async def test_sequences_out_of_range(self, store: Store, name: str, count: int) -> None:
        with pytest.raises(BrokenInvariant):
            await store.reserve(name, count)

    async def test_closing_finishes_what_is_queued_and_refuses_the_rest(self, store: Store) -> None:
        queued = [
            asyncio.create_task(store.commit([[Put(PEOPLE, b"%d" % number, b"v")]]))
            for number in range(50)
        ]
        await asyncio.sleep(0)  # one turn: all calls are in
        await store.aclose()
        assert await asyncio.gather(*queued) == [[None]] * 50
        for call in (
            store.commit([[Put(PEOPLE, b"late", b"v")]]),
            store.commit([]),
            store.get(PEOPLE, b"1"),
            store.scan(PEOPLE, limit=1),
            store.count(PEOPLE),
            store.sweep(1, limit=1),
            store.due(LETTERS, 1, limit=1),
            store.reserve("x", 1),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        await store.aclose()
