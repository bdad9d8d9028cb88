"""How the log process begins: it takes the state directory for itself, opens the log and repairs its end."""

import fcntl
import os
import time

from msgd import errors, journal, model
from msgd.books import Books
from msgd.config import Config
from msgd.delivery import Delivery
from msgd.errors import ConfigError
from msgd.log.clock import Clock
from msgd.log.errors import Damaged, StorageFull, SyncFailed
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.log.record import FLAG_GROUP, Kind, Record
from msgd.log.store import Store
from msgd.recent import RecentIds, keys_of
from msgd.wire.codec import decode_ids

LOCK_WITHIN_S = 2.0  # a state directory that is in use for longer is in use
DISK_HINT = "Check the disk, then start msgd again."


def lock_state(state: str) -> int:
    """Take the state directory for this daemon: a file descriptor that holds the lock.

    The log process of a supervisor that was just killed may have to end its fdatasync first. Raises
    ConfigError when another msgd has it.
    """
    try:
        fd = os.open(os.path.join(state, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"Cannot use the state directory {state}: {error.strerror}.", "Is its disk full or read-only?"
        ) from error
    end_s = time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > end_s:
                raise ConfigError(
                    f"Another msgd is running on the state directory {state}.",
                    "Stop it first, or give this one a state directory of its own.",
                ) from None
            time.sleep(0.02)


def open_books(config: Config, page: SharedPage) -> Books:
    """Open and recover the log.

    Raises ConfigError for damage in the middle and for a disk that is full, Fatal for a failed sync.
    """
    directory = os.path.join(config.state, "log")
    clock = Clock()
    delivery, recent = Delivery(), RecentIds()

    first: list[int] = []

    def apply(record: Record) -> None:
        delivery.apply(record)
        if not first:
            first.append(record.offset)
        is_sent = record.kind in (Kind.OUT, Kind.HELD, Kind.RECOVERED) and record.direction == model.OUT
        if is_sent and record.count:
            ids = decode_ids(record.payload, record.count)
            recent.add(ids, record.end)
            if record.flags & FLAG_GROUP or record.kind == Kind.RECOVERED:
                recent.add(keys_of(ids, record.peer), record.end)

    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        store = Store(directory, clock, segment_bytes=config.limits.segment_bytes, page=page)
        recovery = store.recover(
            apply, lambda: delivery.checkpoint(max(recent.newest_ms(), delivery.id_horizon_ms))
        )
    except Damaged as error:
        text = f"The log is damaged in the middle: {error.segment}, log offset {error.offset}: {error.why}."
        raise ConfigError(
            text, "Nothing was changed. Put the segment aside or restore it, then start again."
        ) from error
    except StorageFull as error:
        raise ConfigError(
            f"No space for the log in {directory}.", "Free some space, then start msgd again."
        ) from error
    except SyncFailed as error:
        raise errors.Fatal(f"The disk failed while the log was opened: {error}.", DISK_HINT) from error
    except OSError as error:
        raise ConfigError(
            f"Cannot use the log in {directory}: {error.strerror}.", "See that msgd may write there."
        ) from error
    recent.horizon_ms = delivery.id_horizon_ms
    recent.start = first[0] if first else 0
    books = Books(store, Reader(directory, lambda: page.committed), page, clock)
    books.delivery, books.recent = delivery, recent
    page.committed = store.committed
    if recovery.created:
        journal.event("log.created", directory=directory)
    journal.event(
        "log.opened", records=recovery.records, seconds=round(recovery.seconds, 3), offset=store.committed
    )
    if recovery.cut_bytes:
        journal.event("log.repaired", cut_bytes=recovery.cut_bytes, kept_as=recovery.broken_path)
    return books
