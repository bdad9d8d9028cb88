"""Room on a disk, and having content written out as it flows. Calls of Linux for which Python has no name.

What is left to one fdatasync at the end would stand before the log's own: gigabytes of a file that came in,
and every message waits for them. So each window is handed to the disk once it is full, and before the next
but one is begun it must be there: at most WINDOW_BYTES twice are on their way.
"""

import ctypes
import errno
import os

from msgd.errors import StorageRefused

WINDOW_BYTES = 2 << 20
KEPT_FREE_BYTES = 64 << 20  # for the log, which may lie on the same disk; of a small disk a twentieth

SYNC_FILE_RANGE_WAIT_BEFORE, SYNC_FILE_RANGE_WRITE, SYNC_FILE_RANGE_WAIT_AFTER = 1, 2, 4
FALLOC_FL_KEEP_SIZE = 1

FULL = (errno.ENOSPC, errno.EDQUOT)

# A file system may not have it (NFS, tmpfs), a sandbox may forbid it: then the sync at the end does all.
ABSENT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ESPIPE, errno.EPERM)

_libc = ctypes.CDLL(None, use_errno=True)
_sync_file_range = _libc.sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Flusher:
    """Has one file written out while it grows. What is before `at` is there already."""

    def __init__(self, fd: int, at: int = 0) -> None:
        self._fd = fd
        self._begun = at  # up to here it is being written out
        self._done = at  # up to here it was

    def grown(self, size: int) -> None:
        """The file has this size now. Raises OSError where the disk has failed."""
        if size - self._begun < WINDOW_BYTES:
            return
        if self._begun > self._done:
            wait = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER
            _sync_range(self._fd, self._done, self._begun - self._done, wait)
            self._done = self._begun
        _sync_range(self._fd, self._begun, size - self._begun, SYNC_FILE_RANGE_WRITE)
        self._begun = size


def begin_writing(fd: int) -> None:
    """Have a file written out without waiting: the syncs of many then go side by side. Raises OSError."""
    _sync_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE)


def _sync_range(fd: int, offset: int, count: int, flags: int) -> None:
    """sync_file_range(2). Its errors count: the fdatasync that follows does not tell them again."""
    if _sync_file_range(fd, offset, count, flags):
        _check(ctypes.get_errno())


def _check(code: int) -> None:
    if code not in ABSENT:
        raise OSError(code, os.strerror(code))


def check_room(fd: int, size: int) -> None:
    """Whether the file system of this descriptor has room for so many bytes. Raises StorageRefused."""
    room = os.fstatvfs(fd)
    kept = min(KEPT_FREE_BYTES, room.f_blocks * room.f_frsize // 20)
    free = max(0, room.f_bavail * room.f_frsize - kept)
    if size > free:
        raise StorageRefused(
            f"The disk of the store is full: {size:,} bytes are needed, {free:,} are free.",
            "Make room there (`msgctl file rm`), or put less.",
        )


def check_free(fd: int, size: int, what: str) -> None:
    """Whether a disk of a caller has room for so many bytes. Raises StorageRefused."""
    room = os.fstatvfs(fd)
    free = room.f_bavail * room.f_frsize
    if room.f_blocks and size > free:  # some file systems do not tell
        text = f"There is no room here for {what}: {size:,} bytes are needed, {free:,} are free."
        raise StorageRefused(text, "Make room, or get it to another disk.")


def reserve(fd: int, offset: int, size: int) -> None:
    """Take the room for a file that is to grow, its size stays. Raises OSError."""
    if size > offset and _fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, size - offset):
        _check(ctypes.get_errno())
