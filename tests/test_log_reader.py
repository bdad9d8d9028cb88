"""Readers: what is committed and nothing else, over segments, damage, forks, and while the log is written."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from msgd.log.errors import Damaged
from msgd.log.page import SharedPage
from msgd.log.reader import BACK_HEADERS, CHUNK_BYTES, MAX_OPEN, Reader
from msgd.log.record import HEADER_BYTES, OVERHEAD_BYTES, Header, Kind, encode_ranges
from msgd.log.store import Store
from msgd.wire.codec import Message, encode
from tests.log_book import Book, TestClock, number_of, numbers_in, payload_of
from tests.log_disk import Disk

FIRST = f"{0:020d}.log"


class Logged:
    """A log in memory with its writer and a reader."""

    def __init__(self, segment_bytes: int = 1 << 26) -> None:
        self.disk = Disk()
        self.book = Book("/log", files=self.disk, segment_bytes=segment_bytes)
        self.reader = Reader("/log", lambda: self.book.store.committed, files=self.disk)

    def write(self, *numbers: int, size: int = 8) -> list[int]:
        if self.book.store.needs_roll:
            self.book.roll()
        return self.book.write(*numbers, size=size)

    def numbers(self, headers: list[Header]) -> list[int]:
        return [h.first_seq for h in headers if h.kind != Kind.CHECKPOINT]

    def flip(self, name: str, at: int) -> None:
        data = bytearray(self.disk.files()[name])
        data[at] ^= 1
        self.disk.plant(name, bytes(data))


def collect(headers: Callable[..., object], *args: int) -> tuple[list[Header], list[Damaged]]:
    told: list[Damaged] = []
    return list(headers(*args, on_damage=told.append)), told  # type: ignore[call-overload]


def test_record_is_read_by_its_offset() -> None:
    """A record of any size comes back whole, with all its fields."""
    log = Logged()
    for number, size in enumerate((8, 100, 5000, 300_000), 1):
        offset = log.write(number, size=size)[0]
        record = log.reader.record(offset)
        assert record.payload == payload_of(number, size)
        assert (record.kind, record.first_seq, record.offset) == (Kind.OUT, number, offset)
        assert record.end == log.book.store.committed


def test_uncommitted_is_not_read() -> None:
    """What is written but not committed does not exist for a reader."""
    log = Logged()
    log.write(1)
    limit = log.book.store.committed
    offset = log.write(2)[0]
    reader = Reader("/log", lambda: limit, files=log.disk)
    assert log.numbers(list(reader.headers())) == [1]
    with pytest.raises(LookupError, match="not committed"):
        reader.record(offset)


def test_what_is_no_longer_kept_is_told_apart_from_damage() -> None:
    """A place before the first segment, or in one that was removed meanwhile, raises LookupError."""
    log = Logged(segment_bytes=500)
    offsets = [log.write(number)[0] for number in range(1, 20)]
    first, second = log.reader.segments()[:2]
    assert log.reader.first == first == 0
    log.disk.unlink("/log/" + FIRST)
    with pytest.raises(LookupError):
        log.reader.record(offsets[0])
    with pytest.raises(LookupError):
        log.reader.record(offsets[0])
    assert log.reader.first == second
    assert log.numbers(list(log.reader.headers(0)))[-1] == 19


def test_directory_without_a_log_is_told() -> None:
    """A reader of an empty directory says that there is no log."""
    disk = Disk()
    disk.mkdir("/log")
    with pytest.raises(LookupError, match="no log"):
        _ = Reader("/log", lambda: 0, files=disk).first


def test_walk_with_nothing_new_costs_no_call() -> None:
    """Whoever asks again from where the last walk ended makes no call to the kernel."""
    log = Logged()
    log.write(1)
    end = list(log.reader.headers())[-1].end
    log.disk.trace.clear()
    assert list(log.reader.headers(end)) == []
    assert log.disk.trace == []


def test_log_id_is_that_of_the_store() -> None:
    """Reader and writer name the same log."""
    log = Logged()
    assert log.reader.log_id == log.book.store.log_id == b"log-id-0"


def test_headers_follow_the_log_over_segments() -> None:
    """A walk goes through every segment in order; each header's end is the next one's place."""
    log = Logged(segment_bytes=700)
    for number in range(1, 100):
        log.write(number)
    headers = list(log.reader.headers())
    assert log.numbers(headers) == list(range(1, 100))
    assert [h.end for h in headers] == [*(h.offset for h in headers[1:]), log.book.store.committed]
    assert len(log.reader.segments()) > 10


def test_headers_begin_and_end_where_asked() -> None:
    """From the record at `start` to the last one before `stop`."""
    log = Logged(segment_bytes=700)
    offsets = [log.write(number)[0] for number in range(1, 50)]
    for start, stop in ((0, 48), (5, 6), (7, 7), (10, 40)):
        found = log.numbers(list(log.reader.headers(offsets[start], offsets[stop])))
        assert found == list(range(start + 1, stop + 1))


@pytest.mark.slow
def test_headers_are_found_across_the_edges_of_reads() -> None:
    """Records shorter and longer than one read, in any order, all come."""
    log, sizes = Logged(), random.Random(2)
    for number in range(1, 60):
        log.write(number, size=sizes.choice([8, 3000, CHUNK_BYTES - 500, CHUNK_BYTES * 2, 120_001]))
    assert log.numbers(list(log.reader.headers())) == list(range(1, 60))


def test_reader_notices_a_roll() -> None:
    """A reader that knows the segments of before finds what is in new ones, by walk, record and payload."""
    log = Logged()
    log.write(1)
    assert log.numbers(list(log.reader.headers())) == [1]
    log.book.roll()
    offset = log.write(2)[0]
    other = Reader("/log", lambda: log.book.store.committed, files=log.disk)
    header = next(other.headers(offset))
    assert log.reader.payload(header) == payload_of(2)
    log.book.roll()
    offset = log.write(3)[0]
    assert log.reader.record(offset).first_seq == 3
    log.book.roll()
    log.write(4)
    assert log.numbers(list(log.reader.headers(offset))) == [3, 4]


def test_what_lies_beyond_the_next_segments_base_is_not_read() -> None:
    """An old file that was not cut yet ends for a reader where the next one begins."""
    log = Logged()
    log.write(1)
    log.write(2)
    whole = log.disk.files()[FIRST]
    book = Book("/log", files=log.disk)
    log.disk.plant(FIRST, whole)
    book.write(3)
    assert numbers_in("/log", lambda: book.store.committed, log.disk) == [1, 2, 3]


# ---- backwards


@pytest.mark.slow
def test_headers_back_are_the_headers_reversed() -> None:
    """The same headers, the newest first, with and without an end."""
    log = Logged(segment_bytes=BACK_HEADERS * 3 * 140)
    for first in range(1, BACK_HEADERS * 8, 100):
        log.write(*range(first, first + 100))
    forward = list(log.reader.headers())
    assert len(log.reader.segments()) > 2
    assert list(log.reader.headers_back()) == forward[::-1]
    for place in (1, 5, BACK_HEADERS, BACK_HEADERS * 4 + 1):
        assert list(log.reader.headers_back(forward[place].offset)) == forward[:place][::-1]


def test_headers_back_tell_damage_once() -> None:
    """Damage is reported one time, and what is sound around it comes in order."""
    log = Logged()
    offsets = [log.write(number)[0] for number in range(1, 8)]
    log.flip(FIRST, offsets[3])
    headers, told = collect(log.reader.headers_back)
    assert log.numbers(headers) == [7, 6, 5, 3, 2, 1]
    assert [damage.offset for damage in told] == [offsets[3]]


# ---- damage


def test_damaged_header_stops_the_walk_at_its_place() -> None:
    """Sound records before it come; then Damaged names the segment and the offset."""
    log = Logged()
    offsets = [log.write(number)[0] for number in range(1, 6)]
    log.flip(FIRST, offsets[2] + 60)
    found: list[Header] = []
    with pytest.raises(Damaged) as caught:
        found.extend(iter(log.reader.headers()))
    assert (caught.value.segment, caught.value.offset) == ("/log/" + FIRST, offsets[2])
    with pytest.raises(Damaged) as caught:
        log.reader.record(offsets[2])
    assert caught.value.offset == offsets[2]


@pytest.mark.parametrize("hit", range(6))
def test_walk_goes_on_behind_damage(hit: int) -> None:
    """Told to go on, a walk loses the damaged append alone, in whatever segment it lies."""
    log = Logged(segment_bytes=300)
    offsets = [log.write(number)[0] for number in range(1, 7)]
    base = max(base for base in log.reader.segments() if base <= offsets[hit])
    log.flip(f"{base:020d}.log", offsets[hit] - base + 3)
    headers, told = collect(log.reader.headers)
    assert log.numbers(headers) == [n for n in range(1, 7) if n != hit + 1]
    assert [damage.offset for damage in told] == [offsets[hit]]


def test_damaged_payload_hides_only_itself() -> None:
    """The walk reads headers alone; the payload is refused when somebody asks for it."""
    log = Logged()
    offsets = [log.write(number)[0] for number in range(1, 4)]
    log.flip(FIRST, offsets[1] + HEADER_BYTES)
    headers = list(log.reader.headers(offsets[0]))
    assert log.numbers(headers) == [1, 2, 3]
    assert log.reader.payload(headers[2]) == payload_of(3)
    for ask in (lambda: log.reader.payload(headers[1]), lambda: log.reader.record(offsets[1])):
        with pytest.raises(Damaged, match="payload") as caught:
            ask()
        assert caught.value.offset == offsets[1]


def test_segments_that_are_cut_or_spoiled_leave_the_others_readable() -> None:
    """An old segment cut by a fault, and one whose first record is gone, are told; all others are served."""
    log = Logged(segment_bytes=300)
    offsets = [log.write(number)[0] for number in range(1, 13)]
    bases = log.reader.segments()
    names = [f"{base:020d}.log" for base in bases]
    data = log.disk.files()
    log.disk.plant(names[1], data[names[1]][: offsets[2] - bases[1] + 10])
    log.disk.plant(names[2], b"\xff" * 200 + data[names[2]][200:])
    fresh = Reader("/log", lambda: log.book.store.committed, files=log.disk)
    headers, told = collect(fresh.headers)
    lost = [
        offset for offset in offsets if offsets[2] <= offset < bases[2] or bases[2] <= offset < bases[2] + 200
    ]
    assert bases[1] <= offsets[2] < bases[2]
    assert log.numbers(headers) == [n for n, offset in enumerate(offsets, 1) if offset not in lost]
    assert {damage.segment for damage in told} == {"/log/" + names[1], "/log/" + names[2]}


def test_newest_segment_that_is_spoiled_does_not_hide_the_others() -> None:
    """The log's id is taken from whatever segment can tell it."""
    log = Logged()
    log.write(1)
    log.book.roll()
    log.write(2)
    base = log.reader.segments()[1]
    log.flip(f"{base:020d}.log", 0)
    headers, told = collect(Reader("/log", lambda: log.book.store.committed, files=log.disk).headers)
    assert log.numbers(headers) == [1, 2]
    assert [damage.offset for damage in told] == [base]


