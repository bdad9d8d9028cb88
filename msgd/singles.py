"""Records that hold one message each, gathered so that they can be taken many at a time.

A node that sends one message at a time has as many records as messages. What is done record by record costs
more than three times as much there as what is done for many at once (18 against 5 µs of CPU time for a line
of a received message, busy cores, Python 3.11, 2026-11).
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from msgd.log.record import HEADER_BYTES, WALL, Record, record_in
from msgd.states import SINGLE_KINDS, Place

MOST = 256  # in one stack, or
MOST_BYTES = 256 << 10  # of records, whichever comes first


class Stack(NamedTuple):
    """Records with one message each, one after another as they came: columns of one length."""

    places: list[Place]
    walls: list[int]  # stored times, ns
    payloads: list[bytes]
    length: int  # bytes of the records


def stacked(
    found: Iterable[tuple[int, bytes | Record]],
    places: Sequence[Place],
    edges: Container[int],
    fits_time: Callable[[int], bool] | None,
) -> Iterator[Stack | tuple[Place, Record]]:
    """Records as `found` with their numbers in `places`, those with one message each as stacks.

    What stands at a log offset in `edges` comes by itself. Those that do not fit by their time are left out
    of stacks.
    """
    some: list[Place] = []
    walls: list[int] = []
    payloads: list[bytes] = []
    size = 0
    for number, data in found:
        place = places[number]
        offset, count, kind, _, _, _ = place
        if count == 1 and kind in SINGLE_KINDS and offset not in edges and isinstance(data, bytes):
            wall_ns = int.from_bytes(data[WALL], "little")
            if fits_time is None or fits_time(wall_ns):
                some.append(place)
                walls.append(wall_ns)
                payloads.append(data[HEADER_BYTES:-4])
                size += len(data)
            is_full = len(some) >= MOST or size >= MOST_BYTES
            alone = None
        else:
            is_full, alone = True, record_in(data, offset) if isinstance(data, bytes) else data
        if is_full and some:
            yield Stack(some, walls, payloads, size)
            some, walls, payloads, size = [], [], [], 0
        if alone is not None:
            yield place, alone
    if some:
        yield Stack(some, walls, payloads, size)
