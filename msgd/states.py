"""The state of every message, out of what the log says about it: the rules, over any pile of indexes.

A message has its place: the record where it first stood, and the index in it. What happened to it since is
told by other records, which an index finds by that place or by the peer and the seq:

- `in`: received. `recovered`: received or stored, by its direction: the peer has it on its disk.
- `out` has a seq from the beginning; `held` gets one from a `released` record that names it.
- A receipt for that seq or a higher one of the same epoch: stored. The first such receipt counts.
- An `epoch` record with a base above a seq that has no receipt yet makes the seq void: the message waits
  again, until a `released` record gives it another.
- An `ended` record that names the place: the state and the reason that it says.
- Exactly one final state: of a receipt and an ending, the earlier one counts.
- Neither: queued; without a seq also held, if the peer is such that nothing is released to it.

Records from `upto` on do not exist for it. Pure but for the tables that it reads.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from msgd import model
from msgd.log.index import ENDING, EPOCH, KEY, LANES, NUMBERED, RECEIPT, RELEASE, Index
from msgd.log.record import Kind

RECEIPTS = 256  # looked up at once
SINGLE_KINDS = frozenset({Kind.OUT, Kind.IN})
NOTHING = (0, -1, 0)  # a receipt that covers no seq

FirstIndex = Callable[
    [int, int], int
]  # (offset of a record, byte in its payload) -> index of the message there


class Place(NamedTuple):
    """A record where messages first stand."""

    offset: int
    count: int  # type: ignore[assignment]  # of messages; hides tuple.count, which nobody wants here
    kind: int
    first_seq: int  # 0: none from the beginning
    peer: int  # whose messages they are now, wherever they were written to
    direction: int = model.OUT  # 0: no messages, but what was done here


class Span(NamedTuple):
    """Neighbours in one place, indexes [start, stop), to which the same happened."""

    start: int
    stop: int
    seq: int  # of the first, the others' follow; 0: they have none
    state: str
    by: int  # log offset of the receipt or the ending, 0: none


def is_single(place: Place) -> bool:
    """Whether it holds one message, and is one of those that there are many of."""
    return place.count == 1 and place.kind in SINGLE_KINDS


class States:
    """The rules, over `layers`: indexes that hold all before `upto`, those of older records first."""

    def __init__(
        self,
        layers: Sequence[Index],
        upto: int,
        first_index: FirstIndex,
        is_held: Callable[[int], bool],
    ) -> None:
        self._layers = layers
        self._upto = upto
        self._first_index = first_index
        self._is_held = is_held
        self._bases: dict[int, list[tuple[int, int]]] = {}
        self._covered: dict[int, tuple[int, int, int]] = {}  # peer -> first and last seq, and their receipt
        self._coming: dict[int, Iterator[tuple[int, int]]] = {}  # peer -> the receipts that follow that one
        self.renew()

    def renew(self) -> None:
        """An index has got older records, too."""
        self._release = [layer.release for layer in self._layers if not layer.release.is_empty]
        self._ending = [layer.ending for layer in self._layers if not layer.ending.is_empty]
        self._bases.clear()
        self._covered.clear()
        self._coming.clear()

    def of(self, place: Place) -> list[Span]:
        """What happened to the messages of this place, in order of their indexes."""
        if place.direction == model.IN:
            return [Span(0, place.count, place.first_seq, model.RECEIVED, 0)]
        if place.kind == Kind.RECOVERED:
            return [Span(0, place.count, place.first_seq, model.STORED, 0)]
        if not place.direction:
            return [Span(0, 1, 0, "", 0)]
        spans = self._numbered(place.peer, 0, place.count, place.first_seq)
        for _, ranges in groupby(self._releases(place.offset), key=itemgetter(0)):
            new: list[Span] = []
            for _, start, count, seq in ranges:
                index = 0 if count == place.count else self._first_index(place.offset, start)
                new += self._numbered(place.peer, index, index + count, seq)
            spans = _overlaid(spans, new, lambda old, _: old.state != model.STORED)
        endings = self._endings(place.offset)
        if endings:
            first = {index: (at, state) for index, at, state in reversed(endings)}
            new = [Span(i, i + 1, 0, model.STATES[state], at) for i, (at, state) in sorted(first.items())]
            spans = _overlaid(spans, new, lambda old, end: not old.by or end.by < old.by)
        return spans

    def alone(self, places: Iterable[Place]) -> list[Span]:
        """What happened to the messages of single places, in order of offsets: one span each."""
        spans: list[Span] = []
        covered, new, add = self._covered, tuple.__new__, spans.append
        free = named = -1  # of the offsets from the one to the other nothing names any
        for place in places:
            offset, _, kind, seq, peer, _ = place
            if kind == Kind.IN:
                add(new(Span, (0, 1, seq, model.RECEIVED, 0)))
                continue
            if not free <= offset < named:
                free, named = offset, self._next_named(offset)
            if offset == named:
                spans += self.of(place)
                continue
            first, last, by = covered.get(peer, NOTHING)
            if first <= seq <= last:
                add(new(Span, (0, 1, seq, model.STORED, by)))
            elif seq and (receipt := self._receipt(peer, seq)):
                add(new(Span, (0, 1, seq, model.STORED, receipt[1])))
            else:
                spans += self._numbered(peer, 0, 1, seq)
        return spans

    def life(self, place: Place, index: int) -> list[int]:
        """The log offsets of all records that tell about one message, in order, its own first."""
        found = {place.offset, *(offset for i, offset, _ in self._endings(place.offset) if i == index)}
        for offset, start, count, _ in self._releases(place.offset):
            first = self._first_index(place.offset, start)
            if first <= index < first + count:
                found.add(offset)
        found |= {span.by for span in self.of(place) if span.start <= index < span.stop and span.by}
        return sorted(found)

    # --- seqs and receipts ------------------------------------------------------------------------------

    def _numbered(self, peer: int, start: int, stop: int, seq: int) -> list[Span]:
        """Spans for messages that have the seqs from `seq` on; 0: that have none."""
        spans = []
        while seq and start < stop:
            receipt = self._receipt(peer, seq)
            if receipt is None:
                seq = 0 if self._void_at(peer, seq) < self._upto else seq
                break
            last, offset = receipt
            covered = min(stop, start + last - seq + 1)
            spans.append(Span(start, covered, seq, model.STORED, offset))
            seq += covered - start
            start = covered
        if start < stop:
            state = model.HELD if not seq and self._is_held(peer) else model.QUEUED
            spans.append(Span(start, stop, seq, state, 0))
        return spans

    def _receipt(self, peer: int, seq: int) -> tuple[int, int] | None:
        """The first receipt of its epoch for this seq or a higher one: what it covers, and where it lies."""
        first, last, offset = self._covered.get(peer, NOTHING)
        if first <= seq <= last:
            return last, offset
        found = self._next_receipt(peer, seq, last)
        if found is None or found[1] >= self._void_at(peer, seq):
            self._coming.pop(peer, None)
            return None
        self._covered[peer] = (seq, *found)
        return found

    def _next_receipt(self, peer: int, seq: int, last: int) -> tuple[int, int] | None:
        """The same of any epoch; `last`: what the one found before covers."""
        if seq > last:
            for found in self._coming.get(peer, ()):
                if seq <= found[0]:
                    return found
        for layer in self._layers:
            entries = layer.receipt.following(peer, KEY.pack(seq), RECEIPTS)
            if entries:
                coming = self._coming[peer] = RECEIPT.iter_unpack(b"".join(entries))
                return next(coming)
        return None

    def _void_at(self, peer: int, seq: int) -> int:
        """Where the epoch begins that made this seq void if it had no receipt by then; `upto`: none did."""
        bases = self._bases.get(peer)
        if bases is None:
            lo, hi = KEY.pack(0), KEY.pack(self._upto)
            group = peer * LANES + NUMBERED
            found = {EPOCH.unpack(e) for layer in self._layers for e in layer.epoch.scan(group, lo, hi)}
            bases = self._bases[peer] = sorted(found)
        if not bases:  # most peers begin no second epoch, and this is asked for every receipt
            return self._upto
        return next((offset for offset, base in bases if base > seq), self._upto)

    # --- what names a place -----------------------------------------------------------------------------

    def _releases(self, record: int) -> list[tuple[int, int, int, int]]:
        """(offset of the `released` record, byte, count, first seq), in order of offsets."""
        if not self._release:
            return []
        lo, hi = KEY.pack(record), KEY.pack(record + 1)
        entries = [e for table in self._release for e in table.find(0, lo, hi)]
        found = {RELEASE.unpack(entry) for entry in entries}
        return sorted((at, start, count, seq) for _, start, count, seq, at in found if at < self._upto)

    def _next_named(self, record: int) -> int:
        """The least log offset from this one on that a release or an ending names; `upto` if none is."""
        firsts = [table.first(0, KEY.pack(record)) for table in (*self._release, *self._ending)]
        return min((KEY.unpack_from(entry)[0] for entry in firsts if entry is not None), default=self._upto)

    def _endings(self, record: int) -> list[tuple[int, int, int]]:
        """(index, offset of the `ended` record, state)."""
        if not self._ending:
            return []
        lo, hi = KEY.pack(record), KEY.pack(record + 1)
        entries = [e for table in self._ending for e in table.find(0, lo, hi)]
        found = {ENDING.unpack(entry) for entry in entries}
        return sorted((index, at, state) for _, index, at, state in found if at < self._upto)


def _overlaid(old: list[Span], new: list[Span], takes: Callable[[Span, Span], bool]) -> list[Span]:
    """`old` with the spans of `new` in their places, wherever `takes` says so. Both are in order.

    An ending keeps the seq that the message had.
    """
    result: list[Span] = []
    place = 0
    for under in old:
        at = under.start
        while place < len(new) and new[place].start < under.stop:
            over = new[place]
            start, stop = max(over.start, under.start), min(over.stop, under.stop)
            if takes(under, over):
                if at < start:
                    result.append(part_of(under, at, start))
                part = part_of(over, start, stop)
                if not over.seq and over.by:
                    part = part._replace(seq=part_of(under, start, stop).seq)
                result.append(part)
                at = stop
            if over.stop > under.stop:
                break
            place += 1
        if at < under.stop:
            result.append(part_of(under, at, under.stop))
    return result


def part_of(span: Span, start: int, stop: int) -> Span:
    """The part [start, stop) of a span."""
    return Span(start, stop, span.seq and span.seq + start - span.start, span.state, span.by)
