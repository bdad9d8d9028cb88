"""Becoming peers by comparing words: a person's act, the exchange that follows, the request that comes of it.

An act of a person here allows one exchange that this node begins: it is used up when the exchange is, and
counts again only when the other side had no time for it. Others may begin as many as `requests` allows. What
the persons then say is `deciding`'s. After a start what waits for an address asks again by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

from msgd.books import Books
from msgd.channel import Channel
from msgd.deciding import Deciding
from msgd.errors import UsageError
from msgd.linking import Linking
from msgd.meetings import Exchange, told
from msgd.pinning import Pinning
from msgd.requests import REJECTED, ExchangeLimits, Request
from msgd.standing import Peer
from msgd.trust.identity import identity_text
from msgd.wire.frame import Frame
from msgd.wire.ledger import Cut, DialFailed, Done, MayDial, Refused, TakeHello
from msgd.wire.ledger import Denied as No
from msgd.wire.trust import (
    Act,
    Admitted,
    FileRequest,
    MayPair,
    OurVerdict,
    RequestList,
    Requests,
    RequestState,
)

AGAIN = ("duplicate", "limit", "closing")  # refusals after which an act still counts
TELL_LIMIT_NS = 60_000_000_000  # between two events about exchanges that were refused
SECOND_NS = 1_000_000_000


@dataclass(slots=True)
class Wish:
    """A person's act, until an exchange comes of it."""

    user: str
    rekey: bool
    of_peer: bool  # it was a peer then: a wish for an address ends when it becomes one