@pytest.mark.parametrize("at", [0, 6, 12, 20, 119])
def test_spoiled_beginning_of_the_only_segment(at: int) -> None:
    """Any sound append tells the log's id: a young log with a damaged first record is served, too."""
    log = Logged()
    log.write(1)
    log.write(2)
    log.flip(FIRST, at)
    headers, told = collect(Reader("/log", lambda: log.book.store.committed, files=log.disk).headers)
    assert log.numbers(headers) == [1, 2]
    assert [damage.offset for damage in told] == [0]


def test_segment_with_nothing_sound_in_it_is_told() -> None:
    """When nobody knows the log's id there is nothing to serve, and the reason is told once."""
    log = Logged()
    log.write(1)
    log.disk.plant(FIRST, b"\xff" * 1000)
    headers, told = collect(Reader("/log", lambda: log.book.store.committed, files=log.disk).headers)
    assert headers == []
    assert [damage.offset for damage in told] == [0]
    with pytest.raises(Damaged):
        list(Reader("/log", lambda: log.book.store.committed, files=log.disk).headers())


def test_unreadable_part_is_damage_and_the_next_segment_is_served() -> None:
    """An I/O error of the disk is told like any damage."""

    class Bad(Disk):
        bad_fd = -1

        def pread(self, fd: int, size: int, at: int) -> bytes:
            if fd == self.bad_fd:
                raise OSError(5, "Input/output error")
            return super().pread(fd, size, at)

        def open(self, path: str, flags: int, mode: int = 0o777) -> int:
            fd = super().open(path, flags, mode)
            if path.endswith(FIRST):
                self.bad_fd = fd
            return fd

    disk = Bad()
    book = Book("/log", files=disk)
    book.write(1)
    book.roll()
    book.write(2)
    headers, told = collect(Reader("/log", lambda: book.store.committed, files=disk).headers)
    assert [h.first_seq for h in headers if h.kind != Kind.CHECKPOINT] == [2]
    assert [damage.why for damage in told] == ["cannot be read: Input/output error"]


