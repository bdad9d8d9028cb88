"""The writer: what is durable when, how segments end, what a full or a failing disk costs."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd.log.errors import AppendFull, StorageFull, SyncFailed
from msgd.log.files import Files
from msgd.log.page import SharedPage
from msgd.log.record import FIELDS, HEADER_BYTES, MAX_PAYLOAD_BYTES, OVERHEAD_BYTES, PREFIX_BYTES, Kind
from msgd.log.segment import AHEAD_BYTES, RESERVE_BYTES
from msgd.log.store import SEGMENT_BYTES, Store
from msgd.model import MAX_APPEND_BYTES, MAX_MESSAGE_BYTES
from tests.log_book import Book, TestClock, numbers_in
from tests.log_disk import Disk

RECORD_BYTES = OVERHEAD_BYTES + 8


class Small(Disk):
    """A disk with so much room; posix_fallocate says when there is none left, as ext4 does."""

    room_bytes = 1 << 40

    def posix_fallocate(self, fd: int, at: int, size: int) -> None:
        if sum(map(len, self.files().values())) + size > self.room_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().posix_fallocate(fd, at, size)

    def fill(self, left: int = 0) -> None:
        self.room_bytes = sum(map(len, self.files().values())) + left


class Faulty(Disk):
    """The next `pwritev` writes so many bytes, and the write after it fails with that errno."""

    partly: int | None = None
    then = 0

    def pwritev(self, fd: int, pieces: list[bytes], at: int) -> int:
        if self.partly is None:
            if self.then:
                code, self.then = self.then, 0
                raise OSError(code, os.strerror(code))
            return super().pwritev(fd, pieces, at)
        partly, self.partly = self.partly, None
        return super().pwritev(fd, [b"".join(pieces)[:partly]], at)


def book_on(disk: Disk, segment_bytes: int = SEGMENT_BYTES) -> Book:
    return Book("/log", files=disk, segment_bytes=segment_bytes)


# ---- appends


def test_nothing_counts_before_the_commit() -> None:
    """Added records have their places, but only the commit moves what is committed."""
    book = book_on(Disk())
    start = book.store.committed
    offsets = [book.add(1), book.add(2)]
    assert offsets == [start, start + RECORD_BYTES]
    assert (book.store.committed, book.store.end) == (start, start + 2 * RECORD_BYTES)
    assert book.store.pending == 2 * RECORD_BYTES
    assert book.store.commit() == start + 2 * RECORD_BYTES == book.store.committed == book.store.end
    assert book.store.pending == 0


def test_commit_is_one_write_and_one_sync() -> None:
    """However many records were added: one pwritev, one fdatasync, no other call."""
    disk = Disk()
    book = book_on(disk)
    book.store.room(1 << 20)
    disk.trace.clear()
    for number in range(1, 300):
        book.add(number, 8 if number % 2 else 3000)
    book.store.commit()
    assert disk.trace == ["pwritev", "fdatasync"]


def test_commit_of_nothing_does_nothing() -> None:
    """Without a record there is no write and no sync."""
    disk = Disk()
    book = book_on(disk)
    disk.trace.clear()
    assert book.store.commit() == book.store.committed
    assert disk.trace == []


def test_records_of_one_append_name_its_begin() -> None:
    """`begin` is the place of the append's first record; the next append has its own."""
    disk = Disk()
    book = book_on(disk)
    first, second = book.write(1, 2), book.write(3)
    data = next(iter(disk.files().values()))
    begins = [FIELDS.unpack_from(data, at + PREFIX_BYTES)[4] for at in first + second]
    assert begins == [first[0], first[0], second[0]]


def test_all_fields_are_written() -> None:
    """What add is told stands in the header, with the clocks of the moment."""
    disk = Disk()
    store = book_on(disk).store
    at = store.add(
        Kind.HELD, peer=7, direction=1, count=3, first_seq=9, head=b"h" * 32, aux=11, flags=2, payload=b"abc"
    )
    store.commit()
    fields = FIELDS.unpack_from(next(iter(disk.files().values())), at + PREFIX_BYTES)
    assert fields[:10] == (4, 1, 2, 3, at, 7, 3, 9, 11, b"h" * 32)
    assert fields[10] > 1_800_000_000_000_000_000
    assert fields[12] == b"boot-id-start-01"


def test_payload_may_be_a_view() -> None:
    """A memoryview of a receive buffer is written like bytes, small or large."""
    disk = Disk()
    store = book_on(disk).store
    for size in (10, 10_000):
        buffer = os.urandom(size + 20)
        at = store.add(Kind.IN, payload=memoryview(buffer)[10:-10])
        store.commit()
        data = next(iter(disk.files().values()))
        assert data[at + HEADER_BYTES :][:size] == buffer[10:-10]


