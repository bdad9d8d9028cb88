"""What a hook's process has in hand, in memory that outlives it.

The supervisor makes the page before it forks, and the next process for the same hook finds it: a command that
ended with 0 is not run again because its process, or the log process, died before it could be told.

| offset | bytes | |
|---|---|---|
| 0 | 1 | place in `WHAT` |
| 1 | 4 | attempt, little-endian |
| 5 | 16 | message id |
| 21 | 4 | process group of the command, 0: it was not started |
| 32 | 8 | hash of the last refusal that was told |
"""

import mmap
from hashlib import sha256

from msgd.receiving import ASIDE, DONE, FAILED, RELEASE, Settled

RUNNING = "running"
WHAT = ("", RUNNING, DONE, FAILED, ASIDE, RELEASE)
TOLD = slice(32, 40)
DIED = "the hook's process died while the command ran"


class Note:
    """One hook's page."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def begin(self, id: bytes, attempt: int) -> None:
        """The command starts."""
        self._page[1:25] = attempt.to_bytes(4, "little") + id + bytes(4)
        self._page[0] = WHAT.index(RUNNING)

    def started(self, group: int) -> None:
        """It runs as this process group."""
        self._page[21:25] = group.to_bytes(4, "little")

    def end(self, outcome: str) -> None:
        """The command has ended, and this is to be settled."""
        self._page[0] = WHAT.index(outcome)

    def clear(self) -> None:
        """The log process knows."""
        self._page[0] = 0

    def left(self) -> list[Settled]:
        """What the process before did not get to tell."""
        what = WHAT[self._page[0]]
        if not what:
            return []
        attempt, id = int.from_bytes(self._page[1:5], "little"), bytes(self._page[5:21])
        return [Settled(id, FAILED, DIED, attempt) if what == RUNNING else Settled(id, what, "", attempt)]

    def group_left(self) -> int:
        """The process group of a command that ran when the process before died, or 0."""
        is_running = WHAT[self._page[0]] == RUNNING
        return int.from_bytes(self._page[21:25], "little") if is_running else 0

    def is_news(self, refusal: str) -> bool:
        """Whether a refusal differs from the one that was told last; it counts as told then."""
        mark = sha256(refusal.encode()).digest()[:8]
        was, self._page[TOLD] = self._page[TOLD], mark
        return was != mark

    def forget_refusal(self) -> None:
        """The hook is at work: the same refusal would be news again."""
        self._page[TOLD] = bytes(8)
