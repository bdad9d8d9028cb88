"""What follows from a parcel for both directions. Pure, and said twice: by who reads it, by who commits.

What comes in (the writer's `out`, of which the reader stands at `here`):

| epoch | | |
|---|---|---|
| the same | the parcel begins above here.last + 1 | a gap: what is between was receipted once |
| | both have the same head where both end | take what is behind here.last |
| | another head, or none | both logs differ |
| another | no messages in the parcel | nothing |
| | the reader knows that the writer has left it | nothing: all of it came otherwise |
| | it begins above here.last | begin it here, too, and take all |
| | else | the writer's log began anew, and does not know how far the former one got |

What the parcel says of the other direction, which the reader sends:

| epoch | | |
|---|---|---|
| the same | the writer holds more than was ever sent | the reader's log was set back |
| | a boundary of what has no receipt, same head | a receipt |
| | up to the last receipt | nothing new |
| | another head | both logs differ |
| the reader has none | something was said in this direction before | begin one above both |
| another | the writer is beyond where the reader's epoch begins | the same: it cannot take that one |
| | else | nothing: it has not heard of that epoch yet |

A link concludes more (`peer.reconcile`), because there both speak of now. A parcel may be old: so nothing is
sent anew for it that might have arrived.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from msgd.parcel.frames import Head
from msgd.parcel.reader import Boundary
from msgd.peer.frames import Epoch, Position

NOTHING = "nothing"
RECEIPT = "receipt"
NEW_EPOCH = "new epoch"


class Gap(Exception):
    """Messages `first` to `last` are missing here, and are not in the parcel."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"messages {first} to {last} are missing")
        self.first = first
        self.last = last


class Differs(Exception):
    """Both logs hold different bytes under the same seqs, or one was set back. Says where."""


class Take(NamedTuple):
    """Take the batches behind seq `after`; begin this epoch before."""

    after: int
    epoch: Epoch | None = None


class Ended(NamedTuple):
    """An epoch that the reader's log tells of, and where the sender stood when it began."""

    epoch: bytes
    sender_last: int
    sender_head: bytes


class Kept(Protocol):
    """What the reader's log knows of what came in."""

    def head_at(self, seq: int) -> bytes | None:
        """The head at `seq`, empty where no batch ends there, None where nothing of it is kept."""

    def epochs(self) -> Iterable[Ended]:
        """All of this direction."""


class Ours(NamedTuple):
    """Where the direction stands that the reader of the parcel sends."""

    position: Position
    base: int  # the first seq of its epoch, 0 unknown
    receipt: int


def judge_in(head: Head, here: Position, boundary: Callable[[int], Boundary | None], kept: Kept) -> Take:
    """What to take. `boundary`: as of `Parcel`. Raises Gap, Differs."""
    out = head.link.out
    if here.epoch == out.epoch and any(out.epoch):
        return _take_more(head, here, boundary, kept)
    if not head.count:
        return Take(out.last)
    if _is_left(head, boundary, kept):
        return Take(out.last)
    if head.epoch is None or head.epoch.base <= here.last:
        raise Differs(
            f"the log of {head.name} began anew: message {head.first} is the first in it,"
            f" and {here.last} are here already"
        )
    if head.first > head.epoch.base:
        raise Gap(head.epoch.base, head.first - 1)
    return Take(head.epoch.base - 1, head.epoch)


def _take_more(head: Head, here: Position, boundary: Callable[[int], Boundary | None], kept: Kept) -> Take:
    upto = min(here.last, head.link.out.last)
    found = boundary(upto)
    if found is None:
        raise Gap(here.last + 1, head.first - 1)
    ours = here.head if upto == here.last else kept.head_at(upto)
    if found.seq != upto or (ours is not None and ours != found.head):
        raise Differs(f"message {upto} of {head.name} is another one here than there, or one before it is")
    return Take(upto)


def _is_left(head: Head, boundary: Callable[[int], Boundary | None], kept: Kept) -> bool:
    """Whether the writer has left this epoch since, and the reader knows: what was in it came otherwise."""
    for ended in kept.epochs():
        if ended.epoch == head.link.out.epoch:
            return True
        if ended.sender_last >= head.first and boundary(ended.sender_last) == ended[1:]:
            return True
    return False


def judge_out(ours: Ours, theirs: Position, head_at: Callable[[int], bytes]) -> str:
    """NOTHING, RECEIPT or NEW_EPOCH. `head_at`: of ours, from the last receipt on. Raises Differs."""
    mine = ours.position
    if not any(mine.epoch):
        return NEW_EPOCH if mine.last or theirs.last else NOTHING
    if theirs.epoch != mine.epoch:
        return NEW_EPOCH if ours.base and theirs.last >= ours.base else NOTHING
    if theirs.last > mine.last:
        raise Differs(f"it holds {theirs.last} messages of this node, whose own log ends with {mine.last}")
    if theirs.last < ours.receipt:
        return NOTHING
    if head_at(theirs.last) != theirs.head:
        raise Differs(f"message {theirs.last} of this node is not the same there, or one before it is not")
    return RECEIPT if theirs.last > ours.receipt else NOTHING
