"""What one log holds of a pair of nodes, direction by direction, in the order of seqs.

A *track* is one direction: its batches, wherever they lie, and where its epochs begin. In the log they
stand in the order of seqs, but for what was recovered later: that stands in *runs*, each in order. So a
track remembers where every STEP-th batch lies and the runs, and goes through the headers of the log for the
rest; bodies are read when asked for.

Of a direction that this node sends, seqs that had no receipt when a new epoch began are *void*: their
messages were sent again under other seqs. The receiver may hold them, or not.
"""

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from hashlib import sha256
from operator import attrgetter
from typing import NamedTuple

import msgspec

from msgd import spans
from msgd.log.ahead import Ahead
from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.log.record import HEADER_BYTES, Header, Kind
from msgd.model import IN, OUT
from msgd.peer.heads import ZERO_HEAD, chain
from msgd.peer.service import PLACES, WINDOW, Entry, Epoch, Mark, Outline
from msgd.spans import Span
from msgd.standing import EpochChange
from msgd.wire.codec import decode_ids

STEP = 256  # batches between two whose place is remembered
TICK_RECORDS = 4096

Tick = Callable[[], None]

_decode_raw = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_epoch_change = msgspec.msgpack.Decoder(EpochChange).decode


class Lost(NamedTuple):
    """Seqs that an epoch record names as gone from one side."""

    of_sender: list[Span]
    of_receiver: list[Span]


class Run(NamedTuple):
    """Batches that were recovered one after another: at most STEP, their seqs without a gap."""

    first: int  # seq
    last: int
    start: int  # log offset of the first record
    stop: int  # behind the last one
    batches: int


class Track:
    """One direction, as far as `Pair` has read."""

    def __init__(self, direction: int) -> None:
        self.direction = direction
        self.last = 0
        self.receipt = 0  # OUT: the receiver holds everything up to here, as its receipts say
        self.held: list[Span] = []
        self.void: list[Span] = []
        self.epochs: list[Epoch] = []  # by base, those of one base as they followed each other
        self.runs: list[Run] = []  # what was recovered, by seqs
        self.places: list[tuple[int, int]] = []  # first seq and log offset of every STEP-th batch
        self._batches = 0
        self._known: set[bytes] = set()  # epochs

    def take_batch(self, header: Header) -> None:
        """A batch that was sent or has arrived."""
        if self._batches % STEP == 0:
            self.places.append((header.first_seq, header.offset))
        self._batches += 1
        self.last = header.first_seq + header.count - 1
        spans.add(self.held, header.first_seq, self.last)

    def take_recovered(self, header: Header) -> None:
        """A batch that was got back; one that is here already counts only once."""
        last = header.first_seq + header.count - 1
        if spans.touches(self.held, header.first_seq, last):
            return
        self._extend_runs(Run(header.first_seq, last, header.offset, header.end, 1))
        spans.add(self.held, header.first_seq, last)
        self.last = max(self.last, last)

    def _extend_runs(self, new: Run) -> None:
        place = bisect_left(self.runs, new)
        before = self.runs[place - 1] if place else None
        if before and before.last + 1 == new.first and before.stop <= new.start and before.batches < STEP:
            self.runs[place - 1] = Run(before.first, new.last, before.start, new.stop, before.batches + 1)
        else:
            self.runs.insert(place, new)

    def run_of(self, seq: int) -> int:
        """Which run holds this seq, or the first one behind it."""
        return bisect_left(self.runs, seq, key=attrgetter("last"))

    def take_epoch(self, header: Header, change: EpochChange, *, is_recovered: bool) -> None:
        """The beginning of an epoch."""
        ends = (change.sender_last, change.sender_head, change.receiver_last, change.receiver_head)
        self.know_epoch(Epoch(change.epoch, header.first_seq, *ends, header.head))
        if is_recovered:
            return
        if self.direction == OUT and self.receipt < self.last:
            spans.add(self.void, self.receipt + 1, self.last)
        self.last = self.receipt = header.first_seq - 1

    def know_epoch(self, epoch: Epoch) -> None:
        """There was this epoch. A later one of the same base may be known already."""
        if epoch.epoch in self._known:
            return
        self._known.add(epoch.epoch)
        insort(self.epochs, epoch, key=attrgetter("base"))
        lo = bisect_left(self.epochs, epoch.base, key=attrgetter("base"))
        hi = bisect_right(self.epochs, epoch.base, key=attrgetter("base"))
        if hi - lo > 1:
            self.epochs[lo:hi] = _in_turn(self.epochs[lo:hi])

    def knows_epoch(self, epoch: Epoch) -> bool:
        """Whether it is among those known."""
        return epoch.epoch in self._known

    def begun_at(self, seq: int) -> bytes:
        """The head of the epoch that begins with this seq, the last one of them; empty: none does."""
        at = bisect_right(self.epochs, seq, key=attrgetter("base")) - 1
        return self.epochs[at].head if at >= 0 and self.epochs[at].base == seq else b""

    def lost(self) -> Lost:
        """What the epochs say is gone."""
        of_sender: list[Span] = []
        of_receiver: list[Span] = []
        for epoch in self.epochs:
            if epoch.sender_last < epoch.base - 1:
                spans.add(of_sender, epoch.sender_last + 1, epoch.base - 1)
            if epoch.receiver_last < epoch.base - 1:
                spans.add(of_receiver, epoch.receiver_last + 1, epoch.base - 1)
        return Lost(of_sender, of_receiver)

    def outline(self) -> Outline:
        """The same for the other node."""
        return Outline(
            self.last, self.receipt, self.held[-PLACES:], self.void[-PLACES:], self.epochs[-PLACES:]
        )


