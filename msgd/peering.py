"""What people ask about peers: add, hold for an address, rename, block, unblock, remove."""

from collections.abc import Callable

from msgd.books import Books
from msgd.channel import Channel
from msgd.config import Address, Config
from msgd.errors import MsgdError, NotTrusted, UnknownPeer, UsageError
from msgd.linking import Linking
from msgd.outgoing import Outgoing
from msgd.pinning import Pinning
from msgd.standing import Peer, PeerChange
from msgd.trust.identity import identity_text
from msgd.wire.ledger import Done, KnownPeer, PutPeer, Refused

MAX_UNPINNED = 1024  # addresses; the oldest for which nothing waits makes room for another


class Peering(Pinning):
    """Requests about peers."""

    def __init__(
        self,
        books: Books,
        links: Linking,
        outgoing: Outgoing,
        on_change: Callable[[KnownPeer], None],
        config: Config,
    ) -> None:
        super().__init__(books, links, outgoing, on_change)
        self.trust: str = config.pairing.trust
        self._own = {str(address) for address in config.listen}

    def put(self, channel: Channel, frame: PutPeer) -> None:
        """Do what a person asked about a peer; answered when it is on disk."""
        try:
            changed, value = PUTS[frame.action](self, frame)
        except MsgdError as error:
            channel.say(Refused(frame.token, error.name, error.message, error.hint))
            return
        self.books.promise_answer(channel, frame.token, Done(frame.token, changed, value))

    # --- add, hold --------------------------------------------------------------------------------------

    def _add(self, frame: PutPeer) -> tuple[bool, int]:
        known = self.books.delivery.by_identity.get(frame.identity)
        address = frame.address or (known.address if known else "")
        is_new = known is None or known.removed
        if known and not is_new:
            is_same = (known.name, known.address) == (frame.name, address)
            if is_same and known.joining is None and not self._places(address):
                return False, known.number
            self._check(PeerChange("paired", frame.identity, frame.name, address))
            self.links.cut(known.number, "its address or name was changed")
        peer = self.pin(frame.identity, frame.name, address, frame.user, "key")
        self.books.event(
            "peer.added",
            peer=peer.name,
            identity=identity_text(peer.identity),
            address=peer.address,
            user=frame.user,
        )
        return True, peer.number

    def _hold(self, frame: PutPeer) -> tuple[bool, int]:
        address = self._foreign(frame.address)
        peers = [p for p in self.books.delivery.live() if p.address == address]
        if peers:
            return False, max(peers, key=lambda p: p.pinned).number
        if self.trust == "known-only":
            raise NotTrusted(
                f"Nobody is paired at {address}, and this node pairs with nobody over the network.",
                "Use an invitation, or `msgctl peer add NAME ADDRESS --key IDENTITY`.",
            )
        self._make_room()
        change = PeerChange("unpaired", b"", address, address, frame.user)
        peer = self.books.change_peer(self._former(address) or self.books.delivery.next_peer, change)
        self._tell(peer)
        return True, peer.number

    def _foreign(self, text: str) -> str:
        """An address that is not this node's own. Raises UsageError."""
        try:
            address = str(Address.parse(text))
        except ValueError as error:
            raise UsageError(f"{text!r} is no address: expected HOST or HOST:PORT.") from error
        if address in self._own:
            raise UsageError(
                f"{address} is where this node itself listens.", "Give the other node's address."
            )
        return address

    def _places(self, address: str) -> list[Peer]:
        return [p for p in self.books.delivery.unpinned() if address and p.address == address]

    def _former(self, address: str) -> int:
        """The number that this address had before it was removed, 0 none."""
        peers = self.books.delivery.peers.values()
        same = (p for p in peers if p.removed and not p.pinned and not p.into and p.address == address)
        return next((p.number for p in same), 0)

    def _make_room(self) -> None:
        """Raises UsageError when messages wait for too many addresses."""
        unpinned = self.books.delivery.unpinned()
        if len(unpinned) < MAX_UNPINNED:
            return
        idle = next((p for p in unpinned if not p.out.waiting), None)
        if idle is None:
            raise UsageError(
                f"Messages wait for {len(unpinned)} addresses that were never paired, which is the most.",
                "Pair with some, or end what waits with `msgctl peer rm ADDRESS`.",
            )
        self._change(idle, "removed", reason="too many addresses")

    # --- what is done to one ----------------------------------------------------------------------------

    def _rename(self, frame: PutPeer) -> tuple[bool, int]:
        peer = self._peer(frame)
        old = peer.name
        if not peer.pinned:
            raise UsageError(f"{old} is an address, not a peer yet.", f"Pair first: `msgctl pair ask {old}`.")
        self.check_name(frame.name, peer.identity)
        self._change(peer, "renamed", name=frame.name, user=frame.user)
        self.books.event("peer.renamed", peer=frame.name, old=old, user=frame.user)
        return old != frame.name, peer.number

    def _block(self, frame: PutPeer) -> tuple[bool, int]:
        peer = self._peer(frame)
        if not peer.pinned:
            raise UsageError(
                f"{peer.name} is an address: nobody there has been accepted, so nobody can be blocked.",
                f"End what waits for it with `msgctl peer rm {peer.name}`.",
            )
        if peer.blocked:
            return False, 0
        cancelled = self._end_all(peer, "peer blocked")
        self.links.cut(peer.number, "the peer was blocked")
        self._change(peer, "blocked", user=frame.user)
        self.books.event("peer.blocked", peer=peer.name, user=frame.user, cancelled=cancelled)
        return True, cancelled

    def _unblock(self, frame: PutPeer) -> tuple[bool, int]:
        peer = self._peer(frame)
        if not peer.blocked:
            return False, peer.number
        self._change(peer, "unblocked", user=frame.user)
        self.books.event("peer.unblocked", peer=peer.name, user=frame.user)
        self.links.wants_dial(peer, eager=True)
        return True, peer.number

    def _remove(self, frame: PutPeer) -> tuple[bool, int]:
        peer = self._peer(frame)
        cancelled = self._end_all(peer, "peer removed")
        self.links.cut(peer.number, "the peer was removed")
        self._change(peer, "removed", user=frame.user)
        self.books.event("peer.removed", peer=peer.name, user=frame.user, cancelled=cancelled)
        return True, cancelled

    def _recovered(self, frame: PutPeer) -> tuple[bool, int]:
        peer = self._peer(frame)
        self._change(peer, "recovered", user=frame.user, reason=frame.detail)
        self.books.event("peer.recovered", peer=peer.name, user=frame.user, reason=frame.detail)
        return True, peer.number

    def _imported(self, frame: PutPeer) -> tuple[bool, int]:
        peer = self._peer(frame)
        self._change(peer, "imported", user=frame.user, reason=frame.detail)
        self.books.event("parcel.taken", peer=peer.name, user=frame.user, reason=frame.detail)
        return True, peer.number

    def _end_all(self, peer: Peer, reason: str) -> int:
        self.books.commit()  # an end may only name records of earlier appends
        return self.outgoing.ending.cancel_all(peer, reason)

    def _peer(self, frame: PutPeer) -> Peer:
        """Raises UnknownPeer."""
        peer = self.books.delivery.peers.get(frame.number)
        if peer is None or peer.removed or peer.into:
            raise UnknownPeer("It is no peer any more.", "See `msgctl peer ls`.")
        return peer


PUTS: dict[str, Callable[[Peering, PutPeer], tuple[bool, int]]] = {
    "add": Peering._add,
    "hold": Peering._hold,
    "rename": Peering._rename,
    "block": Peering._block,
    "unblock": Peering._unblock,
    "remove": Peering._remove,
    "recovered": Peering._recovered,
    "imported": Peering._imported,
}
