"""Whether this node's log is what was written: every CRC, every seq, every head, every checkpoint.

One pass over the log as far as it is committed, beside the daemon at work. What is broken is found, told with
what it held, and passed over; then the heads that are stored behind it count as given, so that one damaged
record is one finding and not a thousand. Behind a stretch that is not kept any more the checkpoint says where
every direction stands; with what was before it has to agree.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from msgd import spans
from msgd.log.ahead import Ahead
from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.log.record import FLAG_GROUP_ENDS, KIND_NAMES, ZERO_HEAD, Header, Kind
from msgd.log.segment import segment_path
from msgd.model import IN, OUT
from msgd.peer.heads import chain, epoch_head
from msgd.spans import Span
from msgd.standing import EpochChange, Inward, Outward, Peer, decode_peers

MAX_FINDINGS = 1000
TICK_RECORDS = 256
BATCHES = {Kind.OUT: OUT, Kind.RELEASED: OUT, Kind.IN: IN}

_epoch_change = msgspec.msgpack.Decoder(EpochChange).decode

Tick = Callable[[int], None]


class Finding(msgspec.Struct):
    """One broken place."""

    segment: str  # path
    offset: int  # log offset
    why: str
    holds: str = ""  # what the record is, or what is missing behind it


class Totals(NamedTuple):
    """What was read."""

    segments: int
    records: int
    bytes: int
    batches: int
    messages: int


class _Line:
    """One direction of one peer as the records so far add up to."""

    __slots__ = ("ends", "has_batches", "head", "last", "receipt", "recovered", "sent", "starts", "sure")

    def __init__(self, sure: int) -> None:
        self.last = 0
        self.head = ZERO_HEAD
        self.receipt = 0
        self.has_batches = False
        self.sent: deque[tuple[int, bytes]] = deque()  # OUT: last seqs and heads without receipt
        self.recovered: tuple[int, bytes] = (0, ZERO_HEAD)  # the next seq of what comes back, the head before
        self.starts: dict[int, bytes] = {}  # heads with which epochs began, by base
        self.ends: dict[int, bytes] = {}  # heads with which epochs ended, by last seq
        self.sure = sure


class Check:
    """One check of the log. `name_of` gives names of peers; `tick` is told the log offset read so far."""

    def __init__(self, reader: Reader, name_of: Callable[[int], str], tick: Tick) -> None:
        self.findings: list[Finding] = []
        self.gone: dict[tuple[int, int], list[Span]] = {}  # peer, direction: seqs that are not kept any more
        self._reader = reader
        self._ahead = Ahead(reader, lambda: reader.committed)
        self._name_of = name_of
        self._tick = tick
        self._lines: dict[tuple[int, int], _Line] = {}
        self._told: set[int] = set()
        self._sure = 0  # counts stretches that could not be read
        self._gap: Finding | None = None  # the last one of them
        self._in_group = False
        self._stated: set[int] = set()  # peers in the present group
        self._is_first = True  # the group of the oldest segment, or one behind what is not kept any more
        self._follows = -1  # log offset behind the record before
        self._records = self._batches = self._messages = 0

    def run(self) -> Totals:
        """Read everything that is committed now. Raises LookupError when there is no log."""
        upto, kept = self._reader.committed, self._reader.extents()
        for header in self._reader.headers(kept[0].base, upto, on_damage=self._unreadable):
            if self._records % TICK_RECORDS == 0:
                self._tick(header.offset)
            self._records += 1
            self._take(header)
        for finding in self.findings:
            finding.holds = finding.holds or "records; what they told cannot be said"
        size = sum(extent.stop - extent.base for extent in kept)
        return Totals(len(kept), self._records, size, self._batches, self._messages)

    def _take(self, header: Header) -> None:
        try:
            payload = self._ahead.payload(header)
            if header.kind == Kind.RELEASED:
                payload = self._reader.batch(header)
        except Damaged as damaged:
            self._find(damaged, header)
            payload = None
        except LookupError:  # what was released in it stood in a segment that is not kept any more
            self._lose(header)
            payload = None
        if header.kind != Kind.CHECKPOINT:
            self._in_group, self._is_first = False, False
        elif header.offset != self._follows and self._is_behind_gap(header):
            self._is_first = True
        self._follows = header.end
        if payload is None:
            self._pass_over(header)
            return
        try:
            check = CHECKS.get(header.kind)
            if check is not None:
                check(self, header, payload)
        except (msgspec.MsgspecError, ValueError) as error:
            self._complain(header, f"not what its kind says: {error}")

    # --- kinds ------------------------------------------------------------------------------------------

    def _check_batch(self, header: Header, payload: bytes) -> None:
        direction = BATCHES[header.kind]
        line = self._line(header.peer, direction)
        head = chain(line.head, header.first_seq, header.count, payload)
        if line.sure != self._sure:
            self._name_gap(header, line, direction)
        elif header.first_seq != line.last + 1:
            self._complain(header, f"it begins at seq {header.first_seq}, expected {line.last + 1}")
        elif head != header.head:
            self._complain(header, "the head is not the digest of what was sent so far")
        self._count(header)
        self._go_on(header, line, direction)

    def _check_recovered(self, header: Header, payload: bytes) -> None:
        line = self._line(header.peer, header.direction)
        if not header.count:
            change = _epoch_change(payload)
            self._check_epoch_head(header, change)
            line.starts[header.first_seq] = header.head
            return
        follows, head = line.recovered
        before = line.starts.get(header.first_seq) or (head if follows == header.first_seq else b"")
        before = before or line.ends.get(header.first_seq - 1, b"")
        if before and chain(before, header.first_seq, header.count, payload) != header.head:
            self._complain(header, "the head is not the digest of what came back so far")
        self._count(header)
        line.recovered = (header.first_seq + header.count, header.head)

    def _check_receipt(self, header: Header, payload: bytes) -> None:
        line = self._line(header.peer, OUT)
        seq, known = 0, header.head
        while line.sent and line.sent[0][0] <= header.first_seq:
            seq, known = line.sent.popleft()
        if line.sure == self._sure and seq == header.first_seq and known != header.head:
            self._complain(header, "the receipt has another head than the batch")
        elif line.sure == self._sure and not line.receipt <= header.first_seq <= line.last:
            self._complain(header, f"a receipt for seq {header.first_seq}, expected up to {line.last}")
        line.receipt = max(line.receipt, header.first_seq)

    def _check_epoch(self, header: Header, payload: bytes) -> None:
        line = self._line(header.peer, header.direction)
        self._check_epoch_head(header, _epoch_change(payload))
        if line.sure == self._sure and header.first_seq <= line.last:
            self._complain(header, f"an epoch from seq {header.first_seq}, but {line.last} was given before")
        line.ends[line.last] = line.head
        line.starts[header.first_seq] = header.head
        self._begin(header, line)

    def _check_epoch_head(self, header: Header, change: EpochChange) -> None:
        ends = (change.sender_head, change.receiver_head)
        if epoch_head(change.epoch, header.first_seq, *ends) != header.head:
            self._complain(header, "the head of the epoch is not the digest of what it says")

    def _check_checkpoint(self, header: Header, payload: bytes) -> None:
        """The first payload of a group is about the node, those behind it about peers."""
        if not self._in_group:
            self._in_group = True
            self._stated.clear()
        else:
            self._check_peers(header, payload)
        if header.flags & FLAG_GROUP_ENDS:
            self._in_group, self._is_first = False, False

    def _check_peers(self, header: Header, payload: bytes) -> None:
        for peer in decode_peers(payload):
            if peer.number in self._stated or (not peer.identity and not peer.out.last):
                continue  # the rest of a peer that did not fit into one payload, or an address
            self._stated.add(peer.number)
            for direction, stated in ((OUT, peer.out), (IN, peer.inward)):
                line = self._line(peer.number, direction)
                is_ahead = stated.last > line.last or (stated.last == line.last and not line.has_batches)
                if self._is_first and line.sure == self._sure and is_ahead:
                    self._go_on_behind(peer, direction, line, stated)
                elif line.sure != self._sure:
                    line.last, line.head, line.sure = stated.last, stated.head, self._sure
                    line.sent.clear()
                elif (line.last, line.head) != (stated.last, stated.head):
                    text = f"{self._way(peer.number, direction)} stands at {line.last} by the records, at"
                    self._complain(header, f"{text} {stated.last} by the checkpoint, or with another head")

    def _go_on_behind(self, peer: Peer, direction: int, line: _Line, stated: Outward | Inward) -> None:
        """A checkpoint behind what is not kept any more: messages of this direction were there."""
        if stated.last > line.last:
            self._add_gone(peer.number, direction, line.last + 1, stated.last)
        line.last, line.head = stated.last, stated.head
        line.sent.clear()
        if isinstance(stated, Outward):
            line.receipt = stated.receipt
            line.sent.extend((batch.last_seq, batch.head) for batch in stated.unreceipted)

    # --- how --------------------------------------------------------------------------------------------

    def _line(self, peer: int, direction: int) -> _Line:
        line = self._lines.get((peer, direction))
        if line is None:
            line = self._lines[peer, direction] = _Line(self._sure)
        return line

    def _go_on(self, header: Header, line: _Line, direction: int) -> None:
        line.last, line.head = header.first_seq + header.count - 1, header.head
        line.sure, line.has_batches = self._sure, True
        if direction == OUT:
            line.sent.append((line.last, header.head))

    def _begin(self, header: Header, line: _Line) -> None:
        line.last = line.receipt = header.first_seq - 1
        line.head, line.sure = header.head, self._sure
        line.sent.clear()

    def _is_behind_gap(self, header: Header) -> bool:
        """Whether the segment that this record begins has none right before it."""
        return all(stop != header.offset for _, stop in self._reader.extents())

    def _lose(self, header: Header) -> None:
        if header.kind in BATCHES:
            last = header.first_seq + header.count - 1
            self._add_gone(header.peer, BATCHES[header.kind], header.first_seq, last)

    def _add_gone(self, number: int, direction: int, first: int, last: int) -> None:
        spans.add(self.gone.setdefault((number, direction), []), first, last)

    def _count(self, header: Header) -> None:
        self._batches += 1
        self._messages += header.count

    def _pass_over(self, header: Header) -> None:
        """The payload cannot be read: what its header says counts as given."""
        if header.kind in BATCHES:
            direction = BATCHES[header.kind]
            self._go_on(header, self._line(header.peer, direction), direction)
        elif header.kind == Kind.EPOCH:
            self._begin(header, self._line(header.peer, header.direction))
        elif header.kind == Kind.RECOVERED:
            line = self._line(header.peer, header.direction)
            line.recovered = (header.first_seq + header.count, header.head)

    def _unreadable(self, damaged: Damaged) -> None:
        """No sound header stands there: nobody knows what the next records follow."""
        self._sure += 1
        self._gap = self._add(damaged.segment, damaged.offset, damaged.why, "")

    def _name_gap(self, header: Header, line: _Line, direction: int) -> None:
        if self._gap is not None and header.first_seq > line.last + 1:
            held = f"messages {line.last + 1} to {header.first_seq - 1} {self._way(header.peer, direction)}"
            self._gap.holds += ("; " if self._gap.holds else "") + held

    def _find(self, damaged: Damaged, header: Header) -> None:
        """A payload is not sound: its own, or that of a held record whose messages were released."""
        if damaged.offset == header.offset:
            self._add(damaged.segment, damaged.offset, damaged.why, self._what(header))
        else:
            self._add(damaged.segment, damaged.offset, damaged.why, "")

    def _complain(self, header: Header, why: str) -> None:
        segment = max(base for base in self._reader.segments() if base <= header.offset)
        path = segment_path(self._reader.directory, segment)
        self._add(path, header.offset, why, self._what(header))

    def _add(self, segment: str, offset: int, why: str, holds: str) -> Finding:
        finding = Finding(segment, offset, why, holds)
        if offset not in self._told and len(self.findings) < MAX_FINDINGS:
            self._told.add(offset)
            self.findings.append(finding)
        return finding

    def _what(self, header: Header) -> str:
        """What a record holds, by its header."""
        if not header.count:
            return f"a record of kind {KIND_NAMES.get(header.kind, header.kind)}"
        way = self._way(header.peer, BATCHES.get(header.kind, header.direction))
        if not header.first_seq:
            return f"{header.count} messages {way}, without seq"
        return f"messages {header.first_seq} to {header.first_seq + header.count - 1} {way}"

    def _way(self, peer: int, direction: int) -> str:
        return f"{'from' if direction == IN else 'to'} {self._name_of(peer)}"


CHECKS: dict[int, Callable[[Check, Header, bytes], None]] = {
    Kind.OUT: Check._check_batch,
    Kind.RELEASED: Check._check_batch,
    Kind.IN: Check._check_batch,
    Kind.RECOVERED: Check._check_recovered,
    Kind.RECEIPT: Check._check_receipt,
    Kind.EPOCH: Check._check_epoch,
    Kind.CHECKPOINT: Check._check_checkpoint,
}
