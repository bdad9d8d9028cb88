"""Parcels in the log process: what one carries away is released, what one brings is taken as from a link.

A parcel's batches are taken under a link's rules: only of a pinned peer, in the present epoch, with the next
seq and the right head. So it does not matter which of both brings a batch first. A link whose both ends are
just agreeing where they stand begins again when a parcel has moved that.
"""

import os
from collections.abc import Callable
from itertools import islice

from msgd import model
from msgd.books import Books
from msgd.channel import Channel
from msgd.errors import LogsDiffer, MsgdError, NotTrusted, UsageError
from msgd.flowing import Flowing, head_at, present_epoch
from msgd.linking import Linking, directions
from msgd.outgoing import Outgoing
from msgd.parcel.judge import NEW_EPOCH, NOTHING, RECEIPT, Differs, Ours, judge_out
from msgd.peer.frames import Position
from msgd.peer.heads import chain
from msgd.standing import ZERO_EPOCH, ZERO_HEAD, Peer, PeerChange
from msgd.trust.identity import identity_text
from msgd.trust.proof import identity_of
from msgd.wire.frame import DirectionState, EpochEnds, Frame
from msgd.wire.ledger import Done, Refused
from msgd.wire.parcel import (
    Batches,
    BeginEpoch,
    Export,
    Exported,
    Moved,
    OpenParcel,
    ParcelOpened,
    PutCarried,
    PutPosition,
    Release,
    Released,
    Unreceipted,
    UnreceiptedBatch,
)

RELEASES = 8  # batches of at most 256 KiB in one request: nobody else waits longer than for a big append
PAGE = 4096  # batches in one answer

AGAIN = "Repeat the command."


