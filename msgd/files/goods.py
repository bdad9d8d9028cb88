"""What callers give and get back: files of theirs, files of a store, what came of each."""

import os
import stat
import time
from collections.abc import Callable
from typing import NamedTuple

from msgd.errors import MsgdError
from msgd.files.names import is_directory

# (name, bytes of it that are there, its size): at most 20 a second, at least one a second, also while nothing
# moves (then with the last values; the name is empty before the first). What it raises ends the call.
OnProgress = Callable[[str, int, int], None]

PROGRESS_S = 0.05


class Source(NamedTuple):
    """A file to put, or a directory to make: its name has a "/" at the end."""

    name: str  # in the store: parts with "/" between them; directories above are made as needed
    fd: int  # of a regular file, open for reading; or of a directory
    size: int  # these three as fstat told; a file that is not the same at the end is an error
    mtime_ns: int
    executable: bool

    @property
    def is_directory(self) -> bool:
        return is_directory(self.name)


def source_of(name: str, fd: int, status: os.stat_result) -> Source:
    """What is open there, under this name; `status` as fstat told."""
    if is_directory(name):
        return Source(name, fd, 0, status.st_mtime_ns, False)
    return Source(name, fd, status.st_size, status.st_mtime_ns, bool(status.st_mode & stat.S_IXUSR))


class Target(NamedTuple):
    """A file to get."""

    name: str  # in the store
    fd: int  # open for reading and writing, or a pipe. Cut to the size of what was got
    have: int = 0  # bytes in it from an earlier try; kept where they are the beginning of what is there


class Entry(NamedTuple):
    """What a store holds under a name."""

    name: str  # without "/" at the end
    size: int
    mtime_ns: int
    executable: bool
    sha256: str  # hex; empty where it is not known yet, and for a directory
    is_directory: bool = False


class Outcome(NamedTuple):
    """What came of one file. Without `error` it is durable at its place (put, dup), or whole in `fd` (get).

    A got file is not synced: that is the caller's, with the rename.
    """

    name: str
    size: int = 0
    sha256: str = ""  # hex
    mtime_ns: int = 0
    executable: bool = False
    error: MsgdError | None = (
        None  # UnknownFile, UsageError (the name), StorageRefused, NotTrusted, MsgdError
    )


class Progress:
    """Calls `on_progress` as often as it wants to be called."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._last = ("", 0, 0)
        self._told_s = 0.0
        self._most: dict[str, int] = {}  # bytes that were ever there, of each name without an outcome
        self.moved_s = time.monotonic()  # when something moved last: the same bytes once more do not count

    def at(self, name: str, done: int, size: int) -> None:
        """So much of this file is there."""
        self._last = (name, done, size)
        now_s = time.monotonic()
        if done > self._most.get(name, -1):
            self._most[name] = done
            self.moved_s = now_s
        if now_s - self._told_s >= PROGRESS_S:
            self.tick()

    def ended(self, name: str) -> None:
        """This file has its outcome."""
        self._most.pop(name, None)
        self.moved_s = time.monotonic()

    def alive(self) -> None:
        """Something is at work, and nothing moves yet."""
        if time.monotonic() - self._told_s >= PROGRESS_S:
            self.tick()

    def tick(self) -> None:
        """Tell the last values."""
        self._told_s = time.monotonic()
        self._on_progress(*self._last)