def test_append_has_a_largest_size() -> None:
    """A record that would make the append larger is refused; what was added before stays."""
    book = book_on(Disk())
    book.add(1)
    fits = MAX_APPEND_BYTES - RECORD_BYTES - OVERHEAD_BYTES
    with pytest.raises(AppendFull):
        book.add(2, fits + 1)
    book.add(3, fits)
    assert book.store.pending == MAX_APPEND_BYTES
    book.store.commit()


def test_biggest_message_fits_one_append() -> None:
    """A message of the largest size has room for the record around it."""
    book = book_on(Disk())
    book.write(1, size=MAX_MESSAGE_BYTES)
    assert MAX_MESSAGE_BYTES <= MAX_PAYLOAD_BYTES


def test_page_shows_what_is_committed_and_that_a_sync_runs() -> None:
    """Readers see the committed offset; the sync's begin is there while it runs, then 0."""
    seen = []

    class Watched(Disk):
        def fdatasync(self, fd: int) -> None:
            seen.append((page.committed, page.syncing_since_ns))
            super().fdatasync(fd)

    page = SharedPage()
    store = Store("/log", TestClock(), files=Watched(), page=page)
    store.recover(lambda record: None, lambda: [b"state"])
    start = store.committed
    assert page.committed == start
    store.add(Kind.OUT)
    store.commit()
    assert page.committed == store.committed == start + OVERHEAD_BYTES
    assert seen[0][0] == start
    assert seen[0][1] > 0
    assert page.syncing_since_ns == 0


def test_statistics_count_what_was_done() -> None:
    """The snapshot tells appends, records, bytes, syncs and the present segment."""
    book = book_on(Disk())
    start = book.store.committed
    book.write(1, 2)
    book.write(3)
    book.roll()
    book.write(4)
    found = book.store.statistics()
    assert (found.appends, found.records, found.written_bytes) == (3, 4, 4 * RECORD_BYTES)
    assert (found.syncs, found.rolls, found.refused) == (3, 1, 0)
    assert found.segment_base == start + 3 * RECORD_BYTES
    assert found.segment_bytes == book.store.committed - found.segment_base
    assert 0 < found.sync_last_ns <= found.sync_max_ns <= found.sync_ns


# ---- segments


def test_roll_is_due_at_the_segments_size() -> None:
    """The segment is full with the append that reaches its size, not before."""
    book = book_on(Disk(), segment_bytes=2000)
    while not book.store.needs_roll:
        assert book.store.statistics().segment_bytes < 2000
        book.write(1)
    assert 2000 <= book.store.statistics().segment_bytes < 2000 + RECORD_BYTES
    book.roll()
    assert not book.store.needs_roll


def test_roll_seals_the_old_segment() -> None:
    """The old file ends with its last record; the new one begins there, with the checkpoint."""
    disk = Disk()
    book = book_on(disk)
    book.write(1)
    end = book.store.committed
    book.roll()
    files = disk.files()
    assert sorted(files) == [f"{0:020d}.log", f"{end:020d}.log"]
    assert len(files[f"{0:020d}.log"]) == end
    assert book.store.segment_base == end
    assert book.store.committed > end


def test_new_segment_has_the_reserve() -> None:
    """Receipts find their room from the first moment of a segment."""
    book = book_on(Disk())
    for _ in range(2):
        found = book.store.statistics()
        assert found.allocated_bytes - found.segment_bytes >= RESERVE_BYTES
        book.roll()


def test_checkpoint_larger_than_a_segment_does_not_roll_at_every_append() -> None:
    """The size at which the next segment is due grows with the checkpoint."""
    book = book_on(Disk(), segment_bytes=1000)
    book.write(*range(1, 1500))
    book.roll()
    assert book.store.statistics().segment_bytes > 1000
    assert not book.store.needs_roll
    book.write(2000)
    assert not book.store.needs_roll


def test_too_large_a_checkpoint_is_refused() -> None:
    """A part of a checkpoint has to fit one append; the present segment stays in use."""
    book = book_on(Disk())
    with pytest.raises(AppendFull):
        book.store.roll([bytes(MAX_PAYLOAD_BYTES + 1)])
    book.write(1)


