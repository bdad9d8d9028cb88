"""Invitations: made here, redeemed here, and joined elsewhere (trust protocol, 6b).

| at the inviter | record | then |
|---|---|---|
| a person invites | invited | the string is printed |
| a good proof | paired, with the invitation: pin and redemption in one | joined |
| a wrong proof | wrong proof; with the third one the invitation has ended | refusal |

| at the joiner | record | then |
|---|---|---|
| a person joins | joining: the pin | dial |
| joined | joined | the link |
| a final refusal | unjoined | again what it was |

CLOCK_BOOTTIME decides when an invitation expires; after a start of the machine, the wall clock. The joiner
knows the inviter's wall clock only from the string, so it goes on until that and its own patience are over.
"""

import os

from msgd.books import Books
from msgd.channel import Channel
from msgd.errors import UsageError
from msgd.linking import Linking
from msgd.pinning import Pinning
from msgd.standing import Invitation, Peer, PeerChange
from msgd.trust.identity import identity_text
from msgd.trust.invitation import is_join_proof
from msgd.wire.ledger import Denied, DialFailed, Done, Refused, TakeHello
from msgd.wire.trust import Invite, Invited, JoinDone, MayJoin, PutJoin

OPEN = 64  # invitations that may be used
WRONG_PROOFS = 3  # the last one ends an invitation
MIN_TTL_NS = 1_000_000_000
MAX_TTL_NS = 366 * 86_400_000_000_000
PATIENCE_NS = 600_000_000_000  # a joiner goes on for so long at least, whatever the clocks say


