"""What the log refuses or cannot do. The process that owns the log turns these into sentences.

`StorageFull` is a refusal: nothing was kept, go on. `AppendFull` means: commit first. `SyncFailed` is
final for the store: whether its last append is kept is unknown until the next start. `Damaged` tells the
place. Anything else that the kernel says (no right to open, read-only, no file descriptor left) passes
as OSError.
"""

import errno

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class LogError(Exception):
    """Something about the log itself."""


class StorageFull(LogError):
    """There is no room on the disk, in the quota or in the file size limit. Nothing was kept."""


class AppendFull(LogError):
    """The record would make this append larger than `MAX_APPEND_BYTES`; commit what is pending first."""


class SyncFailed(LogError):
    """A write or a sync failed: unknown whether it is kept. The store takes nothing more."""


class Damaged(LogError):
    """Bytes of the log that are not what was written, or cannot be read.

    `segment` is the path of the file, `offset` the log offset of the bad place, `why` half a sentence.
    """

    def __init__(self, segment: str, offset: int, why: str) -> None:
        super().__init__(f"{segment}: damaged at log offset {offset}: {why}")
        self.segment = segment
        self.offset = offset
        self.why = why


def write_error(error: OSError, what: str) -> LogError:
    """What a failed write, allocation or rename means. Never for a failed sync: that is always final."""
    if error.errno in FULL_ERRNOS:
        return StorageFull(f"{what}: {error.strerror}")
    return SyncFailed(f"{what}: {error.strerror}")
