"""Sorted entries of fixed width, kept in SQLite a leaf at a time: what every table of the index is made of.

A table holds groups; a group is one long sorted list of byte strings of one width, cut into leaves of up to
LEAF_BYTES. One SQLite row is one leaf:

| column | |
|---|---|
| leaf | INTEGER PRIMARY KEY |
| grp | the group, a number |
| lo | the least entry that belongs here; empty in the first leaf of a group |
| stop | the next leaf's `lo`; NULL in the last one |
| raw | 0: `data` is deflated |
| crc | CRC-32 of all the others |
| data | the entries, one after another, or none; deflated: all their first bytes, then all second ones … |

Why not a row per entry: inserting in order costs 0.2 instead of 1.9 µs per message id and takes 25 instead
of 33 bytes, and what repeats itself (offsets, seqs) packs to a fifth; byte by byte in a third less time than
entry by entry, and to half the size (2 cores, SQLite 3.40, 2026-11). The last leaf of a group is not deflated
as long as it grows: a thousand peers have thousands of those.
Entries in no order, such as ids made from keys, cost twice as much as rows would.

SQLite notices little of what befalls a file. Here every leaf names the next one and proves what it says, so
that a list with a piece missing is told as damage, and not taken for a shorter one.

A reader needs no transaction: each step of a scan is one statement and goes on where the leaf seen last
stops, so that a leaf which a writer splits meanwhile shows no entry twice and hides none that was there.
"""

import sqlite3
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

LEAF_BYTES = 3984  # with the other columns it fills a page of 4 KiB and never overflows into a second
PACKED_BYTES = 12 << 10  # before deflate
ABOVE_ALL = b"\xff" * 33  # sorts behind every entry
LEVEL = 1  # of zlib: 6 saves next to nothing
FILTER_LEAVES = 64  # read and written again at once when entries are removed: 5 ms

Row = tuple[int, int, bytes, bytes | None, int, int, bytes]  # in the order of the columns
COLUMNS = "leaf, grp, lo, stop, raw, crc, data"


class Table(NamedTuple):
    """The name, the width of an entry, and whether leaves are deflated."""

    name: str
    width: int
    packed: bool

    @property
    def schema(self) -> str:
        return (
            f"CREATE TABLE {self.name} (leaf INTEGER PRIMARY KEY, grp INTEGER, lo BLOB, stop BLOB,"
            " raw INTEGER, crc INTEGER, data BLOB);"
            f"CREATE UNIQUE INDEX {self.name}_lo ON {self.name} (grp, lo);"
        )

    @property
    def leaf_bytes(self) -> int:
        return (PACKED_BYTES if self.packed else LEAF_BYTES) // self.width * self.width


class _Leaf(NamedTuple):
    """A leaf in memory."""

    lo: bytes
    stop: bytes | None  # where the next leaf begins; None: there is none
    entries: list[bytes]

    def holds(self, key: bytes) -> bool:
        return self.lo <= key and (self.stop is None or key < self.stop)


