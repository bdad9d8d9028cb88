"""The simplest state that a log can tell, for the log's tests: a list of numbers, one for each record.

A record's payload begins with its number; the rest of its bytes follow from number and size, so what is
read back can be compared with what was written. A checkpoint holds the list so far.
"""

import itertools
import random
from collections.abc import Callable

import msgspec

from msgd.log.clock import Clock
from msgd.log.files import REAL_FILES, Files
from msgd.log.reader import Reader
from msgd.log.record import FLAG_GROUP_ENDS, Kind, Record
from msgd.log.recovery import Recovery
from msgd.log.store import SEGMENT_BYTES, Store

NUMBER_BYTES = 8
GROUP_NUMBERS = 50  # in one checkpoint record: small, so that groups have several


class TestClock(Clock):
    """Clocks of whole microseconds, one for each look at them; nothing in it is random."""

    __test__ = False

    def __init__(self, start: bytes = b"boot-id-start-01") -> None:
        self.wall_ns = itertools.count(1_800_000_000_000_000_000, 1000).__next__
        self.boot_ns = itertools.count(5_000_000_000, 1000).__next__
        self.mono_ns = itertools.count(1_000_000_000, 1000).__next__
        self.start = start


def payload_of(number: int, size: int = NUMBER_BYTES) -> bytes:
    """The payload of record `number`."""
    return number.to_bytes(NUMBER_BYTES, "big") + random.Random(number).randbytes(size - NUMBER_BYTES)


def number_of(payload: bytes) -> int:
    number = int.from_bytes(payload[:NUMBER_BYTES], "big")
    assert payload == payload_of(number, len(payload))
    return number


class Book:
    """The list, filled by a start, and the store that carries it on."""

    def __init__(
        self, directory: str, *, files: Files = REAL_FILES, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.numbers: list[int] = []
        self.applied: list[Record] = []
        self._in_group = False
        self.store = Store(directory, TestClock(), segment_bytes=segment_bytes, files=files)
        self.report: Recovery = self.store.recover(self._apply, self.checkpoint)

    def _apply(self, record: Record) -> None:
        self.applied.append(record)
        if record.kind != Kind.CHECKPOINT:
            self.numbers.append(number_of(record.payload))
            return
        if not self._in_group:
            self.numbers.clear()
        self.numbers += msgspec.msgpack.decode(record.payload, type=list[int])
        self._in_group = not record.flags & FLAG_GROUP_ENDS

    def checkpoint(self) -> list[bytes]:
        numbers = self.numbers
        cuts = range(0, max(len(numbers), 1), GROUP_NUMBERS)
        return [msgspec.msgpack.encode(numbers[at : at + GROUP_NUMBERS]) for at in cuts]

    def write(self, *numbers: int, size: int = NUMBER_BYTES) -> list[int]:
        """One append of these numbers, committed; returns their log offsets."""
        offsets = [self.add(number, size) for number in numbers]
        self.store.commit()
        self.numbers += numbers
        return offsets

    def add(self, number: int, size: int = NUMBER_BYTES) -> int:
        return self.store.add(
            Kind.OUT, peer=1, direction=1, count=1, first_seq=number, payload=payload_of(number, size)
        )

    def roll(self) -> None:
        self.store.roll(self.checkpoint())


def numbers_in(directory: str, committed: Callable[[], int], files: Files = REAL_FILES) -> list[int]:
    """What a reader finds in the whole log."""
    reader = Reader(directory, committed, files=files)
    found = [header for header in reader.headers() if header.kind != Kind.CHECKPOINT]
    numbers = [number_of(reader.payload(header)) for header in found]
    assert [header.first_seq for header in found] == numbers
    reader.close()
    return numbers
