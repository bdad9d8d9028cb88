"""The gate of the log process: whatever decides who may talk, joined for its loop.

| room | |
|---|---|
| `admitting` | hellos, ours and those that come in |
| `pairing` | comparing words |
| `inviting` | invitations |
| `rotating` | this node's own key |
| `peering` | what a person says about a peer by name |
"""

from collections.abc import Callable
from typing import Any

from msgd.admitting import Admitting
from msgd.books import Books
from msgd.channel import Channel
from msgd.config import Config
from msgd.inviting import Inviting
from msgd.linking import Linking
from msgd.log.errors import StorageFull
from msgd.outgoing import Outgoing
from msgd.pairing import Pairing
from msgd.peering import Peering
from msgd.rotating import Rotating
from msgd.standing import Peer
from msgd.wire.frame import Frame
from msgd.wire.ledger import DialFailed, KnownPeer, MayDial, Opened, Peers, PutPeer, TakeHello
from msgd.wire.trust import (
    Act,
    Decide,
    FileRequest,
    Invite,
    JoinDone,
    KeyFound,
    PutJoin,
    Requests,
    Rotate,
    TheirVerdict,
)

LOOK_NS = 1_000_000_000  # between two looks at what may have expired


class Gate:
    """Builds the rooms, and passes on what concerns several of them. `say` reaches the supervisor."""

    def __init__(
        self, books: Books, links: Linking, outgoing: Outgoing, config: Config, say: Callable[[Frame], None]
    ) -> None:
        self.books = books
        self.links = links
        self.say = say
        self.peering = Peering(books, links, outgoing, self._tell_peer, config)
        self.pairing = Pairing(books, links, self.peering, say)
        self.inviting = Inviting(books, links, self.peering)
        self.rotating = Rotating(books, links, self.pairing, config.state, say)
        self.admitting = Admitting(books, links, self.peering, self.pairing, self.inviting, say)
        self._look_at_ns = 0  # CLOCK_BOOTTIME
        self.set_trust(config.pairing.trust)
        outgoing.on_act = lambda peer, user: self._act(peer, user)

    def start(self) -> None:
        """Before the supervisor hears of peers. Raises ConfigError, Fatal."""
        self.rotating.start()
        self.pairing.start()

    def set_trust(self, trust: str) -> None:
        """[pairing] trust."""
        self.peering.trust = self.pairing.trust = trust

    def expire(self) -> bool:
        """End what nobody has decided in time; whether anything was looked at, so that a commit is due."""
        now_ns = self.books.clock.boot_ns()
        if now_ns < self._look_at_ns:
            return False
        self._look_at_ns = now_ns + LOOK_NS
        self.pairing.expire()
        try:
            self.inviting.expire()
        except StorageFull:
            pass  # they are refused all the same; noted when there is room
        return True

    def next_expiry_s(self) -> float | None:
        """Seconds until `expire` has something to do, None if nothing waits."""
        due_ns = self.pairing.next_expiry_ns()
        return (max(due_ns, self._look_at_ns) - self.books.clock.boot_ns()) / 1e9 if due_ns else None

    def put(self, channel: Channel, frame: PutPeer) -> None:
        """What a person says about a peer; what is under way with it follows."""
        self.peering.put(channel, frame)
        peer = self.books.delivery.peers.get(frame.number)
        if frame.action == "add":
            self.pairing.pinned(frame.identity)
        elif peer is not None and (peer.blocked or peer.removed):
            self.pairing.forget(peer)

    def join(self, channel: Channel, frame: PutJoin) -> None:
        """A person redeems an invitation: nobody waits for words of that node any more."""
        self.inviting.join(channel, frame)
        peer = self.books.delivery.find(frame.identity)
        if peer is not None and peer.joining is not None:
            self.pairing.drop(frame.identity, "an invitation is redeemed")

    def take_hello(self, channel: Channel, frame: TakeHello) -> None:
        """A good hello; one that joins may end a request of the same node."""
        self.admitting.take_hello(channel, frame)
        if frame.want == "join":
            self.pairing.pinned(frame.identity)

    def dial_failed(self, frame: DialFailed) -> None:
        """Why a dial of ours led to nothing, or that its exchange is over; the supervisor hears it, too."""
        self.links.dial_failed(frame)
        try:
            self.admitting.dial_failed(frame)
        finally:
            self.say(frame)
        peer = self.books.delivery.peers.get(frame.peer)
        if not frame.reason and peer is not None and self.links.may_pair(peer):
            self.links.wants_dial(peer, eager=True)  # a person asked anew before the last exchange had ended

    def key_found(self, frame: KeyFound) -> None:
        """A dial met another key than the pinned one. Raises StorageFull."""
        peer = self.books.delivery.peers.get(frame.peer)
        if peer is not None and peer.pinned and not peer.removed:
            self.peering.note_changed(peer, frame.identity)

    def link_stands(self, peer: Peer) -> None:
        """Messages flow: both sides know each other. Raises StorageFull."""
        self.peering.note_returned(peer)
        self.inviting.link_stands(peer)
        self.pairing.link_stands(peer)

    def nudge(self, number: int) -> None:
        """A person wants a peer or address to be tried now."""
        peer = self.books.delivery.peers.get(number)
        if peer is not None and not peer.pinned and not (peer.removed or peer.into):
            self._act(peer, "")

    def _act(self, peer: Peer, user: str) -> None:
        self.pairing.act(peer, user)

    def _tell_peer(self, known: KnownPeer) -> None:
        self.say(Peers([known]))


Handler = Callable[[Gate, Channel, Any], None]

HANDLERS: dict[type[Frame], Handler] = {
    PutPeer: lambda me, ch, frame: me.put(ch, frame),
    MayDial: lambda me, ch, frame: me.admitting.may_dial(ch, frame),
    TakeHello: lambda me, ch, frame: me.take_hello(ch, frame),
    Opened: lambda me, ch, frame: me.admitting.opened(ch, frame),
    DialFailed: lambda me, _, frame: me.dial_failed(frame),
    KeyFound: lambda me, _, frame: me.key_found(frame),
    Act: lambda me, ch, frame: me.pairing.hear_act(ch, frame),
    FileRequest: lambda me, ch, frame: me.pairing.file(ch, frame),
    TheirVerdict: lambda me, ch, frame: me.pairing.hear_verdict(ch, frame),
    Requests: lambda me, ch, frame: me.pairing.list_requests(ch, frame),
    Decide: lambda me, ch, frame: me.pairing.decide(ch, frame),
    Invite: lambda me, ch, frame: me.inviting.invite(ch, frame),
    PutJoin: lambda me, ch, frame: me.join(ch, frame),
    JoinDone: lambda me, ch, frame: me.inviting.confirmed(ch, frame),
    Rotate: lambda me, ch, frame: me.rotating.rotate(ch, frame),
}
