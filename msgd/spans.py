"""Sets of seqs as lists of spans, first to last, both inclusive: sorted, apart from each other. Pure."""

from bisect import bisect_left
from collections.abc import Iterable

Span = tuple[int, int]


def add(spans: list[Span], first: int, last: int) -> None:
    """Put `first` to `last` in; what is there already or touches it becomes one span with it."""
    if spans and spans[-1][1] + 1 == first:
        spans[-1] = (spans[-1][0], last)  # the usual way: in order
        return
    lo = bisect_left(spans, first - 1, key=lambda span: span[1])
    hi = lo
    while hi < len(spans) and spans[hi][0] <= last + 1:
        first, last = min(first, spans[hi][0]), max(last, spans[hi][1])
        hi += 1
    spans[lo:hi] = [(first, last)]


def less(spans: Iterable[Span], without: Iterable[Span]) -> list[Span]:
    """What of `spans` is not in `without`."""
    found: list[Span] = []
    rest = list(without)
    place = 0
    for first, last in spans:
        while place < len(rest) and rest[place][1] < first:
            place += 1
        at = place
        while at < len(rest) and rest[at][0] <= last:
            if first < rest[at][0]:
                found.append((first, rest[at][0] - 1))
            first = rest[at][1] + 1
            at += 1
        if first <= last:
            found.append((first, last))
    return found


def touches(spans: list[Span], first: int, last: int) -> bool:
    """Whether any of `first` to `last` is in."""
    place = bisect_left(spans, first, key=lambda span: span[1])
    return place < len(spans) and spans[place][0] <= last


def holds(spans: list[Span], first: int, last: int) -> bool:
    """Whether all of `first` to `last` is in."""
    place = bisect_left(spans, first, key=lambda span: span[1])
    return place < len(spans) and spans[place][0] <= first and last <= spans[place][1]


def count(spans: Iterable[Span]) -> int:
    """How many seqs are in."""
    return sum(last - first + 1 for first, last in spans)
