"""Places that the index lists, out of several of its lanes at once: in order, many at a time."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from msgd import model
from msgd.layers import Layer
from msgd.log.index import IN_LANES, KEY, LANES, PLACE
from msgd.log.record import Kind
from msgd.states import Place

FIRST_BYTES = 64 << 10  # of the log: the places of so much in the first list, since most questions are small
MOST_BYTES = 1 << 20  # twice as much in each that follows, up to this: 8,000 places of 128 bytes, 2 MB

_new = tuple.__new__


class Lane:
    """One group of the table `place`, from one end of [lo, hi) to the other. `peer`: whose the places are."""

    def __init__(self, layer: Layer, group: int, lo: int, hi: int, peer: int, reverse: bool) -> None:
        table = layer.index.place
        runs = table.runs_back if reverse else table.runs
        self._runs = runs(group, KEY.pack(lo), KEY.pack(max(lo, hi)))
        self._reverse = reverse
        self._more = (peer, model.IN if group % LANES in IN_LANES else model.OUT)
        self._run: list[bytes] = []
        self.at: int | None = None  # log offset of the next place, None at the end
        self._look()

    def take(self, bound: int) -> list[Place]:
        """The next places before log offset `bound`; backwards: from it on."""
        key, more = KEY.pack(max(bound, 0)), self._more
        taken: list[Place] = []
        while self.at is not None and (self.at >= bound if self._reverse else self.at < bound):
            cut = bisect_left(self._run, key)
            before, behind = self._run[:cut], self._run[cut:]
            part, self._run = (behind[::-1], before) if self._reverse else (before, behind)
            entries = PLACE.iter_unpack(b"".join(part))
            taken += [_new(Place, entry + more) for entry in entries if entry[2] != Kind.RELEASED]
            self._look()
        return taken

    def _look(self) -> None:
        if not self._run:
            self._run = next(self._runs, [])
        end = -1 if self._reverse else 0
        self.at = KEY.unpack_from(self._run[end])[0] if self._run else None


def merged(lanes: Sequence[Lane], reverse: bool) -> Iterator[list[Place]]:
    """The places of all these lanes in order, or the opposite one: lists of what lies near each other."""
    size = FIRST_BYTES
    while live := [lane for lane in lanes if lane.at is not None]:
        ends = [lane.at for lane in live if lane.at is not None]
        bound = max(ends) - size if reverse else min(ends) + size
        found = [place for lane in live for place in lane.take(bound)]
        if len(live) > 1:
            found.sort(reverse=reverse)
        if found:
            yield found
        size = min(2 * size, MOST_BYTES)
