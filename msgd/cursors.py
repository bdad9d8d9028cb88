"""Consumers, pure: how far each has come, which messages are out with whom, what was set aside.

Everything before a consumer's position was dealt with, or stands in one of three tables:

| table | of a message that | leaves it by |
|---|---|---|
| taken | a holder has: attempts counts it | done, aside, release, or the holder's end |
| waiting | was given back, or is to be tried again | being lent, before all that is new |
| aside | nobody is to get | a person's retry |

A `cursor` record holds one `Change`, what one request did to one consumer; `apply` is how it happens, now as
at the next start. What is not in the log costs nothing when it is forgotten: a holder's end (`free`: the
attempt counts, and a start waits for holders again), and that nothing before a position fits (`passed`).
"""

from collections.abc import Iterable, Iterator

import msgspec

from msgd import model
from msgd.errors import UnknownConsumer, UsageError
from msgd.wire.consuming import Begin

MAX_CONSUMERS = 1024
PART_ENTRIES = 512  # of one consumer in one payload of a checkpoint, at most 450 KiB
PART_BYTES = 128 << 10  # a payload is closed at this size

DONE, FAILED, ASIDE, RELEASE, GONE = "done", "failed", "aside", "release", "gone"
TAKE, AGAIN, RETRY = "take", "again", "retry"

Location = tuple[int, int]  # log offset and index


class Entry(msgspec.Struct, array_like=True):
    """One message that was lent and is not done."""

    id: bytes
    peer: int
    asks: bool  # its sender wants to hear when it is handled
    attempts: int  # how often it was lent
    since_ns: int  # CLOCK_REALTIME when its table, or its attempt, changed
    holder: bytes = b""  # 16 bytes, of what is taken
    has_failed: bool = False  # lending it once more is one more attempt
    why: str = ""  # it failed or was set aside


class Consumer(msgspec.Struct):
    """One consumer."""

    name: str
    peer: int  # 0: any
    kind: int  # below 0: every one that is consumed without being named
    high: Location
    born: int  # log offset of the record that made it: tells two of the same name apart
    created_ns: int
    last_ns: int  # CLOCK_REALTIME of the last change
    taken: dict[Location, Entry] = {}
    waiting: dict[Location, Entry] = {}
    aside: dict[Location, Entry] = {}
    seen: dict[int, int] | None = None  # the last seq of each peer before `high`; None: not known of all


class Step(msgspec.Struct, array_like=True):
    """What happened to one message."""

    what: str
    offset: int
    index: int
    holder: bytes = b""  # take, again
    why: str = ""  # failed, aside
    id: bytes = b""  # take; and the rest, too
    peer: int = 0
    asks: bool = False
    next: Location = (0, 0)
    seq: int = 0

    @property
    def place(self) -> Location:
        return self.offset, self.index


class Begun(msgspec.Struct, array_like=True):
    """A consumer was made: `from_offset` -1 is behind the record that says so."""

    peer: int
    kind: int
    from_offset: int
    seen: dict[int, int] | None  # as of a Consumer


class Change(msgspec.Struct, omit_defaults=True):
    """Payload of a `cursor` record."""

    name: str
    begun: Begun | None = None
    removed: bool = False
    high: Location | None = None  # passed, over what is gone
    steps: list[Step] = []
    user: str = ""  # who asked, of what a person does


class _Part(msgspec.Struct):
    """A later payload of a checkpoint; a map, while those about peers are lists."""

    consumers: list[Consumer]


_encode = msgspec.msgpack.Encoder().encode
_part = msgspec.msgpack.Decoder(_Part).decode
decode_change = msgspec.msgpack.Decoder(Change).decode
encode_change = _encode


