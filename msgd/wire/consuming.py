"""What the log process and those who receive for a consumer say to each other.

The frames are part of the one table in `wire.ledger`. The log process says Begun, Lent, Freed, ConsumerList
and UnsettledList, the others say the rest. Places are log offset and index of a message in its record; a
`born` of 0 means whatever consumer has the name now.
"""

from msgd.wire.frame import Frame


class Begin(Frame):
    """Receive for this consumer from now on; it is made where there is none. Answered by Begun.

    With an empty holder nothing is received: it is only looked up, and never made.
    """

    token: int
    name: str
    holder: bytes
    user: str
    peer: int = 0  # 0: of any
    kind: int = -1  # below 0: every one that is consumed without being named
    from_offset: int = -1  # log offset where a new one begins; -1: behind what is there now
    may_make: bool = False


class ConsumerState(Frame):
    """One consumer; times are CLOCK_REALTIME."""

    name: str
    peer: int
    kind: int
    offset: int  # the position: log offset and index
    index: int
    taken: int
    waiting: int
    aside: int
    born: int  # tells two of the same name apart
    created_ns: int
    last_ns: int
    seen: dict[int, int] | None = None  # before the position: the last seq of each peer; None: not told


class Begun(Frame):
    """The consumer, and whether it is new."""

    token: int
    consumer: ConsumerState
    is_new: bool


class Settle(Frame):
    """What became of a message: `outcome` is one of those of `cursors`."""

    id: bytes
    outcome: str
    why: str = ""
    attempt: int = 0


class Found(Frame):
    """The next message that fits, as the receiver sees it."""

    offset: int
    index: int
    id: bytes
    peer: int
    seq: int
    asks: bool  # its sender wants to hear when it is handled
    next_offset: int  # the position behind it
    next_index: int


class Receive(Frame):
    """Settle these, then lend a message if one is wanted. Answered by Lent."""

    token: int
    name: str
    born: int
    holder: bytes
    user: str
    settled: list[Settle]
    wants: bool = False
    found: Found | None = None
    offset: int = 0  # nothing that fits lies before this position
    index: int = 0
    lost: int = 0  # messages that were gone on the way there


class Lent(Frame):
    """This message is the holder's now, on its `attempt`; offset -1: there is none yet, and Freed will tell.

    The consumer's position is `high_offset`, `high_index`: what lies before it is not to be found again.
    """

    token: int
    offset: int
    index: int
    attempt: int
    high_offset: int
    high_index: int
    id: bytes = b""


class Freed(Frame):
    """Ask again: something of this consumer was given back, or it is no more."""

    name: str


class Leave(Frame):
    """This holder's program has ended: what it has is given back."""

    name: str
    holder: bytes


class ListConsumers(Frame):
    """Answered by ConsumerList."""

    token: int


class ConsumerList(Frame):
    """All of them, by name."""

    token: int
    consumers: list[ConsumerState]


class Unsettled(Frame):
    """A message that was lent and is not done. `state`: taken, retrying or aside."""

    offset: int
    index: int
    id: bytes
    peer: int
    state: str
    attempts: int
    why: str
    since_ns: int  # CLOCK_REALTIME


class ListUnsettled(Frame):
    """Answered by UnsettledList."""

    token: int
    name: str


class UnsettledList(Frame):
    """What was lent and is not done, in the order of the log."""

    token: int
    unsettled: list[Unsettled]


class RetryAside(Frame):
    """Have these messages come again, or all that were set aside. Answered by Done, `value`: how many do."""

    token: int
    name: str
    ids: list[bytes]
    user: str


class RemoveConsumer(Frame):
    """Forget it. Answered by Done."""

    token: int
    name: str
    user: str


FRAMES: tuple[type[Frame], ...] = (
    Begin,
    Begun,
    Receive,
    Lent,
    Freed,
    Leave,
    ListConsumers,
    ConsumerList,
    ListUnsettled,
    UnsettledList,
    RetryAside,
    RemoveConsumer,
)
