"""Exchanges of words that are open, requests that wait for a person, and how both end.

An exchange runs in its worker. Once its words are known it is a request, which waits for a person here while
the worker waits for both verdicts. All of it is memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from msgd.books import Books
from msgd.channel import Channel
from msgd.linking import Linking
from msgd.requests import Rejections, Request, RequestTable
from msgd.standing import Peer
from msgd.trust.identity import identity_text
from msgd.wire.ledger import Cut
from msgd.wire.trust import OurVerdict


@dataclass(slots=True)
class Exchange:
    """One connection that compares words."""

    channel: Channel
    identity: bytes
    peer: int  # number, 0 none yet
    is_ours: bool
    user: str = ""  # whose act it is
    rekey: bool = False
    is_known: bool = False  # its words are


class Meetings:
    """Who is being met."""

    def __init__(self, books: Books, links: Linking) -> None:
        self.books = books
        self.links = links
        self.requests = RequestTable()
        self.rejections = Rejections()
        self.exchanges: dict[int, Exchange] = {}  # by the channel's fd
        self._answered: dict[int, bytes] = {}  # who did so last, by the number of an address never paired
        links.is_pairing = lambda peer: any(True for _ in self.exchanges_of(peer.identity))

    # --- questions --------------------------------------------------------------------------------------

    def request_of(self, identity: bytes) -> Request | None:
        """The request of this identity that waits."""
        self.expire()
        return self.requests.get(identity)

    def is_rejected(self, identity: bytes) -> bool:
        """Whether a person here said no to it within the hour."""
        return self.rejections.holds(identity, self.books.clock.boot_ns())

    def accepted(self, identity: bytes) -> Peer | None:
        """The peer that this identity is already."""
        return self.books.delivery.find(identity)

    def exchanges_of(self, identity: bytes) -> Iterator[Exchange]:
        """Its connections, at most one of each side."""
        return (e for e in self.exchanges.values() if e.identity == identity)

    def request_about(self, number: int) -> Request | None:
        """The newest request about a peer or address; several addresses may be those of one node."""
        return self.requests.of_peer(number) or self.requests.get(self._answered.get(number, b""))

    def note_answered(self, place: Peer, identity: bytes) -> None:
        """Who answers at an address that was never paired."""
        live = {p.number for p in self.books.delivery.unpinned()}
        kept = {number: who for number, who in self._answered.items() if number in live}
        self._answered = kept | {place.number: identity}

    def places_of(self, identity: bytes) -> list[Peer]:
        """The addresses never paired at which this identity has answered."""
        unpinned = self.books.delivery.unpinned()
        return [p for p in unpinned if self._answered.get(p.number) == identity]

    # --- ends -------------------------------------------------------------------------------------------

    def drop(self, identity: bytes, reason: str) -> None:
        """Whatever is under way with this identity is over: it was blocked, is linked, or asks anew."""
        request = self.requests.drop(identity)
        for exchange in list(self.exchanges_of(identity)):
            self.end(exchange, reason)
        if request is not None:
            self.tell(request)

    def drop_all(self, reason: str) -> None:
        """Every request and exchange is over."""
        for identity in {r.identity for r in self.requests} | {e.identity for e in self.exchanges.values()}:
            self.drop(identity, reason)

    def expire(self) -> None:
        """End the requests for which no person came in time."""
        for request in self.requests.take_expired(self.books.clock.boot_ns()):
            self.books.event("pair.expired", **told(request))
            self.left_out(request, "no person came in time")

    def next_expiry_ns(self) -> int:
        """When `expire` has something to do (CLOCK_BOOTTIME), 0 if nothing waits."""
        return self.requests.next_expiry_ns()

    def left_out(self, request: Request, reason: str) -> None:
        """A request left the table without a decision."""
        for exchange in list(self.exchanges_of(request.identity)):
            if exchange.is_known:
                self.end(exchange, reason)
        self.tell(request)

    def end(self, exchange: Exchange, reason: str) -> None:
        """Close its connection."""
        self.exchanges.pop(exchange.channel.fd, None)
        exchange.channel.say(Cut(reason))
        self._changed(exchange)

    def gone(self, channel: Channel) -> None:
        """The worker of an exchange ended."""
        exchange = self.exchanges.pop(channel.fd, None)
        if exchange is not None:
            self._changed(exchange)
            self.books.tell_watchers(exchange.peer)

    def _changed(self, exchange: Exchange) -> None:
        peer = self.accepted(exchange.identity)
        if peer is not None:  # it may be dialled again
            self.links.on_change(self.links.known(peer))

    # --- what is said -----------------------------------------------------------------------------------

    def say_verdict(self, listeners: Iterable[Exchange], accept: bool) -> None:
        """After the commit: the other side hears what the person here has decided."""
        for exchange in listeners:
            if exchange.is_known:
                self.books.promise(exchange.channel, OurVerdict(accept))

    def tell(self, request: Request) -> None:
        """Whoever waits for news of this request looks again."""
        peer = self.accepted(request.identity)
        places = {p.number for p in self.places_of(request.identity)}
        for number in places | {request.peer, peer.number if peer is not None else 0} - {0}:
            self.books.tell_watchers(number)


def told(request: Request) -> dict[str, str]:
    """What every event about a request tells."""
    return {
        "node": request.name,
        "address": request.address,
        "identity": identity_text(request.identity),
        "words": request.phrase,
    }