def test_segment_that_is_a_link_to_nowhere_is_damage(tmp_path: Path) -> None:
    """It was moved to a disk that is not there: told, and the next segment is served."""
    book = Book(str(tmp_path))
    book.write(1)
    book.roll()
    book.write(2)
    path = tmp_path / f"{0:020d}.log"
    path.unlink()
    path.symlink_to(tmp_path / "away")
    reader = Reader(str(tmp_path), lambda: book.store.committed)
    found, damage = collect(reader.headers)
    assert ([(str(path), 0)], [2]) == (
        [(d.segment, d.offset) for d in damage],
        [header.first_seq for header in found if header.kind == Kind.OUT],
    )
    with pytest.raises(Damaged):
        reader.record(0)


def test_copies_of_records_in_a_damaged_body_are_not_served() -> None:
    """Behind a damaged header the walk finds the next append, not the log that somebody sent as a message."""
    log = Logged()
    log.write(1)
    log.write(2)
    copy = log.disk.files()[FIRST][: log.book.store.committed]
    at = log.book.store.add(Kind.IN, first_seq=3, payload=copy + copy)
    log.book.store.commit()
    log.write(4)
    log.flip(FIRST, at + 20)
    headers, told = collect(log.reader.headers)
    assert log.numbers(headers) == [1, 2, 4]
    assert len(told) == 1


