"""What the log process knows of links: which one stands, how both directions agree, what arrives on them.

Batches are taken only from a peer's standing link, and only with the next seq and the right head; a
receipt must fit the end of a batch that was released. Anything else ends the link, never the process.
"""

import os
from collections.abc import Callable

import msgspec

from msgd import journal, model
from msgd.arbiter import Arbiter, Standing
from msgd.books import Books, Channel
from msgd.log.errors import StorageFull
from msgd.log.record import Kind
from msgd.peer.heads import chain, epoch_head
from msgd.standing import EpochChange, Peer
from msgd.wire.ledger import (
    Batch,
    Clocks,
    Committed,
    Cut,
    Denied,
    DirectionState,
    Done,
    EpochOpened,
    FirstUnreceipted,
    Full,
    Granted,
    HeadAt,
    HeadIs,
    KnownPeer,
    MayDial,
    Opened,
    OpenEpoch,
    Plan,
    Proven,
    Ready,
    Receipt,
    Send,
    TakeHello,
    Taken,
    Tell,
    UnreceiptedFrom,
)

_encode = msgspec.msgpack.Encoder().encode


class Status:
    """What is known of the way to one peer, for people. Volatile."""

    __slots__ = ("next_mono_ns", "offset_ns", "reason", "round_trip_ns", "since_ns")

    def __init__(self, now_ns: int) -> None:
        self.since_ns = now_ns  # CLOCK_REALTIME: connected or away since
        self.next_mono_ns = 0
        self.reason = ""
        self.offset_ns = 0
        self.round_trip_ns = 0


class Window:
    """How much the peer lets us have under way."""

    __slots__ = ("batches", "bytes")

    def __init__(self, size: int, batches: int) -> None:
        self.bytes = size
        self.batches = batches


