"""Records asked for one after another, read many at a time.

A reader's `record` costs a system call each. Who goes through the log, forwards or backwards, asks here: when
two records asked for lie near each other, the bytes around the second are kept, and most of what follows is
found in them. Everything is checked as the reader does it. Whatever does not come out of the kept bytes
whole and sound is asked of the reader, who knows what to say about it.
"""

import os
from bisect import bisect_right
from collections.abc import Callable
from zlib import crc32

from msgd.log.reader import Reader
from msgd.log.record import CRC_RESIDUE, HEADER_BYTES, Header, Record, header_at, payload_in, prefix_of
from msgd.log.segment import segment_path

BLOCK_BYTES = 256 << 10
BEHIND_BYTES = 32 << 10  # of a block that is read backwards: behind the place, so that its record is whole


class Ahead:
    """Reads what `reader` reads; `committed` says how far. Not for keeping: one pass, one process."""

    def __init__(self, reader: Reader, committed: Callable[[], int]) -> None:
        self._reader = reader
        self._committed = committed
        self._prefix = prefix_of(reader.log_id)
        self._block = b""
        self._start = 0  # log offset of the block
        self._last = -BLOCK_BYTES  # log offset asked for last

    @property
    def directory(self) -> str:
        """Of the log."""
        return self._reader.directory

    def record(self, offset: int) -> Record:
        """The record at `offset`, checked. Raises Damaged, LookupError."""
        at = self._at(offset)
        if at is not None:
            header = header_at(self._block, at, self._prefix, offset)
            if header is not None:
                start = at + HEADER_BYTES
                data = self._block[start : start + header.length + 4]
                payload = payload_in(data) if len(data) == header.length + 4 else None
                if payload is not None:
                    return Record._make((*header, payload))
        return self._reader.record(offset)

    def payload(self, header: Header) -> bytes:
        """The payload of a record, checked. Raises Damaged, LookupError."""
        offset, size = header.offset, header.length + 4
        at = self._at(offset)
        if at is not None:
            start = at + HEADER_BYTES
            data = self._block[start : start + size]
            if len(data) == size and crc32(data) == CRC_RESIDUE:
                return data[:-4]
        return self._reader.payload(header)

    def _at(self, offset: int) -> int | None:
        """The byte of the block where this log offset is; None if it is not worth a block."""
        at = offset - self._start
        if not 0 <= at <= len(self._block) - HEADER_BYTES:
            step = offset - self._last
            if -BLOCK_BYTES < step < BLOCK_BYTES:
                self._load(offset if step >= 0 else max(0, offset + BEHIND_BYTES - BLOCK_BYTES), offset)
                at = offset - self._start
            else:
                at = -1
        self._last = offset
        return at if 0 <= at <= len(self._block) - HEADER_BYTES else None

    def _load(self, start: int, offset: int) -> None:
        """Keep the bytes from `start` on, as far as they belong to the segment that holds `offset`."""
        self._block = b""
        bases = self._reader.segments()
        number = bisect_right(bases, offset) - 1
        if number < 0:
            return
        base = bases[number]
        stop = min(self._committed(), *bases[number + 1 : number + 2], start + BLOCK_BYTES)
        self._start = max(start, base)
        try:
            fd = os.open(segment_path(self._reader.directory, base), os.O_RDONLY)
        except OSError:
            return  # the reader will say it better
        try:
            self._block = os.pread(fd, max(0, stop - self._start), self._start - base)
        except OSError:
            pass
        finally:
            os.close(fd)
