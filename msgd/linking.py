"""What the log process knows of links: which one stands, why none does, what others must know of that.

What arrives on them is `flowing`'s, who may begin one `admitting`'s.
"""

from collections.abc import Callable

from msgd import journal
from msgd.arbiter import Arbiters, Standing
from msgd.books import Books
from msgd.channel import Channel
from msgd.clones import Clones
from msgd.holds import FLOWS, Hold, hold_here, hold_there, was_linked
from msgd.standing import Peer
from msgd.window import Window
from msgd.wire.frame import DirectionState
from msgd.wire.ledger import Cut, DialFailed, KnownPeer, Plan, Tell

OTHERS = 3  # further addresses at which a peer is looked for
CARRIED = "messages were carried meanwhile"  # why links end whose worker knows former positions
KEY_ROTATED = "key rotated"  # why links end whose worker holds a former key of this node


class Status:
    """What is known of the way to one peer, for people. Volatile."""

    __slots__ = (
        "hold",
        "next_mono_ns",
        "offset_ns",
        "reason",
        "round_trip_ns",
        "since_ns",
        "tried_mono_ns",
    )

    def __init__(self, now_ns: int) -> None:
        self.since_ns = now_ns  # CLOCK_REALTIME: connected or away since
        self.next_mono_ns = 0
        self.reason = ""
        self.tried_mono_ns = 0  # when the last dial began that failed
        self.hold = FLOWS  # what the peer's last refusal says, until a link stands
        self.offset_ns = 0
        self.round_trip_ns = 0


