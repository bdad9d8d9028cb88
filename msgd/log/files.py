"""Every call to the kernel that the log makes, one to one, so that a test can let any of them fail.

Nothing here decides anything. `write_all` is the one place that knows that a write may be short.
"""

import errno
import os
from collections.abc import Sequence

IOV_MAX = 1024  # Linux: pieces that one pwritev takes
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class Files:
    """The kernel's calls, as they are."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    pread = staticmethod(os.pread)
    pwrite = staticmethod(os.pwrite)
    pwritev = staticmethod(os.pwritev)
    fdatasync = staticmethod(os.fdatasync)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    posix_fallocate = staticmethod(os.posix_fallocate)
    posix_fadvise = staticmethod(os.posix_fadvise)
    fstat = staticmethod(os.fstat)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    listdir = staticmethod(os.listdir)
    mkdir = staticmethod(os.mkdir)
    urandom = staticmethod(os.urandom)


REAL_FILES = Files()


def write_all(files: Files, fd: int, pieces: Sequence[bytes | memoryview], at: int) -> None:
    """Write all pieces one after another from byte `at` on: one call, more only when the kernel stops short.

    Raises OSError as the kernel says it; how much was written by then is unknown.
    """
    if len(pieces) > IOV_MAX:
        pieces = [b"".join(pieces)]
    written = files.pwritev(fd, pieces, at)
    total = sum(map(len, pieces))
    if written == total:
        return
    rest = memoryview(b"".join(pieces))
    while written < total:
        # a write that stops short met a limit: the next one says which
        more = files.pwrite(fd, rest[written:], at + written)
        if more == 0:
            raise OSError(errno.EIO, "a write wrote nothing")
        written += more


def read_all(files: Files, fd: int, size: int, at: int) -> bytes:
    """`size` bytes from byte `at` on; fewer only at the end of the file."""
    data = files.pread(fd, size, at)
    while 0 < len(data) < size:
        more = files.pread(fd, size - len(data), at + len(data))
        if not more:
            break
        data += more
    return data


def let_go(files: Files, fd: int) -> None:
    """Close a file. An error is of no interest: what counts was synced before."""
    try:
        files.close(fd)
    except OSError:
        pass


def sync_directory(files: Files, directory: str) -> None:
    """Make births, names and deaths of files in `directory` durable."""
    fd = files.open(directory, DIRECTORY)
    try:
        files.fsync(fd)
    finally:
        let_go(files, fd)
