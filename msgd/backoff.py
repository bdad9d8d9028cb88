"""How long to wait before trying again. Pure: time and chance are given."""

from collections.abc import Callable

MOST_DOUBLINGS = 32  # far above any cap; keeps the power small


class Backoff:
    """The waits of one thing that is tried again and again, and how long the next one lasts.

    Doubles from `first_s` to `cap_s`, each time somewhere between half and all of it, so that nodes that
    lost the same link do not come back as one. What lived `stable_s` begins at `first_s` again.
    """

    def __init__(
        self,
        random: Callable[[], float],
        *,
        first_s: float = 0.5,
        cap_s: float = 30.0,
        stable_s: float = 60.0,
    ) -> None:
        self._random = random  # returns 0 ≤ x < 1
        self.cap_s = cap_s  # may be changed at any time
        self._first_s, self._stable_s = first_s, stable_s
        self.failures = 0  # in a row
        self.next_try_mono_s = 0.0

    def failed(self, now_s: float, lived_s: float = 0.0) -> float:
        """A try ended after `lived_s`; returns the seconds until the next one may begin."""
        if lived_s >= self._stable_s:
            self.failures = 0
        whole_s = min(self.cap_s, self._first_s * float(1 << min(self.failures, MOST_DOUBLINGS)))
        self.failures += 1
        wait_s = whole_s * (0.5 + self._random() / 2)
        self.next_try_mono_s = now_s + wait_s
        return wait_s

    def reset(self, now_s: float) -> None:
        """Try at once: a person asked, or the peer was just seen."""
        self.failures = 0
        self.next_try_mono_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next try may begin; 0 when it may now."""
        return max(0.0, self.next_try_mono_s - now_s)
