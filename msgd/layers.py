"""What is known about the log as of one offset: the index as far as it goes, and a private one for the rest.

The index process may be behind, or its file missing, damaged or another log's. So a reader takes what the
file holds, and reads the headers of the log from there on into an index of its own (`Rest`), which lies in
memory while it is small. Both together know everything, and the one that says where a message stands need
not be the one that says what became of it.

What became of a message always stands behind it. So the rest is read backwards, a stretch at a time, and
only as far as a query goes: the last messages of a log that has no index at all cost no more than others.
It is kept and grows with the log, until it spans REFRESH_BYTES and the file has caught up.
"""

import os
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgd.log.derived import NotUsableError, inode_of, is_damage
from msgd.log.errors import Damaged
from msgd.log.filling import Front, store
from msgd.log.gather import gather
from msgd.log.harvest import Harvest
from msgd.log.index import KEY, PLACE, Index
from msgd.log.reader import Reader
from msgd.log.segment import gaps_of

REFRESH_BYTES = 4 << 20  # of the log: what a query is content to read by itself in 10 ms
FIRST_BYTES = 1 << 20  # of the stretch that is read first, where there is more than that; then
MORE_TIMES = 4  # as much, up to
MOST_BYTES = 64 << 20
STORE_RECORDS = 8192

OnDamage = Callable[[Damaged], None]


class Layer(NamedTuple):
    """One index, and the stretch of log offsets [lo, hi) for whose places it is asked."""

    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody wants here
    lo: int
    hi: int


class Rest:
    """A private index of the log from `lo` on, before `hi`; at first of nothing before `hi`."""

    def __init__(self, reader: Reader, hi: int) -> None:
        self.index = Index.private()
        self.lo = self.hi = self.index.position = hi
        self._reader = reader
        self._size = FIRST_BYTES

    def grow(self, hi: int) -> None:
        """Take in what stands behind it, before `hi`."""
        if hi > self.hi:
            self._read(self.hi, hi, None)
            self.index.position = self.hi = hi

    def deepen(self, floor: int) -> None:
        """Take in some of what stands before it, from log offset `floor` on, which is less than `lo`."""
        lo = floor
        if self.lo - floor > REFRESH_BYTES and (guess := self.lo - self._size) > floor:
            lo = self._reader.append_from(guess, self.lo)
        if lo == self.lo:
            self._size *= MORE_TIMES  # no sound append in all of that
            return
        self._read(lo, self.lo, Front(self.index))
        self.lo = lo
        self._size = min(self._size * MORE_TIMES, MOST_BYTES)

    def _read(self, lo: int, hi: int, front: Front | None) -> None:
        harvest = Harvest(self._reader.directory, with_ids=False)
        while lo < hi:
            lo = gather(harvest, self._reader, lo, hi, lambda: harvest.records >= STORE_RECORDS)
            self.index.db.execute("BEGIN")
            store(self.index, harvest, front)
            self.index.db.execute("COMMIT")


class View:
    """What is known before `upto`, for one query. Methods raise sqlite3.Error.

    `indexes` are asked together, the one of older records first, for whatever befell a message behind a log
    offset that was `reach`ed. `gaps` are stretches [lo, hi) that are not kept, but an index may know them.
    """

    def __init__(self, main: Index | None, rest: Rest, reader: Reader, upto: int, tell: OnDamage) -> None:
        self.main = main
        self.upto = upto
        self.floor = min(upto, reader.first if main is None else main.position)  # where the rest begins
        self.indexes = [rest.index] if main is None else [main, rest.index]
        self.gaps = gaps_of(reader.extents())
        if main is not None:
            known = set(main.db.execute("SELECT lo, hi FROM gap"))
            self.gaps = [(lo, hi) for lo, hi in self.gaps if (lo, hi) not in known or hi > main.position]
        self._rest = rest
        self.deeper: Callable[[], None] = lambda: None  # called when more was read
        self._tell = tell
        for index in self.indexes:
            self._tell_damage(index)

    def is_kept(self, offset: int) -> bool:
        """Whether a log offset lies in none of the gaps."""
        place = bisect_right(self.gaps, (offset, self.upto)) - 1
        return place < 0 or offset >= self.gaps[place][1]

    def reach(self, offset: int) -> None:
        """Know everything from this log offset on."""
        while self._rest.lo > max(offset, self.floor):
            self._deepen()

    def layers(self, lo: int, reverse: bool) -> Iterator[Layer]:
        """Where the places from `lo` on stand, in order; backwards each is read when it is asked for."""
        if not reverse:
            self.reach(lo)
            if self.main is not None and lo < self.floor:
                yield Layer(self.main, 0, self.floor)
            yield Layer(self._rest.index, max(self._rest.lo, self.floor), self.upto)
            return
        hi = self.upto
        while hi > max(lo, self.floor):
            if self._rest.lo >= hi:
                self._deepen()
            stretch = max(self._rest.lo, self.floor)
            if stretch < hi:
                yield Layer(self._rest.index, stretch, hi)
            hi = stretch
        if self.main is not None and hi > lo:
            yield Layer(self.main, 0, hi)

    def reach_seq(self, group: int, seq: int) -> None:
        """Know the place that gave this seq, in a group of `place`, and everything behind it."""
        newest = None if self.main is None else self.main.place.last(group)
        if newest is not None and PLACE.unpack(newest)[3] > seq:
            return  # what is behind gave higher ones
        for index, lo, _ in self.layers(self.floor, reverse=True):
            oldest = index.place.first(group, KEY.pack(lo))
            if oldest is not None and PLACE.unpack(oldest)[3] <= seq:
                return

    def _deepen(self) -> None:
        self._rest.deepen(self.floor)
        self.deeper()
        self._tell_damage(self._rest.index)

    def _tell_damage(self, index: Index) -> None:
        for damaged in index.damage():
            if self.is_kept(damaged.offset):
                self._tell(damaged)


class Layers:
    """The index at `path` and the log that `reader` reads."""

    def __init__(self, reader: Reader, committed: Callable[[], int], path: str) -> None:
        self._reader = reader
        self._committed = committed
        self._path = path
        self._main: Index | None = None
        self._rest: Rest | None = None

    def view(self, upto: int, tell: OnDamage) -> View:
        """What is known before `upto`, which was committed once. Raises sqlite3.Error."""
        known = 0 if self._main is None else self._main.position
        if self._rest is None or upto - known > REFRESH_BYTES:
            self._refresh(upto, known)
        assert self._rest is not None
        self._rest.grow(upto)
        return View(self._main, self._rest, self._reader, upto, tell)

    def distrust(self, error: sqlite3.Error) -> None:
        """Do without the file from now on; remove it if it is damaged. Raises `error` if there is none."""
        main = self._main
        if main is None:
            raise error
        self._main = self._rest = None
        if is_damage(error) and inode_of(self._path) == main.inode:
            # the index process sees that it is gone and makes a new one
            os.unlink(self._path)

    def close(self) -> None:
        """Close both."""
        if self._main is not None:
            self._main.close()
        if self._rest is not None:
            self._rest.index.close()
        self._main = self._rest = None

    def _refresh(self, upto: int, known: int) -> None:
        """Open the file anew, if it is there and knows more than what is open."""
        main = self._open()
        if self._rest is not None and (main is None or main.position <= known):
            return
        # what was open may be in use by an older query: it closes with the last reference
        self._main = main
        if self._rest is None or (main is not None and main.position > self._rest.lo):
            self._rest = Rest(self._reader, upto if main is None else max(upto, main.position))

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
