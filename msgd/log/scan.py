"""Read the newest segment to its end, and tell a torn tail from damage in the middle. Changes nothing.

Every record up to the first place where no sound one stands counts. Beyond it there are zeros (allocated
ahead), or a torn tail, or there is damage. Proof of damage is a sound record behind the bad place whose
write began behind it, too: then the bad place was durable before that write began. Without such a record
the bad place belongs to the last write, whose pages reach the disk in any order, or not at all.

A copy that was made while msgd wrote proves nothing: each part of it is of another moment, so behind zeros
where the log then ended may stand what was written later (2 of 19 copies by a tar that wrote to a slow pipe).
All that was durable when the copy was begun stands before the first bad place, so there its tail is torn,
whatever is behind. A segment says in its first record which inode it was written to. A snapshot of a file
system keeps that, and is of one moment; where inodes do not last, every log counts as a copy.

Message bodies may hold copies of records, even true ones. Those name a write that began before the one
that carried the body, and what is made up without the log's id is no record at all; so neither is proof.
"""

from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

from msgd.log.errors import Damaged
from msgd.log.files import Files, read_all
from msgd.log.record import (
    CRC_RESIDUE,
    FIELDS,
    FLAG_GROUP_ENDS,
    HEADER_BYTES,
    MAGIC,
    PREFIX_BYTES,
    VERSION,
    Kind,
    Record,
    header_at,
    payload_in,
)

CHUNK_BYTES = 4 << 20  # read at once: any record fits


class Found(NamedTuple):
    """What the newest segment holds."""

    prefix: bytes  # what every record of this log begins with
    group_end: int  # log offset behind the checkpoint group
    records: int  # sound ones behind the group
    last: list[Record]  # those of the last append: not yet applied
    stop: int  # log offset behind the last sound record
    tail: bytes  # what is torn there; ends with the last byte that is not zero


class SegmentReader:
    """A segment's file by log offset. A part that cannot be read is damage."""

    def __init__(self, files: Files, path: str, base: int, fd: int) -> None:
        self._files = files
        self.path = path
        self.base = base
        self.fd = fd

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from log offset `at` on; fewer only at the end of the file."""
        try:
            return read_all(self._files, self.fd, size, at - self.base)
        except OSError as error:
            raise self.damaged(at, f"cannot be read: {error.strerror}") from error

    def size(self) -> int:
        """Bytes of the file."""
        return self._files.fstat(self.fd).st_size

    def inode(self) -> int:
        """Of the file."""
        return self._files.fstat(self.fd).st_ino

    def damaged(self, offset: int, why: str) -> Damaged:
        return Damaged(self.path, offset, why)


def scan_segment(segment: SegmentReader, apply: Callable[[Record], None]) -> Found:
    """Apply all of the segment but its last append, and find its end. Raises Damaged."""
    prefix = read_prefix(segment)
    group_end = _apply_group(segment, prefix, apply)
    stop, last, records = _walk(segment.read, group_end, prefix, apply)
    rest = segment.read(stop, segment.base + segment.size() - stop)
    tail = rest.rstrip(b"\0")
    if tail and not is_copy(segment, prefix):
        _check_torn(segment, prefix, stop, rest)
    return Found(prefix, group_end, records, last, stop, tail)


def is_copy(segment: SegmentReader, prefix: bytes) -> bool:
    """Whether the segment was written to another file than this one."""
    header = header_at(segment.read(segment.base, HEADER_BYTES), 0, prefix, segment.base)
    return header is not None and header.aux not in (0, segment.inode())


def read_prefix(segment: SegmentReader) -> bytes:
    """What the records of this segment begin with, from its first header. Raises Damaged."""
    data = segment.read(segment.base, HEADER_BYTES)
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        raise segment.damaged(segment.base, "the segment does not begin with a record")
    prefix = data[:PREFIX_BYTES]
    if prefix[-1] != VERSION:
        raise segment.damaged(segment.base, f"format {prefix[-1]}; this msgd knows {VERSION}")
    header = header_at(data, 0, prefix, segment.base)
    if header is None or header.begin != segment.base:
        raise segment.damaged(segment.base, "the segment's first record is not what was written")
    return prefix


def _apply_group(segment: SegmentReader, prefix: bytes, apply: Callable[[Record], None]) -> int:
    """Apply the checkpoint group. It was durable before the segment got its name: it is sound, or damaged."""
    at = segment.base
    while True:
        header = header_at(segment.read(at, HEADER_BYTES), 0, prefix, at)
        if header is None or header.kind != Kind.CHECKPOINT:
            raise segment.damaged(at, "no checkpoint where one must stand")
        payload = payload_in(segment.read(at + HEADER_BYTES, header.length + 4))
        if payload is None:
            raise segment.damaged(at, "a checkpoint is not what was written")
        apply(Record(*header, payload))
        at = header.end
        if header.flags & FLAG_GROUP_ENDS:
            return at


def _walk(
    read: Callable[[int, int], bytes], at: int, prefix: bytes, apply: Callable[[Record], None]
) -> tuple[int, list[Record], int]:
    """Every sound record from log offset `at` on; the last append is returned, the rest applied.

    One loop, all names local: a full segment holds a quarter of a million small records.
    """
    last: list[Record] = []
    begin, records = -1, 0
    unpack, new = FIELDS.unpack_from, tuple.__new__
    while True:
        data = read(at, CHUNK_BYTES)
        size, place = len(data), 0
        while size - place >= HEADER_BYTES:
            body = place + HEADER_BYTES
            if crc32(data[place:body]) != CRC_RESIDUE or data[place : place + PREFIX_BYTES] != prefix:
                return at + place, last, records
            fields = unpack(data, place + PREFIX_BYTES)
            end = body + fields[3] + 4
            if end > size:
                break
            if crc32(data[body:end]) != CRC_RESIDUE:
                return at + place, last, records
            if fields[4] != begin:
                # the first record of an append lies where the append begins; anything else is none of ours
                begin = fields[4]
                if begin != at + place:
                    return at + place, last, records
                for record in last:
                    apply(record)
                last = []
            last.append(new(Record, (*fields, at + place, data[body : end - 4])))
            records += 1
            place = end
        if place == 0:
            return at, last, records
        at += place


def _check_torn(segment: SegmentReader, prefix: bytes, bad: int, rest: bytes) -> None:
    """Raise Damaged if `rest`, which begins at the bad place, holds proof that the place was once sound."""
    place = rest.find(prefix, 1)
    while place >= 0:
        header = header_at(rest, place, prefix, bad + place)
        if header is not None and bad < header.begin <= header.offset:
            body = place + HEADER_BYTES
            if payload_in(rest[body : body + header.length + 4]) is not None:
                why = f"no sound record, but one that was written later at {header.offset}"
                raise segment.damaged(bad, why)
        place = rest.find(prefix, place + 1)