# ---- messages


def message(number: int, body: bytes) -> Message:
    return Message(number.to_bytes(16, "big"), 0, 1000 + number, "user", {"k": "v"}, body)


def test_messages_of_a_record_are_decoded() -> None:
    """The payload of a batch is its messages one after another."""
    log = Logged()
    sent = [message(n, b"x" * n) for n in range(1, 4)]
    log.book.store.add(Kind.OUT, count=3, payload=b"".join(map(encode, sent)))
    log.book.store.commit()
    header = list(log.reader.headers())[-1]
    assert sent == log.reader.messages(header) == log.reader.messages(log.reader.record(header.offset))


def test_released_batch_is_put_together_from_held_records() -> None:
    """Its ranges name messages of held records, some of them left out, in the order of their release."""
    log = Logged(segment_bytes=300)
    sent = [message(n, b"y" * n) for n in range(1, 8)]
    raw = [encode(m) for m in sent]
    first = log.book.store.add(Kind.HELD, count=3, payload=b"".join(raw[:3]))
    log.book.store.commit()
    log.book.roll()
    second = log.book.store.add(Kind.HELD, count=4, payload=b"".join(raw[3:]))
    log.book.store.commit()
    ranges = [
        (first, 0, len(raw[0]), 1),
        (first, len(raw[0] + raw[1]), len(raw[2]), 1),
        (second, len(raw[3]), len(raw[4] + raw[5]), 2),
    ]
    log.book.store.add(Kind.RELEASED, count=4, first_seq=1, payload=encode_ranges(ranges))
    log.book.store.commit()
    header = list(log.reader.headers())[-1]
    expected = [sent[0], sent[2], sent[4], sent[5]]
    assert expected == log.reader.messages(header)
    assert b"".join(map(encode, expected)) == log.reader.batch(header)


