"""Whether two nodes hold the same of each other: both compute digests from the bytes on disk, one compares.

Windows first (`peer.service`), then, where two differ, their batches, then the messages of the first batch
that differs. Traffic goes on meanwhile, so for each direction the order of looking matters: what the sender
knows to be receipted is asked before the receiver's log is read, and the sender's log is read after it. So
whatever the receiver must hold is seen there, and whatever it holds is known to the sender. A peer reads its
log with every question; this node's is read before the question about what is received here, and once the
answer has begun about what is sent from here.

The peer may lie, and talk without end. What it says of windows, batches and messages must go on upwards and
stay within what was asked, else it is not taken; so an answer comes to an end, and nothing of it is gathered
but one window's batches.

What is missing on one side is no difference where the reason is known: it is not receipted yet; its number
was given up when a new epoch began; one side has lost it, as an epoch or its shorter log tells; or does not
keep it any more. That may begin while both are compared, so for what is missing without a reason both say
once more what they hold.
"""

from collections.abc import Callable, Iterator
from itertools import chain as joined
from typing import NamedTuple

import msgspec

from msgd import spans
from msgd.log.errors import Damaged
from msgd.model import IN, OUT
from msgd.peer.errors import RemoteProtocolError
from msgd.peer.frames import other
from msgd.peer.service import (
    BATCHES_OF,
    MARKS_OF,
    MESSAGES_OF,
    OUTLINE,
    PLACES,
    WINDOW,
    Ask,
    Batches,
    Broken,
    End,
    Entry,
    Frame,
    Mark,
    Marks,
    Messages,
    Outline,
    Progress,
)
from msgd.spans import Span
from msgd.talking import Talk, TalkEnded
from msgd.track import Track
from msgd.tracks import Pair, digests

SUSPECTS = 256  # windows that are looked into before the rest is compared
BROKEN_PLACES = 1000  # of the peer's log that are told
HERE, THERE = "here", "there"

OnProgress = Callable[[int, int], None]


class Difference(NamedTuple):
    """The first message of a direction that is not the same on both nodes; empty ids: it is not there."""

    direction: int
    seq: int
    ours: str
    theirs: str
    why: str


class Known(NamedTuple):
    """Seqs that one side does not hold, for a known reason: `lost`, `gone` or `pending`."""

    direction: int
    missing: str  # HERE or THERE
    why: str
    spans: list[Span]


class ServiceFailed(Exception):
    """The peer cannot answer. Says why."""


class Questions:
    """Questions to the peer, and what of its log is damaged. `check_client` raises once nobody waits."""

    def __init__(self, talk: Talk, on_progress: OnProgress, check_client: Callable[[], None]) -> None:
        self.broken: list[Broken] = []
        self._talk = talk
        self._on_progress = on_progress
        self._check_client = check_client
        self._number = 0

    def ask(self, what: str, direction: int, first: int = 0, last: int = 0) -> Iterator[Frame]:
        """Ask about a direction as this node calls it; what comes before the end, but signs of life.

        Raises ServiceFailed, TalkEnded, RemoteProtocolError, and as `check_client`.
        """
        self._number += 1
        self._talk.say(Ask(self._number, what, other(direction), first, last))
        while True:
            frame = self._talk.hear()
            if frame is None:
                raise TalkEnded("it closed the connection")
            self._check_client()
            if isinstance(frame, Progress):
                self._on_progress(direction, frame.seq)
            elif isinstance(frame, Broken):
                self._note(frame)
            elif not isinstance(frame, End):
                yield frame
            elif frame.number == self._number:
                if frame.code == "unknown":
                    raise ServiceFailed(f"its msgd cannot do that: {frame.detail}")
                return

    def outline(self, direction: int) -> Outline:
        """What the peer holds of a direction."""
        found = None
        for frame in self.ask(OUTLINE, direction):
            if isinstance(frame, Outline):
                found = frame
        if found is None:
            raise ServiceFailed("it did not say what it holds")
        return found

    def _note(self, broken: Broken) -> None:
        if len(self.broken) < BROKEN_PLACES and broken not in self.broken:
            self.broken.append(broken)


