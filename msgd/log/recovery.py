"""A start: read the newest segment, set a torn tail aside, and make the last append durable again.

1. Drop the file's clean pages from the page cache: after a failed fdatasync they show what is not on disk.
2. Scan the segment (`scan`): damage raises, and nothing is changed.
3. A torn tail goes into a file `<offset>.broken` beside the segment, and is cut.
4. The last append may never have been synced: the process died before, or the sync failed and only the
   page cache held it. (What stands before it was: no append is written before the last one is durable.)
   So it is written again, into a new segment at the place where it began, behind a fresh checkpoint. The
   old file is cut there afterwards; if nothing but its checkpoint stood before the place, it is replaced.

A start that dies half-way is simply repeated: until the new segment has its name only the tail is gone,
and that is kept. What was allocated ahead is given back first, so that a full disk has room for all this.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgd.log import vacuum
from msgd.log.clock import Clock
from msgd.log.errors import AppendFull, StorageFull
from msgd.log.files import Files, let_go, read_all
from msgd.log.record import (
    FLAG_GROUP_ENDS,
    LOG_ID_BYTES,
    MAX_PAYLOAD_BYTES,
    ZERO_HEAD,
    Kind,
    Record,
    pack_record,
    prefix_of,
)
from msgd.log.scan import Found, SegmentReader, is_copy, scan_segment
from msgd.log.segment import (
    NAME_DIGITS,
    Extent,
    Segment,
    create_segment,
    list_extents,
    put_file,
    remove_temporary,
    segment_path,
    sync_names,
)

BROKEN = ".broken"

Apply = Callable[[Record], None]
Checkpoint = Callable[[], list[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a start found and did."""

    created: bool  # there was no log
    records: int  # sound ones in the newest segment, its checkpoint not counted
    cut_bytes: int  # of a torn tail, up to its last byte that is not zero
    broken_path: str | None  # where they are kept
    moved_from: int | None  # log offset from which on records have got other offsets; None: none have
    seconds: float


class Repair(NamedTuple):
    """The segment to append to, after the last append was made durable."""

    segment: Segment
    group_bytes: int
    end: int  # log offset
    moved: list[Record]  # the last append in its new place; not yet applied


class Opened(NamedTuple):
    """The log, ready to be appended to."""

    segment: Segment
    prefix: bytes
    group_bytes: int  # of the checkpoint group that the segment begins with
    end: int  # log offset
    report: Recovery


def open_log(files: Files, directory: str, clock: Clock, apply: Apply, checkpoint: Checkpoint) -> Opened:
    """Open the log in `directory` for appending, made or repaired as need be. See Store.recover."""
    began_ns = clock.mono_ns()
    _make_directory(files, directory)
    extents = list_extents(files, directory, 0)
    if not extents:
        return _create(files, directory, clock, checkpoint, began_ns)
    old = _open_newest(files, directory, extents[-1].base)
    try:
        segment = SegmentReader(files, old.path, old.base, old.fd)
        found = scan_segment(segment, apply)
        remove_temporary(files, directory)
        vacuum.finish(files, directory)
        _cut_predecessor(files, directory, extents)
        broken = _set_aside(files, directory, old, found)
        repair = (
            _move_last(files, clock, old, found, checkpoint())
            if found.last or is_copy(segment, found.prefix)
            else _keep_newest(files, old, found)
        )
    except BaseException:
        old.close()
        raise
    if repair.segment is not old:
        old.close()
    for record in repair.moved:
        apply(record)
    report = Recovery(
        created=False,
        records=found.records,
        cut_bytes=len(found.tail),
        broken_path=broken,
        moved_from=repair.segment.base if repair.moved else None,
        seconds=(clock.mono_ns() - began_ns) / 1e9,
    )
    return Opened(repair.segment, found.prefix, repair.group_bytes, repair.end, report)


def checkpoint_group(prefix: bytes, base: int, payloads: Sequence[bytes], clock: Clock) -> list[bytes]:
    """The records that a segment at `base` begins with. Raises AppendFull if a payload is too large."""
    payloads = payloads or (b"",)
    group: list[bytes] = []
    for number, payload in enumerate(payloads, 1):
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise AppendFull(f"a checkpoint of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES}")
        flags = FLAG_GROUP_ENDS if number == len(payloads) else 0
        clocks = (clock.wall_ns(), clock.boot_ns(), clock.start)
        fields = (Kind.CHECKPOINT, 0, flags, len(payload), base, 0, 0, 0, 0, ZERO_HEAD, *clocks)
        group.append(pack_record(prefix, fields, payload))
        base += len(group[-1])
    return group


