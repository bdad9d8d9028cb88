"""The writer of one file that is derived from the log: opened, thrown away and made anew as need be.

A file that does not count any more, and why does not matter (another version, damage, another log, deleted
while it was open), is thrown away and filled from the beginning. What cannot be written now (no space) is
tried again with the next step. Damage in the log is told once per place, and passed over.
"""

import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from msgd.log.clock import boot_id
from msgd.log.derived import BUSY_S, Derived, NotUsableError, inode_of, is_damage, mark_of
from msgd.log.errors import Damaged
from msgd.log.reader import Reader

CACHE_KIB = 8192  # of SQLite pages: four transactions
WAL_BYTES = 16 << 20  # kept of the write-ahead file between transactions
SUFFIXES = ("", "-wal", "-shm")

File = TypeVar("File", bound=Derived)


class Event(Protocol):
    """Where events go: a name, and fields."""

    def __call__(self, name: str, /, **fields: Any) -> None: ...


class Keeper(ABC, Generic[File]):
    """Fills the file at `path` from the log that `reader` reads. One per file at a time.

    Nothing is opened before the first `step`. Events: `index.opened` (file, offset), `index.rebuilt` (file,
    reason), `index.write_failed` (file, reason), `log.damage_found` (segment, offset, reason).
    """

    kind: type[File]
    budget: int  # of one step: 0.1 s, for which the end of msgd waits

    def __init__(self, path: str, reader: Reader, committed: Callable[[], int], event: Event) -> None:
        self._path = path
        self._reader = reader
        self._committed = committed
        self._event = event
        self._index: File | None = None
        self._spoiled = ""  # why what is there cannot be used, if that is known already
        self._told: set[int] = set()
        self._has_failed = False
        self.is_new = False  # it is being filled from nothing

    @property
    def position(self) -> int:
        """Log offset before which everything is in the file; 0 when none is open."""
        return 0 if self._index is None else self._index.position

    def done(self) -> float:
        """The share of what is kept of the log that is in the file."""
        position = self.position
        try:
            extents = self._reader.extents()
        except LookupError:
            return 1.0
        kept = sum(stop - base for base, stop in extents)
        return sum(max(0, min(stop, position) - base) for base, stop in extents) / kept if kept else 1.0

    def step(self, budget: int | None = None) -> bool:
        """Take in about so many messages more; whether there is more to do at once. Blocks while it works."""
        try:
            more = self._step(self._opened(), self.budget if budget is None else budget)
        except sqlite3.Error as error:
            self._drop()
            if not is_damage(error):
                return self._fail(error)
            self._spoiled = f"it is damaged ({error})"
            return True
        except OSError as error:
            self._drop()
            return self._fail(error)
        self._has_failed = False
        self.is_new = self.is_new and more
        return more

    def close(self) -> None:
        """Make the file one that counts after a start of the machine, too, and close it."""
        index, self._index = self._index, None
        if index is None:
            return
        try:
            index.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            _sync(self._path)
            index.db.execute("UPDATE about SET closed = 1")
            index.close()
            _sync(self._path)
        except (sqlite3.Error, OSError):
            index.close()  # it will be built anew, at worst

    # --- for those who fill it ----------------------------------------------------------------------------

    @abstractmethod
    def _step(self, index: File, budget: int) -> bool:
        """As `step`, into the open file. Raises sqlite3.Error, OSError."""

    def _made(self, index: File) -> None:
        """The file is new and empty."""

    def _commit(self, index: File, position: int, last: int) -> None:
        """End a transaction: all before `position` is in it, its last record at log offset `last`, or -1."""
        header = next(self._reader.headers(last), None) if last >= 0 else None
        mark = index.mark
        if header is None or header.offset != last:  # else it was removed just now
            last = index.last
        else:
            mark = mark_of(header)
        row = (position, last, mark)
        index.db.execute("UPDATE about SET position = ?, last = ?, mark = ?, closed = 0", row)
        index.db.execute("COMMIT")
        index.position, index.last, index.mark = position, last, mark

    def _tell(self, damaged: Damaged) -> None:
        if damaged.offset not in self._told:
            self._told.add(damaged.offset)
            self._event(
                "log.damage_found", segment=damaged.segment, offset=damaged.offset, reason=damaged.why
            )

    # --- the file ---------------------------------------------------------------------------------------

    def _opened(self) -> File:
        """The file, opened or made anew as need be."""
        if self._index is not None and inode_of(self._path) == self._index.inode:
            return self._index
        reason = self._spoiled if self._index is None else "the file was deleted"
        self._drop()
        if not reason and inode_of(self._path):
            try:
                self._index = index = self.kind.open(self._path, self._reader.log_id, writable=True)
                index.check(self._reader, self._committed())
                self._claim(index)
                self._event("index.opened", file=self._name, offset=index.position)
                return index
            except NotUsableError as unusable:
                reason = str(unusable)
        return self._rebuild(reason)

    def _rebuild(self, reason: str) -> File:
        """Throw away what is there and make an empty one. Without a reason there was none."""
        self._drop()
        self._spoiled = reason  # until there is a new one
        remove(self._path)
        os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_S)
        self._index = index = self.kind(db, inode_of(self._path))
        db.executescript(self.kind.empty)
        _set_up(db)
        db.executescript(f"BEGIN; {self.kind.schema} PRAGMA user_version = {self.kind.version}; COMMIT")
        row = (self._reader.log_id, boot_id(), index.inode)
        db.execute("INSERT INTO about VALUES (?, 0, ?, 0, -1, 0, ?)", row)
        self._made(index)
        self._spoiled = ""
        self.is_new = True
        if reason:
            self._event("index.rebuilt", file=self._name, reason=reason)
        return index

    def _claim(self, index: File) -> None:
        """From now on the file is written without syncing."""
        _set_up(index.db)
        index.db.execute("UPDATE about SET boot = ?, closed = 0", (boot_id(),))
        index.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _sync(self._path)  # before anything else reaches the file: `closed` would vouch for it

    def _drop(self) -> None:
        index, self._index = self._index, None
        if index is not None:
            index.close()

    def _fail(self, error: Exception) -> bool:
        if not self._has_failed:
            self._has_failed = True
            self._event("index.write_failed", file=self._name, reason=str(error))
        return False

    @property
    def _name(self) -> str:
        return os.path.basename(self._path)


def remove(path: str) -> None:
    """Remove a derived file, if it is there. Raises OSError."""
    for suffix in SUFFIXES:
        try:
            os.unlink(path + suffix)
        except FileNotFoundError:
            pass


def _set_up(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = OFF")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
