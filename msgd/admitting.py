"""Who may talk: which hello is sent, which one is taken, and as what (trust protocol, sections 4 and 5).

An acceptor's worker has checked the proof. Then, in this order:

| it is | answer |
|---|---|
| this node's own key | self |
| a key that was replaced | retired |
| a new key, signed by a peer's | recorded, and goes on as that peer |
| a blocked peer | blocked |
| anybody | by what it wants: link, service, pair, join |

What no record needs is memory, so that a stranger's hello costs none.
"""

from collections.abc import Callable, Sequence

from msgd.books import Books
from msgd.channel import Channel
from msgd.config import Address
from msgd.errors import UsageError
from msgd.inviting import Inviting
from msgd.linking import Linking, directions
from msgd.lobby import source_of
from msgd.log.errors import StorageFull
from msgd.pairing import Pairing
from msgd.pinning import Pinning
from msgd.standing import Peer
from msgd.trust.identity import identity_text
from msgd.trust.proof import identity_of
from msgd.trust.rotation import Followed, Rotation, follow, successors_of
from msgd.wire.frame import Frame
from msgd.wire.ledger import Cut, Denied, DialFailed, Granted, MayDial, Opened, TakeHello, Taken
from msgd.wire.parcel import OpenParcel
from msgd.wire.trust import Admitted

SERVICES = 8  # that read the log for peers at once
PEER_SERVICES = 2  # for one of them
SERVICE_RETRY_S = 60
SHARING = 192  # that serve the store to peers at once
PEER_SHARING = 64  # to one of them: as many as one user there may have control connections
SHARING_RETRY_S = 1
FULL_RETRY_S = 60


