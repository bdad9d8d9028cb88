"""A file that is derived from the log: when it counts, and as far as which log offset.

It is never the truth: it may lag, be missing or be thrown away, and then the log itself answers. A table
`about` has one row: log, position, boot, closed, last, mark, inode. Everything before the log offset
`position` is in the file, nothing after; both move in one transaction.

A file has `user_version` = its version. It counts as derived from a log only with that log's id, with its own
inode (a copy may have been made in the middle of a transaction), with a position that is committed, and with
`mark` = what the log says at `last` (a log restored from a backup may go on with other records). It is
written without syncing (synchronous=OFF), so after a start of the machine (`boot`) it counts only if it had
been closed, which does sync.
"""

import os
import sqlite3
from typing import ClassVar, Self
from zlib import crc32

from msgd.log.clock import boot_id
from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.log.record import Header, Record

BUSY_S = 5.0  # a reader that finds the file as a killed writer left it holds it for as long as it repairs

ABOUT = (
    "CREATE TABLE about (log BLOB, position INTEGER, boot BLOB, closed INTEGER, last INTEGER, mark INTEGER,"
    " inode INTEGER);"
)
BAD_FILE = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH}
)  # SQLITE_ERROR: a table is missing


class NotUsableError(Exception):
    """The file is not derived from this log, or not of this version, or cannot be trusted. Says why."""


class Derived:
    """One open database. Reading it raises sqlite3.Error where the file is damaged."""

    version: ClassVar[int]
    schema: ClassVar[str]  # with ABOUT
    empty: ClassVar[str] = ""  # to be said while nothing is in the file

    def __init__(self, db: sqlite3.Connection, inode: int = 0) -> None:
        self.db = db
        self.inode = inode  # of the file, 0: private
        self.position = 0  # as of `load`
        self.last = -1  # log offset of the last record taken in, -1 none
        self.mark = 0

    @classmethod
    def open(cls, path: str, log_id: bytes, *, writable: bool = False) -> Self:
        """What is in the file at `path`. Raises NotUsableError; sqlite3.Error if it cannot be read now."""
        # not `mode=ro`: what a killed writer left must be repaired by the first who opens it
        uri = f"file:{_quoted(path)}?mode=rw"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S)
        try:
            opened = cls(db, inode_of(path))
            if not writable:
                db.execute("PRAGMA query_only = 1")
            opened.load(log_id)
        except sqlite3.Error as error:
            db.close()
            if is_damage(error):
                raise NotUsableError(f"it is damaged ({error})") from error
            raise
        except NotUsableError:
            db.close()
            raise
        return opened

    def load(self, log_id: bytes) -> None:
        """Read the position. Raises NotUsableError, sqlite3.Error."""
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version != self.version:
            raise NotUsableError(f"its version is {version}, not {self.version}")
        row = self.db.execute("SELECT log, position, boot, closed, last, mark, inode FROM about").fetchone()
        if row is None or row[0] != log_id:
            raise NotUsableError("it belongs to another log")
        _, self.position, boot, closed, self.last, self.mark, inode = row
        if inode != self.inode:
            raise NotUsableError("it is a copy")
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

    def close(self) -> None:
        self.db.close()


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


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
