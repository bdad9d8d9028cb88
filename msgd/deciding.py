"""What the persons at both ends of an exchange of words say, and what follows.

A yes here is a record first (`paired`, or `rekeyed` for a peer with a new key), then a verdict; a no is the
record `rejected`. With two yeses whoever began the exchange dials a link, or who is left with no connection.
"""

from msgd.books import Books
from msgd.channel import Channel
from msgd.errors import UsageError
from msgd.holds import FLOWS, hold_there
from msgd.linking import Linking
from msgd.meetings import Meetings, told
from msgd.pinning import Pinning
from msgd.requests import ACCEPTED, REJECTED, Request
from msgd.standing import Peer, PeerChange
from msgd.wire.ledger import Done, Refused
from msgd.wire.trust import Decide, TheirVerdict

GONE = "There is no such request any more."
GONE_HINT = "`msgctl pair` shows those that wait; `msgctl pair ask NODE` begins another one."


class Deciding(Meetings):
    """Verdicts."""

    def __init__(self, books: Books, links: Linking, pinning: Pinning) -> None:
        super().__init__(books, links)
        self.pinning = pinning

    # --- here -------------------------------------------------------------------------------------------

    def decide(self, channel: Channel, frame: Decide) -> None:
        """A person's yes or no, on disk before it is said to anybody."""
        try:
            request = self.request_of(frame.identity)
            if request is None:
                raise UsageError(GONE, GONE_HINT)
            listeners = list(self.exchanges_of(frame.identity))
            number = self._accept(frame, request) if frame.accept else self._reject(frame, request)
        except UsageError as error:
            channel.say(Refused(frame.token, error.name, error.message, error.hint))
            return
        self.books.promise_answer(channel, frame.token, Done(frame.token, True, number))
        self.say_verdict(listeners, frame.accept)
        self.tell(request)

    def _accept(self, frame: Decide, request: Request) -> int:
        """The number of the peer. Raises UsageError."""
        if frame.words.lower().split() != request.words:
            raise UsageError(
                f"These are not the words of the request of {request.name}: it has others now, "
                "or they were mistyped.",
                "Look at both screens again: `msgctl pair`.",
            )
        known = self.accepted(request.identity)
        if known is not None:
            return known.number
        peer = (
            self._rekey(request, frame.user)
            if request.rekey
            else self.pin(request, frame.name or request.name, frame.user, "words")
        )
        return peer.number

    def pin(self, request: Request, name: str, user: str, how: str) -> Peer:
        """Commit that the identity of this request is a peer. Raises UsageError, StorageFull."""
        waiting = self.books.delivery.peers.get(request.peer)
        address = waiting.address if waiting is not None and not waiting.pinned else request.address
        if address.endswith(":0"):  # it listens nowhere
            address = ""
        peer = self.pinning.pin(
            request.identity,
            name,
            address,
            user,
            how,
            number=request.peer,
            words=request.phrase,
            transcript=request.transcript,
        )
        for place in self.books.delivery.unpinned():
            if place.address == request.address:
                self.pinning.merge(place, peer)
        request.peer = peer.number
        self.books.event("pair.accepted", **told(request), peer=peer.name, how=how, user=user)
        self._agreed(request, peer)
        return peer

    def _rekey(self, request: Request, user: str) -> Peer:
        """Commit that a peer has another key. Raises UsageError, StorageFull."""
        peer = self.books.delivery.peers.get(request.peer)
        if peer is None or peer.removed:
            raise UsageError(GONE, GONE_HINT)
        peer = self.pinning.rekey(
            peer, request.identity, user, words=request.phrase, transcript=request.transcript
        )
        self._agreed(request, peer)
        return peer

    def _reject(self, frame: Decide, request: Request) -> int:
        """The number of who the request is about, 0 none."""
        peer = self.books.delivery.peers.get(request.peer)
        change = PeerChange("rejected", request.identity, request.name, request.address, frame.user)
        change.words, change.transcript = request.phrase, request.transcript
        if peer is not None:
            self.books.change_peer(peer.number, change)
        else:
            self.books.change_node(change)
        self.rejections.note(request.identity, self.books.clock.boot_ns())
        self.requests.drop(request.identity)
        self.books.event("pair.rejected", **told(request), user=frame.user)
        return request.peer

    # --- there ------------------------------------------------------------------------------------------

    def hear_verdict(self, channel: Channel, frame: TheirVerdict) -> None:
        """The person there has decided."""
        exchange = self.exchanges.get(channel.fd)
        request = self.request_of(exchange.identity) if exchange is not None else None
        if exchange is None or request is None or not exchange.is_known:
            return
        request.theirs = ACCEPTED if frame.accept else REJECTED
        name = "pair.accepted_by_peer" if frame.accept else "pair.rejected_by_peer"
        self.books.event(name, **told(request))
        peer = self.accepted(request.identity)
        if peer is not None:
            self._agreed(request, peer)
        self.tell(request)

    def pinned(self, identity: bytes) -> None:
        """It may have become a peer in another way while its words wait: that is a yes, too."""
        request, peer = self.request_of(identity), self.accepted(identity)
        if request is not None and peer is not None and not peer.blocked:
            self.say_verdict(list(self.exchanges_of(identity)), True)
            self._agreed(request, peer)
            self.tell(request)

    # --- both -------------------------------------------------------------------------------------------

    def _agreed(self, request: Request, peer: Peer) -> None:
        """The person here has said yes: what flows depends on the other one. Raises StorageFull."""
        self.merge_places(peer)
        status = self.links.status(peer.number)
        if request.theirs != ACCEPTED:
            status.hold = hold_there(peer, request.theirs or "pending")
            return
        status.hold = FLOWS
        self.requests.drop(request.identity)
        open_ones = list(self.exchanges_of(request.identity))
        for exchange in open_ones:
            del self.exchanges[exchange.channel.fd]  # its worker ends by itself, with both verdicts said
        self.links.on_change(self.links.known(peer))
        if request.is_ours or not open_ones:
            self.links.wants_dial(peer, eager=True)

    def merge_places(self, peer: Peer) -> None:
        """What waits for other addresses at which this peer answers waits for it. Raises StorageFull."""
        for place in self.places_of(peer.identity):
            self.pinning.merge(place, peer)
