"""The writer of the log: buffer records, write and sync them together, begin a new segment when one is full.

An append is everything that was added since the last commit: one write and one fdatasync, at most
`MAX_APPEND_BYTES`. It is durable when `commit` returns, and only then does `committed` move. What can go
wrong, and what it costs:

| | raises | after it |
|---|---|---|
| no room (ENOSPC, EDQUOT, EFBIG) | `StorageFull` | nothing is kept, what was half written is zeros; goes on |
| failed fdatasync, any errno | `SyncFailed` | final: pages may be lost, a second call would deny it |
| any other failed write | `SyncFailed` | final |

`room` is asked before a message is promised anything: it allocates ahead, so that the write finds its
place. `RESERVE_BYTES` beyond the end stay allocated for what must be written even when the disk is full
(receipts, endings). Once something was refused, `room` refuses all but the essential until an allocation
succeeds again, so space that comes back is noticed by the next call.

Left out on purpose: locks (one process owns the store), retries, and all reading but that of a start.
"""

from collections.abc import Callable, Sequence
from typing import NoReturn
from zlib import crc32

from msgd.log.clock import Clock
from msgd.log.errors import AppendFull, StorageFull, SyncFailed
from msgd.log.figures import Figures, Statistics
from msgd.log.files import REAL_FILES, Files
from msgd.log.page import SharedPage
from msgd.log.record import (
    LOG_ID_BYTES,
    MAGIC,
    OVERHEAD_BYTES,
    ZERO_HEAD,
    Record,
    pack_header,
)
from msgd.log.recovery import Recovery, checkpoint_group, open_log
from msgd.log.segment import RESERVE_BYTES, Segment, create_segment
from msgd.model import MAX_APPEND_BYTES

SEGMENT_BYTES = 64 << 20
JOIN_BYTES = 4096  # a payload up to this is copied into one piece with its header: cheaper than three pieces


