"""The story of a message, pure: submitted, held, released, committed, received, receipted, ended.

`Delivery` holds where every peer stands. It changes in one way only: a record is put into the log and the
method named like it is called. The log process does that for each new record; a start does it for the
records of one segment, through `apply`. So what is in memory is never more than what the log says.

Invariants of a direction, kept below: receipt <= every unreceipted batch <= last; a seq is given once;
what waits has no seq; head is the chain over every batch of the epoch. What waits is released from the
front, record by record. Ranges of one number never overlap; those that came from an address may overlap
the peer's own, and `Range.peer` tells whose records they mean.

Who is who, and what `peer` records do to that, stands in `pins`.
"""

from collections.abc import Callable, Iterable

import msgspec

from msgd import model
from msgd.cursors import Cursors, decode_change, is_part
from msgd.log.record import Kind, Record, decode_ranges
from msgd.pins import Pins
from msgd.standing import (
    RANGE_BYTES,
    RANGE_MESSAGES,
    Batch,
    Break,
    Ended,
    EpochChange,
    Global,
    Inward,
    Outward,
    Peer,
    PeerChange,
    Range,
    decode_global,
    decode_peers,
    encode_checkpoint,
)

_peer_change = msgspec.msgpack.Decoder(PeerChange).decode
_epoch_change = msgspec.msgpack.Decoder(EpochChange).decode
_ended = msgspec.msgpack.Decoder(Ended).decode


