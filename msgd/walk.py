"""One pass over the history: the places that may fit, in order, and of each the messages that do.

Cheapest first. The index gives places by peer and direction, zones of stored time leave out what cannot
fit, ids and endings lead straight to the few places they name. Then the state, still without the log; then
the record with its own time; its messages last, only if a filter looks into them.

Damage and what is gone is told and passed over, so a pass always comes to its end.
"""

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgd import model
from msgd.audit import Audit
from msgd.layers import Layer
from msgd.log.errors import Damaged
from msgd.log.harvest import CONTROL_KINDS
from msgd.log.index import (
    CONTROL,
    ENDING,
    IN_LANES,
    KEY,
    LANES,
    NUMBERED,
    PLACE,
    RECEIVED,
    RECOVERED_IN,
    RECOVERED_OUT,
    Location,
)
from msgd.log.leaves import Leaves
from msgd.log.opened import Records
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind, Record, decode_ranges
from msgd.rows import Filter
from msgd.sieve import Fits, content_test, lanes_of, windows
from msgd.states import Place, Span, States

FEW_IDS = 1000  # an id's beginning that finds more is looked for in all places
ENDINGS = (model.REJECTED, model.EXPIRED, model.CANCELLED)
PLACES = (Kind.OUT, Kind.IN, Kind.HELD, Kind.RECOVERED)
CONTROL_KIND = model.MESSAGE_KINDS.index("control")

Chosen = list[tuple[int, Span]]  # indexes, upwards
Match = tuple[Place, Chosen]