class Linking:
    """Requests from link workers, and what others must know of links."""

    def __init__(self, books: Books, identity: bytes, on_change: Callable[[KnownPeer], None]) -> None:
        self.books = books
        self.identity = identity
        self.on_change = on_change  # the supervisor must know
        self.on_ready: Callable[[Peer], None] = lambda peer: None
        self.wants_dial_now: Callable[[int, bool], None] = lambda number, eager: None
        self.channels: dict[int, Channel] = {}  # of link workers, by fd
        self.window = Window(8 << 20, 1024)  # our own limit for what is under way
        self._arbiters: dict[int, Arbiter] = {}
        self._status: dict[int, Status] = {}
        self._windows: dict[int, Window] = {}
        self._dials = 0

    # --- who stands -------------------------------------------------------------------------------------

    def ready(self, number: int) -> Channel | None:
        """The link on which messages to this peer may flow now."""
        arbiter = self._arbiters.get(number)
        standing = arbiter.standing if arbiter else None
        return self.channels.get(standing.link) if standing is not None and standing.ready else None

    def connected(self) -> int:
        """How many links stand."""
        return sum(1 for a in self._arbiters.values() if a.standing is not None and a.standing.ready)

    def is_connected(self, number: int) -> bool:
        return self.ready(number) is not None

    def has_window(self, peer: Peer) -> bool:
        """Whether one more batch may be under way to this peer."""
        window = self._windows[peer.number]
        return self.books.delivery.has_window(peer.out, window.bytes, window.batches)

    def status(self, number: int) -> Status:
        """What people are told of the way to this peer."""
        known = self._status.get(number)
        if known is None:
            known = self._status[number] = Status(self.books.clock.wall_ns())
        return known

    def wants_dial(self, peer: Peer, *, eager: bool = False) -> None:
        """Something waits for this peer: if no link stands, try now."""
        if self.ready(peer.number) is None:
            self.wants_dial_now(peer.number, eager)

    def known(self, peer: Peer) -> KnownPeer:
        """What the supervisor must know of a peer."""
        arbiter = self._arbiters.get(peer.number)
        standing = arbiter.standing if arbiter else None
        link = self.channels.get(standing.link) if standing else None
        waiting = bool(peer.out.waiting or peer.out.unreceipted)
        return KnownPeer(
            peer.number,
            peer.name,
            peer.address,
            peer.identity,
            link is not None,
            waiting,
            peer.removed,
            link.pid if link else 0,
        )

    def plan(self, frame: Plan) -> None:
        """The supervisor says when it dials next, and why the last try failed."""
        status = self.status(frame.peer)
        status.next_mono_ns, status.reason = frame.next_mono_ns, frame.reason

    def cut(self, number: int, reason: str) -> None:
        """End whatever link there is to this peer."""
        arbiter = self._arbiters.get(number)
        if arbiter is None:
            return
        for fd in (arbiter.asking, arbiter.standing and arbiter.standing.link):
            if fd is not None and fd in self.channels:
                self.channels[fd].say(Cut(reason))

    def cut_all(self, reason: str) -> None:
        """msgd stops: every link says goodbye."""
        for channel in self.channels.values():
            channel.say(Cut(reason))

    def gone(self, channel: Channel) -> None:
        """A link worker ended."""
        del self.channels[channel.fd]
        if channel.is_told:
            self._tell(channel, "link.closed", {"reason": "its worker ended"})
        arbiter = self._arbiters.get(channel.peer)
        if arbiter is not None and arbiter.gone(channel.fd):
            self.status(channel.peer).since_ns = self.books.clock.wall_ns()
            peer = self.books.delivery.peers.get(channel.peer)
            if peer is not None:  # else it was new in an append that was refused
                self.on_change(self.known(peer))

    def tell(self, channel: Channel, frame: Tell) -> None:
        """A worker's link was opened or closed. One that dies without a word is told by `gone`."""
        channel.is_told = frame.name == "link.opened"
        self._tell(channel, frame.name, frame.fields)

    def _tell(self, channel: Channel, name: str, fields: dict[str, str]) -> None:
        peer = self.books.delivery.peers.get(channel.peer)
        told = peer.name if peer else None
        journal.event(name, worker=channel.pid, peer=told, link_id=channel.fd, **fields)

    def reread(self) -> None:
        """The standing was read back from the log: links begin anew, so that both ends agree again."""
        self.cut_all("storage full")

    # --- hello ------------------------------------------------------------------------------------------

    def may_dial(self, channel: Channel, frame: MayDial) -> None:
        """A worker of ours is about to say hello to this peer."""
        peer = self.books.delivery.peers.get(frame.peer)
        if peer is None or peer.removed or not self._arbiter(peer).may_ask(channel.fd):
            channel.say(Denied(frame.token, "duplicate"))
            return
        channel.peer = peer.number
        self._dials += 1
        self.books.promise(channel, Granted(frame.token, self._dials, *directions(peer)))

    def take_hello(self, channel: Channel, frame: TakeHello) -> None:
        """A good hello has come in."""
        peer = self.books.delivery.find(frame.identity)
        if peer is None:
            channel.say(Denied(frame.token, "unpaired"))
            return
        arbiter = self._arbiter(peer)
        code, cut = arbiter.take(channel.fd, frame.instance, frame.dial, self.books.clock.mono_ns() / 1e9)
        if code:
            channel.say(Denied(frame.token, code))
            return
        for fd in cut:
            if fd in self.channels:
                self.channels[fd].say(Cut("replaced by a newer link"))
        self._stand(channel, peer)
        self.books.promise(channel, Taken(frame.token, channel.fd, peer.number, peer.name, *directions(peer)))

    def opened(self, channel: Channel, frame: Opened) -> None:
        """Our dial was welcomed."""
        peer = self.books.delivery.peers[frame.peer]
        if not self._arbiter(peer).opened(channel.fd, frame.instance, self.books.clock.mono_ns() / 1e9):
            channel.say(Denied(frame.token, "duplicate"))
            return
        self._stand(channel, peer)
        self.books.promise(channel, Taken(frame.token, channel.fd, peer.number, peer.name, *directions(peer)))

    def _stand(self, channel: Channel, peer: Peer) -> None:
        channel.peer = peer.number
        self.on_change(self.known(peer))

    # --- agreement --------------------------------------------------------------------------------------

    def head_at(self, channel: Channel, frame: HeadAt) -> None:
        """The head at a seq, as far as it is kept here; the worker looks into the log for the rest."""
        peer = self.books.delivery.peers[channel.peer]
        self.books.promise(channel, HeadIs(frame.token, _head_at(peer, frame.direction, frame.seq)))

    def open_epoch(self, channel: Channel, frame: OpenEpoch) -> None:
        """Both ends disagree about a direction: it begins anew above the higher seq, on both disks."""
        if self._standing(channel) is None:
            return
        peer = self.books.delivery.peers[channel.peer]
        epoch = frame.epoch or os.urandom(16)
        change = EpochChange(
            epoch, frame.sender_last, frame.sender_head, frame.receiver_last, frame.receiver_head
        )
        head = epoch_head(epoch, frame.base, frame.sender_head, frame.receiver_head)
        payload = _encode(change)
        self.books.room(len(payload), essential=True)
        self.books.add(
            Kind.EPOCH,
            peer=peer.number,
            direction=frame.direction,
            first_seq=frame.base,
            head=head,
            payload=payload,
        )
        self.books.delivery.epoch_opened(peer, frame.direction, change, frame.base, head)
        state = DirectionState(epoch, frame.base - 1, head)
        self.books.promise_answer(channel, frame.token, EpochOpened(frame.token, state))
        if frame.base > 1:
            self.books.event(
                "epoch.opened",
                peer=peer.name,
                direction=model.DIRECTIONS[frame.direction],
                base=frame.base,
                sender_last=frame.sender_last,
                receiver_last=frame.receiver_last,
            )

    def proven(self, channel: Channel, frame: Proven) -> None:
        """The peer's log holds all of ours up to a seq, though no receipt of it came through."""
        peer = self.books.delivery.peers[channel.peer]
        head = _head_at(peer, model.OUT, frame.seq)
        if self._standing(channel) is not None and head and frame.seq > peer.out.receipt:
            self._add_receipt(peer, frame.seq, head, 0)
        self.books.promise_answer(channel, frame.token, Done(frame.token))

    def first_unreceipted(self, channel: Channel, frame: FirstUnreceipted) -> None:
        """From which seq on this process sends by itself."""
        peer = self.books.delivery.peers[channel.peer]
        self.books.promise(channel, UnreceiptedFrom(frame.token, peer.out.receipt + 1))

    def make_ready(self, channel: Channel, frame: Ready) -> None:
        """Both directions agree: what has no receipt is sent again, then what waits."""
        standing = self._standing(channel)
        if standing is None:
            return
        peer = self.books.delivery.peers[channel.peer]
        standing.ready = True
        self._windows[peer.number] = Window(
            min(frame.window_bytes, self.window.bytes), min(frame.window_batches, self.window.batches)
        )
        status = self.status(peer.number)
        status.since_ns, status.reason, status.next_mono_ns = self.books.clock.wall_ns(), "", 0
        for b in peer.out.unreceipted:
            if b.first_seq > frame.after_seq:
                self.books.promise(channel, Send(b.offset, b.length, b.first_seq, b.count, b.head))
        self.on_change(self.known(peer))
        self.on_ready(peer)

    # --- what arrives -----------------------------------------------------------------------------------

    def batch(self, channel: Channel, frame: Batch, payload: memoryview) -> None:
        """Messages from the peer: into the log, once, in order."""
        if self._standing(channel) is None:
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
        books.add(
            Kind.IN,
            peer=peer.number,
            direction=model.IN,
            count=frame.count,
            first_seq=frame.first_seq,
            head=head,
            payload=payload,
        )
        books.delivery.received(peer, last, head)
        books.event("message.received", peer=peer.name, first_seq=frame.first_seq, last_seq=last)
        peer.seen_ns = books.clock.wall_ns()
        self._promise_receipt(channel, peer, Full(frame.first_seq))

    def _promise_receipt(self, channel: Channel, peer: Peer, otherwise: Full | None = None) -> None:
        clock, inward = self.books.clock, peer.inward
        done = Committed(inward.last, inward.head, clock.wall_ns(), clock.boot_ns())
        self.books.promise(channel, done, otherwise)

    def receipt(self, channel: Channel, frame: Receipt) -> bool:
        """The peer says what is on its disk; whether the window moved."""
        if self._standing(channel) is None:
            return False
        peer = self.books.delivery.peers[channel.peer]
        if frame.seq <= peer.out.receipt:
            return False
        if _head_at(peer, model.OUT, frame.seq) != frame.head:
            channel.say(Cut(f"the receipt for {frame.seq} does not match what was sent"))
            return False
        self._add_receipt(peer, frame.seq, frame.head, frame.wall_ns)
        self.books.event("receipt.received", peer=peer.name, seq=frame.seq)
        return True

    def _add_receipt(self, peer: Peer, seq: int, head: bytes, their_wall_ns: int) -> None:
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

    def clocks(self, channel: Channel, frame: Clocks) -> None:
        """A measurement of the peer's clock."""
        status = self.status(channel.peer)
        status.offset_ns, status.round_trip_ns = frame.offset_ns, frame.round_trip_ns

    # --- helpers ----------------------------------------------------------------------------------------

    def _arbiter(self, peer: Peer) -> Arbiter:
        known = self._arbiters.get(peer.number)
        if known is None:
            known = self._arbiters[peer.number] = Arbiter(self.identity, peer.identity)
        return known

    def _standing(self, channel: Channel) -> Standing | None:
        """The peer's standing link if it is this one; what others still say is not heard."""
        arbiter = self._arbiters.get(channel.peer)
        standing = arbiter.standing if arbiter else None
        return standing if standing is not None and standing.link == channel.fd else None


def directions(peer: Peer) -> tuple[DirectionState, DirectionState]:
    """Where both directions of a pair stand here, as a hello states it."""
    out, inward = peer.out, peer.inward
    return (
        DirectionState(out.epoch, out.last, out.head),
        DirectionState(inward.epoch, inward.last, inward.head),
    )


def _head_at(peer: Peer, direction: int, seq: int) -> bytes:
    """The head of a direction at `seq`, empty if it is not at hand."""
    if direction == model.IN:
        return peer.inward.head if seq == peer.inward.last else b""
    out = peer.out
    if seq == out.receipt:
        return out.receipt_head
    if seq == out.last:
        return out.head
    return next((b.head for b in out.unreceipted if b.last_seq == seq), b"")
