"""Syncs of many files side by side: one waits for the disk while the next could."""

import os
from collections.abc import Callable, Sequence

from msgd.files.disk import begin_writing
from msgd.files.lanes import Lanes


def sync_all(fds: Sequence[int]) -> list[OSError | None]:
    """Have the contents of files on their disks; for each why not, or None."""
    failed: list[OSError | None] = [None] * len(fds)

    def each(sync: Callable[[int], None], place: int) -> None:
        if failed[place] is None:
            try:
                sync(fds[place])
            except OSError as error:
                failed[place] = error

    for place in range(len(fds)):
        each(begin_writing, place)
    Lanes(lambda place: each(os.fdatasync, place), range(len(fds))).wait()
    return failed
