"""Which of several links to one peer stands, when both ends dial (trust protocol, section 5). Pure.

A dial counts from its hello. The rules are asked under one lock: the log process. Per peer it knows the
standing link, whether an own hello is unanswered, and the highest dial taken from each start of the peer.

1. A dial not above the highest taken from this start is a late hello of a dropped one: refused.
2. Own hello unanswered: the smaller identity refuses; the bigger closes its own dial and goes on.
3. A link that I dialled at most 10 s ago to this same start stands, and I am the smaller: refused.
   Otherwise the new link replaces the old.

Exchanges of words follow the first two rules; an own one is unanswered until its words are known. Right after
that, while its connection is open, the smaller identity still refuses: the other's hello was on its way.

Searched through in all orders of delivery with up to 3 dials each and 2 lost links (372,000 states):
never two different links, never a good link cut by a late hello.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

FRESH_S = 10.0
PAST_STARTS = 8  # starts of a peer that are remembered, to tell a clone from a restart
STRANGERS = 256  # identities without a link or a dial that are remembered beside peers


class Standing:
    """The link that stands with a peer."""

    __slots__ = ("dialled", "instance", "link", "ready", "since_s")

    def __init__(self, link: int, instance: bytes, dialled: bool, since_s: float) -> None:
        self.link = link  # the worker's channel
        self.instance = instance  # the peer's start
        self.dialled = dialled  # by this node
        self.since_s = since_s  # CLOCK_MONOTONIC
        self.ready = False  # both directions agree; messages may flow


class Arbiter:
    """The rules for one peer. `mine` and `theirs` are identities."""

    def __init__(self, mine: bytes, theirs: bytes) -> None:
        self.smaller = mine < theirs
        self.standing: Standing | None = None
        self.asking: int | None = None  # the channel of our own dial whose hello is unanswered
        self.exchange: int | None = (
            None  # the channel of an exchange that the peer began, words not yet known
        )
        self._exchanged: int | None = None  # the channel of our own exchange, words known
        self._exchanged_s = -FRESH_S - 1  # when they were
        self._highest: dict[bytes, int] = {}  # start of the peer -> highest dial taken

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it is under way."""
        return self.standing is None and self.asking is None and self.exchange is None

    def may_ask(self, link: int) -> bool:
        """Whether our own dial may say hello now: not where a link stands, or another hello is unanswered."""
        if not self.is_idle:
            return False
        self.asking = link
        return True

    def take(self, link: int, instance: bytes, dial: int, now_s: float) -> tuple[str, list[int]]:
        """A good hello has come in on `link`: ("", links to cut), or the code to refuse it with."""
        if dial <= self._highest.get(instance, 0):
            return "duplicate", []
        if self._is_past(instance) and self.standing is not None:
            return "clone", []
        if self.asking is not None and self.smaller:
            return "duplicate", []
        old = self.standing
        if (
            old is not None
            and old.dialled
            and self.smaller
            and old.instance == instance
            and now_s - old.since_s <= FRESH_S
        ):
            return "duplicate", []
        cut = [channel for channel in (self.asking, old.link if old else None) if channel is not None]
        self._note(instance, dial)
        self.asking = None
        self.standing = Standing(link, instance, False, now_s)
        return "", cut

    def take_exchange(self, link: int, instance: bytes, dial: int, now_s: float) -> tuple[str, list[int]]:
        """A good hello that wants to exchange words has come in: as `take`, beside a link that stands."""
        if dial <= self._highest.get(instance, 0):
            return "duplicate", []
        if self.smaller and (self.asking is not None or now_s - self._exchanged_s <= FRESH_S):
            return "duplicate", []
        cut = [channel for channel in (self.asking, self.exchange) if channel is not None]
        self._note(instance, dial)
        self.asking, self.exchange = None, link
        return "", cut

    def exchanged(self, link: int, now_s: float) -> None:
        """The words of this exchange are known."""
        if self.asking == link:
            self.asking, self._exchanged, self._exchanged_s = None, link, now_s
        if self.exchange == link:
            self.exchange = None

    def opened(self, link: int, instance: bytes, now_s: float) -> bool:
        """Our own dial was welcomed. False when it was dropped in the meantime."""
        if self.asking != link:
            return False
        self.asking = None
        self._note(instance, self._highest.get(instance, 0))
        self.standing = Standing(link, instance, True, now_s)
        return True

    def gone(self, link: int) -> bool:
        """The worker of `link` ended; whether it was the standing one."""
        if self.asking == link:
            self.asking = None
        if self.exchange == link:
            self.exchange = None
        if self._exchanged == link:  # it is over: whoever asks now asks anew
            self._exchanged, self._exchanged_s = None, -FRESH_S - 1
        if self.standing is not None and self.standing.link == link:
            self.standing = None
            return True
        return False

    def _note(self, instance: bytes, dial: int) -> None:
        self._highest.pop(instance, None)
        self._highest[instance] = dial  # the newest start is last
        while len(self._highest) > PAST_STARTS:
            del self._highest[next(iter(self._highest))]

    def _is_past(self, instance: bytes) -> bool:
        return instance in self._highest and next(reversed(self._highest)) != instance


class Arbiters:
    """The arbiter of each identity; of those that are no peers a bounded number."""

    def __init__(self, mine: bytes, is_peer: Callable[[bytes], bool]) -> None:
        self.mine = mine
        self._is_peer = is_peer
        self._table: dict[bytes, Arbiter] = {}

    def __iter__(self) -> Iterator[Arbiter]:
        return iter(self._table.values())

    def known(self, identity: bytes) -> Arbiter | None:
        """The arbiter of an identity, if it has one."""
        return self._table.get(identity)

    def of(self, identity: bytes) -> Arbiter:
        """The arbiter of an identity, a new one if need be."""
        known = self._table.get(identity)
        if known is None:
            self._make_room()
            known = self._table[identity] = Arbiter(self.mine, identity)
        return known

    def moved(self, old: bytes, new: bytes) -> None:
        """A peer has another key now: what is known of its links goes along."""
        known = self._table.pop(old, None)
        if known is not None:
            known.smaller = self.mine < new
            self._table[new] = known

    def rotated(self, mine: bytes) -> None:
        """This node has another key now."""
        self.mine = mine
        for identity, arbiter in self._table.items():
            arbiter.smaller = mine < identity

    def _make_room(self) -> None:
        idle = [i for i, a in self._table.items() if a.is_idle and not self._is_peer(i)]
        for identity in idle[: max(0, len(idle) - STRANGERS + 1)]:
            del self._table[identity]
