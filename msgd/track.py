"""One direction between two nodes as one log tells it: which seqs it holds, why others are missing. Pure.

In the log batches stand in the order of seqs, but for what was recovered later: that stands in *runs*, each
in order. So a track remembers where every STEP-th batch lies and the runs, nothing for a single batch.

Of a direction that this node sends, seqs that had no receipt when a new epoch began are *void*: their
messages were sent again under other seqs. The receiver may hold them, or not.

Where segments of the log were removed, the checkpoint behind them says how far each direction had got: seqs
up to there are *gone*, and so is a released batch of which messages stood in such a segment.
"""

from bisect import bisect_left, bisect_right, insort
from operator import attrgetter
from typing import NamedTuple

from msgd import spans
from msgd.log.record import Header
from msgd.model import OUT
from msgd.peer.service import PLACES, Epoch, Outline
from msgd.spans import Span
from msgd.standing import EpochChange, Inward, Outward

STEP = 256  # batches between two whose place is remembered


class Lost(NamedTuple):
    """Seqs that an epoch record names as gone from one side."""

    of_sender: list[Span]
    of_receiver: list[Span]


class Run(NamedTuple):
    """Batches that were recovered one after another: at most STEP, their seqs without a gap."""

    first: int  # seq
    last: int
    start: int  # log offset of the first record
    stop: int  # behind the last one
    batches: int


class Track:
    """One direction, as far as `Pair` has read."""

    def __init__(self, direction: int) -> None:
        self.direction = direction
        self.last = 0
        self.receipt = 0  # OUT: the receiver holds everything up to here, as its receipts say
        self.held: list[Span] = []
        self.void: list[Span] = []
        self.gone: list[Span] = []  # not kept any more; some of it may have come back since
        self.heads: dict[int, bytes] = {}  # that checkpoints behind what is gone state, by last seq
        self.epochs: list[Epoch] = []  # by base, those of one base as they followed each other
        self.runs: list[Run] = []  # what was recovered, by seqs
        self.places: list[tuple[int, int]] = []  # first seq and log offset of every STEP-th batch
        self._batches = 0
        self._known: set[bytes] = set()  # epochs

    def take_batch(self, header: Header) -> None:
        """A batch that was sent or has arrived."""
        if self._batches % STEP == 0:
            self.places.append((header.first_seq, header.offset))
        self._batches += 1
        self.last = header.first_seq + header.count - 1
        spans.add(self.held, header.first_seq, self.last)

    def take_gone(self, last: int) -> None:
        """What is missing up to this seq is not kept any more."""
        if last > self.last:
            spans.add(self.gone, self.last + 1, last)
            self.last = last

    def take_standing(self, stated: Outward | Inward) -> None:
        """A checkpoint behind a stretch that is not kept any more."""
        self.take_gone(stated.last)
        if any(stated.head):
            self.heads[stated.last] = stated.head
        if isinstance(stated, Outward):
            self.receipt = stated.receipt

    def take_recovered(self, header: Header) -> None:
        """A batch that was got back; one that is here already counts only once."""
        last = header.first_seq + header.count - 1
        if spans.touches(self.held, header.first_seq, last):
            return
        self._extend_runs(Run(header.first_seq, last, header.offset, header.end, 1))
        spans.add(self.held, header.first_seq, last)
        self.last = max(self.last, last)

    def _extend_runs(self, new: Run) -> None:
        place = bisect_left(self.runs, new)
        before = self.runs[place - 1] if place else None
        if before and before.last + 1 == new.first and before.stop <= new.start and before.batches < STEP:
            self.runs[place - 1] = Run(before.first, new.last, before.start, new.stop, before.batches + 1)
        else:
            self.runs.insert(place, new)

    def run_of(self, seq: int) -> int:
        """Which run holds this seq, or the first one behind it."""
        return bisect_left(self.runs, seq, key=attrgetter("last"))

    def take_epoch(self, header: Header, change: EpochChange, *, is_recovered: bool) -> None:
        """The beginning of an epoch."""
        ends = (change.sender_last, change.sender_head, change.receiver_last, change.receiver_head)
        self.know_epoch(Epoch(change.epoch, header.first_seq, *ends, header.head))
        if is_recovered:
            return
        if self.direction == OUT and self.receipt < self.last:
            spans.add(self.void, self.receipt + 1, self.last)
        self.last = self.receipt = header.first_seq - 1

    def know_epoch(self, epoch: Epoch) -> None:
        """There was this epoch. A later one of the same base may be known already."""
        if epoch.epoch in self._known:
            return
        self._known.add(epoch.epoch)
        insort(self.epochs, epoch, key=attrgetter("base"))
        lo = bisect_left(self.epochs, epoch.base, key=attrgetter("base"))
        hi = bisect_right(self.epochs, epoch.base, key=attrgetter("base"))
        if hi - lo > 1:
            self.epochs[lo:hi] = _in_turn(self.epochs[lo:hi])

    def knows_epoch(self, epoch: Epoch) -> bool:
        """Whether it is among those known."""
        return epoch.epoch in self._known

    def begun_at(self, seq: int) -> bytes:
        """The head of the epoch that begins with this seq, the last one of them; empty: none does."""
        at = bisect_right(self.epochs, seq, key=attrgetter("base")) - 1
        return self.epochs[at].head if at >= 0 and self.epochs[at].base == seq else b""

    def lost(self) -> Lost:
        """What the epochs say is gone."""
        of_sender: list[Span] = []
        of_receiver: list[Span] = []
        for epoch in self.epochs:
            if epoch.sender_last < epoch.base - 1:
                spans.add(of_sender, epoch.sender_last + 1, epoch.base - 1)
            if epoch.receiver_last < epoch.base - 1:
                spans.add(of_receiver, epoch.receiver_last + 1, epoch.base - 1)
        return Lost(of_sender, of_receiver)

    def outline(self) -> Outline:
        """The same for the other node."""
        gone = spans.less(self.gone, self.held)
        return Outline(
            self.last,
            self.receipt,
            self.held[-PLACES:],
            self.void[-PLACES:],
            self.epochs[-PLACES:],
            gone[-PLACES:],
        )


def _in_turn(epochs: list[Epoch]) -> list[Epoch]:
    """Epochs of one base as they followed each other: a later one names the head of the one before."""
    rest, found = list(epochs), []
    while rest:
        heads = {epoch.head for epoch in rest}
        first = next((e for e in rest if not heads & {e.sender_head, e.receiver_head}), rest[0])
        rest.remove(first)
        found.append(first)
    return found