class Leaves:
    """One table in one database. Raises sqlite3.Error; DatabaseError where what is stored cannot be."""

    def __init__(self, db: sqlite3.Connection, table: Table) -> None:
        self._db = db
        self._table = table
        self._kept: dict[int, _Leaf] = {}
        name = table.name
        self._at_or_before = (
            f"SELECT {COLUMNS} FROM {name} WHERE grp = ? AND lo <= ? ORDER BY lo DESC LIMIT 1"
        )
        self._before = f"SELECT {COLUMNS} FROM {name} WHERE grp = ? AND lo < ? ORDER BY lo DESC LIMIT 1"
        self._any = f"SELECT 1 FROM {name} WHERE grp = ? LIMIT 1"
        self._between = (
            f"SELECT {COLUMNS} FROM {name} WHERE grp = ? AND lo >= ? AND lo < ? ORDER BY lo LIMIT ?"
        )
        self._put = f"REPLACE INTO {name} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._delete = f"DELETE FROM {name} WHERE leaf = ?"
        self._next_group = f"SELECT min(grp) FROM {name} WHERE grp > ?"

    # --- reading ----------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether no group holds anything."""
        return self._db.execute(f"SELECT 1 FROM {self._table.name} LIMIT 1").fetchone() is None

    def groups(self) -> Iterator[int]:
        """The groups that hold anything."""
        group = -1
        while (found := self._db.execute(self._next_group, (group,)).fetchone()[0]) is not None:
            group = found
            yield group

    def find(self, group: int, lo: bytes, hi: bytes) -> list[bytes]:
        """The entries e with lo <= e < hi, few and near those of the last call: its leaf is kept in memory.

        So a reader that asks for one place after the other unpacks each leaf once. What is kept is never
        asked for again: entries that another adds later may stay unseen by this object.
        """
        leaf = self._near(group, lo)
        start = bisect_left(leaf.entries, lo)
        stop = bisect_left(leaf.entries, hi, start)
        found = leaf.entries[start:stop]
        if leaf.stop is not None and leaf.stop < hi:
            found += self.find(group, leaf.stop, hi)
        return found

    def first(self, group: int, lo: bytes) -> bytes | None:
        """The least entry e with lo <= e, from what `find` keeps."""
        return next(iter(self.following(group, lo, 1)), None)

    def following(self, group: int, lo: bytes, count: int) -> list[bytes]:
        """At most `count` entries from that one on; none only if there is no such one."""
        leaf = self._near(group, lo)
        while (start := bisect_left(leaf.entries, lo)) == len(leaf.entries) and leaf.stop is not None:
            leaf = self._kept[group] = self._load(group, leaf.stop)
        return leaf.entries[start : start + count]

    def last(self, group: int) -> bytes | None:
        """The greatest entry of the group."""
        return next(self.scan_back(group, b"", ABOVE_ALL), None)

    def scan(self, group: int, lo: bytes, hi: bytes) -> Iterator[bytes]:
        """The entries e with lo <= e < hi, upwards. Both are prefixes or whole entries."""
        for run in self.runs(group, lo, hi):
            yield from run

    def scan_back(self, group: int, lo: bytes, hi: bytes) -> Iterator[bytes]:
        """The same entries downwards."""
        for run in self.runs_back(group, lo, hi):
            yield from reversed(run)

    def runs(self, group: int, lo: bytes, hi: bytes) -> Iterator[list[bytes]]:
        """The same entries, upwards, those of one leaf at a time."""
        at = lo
        while at < hi:
            leaf = self._load(group, at)
            start = bisect_left(leaf.entries, lo)
            stop = bisect_left(leaf.entries, hi, start)
            if start < stop:
                yield leaf.entries[start:stop]
            if leaf.stop is None:
                return
            lo = at = leaf.stop

    def runs_back(self, group: int, lo: bytes, hi: bytes) -> Iterator[list[bytes]]:
        """The same, the last leaf first; within one the entries stand upwards."""
        above: bytes | None = hi
        while above is not None and lo < hi:
            row = self._db.execute(self._before, (group, above)).fetchone()
            if row is None:
                self._check_empty(group)
                return
            leaf = self._leaf(row)
            if leaf.stop is not None and leaf.stop < above:
                raise self._damaged("does not reach to the next one")
            stop = bisect_left(leaf.entries, hi)
            start = bisect_left(leaf.entries, lo, 0, stop)
            if start < stop:
                yield leaf.entries[start:stop]
            if leaf.lo <= lo:
                return
            above = hi = leaf.lo

    def _load(self, group: int, key: bytes) -> _Leaf:
        """The leaf to which `key` belongs."""
        row = self._db.execute(self._at_or_before, (group, key)).fetchone()
        if row is None:
            self._check_empty(group)
            return _Leaf(b"", None, [])
        leaf = self._leaf(row)
        if not leaf.holds(key):
            raise self._damaged("does not reach to the next one")
        return leaf

    def _near(self, group: int, key: bytes) -> _Leaf:
        """The same leaf, kept in memory."""
        leaf = self._kept.get(group)
        if leaf is None or not leaf.holds(key):
            leaf = self._kept[group] = self._load(group, key)
        return leaf

    def _leaf(self, row: Row) -> _Leaf:
        data, width = self._data(row), self._table.width
        return _Leaf(row[2], row[3], [data[i : i + width] for i in range(0, len(data), width)])

    def _data(self, row: Row) -> bytes:
        try:
            _, group, lo, stop, raw, crc, data = row
            if crc != _crc(group, lo, stop, raw, data):
                raise self._damaged("is not what was written")
            if not raw:
                data = _in_rows(zlib.decompress(data), self._table.width)
        except (TypeError, ValueError, zlib.error) as error:  # not even of the types that were written
            raise self._damaged("is not what was written") from error
        if len(data) % self._table.width:
            raise self._damaged(f"has {len(data)} bytes")
        return data

    def _check_empty(self, group: int) -> None:
        """No leaf has the beginning of a group: there must be none at all."""
        if self._db.execute(self._any, (group,)).fetchone() is not None:
            raise self._damaged("is missing")

    def _damaged(self, what: str) -> sqlite3.DatabaseError:
        return sqlite3.DatabaseError(f"a leaf of {self._table.name} {what}")

    # --- writing ----------------------------------------------------------------------------------------

    def add(self, group: int, entries: list[bytes]) -> None:
        """Put in entries, sorted, none of which is there yet."""
        self._kept.pop(group, None)
        at, width = 0, self._table.width
        while at < len(entries):
            row = self._db.execute(self._at_or_before, (group, entries[at])).fetchone()
            leaf, lo, stop, here = (None, b"", None, b"")
            if row is not None:
                leaf, lo, stop, here = row[0], row[2], row[3], self._data(row)
            end = len(entries) if stop is None else bisect_left(entries, stop, at)
            more = entries[at:end]
            if here[-width:] > more[0]:
                more += [here[i : i + width] for i in range(0, len(here), width)]
                more.sort()
                here = b""
            self._write(group, leaf, lo, stop, here + b"".join(more))
            at = end

    def filter(
        self, group: int, key: bytes, hi: bytes | None, keep: Callable[[list[bytes]], list[bytes]]
    ) -> bytes | None:
        """Leave of some leaves, from the one of `key` on, only what `keep` leaves of their entries, in order.

        None beginning at or behind `hi` is touched. Returns the key to go on with, None at the end.
        """
        self._kept.pop(group, None)
        first = self._db.execute(self._at_or_before, (group, key)).fetchone()
        if first is None:
            return None
        some = (group, first[2], ABOVE_ALL if hi is None else hi, FILTER_LEAVES)
        rows: list[Row] = self._db.execute(self._between, some).fetchall()
        if not rows:
            return None
        leaves = [self._leaf(row) for row in rows]
        before = [entry for leaf in leaves for entry in leaf.entries]
        after = keep(before)
        lo, stop = leaves[0].lo, leaves[-1].stop
        if len(after) != len(before):
            for row in rows:
                self._db.execute(self._delete, row[:1])
            if after or lo or stop is not None:
                self._write(group, None, lo, stop, b"".join(after))
        # a leaf that was left empty is taken together with those behind it
        return lo if stop is not None and not after and len(rows) > 1 else stop

    def _write(self, group: int, leaf: int | None, lo: bytes, stop: bytes | None, data: bytes) -> None:
        """One leaf becomes as many as it takes: full ones at the end of a group, room to grow inside it."""
        width, most = self._table.width, self._table.leaf_bytes
        if stop is not None and len(data) > most:
            most = -(-len(data) // width // -(-len(data) * 4 // (most * 3))) * width
        for start in range(0, len(data) or 1, most):
            piece = data[start : start + most]
            next_lo = data[start + most : start + most + width] or stop
            raw = int(not self._table.packed or (next_lo is None and len(piece) < most))
            if not raw:
                piece = zlib.compress(_in_columns(piece, width), LEVEL)
            crc = _crc(group, lo, next_lo, raw, piece)
            self._db.execute(self._put, (leaf, group, lo, next_lo, raw, crc, piece))
            leaf, lo = None, next_lo or b""


def _crc(group: int, lo: bytes, stop: bytes | None, raw: Any, data: bytes) -> int:
    head = b"%d %d %b %b" % (group, raw, lo, b"-" if stop is None else stop)
    return zlib.crc32(data, zlib.crc32(head))


def _in_columns(data: bytes, width: int) -> bytes:
    return b"".join([data[i::width] for i in range(width)])


def _in_rows(data: bytes, width: int) -> bytes:
    rows, count = bytearray(len(data)), len(data) // width
    for i in range(width):
        rows[i::width] = data[i * count : (i + 1) * count]
    return bytes(rows)
