"""Who becomes a peer, under which name and number, and how an identity moves: decided here, as records.

An identity keeps its number for ever, also after it was removed. A new one takes over the number of an
address that somebody sent to, so that what waits there flows; other addresses of the same node are merged
into it. Whoever calls has a person's decision, an invitation or a signed rotation in his hands.
"""

from collections.abc import Callable
from typing import Any

from msgd import model
from msgd.books import Books
from msgd.errors import UsageError
from msgd.holds import FLOWS
from msgd.linking import Linking
from msgd.outgoing import Outgoing
from msgd.pins import Rotation
from msgd.standing import Peer, PeerChange
from msgd.trust.identity import identity_text
from msgd.wire.ledger import KnownPeer


class Pinning:
    """Changes of who is a peer. All raise StorageFull."""

    def __init__(
        self, books: Books, links: Linking, outgoing: Outgoing, on_change: Callable[[KnownPeer], None]
    ) -> None:
        self.books = books
        self.links = links
        self.outgoing = outgoing
        self.on_change = on_change

    # --- new peers --------------------------------------------------------------------------------------

    def pin(
        self,
        identity: bytes,
        name: str,
        address: str,
        user: str,
        how: str,
        *,
        number: int = 0,
        words: str = "",
        transcript: bytes = b"",
        invitation: bytes = b"",
    ) -> Peer:
        """Take this identity as a peer, in one record. `number`: an address that it answered at.

        Raises UsageError when this cannot be: another peer has the name, the identity is blocked or was
        replaced. Then nothing was changed.
        """
        change = PeerChange("paired", identity, name, address, user, how)
        change.words, change.transcript, change.invitation = words, transcript, invitation
        return self._take_in(change, number)

    def join(
        self,
        identity: bytes,
        name: str,
        addresses: list[str],
        user: str,
        *,
        invitation: bytes,
        secret: bytes,
        expires_s: int,
    ) -> Peer:
        """Take the identity of an invitation as a peer; it is yet to confirm. Raises UsageError as `pin`."""
        change = PeerChange("joining", identity, name, addresses[0], user, "invitation")
        change.invitation, change.secret = invitation, secret
        change.expires_s, change.addresses = expires_s, addresses
        return self._take_in(change, 0)

    def joined(self, peer: Peer, name: str = "") -> Peer:
        """The inviter has confirmed; `name` replaces the one that was given meanwhile."""
        if name:
            self.check_name(name, peer.identity)
        peer = self._change(peer, "joined", name=name or peer.name)
        self.books.event("join.done", peer=peer.name, identity=identity_text(peer.identity))
        return peer

    def unjoined(self, peer: Peer, reason: str) -> Peer:
        """The inviter refused: the peer is again what it was; an address for which nothing waits goes."""
        before = peer.joining.before if peer.joining is not None else "pinned"
        if before == "removed":
            self.books.commit()  # an end may only name records of earlier appends
            self.outgoing.ending.cancel_all(peer, "peer removed")
        identity = peer.identity
        name = peer.name if before else peer.address
        peer = self._change(peer, "unjoined", name=name, reason=reason)
        if not peer.pinned and not peer.out.waiting:
            peer = self._change(peer, "removed")
        self.books.event("join.refused", peer=name, identity=identity_text(identity), reason=reason)
        return peer

    def _take_in(self, change: PeerChange, number: int) -> Peer:
        delivery = self.books.delivery
        known = delivery.by_identity.get(change.identity)
        if known is not None:
            change.name = change.name or known.name
            change.address = change.address or known.address
        self._check(change)
        same = [p for p in delivery.unpinned() if number == p.number or change.address == p.address]
        target = known or (same[0] if same else None)
        peer = self.books.change_peer(target.number if target else delivery.next_peer, change)
        for place in same:
            if place is not peer:
                self.merge(place, peer)
        self.links.status(peer.number).hold = FLOWS
        self._tell(peer)
        return peer

    def _check(self, change: PeerChange) -> None:
        delivery = self.books.delivery
        if change.identity == self.links.identity:
            raise UsageError("This is the identity of this node itself.", "Give the other node's identity.")
        known = delivery.by_identity.get(change.identity)
        if known is not None and known.blocked:
            raise UsageError(f"{known.name} is blocked here.", f"msgctl peer unblock {known.name}")
        former = delivery.by_retired.get(change.identity)
        if former is not None and not former.removed:
            raise UsageError(
                f"This key was replaced: {former.name} has another one now.",
                f"If it went back to it: `msgctl peer rekey {former.name}`.",
            )
        self.check_name(change.name, change.identity)

    def merge(self, place: Peer, peer: Peer) -> None:
        """Who answers at this address is that peer: what waits for the address waits for it."""
        held = place.out.waiting_count
        self.books.watch_too(place.number, peer.number)
        self._change(place, "merged", into=peer.number)
        self.outgoing.releasable.add(peer.number)
        self.books.event("peer.merged", peer=peer.name, address=place.address, waiting=held)
        self._tell(peer)
        self.links.wants_dial(peer, eager=True)

    # --- names ------------------------------------------------------------------------------------------

    def check_name(self, name: str, identity: bytes) -> None:
        """Raises UsageError unless the peer with this identity may have the name."""
        if not model.is_name(name):
            raise UsageError(f"{name!r} cannot name a peer.", "A name has 1 to 63 of a-z, 0-9 and '-'.")
        other = self._named(name)
        if other is not None and other.identity != identity:
            raise UsageError(
                f"The name {name} belongs to another peer, {identity_text(other.identity)}.",
                "Give this one another name here (`--name` of pair accept and pair join). "
                f"If it is {name} with a new key: `msgctl peer rekey {name}`.",
            )

    def unique_name(self, proposed: str) -> str:
        """The proposed name, or one near it that is legal here and free."""
        base = proposed if model.is_name(proposed) else "node"
        name, n = base, 1
        while self._named(name) is not None:
            n += 1
            name = f"{base[: model.MAX_NAME - 1 - len(str(n))]}-{n}"
        return name

    def _named(self, name: str) -> Peer | None:
        return next((p for p in self.books.delivery.live() if p.name == name), None)

    # --- identities -------------------------------------------------------------------------------------

    def rotate(self, peer: Peer, identity: bytes, rotation: Rotation, retired: list[bytes]) -> Peer:
        """The peer's key signed its successor, `identity`. `retired`: further keys between both.

        Raises UsageError when that is another peer's.
        """
        self._check_free(peer, identity)
        old = peer.identity
        peer = self._change(peer, "rotated", identity=identity, old=old, rotation=rotation, retired=retired)
        self.links.identity_moved(old, identity)
        self.books.event(
            "key.rotated", peer=peer.name, identity=identity_text(identity), former=identity_text(old)
        )
        return peer

    def rekey(
        self, peer: Peer, identity: bytes, user: str, *, words: str = "", transcript: bytes = b""
    ) -> Peer:
        """A person accepts another key of a peer; the old one is never taken again. Raises UsageError."""
        self._check_free(peer, identity)
        old = peer.identity
        self.links.cut(peer.number, "its key was replaced")
        fields = {"words": words, "transcript": transcript, "user": user}
        peer = self._change(peer, "rekeyed", identity=identity, old=old, how="rekey", **fields)
        self.links.status(peer.number).hold = FLOWS
        self.books.event(
            "peer.rekeyed",
            peer=peer.name,
            identity=identity_text(identity),
            former=identity_text(old),
            user=user,
        )
        return peer

    def _check_free(self, peer: Peer, identity: bytes) -> None:
        other = self.books.delivery.by_identity.get(identity)
        if other is not None and other is not peer and not other.removed:
            raise UsageError(
                f"This key belongs to another peer, {other.name}.",
                f"If both are the same node: `msgctl peer rm {other.name}`.",
            )

    def note_changed(self, peer: Peer, found: bytes) -> None:
        """At the peer's address answers another key. Told once, until it is solved."""
        if peer.changed or found == peer.identity or self.links.is_connected(peer.number):
            return
        peer = self._change(peer, "key changed", old=found)
        self.books.event(
            "peer.changed",
            peer=peer.name,
            address=peer.address,
            identity=identity_text(peer.identity),
            found=identity_text(found),
        )

    def note_returned(self, peer: Peer) -> None:
        """The peer's own key answers."""
        if peer.changed:
            self._change(peer, "key returned")
            self.books.event("peer.returned", peer=peer.name)

    # --- helpers ----------------------------------------------------------------------------------------

    def _change(self, peer: Peer, action: str, **fields: Any) -> Peer:
        """A record about a peer, with what stays as it is taken from it."""
        given = {"identity": peer.identity, "name": peer.name, "address": peer.address, **fields}
        changed = self.books.change_peer(peer.number, PeerChange(action, **given))
        self._tell(changed)
        return changed

    def _tell(self, peer: Peer) -> None:
        self.on_change(self.links.known(peer))
        self.books.tell_watchers(peer.number)