class Linking:
    """Requests from link workers, and what others must know of links."""

    def __init__(self, books: Books, identity: bytes, on_change: Callable[[KnownPeer], None]) -> None:
        self.books = books
        self.identity = identity
        self.on_change = on_change  # the supervisor must know
        self.on_ready: Callable[[Peer], None] = lambda peer: None
        self.wants_dial_now: Callable[[int, bool], None] = lambda number, eager: None
        self.may_pair: Callable[[Peer], bool] = lambda peer: False  # a person allows an exchange of words
        self.is_pairing: Callable[[Peer], bool] = lambda peer: False  # in an exchange, or a person is asked
        self.may_join: Callable[[Peer], bool] = lambda peer: True  # its invitation has not expired
        self.channels: dict[int, Channel] = {}  # of link workers, by fd
        self.clones = Clones()
        self.arbiters = Arbiters(identity, lambda asked: books.delivery.find(asked) is not None)
        self.window = Window(8 << 20, 1024)  # our own limit for what is under way
        self._status: dict[int, Status] = {}
        self._windows: dict[int, Window] = {}

    # --- who stands -------------------------------------------------------------------------------------

    def ready(self, number: int) -> Channel | None:
        """The link on which messages to this peer may flow now."""
        standing = self._standing_with(number)
        return self.channels.get(standing.link) if standing is not None and standing.ready else None

    def connected(self) -> int:
        """How many links stand."""
        return sum(1 for a in self.arbiters if a.standing is not None and a.standing.ready)

    def is_connected(self, number: int) -> bool:
        return self.ready(number) is not None

    def window_of(self, peer: Peer) -> Window:
        """That of its standing link."""
        return self._windows[peer.number]

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
        standing = self._standing_with(peer.number)
        link = self.channels.get(standing.link) if standing else None
        return KnownPeer(
            peer.number,
            peer.name,
            peer.address,
            peer.identity,
            linked=link is not None,
            waiting=bool(peer.out.waiting or peer.out.unreceipted),
            removed=peer.removed or bool(peer.into),
            link_pid=link.pid if link else 0,
            want=self._want(peer),
            others=peer.joining.addresses[1:] if peer.joining else self._others(peer),
        )

    def _others(self, peer: Peer) -> list[str]:
        """Where it has answered, too, when somebody here sent there: it may have moved. Newest first."""
        peers = self.books.delivery.peers
        known = [peers[number].address for number in reversed(peer.aliases) if number in peers]
        return [address for address in dict.fromkeys(known) if address != peer.address][:OTHERS]

    def _want(self, peer: Peer) -> str:
        """What a dial of this peer is for; empty: it is not dialled."""
        if peer.removed or peer.into or peer.blocked:
            return ""
        if self.may_pair(peer):
            return "pair"
        if not peer.pinned or self.is_pairing(peer):
            return ""
        return "join" if peer.joining and self.may_join(peer) else "link"

    def plan(self, frame: Plan) -> None:
        """When the supervisor dials next; why the last try failed, unless its worker has said that."""
        status = self.status(frame.peer)
        status.next_mono_ns, status.reason = frame.next_mono_ns, frame.reason or status.reason
        self.books.tell_watchers(frame.peer)

    def dial_failed(self, frame: DialFailed) -> None:
        """A worker says why there is no link; `is_linked` is filled in for the supervisor."""
        peer = self.books.delivery.peers.get(frame.peer)
        if peer is None:
            return
        frame.is_linked = was_linked(peer)
        status = self.status(peer.number)
        if self.ready(peer.number) is None:
            status.reason = frame.reason
        hold = hold_there(peer, frame.code) if frame.code else FLOWS
        if hold.reason and self.ready(peer.number) is None:
            if hold.reason != status.hold.reason:
                _tell_hold(peer, hold)
            status.hold = hold
        if frame.code != "duplicate":  # which says nothing: the other connection will
            status.tried_mono_ns = frame.began_mono_ns
            self.books.tell_watchers(peer.number)

    def hold_of(self, peer: Peer) -> Hold:
        """Why what waits for this peer is held; empty where it flows, or would if the peer was there."""
        hold, told = hold_here(peer), self.status(peer.number).hold
        is_open = peer.pinned and self.ready(peer.number) is not None
        if told.reason and not is_open and hold.reason in ("", "unpaired"):
            return told
        return hold

    def stands(self, peer: Peer, window: Window) -> None:
        """Messages may flow on its link from now on."""
        self._windows[peer.number] = window
        status = self.status(peer.number)
        status.since_ns, status.reason, status.next_mono_ns = self.books.clock.wall_ns(), "", 0
        status.hold = FLOWS
        self.on_change(self.known(peer))
        self.on_ready(peer)
        self.books.tell_watchers(peer.number)

    def cut(self, number: int, reason: str) -> None:
        """End whatever link there is to this peer."""
        peer = self.books.delivery.peers.get(number)
        arbiter = self.arbiters.known(peer.identity) if peer is not None else None
        if arbiter is None:
            return
        for fd in (arbiter.asking, arbiter.standing and arbiter.standing.link):
            if fd is not None and fd in self.channels:
                self.channels[fd].say(Cut(reason))
        for channel in (*self.services(number), *self.sharing(number)):
            channel.say(Cut(reason))

    def agree_anew(self, peer: Peer) -> None:
        """A direction moved beside the link: one at which both ends are still agreeing begins again.

        What it goes on to say rests on where the direction was, so it is not heard.
        """
        arbiter = self.arbiters.known(peer.identity)
        if arbiter is None:
            return
        standing = arbiter.standing
        for fd in (arbiter.asking, standing.link if standing and not standing.ready else None):
            if fd is not None and fd in self.channels:
                self.channels[fd].is_stale = True
                self.channels[fd].say(Cut(CARRIED))

    def services(self, number: int = 0) -> list[Channel]:
        """Who answers this peer out of the log, or any peer."""
        serving = (c for c in self.channels.values() if c.is_service)
        return [c for c in serving if number in (0, c.peer)]

    def sharing(self, number: int = 0) -> list[Channel]:
        """Who serves files to this peer, or to any peer."""
        serving = (c for c in self.channels.values() if c.is_sharing)
        return [c for c in serving if number in (0, c.peer)]

    def cut_all(self, reason: str) -> None:
        """msgd stops: every link says goodbye."""
        for channel in self.channels.values():
            channel.say(Cut(reason))

    def gone(self, channel: Channel) -> None:
        """A link worker ended."""
        del self.channels[channel.fd]
        if channel.is_told:
            self._tell(channel, "link.closed", {"reason": "its worker ended"})
        arbiter = self.arbiters.known(channel.identity)
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

    # --- helpers ----------------------------------------------------------------------------------------

    def _standing_with(self, number: int) -> Standing | None:
        """The link that stands with this peer."""
        peer = self.books.delivery.peers.get(number)
        arbiter = self.arbiters.known(peer.identity) if peer is not None else None
        return arbiter.standing if arbiter is not None else None

    def identity_moved(self, old: bytes, new: bytes) -> None:
        """A peer has another key now: its link goes on under it."""
        self.arbiters.moved(old, new)
        for channel in self.channels.values():
            if channel.identity == old:
                channel.identity = new

    def standing(self, channel: Channel) -> Standing | None:
        """The peer's standing link if it is this one; what others still say is not heard."""
        peer = self.books.delivery.peers.get(channel.peer)
        if peer is None or peer.removed or peer.blocked or channel.is_stale:
            return None
        arbiter = self.arbiters.known(channel.identity)
        standing = arbiter.standing if arbiter else None
        return standing if standing is not None and standing.link == channel.fd else None


def _tell_hold(peer: Peer, hold: Hold) -> None:
    """Something new holds back what waits for a peer."""
    if hold.reason == "forgotten":
        journal.event("peer.forgotten", peer=peer.name)
    else:
        journal.event("peer.held", peer=peer.name, reason=hold.reason)


def directions(peer: Peer) -> tuple[DirectionState, DirectionState]:
    """Where both directions of a pair stand here, as a hello states it."""
    out, inward = peer.out, peer.inward
    return (
        DirectionState(out.epoch, out.last, out.head),
        DirectionState(inward.epoch, inward.last, inward.head),
    )
