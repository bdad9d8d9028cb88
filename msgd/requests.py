"""Requests to become a peer, and how many exchanges of words there may be. Pure: memory and CLOCK_BOOTTIME.

| limit | |
|---|---|
| requests | 16, one per identity: a newer exchange replaces it; each waits 10 min for a person |
| exchanges that others begin | 5 per identity, 3 per source, 30 in all, within 10 min |
| a rejected identity | is not heard for 1 h |

Every table here is bounded by these numbers, whoever knocks. An own request always finds room: the oldest one
of others goes for it.
"""

from collections import deque
from collections.abc import Iterator

import msgspec

SECOND_NS = 1_000_000_000
REQUESTS = 16
REQUEST_NS = 600 * SECOND_NS
WINDOW_NS = 600 * SECOND_NS
PER_IDENTITY = 5
PER_SOURCE = 3
IN_ALL = 30
REJECTED_NS = 3600 * SECOND_NS
REJECTIONS = 256  # each one is a person's act

ACCEPTED = "accepted"
REJECTED = "rejected"


class Request(msgspec.Struct):
    """One identity that asks, or is asked, to become a peer."""

    identity: bytes
    name: str  # that it proposes
    address: str
    words: list[str]
    transcript: bytes  # SHA-256 of T
    is_ours: bool  # this node has asked
    filed_ns: int  # CLOCK_BOOTTIME
    peer: int = 0  # number of the peer or address that it is about, 0 none yet
    rekey: bool = False  # accepting replaces the key of `peer`
    theirs: str = ""  # what the person there has said

    @property
    def expires_ns(self) -> int:
        return self.filed_ns + REQUEST_NS

    @property
    def phrase(self) -> str:
        """The words as one text."""
        return " ".join(self.words)


class RequestTable:
    """The requests that wait, by identity, oldest first."""

    def __init__(self) -> None:
        self._table: dict[bytes, Request] = {}

    def __iter__(self) -> Iterator[Request]:
        return iter(self._table.values())

    def __len__(self) -> int:
        return len(self._table)

    def get(self, identity: bytes) -> Request | None:
        """The request of an identity."""
        return self._table.get(identity)

    def of_peer(self, number: int) -> Request | None:
        """The newest request about a peer or address."""
        return next((r for r in reversed(self._table.values()) if r.peer == number), None)

    def has_room(self, identity: bytes) -> bool:
        """Whether somebody else's request may be filed."""
        return identity in self._table or len(self._table) < REQUESTS

    def file(self, request: Request) -> Request | None:
        """Keep a request in place of an earlier one of its identity; who had to make room for it."""
        self._table.pop(request.identity, None)
        gone = None
        if len(self._table) >= REQUESTS:
            gone = next((r for r in self if not r.is_ours), next(iter(self)))
            del self._table[gone.identity]
        self._table[request.identity] = request
        return gone

    def drop(self, identity: bytes) -> Request | None:
        """The request is over."""
        return self._table.pop(identity, None)

    def take_expired(self, now_ns: int) -> list[Request]:
        """Those for which no person came in time; they are gone from here."""
        gone = [r for r in self if r.expires_ns <= now_ns]
        for request in gone:
            del self._table[request.identity]
        return gone

    def next_expiry_ns(self) -> int:
        """When the oldest one expires (CLOCK_BOOTTIME), 0 if there is none."""
        return min((r.expires_ns for r in self), default=0)


class ExchangeLimits:
    """Who began an exchange of words with us within the window."""

    def __init__(self) -> None:
        self._begun: deque[tuple[int, bytes, str]] = deque()  # at most IN_ALL

    def retry_s(self, identity: bytes, source: str, now_ns: int) -> int:
        """Seconds until this one may begin another exchange, 0 if now."""
        while self._begun and self._begun[0][0] + WINDOW_NS <= now_ns:
            self._begun.popleft()
        by_identity = [at for at, who, _ in self._begun if who == identity]
        by_source = [at for at, _, where in self._begun if where == source]
        in_all = [at for at, _, _ in self._begun]
        waits = (
            _wait_ns(by_identity, PER_IDENTITY, now_ns),
            _wait_ns(by_source, PER_SOURCE, now_ns),
            _wait_ns(in_all, IN_ALL, now_ns),
        )
        return -(-max(waits) // SECOND_NS)

    def note(self, identity: bytes, source: str, now_ns: int) -> None:
        """An exchange begins."""
        self._begun.append((now_ns, identity, source))


def _wait_ns(begun: list[int], limit: int, now_ns: int) -> int:
    return begun[-limit] + WINDOW_NS - now_ns if len(begun) >= limit else 0


class Rejections:
    """Identities that a person here has said no to, within the hour."""

    def __init__(self) -> None:
        self._at_ns: dict[bytes, int] = {}

    def note(self, identity: bytes, now_ns: int) -> None:
        """A person said no."""
        self._at_ns.pop(identity, None)
        self._at_ns[identity] = now_ns
        while len(self._at_ns) > REJECTIONS:
            del self._at_ns[next(iter(self._at_ns))]

    def forget(self, identity: bytes) -> None:
        """A person here asks it by himself."""
        self._at_ns.pop(identity, None)

    def holds(self, identity: bytes, now_ns: int) -> bool:
        """Whether the no still stands."""
        at_ns = self._at_ns.get(identity)
        return at_ns is not None and now_ns < at_ns + REJECTED_NS