@pytest.mark.slow
def test_allocation_runs_ahead_and_grows() -> None:
    """1 MiB first, then twice as much each time up to 16, and not beyond what the segment may hold."""
    sizes = []

    class Counted(Disk):
        def posix_fallocate(self, fd: int, at: int, size: int) -> None:
            sizes.append(size)
            super().posix_fallocate(fd, at, size)

    book = book_on(Counted())
    sizes.clear()
    while not book.store.needs_roll:
        book.store.room(1 << 20)
        book.add(1, MAX_PAYLOAD_BYTES)
        book.store.commit()
    ahead = [AHEAD_BYTES << n for n in (1, 2, 3, 4, 4, 4)]
    assert sizes[1 : 1 + len(ahead)] == ahead
    assert book.store.statistics().allocated_bytes <= SEGMENT_BYTES + MAX_APPEND_BYTES + RESERVE_BYTES


# ---- no room


def test_room_keeps_the_reserve_for_the_essential() -> None:
    """On a full disk messages are refused while the reserve is whole; receipts may use it up."""
    disk = Small()
    book = book_on(disk)
    disk.fill()
    with pytest.raises(StorageFull):
        book.store.room(RECORD_BYTES)
    assert book.store.is_full
    number = 0
    with pytest.raises(StorageFull):
        while True:
            book.store.room(RECORD_BYTES, essential=True)
            number += 1
            book.write(number)
    assert number * RECORD_BYTES > RESERVE_BYTES - 2 * RECORD_BYTES
    assert list(range(1, number + 1)) == numbers_in("/log", lambda: book.store.committed, disk)


def test_room_does_not_touch_what_is_pending() -> None:
    """A refusal concerns the next message, not those already added."""
    disk = Small()
    book = book_on(disk)
    book.add(1)
    disk.fill()
    with pytest.raises(StorageFull):
        book.store.room(1 << 20)
    book.store.commit()
    assert numbers_in("/log", lambda: book.store.committed, disk) == [1]


def test_space_that_comes_back_is_noticed_by_the_next_call() -> None:
    """No restart and no wait: the first room after it succeeds, and the reserve is whole again."""
    disk = Small()
    book = book_on(disk)
    disk.fill()
    with pytest.raises(StorageFull):
        book.store.room(100)
    book.store.room(RESERVE_BYTES - 1000, essential=True)
    disk.room_bytes = 1 << 40
    book.store.room(100)
    assert not book.store.is_full
    found = book.store.statistics()
    assert found.allocated_bytes - found.segment_bytes >= RESERVE_BYTES + 100


def test_little_space_is_taken_when_much_is_not_there() -> None:
    """What runs ahead is a wish: with less room than that the bytes needed are still found."""
    disk = Small()
    book = book_on(disk)
    disk.fill(left=20_000)
    book.store.room(10_000)
    book.write(1, size=9_000)


def test_append_without_room_is_refused_whole() -> None:
    """Who did not ask for room and finds none loses the append, nothing else."""
    disk = Small()
    book = book_on(disk)
    disk.fill()
    book.add(1, RESERVE_BYTES)
    with pytest.raises(StorageFull):
        book.store.commit()
    assert book.store.pending == 0
    book.write(2)
    assert numbers_in("/log", lambda: book.store.committed, disk) == [2]


def test_roll_without_room_leaves_the_old_segment_in_use() -> None:
    """The segment grows on; another roll is asked for an append later, not at every commit."""
    disk = Small()
    book = book_on(disk, segment_bytes=1000)
    while not book.store.needs_roll:
        book.write(1)
    disk.fill()
    with pytest.raises(StorageFull):
        book.roll()
    assert not book.store.needs_roll
    assert list(disk.files()) == [f"{0:020d}.log"]
    book.write(2)
    disk.room_bytes = 1 << 40
    book.store.room(MAX_APPEND_BYTES)
    book.write(3, size=MAX_PAYLOAD_BYTES)
    assert book.store.needs_roll
    book.roll()
    assert book.store.statistics().rolls == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("partly", [0, 1, RECORD_BYTES, 2 * RECORD_BYTES + 50])
def test_refused_write_leaves_no_trace(code: int, partly: int) -> None:
    """What was half written is zeros again, durably; the store goes on, and so does the next start."""
    disk = Faulty()
    book = book_on(disk)
    book.write(1)
    before = {name: data.rstrip(b"\0") for name, data in disk.files().items()}
    for number in (2, 3, 4):
        book.add(number)
    disk.partly, disk.then = (partly, code) if partly else (None, code)
    with pytest.raises(StorageFull):
        book.store.commit()
    assert before == {name: data.rstrip(b"\0") for name, data in disk.files().items()}
    assert disk.trace[-1] == "fdatasync"
    assert book.store.is_full
    book.store.room(100)
    assert not book.store.is_full
    book.write(5)
    assert book_on(disk).numbers == [1, 5]