def _make_directory(files: Files, directory: str) -> None:
    try:
        files.mkdir(directory, 0o700)
    except FileExistsError:
        pass


def _create(files: Files, directory: str, clock: Clock, checkpoint: Checkpoint, began_ns: int) -> Opened:
    sync_names(files, os.path.dirname(os.path.abspath(directory)))
    remove_temporary(files, directory)
    prefix = prefix_of(files.urandom(LOG_ID_BYTES))
    group = checkpoint_group(prefix, 0, checkpoint(), clock)
    segment = create_segment(files, directory, 0, group)
    report = Recovery(
        created=True,
        records=0,
        cut_bytes=0,
        broken_path=None,
        moved_from=None,
        seconds=(clock.mono_ns() - began_ns) / 1e9,
    )
    size = sum(map(len, group))
    return Opened(segment, prefix, size, size, report)


def _open_newest(files: Files, directory: str, base: int) -> Segment:
    path = segment_path(directory, base)
    fd = files.open(path, os.O_RDWR)
    try:
        files.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass  # advice; a file system without it has no pages to drop
    return Segment(files, path, base, fd, 0)


def _cut_predecessor(files: Files, directory: str, extents: list[Extent]) -> None:
    """A start that died before it cut the segment whose last append it had moved: cut it now.

    Only where the newest one begins. A mark that somebody put into the middle of a segment cuts nothing.
    """
    if len(extents) < 2 or extents[-2].stop != extents[-1].base:
        return
    base, stop = extents[-2]
    path = segment_path(directory, base)
    fd = files.open(path, os.O_RDWR)
    try:
        if files.fstat(fd).st_size > stop - base:
            Segment(files, path, base, fd, 0).seal(stop - base)
    finally:
        let_go(files, fd)


def _set_aside(files: Files, directory: str, old: Segment, found: Found) -> str | None:
    """Keep the torn tail in a file of its own, then end the segment before it. Returns the file's path."""
    stop = found.stop - old.base
    if not found.tail:
        old.shrink(stop)
        return None
    old.shrink(stop + len(found.tail))
    path = _keep(files, directory, found)
    old.shrink(stop)
    return path


def _keep(files: Files, directory: str, found: Found) -> str:
    """Write the tail to a file whose name is free, unless a start that died has already done it."""
    for number in itertools.count(1):
        suffix = BROKEN if number == 1 else f".{number}{BROKEN}"
        path = os.path.join(directory, f"{found.stop:0{NAME_DIGITS}d}{suffix}")
        if not _holds_other(files, path, found.tail):
            let_go(files, put_file(files, path, lambda _: [found.tail], len(found.tail)))
            return path
    raise AssertionError("unreachable: count has no end")


def _holds_other(files: Files, path: str, data: bytes) -> bool:
    try:
        fd = files.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return read_all(files, fd, len(data) + 1, 0) != data
    finally:
        let_go(files, fd)


def _keep_newest(files: Files, old: Segment, found: Found) -> Repair:
    """Nothing but its checkpoint stands in the segment: go on in it."""
    old.seal(found.stop - old.base)
    sync_names(files, os.path.dirname(old.path))  # the start or the roll that made it may have died before
    return Repair(old, found.group_end - old.base, found.stop, [])


def _move_last(files: Files, clock: Clock, old: Segment, found: Found, payloads: Sequence[bytes]) -> Repair:
    """A new segment that begins where the last append did, with a checkpoint and then that append again.

    A copy that ends with its checkpoint gets a file of its own, too: with the inode of another in its first
    record, what is damaged in it later would be taken for a torn tail.
    """
    directory = os.path.dirname(old.path)
    begins = found.last[0].offset if found.last else found.group_end
    base = old.base if begins == found.group_end else begins
    writes = checkpoint_group(found.prefix, base, payloads, clock)
    begin = at = base + sum(map(len, writes))
    moved = []
    for record in found.last:
        moved.append(record._replace(begin=begin, offset=at))
        at = moved[-1].end
    writes.append(b"".join(pack_record(found.prefix, record[:13], record.payload) for record in moved))
    try:
        segment = create_segment(files, directory, base, writes)
    except StorageFull:
        segment = create_segment(files, directory, base, writes, reserve=0)
    if base != old.base:
        old.seal(base - old.base)
    return Repair(segment, begin - base, at, moved)
