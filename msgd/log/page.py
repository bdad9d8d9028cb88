"""One page of memory that all processes share: how far the log is committed, and whether a sync hangs.

| bytes | field | |
|---|---|---|
| 0-7 | committed | log offset before which everything is on disk: nobody reads beyond it |
| 8-15 | syncing_since_ns | CLOCK_MONOTONIC ns at which the running fdatasync began; 0: none runs |

Anonymous shared memory, made before the first fork. Only the log process stores. Each field is stored and
loaded as one aligned 8-byte word (a cast memoryview copies the whole word; `struct` would go byte by
byte), so a reader sees the old value or the new one.
"""

import mmap


class SharedPage:
    """The shared page; safe to use on both sides of a fork."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE)
        self._words = memoryview(self._map).cast("Q")

    @property
    def committed(self) -> int:
        """Log offset before which everything is on disk."""
        return self._words[0]

    @committed.setter
    def committed(self, offset: int) -> None:
        self._words[0] = offset

    @property
    def syncing_since_ns(self) -> int:
        """CLOCK_MONOTONIC ns at which the running fdatasync began, or 0."""
        return self._words[1]

    @syncing_since_ns.setter
    def syncing_since_ns(self, mono_ns: int) -> None:
        self._words[1] = mono_ns