class Cursors:
    """All consumers of a node."""

    def __init__(self) -> None:
        self.by_name: dict[str, Consumer] = {}

    # --- questions --------------------------------------------------------------------------------------

    def get(self, name: str, born: int = 0) -> Consumer:
        """The consumer of this name; with `born` that very one. Raises UnknownConsumer."""
        consumer = self.by_name.get(name)
        if consumer is None or born not in (0, consumer.born):
            raise UnknownConsumer(f"There is no consumer {name!r}.", "See `msgctl consumer ls`.")
        return consumer

    def begin(self, wanted: Begin, last: dict[int, int]) -> Change | None:
        """What makes the consumer; None where it is there. Raises UsageError, UnknownConsumer.

        `last`: the last seq of each peer.
        """
        known = self.by_name.get(wanted.name)
        if known is None and wanted.may_make:
            if not model.is_name(wanted.name):
                raise UsageError(f"{wanted.name!r} cannot name a consumer.", "Use 1 to 63 of a-z, 0-9 and -.")
            if len(self.by_name) >= MAX_CONSUMERS:
                raise UsageError(
                    f"There are {MAX_CONSUMERS} consumers on this node already.",
                    "`msgctl consumer rm NAME` forgets one.",
                )
            seen = last if wanted.from_offset < 0 else {} if wanted.from_offset == 0 else None
            begun = Begun(wanted.peer, wanted.kind, wanted.from_offset, seen)
            return Change(wanted.name, begun, user=wanted.user)
        self.get(wanted.name)
        return None

    @property
    def all(self) -> Iterable[Consumer]:
        """Every consumer."""
        return self.by_name.values()

    # --- what happens -----------------------------------------------------------------------------------

    def apply(self, change: Change, offset: int, end: int, wall_ns: int) -> None:
        """A `cursor` record, which stands at `offset` and ends at `end`."""
        if change.removed:
            self.by_name.pop(change.name, None)
            return
        if change.begun is not None:
            begun = change.begun
            high = (end if begun.from_offset < 0 else begun.from_offset, 0)
            self.by_name[change.name] = Consumer(
                change.name, begun.peer, begun.kind, high, offset, wall_ns, wall_ns, seen=begun.seen
            )
        consumer = self.by_name[change.name]
        consumer.last_ns = wall_ns
        if change.high is not None:
            self.passed(consumer, change.high)
        for step in change.steps:
            STEPS[step.what](consumer, step, wall_ns)

    @staticmethod
    def passed(consumer: Consumer, high: Location, last: dict[int, int] | None = None) -> None:
        """Nothing that fits lies before this position, but for what is in the tables.

        `last`: the last seq of each peer, where that is the end of the log.
        """
        consumer.high = max(consumer.high, high)
        if last is not None:
            consumer.seen = last

    @staticmethod
    def free(consumer: Consumer, holder: bytes, wall_ns: int) -> int:
        """This holder has ended: what it had waits for the next who asks. How many these are."""
        own = [at for at, entry in consumer.taken.items() if entry.holder == holder]
        for at in own:
            _give_back(consumer, at, wall_ns)
        return len(own)

    # --- checkpoints ------------------------------------------------------------------------------------

    def parts(self) -> Iterator[bytes]:
        """The payloads of a checkpoint that hold all this."""
        group: list[Consumer] = []
        size = 0
        for part in (part for consumer in self.all for part in _parts(consumer)):
            group.append(part)
            size += len(_encode(part))
            if size > PART_BYTES:
                yield _encode(_Part(group))
                group, size = [], 0
        if group:
            yield _encode(_Part(group))

    def restore(self, payload: bytes) -> None:
        """One of them."""
        for part in _part(payload).consumers:
            consumer = self.by_name.setdefault(part.name, part)
            if consumer is not part:
                consumer.taken.update(part.taken)
                consumer.waiting.update(part.waiting)
                consumer.aside.update(part.aside)


def is_part(payload: bytes) -> bool:
    """Whether a later payload of a checkpoint is one of `parts`: a map."""
    return payload[0] >> 4 == 0x8


def _parts(consumer: Consumer) -> Iterator[Consumer]:
    """The consumer, its entries shared out so that each part is small."""
    tables = ("taken", "waiting", "aside")
    entries = [(name, at, entry) for name in tables for at, entry in getattr(consumer, name).items()]
    for start in range(0, max(1, len(entries)), PART_ENTRIES):
        part = msgspec.structs.replace(consumer, taken={}, waiting={}, aside={})
        for name, at, entry in entries[start : start + PART_ENTRIES]:
            getattr(part, name)[at] = entry
        yield part


# --- steps ------------------------------------------------------------------------------------------------


def _take(consumer: Consumer, step: Step, wall_ns: int) -> None:
    consumer.taken[step.place] = Entry(step.id, step.peer, step.asks, 1, wall_ns, step.holder)
    consumer.high = max(consumer.high, step.next)
    if consumer.seen is not None:
        consumer.seen[step.peer] = max(step.seq, consumer.seen.get(step.peer, 0))


def _again(consumer: Consumer, step: Step, wall_ns: int) -> None:
    """Its record may say so of one that was free, and after a start is taken again: by whoever had it."""
    entry = consumer.waiting.pop(step.place, None) or consumer.taken[step.place]
    consumer.taken[step.place] = entry
    entry.holder, entry.has_failed, entry.since_ns = step.holder, False, wall_ns
    entry.attempts += 1


def _failed(consumer: Consumer, step: Step, wall_ns: int) -> None:
    entry = consumer.taken[step.place]
    entry.has_failed, entry.why, entry.since_ns = True, step.why, wall_ns


def _finish(consumer: Consumer, step: Step, wall_ns: int) -> None:
    if consumer.taken.pop(step.place, None) is None:
        consumer.waiting.pop(step.place, None)


def _set_aside(consumer: Consumer, step: Step, wall_ns: int) -> None:
    entry = consumer.waiting.pop(step.place, None) or consumer.taken.pop(step.place)
    consumer.aside[step.place] = entry
    entry.holder, entry.has_failed, entry.since_ns = b"", False, wall_ns
    entry.why = step.why or entry.why


def _release(consumer: Consumer, step: Step, wall_ns: int) -> None:
    if step.place in consumer.taken:
        consumer.taken[step.place].attempts -= 1
        _give_back(consumer, step.place, wall_ns)


def _retry(consumer: Consumer, step: Step, wall_ns: int) -> None:
    entry = consumer.waiting[step.place] = consumer.aside.pop(step.place)
    entry.attempts, entry.since_ns = 0, wall_ns


def _give_back(consumer: Consumer, at: Location, wall_ns: int) -> None:
    entry = consumer.waiting[at] = consumer.taken.pop(at)
    entry.holder, entry.has_failed, entry.since_ns = b"", False, wall_ns


STEPS = {
    TAKE: _take,
    AGAIN: _again,
    DONE: _finish,
    GONE: _finish,
    FAILED: _failed,
    ASIDE: _set_aside,
    RELEASE: _release,
    RETRY: _retry,
}