class Walk:
    """One query's view of the log before `upto`. Methods raise sqlite3.Error where an index is damaged."""

    def __init__(
        self,
        layers: list[Layer],
        upto: int,
        reader: Reader,
        is_held: Callable[[int], bool],
        on_damage: Callable[[Damaged], None],
        merged: Mapping[int, int],
        audit: Audit,
    ) -> None:
        self.records = Records(reader, lambda: upto, audit.message)
        self.states = States([layer.index for layer in layers], upto, self.records.first_index, is_held)
        self.log = reader.log_id.hex()
        self._layers = layers
        self._upto = upto
        self._reader = reader
        self._on_damage = on_damage
        self._merged = merged  # numbers of addresses -> the peer whose their messages are now

    # --- messages that fit ------------------------------------------------------------------------------

    def matches(self, wanted: Filter, lo: Location, hi: Location, reverse: bool) -> Iterator[Match]:
        """The places with messages that fit in [lo, hi), in order or the opposite one; no list is empty."""
        fits = content_test(wanted)
        for place in self._places(wanted, lo[0], min(hi[0] + 1, self._upto), reverse):
            first = lo[1] if place.offset == lo[0] else 0
            stop = min(hi[1], place.count) if place.offset == hi[0] else place.count
            try:
                chosen = self._chosen(place, wanted, range(first, stop), fits)
            except Damaged as damaged:
                self._on_damage(damaged)
                continue
            except LookupError:
                continue  # vacuumed meanwhile
            if chosen:
                yield place, chosen

    def start_of_last(self, wanted: Filter, lo: Location, hi: Location, lines: int) -> Location:
        """Where the last `lines` messages that fit begin; `lo` if there are fewer."""
        for place, chosen in self.matches(wanted, lo, hi, reverse=True):
            if len(chosen) >= lines:
                return place.offset, chosen[-lines][0]
            lines -= len(chosen)
        return lo

    def _chosen(self, place: Place, wanted: Filter, indexes: Sequence[int], fits: Fits | None) -> Chosen:
        """Of these messages of a place the ones that fit; what takes least first."""
        spans = None
        if wanted.state is not None:
            spans = [span for span in self.states.of(place) if span.state == wanted.state]
            indexes = [i for i, _ in _paired(indexes, spans)]
        if not indexes or not self._fits_time(place, wanted):
            return []
        if fits is not None:
            messages = self.records.messages(place.offset)
            indexes = [i for i in indexes if fits(messages[i])]
        if not indexes:
            return []
        return _paired(indexes, self.states.of(place) if spans is None else spans)

    def _fits_time(self, place: Place, wanted: Filter) -> bool:
        if wanted.since_ns is None and wanted.until_ns is None:
            return True
        wall_ns = self.records.record(place.offset).wall_ns
        return (wanted.since_ns is None or wanted.since_ns <= wall_ns) and (
            wanted.until_ns is None or wall_ns <= wanted.until_ns
        )

    # --- places that may hold some ----------------------------------------------------------------------

    def _places(self, wanted: Filter, lo: int, hi: int, reverse: bool) -> Iterator[Place]:
        """Places from log offset `lo` on, before `hi`."""
        lo = max(lo, self._reader.first)
        if wanted.kind == CONTROL_KIND:
            of_messages = self._messages(wanted, lo, hi, reverse)
            return heapq.merge(of_messages, self._control(wanted, lo, hi, reverse), reverse=reverse)
        return self._messages(wanted, lo, hi, reverse)

    def _messages(self, wanted: Filter, lo: int, hi: int, reverse: bool) -> Iterator[Place]:
        lanes = lanes_of(wanted)
        if wanted.id is not None:
            found = self.find(wanted.id, FEW_IDS + 1)
            if len(found) <= FEW_IDS:
                offsets = sorted({o for o, _ in found if lo <= o < hi}, reverse=reverse)
                return self._named(offsets, wanted, lanes)
        if wanted.state in ENDINGS:
            return self._named(self._ended(lo, hi, reverse), wanted, lanes)
        return self._listed(wanted, lanes, lo, hi, reverse)

    def _listed(
        self, wanted: Filter, lanes: frozenset[int], lo: int, hi: int, reverse: bool
    ) -> Iterator[Place]:
        """Places that the index lists for the peer, direction and time."""
        for layer in reversed(self._layers) if reverse else self._layers:
            groups = [group for peer in self._numbers(wanted) for group in layer.index.lanes(peer, lanes)]
            for start, stop in windows(layer, wanted, reverse):
                start, stop = max(start, layer.lo, lo), min(stop, layer.hi, hi)
                scans = [self._lane_places(layer, group, start, stop, reverse) for group in groups]
                yield from scans[0] if len(scans) == 1 else heapq.merge(*scans, reverse=reverse)

    def _lane_places(self, layer: Layer, group: int, lo: int, hi: int, reverse: bool) -> Iterator[Place]:
        table, peer, lane = layer.index.place, self._whose(group // LANES), group % LANES
        direction = model.IN if lane in IN_LANES else model.OUT
        scan = table.scan_back if reverse else table.scan
        for entry in scan(group, KEY.pack(lo), KEY.pack(max(lo, hi))):
            offset, count, kind, first_seq = PLACE.unpack(entry)
            if kind != Kind.RELEASED:
                yield Place(offset, count, kind, first_seq, peer, direction)

    def _control(self, wanted: Filter, lo: int, hi: int, reverse: bool) -> Iterator[Place]:
        """The records of what was done here; they have no direction and no state."""
        if wanted.direction is not None or wanted.state is not None:
            return
        for layer in reversed(self._layers) if reverse else self._layers:
            table = layer.index.control
            start, stop = KEY.pack(max(lo, layer.lo)), KEY.pack(max(lo, layer.lo, min(hi, layer.hi)))
            numbers = self._numbers(wanted)
            groups = list(table.groups()) if numbers == [None] else [n for n in numbers if n is not None]
            scans = [_control_places(table, g, self._whose(g), start, stop, reverse) for g in groups]
            yield from heapq.merge(*scans, reverse=reverse)

    def _numbers(self, wanted: Filter) -> list[int | None]:
        """Under which numbers the messages of the peer asked for may have been written; None: any."""
        if wanted.peer is None:
            return [None]
        return [wanted.peer, *(alias for alias, into in self._merged.items() if into == wanted.peer)]

    def _whose(self, number: int) -> int:
        return self._merged.get(number, number)

    def _ended(self, lo: int, hi: int, reverse: bool) -> Iterator[int]:
        """The offsets of places that endings name."""
        tables = [layer.index.ending for layer in self._layers]
        scans = [(t.scan_back if reverse else t.scan)(0, KEY.pack(lo), KEY.pack(hi)) for t in tables]
        before = -1
        for entry in heapq.merge(*scans, reverse=reverse):
            offset = ENDING.unpack(entry)[0]
            if offset != before:
                before = offset
                yield offset

    def _named(self, offsets: Iterable[int], wanted: Filter, lanes: frozenset[int]) -> Iterator[Place]:
        """The places at these offsets, if the peer and the direction are asked for."""
        for offset in offsets:
            try:
                place = self.place_of(self.records.record(offset))
            except Damaged as damaged:
                self._on_damage(damaged)
                continue
            except LookupError:
                continue
            if (
                wanted.peer in (None, place.peer)
                and (RECEIVED if place.direction == model.IN else NUMBERED) in lanes
            ):
                yield place

    def place_of(self, header: Header | Record) -> Place:
        """The place that a record is. Raises LookupError if nothing that is told first stands in it."""
        peer = self._whose(header.peer)
        if header.kind in CONTROL_KINDS:
            return Place(header.offset, 1, header.kind, 0, peer, 0)
        if header.kind not in PLACES or not header.count:
            raise LookupError(f"no message stands at log offset {header.offset}")
        return Place(header.offset, header.count, header.kind, header.first_seq, peer, header.direction)

    # --- single ones ------------------------------------------------------------------------------------

    def find(self, prefix: str, limit: int) -> list[Location]:
        """Where messages stand whose id begins with these digits, at most `limit`, in no order."""
        found: list[Location] = []
        first, indexed = self._reader.first, 0
        for layer in self._layers:
            if layer.index.inode:
                indexed = layer.hi
                for _, location in layer.index.ids(prefix):
                    if first <= location[0] < layer.hi and self._confirms(prefix, location):
                        found.append(location)
                    if len(found) >= limit:
                        return found
        for location in self._look_for(prefix, indexed):
            found.append(location)
            if len(found) >= limit:
                break
        return found

    def _confirms(self, prefix: str, location: Location) -> bool:
        """Whether the log has such a message there. Raises sqlite3.DatabaseError if it has another one."""
        offset, index = location
        try:
            messages = self.records.messages(offset)
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
        for header in self._reader.headers(start, self._upto, on_damage=self._on_damage):
            if header.kind not in PLACES or not header.count:
                continue
            try:
                if part not in self._reader.payload(header):
                    continue
                messages = self.records.messages(header.offset)
            except Damaged as damaged:
                self._on_damage(damaged)
                continue
            for index, message in enumerate(messages):
                if message.id.hex().startswith(prefix):
                    yield header.offset, index

    def numbered(self, peer: int, direction: int, seq: int) -> Location | None:
        """Where the message stands that got this seq. Raises Damaged, LookupError."""
        group = peer * LANES + (RECEIVED if direction == model.IN else NUMBERED)
        for layer in self._layers:
            found = layer.index.numbered(group, seq)
            if found is None or found[0] >= self._upto:
                continue
            offset, _, kind, first_seq = found
            if kind != Kind.RELEASED:
                return offset, seq - first_seq
            return self._released(self._reader.record(offset), seq - first_seq)
        group = peer * LANES + (RECOVERED_IN if direction == model.IN else RECOVERED_OUT)
        for layer in self._layers:
            place = layer.index.recovered_at(group, seq)
            if place is not None and place[0] < self._upto:
                return place[0], seq - place[1]
        return None

    def _released(self, record: Record, index: int) -> Location | None:
        for offset, start, _, count in decode_ranges(record.payload):
            if index < count:
                return offset, self.records.first_index(offset, start) + index
            index -= count
        return None


def _paired(indexes: Iterable[int], spans: Iterable[Span]) -> Chosen:
    """The indexes that lie in a span, each with it; both are in order."""
    rest = iter(spans)
    span = next(rest, None)
    found: Chosen = []
    for index in indexes:
        while span is not None and span.stop <= index:
            span = next(rest, None)
        if span is None:
            break
        if span.start <= index:
            found.append((index, span))
    return found


def _control_places(
    table: Leaves, group: int, peer: int, lo: bytes, hi: bytes, reverse: bool
) -> Iterator[Place]:
    for entry in (table.scan_back if reverse else table.scan)(group, lo, hi):
        offset, kind = CONTROL.unpack(entry)
        yield Place(offset, 1, kind, 0, peer, 0)