class Store:
    """The log in `directory`, for the one process that writes it. `recover` comes first.

    A `page` is told what is committed, and since when a sync runs.
    """

    def __init__(
        self,
        directory: str,
        clock: Clock,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        files: Files = REAL_FILES,
        page: SharedPage | None = None,
    ) -> None:
        self.directory = directory
        self.end = 0  # log offset of the next record, with what is pending
        self.committed = 0  # log offset before which everything is durable
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._files = files
        self._page = page or SharedPage()
        self._prefix = b""
        self._segment: Segment | None = None
        self._group_bytes = 0  # of the checkpoint that the present segment begins with
        self._limit = 0  # bytes of the present segment with which the next one is due
        self._roll_at = 0  # the same, or more after a roll that found no room
        self._pieces: list[bytes | memoryview] = []
        self._added = 0  # records pending
        self._is_full = False  # something was refused, and no allocation has succeeded since
        self._failure: str | None = None  # why the store takes nothing more
        self._figures = Figures()

    @property
    def log_id(self) -> bytes:
        """The random id of this log."""
        return self._prefix[len(MAGIC) : len(MAGIC) + LOG_ID_BYTES]

    @property
    def pending(self) -> int:
        """Bytes added and not yet committed."""
        return self.end - self.committed

    @property
    def segment_base(self) -> int:
        """Log offset at which the present segment begins."""
        return self._usable().base

    @property
    def is_full(self) -> bool:
        """Whether something was refused for want of room, and none has been found since."""
        return self._is_full

    def recover(self, apply: Callable[[Record], None], checkpoint: Callable[[], list[bytes]]) -> Recovery:
        """Read the newest segment, repair its end, and be ready to append. Blocks for all of it.

        `apply` gets each checkpoint record and every later sound record in order, except those of the last
        append: their turn comes after `checkpoint` was asked for the state before them, and with their new
        offsets. In an empty directory only `checkpoint` is called, for the first payloads.
        Raises Damaged (nothing is changed on disk), StorageFull, SyncFailed, OSError; none leaves the store
        usable.
        """
        opened = open_log(self._files, self.directory, self._clock, apply, checkpoint)
        self._prefix = opened.prefix
        self._adopt(opened.segment, opened.group_bytes, opened.end)
        return opened.report

    def room(self, size: int, *, essential: bool = False) -> None:
        """Make sure that `size` more bytes can be written, and that the reserve is left if not `essential`.

        Raises StorageFull.
        """
        segment = self._usable()
        need = self.end - segment.base + size + (0 if essential else RESERVE_BYTES)
        is_probe = self._is_full and not essential
        if need <= segment.allocated and not is_probe:
            return
        if is_probe:
            need = max(need, segment.allocated + RESERVE_BYTES)
        self._reserve(segment, need)
        if is_probe:
            self._is_full = False

    def add(
        self,
        kind: int,
        *,
        peer: int = 0,
        direction: int = 0,
        count: int = 0,
        first_seq: int = 0,
        head: bytes = ZERO_HEAD,
        aux: int = 0,
        flags: int = 0,
        payload: bytes | memoryview = b"",
    ) -> int:
        """Add a record to the append; returns its log offset. A payload must not change until the commit.

        Raises AppendFull; SyncFailed once the store has failed.
        """
        if self._failure is not None:
            raise SyncFailed(self._failure)
        offset, begin, length, clock = self.end, self.committed, len(payload), self._clock
        end = offset + OVERHEAD_BYTES + length
        if end - begin > MAX_APPEND_BYTES:
            raise AppendFull(f"an append of {end - begin} bytes; at most {MAX_APPEND_BYTES}")
        header = pack_header(
            self._prefix,
            (
                *(kind, direction, flags, length, begin, peer, count, first_seq, aux, head),
                *(clock.wall_ns(), clock.boot_ns(), clock.start),
            ),
        )
        crc = crc32(payload).to_bytes(4, "little")
        if length <= JOIN_BYTES:
            self._pieces.append(b"".join((header, payload, crc)))
        else:
            self._pieces += (header, payload, crc)
        self._added += 1
        self.end = end
        return offset

    def commit(self) -> int:
        """Write and sync what was added; returns the log offset before which everything is now durable.

        Raises StorageFull (nothing of it was kept, the store goes on) or SyncFailed (final).
        """
        segment = self._usable()
        if not self._pieces:
            return self.committed
        self._write(segment)
        self._sync(segment)
        self._figures.appends += 1
        self._figures.records += self._added
        self._figures.written_bytes += self.end - self.committed
        self._publish(self.end)
        return self.committed

    def set_segment_bytes(self, size: int) -> None:
        """From now on a segment is full at this size, the present one, too."""
        self._segment_bytes = size
        # a checkpoint larger than a segment must not make every append roll
        self._limit = self._roll_at = max(size, 2 * self._group_bytes)

    @property
    def needs_roll(self) -> bool:
        """Whether the segment has its size: roll before the next append."""
        return self.committed - self._usable().base >= self._roll_at

    def roll(self, checkpoint: Sequence[bytes]) -> None:
        """Begin a new segment with these payloads, and seal the present one. Only with nothing pending.

        Raises StorageFull (the present segment stays in use, and `needs_roll` is asked again one append
        later), AppendFull for a payload that is too large, SyncFailed (final), or OSError when the new
        file cannot be opened (as after StorageFull).
        """
        old = self._usable()
        assert not self._pieces, "roll in the middle of an append"
        group = checkpoint_group(self._prefix, self.committed, checkpoint, self._clock)
        try:
            segment = create_segment(self._files, self.directory, self.committed, group)
        except SyncFailed as error:
            self._fail(error)
        except (StorageFull, OSError):
            self._roll_at = self.committed - old.base + MAX_APPEND_BYTES
            self._figures.refused += 1
            raise
        size = sum(map(len, group))
        at = self.committed - old.base
        self._adopt(segment, size, self.committed + size)
        self._figures.rolls += 1
        try:
            old.seal(at)
        except SyncFailed as error:
            self._fail(error)
        finally:
            old.close()

    def statistics(self) -> Statistics:
        """A snapshot of the figures."""
        segment = self._segment
        if segment is None:
            return self._figures.snapshot(0, 0, 0)
        return self._figures.snapshot(segment.base, self.committed - segment.base, segment.allocated)

    def close(self) -> None:
        """Let go of the file. What is pending was promised to nobody and is dropped; nothing is synced."""
        self._drop()
        self._failure = self._failure or "the store is closed"
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    # ---- steps

    def _usable(self) -> Segment:
        if self._failure is not None:
            raise SyncFailed(self._failure)
        assert self._segment is not None, "recover comes first"
        return self._segment

    def _adopt(self, segment: Segment, group_bytes: int, end: int) -> None:
        self._segment = segment
        self._group_bytes = group_bytes
        self.set_segment_bytes(self._segment_bytes)
        self._publish(end)

    def _publish(self, committed: int) -> None:
        self.committed = committed
        self._page.committed = committed
        self._drop()

    def _drop(self) -> None:
        self._pieces = []
        self._added = 0
        self.end = self.committed

    def _reserve(self, segment: Segment, need: int) -> None:
        try:
            segment.reserve(need, self._limit + RESERVE_BYTES)
        except StorageFull:
            self._refused()
            raise
        except SyncFailed as error:
            self._fail(error)

    def _write(self, segment: Segment) -> None:
        start, stop = self.committed - segment.base, self.end - segment.base
        try:
            if stop > segment.allocated:  # nobody asked for room
                self._reserve(segment, stop)
        except StorageFull:
            self._drop()
            raise
        try:
            segment.write(self._pieces, start)
        except StorageFull:
            self._drop()
            self._refused()
            self._take_back(segment, start, stop)
            raise
        except SyncFailed as error:
            self._fail(error)

    def _take_back(self, segment: Segment, start: int, stop: int) -> None:
        """Zero what a refused append has left, and sync that: the next append at this place may be torn,
        and then no whole record of this one may follow upon what is left of that.
        """
        try:
            segment.take_back(start, stop)
        except SyncFailed as error:
            self._fail(error)
        self._sync(segment)

    def _sync(self, segment: Segment) -> None:
        mono_ns, page = self._clock.mono_ns, self._page
        page.syncing_since_ns = began_ns = mono_ns()
        try:
            segment.sync_data()
        except SyncFailed as error:
            self._fail(error)
        finally:
            page.syncing_since_ns = 0
        self._figures.synced(mono_ns() - began_ns)

    def _refused(self) -> None:
        self._is_full = True
        self._figures.refused += 1

    def _fail(self, error: SyncFailed) -> NoReturn:
        self._failure = str(error)
        self._drop()
        raise error
