"""Parts: files that are being got, beside their place, each in the hands of one command at a time."""

import fcntl
import os
import stat
import time

from msgctl.filenames import part_path
from msgd.errors import MsgdError
from msgd.pieces import copy_piece

LOCK_S = 3.0  # for the worker of a command that was killed to let go of its part
TRY_S = 0.05
SMALL_BYTES = 64 << 10  # is sent sooner than compared
STANDING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_part(local: str) -> tuple[str, int]:
    """The part of this file, ours alone; where another command has it, a new one. Raises OSError."""
    path = part_path(local)
    deadline_s = time.monotonic() + LOCK_S
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        if _is_ours(fd, path):
            return path, fd
        os.close(fd)
        if time.monotonic() > deadline_s:
            path = part_path(local, f"-{os.urandom(4).hex()}")
        time.sleep(TRY_S)


def copy_standing(local: str, part: int, size: int, mtime_ns: int) -> int:
    """Begin an empty part with the file at its place, if that may be the same; how much it has then."""
    if size <= SMALL_BYTES:
        return 0
    try:
        fd = os.open(local, STANDING)
    except OSError:
        return 0
    at = 0
    try:
        found, room = os.fstat(fd), os.fstatvfs(part)
        is_same = stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (size, mtime_ns)
        if is_same and size <= room.f_bavail * room.f_frsize:
            while at < size:
                at += copy_piece(fd, part, at, size)
        return at
    except OSError:
        return 0
    finally:
        os.close(fd)
        if at < size:  # nor does an interrupt leave some of it, which would be gone on with
            os.ftruncate(part, 0)


def _is_ours(fd: int, path: str) -> bool:
    """Whether nobody else made it or has it, and it has not taken its place meanwhile."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(found, os.stat(path, follow_symlinks=False))
    except (BlockingIOError, FileNotFoundError):
        return False


def make_directory(directory: str) -> set[str]:
    """Make it with those above it; the directories that have got entries by that. Raises OSError."""
    above, changed = directory, set()
    while not os.path.isdir(above):
        above = os.path.dirname(above) or "."
        changed.add(above)
    os.makedirs(directory, exist_ok=True)
    return changed


def sync(directory: str) -> None:
    """Have the entries of a directory on the disk. Raises MsgdError."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise MsgdError(f"{directory} cannot be synced: {error.strerror}") from error


def umask() -> int:
    """The bits that a new file does not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
