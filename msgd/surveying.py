"""What of the log may go, found by reading it: headers of old segments, once for each as long as this lives.

It reads beside the log process, and knows of it only what is not final. That stays right while time passes:
what is final stays so, and no later record names it.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

import msgspec

from msgd.log.ahead import Ahead
from msgd.log.clock import Clock
from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.log.record import HEADER_BYTES, Header, Kind, decode_ranges
from msgd.log.segment import Extent, segment_path
from msgd.standing import Ended
from msgd.vacuuming import Ages, Facts, Going, Moment, Plan, Wish, choose
from msgd.wire.keeping import OFFSET, STRETCH, Needed, Vacuum

TICK_RECORDS = 4096
SOME = 8  # segments: whoever does it by itself has other work, too
FIRST_PLACES = frozenset({Kind.OUT, Kind.HELD, Kind.IN, Kind.RECOVERED})
NAMING = frozenset({Kind.RELEASED, Kind.ENDED})
BATCHES = FIRST_PLACES | {Kind.RELEASED}
EMPTY = 1 << 7  # without messages
BEGINNINGS = frozenset({kind | EMPTY >> 2 for kind in (Kind.EPOCH, Kind.RECOVERED)})

_decode_ended = msgspec.msgpack.Decoder(Ended).decode

Tick = Callable[[int], None]


class Survey:
    """Plans for the log that `reader` reads. `tick` is told the log offset read so far, now and then."""

    def __init__(self, reader: Reader, clock: Clock, tick: Tick = lambda offset: None) -> None:
        self._reader = reader
        self._clock = clock
        self._tick = tick
        self._facts: dict[int, Facts] = {}  # by base
        self._firsts: dict[int, Moment | None] = {}
        self._extents: list[Extent] = []

    def plan(self, wish: Wish, needed: Needed) -> Plan:
        """What may go now. Raises Damaged where it cannot be told what is not final; LookupError, OSError."""
        extents = self._extents = self._reader.extents()
        bases = {extent.base for extent in extents}
        for known in (self._facts, self._firsts):
            for base in known.keys() - bases:
                del known[base]
        now = Moment(self._clock.wall_ns(), self._clock.boot_ns(), self._clock.start[:8])
        ages = Ages([self._first(extent) for extent in extents], now)
        segments = [(extent, self._size(extent)) for extent in extents]
        return choose(segments, wish, ages, self._needed(needed), self._look)

    def wanted(self, needed: Needed) -> Vacuum | None:
        """What the configuration wants removed now, some at a time, None: nothing. Raises as `plan`."""
        wish = Wish(needed.keep_ns or None, needed.keep_bytes or None, SOME)
        going = self.plan(wish, needed).going
        return vacuum(0, going, "", needed.reason) if going else None

    def peer_at(self, base: int, needed: Needed) -> int:
        """A peer of whose messages some in the segment at `base` are not final: its number, 0 if none is."""
        extent = self._extent_of(base)
        if extent is None:
            return 0
        for offset in self._places(needed):
            if extent.base <= offset < extent.stop and (header := self._header(offset)) is not None:
                return header.peer
        for start, stop in STRETCH.iter_unpack(needed.waiting):
            for header in self._reader.headers(max(start, extent.base), min(stop, extent.stop)):
                if header.kind == Kind.HELD:
                    return header.peer
        return 0

    # --- what is not final ------------------------------------------------------------------------------

    def _needed(self, needed: Needed) -> set[int]:
        """The bases of segments with messages that are not final."""
        found = {self._base_of(offset) for offset in self._places(needed)}
        for start, stop in STRETCH.iter_unpack(needed.waiting):
            lo = bisect_right(self._extents, start, key=attrgetter("base")) - 1
            for extent in self._extents[max(0, lo) :]:
                if extent.base >= stop:
                    break
                found.add(extent.base)
        return found

    def _places(self, needed: Needed) -> Iterator[int]:
        """Records of messages that were released and are not final, and those where they first stood."""
        for (offset,) in OFFSET.iter_unpack(needed.records):
            yield offset
            header = self._header(offset)
            if header is not None and header.kind == Kind.RELEASED:
                for place, _, _, _ in decode_ranges(self._reader.payload(header)):
                    yield place

    # --- segments ---------------------------------------------------------------------------------------

    def _look(self, extent: Extent) -> Facts:
        found = self._facts.get(extent.base)
        if found is None:
            found = self._facts[extent.base] = self._read(extent)
        return found

    def _read(self, extent: Extent) -> Facts:
        damage: list[Damaged] = []
        ahead = Ahead(self._reader, lambda: self._reader.committed)
        named, seen = set[int](), set[int]()
        messages, last = 0, None
        headers = self._reader.headers(extent.base, extent.stop, on_damage=damage.append)
        for number, last in enumerate(headers):
            kind = last[0]
            # a number, not a tuple: once for every record
            seen.add(last[5] << 8 | (EMPTY if last[6] == 0 else 0) | kind << 2 | last[1])
            if kind in FIRST_PLACES:
                messages += last[6]
            elif kind in NAMING:
                named.update(_names(last, ahead, damage))
            if number % TICK_RECORDS == 0:
                self._tick(last.offset)
        names = {self._base_of(offset) for offset in named} - {extent.base}
        lines = {(each >> 8, each & 3) for each in seen if (each & 0xFF) >> 2 in BATCHES}
        epochs = {(each >> 8, each & 3) for each in seen if (each & 0xFF) >> 2 in BEGINNINGS}
        newest = self._moment(last) if last is not None else Moment(0, 0, b"")
        is_damaged = bool(damage) or last is None
        return Facts(newest, messages, frozenset(lines), frozenset(epochs), frozenset(names), is_damaged)

    def _first(self, extent: Extent) -> Moment | None:
        """The clocks of the first record behind the checkpoint: a start puts that before an older one."""
        if extent.base not in self._firsts:
            try:
                first = header = self._header(extent.base)
                while header is not None and header.kind == Kind.CHECKPOINT and header.end < extent.stop:
                    first = header = self._header(header.end)
            except Damaged:
                first = None
            self._firsts[extent.base] = None if first is None else self._moment(first)
        return self._firsts[extent.base]

    def _size(self, extent: Extent) -> int:
        """Bytes on disk, without what is allocated ahead."""
        try:
            size = os.stat(segment_path(self._reader.directory, extent.base)).st_size
        except FileNotFoundError:
            size = 0  # it has gone just now
        return min(size, extent.stop - extent.base)

    def _header(self, offset: int) -> Header | None:
        return next(self._reader.headers(offset, offset + HEADER_BYTES), None)

    @staticmethod
    def _moment(header: Header) -> Moment:
        return Moment(header.wall_ns, header.boot_ns, header.start[:8])

    def _extent_of(self, offset: int) -> Extent | None:
        place = bisect_right(self._extents, offset, key=attrgetter("base")) - 1
        extent = self._extents[max(0, place)]
        return extent if extent.base <= offset < extent.stop else None

    def _base_of(self, offset: int) -> int:
        """The base of the segment that holds `offset`; -1: it is not kept."""
        extent = self._extent_of(offset)
        return -1 if extent is None else extent.base


def vacuum(token: int, going: Sequence[Going], user: str, reason: str) -> Vacuum:
    """The request to remove these."""
    bases, sizes, messages = (
        [g.base for g in going],
        sum(g.size for g in going),
        sum(g.messages for g in going),
    )
    return Vacuum(token, bases, user, reason, messages, sizes)


def _names(header: Header, ahead: Ahead, damage: list[Damaged]) -> Iterator[int]:
    """The log offsets of the records that an `ended` or a `released` one is about."""
    try:
        payload = ahead.payload(header)
        if header.kind == Kind.RELEASED:
            yield from (place for place, _, _, _ in decode_ranges(payload))
        else:
            yield from (place for place, _ in _decode_ended(payload).places)
    except Damaged as damaged:
        damage.append(damaged)
    except (msgspec.MsgspecError, ValueError) as error:
        damage.append(Damaged(ahead.directory, header.offset, f"not what its kind says: {error}"))
