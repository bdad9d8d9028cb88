"""Penalties for sources that misbehave before they have said who they are. Pure: time is given.

Each misdeed adds seconds to its source's penalty, up to a maximum; they pass as time does. A source whose
penalty has risen above 15 s is closed at accept until all of it has passed. A worker says with its exit code
what it met (`EXITS`). After OpenSSH's PerSourcePenalties, with smaller figures.
"""

from typing import NamedTuple

ENFORCED_ABOVE_S = 15.0  # OpenSSH's `min`: a few misdeeds are forgiven
MOST_S = 600.0  # OpenSSH's `max`
SOURCES = 4096
DROPPED = 256  # at once, when the table is full: sorting it costs 1 ms

NOT_TLS = -1  # the first bytes, seen by the supervisor; no exit code
UNFINISHED = 40
UNWANTED = 41
GARBAGE = 42
WRONG_PROOF = 43
WRONG_INVITATION = 44
CRASH = -2  # any other end of a worker before it knew with whom it spoke; no exit code


class Misdeed(NamedTuple):
    """What it costs, and what people are told."""

    seconds: float
    reason: str


MISDEEDS = {
    NOT_TLS: Misdeed(5.0, "does not speak TLS"),
    UNFINISHED: Misdeed(1.0, "does not finish its handshakes"),
    UNWANTED: Misdeed(1.0, "is not paired and dials again and again"),
    GARBAGE: Misdeed(5.0, "does not keep to the protocol"),
    WRONG_PROOF: Misdeed(5.0, "sends wrong proofs"),
    WRONG_INVITATION: Misdeed(5.0, "guesses invitations"),
    CRASH: Misdeed(90.0, "made a worker crash"),
}

EXITS = frozenset((UNFINISHED, UNWANTED, GARBAGE, WRONG_PROOF, WRONG_INVITATION))  # ordinary ends of a worker


class Entry:
    """What one source has to serve."""

    __slots__ = ("is_closed", "until_s")

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.is_closed = False


class Penalties:
    """The sources that have misbehaved lately; at most `SOURCES`."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def add(self, source: str, misdeed: int, now_s: float) -> bool:
        """This source did that, a key of `MISDEEDS`; whether it is closed from now on, and was not before."""
        entry = self.entries.get(source)
        if entry is None:
            if len(self.entries) >= SOURCES:
                self._make_room(now_s)
            entry = self.entries[source] = Entry(now_s)
        elif entry.until_s <= now_s:
            entry.until_s, entry.is_closed = now_s, False
        entry.until_s = min(entry.until_s + MISDEEDS[misdeed].seconds, now_s + MOST_S)
        begins = not entry.is_closed and entry.until_s - now_s > ENFORCED_ABOVE_S
        entry.is_closed = entry.is_closed or begins
        return begins

    def left_s(self, source: str, now_s: float) -> float:
        """For how long nothing is accepted from this source; 0 when it may come in."""
        entry = self.entries.get(source)
        if entry is None:
            return 0.0
        if entry.until_s <= now_s:
            del self.entries[source]
            return 0.0
        return entry.until_s - now_s if entry.is_closed else 0.0

    def _make_room(self, now_s: float) -> None:
        """Those go whose penalty has passed, then those with the least left."""
        kept = [source for source, entry in self.entries.items() if entry.until_s > now_s]
        kept.sort(key=lambda source: self.entries[source].until_s, reverse=True)
        self.entries = {source: self.entries[source] for source in kept[: SOURCES - DROPPED]}