class Inviting:
    """Requests about invitations."""

    def __init__(self, books: Books, links: Linking, pinning: Pinning) -> None:
        self.books = books
        self.links = links
        self.pinning = pinning
        self._joining_since_ns: dict[int, int] = {}  # CLOCK_BOOTTIME, within this start
        links.may_join = self._is_patient

    # --- the inviter ------------------------------------------------------------------------------------

    def invite(self, channel: Channel, frame: Invite) -> None:
        """Make an invitation, on disk before anybody sees it. Raises StorageFull."""
        self.expire()
        count = sum(1 for i in self.books.delivery.invitations.values() if not i.ended)
        if count >= OPEN:
            text = f"{count} invitations are open, which is the most at one time."
            channel.say(Refused(frame.token, "InvalidRequest", text, "Wait until one is used or expires."))
            return
        if not MIN_TTL_NS <= frame.ttl_ns <= MAX_TTL_NS:
            text = f"An invitation for {frame.ttl_ns / 1e9:g} s, expected 1 s to 366 days."
            channel.say(Refused(frame.token, "InvalidRequest", text, "Give another --ttl."))
            return
        clock = self.books.clock
        change = PeerChange("invited", b"", "", user=frame.user)
        change.invitation, change.secret = os.urandom(8), os.urandom(16)
        change.expires_s = -(-(clock.wall_ns() + frame.ttl_ns) // 10**9)
        change.expires_boot_ns = clock.boot_ns() + frame.ttl_ns
        self.books.change_node(change)
        answer = Invited(frame.token, change.invitation, change.secret, change.expires_s)
        self.books.promise_answer(channel, frame.token, answer)
        self.books.event("invitation.made", **_told(change.invitation), user=frame.user)

    def take_hello(self, channel: Channel, frame: TakeHello) -> Denied | None:
        """Somebody wants to join: the refusal, or None when he is told. Raises StorageFull."""
        peer = self.books.delivery.find(frame.identity)
        if peer is None:
            invitation = self.books.delivery.invitations.get(frame.invitation)
            why = self._refusal(invitation, frame)
            if why or invitation is None:
                self._tell_refused(frame, why)
                return Denied(frame.token, "invitation", why)
            try:
                peer = self._redeem(invitation, frame)
            except UsageError as error:
                return Denied(frame.token, "unpaired", error.message)
        channel.peer, channel.identity = peer.number, peer.identity
        self.books.promise(channel, MayJoin(frame.token, peer.number), Denied(frame.token, "closing"))
        return None

    def _refusal(self, invitation: Invitation | None, frame: TakeHello) -> str:
        """Why the invitation is not taken, empty if it is: a word, with "used" by whom."""
        if invitation is None:
            return "unknown"
        if invitation.used_by:
            return f"used {identity_text(invitation.used_by)}"
        if invitation.ended == "dead":
            return "dead"
        if invitation.ended or self._is_expired(invitation):
            return "expired"
        mine = self.links.identity
        if is_join_proof(frame.proof, invitation.secret, mine, frame.identity, frame.greet_hash):
            return ""
        self._count_wrong(invitation)
        return "wrong"

    def _redeem(self, invitation: Invitation, frame: TakeHello) -> Peer:
        """Pin and redemption, in one record. Raises UsageError for a key that was replaced."""
        address = _listening(frame)
        peer = self.pinning.pin(
            frame.identity,
            self._name_for(frame),
            address,
            invitation.user,
            "invitation",
            invitation=frame.invitation,
        )
        identity = identity_text(frame.identity)
        self.books.event("invitation.used", **_told(frame.invitation), peer=peer.name, identity=identity)
        return peer

    def _name_for(self, frame: TakeHello) -> str:
        """What it is called here: its former name, or the one it proposes, or one near that."""
        known = self.books.delivery.by_identity.get(frame.identity)
        return self.pinning.unique_name(known.name if known is not None else frame.name)

    def _count_wrong(self, invitation: Invitation) -> None:
        change = PeerChange("wrong proof", b"", "", invitation=invitation.invitation)
        self.books.change_node(change)
        if invitation.wrong >= WRONG_PROOFS:
            self._end(invitation, "dead")

    def _tell_refused(self, frame: TakeHello, why: str) -> None:
        self.books.event(
            "invitation.refused",
            **_told(frame.invitation),
            identity=identity_text(frame.identity),
            address=frame.address,
            reason=why,
        )

    def expire(self) -> None:
        """Note in the log which invitations have expired. Raises StorageFull."""
        for invitation in list(self.books.delivery.invitations.values()):
            if not invitation.ended and self._is_expired(invitation):
                self._end(invitation, "expired")

    def _end(self, invitation: Invitation, reason: str) -> None:
        change = PeerChange("invitation ended", b"", "", invitation=invitation.invitation, reason=reason)
        self.books.change_node(change)
        self.books.event("invitation.ended", **_told(invitation.invitation), reason=reason)

    def _is_expired(self, invitation: Invitation) -> bool:
        clock = self.books.clock
        if invitation.start[:8] == clock.start[:8]:
            return clock.boot_ns() >= invitation.expires_boot_ns
        return clock.wall_ns() >= invitation.expires_s * 10**9

    # --- the joiner -------------------------------------------------------------------------------------

    def join(self, channel: Channel, frame: PutJoin) -> None:
        """Accept an invitation: the pin, then dials until the other side has confirmed it."""
        try:
            changed, peer = self._join(frame)
        except UsageError as error:
            channel.say(Refused(frame.token, error.name, error.message, error.hint))
            return
        self.books.promise_answer(channel, frame.token, Done(frame.token, changed, peer.number))
        self.links.wants_dial(peer, eager=True)

    def _join(self, frame: PutJoin) -> tuple[bool, Peer]:
        """Whether this changed anything, and the peer. Raises UsageError, StorageFull."""
        known = self.books.delivery.find(frame.identity)
        if known is not None and self._is_repeated(known, frame):
            self._joining_since_ns.pop(known.number, None)
            return False, known
        former = self.books.delivery.by_identity.get(frame.identity)
        name = frame.name or (former.name if former is not None else _temporary_name(frame.identity))
        peer = self.pinning.join(
            frame.identity,
            name if frame.name else self._free(name, frame.identity),
            frame.addresses,
            frame.user,
            invitation=frame.invitation,
            secret=frame.secret,
            expires_s=frame.expires_s,
        )
        self._joining_since_ns[peer.number] = self.books.clock.boot_ns()
        identity = identity_text(frame.identity)
        self.books.event("join.begun", peer=peer.name, identity=identity, user=frame.user)
        return True, peer

    def _is_repeated(self, known: Peer, frame: PutJoin) -> bool:
        """Whether this very join is under way, or nothing is left to join."""
        if known.joining is not None:
            return known.joining.invitation == frame.invitation
        return self.links.is_connected(known.number)

    def _free(self, name: str, identity: bytes) -> str:
        """This name, or one near it, for the peer with this identity."""
        try:
            self.pinning.check_name(name, identity)
        except UsageError:
            return self.pinning.unique_name(name)
        return name

    def confirmed(self, channel: Channel, frame: JoinDone) -> None:
        """The inviter has taken us. Raises StorageFull."""
        peer = self.books.delivery.peers.get(frame.peer)
        if peer is not None:
            self.link_stands(peer, frame.name)
            self.links.wants_dial(peer, eager=True)
        self.books.promise_answer(channel, frame.token, Done(frame.token))

    def link_stands(self, peer: Peer, name: str = "") -> None:
        """The inviter knows us; `name` is what it calls itself. Raises StorageFull."""
        if peer.joining is None:
            return
        is_temporary = peer.name == _temporary_name(peer.identity) and name
        self._joining_since_ns.pop(peer.number, None)
        self.pinning.joined(peer, self._free(name, peer.identity) if is_temporary else "")

    def dial_failed(self, frame: DialFailed) -> None:
        """A final refusal: the pin is taken back. Raises StorageFull."""
        peer = self.books.delivery.peers.get(frame.peer)
        if frame.code == "invitation" and peer is not None and peer.joining is not None:
            self._joining_since_ns.pop(peer.number, None)
            self.pinning.unjoined(peer, frame.detail)

    def _is_patient(self, peer: Peer) -> bool:
        """Whether a join goes on, rather than a link dial that shows how it stands."""
        assert peer.joining is not None
        now_ns = self.books.clock.boot_ns()
        since_ns = self._joining_since_ns.setdefault(peer.number, now_ns)
        return now_ns - since_ns < PATIENCE_NS or self.books.clock.wall_ns() < peer.joining.expires_s * 10**9


def _temporary_name(identity: bytes) -> str:
    """What a peer is called until it has said its name."""
    return f"node-{identity_text(identity)[:7].lower()}"


def _listening(frame: TakeHello) -> str:
    """Where a dialler says that it listens: the address it came from, and its port; empty: nowhere."""
    return f"{frame.address.rpartition(':')[0]}:{frame.port}" if frame.port else ""


def _told(invitation: bytes) -> dict[str, str]:
    """How events name an invitation: its id, which proves nothing."""
    return {"invitation": invitation.hex()}