class Comparing:
    """The comparison of both directions."""

    def __init__(self, pair: Pair, questions: Questions, on_progress: OnProgress) -> None:
        self.pair = pair
        self.questions = questions
        self.differences: list[Difference] = []
        self.known: dict[tuple[int, str, str], list[Span]] = {}
        self.compared = {OUT: 0, IN: 0}  # messages found the same
        self._on_progress = on_progress

    def run(self) -> None:
        """Compare both. Raises as `Questions.ask`."""
        for direction in (OUT, IN):
            self._compare(direction)

    def reasons(self) -> list[Known]:
        """What is missing somewhere without being a difference."""
        return [Known(*key, found) for key, found in self.known.items()]

    def _compare(self, direction: int) -> None:
        sides = self._sides(direction)
        first = 0
        while True:
            suspects = self._suspects(sides, first)
            for window in suspects:
                if self._look_into(sides, window):
                    return
            if len(suspects) < SUSPECTS:
                return
            first = (suspects[-1] + 1) * WINDOW

    def _sides(self, direction: int) -> "_Sides":
        self.pair.advance()
        ours = self.pair.tracks[direction].outline()
        return _Sides(direction, ours, self.questions.outline(direction))

    # --- windows ----------------------------------------------------------------------------------------

    def _suspects(self, sides: "_Sides", first: int) -> list[int]:
        """The first windows from seq `first` on that are not the same, and not all missing for one reason."""
        found: list[int] = []
        theirs = self._their_marks(sides.direction, first)
        if sides.direction == OUT:
            theirs = joined([next(theirs, None)], theirs)  # its log is read as of now
        self.pair.advance()
        ours = self.pair.marks(sides.direction, first, lambda seq: self._on_progress(sides.direction, seq))
        for our, their in _matched(ours, (mark for mark in theirs if mark is not None)):
            if len(found) >= SUSPECTS:
                continue  # the answer has to come to its end
            if our is not None and their is not None:
                if our == their and our.digest:
                    self.compared[sides.direction] += our.last - our.first + 1
                else:
                    found.append(our.window)
                continue
            mark = our or their
            assert mark is not None
            if not self._explained(sides, mark.first, mark.last, HERE if our is None else THERE):
                found.append(mark.window)
        return found

    def _their_marks(self, direction: int, first: int) -> Iterator[Mark | None]:
        window = first // WINDOW
        for frame in self.questions.ask(MARKS_OF, direction, first):
            if isinstance(frame, Marks):
                yield None
                for mark in frame.marks:
                    if not window <= mark.window == mark.first // WINDOW or mark.last < mark.first:
                        raise RemoteProtocolError(f"window {mark.window}, expected {window} or a later one")
                    window = mark.window + 1
                    yield mark

    # --- batches ----------------------------------------------------------------------------------------

    def _look_into(self, sides: "_Sides", window: int) -> bool:
        """Whether a difference was found among the batches of a window."""
        direction, first, known = sides.direction, window * WINDOW, [sides]
        if direction == OUT:
            theirs = self._their_batches(direction, first)
            self.pair.advance()
        ours = {entry.first: entry for entry in self.pair.entries(direction, first, first + WINDOW - 1)}
        if direction == IN:
            theirs = self._their_batches(direction, first)
        for seq in sorted(ours.keys() | theirs.keys()):
            our, their = ours.get(seq), theirs.get(seq)
            if our == their or (our and their and not (our.digest and their.digest)):
                count = our.count if our and our == their else 0  # damage is told elsewhere
                self.compared[direction] += count
            elif our and their:
                self._differs(direction, our, their)
                return True
            else:
                entry, missing = (our, THERE) if our else (their, HERE)
                assert entry is not None
                is_broken = bool(self.questions.broken if missing == THERE else self.pair.damage)
                last = seq + entry.count - 1
                if is_broken or self._explained_now(known, seq, last, missing):
                    continue
                self._differs(direction, our, their)
                return True
        return False

    def _their_batches(self, direction: int, first: int) -> dict[int, Entry]:
        """Those of the window that begins with seq `first`, by their first seqs."""
        found: dict[int, Entry] = {}
        seq, last = first, first + WINDOW - 1
        for frame in self.questions.ask(BATCHES_OF, direction, first, last):
            for entry in frame.entries if isinstance(frame, Batches) else ():
                if not seq <= entry.first <= last:
                    raise RemoteProtocolError(f"batch {entry.first} where {seq} to {last} belong")
                found[entry.first] = entry
                seq = entry.first + 1
        return found

    def _explained(self, sides: "_Sides", first: int, last: int, missing: str) -> bool:
        """Whether it is known why these are missing on one side; then it is remembered."""
        why = sides.why_missing(first, last, missing)
        if why and why != "void":
            known = self.known.setdefault((sides.direction, missing, why), [])
            if len(known) < PLACES:
                spans.add(known, first, last)
        return bool(why)

    def _explained_now(self, known: "list[_Sides]", first: int, last: int, missing: str) -> bool:
        """The same by what both said before these batches were read, or else by what they say now.

        The first stays in `known`, for only it tells what was pending then; behind it stands the latest.
        """
        if any(self._explained(sides, first, last, missing) for sides in known):
            return True
        known[1:] = [self._sides(known[0].direction)]
        return self._explained(known[1], first, last, missing)

    # --- messages ---------------------------------------------------------------------------------------

    def _differs(self, direction: int, our: Entry | None, their: Entry | None) -> None:
        """Two batches are not the same, or one is not there: name the first message."""
        first = our.first if our else their.first if their else 0
        ours = self._our_messages(direction, first) if our else []
        theirs = self._their_messages(direction, first, len(ours) + 1) if their else []
        place = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        why = "the messages are not the same"
        if not ours or not theirs:
            place, why = 0, "it is on one node only"
        elif place is None and len(ours) != len(theirs):
            place, why = min(len(ours), len(theirs)), "one node has fewer messages in this batch"
        elif place is None:
            place, why = 0, "the messages are the same, but not the heads stored with them"
        our_id, their_id = (found[place][0].hex() if place < len(found) else "" for found in (ours, theirs))
        self.differences.append(Difference(direction, first + place, our_id, their_id, why))

    def _our_messages(self, direction: int, first: int) -> list[tuple[bytes, bytes]]:
        try:
            return [
                entry
                for header in self.pair.headers(direction, first, first)
                for entry in digests(self.pair, header)
            ]
        except (Damaged, LookupError, msgspec.MsgspecError):
            return []

    def _their_messages(self, direction: int, first: int, most: int) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        for frame in self.questions.ask(MESSAGES_OF, direction, first, first):
            if isinstance(frame, Messages):
                found += frame.entries[: most - len(found)]
        return found


