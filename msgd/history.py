"""The history of messages: what a control worker answers from the log, with the index's help.

One message is one row. Its place in the history is the record where it was first committed (`out`, `held`
or `in`), and rows come in the order of places, never of clocks. A query is exact as of one committed
offset, `upto`, however far the index is (`layers`). Its memory does not grow with what it finds: rows are
handed over in lists of bounded size, and the last N are found by going backwards (`walk`), then told
forwards from there.

A damaged record is told to `on_damage`, once per place, and left out. An index that turns out to be damaged
is removed, so that the index process makes a new one, and the query goes on without it from where it was.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import msgspec

from msgd import model
from msgd.audit import Audit
from msgd.changes import Changed, Changes, stretches
from msgd.items import Items
from msgd.layers import Layers
from msgd.log import words
from msgd.log.errors import Damaged
from msgd.log.harvest import CONTROL_KINDS
from msgd.log.index import Location
from msgd.log.reader import Reader
from msgd.log.record import Header
from msgd.matches import Found, Match, first_of
from msgd.parts import Part, Step, Steps, Telling
from msgd.rows import Cursor, Filter, Row, parse_cursor
from msgd.searching import Searching, SearchLost
from msgd.states import Place
from msgd.walk import Walk

ID_DIGITS = 32  # of a whole id

Result = TypeVar("Result")


class History:
    """Queries over the log that `reader` reads; for one process, any number of them at a time.

    `peer_name` gives the name of a peer by its number; `held_reason` the reason why nothing is released to
    it, None when messages to it are queued; `merged` the peer whose messages those to an address became, by
    both numbers; `open_from` a log offset before which all messages to a peer are final. Blocks while it
    reads. Writes nothing, but removes an index that is damaged.
    """

    def __init__(
        self,
        reader: Reader,
        committed: Callable[[], int],
        index_path: str,
        *,
        own_name: str,
        peer_name: Callable[[int], str],
        held_reason: Callable[[int], str | None] = lambda peer: None,
        merged: Mapping[int, int] | None = None,
        open_from: Callable[[int], int] = lambda peer: 0,
        on_damage: Callable[[Damaged], None],
    ) -> None:
        self._reader = reader
        self._committed = committed
        self._layers = Layers(reader, committed, index_path)
        search_path = os.path.join(os.path.dirname(index_path), words.NAME)
        self._searching = Searching(reader, committed, search_path)
        self._own_name = own_name
        self._peer_name = peer_name
        self._held_reason = held_reason
        self._merged = {} if merged is None else merged
        self._open_from = open_from
        self._audit: Audit | None = None
        self._on_damage = on_damage
        self._told: set[int] = set()

    @property
    def has_gaps(self) -> bool:
        """Whether a part of the log is not kept any more."""
        extents = self._reader.extents()
        return extents[-1].stop != sum(stop - base for base, stop in extents)

    def query(self, wanted: Filter, upto: int | None = None) -> Iterator[list[Row]]:
        """The rows that fit, in order of places (`reverse`: newest first), a list at a time, none empty.

        As of `upto`, a log offset that was once all that was committed; by default what is committed now.
        To follow, ask again with the cursor `(upto - 1, 0)`. Raises UsageError at once.
        """
        wanted, lo, hi = self._bounds(wanted, upto)
        parts = self._parts(wanted, lo, hi, False, None)
        return (part.rows for part in parts if isinstance(part, Part))

    def told(
        self, wanted: Filter, upto: int | None = None, *, as_lines: bool = False, steps: Steps | None = None
    ) -> Iterator[Part | Step]:
        """As `query`: parts of rows, or of JSON lines as `msgctl log -o json` prints them.

        With `steps` those of the clock stand between the messages where they belong.
        """
        wanted, lo, hi = self._bounds(wanted, upto)
        return self._parts(wanted, lo, hi, as_lines, steps)

    def changes(
        self,
        wanted: Filter,
        since: int,
        upto: int,
        *,
        flipped: Mapping[int, int] | None = None,
        as_lines: bool = False,
    ) -> Iterator[Part]:
        """Messages that stood before `since`, that fit now, and whose state has changed from then to `upto`.

        Both are log offsets that were once all that was committed. `flipped`: peers to which messages are
        held since then, or no longer, and before which log offset all messages to them were final by then.
        What changed more than once is told once for each change.
        """
        wanted, lo, _ = self._bounds(wanted, upto)
        for peer, open_from in (flipped or {}).items():
            if wanted.peer in (None, peer):
                now = model.QUEUED if self._held_reason(peer) is None else model.HELD
                turn = partial(Changes.flipped, peer=peer, now=now, wanted=wanted, lo=lo)
                yield from self._changes(turn, since, since, as_lines, _always(open_from))
        start = since
        for headers, stop in stretches(self._reader, since, upto):
            find = partial(Changes.matches, headers=headers, wanted=wanted, lo=lo, hi=since)
            yield from self._changes(find, start, stop, as_lines)
            start = stop

    def _changes(
        self,
        find: Callable[[Changes], Iterator[Changed]],
        since: int,
        upto: int,
        as_lines: bool,
        open_from: Callable[[int], int] | None = None,
    ) -> Iterator[Part]:
        while True:
            try:
                walk = self._walk(upto, open_from)
                yield from self._teller(walk, as_lines).changes(find(Changes(walk, since)))
                return
            except sqlite3.Error as error:
                self._distrust(error)

    def _bounds(self, wanted: Filter, upto: int | None) -> tuple[Filter, Location, Location]:
        upto = self._committed() if upto is None else upto
        wanted.check()
        if wanted.peer is not None:
            wanted = msgspec.structs.replace(wanted, peer=self._merged.get(wanted.peer, wanted.peer))
        lo = (0, 0) if wanted.after is None else self._behind(parse_cursor(wanted.after, self._reader.log_id))
        return wanted, lo, (upto, 0)

    def find(self, prefix: str, limit: int = 16) -> list[Location]:
        """Where messages stand whose id begins with these digits (`model.id_prefix`), at most `limit`."""
        told = self._told_at(prefix)
        return [told] if told else sorted(self._ask(lambda walk: walk.places.find(prefix, limit)))

    def message_at(self, location: Location) -> Row:
        """The message at a location. Raises LookupError when there is none, Damaged."""

        def row(walk: Walk) -> Row:
            place, index = self._place(walk, location)
            record, messages = walk.records.record(place.offset), walk.records.messages(place.offset)
            span = next(s for s in walk.states.of(place) if s.start <= index < s.stop)
            match = Match(place, [(span, (index,))], record, messages)
            part = next(self._teller(walk, False).parts([match], False))
            assert isinstance(part, Part)
            return part.rows[0]

        return self._ask(row)

    def life(self, location: Location) -> list[Header]:
        """The records that tell about one message, in order: its own, releases, receipt or ending.

        Raises as `message_at`.
        """

        def headers(walk: Walk) -> list[Header]:
            place, index = self._place(walk, location)
            headers = []
            for offset in walk.states.life(place, index):
                try:
                    record = self._reader.record(offset)
                except LookupError:
                    continue  # a receipt may be gone before its messages
                headers.append(Header._make(record[: len(Header._fields)]))
            return headers

        return self._ask(headers)

    def location_of(self, peer: int, direction: int, seq: int) -> Location | None:
        """Where the message stands that this seq was given to; None if there is none. Raises Damaged."""
        return self._ask(lambda walk: walk.numbered(peer, direction, seq))

    def close(self) -> None:
        """Close the index. The history may be used again."""
        self._layers.close()

    # --- steps of a query -------------------------------------------------------------------------------

    def _parts(
        self, wanted: Filter, lo: Location, hi: Location, as_lines: bool, steps: Steps | None
    ) -> Iterator[Part | Step]:
        upto, left, reverse = hi[0], wanted.lines, wanted.reverse
        while left is None or left > 0:
            try:
                walk = self._walk(upto)
                matches: Iterator[Found] | None = None
                if left is not None and not reverse:
                    lo, few = walk.last(wanted, lo, hi, left)
                    matches, left = walk.read(few) if few else None, None
                if matches is None:
                    matches = walk.matches(wanted, lo, hi, reverse)
                if left is not None:
                    matches = first_of(matches, left)
                found: Iterable[Found | int] = matches
                if steps is not None:
                    offsets = walk.places.steps(lo[0], min(hi[0] + 1, upto), reverse)
                    found = steps.between(matches, offsets, reverse)
                for part in self._teller(walk, as_lines).parts(found, reverse):
                    yield part
                    if left is not None and isinstance(part, Part):
                        left -= part.size
                    if reverse:
                        hi = part.last
                    else:
                        lo = (part.last[0], part.last[1] + 1)
                return
            except sqlite3.Error as error:
                self._distrust(error)

    def _teller(self, walk: Walk, as_lines: bool) -> Telling:
        knows = walk.log, self._own_name, self._peer_name, self._held_reason, self._damage
        return Telling(walk, Items(walk.records, *knows), self._damage, as_lines)

    def _behind(self, cursor: Cursor) -> Location:
        """The first location behind a cursor, wherever its message stands now."""
        offset, index = cursor.location
        if cursor.id is not None and offset >= self._reader.first and not self._stands_at(cursor):
            moved = [at for at in self.find(cursor.id.hex()) if at >= cursor.location]
            offset, index = min(moved, default=cursor.location)
        return offset, index + 1

    def _stands_at(self, cursor: Cursor) -> bool:
        offset, index = cursor.location
        try:
            record = self._reader.record(offset)
            if record.kind in CONTROL_KINDS:
                return cursor.id == self._telling().id_of(offset)
            return self._reader.messages(record)[index].id == cursor.id
        except (Damaged, LookupError, msgspec.MsgspecError):
            return False

    def _told_at(self, prefix: str) -> Location | None:
        """Where the record stands whose row has this id, if it is one of those that tell what was done."""
        offset = self._telling().offset_of(bytes.fromhex(prefix)) if len(prefix) == ID_DIGITS else None
        if offset is None:
            return None
        try:
            return (offset, 0) if self._reader.record(offset).kind in CONTROL_KINDS else None
        except (Damaged, LookupError):
            return None

    def _telling(self) -> Audit:
        if self._audit is None:
            self._audit = Audit(self._reader.log_id, self._own_name, self._peer_name)
        return self._audit

    # --- helpers ----------------------------------------------------------------------------------------

    def _ask(self, question: Callable[[Walk], Result]) -> Result:
        while True:
            try:
                return question(self._walk(self._committed()))
            except sqlite3.Error as error:
                self._distrust(error)

    def _walk(self, upto: int, open_from: Callable[[int], int] | None = None) -> Walk:
        return Walk(
            self._layers.view(upto, self._damage),
            self._reader,
            lambda peer: self._held_reason(peer) is not None,
            self._damage,
            self._merged,
            open_from or self._open_from,
            self._telling(),
            self._searching,
        )

    def _distrust(self, error: sqlite3.Error) -> None:
        """Do without the file that failed. Raises `error` if it was none."""
        if isinstance(error, SearchLost):
            self._searching.distrust(error)
        else:
            self._layers.distrust(error)

    @staticmethod
    def _place(walk: Walk, location: Location) -> tuple[Place, int]:
        place = walk.places.of(walk.records.record(location[0]))
        walk.reach(place.offset)
        if not 0 <= location[1] < place.count:
            raise LookupError(f"log offset {location[0]} has {place.count} messages, none at {location[1]}")
        return place, location[1]

    def _damage(self, damaged: Damaged) -> None:
        if damaged.offset not in self._told:
            self._told.add(damaged.offset)
            self._on_damage(damaged)


def _always(offset: int) -> Callable[[int], int]:
    return lambda _: offset
