"""Read the log while another process writes it: one record by its offset, or headers in a row.

Nothing beyond `committed()` is ever read. A segment ends where the next one's name says, whatever its file
holds beyond that. The list of segments is read again whenever the known ones do not hold what is asked
for, so a roll needs no message. Every CRC is checked. What is not sound raises `Damaged`, or is told to
`on_damage`: then the walk goes on at the next append that is sound.

Only `pread`, so a reader may be used on both sides of a fork. At most `MAX_OPEN` files are open. A reader
is good for one run of the log process: a start may move the last append (`recovery`).
"""

import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from zlib import crc32

from msgd.log.errors import Damaged
from msgd.log.files import REAL_FILES, Files, let_go
from msgd.log.record import (
    CRC_RESIDUE,
    FIELDS,
    HEADER_BYTES,
    LOG_ID_BYTES,
    MAGIC,
    OVERHEAD_BYTES,
    PREFIX_BYTES,
    Header,
    Kind,
    Record,
    decode_ranges,
    header_at,
    payload_in,
)
from msgd.log.scan import SegmentReader, read_prefix
from msgd.log.segment import list_bases, segment_path
from msgd.wire.codec import Message, decode_payload

MAX_OPEN = 16  # files
CHUNK_BYTES = 256 << 10  # read at once by a walk
GUESS_BYTES = 4096  # read at once for one record: most end within
BACK_HEADERS = 1024  # decoded at once by a walk backwards
RESYNC_BYTES = 4 << 20  # searched at once for the next sound append

OnDamage = Callable[[Damaged], None]


class Reader:
    """The log in `directory` as far as `committed()` goes. Opens nothing before it is asked for something."""

    def __init__(self, directory: str, committed: Callable[[], int], *, files: Files = REAL_FILES) -> None:
        self.directory = directory
        self._committed = committed
        self._files = files
        self._bases: list[int] = []
        self._open: dict[int, SegmentReader] = {}  # by base; the one used last stands last
        self._prefix = b""

    @property
    def committed(self) -> int:
        """The log offset before which everything is on disk."""
        return self._committed()

    @property
    def first(self) -> int:
        """The lowest log offset that is kept."""
        return self.segments()[0]

    @property
    def log_id(self) -> bytes:
        """The random id of the log."""
        return self._known_prefix()[len(MAGIC) : len(MAGIC) + LOG_ID_BYTES]

    def segments(self) -> list[int]:
        """The log offsets at which the segments begin now. Raises LookupError if there are none."""
        self._bases = list_bases(self._files, self.directory)
        if not self._bases:
            raise LookupError(f"no log in {self.directory}")
        return list(self._bases)

    def record(self, offset: int) -> Record:
        """The record at `offset`, checked. Raises LookupError (not kept, not committed) or Damaged."""
        prefix = self._known_prefix()
        for segment, _ in self._segments_at(offset):
            data = segment.read(offset, GUESS_BYTES)
            header = header_at(data, 0, prefix, offset)
            if header is not None:
                payload = _payload_at(segment, header, data)
                if payload is None:
                    raise segment.damaged(offset, "the payload is not what was written")
                return Record._make((*header, payload))
        raise segment.damaged(offset, "no sound record")

    def payload(self, header: Header | Record) -> bytes:
        """The payload of a record, checked. Raises LookupError or Damaged."""
        if isinstance(header, Record):
            return header.payload
        for segment, _ in self._segments_at(header.offset):
            payload = _payload_at(segment, header, b"")
            if payload is not None:
                return payload
        raise segment.damaged(header.offset, "the payload is not what was written")

    def batch(self, header: Header | Record) -> bytes:
        """The messages of an `out`, `in` or `held` record, or of a `released` one, put together."""
        if header.kind != Kind.RELEASED:
            return self.payload(header)
        pieces, source = [], None
        for offset, start, length, _ in decode_ranges(self.payload(header)):
            if source is None or source.offset != offset:
                source = self.record(offset)
            pieces.append(source.payload[start : start + length])
        return b"".join(pieces)

    def messages(self, header: Header | Record) -> list[Message]:
        """The same, decoded. Raises msgspec.MsgspecError when they are no messages."""
        return decode_payload(self.batch(header), header.count)

    def headers(
        self, start: int | None = None, stop: int | None = None, *, on_damage: OnDamage | None = None
    ) -> Iterator[Header]:
        """The headers of the records from `start` on, as far as is committed now, or to `stop`.

        `start` is the place of a record; what is no longer kept is passed over. Payloads are neither asked
        for nor checked. Raises Damaged, unless there is an `on_damage` to tell.
        """
        limit = self._limit(stop)
        if limit <= (start or 0):
            return
        try:
            self._known_prefix()
        except Damaged as damage:
            if on_damage is None:
                raise
            on_damage(damage)
            return
        at = self.first if start is None else max(start, (self._bases or self.segments())[0])
        while at < limit:
            try:
                found = self._headers_at(at, limit)
            except Damaged as damage:
                if on_damage is None:
                    raise
                on_damage(damage)
                at = self._next_append(at + 1, limit)
            else:
                yield from found
                at = found[-1].end

    def headers_back(self, stop: int | None = None, *, on_damage: OnDamage | None = None) -> Iterator[Header]:
        """The headers of the records before `stop`, the newest first; otherwise as `headers`.

        Each segment is walked through once before its newest record comes, but never kept in memory: only
        the place of every thousandth record is.
        """
        limit = self._limit(stop)
        for base in reversed(self.segments()):
            if base >= limit:
                continue
            marks = array("Q", [base])
            for number, header in enumerate(self.headers(base, limit, on_damage=on_damage), 1):
                if number % BACK_HEADERS == 0:
                    marks.append(header.end)
            for mark in reversed(marks):
                yield from reversed(list(self.headers(mark, limit, on_damage=_told_already)))
                limit = mark

    def close(self) -> None:
        """Close the files. The reader may be used again."""
        for segment in self._open.values():
            let_go(self._files, segment.fd)
        self._open.clear()

    # ---- steps

    def _limit(self, stop: int | None) -> int:
        committed = self._committed()
        return committed if stop is None else min(stop, committed)

    def _headers_at(self, at: int, limit: int) -> list[Header]:
        """The headers from `at` on, as many as one read brings and at least one. Raises Damaged."""
        prefix = self._known_prefix()
        for segment, stop in self._segments_at(at):
            size = min(CHUNK_BYTES, min(stop, limit) - at)
            found = _headers_in(segment.read(at, size), at, prefix)
            if found:
                return found
        raise segment.damaged(at, "no sound record")

    def _next_append(self, at: int, limit: int) -> int:
        """The first place from `at` on where a sound append begins, or a segment does; or `limit`."""
        prefix = self._known_prefix()
        while at < limit:
            segment, stop = self._place(at)
            try:
                data = segment.read(at, min(RESYNC_BYTES, min(stop, limit) - at))
            except Damaged:
                return stop
            place = _append_in(data, at, prefix)
            if place is not None:
                return at + place
            if at + len(data) >= min(stop, limit) or len(data) < HEADER_BYTES:
                return stop
            at += len(data) - HEADER_BYTES + 1
        return limit

    def _known_prefix(self) -> bytes:
        """What every record begins with, from the newest segment that can say so."""
        if not self._prefix:
            self._prefix = self._read_prefix()
        return self._prefix

    def _read_prefix(self) -> bytes:
        bases = self.segments()
        for base in reversed(bases):
            try:
                return read_prefix(self._segment(base))
            except Damaged as damage:
                first = damage
        for base in bases:  # all first records are damaged: others say it as well
            data = self._segment(base).read(base, RESYNC_BYTES)
            place = _append_in(data, base, MAGIC)
            if place is not None:
                return data[place : place + PREFIX_BYTES]
        raise first

    def _segments_at(self, at: int) -> Iterator[tuple[SegmentReader, int]]:
        """As `_place`; whoever asks for more gets what the directory says now, if that is another segment."""
        known = self._place(at)
        yield known
        self.segments()
        now = self._place(at)
        if now[0].base != known[0].base:
            yield now

    def _place(self, at: int) -> tuple[SegmentReader, int]:
        """The segment that holds `at` as far as is known, and the log offset where it ends."""
        committed = self._committed()
        if at >= committed:
            raise LookupError(f"log offset {at} is not committed")
        bases = self._bases or self.segments()
        number = bisect_right(bases, at) - 1
        if number < 0:
            raise LookupError(f"log offset {at} is not kept any more")
        stop = bases[number + 1] if number + 1 < len(bases) else committed
        return self._segment(bases[number]), min(stop, committed)

    def _segment(self, base: int) -> SegmentReader:
        """The open segment at `base`. Asking for another may close it: ask again rather than keep it."""
        segment = self._open.pop(base, None)
        if segment is None:
            segment = self._open_segment(base)
            if len(self._open) >= MAX_OPEN:
                let_go(self._files, self._open.pop(next(iter(self._open))).fd)
        self._open[base] = segment
        return segment

    def _open_segment(self, base: int) -> SegmentReader:
        path = segment_path(self.directory, base)
        try:
            return SegmentReader(self._files, path, base, self._files.open(path, os.O_RDONLY))
        except FileNotFoundError:
            self._bases = []  # read the directory again
            raise LookupError(f"{path} is not kept any more") from None


