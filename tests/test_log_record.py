"""One record: its bytes as the package's table says, and the checks that tell it from everything else."""

import re
import struct
from zlib import crc32

import pytest

import msgd.log
from msgd.log.record import (
    CRC_RESIDUE,
    HEADER_BYTES,
    KIND_NAMES,
    OVERHEAD_BYTES,
    Header,
    Kind,
    Record,
    decode_ranges,
    encode_ranges,
    header_at,
    pack_record,
    payload_in,
    prefix_of,
    record_size,
)

PREFIX = prefix_of(b"log-id-0")
FIELDS = (3, 1, 0, 5, 1000, 7, 2, 9, 11, b"h" * 32, 13, 17, b"s" * 16)
RECORD = pack_record(PREFIX, FIELDS, b"hello")


def test_layout_is_the_table_of_the_package() -> None:
    """Every field stands at the byte that the package's docstring gives, little-endian."""
    places = dict(re.findall(r"^\| (\d+) \| \w+ \| (\w+) \|", msgd.log.__doc__ or "", re.M))
    codes = {"u8": "B", "u32": "I", "u64": "Q"}
    values = [
        struct.unpack_from("<" + codes.get(kind, kind), RECORD, int(at))[0] for at, kind in places.items()
    ]
    expected = [b"msgR", b"log-id-0", 1, *FIELDS, crc32(RECORD[:116])]
    assert expected == values


def test_payload_is_followed_by_its_crc() -> None:
    """Header, payload, CRC-32 of the payload; nothing else."""
    assert RECORD[HEADER_BYTES:] == b"hello" + crc32(b"hello").to_bytes(4, "little")
    assert len(RECORD) == record_size(5) == OVERHEAD_BYTES + 5


def test_table_of_kinds_is_the_table_of_the_package() -> None:
    """Numbers and names of the kinds are those in the package's docstring."""
    rows = re.findall(
        r"^\| ([\d ]+) \| ([a-z_, ]+) \|", (msgd.log.__doc__ or "").partition("\n| kind |")[2], re.M
    )
    told = {
        int(n): name
        for numbers, names in rows
        for n, name in zip(numbers.split(), names.split(", "), strict=True)
    }
    assert told == KIND_NAMES


def test_header_is_read_back() -> None:
    """What was packed is what is read, with the place that it was read from."""
    header = header_at(b"xx" + RECORD, 2, PREFIX, 1040)
    assert header == Header(*FIELDS, offset=1040)
    assert header is not None and header.end == 1040 + len(RECORD)
    assert payload_in(RECORD[HEADER_BYTES:]) == b"hello"


def test_record_and_header_have_the_same_fields() -> None:
    """A record is a header and a payload; its end is computed alike."""
    assert (*Header._fields, "payload") == Record._fields
    assert Record(*FIELDS, offset=5, payload=b"hello").end == Header(*FIELDS, offset=5).end


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_of_a_header_is_seen(bit: int) -> None:
    """No header with one wrong bit passes for a sound one."""
    for at in range(HEADER_BYTES):
        bad = bytearray(RECORD)
        bad[at] ^= 1 << bit
        assert header_at(bytes(bad), 0, PREFIX, 0) is None


@pytest.mark.parametrize("payload", [b"", b"\0", b"hello", bytes(100)])
def test_every_flipped_bit_of_a_payload_is_seen(payload: bytes) -> None:
    """No payload with one wrong bit, in itself or in its CRC, passes for a sound one."""
    sound = payload + crc32(payload).to_bytes(4, "little")
    assert payload_in(sound) == payload
    for bit in range(8 * len(sound)):
        bad = bytearray(sound)
        bad[bit // 8] ^= 1 << bit % 8
        assert payload_in(bytes(bad)) is None


def test_crc_over_data_and_its_crc_is_one_constant() -> None:
    """The check that the code uses is the check of the CRC."""
    for data in (b"", b"a", bytes(1000), RECORD):
        assert crc32(data + crc32(data).to_bytes(4, "little")) == CRC_RESIDUE


def test_record_of_another_log_or_version_is_none() -> None:
    """A sound header with another log's id, or of another format version, is not one of this log."""
    assert header_at(pack_record(prefix_of(b"log-id-1"), FIELDS, b"hello"), 0, PREFIX, 0) is None
    newer = PREFIX[:-1] + b"\x02"
    assert header_at(pack_record(newer, FIELDS, b"hello"), 0, PREFIX, 0) is None


def test_header_cut_short_is_none() -> None:
    """Less than a header is not a header."""
    assert all(header_at(RECORD[:size], 0, PREFIX, 0) is None for size in range(HEADER_BYTES))
    assert payload_in(b"\0\0\0") is None


def test_ranges_are_read_back() -> None:
    """The payload of a `released` record holds its ranges, 20 bytes each; anything else is refused."""
    ranges = [(1 << 40, 0, 100, 3), (2 << 40, 50, 7, 1)]
    payload = encode_ranges(ranges)
    assert payload[:20] == struct.pack("<QIII", *ranges[0])
    assert ranges == decode_ranges(payload)
    with pytest.raises(ValueError, match="no ranges"):
        decode_ranges(payload[:-1])


def test_kinds_are_distinct() -> None:
    """Each kind has a number of its own and a name."""
    numbers = [value for name, value in vars(Kind).items() if name.isupper()]
    assert sorted(numbers) == sorted(KIND_NAMES) == list(range(1, 13))
