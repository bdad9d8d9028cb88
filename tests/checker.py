"""What a storm did to the messages: attempted and acknowledged against what a log holds. Pure.

Every writer makes its messages one after another, and no two in a run are equal; so a loss has a shape:

| verdict | |
|---|---|
| lost prefix | acknowledged, not in the log, and all that is kept of its writer was sent after it |
| lost middle | the same, with kept ones before and after it |
| lost postfix | the same, with kept ones before it only, or none at all |
| revived | refused ("nothing was kept"), and in the log all the same |
| unexpected | in the log, and nobody ever tried to send it |
| repeated | in the log more than once |
| disordered | stands in the log before one that its writer had sent earlier |
| recovered | in the log although no answer came: allowed, a client was told that it is unknown |

The idea is that of Jepsen's queue checkers: the verdict rests on what clients saw, not on what a daemon says
of itself.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

Item = bytes


class Verdict(NamedTuple):
    """What was found; all but `recovered` must be empty."""

    lost_prefix: list[Item]
    lost_middle: list[Item]
    lost_postfix: list[Item]
    revived: list[Item]
    unexpected: list[Item]
    repeated: list[Item]
    disordered: list[Item]
    recovered: list[Item]

    @property
    def faults(self) -> dict[str, list[Item]]:
        """What must not be, by its name; at most five examples each."""
        named = self._asdict()
        del named["recovered"]
        return {name: found[:5] for name, found in named.items() if found}


def check(
    attempted: Mapping[str, Sequence[Item]],
    acknowledged: Collection[Item],
    refused: Collection[Item],
    read: Sequence[Item],
) -> Verdict:
    """Judge one direction. `attempted`: by writer, in the order of its calls; `read`: as the log has it."""
    counts = Counter(read)
    acknowledged, refused = frozenset(acknowledged), frozenset(refused)
    known = {item for items in attempted.values() for item in items}
    shapes = _lost(attempted, acknowledged, counts)
    return Verdict(
        *shapes,
        revived=[item for item in counts if item in refused],
        unexpected=[item for item in counts if item not in known],
        repeated=[item for item, count in counts.items() if count > 1],
        disordered=_disordered(attempted, read),
        recovered=[item for item in counts if item in known and item not in acknowledged],
    )


def _lost(
    attempted: Mapping[str, Sequence[Item]], acknowledged: frozenset[Item], kept: Mapping[Item, int]
) -> tuple[list[Item], list[Item], list[Item]]:
    prefix: list[Item] = []
    middle: list[Item] = []
    postfix: list[Item] = []
    for items in attempted.values():
        places = [place for place, item in enumerate(items) if item in kept]
        first, last = (places[0], places[-1]) if places else (len(items), -1)
        for place, item in enumerate(items):
            if item in acknowledged and item not in kept:
                shape = postfix if place > last else prefix if place < first else middle
                shape.append(item)
    return prefix, middle, postfix


def _disordered(attempted: Mapping[str, Sequence[Item]], read: Iterable[Item]) -> list[Item]:
    """Those that stand before one which the same writer sent earlier; only the first copy of each counts."""
    place_of = {item: (writer, n) for writer, items in attempted.items() for n, item in enumerate(items)}
    newest: dict[str, tuple[int, Item]] = {}
    seen: set[Item] = set()
    found = []
    for item in read:
        if item in seen or item not in place_of:
            continue
        seen.add(item)
        writer, place = place_of[item]
        before = newest.get(writer)
        if before is not None and place < before[0]:
            found.append(before[1])
        else:
            newest[writer] = (place, item)
    return found
