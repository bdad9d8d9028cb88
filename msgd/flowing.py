"""What flows on a standing link, in the log process: both directions agree, batches and receipts arrive.

Batches are taken only from a peer's standing link, and only with the next seq and the right head; a
receipt must fit the end of a batch that was released. Anything else ends the link, never the process.
"""

import os

import msgspec

from msgd import model
from msgd.books import Books
from msgd.channel import Channel
from msgd.linking import Linking
from msgd.log.errors import StorageFull
from msgd.log.record import FLAG_REPORTS, Kind
from msgd.peer.heads import chain, epoch_head
from msgd.recent import keys_of
from msgd.standing import EpochChange, Outward, Peer
from msgd.window import Window
from msgd.wire.codec import decode_ids
from msgd.wire.frame import EpochEnds
from msgd.wire.ledger import (
    Batch,
    Clocks,
    Committed,
    Cut,
    Done,
    EpochOpened,
    FirstUnreceipted,
    Full,
    HeadAt,
    HeadIs,
    OpenEpoch,
    Proven,
    Ready,
    Receipt,
    Refused,
    Send,
    UnreceiptedFrom,
)
from msgd.wire.parcel import PutCarried
from msgd.wire.trust import PutRecovered

_encode = msgspec.msgpack.Encoder().encode


