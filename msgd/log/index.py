"""The index: what the log says, sorted so that a query need not read all of it. Derived and deletable.

One SQLite file beside the log, written by the index process only, read by whoever has a question. It is
never the truth: it may lag, be missing or be thrown away, and then the log's own headers answer. Its tables
are sorted lists (`leaves`); numbers are big-endian, so that bytes sort as they count:

| table | group | entry |
|---|---|---|
| place | peer · 8 + lane (below) | offset u64, count u32, kind u8, first seq u64 |
| receipt | peer | seq u64, offset u64; only receipts that tell more than every one before |
| epoch | peer · 8 + 0 out, 1 in | offset u64, base u64 |
| recovered | peer · 8 + 3 out, 4 in | first seq u64, count u32, offset u64 |
| control | peer, 0 none | offset u64, kind u8: what was done and what befell this node, of all but messages |
| report | peer · 2 + 0 by it, 1 by us | id 16 bytes, u64 as below, reporter's clock u64, consumer 63 bytes |
| release | 0 | record u64, byte u32, count u32, first seq u64, offset u64 |
| ending | 0 | record u64, index u32, offset u64, state u8 |
| id | 0 | id 16 bytes, u64: offset · 2¹⁷ + index · 2 + (0 out, 1 in) |

The lanes: 0 out and released, 1 in, 2 held, 3 and 4 what was recovered of out and of in.

A `release` is a range of the `released` record at `offset`: messages from that byte of the payload of
`record` on. An `ending` is a message, by its record and its index there, that the `ended` record at
`offset` names; its state is the place in `model.STATES`. A `report` begins with the id of the message that
it tells of; the u64 says where the report itself stands. Four more tables have SQL's columns: `zone` (the
first and last stored time of up to ZONE places in a row, numbered 1 2 3 …), `damage` (what could not be
read), `gap` (what is not kept any more and was removed from here, too), `about` (`derived`, where it is
said when the file counts).

The wall clock may have stepped within a zone: zones only tell what can be skipped, the order is always that
of log offsets.
"""

import functools
import sqlite3
import struct
from collections.abc import Collection, Iterable, Iterator
from typing import Final, Self

from msgd.log.derived import ABOUT, Derived, NotUsableError
from msgd.log.errors import Damaged
from msgd.log.files import REAL_FILES
from msgd.log.leaves import Leaves, Table
from msgd.log.segment import list_extents

NAME = "index.sqlite"
ZONE = 512

PLACE: Final = struct.Struct(">QIBQ")
RECEIPT: Final = struct.Struct(">QQ")
EPOCH: Final = struct.Struct(">QQ")
RELEASE: Final = struct.Struct(">QIIQQ")
ENDING: Final = struct.Struct(">QIQB")
ID: Final = struct.Struct(">16sQ")
RECOVERED: Final = struct.Struct(">QIQ")
CONTROL: Final = struct.Struct(">QB")
REPORT: Final = struct.Struct(">16sQQ63s")
KEY: Final = struct.Struct(">Q")
ENDING_KEY: Final = struct.Struct(">QI")

TABLES = (
    Table("place", PLACE.size, True),
    Table("receipt", RECEIPT.size, True),
    Table("epoch", EPOCH.size, True),
    Table("release", RELEASE.size, True),
    Table("ending", ENDING.size, True),
    Table("id", ID.size, False),  # random: nothing to pack
    Table("recovered", RECOVERED.size, True),
    Table("control", CONTROL.size, True),
    Table("report", REPORT.size, True),
)
SCHEMA = (
    "".join(table.schema for table in TABLES)
    + ABOUT
    + (
        "CREATE TABLE zone (zone INTEGER PRIMARY KEY, lo INTEGER, hi INTEGER, places INTEGER,"
        " wall_min INTEGER, wall_max INTEGER, mark INTEGER);"
        "CREATE TABLE damage (offset INTEGER PRIMARY KEY, segment TEXT, why TEXT);"
        "CREATE TABLE gap (lo INTEGER, hi INTEGER);"
    )
)

# of the other columns of a zone: one that was spoiled would hide what it stands for
ZONE_MARK = (
    "zone + lo * 3 + hi * 5 + places * 7"
    " + wall_min / 8 + wall_min % 8 * 11 + wall_max / 16 + wall_max % 16 * 13"
)
PUT_ZONE = (
    f"REPLACE INTO zone SELECT zone, lo, hi, places, wall_min, wall_max, {ZONE_MARK} FROM"
    " (SELECT ? AS zone, ? AS lo, ? AS hi, ? AS places, ? AS wall_min, ? AS wall_max)"
)

NUMBERED, RECEIVED, WAITING, RECOVERED_OUT, RECOVERED_IN = range(5)  # the lanes of a peer
LANES = 8
BY_PEER, BY_US = range(2)  # who reports
REPORT_GROUPS = 2  # of a peer
IN_LANES = frozenset({RECEIVED, RECOVERED_IN})
IS_IN = 1  # the last bit of an entry of `id`

Location = tuple[int, int]  # log offset of the record where a message first stood, and the place in it