class Pair:
    """Both directions between this node and the peer with this number. Methods raise LookupError."""

    def __init__(self, reader: Reader, number: int) -> None:
        self.number = number
        self.upto = 0
        self.damage: list[Damaged] = []  # what could not be read, by the place of the record
        self.tracks = {OUT: Track(OUT), IN: Track(IN)}
        self._reader = reader
        self._ahead = Ahead(reader, lambda: reader.committed)

    def advance(self, tick: Tick = lambda: None) -> None:
        """Take in the log as far as it is committed now."""
        upto = self._reader.committed
        for count, header in enumerate(self._reader.headers(self.upto, upto, on_damage=self.note)):
            if count % TICK_RECORDS == 0:
                tick()
            if header.peer == self.number:
                self._take(header)
        self.upto = upto

    def _take(self, header: Header) -> None:
        kind = header.kind
        if kind in (Kind.OUT, Kind.RELEASED):
            self.tracks[OUT].take_batch(header)
        elif kind == Kind.IN:
            self.tracks[IN].take_batch(header)
        elif kind == Kind.RECEIPT:
            self.tracks[OUT].receipt = header.first_seq
        elif kind == Kind.EPOCH or (kind == Kind.RECOVERED and not header.count):
            try:
                change = _epoch_change(self._ahead.payload(header))
            except Damaged as damaged:
                self.note(damaged)
                return
            track = self.tracks[header.direction]
            track.take_epoch(header, change, is_recovered=kind == Kind.RECOVERED)
        elif kind == Kind.RECOVERED:
            self.tracks[header.direction].take_recovered(header)

    def note(self, damaged: Damaged) -> None:
        """Remember a damaged place, once."""
        if all(known.offset != damaged.offset for known in self.damage):
            self.damage.append(damaged)

    # --- batches ----------------------------------------------------------------------------------------

    def headers(self, direction: int, first: int, last: int) -> Iterator[Header]:
        """Those of the batches that begin at seq `first` to `last`, in the order of seqs."""
        track = self.tracks[direction]
        place = max(0, bisect_right(track.places, (first, 1 << 63)) - 1)
        start = track.places[place][1] if track.places else self.upto
        ours = self._in_order(direction, start, last)
        found = heapq.merge(ours, self._recovered(track, first, last), key=attrgetter("first_seq"))
        return (header for header in found if header.first_seq >= first)

    def _in_order(self, direction: int, start: int, last: int) -> Iterator[Header]:
        kinds = (Kind.OUT, Kind.RELEASED) if direction == OUT else (Kind.IN,)
        for header in self._reader.headers(start, self.upto, on_damage=self.note):
            if header.peer == self.number and header.kind in kinds:
                if header.first_seq > last:
                    return
                yield header

    def _recovered(self, track: Track, first: int, last: int) -> Iterator[Header]:
        for run in track.runs[track.run_of(first) :]:
            if run.first > last:
                return
            yield from self._in_run(track.direction, run, last)

    def _in_run(self, direction: int, run: Run, last: int) -> Iterator[Header]:
        follows = run.first
        for header in self._reader.headers(run.start, run.stop, on_damage=self.note):
            if header.kind != Kind.RECOVERED or not header.count or header.peer != self.number:
                continue
            if header.direction == direction and follows <= header.first_seq <= run.last:
                if header.first_seq > last:
                    return
                follows = header.first_seq + header.count  # once: it may have been put back again
                yield header

    def payload(self, header: Header) -> bytes:
        """The messages of a batch. Raises Damaged."""
        if header.kind == Kind.RELEASED:
            return self._reader.batch(header)
        return self._ahead.payload(header)

    def head_before(self, direction: int, seq: int) -> bytes:
        """The head of the direction before `seq`; empty if neither a batch nor an epoch here ends there."""
        track = self.tracks[direction]
        begun = track.begun_at(seq)
        if begun:
            return begun
        place = max(0, bisect_right(track.places, (seq - 1, 1 << 63)) - 1)
        first = track.places[place][0] if track.places else seq
        run = track.run_of(seq - 1)
        if run < len(track.runs) and track.runs[run].first < seq:
            first = track.runs[run].first
        for header in self.headers(direction, min(first, seq), seq - 1):
            if header.first_seq + header.count == seq:
                return header.head
        return b""

    def seqs_at(self, offset: int) -> Span:
        """The first and last seq of the batch in the record at this place; zeros where that is not known."""
        try:
            header = next(self._reader.headers(offset, offset + HEADER_BYTES), None)
        except (Damaged, LookupError):
            header = None
        if header is None or not header.first_seq or header.offset != offset:
            return 0, 0
        return header.first_seq, header.first_seq + max(1, header.count) - 1

    def entries(self, direction: int, first: int, last: int) -> Iterator[Entry]:
        """The digests of batches."""
        for header in self.headers(direction, first, last):
            yield Entry(header.first_seq, header.count, self._chained(header, ZERO_HEAD), header.head)

    def marks(self, direction: int, first: int, tick: Callable[[int], None]) -> Iterator[Mark]:
        """The digests of windows, from the one of seq `first` on. `tick` is told how far it is."""
        number, begun, last, batches, digest, head = -1, 0, 0, 0, ZERO_HEAD, ZERO_HEAD
        for header in self.headers(direction, first // WINDOW * WINDOW, 1 << 62):
            tick(header.first_seq)
            if header.first_seq // WINDOW != number:
                if batches:
                    yield Mark(number, begun, last, batches, digest, head)
                number, begun, batches, digest = header.first_seq // WINDOW, header.first_seq, 0, ZERO_HEAD
            if digest:
                digest = self._chained(header, digest)
            last, head = header.first_seq + header.count - 1, header.head
            batches += 1
        if batches:
            yield Mark(number, begun, last, batches, digest, head)

    def _chained(self, header: Header, before: bytes) -> bytes:
        """The digest once this batch follows; empty if it cannot be read."""
        try:
            return chain(before, header.first_seq, header.count, self.payload(header))
        except Damaged as damaged:
            self.note(damaged)
            return b""


def _in_turn(epochs: list[Epoch]) -> list[Epoch]:
    """Epochs of one base as they followed each other: a later one names the head of the one before."""
    rest, found = list(epochs), []
    while rest:
        heads = {epoch.head for epoch in rest}
        first = next((e for e in rest if not heads & {e.sender_head, e.receiver_head}), rest[0])
        rest.remove(first)
        found.append(first)
    return found


def digests(pair: Pair, header: Header) -> list[tuple[bytes, bytes]]:
    """Id and SHA-256 of every message of a batch. Raises Damaged, msgspec.MsgspecError."""
    payload = pair.payload(header)
    raws = _decode_raw(b"\xdd" + header.count.to_bytes(4, "big") + payload)
    ids = decode_ids(payload, header.count)
    return [(raw_id, sha256(raw).digest()) for raw_id, raw in zip(ids, raws, strict=True)]