class Delivery(Pins):
    """Where every peer stands. No I/O, no clock: records in, decisions out."""

    def __init__(self) -> None:
        super().__init__()
        self.cursors = Cursors()
        self.id_horizon_ms = 0
        self._global_read = False
        self._next_expiry_ns: int | None = None  # None: to be found anew

    # --- what happens -----------------------------------------------------------------------------------

    def sent(self, peer: Peer, batch: Batch) -> None:
        """An `out` record: messages that got their seqs at once."""
        batch.start = batch.offset
        self._release(peer.out, batch)

    def held(self, peer: Peer, offset: int, end: int, count: int, size: int, expires_ns: int) -> None:
        """A `held` record: messages that wait without a seq."""
        waiting = peer.out.waiting
        if expires_ns:
            self._next_expiry_ns = None
        last = waiting[-1] if waiting else None
        if (
            last is None
            or last.kind != Kind.HELD
            or last.peer
            or last.count + count > RANGE_MESSAGES
            or end - last.start > RANGE_BYTES
        ):
            waiting.append(Range(Kind.HELD, offset, end, count, size, expires_ns))
            return
        last.stop = end
        last.count += count
        last.size += size
        if expires_ns:
            last.expires_ns = min(last.expires_ns or expires_ns, expires_ns)

    def released(self, peer: Peer, batch: Batch, pieces: Iterable[tuple[int, int]]) -> None:
        """A `released` record: what waited first got its seqs, by (record offset, messages), in order."""
        out = peer.out
        batch.start = batch.offset
        for offset, count in pieces:
            batch.start = min(batch.start, offset)
            out.ended.pop(offset, None)
            first = out.waiting[0]
            first.after = max(first.after, offset)
            first.count -= count
            assert first.count >= 0, (first, offset, count)
            if first.count == 0:
                self._drop_range(out, 0)
        if out.waiting and out.waiting[0].after >= out.waiting[0].start:
            first = out.waiting[0]
            self._forget_ended(out, first, first.after + 1)
            first.start = first.after
        self._release(out, batch)

    def receipted(self, peer: Peer, seq: int, head: bytes) -> None:
        """A `receipt` record: everything up to `seq` is on the peer's disk."""
        out = peer.out
        assert out.receipt <= seq <= out.last, (out.receipt, seq, out.last)
        keep = 0
        while keep < len(out.unreceipted) and out.unreceipted[keep].last_seq <= seq:
            keep += 1
        out.unreceipted_size -= sum(b.size for b in out.unreceipted[:keep])
        del out.unreceipted[:keep]
        out.receipt, out.receipt_head = seq, head

    def received(self, peer: Peer, last: int, head: bytes) -> None:
        """An `in` record: the peer's messages up to `last` are in this log."""
        peer.inward.last, peer.inward.head = last, head

    def ended(self, peer: Peer, places: Iterable[tuple[int, int]], of: int = 0) -> None:
        """An `ended` record: these messages will not be sent any more. `of`: `Range.peer` of their ranges."""
        out = peer.out
        for offset, index in places:
            place = self._range_of(out, offset, of)
            if place is None:
                continue
            gone = out.ended.setdefault(offset, [])
            if index in gone:
                continue
            gone.append(index)
            out.waiting[place].count -= 1
            if out.waiting[place].count == 0:
                self._drop_range(out, place)

    def epoch_opened(
        self, peer: Peer, direction: int, change: EpochChange, base: int, head: bytes, wall_ns: int = 0
    ) -> None:
        """An `epoch` record. What was released and not taken waits again: its old seqs are void."""
        last, head_there = change.receiver_last, change.receiver_head
        if direction == model.IN:  # since the sender began it something may have been lost here
            last, head_there = peer.inward.last, peer.inward.head
        differs = (change.sender_last, change.sender_head) != (last, head_there)
        if base > 1 and differs:  # else the epoch before was given up by a person: peer rm, block
            broken = Break(wall_ns, direction, base, change.sender_last, last)
            others = [b for b in peer.breaks if b.direction != direction]
            peer.breaks = sorted([*others, broken], key=lambda b: b.direction)
        if direction == model.IN:
            peer.inward = Inward(change.epoch, base - 1, head)
            return
        out = peer.out
        again = [Range(Kind.OUT, b.offset, b.offset + b.length, b.count, b.size) for b in out.unreceipted]
        waiting = again + out.waiting
        peer.out = Outward(
            change.epoch,
            base - 1,
            head,
            base - 1,
            head,
            waiting=waiting,
            ended=out.ended,
            base=base,
            opened=change,
        )

    def peer_changed(self, number: int, change: PeerChange, wall_ns: int = 0) -> Peer:
        """A `peer` record with a number; `wall_ns` as in its header."""
        self._next_expiry_ns = None
        return super().peer_changed(number, change, wall_ns)

    # --- what may happen --------------------------------------------------------------------------------

    def has_window(self, out: Outward, window_bytes: int, window_batches: int) -> bool:
        """Whether one more batch may be released."""
        return len(out.unreceipted) < window_batches and out.unreceipted_size < window_bytes

    def next_expiry_ns(self) -> int:
        """The earliest expiry of anything that waits; 0 when nothing expires.

        Asked in every round of the log process, so it is kept until the ranges that expire have changed.
        """
        if self._next_expiry_ns is None:
            times = [r.expires_ns for p in self.peers.values() for r in p.out.waiting if r.expires_ns]
            self._next_expiry_ns = min(times, default=0)
        return self._next_expiry_ns

    def expiries_changed(self) -> None:
        """A range was given another expiry."""
        self._next_expiry_ns = None

    def checkpoint(self, id_horizon_ms: int) -> list[bytes]:
        """The payloads of a checkpoint of all this."""
        head = Global(
            self.next_peer,
            id_horizon_ms,
            list(self.invitations.values()),
            self.rotations,
            self.own_identity,
            self.leaving,
        )
        return [*encode_checkpoint(head, list(self.peers.values())), *self.cursors.parts()]

    # --- what happened before this start ----------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Take in one record of the log, in order, as at the moment when it was written."""
        APPLY[record.kind](self, record)

    def _apply_checkpoint(self, record: Record) -> None:
        if self._global_read and is_part(record.payload):
            self.cursors.restore(record.payload)
            return
        if self._global_read:
            self.restore(decode_peers(record.payload))
            return
        head = decode_global(record.payload)
        self.next_peer, self.id_horizon_ms, self._global_read = head.next_peer, head.id_horizon_ms, True
        self.invitations = {i.invitation: i for i in head.invitations}
        self.rotations, self.own_identity, self.leaving = head.rotations, head.identity, head.leaving

    def _apply_out(self, record: Record) -> None:
        self.sent(self.peers[record.peer], _batch(record, len(record.payload)))

    def _apply_held(self, record: Record) -> None:
        peer = self.peers[record.peer]
        self.held(peer, record.offset, record.end, record.count, len(record.payload), record.aux)

    def _apply_released(self, record: Record) -> None:
        ranges = decode_ranges(record.payload)
        size = sum(length for _, _, length, _ in ranges)
        self.released(self.peers[record.peer], _batch(record, size), [(r[0], r[3]) for r in ranges])

    def _apply_receipt(self, record: Record) -> None:
        peer = self.peers[record.peer]
        peer.seen_ns = record.wall_ns
        self.receipted(peer, record.first_seq, record.head)

    def _apply_in(self, record: Record) -> None:
        peer = self.peers[record.peer]
        peer.seen_ns = record.wall_ns
        self.received(peer, record.first_seq + record.count - 1, record.head)

    def _apply_ended(self, record: Record) -> None:
        peer, of = self.owner(record.peer)
        self.ended(peer, _ended(record.payload).places, of)

    def _apply_epoch(self, record: Record) -> None:
        change = _epoch_change(record.payload)
        peer = self.peers[record.peer]
        self.epoch_opened(peer, record.direction, change, record.first_seq, record.head, record.wall_ns)

    def _apply_peer(self, record: Record) -> None:
        change = _peer_change(record.payload)
        if record.peer:
            self.peer_changed(record.peer, change, record.wall_ns)
        else:
            self.node_changed(change, record.start)

    def _apply_cursor(self, record: Record) -> None:
        self.cursors.apply(decode_change(record.payload), record.offset, record.end, record.wall_ns)

    # --- helpers ----------------------------------------------------------------------------------------

    @staticmethod
    def _release(out: Outward, batch: Batch) -> None:
        assert batch.first_seq == out.last + 1, (batch.first_seq, out.last)
        out.unreceipted.append(batch)
        out.unreceipted_size += batch.size
        out.last, out.head = batch.last_seq, batch.head

    @staticmethod
    def _range_of(out: Outward, offset: int, of: int) -> int | None:
        for place, r in enumerate(out.waiting):
            if r.peer == of and r.start <= offset < r.stop and offset > r.after:
                return place
        return None

    def _drop_range(self, out: Outward, place: int) -> None:
        gone = out.waiting.pop(place)
        if gone.expires_ns:
            self._next_expiry_ns = None
        self._forget_ended(out, gone, gone.stop)

    @staticmethod
    def _forget_ended(out: Outward, passed: Range, stop: int) -> None:
        """Nothing of this range before `stop` waits any more; what lies in a range of others there does."""
        others = [r for r in out.waiting if r.peer != passed.peer]
        for offset in [o for o in out.ended if passed.start <= o < stop]:
            if not any(r.start <= offset < r.stop for r in others):
                del out.ended[offset]


def _batch(record: Record, size: int) -> Batch:
    length = record.end - record.offset
    return Batch(record.first_seq, record.count, record.offset, length, size, record.head)


APPLY: dict[int, Callable[[Delivery, Record], None]] = {
    Kind.CHECKPOINT: Delivery._apply_checkpoint,
    Kind.OUT: Delivery._apply_out,
    Kind.IN: Delivery._apply_in,
    Kind.HELD: Delivery._apply_held,
    Kind.RELEASED: Delivery._apply_released,
    Kind.RECEIPT: Delivery._apply_receipt,
    Kind.ENDED: Delivery._apply_ended,
    Kind.EPOCH: Delivery._apply_epoch,
    Kind.PEER: Delivery._apply_peer,
    Kind.CURSOR: Delivery._apply_cursor,
    Kind.CLOCK_STEP: lambda _, __: None,  # for the history only
    Kind.RECOVERED: lambda _, __: None,
}
