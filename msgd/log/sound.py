"""What is sound in bytes that were read from the log: headers in a row, the next append, one payload."""

from zlib import crc32

from msgd.log.errors import Damaged
from msgd.log.record import (
    CRC_RESIDUE,
    FIELDS,
    HEADER_BYTES,
    OVERHEAD_BYTES,
    PREFIX_BYTES,
    Header,
    header_at,
    payload_in,
)
from msgd.log.scan import SegmentReader

RESYNC_BYTES = 4 << 20  # searched at once for the next sound append


def headers_in(data: bytes, offset: int, prefix: bytes) -> list[Header]:
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


def append_in(data: bytes, offset: int, prefix: bytes) -> int | None:
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


def next_append(segment: SegmentReader, at: int, stop: int, prefix: bytes) -> int:
    """The first place from `at` on in a segment where a sound append begins; or `stop`."""
    while at < stop:
        try:
            data = segment.read(at, min(RESYNC_BYTES, stop - at))
        except Damaged:
            return stop
        place = append_in(data, at, prefix)
        if place is not None:
            return at + place
        if at + len(data) >= stop or len(data) < HEADER_BYTES:
            return stop
        at += len(data) - HEADER_BYTES + 1
    return stop


def payload_at(segment: SegmentReader, header: Header, data: bytes) -> bytes | None:
    """The payload behind a header, None if it is not sound; `data` was read from the header's place on."""
    part = data[HEADER_BYTES : HEADER_BYTES + header.length + 4]
    if len(part) < header.length + 4:
        part = segment.read(header.offset + HEADER_BYTES, header.length + 4)
    return payload_in(part) if len(part) == header.length + 4 else None
