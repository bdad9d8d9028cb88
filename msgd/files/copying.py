"""A file of the store under a second name, as whole and as checked as one that came from elsewhere."""

import hashlib
import os
from collections.abc import Callable

from msgd.errors import MsgdError
from msgd.files.depot import Depot
from msgd.files.intake import READ_BYTES, Incoming, Intake
from msgd.files.names import parts_of
from msgd.files.outflow import Outflow

NO_CONTENT = hashlib.sha256().digest()


def copy_within(depot: Depot, name: str, new: str, on_read: Callable[[int, int], None]) -> Intake:
    """The intake of a copy, finished. Raises UnknownFile, UsageError, and as `on_read`."""
    parts_of(new)
    found = depot.open(name)
    try:
        return take_from(depot, found.fd, new, found.status, on_read)
    finally:
        os.close(found.fd)


def take_directory(depot: Depot, name: str, mtime_ns: int) -> Intake:
    """The intake of a directory, finished."""
    intake = depot.take(Incoming(name, 0, mtime_ns, False), resumes=False)
    intake.finish(NO_CONTENT, "", depot.owner)
    return intake


def take_from(
    depot: Depot, fd: int, name: str, status: os.stat_result, on_read: Callable[[int, int], None]
) -> Intake:
    """The intake of a whole file, finished; `on_read` hears how much of how much was read."""
    size = status.st_size
    what = Incoming(name, size, status.st_mtime_ns, bool(status.st_mode & 0o100))
    intake = depot.take(what, resumes=False)
    outflow = Outflow(fd, status)
    try:
        for data in outflow.read(READ_BYTES):
            intake.write(data)
            on_read(outflow.at, size)
            if intake.error is not None:
                break
    except OSError as error:
        intake.refuse(MsgdError(f"It cannot be read: {error.strerror}."))
    except BaseException:
        intake.abandon()
        raise
    intake.finish(outflow.digest, outflow.fault(), depot.owner)
    return intake
