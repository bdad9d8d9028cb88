"""Who is a peer: added, renamed and removed by a person, as records in this node's own log."""

from collections.abc import Callable

import msgspec

from msgd import model
from msgd.books import Books, Channel
from msgd.linking import Linking
from msgd.log.record import Kind
from msgd.outgoing import Outgoing
from msgd.standing import Peer, PeerChange
from msgd.trust.identity import identity_text
from msgd.wire.ledger import Done, KnownPeer, PutPeer, Refused

_encode = msgspec.msgpack.Encoder().encode


class Peering:
    """Requests about peers."""

    def __init__(
        self,
        books: Books,
        links: Linking,
        outgoing: Outgoing,
        on_change: Callable[[KnownPeer], None],
    ) -> None:
        self.books = books
        self.links = links
        self.outgoing = outgoing
        self.on_change = on_change

    def put(self, channel: Channel, frame: PutPeer) -> None:
        """Do what a person asked about a peer; answered when it is on disk."""
        refusal = {"add": self._add, "rename": self._rename, "remove": self._remove}[frame.action](
            channel, frame
        )
        if refusal:
            channel.say(Refused(frame.token, "InvalidRequest", *refusal))

    def _add(self, channel: Channel, frame: PutPeer) -> tuple[str, str] | None:
        books = self.books
        if frame.identity == self.links.identity:
            return "This is the identity of this node itself.", "Give the other node's identity."
        if not model.is_name(frame.name):
            return f"{frame.name!r} cannot name a peer.", "A name has 1 to 63 of a-z, 0-9 and '-'."
        named = next((p for p in self._live() if p.name == frame.name), None)
        if named is not None and named.identity != frame.identity:
            return (
                f"The name {frame.name} belongs to another peer.",
                "Choose another name, or remove that peer.",
            )
        known = books.delivery.by_identity.get(frame.identity)
        address = frame.address or (known.address if known else "")
        if known and not known.removed and (known.name, known.address) == (frame.name, address):
            channel.say(Done(frame.token, False, known.number))
            return None
        number = known.number if known else books.delivery.next_peer
        change = PeerChange("paired", frame.identity, frame.name, address, frame.user, "key")
        peer = self._record(number, change)
        self.links.cut(number, "its address or name was changed")
        books.promise_answer(channel, frame.token, Done(frame.token, True, number))
        self.on_change(self.links.known(peer))
        books.event(
            "peer.added",
            peer=peer.name,
            identity=identity_text(peer.identity),
            address=peer.address,
            user=frame.user,
        )
        return None

    def _rename(self, channel: Channel, frame: PutPeer) -> tuple[str, str] | None:
        peer = self.books.delivery.peers[frame.number]
        if not model.is_name(frame.name):
            return f"{frame.name!r} cannot name a peer.", "A name has 1 to 63 of a-z, 0-9 and '-'."
        if any(p.name == frame.name and p is not peer for p in self._live()):
            return f"The name {frame.name} belongs to another peer.", "Choose another name."
        old = peer.name
        self._record(peer.number, PeerChange("renamed", peer.identity, frame.name, peer.address, frame.user))
        self.books.promise_answer(channel, frame.token, Done(frame.token, old != frame.name, peer.number))
        self.on_change(self.links.known(peer))
        self.books.event("peer.renamed", peer=frame.name, old=old, user=frame.user)
        return None

    def _remove(self, channel: Channel, frame: PutPeer) -> tuple[str, str] | None:
        peer = self.books.delivery.peers[frame.number]
        self.books.commit()  # an end may only name records of earlier appends
        cancelled = self.outgoing.cancel_all(peer)
        self._record(peer.number, PeerChange("removed", peer.identity, peer.name, peer.address, frame.user))
        self.links.cut(peer.number, "the peer was removed")
        self.books.promise_answer(channel, frame.token, Done(frame.token, True, cancelled))
        self.on_change(self.links.known(peer))
        self.books.event("peer.removed", peer=peer.name, user=frame.user, cancelled=cancelled)
        return None

    def _record(self, number: int, change: PeerChange) -> Peer:
        payload = _encode(change)
        self.books.room(len(payload), essential=True)
        self.books.generation += 1
        self.books.add(Kind.PEER, peer=number, payload=payload)
        return self.books.delivery.peer_changed(number, change)

    def _live(self) -> list[Peer]:
        return [p for p in self.books.delivery.peers.values() if not p.removed]
