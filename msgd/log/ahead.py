"""Records asked for one after another, read many at a time.

A reader's `record` costs a system call each. Who goes through the log, forwards or backwards, asks here: when
two records asked for lie near each other, the bytes around the second are kept, and most of what follows is
found in them. Everything is checked as the reader does it. Whatever does not come out of the kept bytes
whole and sound is asked of the reader, who knows what to say about it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from zlib import crc32

from msgd.log.errors import Damaged
from msgd.log.reader import OnDamage, Reader
from msgd.log.record import (
    CRC_RESIDUE,
    HEADER_BYTES,
    OVERHEAD_BYTES,
    Header,
    Record,
    header_at,
    payload_in,
    prefix_of,
    record_in,
)
from msgd.log.segment import segment_path

BLOCK_BYTES = 256 << 10
MOST_SUMS = 4096
BEHIND_BYTES = 32 << 10  # of a block that is read backwards: behind the place, so that its record is whole

Has = Callable[[bytes], bool]

_LOOK = Struct("<13s3xI")  # prefix and length of the payload in a header


class _Sums(dict[int, int]):
    """CRC-32 of a whole record by its size: header and payload end with theirs, so nothing else counts."""

    def __missing__(self, size: int) -> int:
        if len(self) >= MOST_SUMS:
            self.clear()
        header, payload = bytes(HEADER_BYTES - 4), bytes(max(size - OVERHEAD_BYTES, 0))
        whole = (header, crc32(header).to_bytes(4, "little"), payload, crc32(payload).to_bytes(4, "little"))
        found = self[size] = crc32(b"".join(whole))
        return found


class Ahead:
    """Reads what `reader` reads; `committed` says how far. Not for keeping: one pass, one process."""

    def __init__(self, reader: Reader, committed: Callable[[], int]) -> None:
        self._reader = reader
        self._committed = committed
        self._prefix = prefix_of(reader.log_id)
        self._block = b""
        self._start = 0  # log offset of the block
        self._last = -BLOCK_BYTES  # log offset asked for last
        self._sums = _Sums()

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

    def records(
        self, offsets: Sequence[int], may_fit: Has | None, on_damage: OnDamage
    ) -> Iterator[tuple[int, Record]]:
        """The records at these offsets, which go up or down, each with its place in the list.

        Without those that cannot be read, and those whose bytes `may_fit` refuses; these are checked all the
        same, since what is damaged might have fit. As `record`, in one loop at a third of the price.
        """
        for number, found in self.raw(offsets, may_fit, on_damage):
            yield number, record_in(found, offsets[number]) if isinstance(found, bytes) else found

    def raw(
        self, offsets: Sequence[int], may_fit: Has | None, on_damage: OnDamage
    ) -> Iterator[tuple[int, bytes | Record]]:
        """As `records`, most of them as their bytes: header and payload, each with its CRC."""
        prefix, look, sums = self._prefix, _LOOK.unpack_from, self._sums
        block, start, most = b"", 0, -1
        has_some = True
        for number, offset in enumerate(offsets):
            at = offset - start
            if not 0 <= at <= most:
                self._last = offsets[number - 1] if number else self._last
                self._at(offset)
                if self._block is not block:
                    block, start = self._block, self._start
                    most = len(block) - OVERHEAD_BYTES
                    has_some = may_fit is None or may_fit(block)
                at = offset - start
            if 0 <= at <= most:
                begin, length = look(block, at)
                size = OVERHEAD_BYTES + length
                data = block[at : at + size]
                if len(data) == size and crc32(data) == sums[size] and begin == prefix:
                    if has_some and (may_fit is None or may_fit(data)):
                        yield number, data
                    continue
            record = self._singly(offset, may_fit, on_damage)
            if record is not None:
                yield number, record
        self._last = offsets[-1] if offsets else self._last

    def _singly(self, offset: int, may_fit: Has | None, on_damage: OnDamage) -> Record | None:
        try:
            record = self._reader.record(offset)
        except Damaged as damaged:
            on_damage(damaged)
            return None
        except LookupError:
            return None
        return record if may_fit is None or may_fit(record.payload) else None

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
        try:
            base, stop = self._reader.extent_at(offset)
            fd = os.open(segment_path(self._reader.directory, base), os.O_RDONLY)
        except (LookupError, OSError):
            return  # the reader will say it better
        self._start = max(start, base)
        try:
            size = min(stop, self._committed(), start + BLOCK_BYTES) - self._start
            self._block = os.pread(fd, max(0, size), self._start - base)
        except OSError:
            pass
        finally:
            os.close(fd)
