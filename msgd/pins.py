"""Who is who: peers by number and by identity, invitations, rotations; what `peer` records do to them. Pure.

| action | of | afterwards |
|---|---|---|
| unpaired | an address | it is known, without an identity: what is sent to it waits |
| merged | an address | what waits for it waits for the peer `into` |
| paired | peer, address | pinned: identity, name, address, how; an `invitation` is used up |
| joining | peer, address | pinned; `invitation` of the other side is not yet redeemed there |
| joined | peer | it is redeemed |
| unjoined | peer | it was refused: again what it was before, an address if it was nothing |
| rotated, rekeyed | peer | pinned with `identity`; `old` and `retired` are never taken again |
| key changed | peer | at its address answers `old`, which is not its identity |
| key returned | peer | its identity answers again |
| renamed | peer | another name |
| blocked, removed | peer, address | nothing of what was on its way is sent any more |
| unblocked | peer | as before |
| exported | peer | what was released up to seq `seq` may be with it |
| rejected, recovered, imported | peer or 0 | nothing: for the history |
| invited | 0 | `invitation` may be used once, until it expires |
| wrong proof | 0 | counted for the `invitation` |
| invitation ended | 0 | it may not be used any more, for `reason` |
| vacuumed | 0 | the segments that begin at `bases` are being removed |
| consumer begun, consumer removed | 0 | nothing: for the history; `cursor` records say what it means |
| own rotated | 0 | this node has `identity` now; what was open for the old one is over |

Every record of a peer carries its identity, name and address as they are afterwards, except those for the
history: they tell of somebody else who may never become a peer.
"""

from collections.abc import Callable, Iterable, Iterator

from msgd.log.record import Kind
from msgd.standing import Invitation, Joining, Outward, Peer, PeerChange, Range

MAX_INVITATIONS = 256  # that are remembered, so that a second use can be told from a wrong one
MAX_ROTATIONS = 8  # the longest chain that a greet carries

HISTORY_ONLY = ("rejected", "recovered", "imported")

Rotation = tuple[bytes, bytes, bytes]


