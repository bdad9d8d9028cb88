"""The directories and files of a store, as descriptors.

Every part of a name is opened by itself, below the descriptor of the one before, and no symbolic link is
followed: whatever lies in the store, and whoever moves it meanwhile, nothing outside is reached.
"""

import errno
import os
import stat
from collections.abc import Sequence

from msgd.errors import MsgdError, StorageRefused, UnknownFile, UsageError
from msgd.files.names import shown

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO keeps nobody waiting

IN_THE_WAY = (errno.ENOTDIR, errno.ELOOP)


class Directories:
    """The directories that one step of work needs, each opened once; closed with it."""

    def __init__(self, root: int) -> None:
        self._fds: dict[tuple[str, ...], int] = {(): root}
        self.made: set[int] = set()  # those in which a directory was made: to be synced

    def open(self, parts: Sequence[str], *, create: bool = False) -> int:
        """The descriptor of a directory. Raises OSError."""
        path = tuple(parts)
        if path not in self._fds:
            parent = self.open(path[:-1], create=create)
            self._fds[path] = self._open(parent, path[-1], create)
        return self._fds[path]

    def _open(self, parent: int, part: str, create: bool) -> int:
        try:
            return os.open(part, DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if not create:
                raise
        try:
            os.mkdir(part, 0o777, dir_fd=parent)
            self.made.add(parent)
        except FileExistsError:
            pass
        return os.open(part, DIRECTORY, dir_fd=parent)

    def close(self) -> None:
        """All but the root."""
        root = self._fds.pop(())
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {(): root}
        self.made.clear()

    def __enter__(self) -> "Directories":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_file(root: int, parts: Sequence[str]) -> tuple[int, os.stat_result]:
    """A regular file, open for reading, and what fstat says. Raises OSError."""
    with Directories(root) as directories:
        fd = os.open(parts[-1], FILE, dir_fd=directories.open(parts[:-1]))
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return fd, status
    os.close(fd)
    code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.ELOOP
    raise OSError(code, os.strerror(code))


def refusal(error: OSError, name: str) -> MsgdError:
    """What the system's error about a file means for people."""
    text = error.strerror or str(error)
    match error.errno:
        case errno.ENOENT:
            return UnknownFile(
                f"There is no file {shown(name)} in the store.", "`msgctl file ls NODE` lists it."
            )
        case errno.EISDIR | errno.ENOTEMPTY:
            hint = "Name a file in it; only `msgctl file rm -r` takes a directory."
            return UsageError(f"{shown(name)} is a directory in the store.", hint)
        case errno.ENOTDIR | errno.ELOOP:
            return UsageError(
                f"{shown(name)} leads through something that is no directory, or is no regular file.",
                "Links are not followed. Use another name, or remove what is in the way.",
            )
        case errno.ENOSPC | errno.EDQUOT:
            return StorageRefused(f"The disk of the store is full: {shown(name)} has no room.", FULL)
    return StorageRefused(f"The store cannot take or give {shown(name)}: {text}.", "Is its disk in order?")


FULL = "Make room there (`msgctl file rm`), or put less."
