"""Golden bytes: a segment of each format version, as it was once written, is read for ever.

`golden/log-v1.log` was written by `written` below when version 1 was new. A new version gets a file of its
own beside it; this one is never written again.
"""

from pathlib import Path

import msgspec
import pytest

from msgd.log.reader import Reader
from msgd.log.record import KIND_NAMES, Kind, decode_ranges, encode_ranges
from msgd.log.store import Store
from msgd.wire.codec import Message, encode
from tests.log_book import TestClock
from tests.log_disk import Disk

GOLDEN = Path(__file__).parent / "golden" / "log-v1.log"
NAME = f"{0:020d}.log"
HEAD = bytes(range(32))
MESSAGES = [
    Message(bytes(range(16)), 0, 1_800_000_000_000_000_001, "root", {}, b"hola"),
    Message(bytes(range(16, 32)), 2, 1_800_000_000_000_000_002, "eva", {"k": "v\u00fc"}, bytes(300)),
]
RAW = [encode(message) for message in MESSAGES]

# offset, kind, direction, flags, length, begin, peer, count, first_seq, aux
EXPECTED = [
    (0, "checkpoint", 0, 0, 7, 0, 0, 0, 0, 0),
    (131, "checkpoint", 0, 1, 0, 131, 0, 0, 0, 0),
    (255, "out", 1, 0, 384, 255, 1, 2, 1, 0),
    (763, "in", 2, 0, 41, 255, 2, 1, 1 << 40, 0),
    (928, "receipt", 1, 0, 0, 928, 1, 0, 2, 1_800_000_000_000_000_003),
    (1052, "held", 1, 0, 384, 1052, 1, 2, 0, 1_900_000_000_000_000_000),
    (1560, "released", 1, 0, 40, 1560, 1, 2, 3, 0),
    (1724, "ended", 1, 0, 24, 1724, 1, 0, 0, 0),
    (1872, "peer", 0, 0, 4, 1724, 1, 0, 0, 0),
    (2000, "epoch", 2, 0, 5, 1724, 1, 0, 0, 0),
    (2129, "cursor", 0, 0, 6, 1724, 0, 0, 0, 0),
    (2259, "clock_step", 0, 0, 10, 1724, 0, 0, 0, 0),
]


def written() -> bytes:
    """The same segment, written by this msgd."""
    disk = Disk()
    store = Store("/log", TestClock(), files=disk)
    store.recover(lambda record: None, lambda: [b"state 1", b""])
    store.add(Kind.OUT, direction=1, peer=1, count=2, first_seq=1, head=HEAD, payload=b"".join(RAW))
    store.add(Kind.IN, direction=2, peer=2, count=1, first_seq=1 << 40, head=HEAD, payload=RAW[0])
    store.commit()
    store.add(Kind.RECEIPT, direction=1, peer=1, first_seq=2, head=HEAD, aux=1_800_000_000_000_000_003)
    store.commit()
    aux = 1_900_000_000_000_000_000
    held = store.add(Kind.HELD, direction=1, peer=1, count=2, aux=aux, payload=b"".join(RAW))
    store.commit()
    ranges = [(held, len(RAW[0]), len(RAW[1]), 1), (held, 0, len(RAW[0]), 1)]
    store.add(
        Kind.RELEASED, direction=1, peer=1, count=2, first_seq=3, head=HEAD, payload=encode_ranges(ranges)
    )
    store.commit()
    ended = msgspec.msgpack.encode(["expired", "too late", [[held, 1]]])
    store.add(Kind.ENDED, direction=1, peer=1, payload=ended)
    for kind, direction in ((Kind.PEER, 0), (Kind.EPOCH, 2), (Kind.CURSOR, 0), (Kind.CLOCK_STEP, 0)):
        peer = 1 if kind in (Kind.PEER, Kind.EPOCH) else 0
        store.add(kind, direction=direction, peer=peer, payload=KIND_NAMES[kind].encode())
    store.commit()
    return disk.files()[NAME][: store.committed]


@pytest.fixture
def reader() -> Reader:
    disk = Disk()
    disk.mkdir("/log")
    disk.plant(NAME, GOLDEN.read_bytes())
    size = len(GOLDEN.read_bytes())
    return Reader("/log", lambda: size, files=disk)


def test_version_1_is_read(reader: Reader) -> None:
    """Every record of the golden segment is found with the fields that it was written with."""
    found = [
        (
            h.offset,
            KIND_NAMES[h.kind],
            h.direction,
            h.flags,
            h.length,
            h.begin,
            h.peer,
            h.count,
            h.first_seq,
            h.aux,
        )
        for h in reader.headers()
    ]
    assert found == EXPECTED
    assert reader.log_id == b"log-id-0"


def test_version_1_gives_back_its_payloads(reader: Reader) -> None:
    """Messages, also those put together from ranges, and opaque payloads are the ones of then."""
    by_kind = {KIND_NAMES[h.kind]: h for h in reader.headers()}
    assert reader.messages(by_kind["out"]) == MESSAGES
    assert reader.messages(by_kind["in"]) == MESSAGES[:1]
    assert reader.messages(by_kind["released"]) == MESSAGES[::-1]
    assert decode_ranges(reader.payload(by_kind["released"]))[0][0] == by_kind["held"].offset
    assert reader.payload(by_kind["clock_step"]) == b"clock_step"
    assert by_kind["out"].head == HEAD
    assert (by_kind["out"].wall_ns, by_kind["out"].boot_ns) == (1_800_000_000_000_002_000, 5_000_002_000)
    assert by_kind["out"].start == b"boot-id-start-01"


def test_this_msgd_writes_version_1() -> None:
    """The same calls give the same bytes: a change of the format is a new version, not an accident."""
    assert written() == GOLDEN.read_bytes()