# ---- files, forks, writers


def test_few_files_are_open(tmp_path: Path) -> None:
    """However many segments are read, at most MAX_OPEN are open; a walk is not disturbed by other reads."""
    book = Book(str(tmp_path), segment_bytes=200)
    offsets = []
    for number in range(1, 60):
        if book.store.needs_roll:
            book.roll()
        offsets += book.write(number)
    reader = Reader(str(tmp_path), lambda: book.store.committed)
    before = open_files()
    seen = []
    for header in reader.headers():
        if header.kind == Kind.OUT:
            seen.append(header.first_seq)
            for offset in offsets[:: len(offsets) // 20]:
                assert number_of(reader.record(offset).payload) in range(1, 60)
            assert open_files() - before <= MAX_OPEN
    assert seen == list(range(1, 60))
    assert len(reader.segments()) > MAX_OPEN * 2
    reader.close()
    assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_reader_works_on_both_sides_of_a_fork(tmp_path: Path) -> None:
    """Parent and child read through the same open files at once, and neither disturbs the other."""
    book = Book(str(tmp_path))
    offsets = [book.write(number, size=5000)[0] for number in range(1, 101)]
    committed = book.store.committed
    reader = Reader(str(tmp_path), lambda: committed)
    assert len(list(reader.headers())) == 101
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if all(number_of(reader.record(o).payload) for o in reversed(offsets * 3)) else 1)
        finally:
            os._exit(2)
    assert [number_of(reader.record(o).payload) for o in offsets * 3] == list(range(1, 101)) * 3
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.slow
def test_reader_follows_a_writer_in_another_process(tmp_path: Path) -> None:
    """Up to the committed offset in the shared page every record is there, whole and in order, over rolls."""
    page, last = SharedPage(), 4000
    child = os.fork()
    if child == 0:
        try:
            write_many(str(tmp_path), page, last)
            os._exit(0)
        finally:
            os._exit(1)
    while page.committed == 0:
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    reader, at, seen = Reader(str(tmp_path), lambda: page.committed), 0, 0
    while seen < last:  # pytest-timeout is the deadline
        for header in reader.headers(at):
            at = header.end
            if header.kind == Kind.OUT:
                seen += 1
                assert header.first_seq == seen
                assert number_of(reader.payload(header)) == seen
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(reader.segments()) > 5


def write_many(directory: str, page: SharedPage, last: int) -> None:
    store = Store(directory, TestClock(), segment_bytes=100_000, page=page)
    store.recover(lambda record: None, lambda: [b"state"])
    for number in range(1, last + 1):
        store.add(Kind.OUT, first_seq=number, payload=payload_of(number, 8 + number % 300))
        if number % 7 == 0 or number == last:
            store.commit()
            if store.needs_roll:
                store.roll([b"state"])


def test_page_is_shared_over_a_fork() -> None:
    """What one process stores the others load, whole 8-byte words."""
    page = SharedPage()
    child = os.fork()
    if child == 0:
        page.committed = (1 << 63) + 12345
        page.syncing_since_ns = 42
        os._exit(0)
    os.waitpid(child, 0)
    assert (page.committed, page.syncing_since_ns) == ((1 << 63) + 12345, 42)


def test_record_size_is_known() -> None:
    """The overhead that callers ask room for is what a record takes beside its payload."""
    log = Logged()
    offset = log.write(1, size=100)[0]
    assert log.book.store.committed - offset == OVERHEAD_BYTES + 100