class Pins:
    """Peers, by all that they are found by."""

    def __init__(self) -> None:
        self.peers: dict[int, Peer] = {}
        self.by_identity: dict[bytes, Peer] = {}  # removed and blocked ones, too
        self.by_retired: dict[bytes, Peer] = {}  # by former identities
        self.invitations: dict[bytes, Invitation] = {}  # of this node, oldest first
        self.rotations: list[Rotation] = []  # of this node's own key, oldest first
        self.own_identity = b""  # since the last of them
        self.leaving: list[int] = []  # bases of segments that a vacuum set out to remove
        self.next_peer = 1

    # --- questions --------------------------------------------------------------------------------------

    def find(self, who: str | bytes) -> Peer | None:
        """A peer by identity, name or address (with or without port); removed ones are not found.

        One that is pinned goes before an address that is not.
        """
        if isinstance(who, bytes):
            peer = self.by_identity.get(who)
            return peer if peer is not None and not peer.removed else None
        found = None
        for peer in self.live():
            if who in (peer.name, peer.address, peer.address.rpartition(":")[0]):
                if peer.pinned:
                    return peer
                found = found or peer
        return found

    def live(self) -> Iterator[Peer]:
        """Peers and addresses that were neither removed nor merged."""
        return (p for p in self.peers.values() if not p.removed and not p.into)

    def unpinned(self) -> list[Peer]:
        """Addresses that somebody here sent to, and nobody has accepted who answers."""
        return [p for p in self.live() if not p.pinned]

    def owner(self, number: int) -> tuple[Peer, int]:
        """Whose the messages in records of this number are now, and `Range.peer` of their ranges."""
        peer = self.peers[number]
        return (self.peers[peer.into], number) if peer.into else (peer, 0)

    # --- records ----------------------------------------------------------------------------------------

    def peer_changed(self, number: int, change: PeerChange, wall_ns: int = 0) -> Peer:
        """A `peer` record with a number; `wall_ns` as in its header."""
        peer = self.peers.get(number)
        if peer is None:
            peer = Peer(number, b"", change.name, change.address, pinned=False)
            self.peers[number] = peer
            self.next_peer = max(self.next_peer, number + 1)
        PEER_ACTIONS[change.action](self, peer, change, wall_ns)
        if change.action not in HISTORY_ONLY:
            peer.name, peer.address = change.name, change.address
        return peer

    def node_changed(self, change: PeerChange, start: bytes) -> None:
        """A `peer` record without a number: about this node; `start` as in its header."""
        NODE_ACTIONS[change.action](self, change, start)

    def _unpaired(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        peer.removed = False

    def _merged(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        target = self.peers[change.into]
        for waiting in peer.out.waiting:
            waiting.peer = peer.number
        target.out.waiting = sorted(target.out.waiting + peer.out.waiting, key=_place)
        target.out.ended.update(peer.out.ended)
        target.aliases.append(peer.number)
        peer.out = Outward()
        peer.into = target.number

    def _paired(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        if not peer.pinned or peer.removed:
            peer.paired_ns, peer.how = wall_ns, change.how
        self._pin(peer, change.identity)
        peer.joining = None
        invitation = self.invitations.get(change.invitation)
        if invitation is not None:
            invitation.used_by, invitation.ended = change.identity, "used"

    def _joining(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        before = "removed" if peer.removed else "pinned" if peer.pinned else ""
        if peer.joining is not None:
            before = peer.joining.before
        self._paired(peer, change, wall_ns)
        peer.joining = Joining(
            change.invitation, change.secret, change.expires_s, change.addresses, change.name, before
        )

    def _joined(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        peer.joining = None

    def _unjoined(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        before = peer.joining.before if peer.joining is not None else "pinned"
        peer.joining = None
        if before == "removed":
            peer.removed = True
        elif not before:
            del self.by_identity[peer.identity]
            peer.identity, peer.pinned, peer.how, peer.paired_ns = b"", False, "", 0

    def _moved(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        """Its identity is another one now."""
        for key in (*change.retired, change.old):
            if key != change.identity:
                self._not_retired(key)
                peer.retired.append(key)
                self.by_retired[key] = peer
        self._pin(peer, change.identity)
        peer.how = "rotation"

    def _rekeyed(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        self._moved(peer, change, wall_ns)
        peer.how, peer.paired_ns = "rekey", wall_ns

    def _key_changed(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        peer.changed = change.old

    def _key_returned(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        peer.changed = b""

    def _blocked(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        peer.blocked = True
        _void(peer)

    def _unblocked(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        peer.blocked = False

    def _removed(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        peer.removed, peer.blocked, peer.joining, peer.changed = True, False, None, b""
        _void(peer)

    def _exported(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        peer.out.exported = change.seq

    def _nothing(self, peer: Peer, change: PeerChange, wall_ns: int) -> None:
        """For the history only."""

    def _not_retired(self, key: bytes) -> None:
        former = self.by_retired.pop(key, None)
        if former is not None:
            former.retired.remove(key)

    def _pin(self, peer: Peer, identity: bytes) -> None:
        self._not_retired(identity)
        if peer.identity != identity:
            self.by_identity.pop(peer.identity, None)
            other = self.by_identity.get(identity)
            if other is not None:
                other.identity = b""  # a removed peer whose key is another's now
        peer.identity = identity
        self.by_identity[identity] = peer
        peer.pinned, peer.removed, peer.changed = True, False, b""

    def _invited(self, change: PeerChange, start: bytes) -> None:
        while len(self.invitations) >= MAX_INVITATIONS:
            ended = (i for i, known in self.invitations.items() if known.ended)
            del self.invitations[next(ended, next(iter(self.invitations)))]
        self.invitations[change.invitation] = Invitation(
            change.invitation, change.secret, change.user, change.expires_s, change.expires_boot_ns, start
        )

    def _wrong_proof(self, change: PeerChange, start: bytes) -> None:
        if change.invitation in self.invitations:
            self.invitations[change.invitation].wrong += 1

    def _invitation_ended(self, change: PeerChange, start: bytes) -> None:
        if change.invitation in self.invitations:
            self.invitations[change.invitation].ended = change.reason

    def _own_rotated(self, change: PeerChange, start: bytes) -> None:
        assert change.rotation is not None
        self.rotations = [*self.rotations, change.rotation][-MAX_ROTATIONS:]
        self.own_identity = change.identity
        for invitation in self.invitations.values():
            invitation.ended = invitation.ended or "expired"

    def _vacuumed(self, change: PeerChange, start: bytes) -> None:
        self.leaving = change.bases

    def _nothing_of_node(self, change: PeerChange, start: bytes) -> None:
        """For the history only."""

    # --- a start ----------------------------------------------------------------------------------------

    def restore(self, peers: Iterable[Peer]) -> None:
        """Peers of a checkpoint; what did not fit into one part comes again under the same number."""
        for peer in peers:
            known = self.peers.get(peer.number)
            if known is not None:
                known.out.unreceipted += peer.out.unreceipted
                known.out.waiting += peer.out.waiting
                known.out.ended.update(peer.out.ended)
                continue
            self.peers[peer.number] = peer
            if peer.identity:
                self.by_identity[peer.identity] = peer
            for key in peer.retired:
                self.by_retired[key] = peer


def _void(peer: Peer) -> None:
    """What was in doubt has been ended: a later link begins a new epoch and never sends it."""
    out = peer.out
    out.epoch, out.base, out.opened, out.exported = bytes(16), 0, None, 0
    out.unreceipted, out.unreceipted_size = [], 0
    out.waiting, out.ended = [], {}


def _place(waiting: Range) -> int:
    """Sort key: batches that wait again stay first and in their order, the rest as it stands in the log."""
    return waiting.start if waiting.kind == Kind.HELD else -1


PEER_ACTIONS: dict[str, Callable[[Pins, Peer, PeerChange, int], None]] = {
    "unpaired": Pins._unpaired,
    "merged": Pins._merged,
    "paired": Pins._paired,
    "joining": Pins._joining,
    "joined": Pins._joined,
    "unjoined": Pins._unjoined,
    "rotated": Pins._moved,
    "rekeyed": Pins._rekeyed,
    "key changed": Pins._key_changed,
    "key returned": Pins._key_returned,
    "renamed": Pins._nothing,
    "blocked": Pins._blocked,
    "unblocked": Pins._unblocked,
    "removed": Pins._removed,
    "rejected": Pins._nothing,
    "recovered": Pins._nothing,
    "exported": Pins._exported,
    "imported": Pins._nothing,
}

NODE_ACTIONS: dict[str, Callable[[Pins, PeerChange, bytes], None]] = {
    "invited": Pins._invited,
    "wrong proof": Pins._wrong_proof,
    "invitation ended": Pins._invitation_ended,
    "own rotated": Pins._own_rotated,
    "rejected": Pins._nothing_of_node,
    "vacuumed": Pins._vacuumed,
    "consumer begun": Pins._nothing_of_node,
    "consumer removed": Pins._nothing_of_node,
}