class Admitting:
    """What workers ask about hellos."""

    def __init__(
        self,
        books: Books,
        links: Linking,
        pinning: Pinning,
        pairing: Pairing,
        inviting: Inviting,
        say: Callable[[Frame], None],
    ) -> None:
        self.books = books
        self.links = links
        self.pinning = pinning
        self.pairing = pairing
        self.inviting = inviting
        self.say = say  # to the supervisor
        # Counts this start's hellos. A log process that takes the place of another one goes on above it: no
        # process says one hello a millisecond.
        self._dials = books.clock.mono_ns() // 1_000_000

    # --- our dials --------------------------------------------------------------------------------------

    def may_dial(self, channel: Channel, frame: MayDial) -> None:
        """A worker of ours is about to say hello to this peer."""
        try:
            denied = self._may_dial(channel, frame)
        except StorageFull:
            denied = Denied(frame.token, "closing", retry_s=FULL_RETRY_S)
        if denied is not None:
            channel.say(denied)

    def _may_dial(self, channel: Channel, frame: MayDial) -> Denied | None:
        peer = self.books.delivery.peers.get(frame.peer)
        if peer is None or peer.removed or peer.into:
            return Denied(frame.token, "duplicate")
        if frame.identity == self.links.identity:
            return Denied(frame.token, "self")
        if peer.blocked:
            return Denied(frame.token, "blocked")
        if frame.want == "pair":
            denied = self.pairing.may_dial(channel, frame, peer)
        else:
            denied = self._may_dial_pinned(channel, frame, peer)
        if denied is None:
            self._grant(channel, frame, peer)
        return denied

    def _may_dial_pinned(self, channel: Channel, frame: MayDial, peer: Peer) -> Denied | None:
        """A link, a service or a join with a peer: it must be that peer, and nothing else under way."""
        if not peer.pinned:
            return Denied(frame.token, "unpaired")
        if frame.identity != peer.identity:
            followed = self._follow(frame.chain, frame.spki, {peer.identity})
            if identity_of(frame.spki) != frame.identity or not followed.pinned:
                self.pinning.note_changed(peer, frame.identity)
                return Denied(frame.token, "key-changed")
            peer = self._rotate(peer, frame.identity, frame.chain, followed)
        if frame.want == "join" and peer.joining is None:
            return Denied(frame.token, "duplicate")
        if frame.want != "service" and not self._may_ask(channel, peer.identity):
            return Denied(frame.token, "duplicate")
        self.pinning.note_returned(peer)
        channel.peer, channel.identity = peer.number, peer.identity
        return None

    def _may_ask(self, channel: Channel, identity: bytes) -> bool:
        """Whether nothing else is under way with this identity."""
        is_exchanging = any(True for _ in self.pairing.exchanges_of(identity))
        return not is_exchanging and self.links.arbiters.of(identity).may_ask(channel.fd)

    def _grant(self, channel: Channel, frame: MayDial, peer: Peer) -> None:
        self._dials += 1
        granted = Granted(frame.token, self._dials, *directions(peer))
        if frame.want == "join" and peer.joining is not None:
            granted.invitation, granted.secret = peer.joining.invitation, peer.joining.secret
        self.books.promise(channel, granted, Denied(frame.token, "closing", retry_s=FULL_RETRY_S))

    def opened(self, channel: Channel, frame: Opened) -> None:
        """Our dial was welcomed."""
        peer = self.books.delivery.peers.get(frame.peer)
        arbiter = self.links.arbiters.known(channel.identity)
        if (
            peer is None
            or arbiter is None
            or channel.is_stale
            or not arbiter.opened(channel.fd, frame.instance, self._now_s())
        ):
            channel.say(Denied(frame.token, "duplicate"))
            return
        self._stand(channel, frame.token, peer)

    def dial_failed(self, frame: DialFailed) -> None:
        """A dial of ours was refused: what follows here. Raises StorageFull."""
        self.pairing.dial_failed(frame)
        self.inviting.dial_failed(frame)
        peer = self.books.delivery.peers.get(frame.peer)
        if peer is None:
            return
        if frame.code == "clone" and self.links.clones.note(0, self._now_s()):
            self.books.event("node.cloned", peer=peer.name)
        if frame.code == "retired":
            self.books.event("key.retired_here", peer=peer.name, identity=identity_text(self.links.identity))

    # --- hellos that come in ----------------------------------------------------------------------------

    def take_hello(self, channel: Channel, frame: TakeHello) -> None:
        """A good hello has come in."""
        try:
            denied = self._take_hello(channel, frame)
        except StorageFull:
            denied = Denied(frame.token, "closing", retry_s=FULL_RETRY_S)
        if denied is not None:
            channel.say(denied)

    def _take_hello(self, channel: Channel, frame: TakeHello) -> Denied | None:
        if frame.identity == self.links.identity:
            return Denied(frame.token, "self")
        peer = self.books.delivery.find(frame.identity)
        former = self.books.delivery.by_retired.get(frame.identity)
        if peer is None and former is not None and not former.removed:
            self._tell_retired(former, frame)
            return Denied(frame.token, "retired")
        if peer is None and frame.chain:
            peer = self.follow_key(frame)
        if peer is not None and peer.blocked:
            return Denied(frame.token, "blocked")
        return WANTS[frame.want](self, channel, frame, peer)

    def _take_link(self, channel: Channel, frame: TakeHello, peer: Peer | None) -> Denied | None:
        if peer is None:
            return Denied(frame.token, self._stranger(frame.identity))
        arbiter = self.links.arbiters.of(peer.identity)
        code, cut = arbiter.take(channel.fd, frame.instance, frame.dial, self._now_s())
        if code == "clone" and self.links.clones.note(peer.number, self._now_s()):
            self.books.event("peer.cloned", peer=peer.name, address=frame.address)
            self.books.tell_watchers(peer.number)
        if code:
            return Denied(frame.token, code)
        for fd in cut:
            if fd in self.links.channels:
                self.links.channels[fd].say(Cut("replaced by a newer link"))
        self.inviting.link_stands(peer, frame.name)
        self._stand(channel, frame.token, peer)
        return None

    def _take_service(self, channel: Channel, frame: TakeHello, peer: Peer | None) -> Denied | None:
        """Beside the link, so nothing is arbitrated."""
        if peer is None:
            return Denied(frame.token, "unpaired")
        services = self.links.services()
        if len(services) >= SERVICES or len(self.links.services(peer.number)) >= PEER_SERVICES:
            return Denied(frame.token, "limit", retry_s=SERVICE_RETRY_S)
        channel.peer, channel.identity, channel.is_service = peer.number, peer.identity, True
        self.say(Admitted(channel.pid, "service"))
        self._promise_taken(channel, frame.token, peer)
        return None

    def _take_files(self, channel: Channel, frame: TakeHello, peer: Peer | None) -> Denied | None:
        """Beside the link; what it may do with files is for its worker to say."""
        if peer is None:
            return Denied(frame.token, "unpaired")
        if len(self.links.sharing()) >= SHARING or len(self.links.sharing(peer.number)) >= PEER_SHARING:
            return Denied(frame.token, "limit", retry_s=SHARING_RETRY_S)
        channel.peer, channel.identity, channel.is_sharing = peer.number, peer.identity, True
        self.say(Admitted(channel.pid, "files"))
        self._promise_taken(channel, frame.token, peer)
        return None

    def _take_pair(self, channel: Channel, frame: TakeHello, _: Peer | None) -> Denied | None:
        return self.pairing.take_hello(channel, frame, _source(frame.address))

    def _take_join(self, channel: Channel, frame: TakeHello, _: Peer | None) -> Denied | None:
        return self.inviting.take_hello(channel, frame)

    def _stranger(self, identity: bytes) -> str:
        """The code for an identity without a pin."""
        if self.pairing.is_rejected(identity):
            return "rejected"
        return "pending" if self.pairing.request_of(identity) is not None else "unpaired"

    # --- keys that were replaced ------------------------------------------------------------------------

    def follow_key(self, frame: TakeHello | OpenParcel) -> Peer | None:
        """The peer whose key signed that of this hello or parcel; the change is recorded."""
        known = self.books.delivery.by_identity
        keys = [identity_of(entry[0]) for entry in frame.chain]
        pinned = {key for key in keys if key in known and not known[key].removed}
        followed = self._follow(frame.chain, frame.spki, pinned)
        if not followed.pinned:
            return None
        return self._rotate(known[followed.pinned], frame.identity, frame.chain, followed)

    def _follow(self, chain: Sequence[Rotation], spki: bytes, pinned: set[bytes]) -> Followed:
        """What a chain proves; a replaced key with another successor is told, and not followed."""
        successors: dict[bytes, bytes] = {}
        for entry in chain:
            former = self.books.delivery.by_retired.get(identity_of(entry[0]))
            if former is not None:
                successors |= successors_of(former.retired, former.identity)
        followed = follow(chain, spki, pinned, successors)
        for conflict in followed.conflicts:
            former = self.books.delivery.by_retired[conflict.identity]
            self.books.event(
                "key.conflict",
                peer=former.name,
                identity=identity_text(former.identity),
                former=identity_text(conflict.identity),
                successor=identity_text(conflict.successor),
            )
        return followed

    def _rotate(self, peer: Peer, identity: bytes, chain: Sequence[Rotation], followed: Followed) -> Peer:
        try:
            return self.pinning.rotate(peer, identity, chain[-1], followed.retired)
        except UsageError:  # the new key is another peer's: both stay what they are
            return self.books.delivery.by_identity[identity]

    def _tell_retired(self, former: Peer, frame: TakeHello) -> None:
        self.books.event(
            "key.retired_seen",
            peer=former.name,
            address=frame.address,
            former=identity_text(frame.identity),
            identity=identity_text(former.identity),
        )

    # --- helpers ----------------------------------------------------------------------------------------

    def _stand(self, channel: Channel, token: int, peer: Peer) -> None:
        channel.peer, channel.identity = peer.number, peer.identity
        self.links.on_change(self.links.known(peer))
        self._promise_taken(channel, token, peer)

    def _promise_taken(self, channel: Channel, token: int, peer: Peer) -> None:
        taken = Taken(token, channel.fd, peer.number, peer.name, *directions(peer))
        self.books.promise(channel, taken, Denied(token, "closing", retry_s=FULL_RETRY_S))

    def _now_s(self) -> float:
        return self.books.clock.mono_ns() / 1e9


Want = Callable[[Admitting, Channel, TakeHello, Peer | None], Denied | None]

WANTS: dict[str, Want] = {
    "link": Admitting._take_link,
    "service": Admitting._take_service,
    "files": Admitting._take_files,
    "pair": Admitting._take_pair,
    "join": Admitting._take_join,
}


def _source(address: str) -> str:
    """What counts as one source of connections."""
    try:
        return source_of(Address.parse(address).host)
    except ValueError:
        return address
