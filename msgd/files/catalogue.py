"""Digests and owners of what is in the store: SQLite, derived, may be deleted at any time.

A digest counts while the file is the very one it was taken of: same inode, size and times, that of its last
change of any kind included, which nobody can set. Owners are also kept as an extended attribute of each file,
where the file system has such; after a loss they are read from there.
Nothing rests on it but quotas, so a catalogue that cannot be written costs digests in lists, no file.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

NAME = "files.sqlite"
VERSION = 1
BUSY_S = 30.0

SCHEMA = """
CREATE TABLE file (
    name TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER,
    sha256 BLOB, owner BLOB
) WITHOUT ROWID;
CREATE INDEX file_owner ON file (owner, size);
CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
COLUMNS = "name, size, mtime_ns, ctime_ns, inode, sha256, owner"
PUT = f"INSERT OR REPLACE INTO file ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"


class Known(NamedTuple):
    """One file as the catalogue has it."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    digest: bytes
    owner: bytes

    def is_of(self, status: os.stat_result) -> bool:
        """Whether that is the file that it was taken of."""
        return self[1:5] == mark_of(status)


def mark_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """What tells a file from all others, and from itself before a change."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


class Catalogue:
    """One process's connection. Methods raise sqlite3.Error."""

    def __init__(self, path: str, store: str) -> None:
        """`store`: the directory that it is about; what it has of another one is forgotten."""
        self._path = path
        self._base = self._open()
        self._begin(store)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, no room: it may be sound
                raise
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(self._path + suffix):
                os.unlink(self._path + suffix)
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = OFF")  # derived: after a crash it is checked against the files
        base.execute("PRAGMA cache_size = -256")
        base.execute("BEGIN IMMEDIATE")
        (version,) = base.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in SCHEMA.split(";"):
                base.execute(statement)
        elif version != VERSION:
            base.execute("ROLLBACK")
            raise sqlite3.DatabaseError(f"version {version}, expected {VERSION}")
        base.execute("COMMIT")
        return base

    def _begin(self, store: str) -> None:
        with self.alone():
            former = self._base.execute("SELECT value FROM fact WHERE name = 'store'").fetchone()
            if former == (store,):
                return
            self._base.execute("DELETE FROM file")
            self._base.execute("DELETE FROM fact")
            self._base.execute("INSERT INTO fact VALUES ('store', ?)", (store,))

    def find(self, name: str) -> Known | None:
        """What is known of a file."""
        row = self._base.execute(f"SELECT {COLUMNS} FROM file WHERE name = ?", (name,)).fetchone()
        return Known(*row) if row else None

    def put(self, files: Iterable[Known]) -> None:
        """These are there now."""
        self._base.executemany(PUT, files)

    def learn(self, name: str, status: os.stat_result, digest: bytes) -> None:
        """A file that lay there was read."""
        self._base.execute(
            f"INSERT INTO file ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, x'') ON CONFLICT (name) DO UPDATE SET"
            " size = excluded.size, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,"
            " inode = excluded.inode, sha256 = excluded.sha256",
            (name, *mark_of(status), digest),
        )

    def forget(self, names: Iterable[str]) -> None:
        """These are there no more."""
        self._base.executemany("DELETE FROM file WHERE name = ?", ((name,) for name in names))

    def used(self, owner: bytes) -> int:
        """Bytes of the files that this owner has put."""
        (total,) = self._base.execute("SELECT sum(size) FROM file WHERE owner = ?", (owner,)).fetchone()
        return total or 0

    @property
    def is_complete(self) -> bool:
        """Whether it has the owners of all files: it had no loss, or they were read since."""
        return self._base.execute("SELECT 1 FROM fact WHERE name = 'complete'").fetchone() is not None

    def complete(self, files: Iterable[Known]) -> None:
        """All files of the store were looked at: these have owners."""
        with self.alone():
            self._base.executemany(PUT.replace("REPLACE", "IGNORE"), files)
            self._base.execute("INSERT OR REPLACE INTO fact VALUES ('complete', 1)")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One transaction, while no other process may change anything."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    def close(self) -> None:
        """No more questions."""
        self._base.close()