def test_after_a_refused_write_room_wants_proof() -> None:
    """What was allocated is not believed: messages wait until more can be had; receipts do not."""

    class Full(Small, Faulty):
        pass

    disk = Full()
    book = book_on(disk)
    book.store.room(1 << 20)
    disk.fill()
    disk.then = errno.ENOSPC
    book.add(1)
    with pytest.raises(StorageFull):
        book.store.commit()
    for _ in range(2):
        with pytest.raises(StorageFull):
            book.store.room(100)
    book.store.room(100, essential=True)
    disk.fill(left=2 * RESERVE_BYTES)
    book.store.room(100)
    assert not book.store.is_full


def test_refused_write_that_cannot_even_be_zeroed_is_cut() -> None:
    """On a file system that copies on write zeros need room, too: the file is made shorter instead."""

    class Cow(Disk):
        is_full = False

        def pwritev(self, fd: int, pieces: list[bytes], at: int) -> int:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().pwritev(fd, pieces, at)

    disk = Cow()
    book = book_on(disk)
    book.write(1)
    book.add(2)
    disk.is_full = True
    with pytest.raises(StorageFull):
        book.store.commit()
    assert len(disk.files()[f"{0:020d}.log"]) == book.store.committed
    disk.is_full = False
    book.store.room(100)
    book.write(3)
    assert book_on(disk).numbers == [1, 3]


def test_short_write_is_continued() -> None:
    """When the kernel takes only a part, the rest follows, and everything is there."""
    disk = Faulty()
    book = book_on(disk)
    for partly in (1, HEADER_BYTES, 5000):
        disk.partly = partly
        book.write(partly, size=20_000)
    assert book_on(disk).numbers == [1, HEADER_BYTES, 5000]


def test_write_that_writes_nothing_ends_the_store() -> None:
    """Zero bytes and no error would be asked for again for ever; it counts as an I/O error."""
    disk = Faulty()
    book = book_on(disk)
    disk.pwrite = lambda fd, data, at: 0  # type: ignore[method-assign]
    disk.partly = 10
    book.add(1)
    with pytest.raises(SyncFailed):
        book.store.commit()


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """Files of at most 1 MiB for this process: a real EFBIG from the kernel."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("file_size_limit")
def test_real_refusal_of_the_kernel(tmp_path: Path) -> None:
    """At the file size limit messages are refused, receipts go on into the reserve, all is read back."""
    book = Book(str(tmp_path / "log"))
    number = 0
    with pytest.raises(StorageFull):
        while True:
            book.store.room(60_000 + OVERHEAD_BYTES)
            number += 1
            book.write(number, size=60_000)
    book.store.room(200_000, essential=True)
    book.write(number + 1, size=200_000)
    expected = list(range(1, number + 2))
    assert expected == numbers_in(str(tmp_path / "log"), lambda: book.store.committed)


# ---- the end of a store


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR])
def test_failed_sync_is_final_whatever_its_errno(code: int) -> None:
    """No second fdatasync, nothing is taken any more, and committed has not moved."""

    class Bad(Disk):
        is_bad = False

        def fdatasync(self, fd: int) -> None:
            super().fdatasync(fd)
            if self.is_bad:
                raise OSError(code, os.strerror(code))

    disk = Bad()
    book = book_on(disk)
    book.write(1)
    committed = book.store.committed
    disk.is_bad = True
    book.add(2)
    with pytest.raises(SyncFailed):
        book.store.commit()
    steps = disk.steps
    attempts = [book.store.commit, lambda: book.add(3), lambda: book.store.room(1, essential=True), book.roll]
    for attempt in attempts:
        with pytest.raises(SyncFailed):
            attempt()
    with pytest.raises(SyncFailed):
        _ = book.store.needs_roll
    assert disk.steps == steps
    assert book.store.committed == committed


def test_closed_store_takes_nothing() -> None:
    """After close the file is let go, without a write or a sync; what was pending is dropped."""
    disk = Disk()
    book = book_on(disk)
    book.add(1)
    disk.trace.clear()
    book.store.close()
    assert disk.trace == ["close"]
    with pytest.raises(SyncFailed, match="closed"):
        book.add(2)


def test_directory_that_cannot_be_opened_is_an_ordinary_error(tmp_path: Path) -> None:
    """What a person has to mend (rights, a read-only file system) comes as the kernel says it."""
    (tmp_path / "log").write_text("a file")
    with pytest.raises(NotADirectoryError):
        Book(str(tmp_path / "log"))


def test_real_files_are_the_kernels_calls() -> None:
    """Nothing stands between the store and the kernel in production."""
    calls = [name for name in vars(Files) if not name.startswith("_")]
    assert calls
    assert all(getattr(Files(), name) is getattr(os, name) for name in calls)
