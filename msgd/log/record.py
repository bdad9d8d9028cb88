"""One record of the log: its bytes, and the check that they are what was written.

A record is header, payload and CRC-32 of the payload (zlib, little-endian; all numbers are). The header's
fields in their order stand in the table of the package and, in code, in `Header` below, which begins after
magic, log id and version. The header ends with its own CRC-32.

The id of the log stands in every record: no bytes that a peer or a user writes can pass for a record of
this log unless they know it, and even a true copy of one lies in a wrong place (`Header.begin`).

A CRC-32 is checked by running over the data and the CRC together: the outcome is one constant.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from zlib import crc32

from msgd.model import MAX_APPEND_BYTES

MAGIC = b"msgR"
VERSION = 1
LOG_ID_BYTES = 8

_WRITE = struct.Struct("<13sBBBIQIIQQ32sQQ16s")  # magic, log and version, then the fields of Header
FIELDS = struct.Struct("<BBBIQIIQQ32sQQ16s")  # the fields of Header, without `offset`
PREFIX_BYTES = 13
WALL = slice(84, 92)  # `wall_ns` in a record: for who wants nothing else of it
_AUX = slice(44, 52)  # where it stands in a header
_RANGE = struct.Struct("<QIII")
HEADER_BYTES = _WRITE.size + 4
OVERHEAD_BYTES = HEADER_BYTES + 4  # of a record beside its payload
MAX_PAYLOAD_BYTES = MAX_APPEND_BYTES - OVERHEAD_BYTES
CRC_RESIDUE = 0x2144DF1C  # CRC-32 of anything followed by its own CRC-32

ZERO_HEAD = bytes(32)
FLAG_GROUP_ENDS = 1  # the last checkpoint of the group that a segment begins with
FLAG_HOLD_ENDS = 2  # held: `aux` counts only as long as the peer is not paired
FLAG_REPORTS = 4  # out, in, held, recovered: among its messages are reports (`wire.reports`)
FLAG_GROUP = 8  # out, held: one message, whose id may stand for other peers, too

Range = tuple[
    int, int, int, int
]  # of a held record: its log offset, first byte, bytes and messages of its payload


class Kind:
    """What a record tells. The numbers are on disk."""

    OUT: Final = 1  # messages with seq, from this node to the peer
    IN: Final = 2  # messages with seq, from the peer
    RECEIPT: Final = 3  # the peer holds everything up to first_seq
    HELD: Final = 4  # messages that have no seq yet
    RELEASED: Final = 5  # messages of held records that get their seqs
    ENDED: Final = 6  # messages that end other than by a receipt
    PEER: Final = 7
    EPOCH: Final = 8
    CURSOR: Final = 9
    CLOCK_STEP: Final = 10
    CHECKPOINT: Final = 11  # all that the records before it say of the present
    RECOVERED: Final = 12  # a batch of this node's own half of a pair, got back from the peer


KIND_NAMES = {
    Kind.OUT: "out",
    Kind.IN: "in",
    Kind.RECEIPT: "receipt",
    Kind.HELD: "held",
    Kind.RELEASED: "released",
    Kind.ENDED: "ended",
    Kind.PEER: "peer",
    Kind.EPOCH: "epoch",
    Kind.CURSOR: "cursor",
    Kind.CLOCK_STEP: "clock_step",
    Kind.CHECKPOINT: "checkpoint",
    Kind.RECOVERED: "recovered",
}


class Header(NamedTuple):
    """What stands before a payload. Tuples, because a start makes a quarter of a million of them."""

    kind: int
    direction: int  # 0 none, 1 out, 2 in
    flags: int
    length: int  # bytes of the payload
    begin: int  # log offset where the write began that carried this record
    peer: int  # local number of the peer, 0 none
    count: int  # type: ignore[assignment]  # messages; hides tuple.count, which nobody wants here
    first_seq: int
    aux: int  # held: expiry, wall ns, 0 never; receipt: the receiver's clock; a segment's first record: inode
    head: bytes
    wall_ns: int
    boot_ns: int
    start: bytes
    offset: int  # log offset of the record; not in the file, known from the place

    @property
    def end(self) -> int:
        """Log offset of the next record."""
        return self.offset + self.length + OVERHEAD_BYTES


class Record(NamedTuple):
    """A header together with its payload: the same fields, and `payload` at the end."""

    kind: int
    direction: int
    flags: int
    length: int
    begin: int
    peer: int
    count: int  # type: ignore[assignment]  # as above
    first_seq: int
    aux: int
    head: bytes
    wall_ns: int
    boot_ns: int
    start: bytes
    offset: int
    payload: bytes

    @property
    def end(self) -> int:
        """Log offset of the next record."""
        return self.offset + self.length + OVERHEAD_BYTES


def prefix_of(log_id: bytes) -> bytes:
    """The bytes that every record of this log begins with."""
    return b"%b%b%c" % (MAGIC, log_id, VERSION)


def record_size(payload_bytes: int) -> int:
    """Bytes that a record with such a payload takes."""
    return OVERHEAD_BYTES + payload_bytes


def pack_header(prefix: bytes, fields: Sequence[object]) -> bytes:
    """The header's bytes, CRC included. `fields` are those of Header without `offset`."""
    header = _WRITE.pack(prefix, *fields)
    return header + crc32(header).to_bytes(4, "little")


def pack_record(prefix: bytes, fields: Sequence[object], payload: bytes) -> bytes:
    """A whole record's bytes; `fields` as for `pack_header`."""
    return b"".join((pack_header(prefix, fields), payload, crc32(payload).to_bytes(4, "little")))


def record_in(data: bytes, offset: int) -> Record:
    """The record whose bytes these are, known to be sound, at this log offset."""
    return tuple.__new__(Record, (*FIELDS.unpack_from(data, PREFIX_BYTES), offset, data[HEADER_BYTES:-4]))


def kind_and_aux(data: bytes) -> tuple[int, int]:
    """Of the same: for who wants nothing else of it."""
    return data[PREFIX_BYTES], int.from_bytes(data[_AUX], "little")


def stamped(record: bytes, aux: int) -> bytes:
    """The same record with another `aux`."""
    header = record[: _AUX.start] + aux.to_bytes(8, "little") + record[_AUX.stop : HEADER_BYTES - 4]
    return header + crc32(header).to_bytes(4, "little") + record[HEADER_BYTES:]


def header_at(data: bytes, at: int, prefix: bytes, offset: int) -> Header | None:
    """The header at byte `at` of `data`, which is log offset `offset`; None if no sound one stands there."""
    if not data.startswith(prefix, at) or len(data) - at < HEADER_BYTES:
        return None
    if crc32(data[at : at + HEADER_BYTES]) != CRC_RESIDUE:
        return None
    return Header._make((*FIELDS.unpack_from(data, at + PREFIX_BYTES), offset))


def payload_in(data: bytes) -> bytes | None:
    """The payload in `data`, which is payload and CRC; None if the CRC is wrong."""
    return data[:-4] if crc32(data) == CRC_RESIDUE and len(data) >= 4 else None


def encode_ranges(ranges: Iterable[Range]) -> bytes:
    """The payload of a `released` record."""
    return b"".join([_RANGE.pack(*piece) for piece in ranges])


def decode_ranges(payload: bytes) -> list[Range]:
    """The ranges of a `released` record. Raises ValueError if `payload` is none."""
    if len(payload) % _RANGE.size:
        raise ValueError(f"{len(payload)} bytes are no ranges")
    return list(_RANGE.iter_unpack(payload))
