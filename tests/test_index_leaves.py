"""Sorted lists in SQLite, a leaf at a time, against Python's own."""

import sqlite3
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd.log import leaves
from msgd.log.leaves import Leaves, Table

WIDTH = 4
TABLES = (Table("plain", WIDTH, False), Table("packed", WIDTH, True))
ENTRIES = st.integers(0, 2**20).map(lambda n: n.to_bytes(WIDTH, "big"))
BOUNDS = st.binary(max_size=WIDTH)


@pytest.fixture(autouse=True)
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "LEAF_BYTES", 5 * WIDTH)
    monkeypatch.setattr(leaves, "PACKED_BYTES", 5 * WIDTH)


def made(table: Table) -> tuple[sqlite3.Connection, Leaves]:
    db = sqlite3.connect("", isolation_level=None)
    db.executescript(table.schema)
    return db, Leaves(db, table)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@settings(deadline=None, database=None, max_examples=60)
@given(st.lists(st.sets(ENTRIES, max_size=30), max_size=8), st.lists(st.tuples(BOUNDS, BOUNDS), max_size=12))
def test_leaves_are_one_sorted_list(
    table: Table, batches: list[set[bytes]], ranges: list[tuple[bytes, bytes]]
) -> None:
    """Whatever is put in in whatever order, a stretch of it reads as of a sorted list, either way."""
    db, kept = made(table)
    model: list[bytes] = []
    for batch in batches:
        new = sorted(batch - set(model))
        kept.add(7, new)
        model = sorted(model + new)
        for lo, hi in ranges:
            expected = model[bisect_left(model, lo) : max(bisect_left(model, lo), bisect_left(model, hi))]
            assert expected == list(kept.scan(7, lo, hi))
            assert expected[::-1] == list(kept.scan_back(7, lo, hi))
            assert expected == kept.find(7, lo, hi)
            at_least = bisect_left(model, lo)
            assert (model[at_least] if at_least < len(model) else None) == kept.first(7, lo)
        assert (model[-1] if model else None) == kept.last(7)
        assert bool(model) != kept.is_empty
    assert list(kept.scan(8, b"", b"\xff")) == []
    db.close()


def test_groups_are_apart() -> None:
    """A scan of one group sees nothing of its neighbours, and all groups are told once."""
    db, kept = made(TABLES[0])
    for group in (3, 0, 9):
        kept.add(group, [bytes((group, 0, 0, n)) for n in range(12)])
    assert list(kept.groups()) == [0, 3, 9]
    assert [bytes((3, 0, 0, n)) for n in range(12)] == list(kept.scan(3, b"", b"\xff"))
    db.close()


def test_scan_goes_on_behind_what_it_has_seen_while_leaves_split() -> None:
    """Entries put in during a scan neither repeat nor hide those that were there."""
    db, kept = made(TABLES[0])
    before = [n.to_bytes(WIDTH, "big") for n in range(0, 200, 10)]
    kept.add(1, before)
    seen = []
    for number, entry in enumerate(kept.scan(1, b"", b"\xff")):
        seen.append(entry)
        kept.add(1, [(int.from_bytes(entry, "big") + 3 + number % 3).to_bytes(WIDTH, "big")])
    assert before == [entry for entry in seen if entry in before]
    assert sorted(set(seen)) == seen
    db.close()


@pytest.mark.parametrize("data", [b"", b"abc", b"no deflate here"])
def test_damaged_leaf_is_an_error_of_the_database(data: bytes) -> None:
    """What cannot be a leaf raises, and never reads as no entries."""
    db, kept = made(TABLES[1])
    kept.add(1, [b"\0\0\0\1"])
    db.execute("UPDATE packed SET data = ?", (data,))
    with pytest.raises(sqlite3.DatabaseError):
        list(kept.scan(1, b"", b"\xff"))
    db.close()
