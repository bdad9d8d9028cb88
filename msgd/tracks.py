"""What one log holds of a pair of nodes, direction by direction, in the order of seqs.

`Pair` goes through the headers of the log once for both directions (`track`), and for whatever is asked again
from the nearest place that is remembered; bodies are read only then.
"""

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator
from hashlib import sha256
from operator import attrgetter

import msgspec

from msgd import spans
from msgd.log import segment
from msgd.log.ahead import Ahead
from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.log.record import FLAG_GROUP_ENDS, HEADER_BYTES, Header, Kind, decode_ranges
from msgd.model import IN, OUT
from msgd.peer.heads import ZERO_HEAD, chain
from msgd.peer.service import WINDOW, Entry, Mark
from msgd.spans import Span
from msgd.standing import EpochChange, decode_peers
from msgd.track import Run, Track
from msgd.wire.codec import decode_ids

TICK_RECORDS = 4096

Tick = Callable[[], None]

_decode_raw = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_epoch_change = msgspec.msgpack.Decoder(EpochChange).decode


class Pair:
    """Both directions between this node and the peer with this number. Methods raise LookupError."""

    def __init__(self, reader: Reader, number: int) -> None:
        self.number = number
        self.damage: list[Damaged] = []  # what could not be read, by the place of the record
        self._reader = reader
        self._ahead = Ahead(reader, lambda: reader.committed)
        self._begin({})

    def _begin(self, gaps: dict[int, int]) -> None:
        self.upto = 0
        self.tracks = {OUT: Track(OUT), IN: Track(IN)}
        self._gaps = gaps  # stretches that are not kept any more: where they stop, and where they start
        self._is_behind_gap = self._is_stated = False

    def advance(self, tick: Tick = lambda: None) -> None:
        """Take in the log as far as it is committed now; all of it anew once more of it is gone."""
        while True:
            gaps = gaps_of(self._reader)
            if gaps != self._gaps:
                self._begin(gaps)
            try:
                self._advance(tick)
            except LookupError:
                if gaps_of(self._reader) == gaps:
                    raise
            else:  # a walk passes over what goes meanwhile
                if gaps_of(self._reader) == gaps:
                    return

    def _advance(self, tick: Tick) -> None:
        upto = self._reader.committed
        for count, header in enumerate(self._reader.headers(self.upto, upto, on_damage=self.note)):
            if count % TICK_RECORDS == 0:
                tick()
            if header.peer == self.number:
                self._take(header)
            elif header.kind == Kind.CHECKPOINT and self._gaps:
                self._take_checkpoint(header)
        self.upto = upto

    def _take_checkpoint(self, header: Header) -> None:
        """The first record of a group is about the node, those behind it about peers."""
        if header.offset in self._gaps:
            self._is_behind_gap, self._is_stated = True, False
        elif self._is_behind_gap:
            try:
                stated = decode_peers(self._ahead.payload(header))
            except Damaged as damaged:
                self.note(damaged)
                stated = []
            for peer in stated:
                if peer.number == self.number and not self._is_stated:  # a peer may have further parts
                    self._is_stated = True
                    self.tracks[OUT].take_standing(peer.out)
                    self.tracks[IN].take_standing(peer.inward)
        if header.flags & FLAG_GROUP_ENDS:
            self._is_behind_gap = False

    def _take(self, header: Header) -> None:
        kind = header.kind
        if kind == Kind.RELEASED and self._gaps and self._is_gone(header):
            self.tracks[OUT].take_gone(header.first_seq + header.count - 1)
        elif kind in (Kind.OUT, Kind.RELEASED):
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

    def _is_gone(self, header: Header) -> bool:
        """Whether messages of a released batch stood in a stretch that is not kept any more."""
        try:
            places = [place for place, _, _, _ in decode_ranges(self._ahead.payload(header))]
        except Damaged:
            return False  # whoever wants it will be told
        return any(start <= place < stop for stop, start in self._gaps.items() for place in places)

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
                if not (header.kind == Kind.RELEASED and self._is_in_gone(header)):
                    yield header

    def _is_in_gone(self, header: Header) -> bool:
        return spans.touches(self.tracks[OUT].gone, header.first_seq, header.first_seq)

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
        return track.heads.get(seq - 1, b"")

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
        except LookupError:  # it went just now
            return b""


def gaps_of(reader: Reader) -> dict[int, int]:
    """The stretches of the log that are not kept any more: where they stop, and where they start."""
    return {stop: start for start, stop in segment.gaps_of(reader.extents())}


def digests(pair: Pair, header: Header) -> list[tuple[bytes, bytes]]:
    """Id and SHA-256 of every message of a batch. Raises Damaged, msgspec.MsgspecError."""
    payload = pair.payload(header)
    raws = _decode_raw(b"\xdd" + header.count.to_bytes(4, "big") + payload)
    ids = decode_ids(payload, header.count)
    return [(raw_id, sha256(raw).digest()) for raw_id, raw in zip(ids, raws, strict=True)]
