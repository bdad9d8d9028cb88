"""What is known about the log as of one offset: the index as far as it goes, and a private one for the rest.

The index process may be behind, or its file missing, damaged or another log's. So a reader takes what the
file holds, and reads the headers of the log from there on into an index of its own (`Index.private`), which
lies in memory while it is small. Both together know everything, and the one that says where a message
stands need not be the one that says what became of it.

The private one is kept and grows with the log, until it spans REFRESH_BYTES and the file has caught up.
"""

import os
import sqlite3
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from msgd.log.ahead import Ahead
from msgd.log.harvest import Harvest
from msgd.log.index import Index, NotUsableError, inode_of, is_damage
from msgd.log.reader import Reader

REFRESH_BYTES = 4 << 20  # of the log: what a query is content to read by itself in 10 ms
STORE_RECORDS = 8192


class Layer(NamedTuple):
    """One index, and the stretch of log offsets [lo, hi) for whose places it is asked."""

    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody wants here
    lo: int
    hi: int


class Layers:
    """The index at `path` and the log that `reader` reads."""

    def __init__(self, reader: Reader, committed: Callable[[], int], path: str) -> None:
        self._reader = reader
        self._committed = committed
        self._path = path
        self._main: Index | None = None
        self._rest: Index | None = None
        self._from = 0  # log offset where the rest begins
        self._to = 0  # where it ends

    def upto(self, upto: int) -> list[Layer]:
        """Layers that hold all before `upto`, which was committed once. Raises sqlite3.Error."""
        if self._rest is None or upto - self._from > REFRESH_BYTES:
            self._refresh()
        assert self._rest is not None
        if self._to < upto:
            self._read(self._rest, upto)
        layers = [Layer(self._rest, self._from, upto)]
        if self._main is not None:
            layers.insert(0, Layer(self._main, 0, min(self._from, upto)))
        return layers

    def distrust(self, error: sqlite3.Error) -> None:
        """Do without the file from now on; remove it if it is damaged. Raises `error` if there is none."""
        main = self._main
        if main is None:
            raise error
        self._main = self._rest = None
        if is_damage(error) and inode_of(self._path) == main.inode:
            # the index process sees that it is gone and makes a new one
            os.unlink(self._path)
        self._from = self._to = 0

    def close(self) -> None:
        """Close both."""
        for index in (self._main, self._rest):
            if index is not None:
                index.close()
        self._main = self._rest = None

    def _refresh(self) -> None:
        """Open the file anew, if it is there and knows more than what is open."""
        main = self._open()
        if self._rest is not None and (main is None or main.position <= self._from):
            return
        # what was open may be in use by an older query: it closes with the last reference
        self._main = main
        self._rest = Index.private()
        self._from = self._to = self._reader.first if main is None else main.position

    def _open(self) -> Index | None:
        try:
            index = Index.open(self._path, self._reader.log_id)
        except (NotUsableError, sqlite3.Error):
            return None
        try:
            index.check(self._reader, self._committed())
        except NotUsableError:
            index.close()
            return None
        return index

    def _read(self, index: Index, upto: int) -> None:
        harvest = Harvest(with_ids=False)
        ahead = Ahead(self._reader, self._committed)
        headers = self._reader.headers(self._to, upto, on_damage=harvest.take_damage)
        while some := list(islice(headers, STORE_RECORDS)):
            harvest.take_all(some, ahead)
            self._store(index, harvest)
        self._store(index, harvest)  # damage behind the last record, too
        index.position = self._to = upto

    @staticmethod
    def _store(index: Index, harvest: Harvest) -> None:
        index.db.execute("BEGIN")
        harvest.store(index)
        index.db.execute("COMMIT")
