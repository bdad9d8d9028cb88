"""Which segments of the log may go. Pure.

Only whole segments go, the oldest first, as long as they are older or the log is larger than is wanted; never
the newest. A segment stays all the same if

- a message that stands first in it is not final, or goes in one batch with one that is not: the log process
  names those places (`Needed`);
- an `ended` or `released` record in it names a record in a segment that stays: it says what became of that;
- an `epoch` record in it begins an epoch of a direction of which an older segment that stays holds messages;
- it is damaged: nothing is deleted because it could not be read.

Receipts keep nothing: the checkpoint that the next segment begins with says how far they reached. So there
may be holes, and what a segment needs lies in older ones only: one pass from the oldest on decides.

A segment is as old as its newest record. Within one boot CLOCK_BOOTTIME says how old that is, whatever was
done to the wall clock; of another boot the clock counts as it was set last in that boot. A record is never
older than one before it; a time that cannot be, in the future or before msgd was made, counts as that of the
next segment. So a wrong clock keeps a segment longer, and never removes one early.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgd.log.segment import Extent

FIRST_NS = 1_767_225_600_000_000_000  # 2026-01-01: no message is older than msgd
DAMAGED, WAITS, TELLS, BEGINS = "damaged", "waits", "tells", "begins"

Line = tuple[int, int]  # peer, direction


class Moment(NamedTuple):
    """The clocks of one record."""

    wall_ns: int
    boot_ns: int
    boot: bytes  # of which start of the machine


class Facts(NamedTuple):
    """What is known of a sealed segment, whose bytes never change."""

    newest: Moment  # of its newest record
    messages: int  # that stand first in it
    lines: frozenset[Line]  # of which it holds messages
    epochs: frozenset[Line]  # of which it holds the beginning of one
    names: frozenset[int]  # bases of older segments with records whose messages ended or were released in it
    is_damaged: bool


class Wish(NamedTuple):
    """What is wanted: that nothing older, or not more, is kept. None: it does not matter."""

    older_ns: int | None
    size_bytes: int | None
    most: int = 1 << 30  # segments at once


class Going(NamedTuple):
    """A segment that may go."""

    base: int
    size: int
    messages: int


class Staying(NamedTuple):
    """A segment that was wanted, and why it stays: damaged, waits, tells or begins."""

    base: int
    size: int
    why: str


class Plan(NamedTuple):
    """What may go and what stays although it was wanted, each from the oldest on."""

    going: list[Going]
    staying: list[Staying]


class Ages:
    """How old segments are now. `firsts`: of each the first record behind the checkpoint, None: damaged."""

    def __init__(self, firsts: Sequence[Moment | None], now: Moment) -> None:
        self._now = now
        self._shift: dict[bytes, int] = {}  # wall clock less CLOCK_BOOTTIME, as it was last in that boot
        self._last: dict[bytes, int] = {}  # the last segment that begins in that boot
        for number, first in enumerate(firsts):
            if first is not None:
                self._shift[first.boot] = first.wall_ns - first.boot_ns
                self._last[first.boot] = number
        self._starts = [0 if first is None else self._time(first) for first in firsts]
        self._latest_start = self._latest = 0

    def first_ns(self, number: int) -> int:
        """How old the first record of a segment is, which is asked for in order."""
        self._latest_start = max(self._latest_start, self._sane(number, self._starts[number]))
        return self._now.wall_ns - self._latest_start

    def newest_ns(self, number: int, newest: Moment) -> int:
        """How old its newest record is; the same."""
        if number >= self._last.get(newest.boot, 0):
            self._shift[newest.boot] = newest.wall_ns - newest.boot_ns
        self._latest = max(self._latest, self._sane(number, self._time(newest)))
        return self._now.wall_ns - self._latest

    def _time(self, moment: Moment) -> int:
        """When it was, on a wall clock that was always right."""
        if moment.boot == self._now.boot:
            return self._now.wall_ns - self._now.boot_ns + moment.boot_ns
        return moment.boot_ns + self._shift[moment.boot]

    def _sane(self, number: int, time_ns: int) -> int:
        now_ns = self._now.wall_ns
        if FIRST_NS <= time_ns <= now_ns:
            return time_ns
        later = (start for start in self._starts[number + 1 :] if FIRST_NS <= start <= now_ns)
        return next(later, now_ns)


def choose(
    segments: Sequence[tuple[Extent, int]],
    wish: Wish,
    ages: Ages,
    needed: Iterable[int],
    facts: Callable[[Extent], Facts],
) -> Plan:
    """What may go of `segments`, which are all with their sizes in bytes, the newest last.

    `needed`: bases of those with messages that are not final. `facts` is asked only of those that are wanted.
    """
    plan = Plan([], [])
    excess = 0 if wish.size_bytes is None else sum(size for _, size in segments) - wish.size_bytes
    pinned, stays, lines = set(needed), set[int](), set[Line]()
    for number, (extent, size) in enumerate(segments[:-1]):
        may_be_old = wish.older_ns is not None and ages.first_ns(number) >= wish.older_ns
        if (not may_be_old and excess <= 0) or len(plan.going) >= wish.most:
            break
        known = facts(extent)
        is_old = wish.older_ns is not None and ages.newest_ns(number, known.newest) >= wish.older_ns
        if not is_old and excess <= 0:
            break
        why = _why(extent.base, known, pinned, stays, lines)
        if why:
            plan.staying.append(Staying(extent.base, size, why))
            stays.add(extent.base)
            lines |= known.lines
        else:
            plan.going.append(Going(extent.base, size, known.messages))
            excess -= size
    return plan


def _why(base: int, known: Facts, pinned: set[int], stays: set[int], lines: set[Line]) -> str:
    if known.is_damaged:
        return DAMAGED
    if base in pinned:
        return WAITS
    if not stays.isdisjoint(known.names):
        return TELLS
    return "" if lines.isdisjoint(known.epochs) else BEGINS