class Pairing(Deciding):
    """Acts, exchanges and requests."""

    def __init__(self, books: Books, links: Linking, pinning: Pinning, say: Callable[[Frame], None]) -> None:
        super().__init__(books, links, pinning)
        self.say = say  # to the supervisor
        self.trust = "confirm"  # [pairing] trust
        self.limits = ExchangeLimits()
        self._wishes: dict[int, Wish] = {}  # by the number of the peer or address
        self._granted: dict[int, Wish] = {}  # those that an exchange came of whose words are not known yet
        self._limit_told_ns = -TELL_LIMIT_NS
        links.may_pair = lambda peer: self._wish(peer) is not None

    def start(self) -> None:
        """What waits for an address since before this start asks who answers there."""
        for peer in self.books.delivery.unpinned():
            if peer.out.waiting and not peer.blocked and self.trust != "known-only":
                self._wishes[peer.number] = Wish("", False, False)

    # --- acts -------------------------------------------------------------------------------------------

    def hear_act(self, channel: Channel, frame: Act) -> None:
        """A person wants to be paired with a peer or address. Answered at once; the exchange follows."""
        peer = self.books.delivery.peers.get(frame.peer)
        if peer is None or peer.removed or peer.into:
            channel.say(
                Refused(frame.token, "UnknownPeer", "It is no peer any more.", "See `msgctl peer ls`.")
            )
        elif peer.blocked:
            text = f"{peer.name} is blocked here."
            channel.say(Refused(frame.token, "NotTrusted", text, f"msgctl peer unblock {peer.name}"))
        elif self.trust == "known-only":
            text = "This node compares words with nobody: [pairing] trust is known-only."
            hint = "Use `msgctl pair invite`, or `msgctl peer add NAME ADDRESS --key IDENTITY` on both nodes."
            channel.say(Refused(frame.token, "NotTrusted", text, hint))
        else:
            channel.say(Done(frame.token, self.act(peer, frame.user, frame.rekey), peer.number))

    def act(self, peer: Peer, user: str, rekey: bool = False) -> bool:
        """One exchange with this peer or address may follow; False where none is needed or allowed."""
        if self.trust == "known-only" or self.links.is_connected(peer.number):
            return False
        self.expire()
        asked = self.request_about(peer.number)
        if asked is not None and asked.theirs != REJECTED and asked.rekey == rekey:
            return False  # the words are on both screens
        if asked is not None:
            self.drop(asked.identity, "a person asks anew")
        self._wishes[peer.number] = Wish(user, rekey, peer.pinned)
        self.links.on_change(self.links.known(peer))
        self.links.wants_dial(peer, eager=True)
        return True

    def dial_failed(self, frame: DialFailed) -> None:
        """A dial of ours ended: some refusals do not use up the act, one says that the request is over."""
        wish, peer = self._granted.pop(frame.peer, None), self.books.delivery.peers.get(frame.peer)
        if frame.code == "unpaired" and peer is not None and peer.pinned:
            self._gone_there(peer)
        if wish is not None and frame.code in AGAIN and peer is not None and not (peer.removed or peer.into):
            self._wishes.setdefault(frame.peer, wish)
            self.links.on_change(self.links.known(peer))

    def _gone_there(self, peer: Peer) -> None:
        """It knows of no request: nobody there decided in time, or its msgd was restarted."""
        asked = self.requests.get(peer.identity)
        if asked is not None and not asked.theirs and not any(True for _ in self.exchanges_of(peer.identity)):
            self.drop(peer.identity, "it is over there")

    def forget(self, peer: Peer) -> None:
        """A person blocked or removed it."""
        self._wishes.pop(peer.number, None)
        self._granted.pop(peer.number, None)
        self.drop(peer.identity, "it is no peer any more")

    def link_stands(self, peer: Peer) -> None:
        """Both sides know each other, as a link shows. Raises StorageFull."""
        self._wishes.pop(peer.number, None)
        self.merge_places(peer)
        if self.requests.get(peer.identity) is not None:
            self.drop(peer.identity, "a link stands")

    # --- our exchanges ----------------------------------------------------------------------------------

    def may_dial(self, channel: Channel, frame: MayDial, peer: Peer) -> No | None:
        """Whether a worker may begin the exchange that a person allowed. Raises StorageFull."""
        wish, found = self._wish(peer), frame.identity
        if wish is None:
            return No(frame.token, "duplicate")
        if not peer.pinned:
            self.note_answered(peer, found)
        refusal = self._who_answers(frame, peer, wish)
        if refusal is not None:
            return refusal
        asked = self.request_of(found)
        if asked is not None:
            if wish.rekey or not asked.peer:
                asked.peer, asked.rekey = peer.number, wish.rekey
            self._wish_is_met(peer)
            return No(frame.token, "duplicate", "its words are known")
        if not self.links.arbiters.of(found).may_ask(channel.fd):
            return No(frame.token, "duplicate")
        self._granted[peer.number] = self._wishes.pop(peer.number)
        channel.peer, channel.identity = peer.number, found
        self.exchanges[channel.fd] = Exchange(channel, found, peer.number, True, wish.user, wish.rekey)
        self.links.on_change(self.links.known(peer))
        return None

    def _who_answers(self, frame: MayDial, peer: Peer, wish: Wish) -> No | None:
        """Why no words are needed with who answers at a peer's address, or none are exchanged."""
        delivery, found = self.books.delivery, frame.identity
        owner, former = delivery.find(found), delivery.by_retired.get(found)
        if owner is None and former is not None and not (wish.rekey and former is peer):
            self._wish_is_met(peer)
            return No(frame.token, "retired", f"{former.name} has replaced this key")
        if owner is None:
            return No(frame.token, "key-changed") if peer.pinned and not wish.rekey else None
        if owner.blocked:
            self._wish_is_met(peer)
            return No(frame.token, "blocked", f"{owner.name} is blocked here")
        if owner is peer and not wish.rekey:
            return None  # it may have forgotten us
        if owner.joining is not None:
            return No(frame.token, "duplicate", "its invitation is being redeemed")
        self._wish_is_met(peer)
        if owner is peer:
            self.pinning.note_returned(peer)
        elif not peer.pinned:
            self.pinning.merge(peer, owner)
        return No(frame.token, "known", owner.name)

    def _wish(self, peer: Peer) -> Wish | None:
        wish = self._wishes.get(peer.number)
        return wish if wish is not None and wish.of_peer == peer.pinned else None

    def _wish_is_met(self, peer: Peer) -> None:
        del self._wishes[peer.number]
        self.links.on_change(self.links.known(peer))
        self.books.tell_watchers(peer.number)

    # --- exchanges that others begin --------------------------------------------------------------------

    def take_hello(self, channel: Channel, frame: TakeHello, source: str) -> No | None:
        """Whether somebody may begin an exchange. `source`: what counts as one source of connections."""
        now_ns, identity = self.books.clock.boot_ns(), frame.identity
        peer = self.accepted(identity)
        if peer is None and self.trust == "known-only":
            return No(frame.token, "off")
        if self.is_rejected(identity):
            return No(frame.token, "rejected")
        self.expire()
        wait_s = self.limits.retry_s(identity, source, now_ns)
        if not self.requests.has_room(identity):
            wait_s = max(wait_s, 1, -(-(self.requests.next_expiry_ns() - now_ns) // SECOND_NS))
        if wait_s:
            self._tell_limit(frame, source, wait_s)
            return No(frame.token, "limit", retry_s=wait_s)
        now_s = self.books.clock.mono_ns() / 1e9
        code, cut = self.links.arbiters.of(identity).take_exchange(
            channel.fd, frame.instance, frame.dial, now_s
        )
        if code:
            return No(frame.token, code)
        self.limits.note(identity, source, now_ns)
        for fd in cut:
            self.exchanges.pop(fd, None)
            if fd in self.links.channels:
                self.links.channels[fd].say(Cut("replaced by a newer exchange"))
        number = peer.number if peer is not None else 0
        channel.peer, channel.identity = number, identity
        self.exchanges[channel.fd] = Exchange(channel, identity, number, False)
        self.books.promise(
            channel, MayPair(frame.token, peer is not None, number), No(frame.token, "closing")
        )
        return None

    def _tell_limit(self, frame: TakeHello, source: str, wait_s: int) -> None:
        """Told once in a while: whoever floods us writes no journal."""
        now_ns = self.books.clock.boot_ns()
        if now_ns - self._limit_told_ns >= TELL_LIMIT_NS:
            self._limit_told_ns = now_ns
            who = identity_text(frame.identity)
            self.books.event("pair.limited", source=source, node=frame.name, identity=who, seconds=wait_s)

    # --- requests ---------------------------------------------------------------------------------------

    def file(self, channel: Channel, frame: FileRequest) -> None:
        """The words of an exchange are known: a request waits from now on. Raises StorageFull."""
        exchange = self.exchanges.get(channel.fd)
        if exchange is None or exchange.identity != frame.identity:
            channel.say(No(frame.token, "duplicate"))
            return
        if not exchange.is_ours and not self.requests.has_room(frame.identity):
            channel.say(No(frame.token, "limit"))
            return
        exchange.is_known = True
        self.links.arbiters.of(frame.identity).exchanged(channel.fd, self.books.clock.mono_ns() / 1e9)
        for other in list(self.exchanges_of(frame.identity)):
            if other is not exchange:
                self.end(other, "replaced by a newer exchange")
        request = self._file(exchange, frame)
        self.books.promise(channel, Done(frame.token), No(frame.token, "closing"))
        if not exchange.is_ours:
            self.say(Admitted(channel.pid, "pair"))
        elif self._is_yes(exchange, request):
            self.books.promise(channel, OurVerdict(True))
        self.tell(request)

    def _file(self, exchange: Exchange, frame: FileRequest) -> Request:
        """The request, in place of an earlier one of the same identity: it is about the same peer."""
        earlier = self.requests.get(frame.identity)
        waiting = (p.number for p in self.books.delivery.unpinned() if p.address == frame.address)
        request = Request(
            frame.identity,
            frame.name,
            frame.address,
            frame.words,
            frame.transcript,
            exchange.is_ours,
            self.books.clock.boot_ns(),
            exchange.peer or (earlier.peer if earlier is not None else 0) or next(waiting, 0),
            exchange.rekey or (earlier is not None and earlier.rekey),
        )
        if exchange.is_ours:
            self._granted.pop(exchange.peer, None)
            self.rejections.forget(frame.identity)
        displaced = self.requests.file(request)
        if displaced is not None:
            self.left_out(displaced, "another request took its place")
        self.books.event("pair.requested", **told(request), is_ours=request.is_ours)
        return request

    def _is_yes(self, exchange: Exchange, request: Request) -> bool:
        """Whether no person here needs to be asked about an exchange of ours."""
        if self.accepted(request.identity) is not None:
            return True
        if self.trust != "first-use" or request.rekey:
            return False
        try:
            self.pin(request, self.pinning.unique_name(request.name), exchange.user, "first-use")
        except UsageError:  # this node itself, blocked or replaced: a person looks at it
            return False
        return True

    def list_requests(self, channel: Channel, frame: Requests) -> None:
        """The requests that wait, oldest first."""
        self.expire()
        channel.say(RequestList(frame.token, [self._state(r) for r in self.requests]))

    def _state(self, request: Request) -> RequestState:
        peer = self.accepted(request.identity)
        named = next((p for p in self.books.delivery.live() if p.name == request.name), None)
        is_other = named is not None and named.identity != request.identity
        return RequestState(
            request.identity,
            request.name,
            request.address,
            request.words,
            request.is_ours,
            request.filed_ns,
            request.expires_ns,
            peer.number if peer is not None else request.peer,
            request.name if is_other else "",
            request.rekey,
            request.theirs,
            [place.number for place in self.places_of(request.identity)],
        )
