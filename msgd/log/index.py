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
| release | 0 | record u64, byte u32, count u32, first seq u64, offset u64 |
| ending | 0 | record u64, index u32, offset u64, state u8 |
| id | 0 | id 16 bytes, u64: offset · 2¹⁷ + index · 2 + (0 out, 1 in) |

The lanes: 0 out and released, 1 in, 2 held, 3 and 4 what was recovered of out and of in.

A `release` is a range of the `released` record at `offset`: messages from that byte of the payload of
`record` on. An `ending` is a message, by its record and its index there, that the `ended` record at `offset`
names; its state is the place in `model.STATES`. Three more tables have SQL's columns: `zone` (the first and
last stored time of up to ZONE places in a row, numbered 1 2 3 …), `damage` (what could not be read), `about`
(one row: log, position, boot, closed, last, mark).

Everything before the log offset `position` is in it, nothing after; both move in one transaction. The file
has `user_version` = VERSION. It counts as the index of a log only with that log's id, with a position that
is committed, and with `mark` = what the log says at `last` (a log restored from a backup may go on with
other records). It is written without syncing (synchronous=OFF), so after a start of the machine (`boot`) it
counts only if it had been closed, which does sync.

The wall clock may have stepped within a zone: zones only tell what can be skipped, the order is always that
of log offsets.
"""

import functools
import os
import sqlite3
import struct
from collections.abc import Collection, Iterable, Iterator
from typing import Final, Self
from zlib import crc32

from msgd.log.clock import boot_id
from msgd.log.errors import Damaged
from msgd.log.leaves import Leaves, Table
from msgd.log.reader import Reader
from msgd.log.record import Header, Record

VERSION = 2
NAME = "index.sqlite"
ZONE = 512
BUSY_S = 5.0  # a reader that finds the file as a killed writer left it holds it for as long as it repairs
CACHE_KIB = 8192  # of SQLite pages: four transactions of the writer; readers touch a few

PLACE: Final = struct.Struct(">QIBQ")
RECEIPT: Final = struct.Struct(">QQ")
EPOCH: Final = struct.Struct(">QQ")
RELEASE: Final = struct.Struct(">QIIQQ")
ENDING: Final = struct.Struct(">QIQB")
ID: Final = struct.Struct(">16sQ")
RECOVERED: Final = struct.Struct(">QIQ")
CONTROL: Final = struct.Struct(">QB")
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
)
SCHEMA = "".join(table.schema for table in TABLES) + (
    "CREATE TABLE zone (zone INTEGER PRIMARY KEY, lo INTEGER, hi INTEGER, places INTEGER,"
    " wall_min INTEGER, wall_max INTEGER);"
    "CREATE TABLE damage (offset INTEGER PRIMARY KEY, segment TEXT, why TEXT);"
    "CREATE TABLE about (log BLOB, position INTEGER, boot BLOB, closed INTEGER, last INTEGER, mark INTEGER);"
)

BAD_FILE = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH}
)  # SQLITE_ERROR: a table is missing

NUMBERED, RECEIVED, WAITING, RECOVERED_OUT, RECOVERED_IN = range(5)  # the lanes of a peer
LANES = 8
IN_LANES = frozenset({RECEIVED, RECOVERED_IN})
IS_IN = 1  # the last bit of an entry of `id`

Location = tuple[int, int]  # log offset of the record where a message first stood, and the place in it


class NotUsableError(Exception):
    """The file is not the index of this log, or not of this version, or cannot be trusted. Says why."""


class Index:
    """The tables of one open database. Reading them raises sqlite3.Error where the file is damaged."""

    def __init__(self, db: sqlite3.Connection, inode: int = 0) -> None:
        self.db = db
        self.inode = inode  # of the file, 0: private
        self.position = 0  # as of `load`
        self.last = -1  # log offset of the last record taken in, -1 none
        self.mark = 0
        tables = (Leaves(db, table) for table in TABLES)
        self.place, self.receipt, self.epoch, self.release, self.ending, self.id, *more = tables
        self.recovered, self.control = more

    @classmethod
    def open(cls, path: str, log_id: bytes, *, writable: bool = False) -> Self:
        """The index in the file at `path`. Raises NotUsableError; sqlite3.Error if it cannot be read now."""
        # not `mode=ro`: what a killed writer left must be repaired by the first who opens it
        uri = f"file:{_quoted(path)}?mode=rw"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S)
        try:
            index = cls(db, inode_of(path))
            if not writable:
                db.execute("PRAGMA query_only = 1")
            index.load(log_id)
        except sqlite3.Error as error:
            db.close()
            if is_damage(error):
                raise NotUsableError(f"it is damaged ({error})") from error
            raise
        except NotUsableError:
            db.close()
            raise
        return index

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

    def load(self, log_id: bytes) -> None:
        """Read the position. Raises NotUsableError, sqlite3.Error."""
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            raise NotUsableError(f"its version is {version}, not {VERSION}")
        row = self.db.execute("SELECT log, position, boot, closed, last, mark FROM about").fetchone()
        if row is None or row[0] != log_id:
            raise NotUsableError("it belongs to another log")
        _, self.position, boot, closed, self.last, self.mark = row
        if boot != boot_id() and not closed:
            raise NotUsableError("the machine started anew while it was open")

    def check(self, reader: Reader, committed: int) -> None:
        """Compare with the log that `reader` reads as far as `committed`. Raises NotUsableError."""
        if self.position > committed:
            raise NotUsableError("it knows more than the log")
        if self.last < reader.first:
            return
        try:
            record = reader.record(self.last)
        except (Damaged, LookupError):
            return  # whoever needs that record will tell
        if mark_of(record) != self.mark:
            raise NotUsableError("the log went on in another way")

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
        sql = "SELECT zone, lo, hi FROM zone WHERE wall_max >= ? AND wall_min <= ? ORDER BY zone"
        for zone, lo, hi in self.db.execute(sql, (since_ns, until_ns)):
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

    def submitted(self, ids: Iterable[bytes]) -> list[bytes]:
        """Those of `ids` that were submitted on this node."""
        found = []
        for raw in sorted(set(ids)):
            entries = self.id.find(0, raw, raw + b"\xff" * 9)
            if any(not entry[-1] & IS_IN for entry in entries):
                found.append(raw)
        return found

    def close(self) -> None:
        self.db.close()


def known_ids(path: str, log_id: bytes, ids: Iterable[bytes]) -> tuple[list[bytes], int]:
    """Those of `ids` that were submitted on this node before a log offset, and that offset.

    The offset is 0 when there is no index that can be used. Opens and closes the file: 0.5 ms.
    """
    try:
        index = Index.open(path, log_id)
    except (NotUsableError, sqlite3.Error):
        return [], 0
    try:
        return index.submitted(ids), index.position
    except sqlite3.Error:
        return [], 0
    finally:
        index.close()


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is bad, rather than the moment (no space, no rights, busy)."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in BAD_FILE


def inode_of(path: str) -> int:
    """The inode of the file at `path`, 0 if there is none."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def mark_of(record: Header | Record) -> int:
    """A number that tells this record from any other that may stand in its place."""
    fields = (
        record.kind,
        record.begin,
        record.first_seq,
        record.wall_ns,
        record.boot_ns,
        record.start,
        record.head,
    )
    return crc32(repr(fields).encode())


@functools.cache
def _empty() -> bytes:
    """A database with empty tables. A copy takes 0.03 ms, making one 0.5 ms."""
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    data = db.serialize()
    db.close()
    return data


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
