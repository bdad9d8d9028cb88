"""Frames about parcels (`msgd.parcel`), between a control worker and the log process."""

from msgd.wire.frame import DirectionState, EpochEnds, Frame


class Release(Frame):
    """Release some of what waits for this peer, link or not. Answered by Released.

    `identity`: whose key the worker holds.
    """

    token: int
    peer: int
    identity: bytes


class Released(Frame):
    """How many messages that were now, and how many still wait."""

    token: int
    released: int
    waiting: int


class Export(Frame):
    """From now on all that was released may be with the peer: it is in a parcel. Answered by Exported."""

    token: int
    peer: int
    user: str


class Exported(Frame):
    """Where both directions stand. `receipt`, `receipt_head`: of ours, what the peer has confirmed."""

    token: int
    out: DirectionState
    inward: DirectionState
    receipt: int
    receipt_head: bytes
    opened: EpochEnds | None


class UnreceiptedBatch(Frame):
    """A batch without receipt: the record at `offset`."""

    first_seq: int
    count: int
    offset: int
    head: bytes


class Unreceipted(Frame):
    """Which batches have no receipt, from seq `first` on? Answered by Batches, some of them."""

    token: int
    peer: int
    first: int


class Batches(Frame):
    """In order; none: there are no more. With the epoch that they are in, and what has a receipt by now."""

    token: int
    epoch: bytes
    receipt: int
    receipt_head: bytes
    batches: list[UnreceiptedBatch]


class OpenParcel(Frame):
    """A sound parcel of `identity` has come, for the node `to`. Answered by ParcelOpened.

    `theirs`: where the peer stands in the direction from here to it.
    """

    token: int
    identity: bytes
    spki: bytes
    chain: list[tuple[bytes, bytes, bytes]]
    to: bytes
    theirs: DirectionState


class ParcelOpened(Frame):
    """It is this peer's. `inward`: where the direction from it stands here."""

    token: int
    peer: int
    name: str
    inward: DirectionState


class Moved(Frame):
    """Not done: messages came another way since, so what the request rests on is not so any more."""

    token: int


class BeginEpoch(Frame):
    """The direction from this peer goes on in this epoch. Answered by Done or Moved."""

    token: int
    peer: int
    ends: EpochEnds


class PutCarried(Frame):
    """A batch from this peer, the messages behind. Answered by Done or Moved.

    Done's `changed`: it was not here yet.
    """

    token: int
    peer: int
    epoch: bytes
    first_seq: int
    count: int
    head: bytes
    has_reports: bool = False  # among the messages (`wire.reports`)


class PutPosition(Frame):
    """Where the peer stands in the direction from here to it, at `wall_ns` by its clock.

    Answered by Done, `value` is how many messages that confirms.
    """

    token: int
    peer: int
    theirs: DirectionState
    wall_ns: int
