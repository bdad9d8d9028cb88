"""Which message ids were submitted lately, so that repeating a call is safe. Pure.

The log process asks for every batch, so the usual answer must cost next to nothing: ids live in sets, one
per generation, until the index holds them. An id that is in no set is new if its own time (UUIDv7) lies
behind everything that was dropped; else only the index knows. A UUIDv8 (made from a key) has no time, so
the index is always asked. The clock inside an id decides only what the answer costs, never what it is.

The id of a message to a group stands for several peers. For such a one keys are remembered beside the id: of
the id with each peer, and one that says that it is a group's.
"""

from collections.abc import Iterable
from hashlib import sha256

GENERATION = 65_536  # ids of one set
GENERATIONS = 16  # at most 1 M ids, about 110 MB, when the index is far behind


TO_A_GROUP = 0  # in place of a peer's number


def key_of(raw: bytes, peer: int) -> bytes:
    """What stands for the message `raw` to this peer among recent ids: it has the same time as the id."""
    return raw[:7] + sha256(raw + peer.to_bytes(4, "big")).digest()[:9]


def keys_of(ids: Iterable[bytes], peer: int) -> list[bytes]:
    """What is remembered beside the ids of a record for this peer that may be a group's."""
    return [key_of(raw, number) for raw in ids for number in (TO_A_GROUP, peer)]


class RecentIds:
    """Ids in memory, and what may be in the index."""

    def __init__(self, horizon_ms: int = 0) -> None:
        self._sets: list[set[bytes]] = [set()]
        self._ends: list[int] = [0]  # log offset behind the last record of each set
        self._max_ms: list[int] = [0]
        self.horizon_ms = horizon_ms  # no id before the first set is later than this
        self.start = 0  # log offset from which on memory knows everything

    def seen(self, ids: list[bytes]) -> list[bytes]:
        """Those of `ids` that are in memory."""
        return [i for known in self._sets if not known.isdisjoint(ids) for i in ids if i in known]

    def doubtful(self, ids: list[bytes]) -> list[bytes]:
        """Those of `ids`, not in memory, that only the index can tell."""
        horizon = self.horizon_ms.to_bytes(6, "big")
        if ids and min(ids)[:6] > horizon and not any(i[6] >> 4 == 8 for i in ids):
            return []
        return [i for i in ids if i[6] >> 4 == 8 or i[:6] <= horizon]

    def add(self, ids: list[bytes], end: int) -> None:
        """These are in the log now, in a record that ends at offset `end`."""
        if len(self._sets[-1]) >= GENERATION:
            self._sets.append(set())
            self._ends.append(end)
            self._max_ms.append(0)
            if len(self._sets) > GENERATIONS:
                self._drop()
        self._sets[-1].update(ids)
        self._ends[-1] = end
        timed = max((i for i in ids if i[6] >> 4 == 7), default=b"")
        self._max_ms[-1] = max(self._max_ms[-1], int.from_bytes(timed[:6], "big"))

    def forget(self, ids: list[bytes]) -> None:
        """The record with these was not kept: whoever sends them again is heard."""
        for known in self._sets:
            known.difference_update(ids)

    def indexed(self, offset: int) -> None:
        """The index holds everything before `offset`: whole generations below it may go."""
        while len(self._sets) > 1 and self._ends[0] <= offset:
            self._drop()

    def newest_ms(self) -> int:
        """The latest time in any id so far: the horizon of whoever starts with an empty memory here."""
        return max(self.horizon_ms, *self._max_ms)

    def _drop(self) -> None:
        self.horizon_ms = max(self.horizon_ms, self._max_ms.pop(0))
        self._sets.pop(0)
        self.start = self._ends.pop(0)