class Flowing:
    """Requests of the workers of links that stand."""

    def __init__(self, books: Books, links: Linking) -> None:
        self.books = books
        self.links = links
        self._recovering: dict[int, Channel] = {}  # who puts back what of this peer was lost

    # --- agreement --------------------------------------------------------------------------------------

    def head_at(self, channel: Channel, frame: HeadAt) -> None:
        """The head at a seq, as far as it is kept here; the worker looks into the log for the rest."""
        peer = self.books.delivery.peers[channel.peer]
        self.books.promise(channel, HeadIs(frame.token, head_at(peer, frame.direction, frame.seq)))

    def open_epoch(self, channel: Channel, frame: OpenEpoch) -> None:
        """Both ends disagree about a direction: it begins anew above the higher seq, on both disks."""
        if self.links.standing(channel) is None:
            return
        peer = self.books.delivery.peers[channel.peer]
        ends = self._present(peer, frame) if frame.direction == model.OUT else None
        if ends is None:
            ends = EpochEnds(
                frame.epoch or os.urandom(16),
                frame.base,
                frame.sender_last,
                frame.sender_head,
                frame.receiver_last,
                frame.receiver_head,
            )
            self.begin_epoch(peer, frame.direction, ends)
        self.books.promise_answer(channel, frame.token, EpochOpened(frame.token, ends))

    @staticmethod
    def _present(peer: Peer, frame: OpenEpoch) -> EpochEnds | None:
        """How the present epoch began, where the receiver can still take it: nothing else is needed.

        So it is where a process died between both commits, and where a parcel with this epoch is under way,
        whose messages must not get other seqs.
        """
        ends = present_epoch(peer.out)
        if ends is None or frame.receiver_epoch == ends.epoch or peer.out.receipt >= ends.base:
            return None
        here = (frame.receiver_last, frame.receiver_head)
        return ends if here == (ends.receiver_last, ends.receiver_head) else None

    def begin_epoch(self, peer: Peer, direction: int, ends: EpochEnds) -> None:
        """A direction begins anew. Raises StorageFull."""
        change = EpochChange(
            ends.epoch, ends.sender_last, ends.sender_head, ends.receiver_last, ends.receiver_head
        )
        head = epoch_head(ends.epoch, ends.base, ends.sender_head, ends.receiver_head)
        payload = _encode(change)
        self.books.room(len(payload), essential=True)
        self.books.add(
            Kind.EPOCH,
            peer=peer.number,
            direction=direction,
            first_seq=ends.base,
            head=head,
            payload=payload,
        )
        wall_ns = self.books.clock.wall_ns()
        receiver_last = peer.inward.last if direction == model.IN else ends.receiver_last
        self.books.delivery.epoch_opened(peer, direction, change, ends.base, head, wall_ns)
        if ends.base > 1:
            self.books.event(
                "epoch.opened",
                peer=peer.name,
                direction=model.DIRECTIONS[direction],
                base=ends.base,
                sender_last=ends.sender_last,
                receiver_last=receiver_last,
            )

    def proven(self, channel: Channel, frame: Proven) -> None:
        """The peer's log holds all of ours up to a seq, though no receipt of it came through."""
        peer = self.books.delivery.peers[channel.peer]
        head = head_at(peer, model.OUT, frame.seq)
        if self.links.standing(channel) is not None and head and frame.seq > peer.out.receipt:
            self.add_receipt(peer, frame.seq, head, 0)
        self.books.promise_answer(channel, frame.token, Done(frame.token))

    def first_unreceipted(self, channel: Channel, frame: FirstUnreceipted) -> None:
        """From which seq on this process sends by itself."""
        peer = self.books.delivery.peers[channel.peer]
        self.books.promise(channel, UnreceiptedFrom(frame.token, peer.out.receipt + 1))

    def make_ready(self, channel: Channel, frame: Ready) -> None:
        """Both directions agree: what has no receipt is sent again, then what waits."""
        standing = self.links.standing(channel)
        if standing is None:
            return
        peer = self.books.delivery.peers[channel.peer]
        standing.ready = True
        ours = self.links.window
        window = Window(min(frame.window_bytes, ours.bytes), min(frame.window_batches, ours.batches))
        for batch in peer.out.unreceipted:
            if batch.first_seq > frame.after_seq:
                window.put(batch)
        self._send_some(channel, peer, window)
        self.links.stands(peer, window)

    def send_more(self, peer: Peer) -> None:
        """What is released and not yet on its way, as far as the window of a link that stands goes."""
        channel = self.links.ready(peer.number)
        if channel is not None:
            self._send_some(channel, peer, self.links.window_of(peer))

    def _send_some(self, channel: Channel, peer: Peer, window: Window) -> None:
        while (b := window.take(peer.out)) is not None:
            self.books.promise(channel, Send(b.offset, b.length, b.first_seq, b.count, b.head))

    # --- what arrives -----------------------------------------------------------------------------------

    def batch(self, channel: Channel, frame: Batch, payload: memoryview) -> None:
        """Messages from the peer: into the log, once, in order."""
        if self.links.standing(channel) is None:
            return
        books = self.books
        peer = books.delivery.peers[channel.peer]
        inward = peer.inward
        last = frame.first_seq + frame.count - 1
        if last <= inward.last:
            self._promise_receipt(channel, peer)
            return
        if channel.refused_seq and frame.first_seq > channel.refused_seq:
            return  # it was on its way when the one before it found no room
        head = chain(inward.head, frame.first_seq, frame.count, payload)
        if frame.first_seq != inward.last + 1 or head != frame.head:
            channel.say(Cut(f"batch {frame.first_seq} does not follow {inward.last}"))
            return
        try:
            books.room(len(payload))
        except StorageFull:
            channel.refused_seq = frame.first_seq
            channel.say(Full(frame.first_seq))
            return
        channel.refused_seq = 0
        self.take_in(peer, frame, head, payload)
        self._promise_receipt(channel, peer, Full(frame.first_seq))

    def take_in(self, peer: Peer, frame: Batch | PutCarried, head: bytes, payload: memoryview) -> None:
        """A batch that follows what is here, into the log."""
        books, first_seq, count = self.books, frame.first_seq, frame.count
        last = first_seq + count - 1
        books.add(
            Kind.IN,
            peer=peer.number,
            direction=model.IN,
            count=count,
            first_seq=first_seq,
            head=head,
            flags=FLAG_REPORTS if frame.has_reports else 0,
            payload=payload,
        )
        books.delivery.received(peer, last, head)
        books.event("message.received", peer=peer.name, first_seq=first_seq, last_seq=last)
        peer.seen_ns = books.clock.wall_ns()

    def _promise_receipt(self, channel: Channel, peer: Peer, otherwise: Full | None = None) -> None:
        clock, inward = self.books.clock, peer.inward
        done = Committed(inward.last, inward.head, clock.wall_ns(), clock.boot_ns())
        self.books.promise(channel, done, otherwise)

    def receipt(self, channel: Channel, frame: Receipt) -> bool:
        """The peer says what is on its disk; whether the window moved."""
        if self.links.standing(channel) is None:
            return False
        peer = self.books.delivery.peers[channel.peer]
        if frame.seq <= peer.out.receipt:
            return False
        if head_at(peer, model.OUT, frame.seq) != frame.head:
            channel.say(Cut(f"the receipt for {frame.seq} does not match what was sent"))
            return False
        self.add_receipt(peer, frame.seq, frame.head, frame.wall_ns)
        self.books.event("receipt.received", peer=peer.name, seq=frame.seq)
        return True

    def add_receipt(self, peer: Peer, seq: int, head: bytes, their_wall_ns: int) -> None:
        """Everything up to `seq` is on the peer's disk; that makes room for more. Raises StorageFull."""
        books = self.books
        books.room(0, essential=True)
        books.add(
            Kind.RECEIPT,
            peer=peer.number,
            direction=model.OUT,
            first_seq=seq,
            head=head,
            aux=their_wall_ns,
        )
        books.delivery.receipted(peer, seq, head)
        peer.seen_ns = books.clock.wall_ns()
        self.send_more(peer)

    def clocks(self, channel: Channel, frame: Clocks) -> None:
        """A measurement of the peer's clock."""
        status = self.links.status(channel.peer)
        status.offset_ns, status.round_trip_ns = frame.offset_ns, frame.round_trip_ns

    # --- what the peer gives back -----------------------------------------------------------------------

    def recovered(self, channel: Channel, frame: PutRecovered, payload: memoryview) -> None:
        """A batch of our own half, which this log has lost: kept for the history, in a kind of its own.

        Without messages it is the beginning of an epoch.
        """
        peer = self.books.delivery.peers.get(frame.peer)
        if peer is None or not peer.pinned or peer.removed:
            channel.say(
                Refused(frame.token, "UnknownPeer", "It is no peer any more.", "See `msgctl peer ls`.")
            )
            return
        other = self._recovering.get(peer.number, channel)
        if other is not channel and other.pipe.sock.fileno() >= 0:
            text = f"Another `msgctl recover --from {peer.name}` is under way."
            channel.say(Refused(frame.token, "InvalidRequest", text, "Wait for it to end, or end it."))
            return
        self._recovering[peer.number] = channel
        ids = decode_ids(payload, frame.count) if frame.count else []
        self.books.room(len(payload))
        offset = self.books.add(
            Kind.RECOVERED,
            peer=peer.number,
            direction=frame.direction,
            count=frame.count,
            first_seq=frame.first_seq,
            head=frame.head,
            aux=frame.wall_ns,
            flags=FLAG_REPORTS if frame.has_reports else 0,
            payload=payload,
        )
        if frame.direction == model.OUT and ids:
            self.books.remember(ids + keys_of(ids, peer.number))
        self.books.promise_answer(channel, frame.token, Done(frame.token, True, offset))


def present_epoch(out: Outward) -> EpochEnds | None:
    """How the present epoch of a direction began, where that is known."""
    if out.opened is None or out.opened.epoch != out.epoch:
        return None
    o = out.opened
    return EpochEnds(o.epoch, out.base, o.sender_last, o.sender_head, o.receiver_last, o.receiver_head)


def head_at(peer: Peer, direction: int, seq: int) -> bytes:
    """The head of a direction at `seq`, empty if it is not at hand."""
    if direction == model.IN:
        return peer.inward.head if seq == peer.inward.last else b""
    out = peer.out
    if seq == out.receipt:
        return out.receipt_head
    if seq == out.last:
        return out.head
    return next((b.head for b in out.unreceipted if b.last_seq == seq), b"")
