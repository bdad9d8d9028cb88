"""Two live nodes with one key: told apart from a restart by their persistence. Pure.

A start of a node that was followed by another one is refused while the later one is linked. A node that was
restarted or restored does that no more than once, from a late hello; a second live node comes back at once.
"""

TIMES = 2  # refusals from which on it is told
LASTS_S = 600.0  # a live one tries again within half a minute


class Clones:
    """Refusals for this reason, by the number of the peer; 0 is this node itself, as peers say."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}  # how often, and when last (CLOCK_MONOTONIC)

    def note(self, number: int, now_s: float) -> bool:
        """One more refusal; whether this is the moment to tell."""
        count, at_s = self._seen.get(number, (0, now_s))
        if now_s - at_s > LASTS_S:
            count = 0
        self._seen[number] = count + 1, now_s
        return count + 1 == TIMES

    def holds(self, number: int, now_s: float) -> bool:
        """Whether two live nodes use this key, as far as is known."""
        count, at_s = self._seen.get(number, (0, 0.0))
        return count >= TIMES and now_s - at_s <= LASTS_S
