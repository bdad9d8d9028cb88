"""What became of messages in one stretch of the log: those whose state changed, and what it was before.

Only receipts, endings, releases and epochs change a state, and reports give a mark, so the records of the
stretch tell which places to compare. A stretch is short, as long as whoever follows keeps up; a long one is
taken in parts.
"""

from collections.abc import Container, Iterable, Iterator
from itertools import islice

import msgspec

from msgd import model
from msgd.log.errors import Damaged
from msgd.log.harvest import decode_ended
from msgd.log.index import KEY, LANES, NUMBERED, PLACE, RECEIPT, Location
from msgd.log.reader import Reader
from msgd.log.record import FLAG_REPORTS, Header, Kind, decode_ranges
from msgd.marks import Mark
from msgd.matches import Found, Match, Run
from msgd.reported import reported
from msgd.rows import Filter
from msgd.sieve import Sieve, lane_of, lanes_of
from msgd.states import Span, part_of
from msgd.walk import Walk

TOUCHING = frozenset({Kind.RECEIPT, Kind.RELEASED, Kind.ENDED, Kind.EPOCH})
PART_RECORDS = 1000  # of a stretch, looked at together

Changed = tuple[str, Found]  # the state before, and messages that have another one now


def stretches(reader: Reader, since: int, upto: int) -> Iterator[tuple[list[Header], int]]:
    """Those headers of [since, upto) that may change a state, and the log offset where their part ends."""
    headers = reader.headers(since, upto, on_damage=lambda _: None)
    while some := list(islice(headers, PART_RECORDS)):
        yield [h for h in some if h.kind in TOUCHING or h.flags & FLAG_REPORTS], some[-1].end


class Changes:
    """What changed from log offset `since` on; `walk` is a view of the log before the end of the stretch."""

    def __init__(self, walk: Walk, since: int) -> None:
        self._walk = walk
        self._since = since

    def matches(self, headers: Iterable[Header], wanted: Filter, lo: Location, hi: int) -> Iterator[Changed]:
        """Messages from `lo` on in places before `hi` that fit now, and that these records have changed."""
        touched = {offset for header in headers for offset in self._touched(header) if lo[0] <= offset < hi}
        marked = {at for header in headers for at in reported(self._walk, header) if lo <= at < (hi, 0)}
        touched |= {at[0] for at in marked}
        if not touched:
            return
        self._walk.view.reach(min(touched))
        before = self._walk.states_at(self._since)  # knows what was reached so far
        sieve, lanes, fates = Sieve(wanted), lanes_of(wanted), self._walk.fates
        for match in self._walk.opened(sorted(touched), sieve):
            place = match.place
            if wanted.peer not in (None, place.peer) or lane_of(place.direction) not in lanes:
                continue
            first = lo[1] if place.offset == lo[0] else 0
            then, now = fates.of(place, before), fates.of(place)
            for was, span in [*_differing(then, now), *self._newly_marked(match, then, now, marked)]:
                found = _taken(match, range(max(first, span.start), span.stop), sieve)
                if wanted.state == model.HANDLED:
                    found = [i for i in found if self._mark(match, i, span)]
                if found and wanted.state in (None, span.state, model.HANDLED):
                    yield was, match._replace(chosen=[(span, found)])

    def flipped(self, peer: int, now: str, wanted: Filter, lo: Location) -> Iterator[Changed]:
        """Messages that wait without a seq for this peer, where that has become `now`, held or queued."""
        if wanted.direction == model.IN or wanted.state not in (None, now):
            return
        asked = {"peer": peer, "direction": model.OUT, "state": now, "lines": None, "reverse": False}
        wanted = msgspec.structs.replace(wanted, **asked)
        for match in self._walk.matches(wanted, lo, (self._since, 0), reverse=False):
            if isinstance(match, Run):
                waiting: Found = match.only([not span.seq for span in match.spans])
            else:
                waiting = match._replace(chosen=[part for part in match.chosen if not part[0].seq])
            if waiting.size:
                yield model.QUEUED if now == model.HELD else model.HELD, waiting

    def _touched(self, header: Header) -> Iterator[int]:
        """The log offsets of places where messages stand that a record may have changed."""
        try:
            match header.kind:
                case Kind.ENDED:
                    record = self._walk.records.record(header.offset)
                    yield from {offset for offset, _ in decode_ended(record.payload).places}
                case Kind.RELEASED:
                    record = self._walk.records.record(header.offset)
                    yield from {offset for offset, _, _, _ in decode_ranges(record.payload)}
                case Kind.RECEIPT:
                    yield from self._numbered(header.peer, header.first_seq, header.offset)
                case Kind.EPOCH if header.direction == model.OUT:
                    yield from self._numbered(header.peer, header.first_seq - 1, header.offset)
        except (Damaged, LookupError, ValueError):
            return  # a pass over the history tells it

    def _newly_marked(
        self, match: Match, before: list[Span], now: list[Span], marked: Container[Location]
    ) -> Iterator[tuple[str, Span]]:
        """What got its mark since, of those whose state is as before."""
        states = {index: span.state for span in before for index in range(span.start, span.stop)}
        for span in now:
            for index in range(span.start, span.stop):
                if (match.place.offset, index) in marked and states.get(index) == span.state:
                    mark = self._mark(match, index, span)
                    if mark is not None and mark.offset >= self._since:
                        yield span.state, part_of(span, index, index + 1)

    def _mark(self, match: Match, index: int, span: Span) -> Mark | None:
        messages = match.messages or ()
        return self._walk.marks.of(match.place, messages[index], span.state)

    def _numbered(self, peer: int, last: int, before: int) -> Iterator[int]:
        """Places of the messages up to seq `last` that had no receipt before `since`."""
        covered = self._covered(peer)
        for layer in self._walk.view.layers(0, reverse=True):
            lo, hi = KEY.pack(layer.lo), KEY.pack(max(layer.lo, min(before, layer.hi)))
            for entry in layer.index.place.scan_back(peer * LANES + NUMBERED, lo, hi):
                offset, count, kind, first_seq = PLACE.unpack(entry)
                if first_seq + count - 1 <= covered:
                    return
                if first_seq > last:
                    continue
                if kind == Kind.RELEASED:
                    ranges = decode_ranges(self._walk.records.record(offset).payload)
                    yield from {place for place, _, _, _ in ranges}
                else:
                    yield offset

    def _covered(self, peer: int) -> int:
        """The seq up to which there was a receipt before `since`, 0 none."""
        for layer in self._walk.view.layers(0, reverse=True):
            for entry in layer.index.receipt.scan_back(peer, b"", KEY.pack(1 << 63)):
                seq, offset = RECEIPT.unpack(entry)
                if offset < self._since:
                    return int(seq)
        return 0


def _taken(match: Match, indexes: range, sieve: Sieve) -> list[int]:
    messages = match.messages or ()
    return [index for index in indexes if sieve.takes(messages[index])]


def _differing(before: list[Span], after: list[Span]) -> Iterator[tuple[str, Span]]:
    """Spans of `after`, cut where needed, whose state is another than before, and that one."""
    for old in before:
        for new in after:
            start, stop = max(old.start, new.start), min(old.stop, new.stop)
            if start < stop and old.state != new.state:
                yield old.state, part_of(new, start, stop)