class Carrying:
    """Requests of `export` and `import`. `follow`: the peer whose key signed that of a parcel's writer."""

    def __init__(
        self,
        books: Books,
        links: Linking,
        flowing: Flowing,
        outgoing: Outgoing,
        follow: Callable[[OpenParcel], Peer | None],
    ) -> None:
        self.books = books
        self.links = links
        self.flowing = flowing
        self.outgoing = outgoing
        self._follow = follow

    # --- away -------------------------------------------------------------------------------------------

    def release(self, channel: Channel, frame: Release) -> None:
        """Give seqs to some of what waits, whether a link stands or not. Raises Damaged, StorageFull."""
        try:
            peer = self._peer(frame.peer)
            if frame.identity != self.links.identity:
                raise UsageError("This node has another key since.", AGAIN)
            is_new = self._begin(peer)
        except MsgdError as error:
            channel.say(_refused(frame.token, error))
            return
        link, before = self.links.ready(peer.number), peer.out.last
        if is_new or peer.out.waiting:
            self.links.agree_anew(peer)
        for _ in range(RELEASES):  # each is whole before the next one, which may raise
            batch = self.outgoing.release(peer) if peer.out.waiting else None
            if batch is None:
                break
            if link is not None:
                self.links.window_of(peer).put(batch)
                self.flowing.send_more(peer)
        answer = Released(frame.token, peer.out.last - before, peer.out.waiting_count)
        self.books.promise_answer(channel, frame.token, answer)

    def _begin(self, peer: Peer) -> bool:
        """Where nothing was ever agreed with the peer a first epoch begins; whether it did.

        Raises UsageError, StorageFull.
        """
        out = peer.out
        if out.epoch != ZERO_EPOCH:
            return False
        if out.last:
            raise UsageError(
                f"What {peer.name} holds of the former messages to it is not known here.",
                f"Begin with a parcel of {peer.name}: `msgctl export` there, `msgctl import` here; or with "
                "a link.",
            )
        ends = EpochEnds(os.urandom(16), 1, 0, ZERO_HEAD, 0, ZERO_HEAD)
        self.flowing.begin_epoch(peer, model.OUT, ends)
        return True

    def export(self, channel: Channel, frame: Export) -> None:
        """From now on all that was released may be with the peer. Raises StorageFull."""
        try:
            peer = self._peer(frame.peer)
        except MsgdError as error:
            channel.say(_refused(frame.token, error))
            return
        out = peer.out
        count = sum(batch.count for batch in out.unreceipted)
        change = PeerChange("exported", peer.identity, peer.name, peer.address, frame.user)
        change.seq, change.reason = out.last, _counted(count)
        peer = self.books.change_peer(peer.number, change)
        self.books.event("parcel.made", peer=peer.name, user=frame.user, count=count)
        self.books.tell_watchers(peer.number)
        state, inward = directions(peer)
        answer = Exported(frame.token, state, inward, out.receipt, out.receipt_head, present_epoch(out))
        self.books.promise_answer(channel, frame.token, answer)

    def unreceipted(self, channel: Channel, frame: Unreceipted) -> None:
        """A page of what has no receipt."""
        out = self.books.delivery.peers[frame.peer].out
        found = (b for b in out.unreceipted if b.first_seq >= frame.first)
        page = [UnreceiptedBatch(b.first_seq, b.count, b.offset, b.head) for b in islice(found, PAGE)]
        answer = Batches(frame.token, out.epoch, out.receipt, out.receipt_head, page)
        self.books.promise_answer(channel, frame.token, answer)

    # --- back -------------------------------------------------------------------------------------------

    def open(self, channel: Channel, frame: OpenParcel) -> None:
        """Whose it is, whether it is for this node, and where that peer stands here. Raises StorageFull."""
        try:
            self._check_addressed(frame)
            peer = self._writer(frame)
            self._judge(peer, frame.theirs)
        except MsgdError as error:
            channel.say(_refused(frame.token, error))
            return
        answer = ParcelOpened(frame.token, peer.number, peer.name, directions(peer)[1])
        self.books.promise_answer(channel, frame.token, answer)

    def begin_epoch(self, channel: Channel, frame: BeginEpoch) -> None:
        """The direction from a peer goes on in another epoch, as its parcel says. Raises StorageFull."""
        peer = self.books.delivery.peers[frame.peer]
        inward, ends = peer.inward, frame.ends
        if inward.epoch != ends.epoch:
            if ends.base <= inward.last or self.links.is_connected(peer.number) or not _is_open(peer):
                channel.say(Moved(frame.token))
                return
            self.flowing.begin_epoch(peer, model.IN, ends)
            self.links.agree_anew(peer)
        self.books.promise_answer(channel, frame.token, Done(frame.token))

    def put(self, channel: Channel, frame: PutCarried, payload: memoryview) -> None:
        """A batch of a parcel: into the log, once, in order. Raises StorageFull."""
        peer = self.books.delivery.peers[frame.peer]
        inward = peer.inward
        if inward.epoch != frame.epoch or not _is_open(peer):
            channel.say(Moved(frame.token))
            return
        is_new = frame.first_seq + frame.count - 1 > inward.last
        if is_new:
            head = chain(inward.head, frame.first_seq, frame.count, payload)
            if frame.first_seq != inward.last + 1 or head != frame.head:
                channel.say(Moved(frame.token))
                return
            self.books.room(len(payload))
            self.flowing.take_in(peer, frame, head, payload)
            self.links.agree_anew(peer)
        self.books.promise_answer(channel, frame.token, Done(frame.token, is_new))

    def put_position(self, channel: Channel, frame: PutPosition) -> None:
        """What the peer has of the direction from here: as good as a receipt. Raises StorageFull."""
        peer = self.books.delivery.peers[frame.peer]
        try:
            verdict = self._judge(peer, frame.theirs)
        except MsgdError as error:
            channel.say(_refused(frame.token, error))
            return
        before, theirs = peer.out.receipt, frame.theirs
        if verdict == RECEIPT:
            self.flowing.add_receipt(peer, theirs.last, theirs.head, frame.wall_ns)
            self.books.event("receipt.received", peer=peer.name, seq=theirs.last)
            self.outgoing.releasable.add(peer.number)
            self.books.promise_answer(channel, frame.token, Done(frame.token, True, theirs.last - before))
            return
        if verdict == NEW_EPOCH:
            base = max(peer.out.last, theirs.last) + 1
            ends = EpochEnds(os.urandom(16), base, peer.out.last, peer.out.head, theirs.last, theirs.head)
            self.flowing.begin_epoch(peer, model.OUT, ends)
            self.links.agree_anew(peer)
        self.books.promise_answer(channel, frame.token, Done(frame.token, verdict != NOTHING))

    # --- who it is --------------------------------------------------------------------------------------

    def _peer(self, number: int) -> Peer:
        """Raises NotTrusted."""
        peer = self.books.delivery.peers.get(number)
        if peer is None or not _is_open(peer):
            raise _not_open(peer.name if peer else "It", peer)
        return peer

    def _check_addressed(self, frame: OpenParcel) -> None:
        """Raises UsageError unless it is for this node, under its present key or a former one."""
        own = {self.links.identity, *(identity_of(spki) for spki, _, _ in self.books.delivery.rotations)}
        if frame.to not in own:
            raise UsageError(
                f"The parcel is for another node: {self._name_of(frame.to)}.", "Nothing of it was taken."
            )

    def _name_of(self, identity: bytes) -> str:
        known = self.books.delivery.find(identity)
        return f"{known.name}, {identity_text(identity)}" if known else identity_text(identity)

    def _writer(self, frame: OpenParcel) -> Peer:
        """Raises NotTrusted, StorageFull."""
        delivery = self.books.delivery
        peer = delivery.by_identity.get(frame.identity)
        former = delivery.by_retired.get(frame.identity)
        if peer is None and former is not None and not former.removed:
            raise NotTrusted(
                f"The key that signed the parcel was replaced: {former.name} has another one now.",
                f"Make a new one there: `msgctl export`. Expected is {identity_text(former.identity)}.",
            )
        if peer is None and frame.chain:
            peer = self._follow(frame)
        if peer is None or not _is_open(peer):
            raise _not_open(identity_text(frame.identity), peer)
        return peer

    # --- what it says of our direction ------------------------------------------------------------------

    def _judge(self, peer: Peer, theirs: DirectionState) -> str:
        """As `judge_out`. Raises LogsDiffer."""
        out = peer.out
        ours = Ours(Position(out.epoch, out.last, out.head), out.base, out.receipt)
        try:
            verdict = judge_out(
                ours,
                Position(theirs.epoch, theirs.last, theirs.head),
                lambda seq: head_at(peer, model.OUT, seq),
            )
        except Differs as differs:
            raise LogsDiffer(
                f"The parcel of {peer.name} does not fit this log: {differs}. Nothing of it was taken.",
                f"One of both logs was set back. A link settles that by itself. Without one: "
                f"`msgctl peer rm {peer.name}`, add it again, then import once more; that cancels "
                "what is in doubt.",
            ) from differs
        if verdict == NEW_EPOCH and self.links.is_connected(peer.number):
            return NOTHING  # the link has settled it since
        return verdict


def _is_open(peer: Peer) -> bool:
    return peer.pinned and not (peer.removed or peer.blocked or peer.into)


def _not_open(what: str, peer: Peer | None) -> NotTrusted:
    if peer is not None and peer.blocked:
        return NotTrusted(f"{peer.name} is blocked here.", f"msgctl peer unblock {peer.name}")
    if peer is not None and peer.removed:
        return NotTrusted(f"{peer.name} is no peer any more.", "Pair with it again, or `msgctl peer add`.")
    return NotTrusted(
        f"{what} is not paired with this node.", "`msgctl peer add NAME --key IDENTITY` if you know it."
    )


def _refused(token: int, error: MsgdError) -> Frame:
    return Refused(token, error.name, error.message, error.hint)


def _counted(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"