class Index(Derived):
    """The tables of one open database. Reading them raises sqlite3.Error where the file is damaged."""

    version = 4
    schema = SCHEMA

    def __init__(self, db: sqlite3.Connection, inode: int = 0) -> None:
        super().__init__(db, inode)
        tables = (Leaves(db, table) for table in TABLES)
        self.place, self.receipt, self.epoch, self.release, self.ending, self.id, *more = tables
        self.recovered, self.control, self.report = more

    @classmethod
    def private(cls) -> Self:
        """An empty one of our own: in memory while it is small, then in a file that nobody sees."""
        db = sqlite3.connect("", isolation_level=None)
        empty = sqlite3.connect(":memory:")
        empty.deserialize(_empty())
        empty.backup(db)
        empty.close()
        db.execute("PRAGMA journal_mode = OFF")
        return cls(db)

    def damage(self) -> list[Damaged]:
        """What could not be read of the log before the position."""
        rows = self.db.execute("SELECT segment, offset, why FROM damage ORDER BY offset")
        return [Damaged(*row) for row in rows]

    def lanes(self, peer: int | None, lanes: Collection[int]) -> list[int]:
        """The groups of `place` for these lanes of one peer, or of all that have any."""
        if peer is not None:
            return [peer * LANES + lane for lane in lanes]
        return [group for group in self.place.groups() if group % LANES in lanes]

    def windows(self, since_ns: int, until_ns: int) -> list[tuple[int, int]]:
        """Stretches of log offsets outside of which no place has a stored time in [since_ns, until_ns]."""
        found: list[tuple[int, int]] = []
        before = -1
        sql = (
            f"SELECT zone, lo, hi, mark IS {ZONE_MARK} FROM zone"
            f" WHERE (wall_max >= ? AND wall_min <= ?) OR mark IS NOT {ZONE_MARK} ORDER BY zone"
        )
        for zone, lo, hi, is_sound in self.db.execute(sql, (since_ns, until_ns)):
            if not is_sound:
                raise sqlite3.DatabaseError("a zone is not what was written")
            if zone == before + 1:
                lo, _ = found.pop()
            found.append((lo, hi))
            before = zone
        return found

    def numbered(self, group: int, seq: int) -> tuple[int, int, int, int] | None:
        """The entry of `place` that gave `seq` to a message: offset, count, kind, first seq."""
        lo, hi = 0, max(self.position, 1)
        found = None
        while lo < hi:  # seqs grow with offsets, since a base is higher than every seq before it
            middle = (lo + hi) // 2
            entry = self.place.first(group, KEY.pack(middle))
            place = None if entry is None else PLACE.unpack(entry)
            if place is None or place[3] > seq:
                hi = middle
            else:
                found, lo = place, place[0] + 1
        return found if found is not None and seq < found[3] + found[1] else None

    def recovered_at(self, group: int, seq: int) -> tuple[int, int] | None:
        """The recovered record that holds the message with `seq`: its log offset and first seq."""
        for entry in self.recovered.scan_back(group, b"", KEY.pack(seq + 1)):
            first_seq, count, offset = RECOVERED.unpack(entry)
            return (offset, first_seq) if seq < first_seq + count else None
        return None

    def ids(self, prefix: str) -> Iterator[tuple[bytes, Location]]:
        """The messages whose id begins with these hexadecimal digits, in the order of ids."""
        lo = bytes.fromhex(prefix + "0" * (-len(prefix) % 2))
        above = int(prefix, 16) + 1
        digits = f"{above:0{len(prefix)}x}"
        hi = bytes.fromhex(digits + "0" * (-len(digits) % 2)) if len(digits) == len(prefix) else b"\xff" * 33
        for entry in self.id.scan(0, lo, hi):
            raw, at = ID.unpack(entry)
            yield raw, (at >> 17, at >> 1 & 0xFFFF)  # 16 bits: an append holds 41,943 messages at most

    def submitted(self, ids: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
        """Those of `ids` that were submitted on this node, and the log offsets of their records."""
        for raw in sorted(set(ids)):
            for entry in self.id.find(0, raw, raw + b"\xff" * 9):
                if not entry[-1] & IS_IN:
                    yield raw, ID.unpack(entry)[1] >> 17


def known_ids(path: str, log: str, log_id: bytes, ids: Iterable[bytes]) -> tuple[list[bytes], int]:
    """Those of `ids` that were submitted on this node before a log offset and are kept, and that offset.

    `log` is the directory of the log. The offset is 0 when there is no index that can be used. Opens and
    closes the file: 0.5 ms.
    """
    found, position = known_records(path, log, log_id, ids)
    return sorted({raw for raw, _ in found}), position


def known_records(
    path: str, log: str, log_id: bytes, ids: Iterable[bytes]
) -> tuple[list[tuple[bytes, int]], int]:
    """As `known_ids`, each with the log offset of its record: one id may have many, of a group."""
    try:
        index = Index.open(path, log_id)
    except (NotUsableError, sqlite3.Error):
        return [], 0
    try:
        found = list(index.submitted(ids))
        kept = list_extents(REAL_FILES, log, index.position) if found else []
        return [(raw, at) for raw, at in found if any(lo <= at < hi for lo, hi in kept)], index.position
    except sqlite3.Error:
        return [], 0
    finally:
        index.close()


@functools.cache
def _empty() -> bytes:
    """A database with empty tables. A copy takes 0.03 ms, making one 0.5 ms."""
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    data = db.serialize()
    db.close()
    return data
