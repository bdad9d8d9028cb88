"""The places of the history that may hold what is asked for, in order, as the index lists them.

By peer and direction, without the zones whose stored time cannot fit; ids and endings lead straight to the
few places that they name.
"""

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgd import model
from msgd.lanes import Lane, merged
from msgd.layers import Layer, View
from msgd.log.errors import Damaged
from msgd.log.harvest import CONTROL_KINDS
from msgd.log.index import CONTROL, ENDING, KEY, LANES, Location
from msgd.log.opened import Records
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind, Record
from msgd.rows import Filter
from msgd.searching import Search, SearchLost
from msgd.sieve import lane_of, lanes_of, windows
from msgd.states import Place

FEW_IDS = 1000  # an id's beginning that finds more is looked for in all places
OPEN = (model.QUEUED, model.HELD)
ENDINGS = (model.REJECTED, model.EXPIRED, model.CANCELLED)
KINDS = (Kind.OUT, Kind.IN, Kind.HELD, Kind.RECOVERED)
CONTROL_KIND = model.MESSAGE_KINDS.index("control")


class Places:
    """What a view knows of places. Methods raise sqlite3.Error where an index is damaged."""

    def __init__(
        self,
        view: View,
        reader: Reader,
        records: Records,
        merged: Mapping[int, int],
        open_from: Callable[[int], int],
        on_damage: Callable[[Damaged], None],
    ) -> None:
        self._view = view
        self._reader = reader
        self._records = records
        self._merged = merged  # numbers of addresses -> the peer whose their messages are now
        self._open_from = open_from
        self._on_damage = on_damage

    def lists(
        self, wanted: Filter, lo: int, hi: int, reverse: bool, search: Search | None = None
    ) -> Iterator[list[Place]]:
        """Places from log offset `lo` on, before `hi`; in order or the opposite one, some at a time.

        What `search` knows to have nothing of what is searched for is left out.
        """
        lo, hi = max(lo, self._reader.first), min(hi, self._view.upto)
        lists = self._messages(wanted, lo, hi, reverse, search)
        if wanted.kind == CONTROL_KIND:
            messages = (place for places in lists for place in places)
            control = self._control(wanted, lo, hi, reverse)
            lists = ([place] for place in heapq.merge(messages, control, reverse=reverse))
        is_kept = self._view.is_kept
        for places in lists:
            yield [place for place in places if is_kept(place.offset)] if self._view.gaps else places

    def of(self, header: Header | Record) -> Place:
        """The place that a record is. Raises LookupError if nothing that is told first stands in it."""
        peer = self.whose(header.peer)
        if header.kind in CONTROL_KINDS:
            return Place(header.offset, 1, header.kind, 0, peer, 0)
        if header.kind not in KINDS or not header.count:
            raise LookupError(f"no message stands at log offset {header.offset}")
        return Place(header.offset, header.count, header.kind, header.first_seq, peer, header.direction)

    def whose(self, number: int) -> int:
        """The peer whose messages those written under this number are."""
        return self._merged.get(number, number)

    def numbers(self, peer: int) -> list[int]:
        """Under which numbers the messages of a peer may have been written."""
        return [peer, *(alias for alias, into in self._merged.items() if into == peer)]

    # --- what the index lists ---------------------------------------------------------------------------

    def _messages(
        self, wanted: Filter, lo: int, hi: int, reverse: bool, search: Search | None
    ) -> Iterator[list[Place]]:
        lanes = lanes_of(wanted)
        if wanted.id is not None:
            found = self.find(wanted.id, FEW_IDS + 1)
            if len(found) <= FEW_IDS:
                offsets = sorted({o for o, _ in found if lo <= o < hi}, reverse=reverse)
                self._view.reach(min(offsets, default=hi))
                return self._named(offsets, wanted, lanes)
        if wanted.state in ENDINGS:
            return self._named(self._ended(lo, hi, reverse), wanted, lanes)
        return self._listed(wanted, lanes, lo, hi, reverse, search)

    def _listed(
        self, wanted: Filter, lanes: frozenset[int], lo: int, hi: int, reverse: bool, search: Search | None
    ) -> Iterator[list[Place]]:
        """Places that the index lists for the peer, direction and time; or those that the search names."""
        for layer in self._view.layers(lo, reverse):
            groups = [group for peer in self._asked(wanted) for group in layer.index.lanes(peer, lanes)]
            for start, stop in windows(layer, wanted, reverse):
                start, stop = max(start, layer.lo, lo), min(stop, layer.hi, hi)
                middle = start if search is None else min(max(start, search.position), stop)
                for is_known in (not reverse, reverse):
                    if search is not None and is_known and start < middle:
                        for offsets in search.places(start, middle, reverse):
                            yield self._named_at(offsets, wanted, lanes)
                    elif not is_known and middle < stop:
                        yield from self._in_lanes(layer, groups, middle, stop, wanted.state in OPEN, reverse)

    def _in_lanes(
        self, layer: Layer, groups: list[int], lo: int, hi: int, is_open: bool, reverse: bool
    ) -> Iterator[list[Place]]:
        """`is_open`: only those that may hold messages which are not final."""
        lanes = []
        for group in groups:
            peer = self.whose(group // LANES)
            start = max(lo, self._open_from(peer)) if is_open else lo
            if start < hi:
                lanes.append(Lane(layer, group, start, hi, peer, reverse))
        return merged(lanes, reverse)

    def _control(self, wanted: Filter, lo: int, hi: int, reverse: bool) -> Iterator[Place]:
        """The records of what was done here; they have no direction and no state."""
        if wanted.direction is not None or wanted.state is not None:
            return
        for layer in self._view.layers(lo, reverse):
            table = layer.index.control
            start, stop = KEY.pack(max(lo, layer.lo)), KEY.pack(max(lo, layer.lo, min(hi, layer.hi)))
            asked = self._asked(wanted)
            groups = list(table.groups()) if asked == [None] else [n for n in asked if n is not None]
            scan = table.scan_back if reverse else table.scan
            scans = [_control_places(scan(g, start, stop), self.whose(g)) for g in groups]
            yield from heapq.merge(*scans, reverse=reverse)

    def steps(self, lo: int, hi: int, reverse: bool) -> Iterator[int]:
        """The log offsets in [lo, hi) of the records that say that the clock was set."""
        for layer in self._view.layers(lo, reverse):
            table = layer.index.control
            start, stop = KEY.pack(max(lo, layer.lo)), KEY.pack(max(lo, layer.lo, min(hi, layer.hi)))
            for entry in (table.scan_back if reverse else table.scan)(0, start, stop):
                offset, kind = CONTROL.unpack(entry)
                if kind == Kind.CLOCK_STEP:
                    yield offset

    def _asked(self, wanted: Filter) -> list[int] | list[None]:
        """The numbers of the peer asked for; None: any."""
        return [None] if wanted.peer is None else self.numbers(wanted.peer)

    def _ended(self, lo: int, hi: int, reverse: bool) -> Iterator[int]:
        """The offsets of places that endings name."""
        before = -1
        for layer in self._view.layers(lo, reverse):
            start, stop = KEY.pack(max(lo, layer.lo)), KEY.pack(max(lo, layer.lo, min(hi, layer.hi)))
            tables = [index.ending for index in self._view.indexes]
            scans = [(t.scan_back if reverse else t.scan)(0, start, stop) for t in tables]
            for entry in heapq.merge(*scans, reverse=reverse):
                offset = ENDING.unpack(entry)[0]
                if offset != before:
                    before = offset
                    yield offset

    def _named(self, offsets: Iterable[int], wanted: Filter, lanes: frozenset[int]) -> Iterator[list[Place]]:
        """The places at these offsets, if the peer and the direction are asked for."""
        for offset in offsets:
            try:
                place = self.of(self._records.record(offset))
            except Damaged as damaged:
                self._on_damage(damaged)
                continue
            except LookupError:
                continue
            if wanted.peer in (None, place.peer) and lane_of(place.direction) in lanes:
                yield [place]

    def _named_at(self, offsets: list[int], wanted: Filter, lanes: frozenset[int]) -> list[Place]:
        """As `_named`, for offsets that go up or down: read many at a time."""
        records = self._records.some(offsets, None, self._on_damage)
        try:
            places = [self.of(record) for _, record in records]
        except LookupError as error:
            raise SearchLost(str(error)) from sqlite3.DatabaseError(
                "it has messages that the log does not have"
            )
        return [p for p in places if wanted.peer in (None, p.peer) and lane_of(p.direction) in lanes]

    # --- single ones ------------------------------------------------------------------------------------

    def find(self, prefix: str, limit: int) -> list[Location]:
        """Where messages stand whose id begins with these digits, at most `limit`, in no order."""
        found: list[Location] = []
        main, view = self._view.main, self._view
        first = self._reader.first
        for _, location in main.ids(prefix) if main is not None else ():
            is_known = first <= location[0] < view.floor and view.is_kept(location[0])
            if is_known and self._confirms(prefix, location):
                found.append(location)
            if len(found) >= limit:
                return found
        for location in self._look_for(prefix, view.floor):
            found.append(location)
            if len(found) >= limit:
                break
        return found

    def _confirms(self, prefix: str, location: Location) -> bool:
        """Whether the log has such a message there. Raises sqlite3.DatabaseError if it has another one."""
        offset, index = location
        try:
            messages = self._records.messages(offset)
        except Damaged as damaged:
            self._on_damage(damaged)
            return False
        except LookupError:
            return False  # vacuumed meanwhile
        if index >= len(messages) or not messages[index].id.hex().startswith(prefix):
            raise sqlite3.DatabaseError(f"the index has a message at {offset} that the log does not have")
        return True

    def _look_for(self, prefix: str, start: int) -> Iterator[Location]:
        """The same in the log itself from `start` on."""
        part = bytes.fromhex(prefix[: len(prefix) & ~1])
        for header in self._reader.headers(start, self._view.upto, on_damage=self._on_damage):
            if header.kind not in KINDS or not header.count:
                continue
            try:
                if part not in self._reader.payload(header):
                    continue
                messages = self._records.messages(header.offset)
            except Damaged as damaged:
                self._on_damage(damaged)
                continue
            for index, message in enumerate(messages):
                if message.id.hex().startswith(prefix):
                    yield header.offset, index


def _control_places(entries: Iterable[bytes], peer: int) -> Iterator[Place]:
    for entry in entries:
        offset, kind = CONTROL.unpack(entry)
        yield Place(offset, 1, kind, 0, peer, 0)
