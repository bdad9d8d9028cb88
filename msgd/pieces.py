"""Content copied between two open files, by the kernel where it can.

What stands at a place already, and may be what is to come, is copied so that it is only compared.
"""

import errno
import os

PIECE_BYTES = 2 << 20

# Two file systems, one that cannot do it, or a sandbox.
UNABLE = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM)


def copy_piece(source: int, target: int, at: int, size: int) -> int:
    """Copy some of what is between `at` and `size`, by the kernel if it can; how much. Raises OSError."""
    most = min(PIECE_BYTES, size - at)
    try:
        count = os.copy_file_range(source, target, most, at, at)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
        count = os.pwrite(target, os.pread(source, most, at), at)
    if not count:
        raise OSError(errno.EIO, f"it has {at:,} bytes of {size:,}")
    return count