def _headers_in(data: bytes, offset: int, prefix: bytes) -> list[Header]:
    """The headers of the records that stand in a row in `data`, which begins at log offset `offset`.

    Ends at the first that is not sound or not all there. One loop, all names local: a million in a second.
    """
    found: list[Header] = []
    unpack, new, add = FIELDS.unpack_from, tuple.__new__, found.append
    place, last = 0, len(data) - HEADER_BYTES
    while place <= last:
        if crc32(data[place : place + HEADER_BYTES]) != CRC_RESIDUE:
            break
        if data[place : place + PREFIX_BYTES] != prefix:
            break
        fields = unpack(data, place + PREFIX_BYTES)
        add(new(Header, (*fields, offset + place)))
        place += fields[3] + OVERHEAD_BYTES
    return found


def _append_in(data: bytes, offset: int, prefix: bytes) -> int | None:
    """Where in `data`, which begins at log offset `offset`, a sound first record of an append stands.

    It says itself where it stands, which no copy of a record in a message body does. `prefix` may be just
    the beginning of one.
    """
    place = data.find(prefix)
    while place >= 0:
        header = header_at(data, place, data[place : place + PREFIX_BYTES], offset + place)
        if header is not None and header.begin == header.offset:
            return place
        place = data.find(prefix, place + 1)
    return None


def _payload_at(segment: SegmentReader, header: Header, data: bytes) -> bytes | None:
    """The payload behind a header, None if it is not sound; `data` was read from the header's place on."""
    part = data[HEADER_BYTES : HEADER_BYTES + header.length + 4]
    if len(part) < header.length + 4:
        part = segment.read(header.offset + HEADER_BYTES, header.length + 4)
    return payload_in(part) if len(part) == header.length + 4 else None


def _told_already(damage: Damaged) -> None:
    """The first walk over the segment has told this damage."""
