"""The body of the index process: follow the log, fill the index, in large transactions.

`step` takes in some records that are committed and not indexed yet, in one transaction with the new
position. The last append always stays out: a start writes it anew in another place (`log.recovery`), and
with it the checkpoint right before it, if there is one. So no log offset in the index ever becomes wrong;
a query reads so little of the log by itself anyway.

A file that is not the index of this log any more, and why does not matter (another version, damage, another
log, deleted while it was open), is thrown away and filled from the beginning. What cannot be written now
(no space) is tried again with the next step. Damage in the log is told once per place, and passed over.
"""

import os
import sqlite3
from collections.abc import Callable
from typing import Any, Protocol

from msgd.log.ahead import Ahead
from msgd.log.clock import boot_id
from msgd.log.errors import Damaged
from msgd.log.harvest import Harvest
from msgd.log.index import (
    BUSY_S,
    CACHE_KIB,
    SCHEMA,
    VERSION,
    Index,
    NotUsableError,
    inode_of,
    is_damage,
    mark_of,
)
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind

STEP_RECORDS = 8192
WAL_BYTES = 16 << 20  # kept of the write-ahead file between transactions
SUFFIXES = ("", "-wal", "-shm")


class Event(Protocol):
    """Where events go: a name, and fields."""

    def __call__(self, name: str, /, **fields: Any) -> None: ...


class Indexer:
    """Fills the index at `path` from the log that `reader` reads. One per log at a time.

    Nothing is opened before the first `step`. Events: `index.opened` (offset), `index.rebuilt` (reason),
    `index.write_failed` (reason), `log.damage_found` (segment, offset, reason).
    """

    def __init__(self, path: str, reader: Reader, committed: Callable[[], int], event: Event) -> None:
        self._path = path
        self._reader = reader
        self._committed = committed
        self._event = event
        self._index: Index | None = None
        self._spoiled = ""  # why what is there cannot be used, if that is known already
        self._told: set[int] = set()
        self._has_failed = False

    @property
    def position(self) -> int:
        """Log offset before which everything is in the index; 0 when none is open."""
        return 0 if self._index is None else self._index.position

    def step(self, budget_records: int = STEP_RECORDS) -> bool:
        """Index about so many records more; whether there is more to do at once. Blocks while it works."""
        try:
            more = self._step(budget_records)
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

    # --- one step ---------------------------------------------------------------------------------------

    def _step(self, budget: int) -> bool:
        index = self._opened()
        harvest = Harvest(with_ids=True)

        def damage(damaged: Damaged) -> None:
            harvest.take_damage(damaged)
            self._tell(damaged)

        ready: list[Header] = []
        unit: list[Header] = []  # what a start would move together
        for header in self._reader.headers(index.position, on_damage=damage):
            if unit and header.begin != unit[-1].begin and unit[-1].kind != Kind.CHECKPOINT:
                ready += unit
                unit = []
            unit.append(header)
            if len(ready) >= budget:
                break
        if not ready:
            return False
        for damaged in harvest.take_all(ready, Ahead(self._reader, self._committed)):
            self._tell(damaged)
        self._store(index, harvest, unit[0].offset, ready[-1])
        return len(ready) >= budget

    def _store(self, index: Index, harvest: Harvest, position: int, last: Header) -> None:
        mark = mark_of(last)
        index.db.execute("BEGIN IMMEDIATE")
        harvest.store(index)
        row = (position, last.offset, mark)
        index.db.execute("UPDATE about SET position = ?, last = ?, mark = ?, closed = 0", row)
        index.db.execute("COMMIT")
        index.position, index.last, index.mark = position, last.offset, mark

    # --- the file ---------------------------------------------------------------------------------------

    def _opened(self) -> Index:
        """The index, opened or made anew as need be."""
        if self._index is not None and inode_of(self._path) == self._index.inode:
            return self._index
        reason = self._spoiled if self._index is None else "the file was deleted"
        self._drop()
        if not reason and inode_of(self._path):
            try:
                self._index = Index.open(self._path, self._reader.log_id, writable=True)
                self._index.check(self._reader, self._committed())
                self._claim()
                self._event("index.opened", offset=self._index.position)
                return self._index
            except NotUsableError as unusable:
                reason = str(unusable)
        return self._rebuild(reason)

    def _rebuild(self, reason: str) -> Index:
        """Throw away what is there and make an empty index. Without a reason there was none."""
        self._drop()
        self._spoiled = reason  # until there is a new one
        for suffix in SUFFIXES:
            try:
                os.unlink(self._path + suffix)
            except FileNotFoundError:
                pass
        os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_S)
        self._index = Index(db, inode_of(self._path))
        _set_up(db)
        db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")
        db.execute("INSERT INTO about VALUES (?, 0, ?, 0, -1, 0)", (self._reader.log_id, boot_id()))
        self._spoiled = ""
        if reason:
            self._event("index.rebuilt", reason=reason)
        return self._index

    def _claim(self) -> None:
        """From now on the file is written without syncing."""
        assert self._index is not None
        _set_up(self._index.db)
        self._index.db.execute("UPDATE about SET boot = ?, closed = 0", (boot_id(),))
        self._index.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _sync(self._path)  # before anything else reaches the file: `closed` would vouch for it

    def _drop(self) -> None:
        index, self._index = self._index, None
        if index is not None:
            index.close()

    # --- what goes wrong --------------------------------------------------------------------------------

    def _tell(self, damaged: Damaged) -> None:
        if damaged.offset not in self._told:
            self._told.add(damaged.offset)
            self._event(
                "log.damage_found", segment=damaged.segment, offset=damaged.offset, reason=damaged.why
            )

    def _fail(self, error: Exception) -> bool:
        if not self._has_failed:
            self._has_failed = True
            self._event("index.write_failed", reason=str(error))
        return False


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
