"""How far a transfer is: one line of the terminal with a bar, the rate and the time that remains."""

import os
import time
from collections import deque
from math import ceil

from msgctl.columns import available, cut
from msgctl.output import field, span
from msgctl.usage import size
from msgctl.working import Line

FIRST_S = 0.4  # what is done sooner needs no bar
EVERY_S = 0.2  # between two drawings: few bytes on a slow line
RATE_S = 5.0  # the rate is that of the last seconds
BAR = 24
FULL, EMPTY = "\u2501", "\u2500"


class Bar:
    """`files` and `total` bytes are to come; `is_shown`: there is a terminal that wants it."""

    def __init__(self, files: int, total: int, *, is_shown: bool) -> None:
        self.files = files
        self.total = total
        self._is_shown = is_shown
        self._line = Line(is_shown)
        self._drawn_s = time.monotonic() + FIRST_S - EVERY_S
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def show(self, name: str, files: int, done: int) -> None:
        """So many files and bytes are there; `name` is on its way."""
        now_s = time.monotonic()
        if not self._is_shown or now_s - self._drawn_s < EVERY_S:
            return
        self._drawn_s = now_s
        self._seen.append((now_s, done))
        while len(self._seen) > 2 and self._seen[0][0] < now_s - RATE_S:
            self._seen.popleft()
        self._line.show(self._text(name, files, done))

    def clear(self) -> None:
        """The line is free for other words."""
        self._line.clear()

    def _text(self, name: str, files: int, done: int) -> str:
        (then_s, then), (now_s, _) = self._seen[0], self._seen[-1]
        rate = max(0.0, (done - then) / max(0.001, now_s - then_s))
        share = min(1.0, done / self.total) if self.total else 0.0
        filled = int(share * BAR)
        parts = [
            f"{FULL * filled}{EMPTY * (BAR - filled)} {int(share * 100):3} %",
            f"{size(done)} of {size(self.total)}",
            f"{size(int(rate))}/s",
        ]
        if rate and done < self.total:
            parts.append(f"{span(ceil((self.total - done) / rate))} left")
        if self.files > 1:
            parts.append(f"{files} of {self.files} files")
        return cut("  ".join([*parts, field(name)]), available(os.environ, 2) - 1)