class _Sides:
    """Who sends a direction, and what both said of it before the comparison began."""

    def __init__(self, direction: int, ours: Outline, theirs: Outline) -> None:
        self.direction = direction
        self._gone = {HERE: ours.gone, THERE: theirs.gone}
        self._sender, self._receiver = (ours, theirs) if direction == OUT else (theirs, ours)
        track = Track(direction)
        for epoch in (*ours.epochs, *theirs.epochs):
            track.know_epoch(epoch)
        self._lost = track.lost()

    def why_missing(self, first: int, last: int, missing: str) -> str:
        """`gone`, `void`, `pending` or `lost`; empty where it should be there."""
        if spans.holds(self._gone[missing], first, last):
            return "gone"
        if (missing == HERE) == (self.direction == OUT):  # the sender lacks them
            gone = first > self._sender.last or spans.holds(self._lost.of_sender, first, last)
            return "lost" if gone else ""
        if spans.holds(self._sender.void, first, last):
            return "void"
        if first > self._sender.receipt:
            return "pending"
        gone = first > self._receiver.last or spans.holds(self._lost.of_receiver, first, last)
        return "lost" if gone else ""


def _matched(ours: Iterator[Mark], theirs: Iterator[Mark]) -> Iterator[tuple[Mark | None, Mark | None]]:
    """Both sides' windows, those of one number together."""
    our, their = next(ours, None), next(theirs, None)
    while our is not None or their is not None:
        if their is None or (our is not None and our.window < their.window):
            yield our, None
            our = next(ours, None)
        elif our is None or their.window < our.window:
            yield None, their
            their = next(theirs, None)
        else:
            yield our, their
            our, their = next(ours, None), next(theirs, None)
