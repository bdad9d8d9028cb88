"""Read the log while another process writes it: one record by its offset, or headers in a row.

Nothing beyond `committed()` is ever read. A segment ends where the next one's name says, whatever its file
holds beyond that. The list of segments is read again whenever the known ones do not hold what is asked
for, so a roll needs no message. Every CRC is checked. What is not sound raises `Damaged`, or is told to
`on_damage`: then the walk goes on at the next append that is sound. What is no longer kept raises
`LookupError`, and a walk passes over it.

Only `pread`, so a reader may be used on both sides of a fork. At most `MAX_OPEN` files are open. A reader
is good for one run of the log process: a start may move the last append (`recovery`).
"""

import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator

from msgd.log.errors import Damaged
from msgd.log.files import REAL_FILES, Files, let_go
from msgd.log.record import (
    LOG_ID_BYTES,
    MAGIC,
    PREFIX_BYTES,
    Header,
    Kind,
    Record,
    decode_ranges,
    header_at,
)
from msgd.log.scan import SegmentReader, read_prefix
from msgd.log.segment import Extent, list_extents, segment_path
from msgd.log.sound import RESYNC_BYTES, append_in, headers_in, next_append, payload_at
from msgd.wire.codec import Message, decode_payload

MAX_OPEN = 16  # files
CHUNK_BYTES = 256 << 10  # read at once by a walk
GUESS_BYTES = 4096  # read at once for one record: most end within
NO_END = 1 << 63  # where the newest of the known segments stops: what is committed says it
BACK_HEADERS = 1024  # decoded at once by a walk backwards

OnDamage = Callable[[Damaged], None]


class Reader:
    """The log in `directory` as far as `committed()` goes. Opens nothing before it is asked for something."""

    def __init__(self, directory: str, committed: Callable[[], int], *, files: Files = REAL_FILES) -> None:
        self.directory = directory
        self._committed = committed
        self._files = files
        self._known: list[Extent] = []  # as the directory was when it was read last
        self._bases: list[int] = []  # of those, to look for one
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
        """The log offsets at which the segments begin that are kept now. Raises LookupError if none are."""
        return [extent.base for extent in self._look()]

    def extents(self) -> list[Extent]:
        """What is kept now and committed, in order; what lies between two is not kept any more.

        Raises LookupError if there is no log.
        """
        known, committed = self._look(), self._committed()
        return [Extent(base, min(stop, committed)) for base, stop in known if base < committed]

    def extent_at(self, offset: int) -> Extent:
        """The one that holds `offset`. Raises LookupError (not kept, not committed)."""
        try:
            return self._extent_at(offset)
        except LookupError:
            self._look()
            return self._extent_at(offset)

    def block(self, at: int, size: int) -> bytes:
        """Up to `size` bytes from log offset `at` on, as they are: nothing of them is checked.

        Not beyond the segment, nor what is committed. Raises LookupError (not kept, not committed), Damaged.
        """
        for segment, stop in self._segments_at(at):
            data = segment.read(at, min(size, stop - at))
            if data:
                break
        return data

    def record(self, offset: int) -> Record:
        """The record at `offset`, checked. Raises LookupError (not kept, not committed) or Damaged."""
        prefix = self._known_prefix()
        for segment, _ in self._segments_at(offset):
            data = segment.read(offset, GUESS_BYTES)
            header = header_at(data, 0, prefix, offset)
            if header is not None:
                payload = payload_at(segment, header, data)
                if payload is None:
                    raise segment.damaged(offset, "the payload is not what was written")
                return Record._make((*header, payload))
        raise segment.damaged(offset, "no sound record")

    def payload(self, header: Header | Record) -> bytes:
        """The payload of a record, checked. Raises LookupError or Damaged."""
        if isinstance(header, Record):
            return header.payload
        for segment, _ in self._segments_at(header.offset):
            payload = payload_at(segment, header, b"")
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
        at = self.first if start is None else start
        while at < limit:
            try:
                found = self._headers_at(at, limit)
            except LookupError:
                at = self._kept_from(at, limit)
            except Damaged as damage:
                if on_damage is None:
                    raise
                on_damage(damage)
                at = self.append_from(at + 1, limit)
            else:
                yield from found
                at = found[-1].end

    def append_from(self, at: int, limit: int) -> int:
        """The first place from `at` on where a sound append begins or a segment stops; or `limit`."""
        if at >= limit:
            return limit
        try:
            base, stop = self._extent_at(at)
            segment = self._segment(base)
        except LookupError:
            return at
        except Damaged:
            return min(stop, limit)
        return next_append(segment, at, min(stop, limit), self._known_prefix())

    def headers_back(self, stop: int | None = None, *, on_damage: OnDamage | None = None) -> Iterator[Header]:
        """The headers of the records before `stop`, the newest first; otherwise as `headers`.

        Each segment is walked through once before its newest record comes, but never kept in memory: only
        the place of every thousandth record is.
        """
        limit = self._limit(stop)
        for base, stop in reversed(self._look()):
            if base >= limit:
                continue
            limit = min(limit, stop)
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

    def _look(self) -> list[Extent]:
        """Read the directory, and close the files of segments that are not kept any more."""
        self._known = list_extents(self._files, self.directory, NO_END)
        if not self._known:
            raise LookupError(f"no log in {self.directory}")
        self._bases = [extent.base for extent in self._known]
        for base in self._open.keys() - set(self._bases):
            let_go(self._files, self._open.pop(base).fd)
        return self._known

    def _limit(self, stop: int | None) -> int:
        committed = self._committed()
        return committed if stop is None else min(stop, committed)

    def _headers_at(self, at: int, limit: int) -> list[Header]:
        """The headers from `at` on, as many as one read brings and at least one. Raises Damaged."""
        prefix = self._known_prefix()
        for segment, stop in self._segments_at(at):
            size = min(CHUNK_BYTES, min(stop, limit) - at)
            found = headers_in(segment.read(at, size), at, prefix)
            if found:
                return found
        raise segment.damaged(at, "no sound record")

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
            place = append_in(data, base, MAGIC)
            if place is not None:
                return data[place : place + PREFIX_BYTES]
        raise first

    def _kept_from(self, at: int, limit: int) -> int:
        """The first place from `at` on that is kept now; or `limit`."""
        for base, stop in self._look():
            if stop > at:
                return min(max(at, base), limit)
        return limit

    def _segments_at(self, at: int) -> Iterator[tuple[SegmentReader, int]]:
        """As `_place`; whoever asks for more gets what the directory says now, if that is another segment."""
        known = self._place(at)
        yield known
        self._look()
        now = self._place(at)
        if now[0].base != known[0].base:
            yield now

    def _place(self, at: int) -> tuple[SegmentReader, int]:
        """The segment that holds `at` as far as is known, and the log offset where it ends."""
        base, stop = self._extent_at(at)
        return self._segment(base), stop

    def _extent_at(self, at: int) -> Extent:
        """As `extent_at`, as far as is known."""
        committed = self._committed()
        if at >= committed:
            raise LookupError(f"log offset {at} is not committed")
        known = self._known or self._look()
        base, stop = known[max(0, bisect_right(self._bases, at) - 1)]
        if not base <= at < stop:
            raise LookupError(f"log offset {at} is not kept any more")
        return Extent(base, min(stop, committed))

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
            if any(base == listed for listed, _ in self._look()):  # a link that leads nowhere
                raise Damaged(path, base, "is listed, and is not there") from None
            raise LookupError(f"{path} is not kept any more") from None


def _told_already(damage: Damaged) -> None:
    """The first walk over the segment has told this damage."""
