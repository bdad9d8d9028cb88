"""A start: a torn tail is set aside and the rest kept; damage in the middle is refused."""

import itertools
import os
import random
from collections.abc import Iterable

import pytest

from msgd.log.errors import Damaged
from msgd.log.record import HEADER_BYTES, OVERHEAD_BYTES, Kind, pack_record, prefix_of
from msgd.log.scan import Found, SegmentReader, scan_segment
from tests.log_book import Book, numbers_in, payload_of
from tests.log_disk import Disk

FIRST = "0" * 20 + ".log"
RECORD_BYTES = OVERHEAD_BYTES + 8
PAGE_BYTES = 4096


def written(appends: Iterable[Iterable[int]], size: int = 8) -> tuple[bytes, list[int]]:
    """The segment after these appends, without what is allocated ahead; and the offsets of the records."""
    disk = Disk()
    book = Book("/log", files=disk)
    offsets = [offset for numbers in appends for offset in book.write(*numbers, size=size)]
    return disk.files()[FIRST][: book.store.committed], offsets


def planted(data: bytes) -> Disk:
    disk = Disk()
    disk.mkdir("/log")
    disk.plant(FIRST, data)
    return disk


def scanned(data: bytes) -> tuple[Found, list[int]]:
    """What a start would find in such a segment, and the numbers in it, the last append's among them."""
    disk = planted(data)
    records = []
    found = scan_segment(
        SegmentReader(disk, "/log/" + FIRST, 0, disk.open("/log/" + FIRST, os.O_RDONLY)), records.append
    )
    return found, [
        int.from_bytes(r.payload[:8], "big") for r in records + found.last if r.kind != Kind.CHECKPOINT
    ]


def broken(disk: Disk) -> dict[str, bytes]:
    return {name: data for name, data in disk.files().items() if name.endswith(".broken")}


@pytest.mark.slow
@pytest.mark.parametrize("appends", [[[1], [2], [3], [4], [5]], [[1], [2], [3, 4, 5]]])
def test_cut_at_every_byte_keeps_the_records_before(appends: list[list[int]]) -> None:
    """Cut anywhere in the last three records, the log keeps all before the cut, and the torn rest aside."""
    data, offsets = written(appends)
    for cut in range(offsets[2], len(data)):
        disk = planted(data[:cut])
        book = Book("/log", files=disk)
        expected = [n for n, offset in enumerate(offsets, 1) if offset + RECORD_BYTES <= cut]
        stop = offsets[len(expected)]
        assert expected == book.numbers
        assert ([data[stop:cut].rstrip(b"\0")] if cut > stop else []) == list(broken(disk).values())
        assert len(data[stop:cut].rstrip(b"\0")) == book.report.cut_bytes


@pytest.mark.slow
def test_every_flipped_bit_in_ten_records_is_detected() -> None:
    """In any record but the last it is damage at that record's place; in the last, the torn tail."""
    data, offsets = written([[n] for n in range(1, 11)])
    for bit in range(8 * offsets[0], 8 * len(data)):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        hit = (bit // 8 - offsets[0]) // RECORD_BYTES
        if hit < 9:
            with pytest.raises(Damaged) as caught:
                scanned(bytes(bad))
            assert (caught.value.segment, caught.value.offset) == ("/log/" + FIRST, offsets[hit])
        else:
            found, numbers = scanned(bytes(bad))
            assert (numbers, found.stop, found.tail) == (list(range(1, 10)), offsets[9], bad[offsets[9] :])


def test_damage_in_the_middle_changes_nothing_on_disk() -> None:
    """A start that meets it names segment and offset, and leaves every file as it is."""
    data, offsets = written([[1], [2], [3]])
    bad = bytearray(data)
    bad[offsets[1] + HEADER_BYTES] ^= 1
    disk = planted(bytes(bad) + bytes(10_000))
    disk.plant("x.log.tmp", b"left by a start that died")
    before = disk.files()
    with pytest.raises(Damaged, match=f"{FIRST}.*{offsets[1]}"):
        Book("/log", files=disk)
    assert before == disk.files()


def test_zeros_in_the_middle_are_damage() -> None:
    """A page that reads as zeros is not the end of the log when sound records lie behind it."""
    data, offsets = written([[1], [2], [3]], size=3000)
    bad = data[: offsets[1]] + bytes(offsets[2] - offsets[1]) + data[offsets[2] :]
    with pytest.raises(Damaged) as caught:
        scanned(bad)
    assert caught.value.offset == offsets[1]


@pytest.mark.parametrize("at", [0, 4, 12, 20, 50, HEADER_BYTES, HEADER_BYTES + 2])
def test_damaged_checkpoint_is_damage_even_as_the_last_record(at: int) -> None:
    """A segment got its name only when its checkpoint was durable: that is never a torn tail."""
    data, _ = written([])
    bad = bytearray(data)
    bad[at] ^= 0x10
    with pytest.raises(Damaged) as caught:
        scanned(bytes(bad))
    assert caught.value.offset == 0


@pytest.mark.parametrize("size", [0, 1, HEADER_BYTES, OVERHEAD_BYTES])
def test_segment_without_a_whole_checkpoint_is_damage(size: int) -> None:
    """An empty segment, or one that ends within its first record, was not born that way."""
    with pytest.raises(Damaged):
        scanned(written([[1]])[0][:size])


def test_segment_under_another_name_is_damage() -> None:
    """A segment's first record says where it begins; a file renamed by a person is refused."""
    disk = planted(written([[1]])[0])
    disk.plant(f"{5000:020d}.log", written([[1]])[0])
    with pytest.raises(Damaged) as caught:
        Book("/log", files=disk)
    assert caught.value.offset == 5000


def test_newer_format_is_refused_and_named() -> None:
    """A segment that a newer msgd has written is refused, and the reason says its version."""
    data, _ = written([[1]])
    with pytest.raises(Damaged, match="format 2; this msgd knows 1"):
        scanned(data[:12] + b"\x02" + data[13:])


@pytest.mark.parametrize("size", [8, 700, 4000])
def test_any_subset_of_the_pages_of_one_write_is_a_torn_tail(size: int) -> None:
    """Power loss keeps the pages of one write in any combination: never damage, nothing before it lost."""
    old = len(written([[1], [2]], size=size)[0])
    whole, _ = written([[1], [2], [3, 4, 5, 6, 7, 8]], size=size)
    edges = [old, *range(old // PAGE_BYTES * PAGE_BYTES + PAGE_BYTES, len(whole), PAGE_BYTES), len(whole)]
    pages = list(itertools.pairwise(edges))
    for kept in itertools.product([False, True], repeat=len(pages)):
        image = bytearray(whole[:old] + bytes(len(whole) - old))
        for (start, stop), is_kept in zip(pages, kept, strict=True):
            if is_kept:
                image[start:stop] = whole[start:stop]
        _, numbers = scanned(bytes(image))
        assert list(range(1, len(numbers) + 1)) == numbers
        assert (8 if all(kept) else 2) <= len(numbers)


def test_true_copies_of_records_in_a_torn_body_prove_nothing() -> None:
    """Somebody sends the log itself as a message, and that write is torn: the copies in it are no records."""
    disk = Disk()
    book = Book("/log", files=disk)
    book.write(1)
    book.write(2)
    copy = disk.files()[FIRST][: book.store.committed]
    start = book.store.add(Kind.OUT, payload=copy * 3)
    book.store.commit()
    data = disk.files()[FIRST]
    for torn in (start, start + 4, start + HEADER_BYTES, start + HEADER_BYTES + 10):
        bad = bytearray(data)
        bad[torn] ^= 1
        found, numbers = scanned(bytes(bad))
        assert (numbers, found.stop) == ([1, 2], start)


def test_records_forged_in_a_body_are_not_taken_for_records() -> None:
    """Made-up records of later writes prove no damage without the log's id, nor in a wrong place with it."""
    disk = Disk()
    book = Book("/log", files=disk)
    book.write(1)
    at = book.store.committed + HEADER_BYTES

    def forged(log_id: bytes, begin: int) -> bytes:
        fields = (Kind.OUT, 1, 0, 8, begin, 1, 1, 99, 0, bytes(32), 0, 0, bytes(16))
        return pack_record(prefix_of(log_id), fields, payload_of(99))

    body = forged(b"guessed!", at) + forged(book.store.log_id, at + 10_000) + forged(book.store.log_id, 0)
    start = book.store.add(Kind.IN, payload=body)
    book.store.commit()
    bad = bytearray(disk.files()[FIRST])
    bad[start] ^= 1
    found, numbers = scanned(bytes(bad))
    assert (numbers, found.stop) == ([1], start)


def test_copy_of_a_record_behind_the_end_is_none() -> None:
    """A sound record in a place that its own header does not name is set aside, not taken in again."""
    data, offsets = written([[1], [2], [3]])
    copy = data[offsets[0] : offsets[1]]
    found, numbers = scanned(data + copy)
    assert (numbers, found.tail) == ([1, 2, 3], copy)


def test_garbage_where_zeros_were_allocated_is_set_aside() -> None:
    """Bytes behind the last record that no record explains are kept in a file and cut."""
    data, _ = written([[1], [2]])
    disk = planted(data + bytes(500) + b"\x80" + bytes(500))
    book = Book("/log", files=disk)
    assert book.numbers == [1, 2]
    assert {f"{len(data):020d}.broken": bytes(500) + b"\x80"} == broken(disk)
    assert book.report.broken_path == f"/log/{len(data):020d}.broken"
    assert book.report.cut_bytes == 501


def test_second_tail_at_the_same_place_does_not_replace_the_first() -> None:
    """A tail that was set aside stays, whatever is torn later; the same tail is not set aside twice."""
    data, _ = written([])
    disk = planted(data + b"first")
    for tail in (b"first", b"second", b"second", b"third"):
        disk.plant(FIRST, data + tail)
        Book("/log", files=disk)
    place = f"{len(data):020d}"
    expected = {f"{place}.broken": b"first", f"{place}.2.broken": b"second", f"{place}.3.broken": b"third"}
    assert expected == broken(disk)


def test_log_goes_on_after_a_repair() -> None:
    """After a torn tail was cut, appends, another start and a reader find the same log."""
    data, offsets = written([[1], [2], [3]])
    disk = planted(data[: offsets[2] + 50])
    book = Book("/log", files=disk)
    book.write(4, 5)
    again = Book("/log", files=disk)
    again.write(6)
    assert [1, 2, 4, 5, 6] == again.numbers == numbers_in("/log", lambda: again.store.committed, disk)


def test_last_append_moves_behind_a_checkpoint_of_the_state_before_it() -> None:
    """It is applied last, with its new offsets; its own fields stay, and the old file ends where it began."""
    disk = Disk()
    first = Book("/log", files=disk)
    first.write(1)
    offsets = first.write(2, 3)
    again = Book("/log", files=disk)
    last = again.applied[-2:]
    assert again.numbers == [1, 2, 3]
    assert again.report.moved_from == again.store.segment_base == offsets[0]
    assert [r.offset for r in last] == [r.begin + i * RECORD_BYTES for i, r in enumerate(last)]
    assert last[0].offset > offsets[0]
    assert again.store.committed == last[1].end
    assert [r.first_seq for r in last] == [2, 3]
    assert {FIRST: offsets[0]} == {n: len(d) for n, d in disk.files().items() if n == FIRST}


def test_moved_records_keep_their_clocks() -> None:
    """When a message was stored does not change because a start has moved it."""
    disk = Disk()
    Book("/log", files=disk).write(1)
    once = Book("/log", files=disk).applied[-1]
    twice = Book("/log", files=disk).applied[-1]
    assert once[:4] + once[5:] == twice[:4] + twice[5:]
    assert (once.wall_ns, once.boot_ns, once.start) == (twice.wall_ns, twice.boot_ns, b"boot-id-start-01")


def test_starts_without_traffic_make_no_files() -> None:
    """Ten starts with nothing new leave the two segments that the first of them made."""
    disk = Disk()
    book = Book("/log", files=disk)
    book.write(1)
    book.write(2)
    names = []
    for _ in range(10):
        assert Book("/log", files=disk).numbers == [1, 2]
        names.append(set(disk.files()))
    assert len(names[0]) == 2
    assert all(found == names[0] for found in names)


def test_segment_with_only_its_checkpoint_is_used_on() -> None:
    """A start right after a roll moves nothing."""
    disk = Disk()
    book = Book("/log", files=disk)
    book.write(1)
    book.roll()
    again = Book("/log", files=disk)
    assert again.report.moved_from is None
    assert again.store.committed == book.store.committed
    assert len(disk.files()[FIRST]) == again.store.segment_base


def test_predecessor_left_uncut_is_cut() -> None:
    """A start died between the new segment's birth and the cut of the old one: the next one cuts it."""
    disk = Disk()
    book = Book("/log", files=disk)
    book.write(1)
    book.write(2)
    whole = disk.files()[FIRST]
    base = Book("/log", files=disk).store.segment_base
    disk.plant(FIRST, whole)
    again = Book("/log", files=disk)
    assert len(disk.files()[FIRST]) == base
    assert numbers_in("/log", lambda: again.store.committed, disk) == [1, 2]


def test_unfinished_files_are_removed() -> None:
    """What was written under a temporary name counts for nothing."""
    disk = Disk()
    Book("/log", files=disk).write(1)
    disk.plant(f"{777:020d}.log.tmp", b"half a segment")
    assert Book("/log", files=disk).numbers == [1]
    assert not any(name.endswith(".tmp") for name in disk.files())


def test_page_cache_is_dropped_before_the_first_byte_is_read() -> None:
    """After a failed sync the cache shows what the disk does not have; a start must not read that."""
    disk = Disk()
    Book("/log", files=disk).write(1)
    disk.trace.clear()
    Book("/log", files=disk)
    assert disk.trace.index("posix_fadvise") < disk.trace.index("pread")


def test_unreadable_segment_is_damage() -> None:
    """A part of the newest segment that the disk cannot read is told like any other damage."""

    class Bad(Disk):
        bad_from = 1 << 60

        def pread(self, fd: int, size: int, at: int) -> bytes:
            if at + size > self.bad_from:
                raise OSError(5, "Input/output error")
            return super().pread(fd, size, at)

    disk = Bad()
    Book("/log", files=disk).write(1)
    disk.bad_from = HEADER_BYTES
    with pytest.raises(Damaged, match="cannot be read: Input/output error"):
        Book("/log", files=disk)


def test_large_checkpoint_comes_back_in_its_parts() -> None:
    """A group of several checkpoint records is applied in order, and only the last one ends it."""
    disk = Disk()
    book = Book("/log", files=disk)
    book.write(*range(1, 231))
    book.roll()
    again = Book("/log", files=disk)
    assert list(range(1, 231)) == again.numbers
    assert [record.flags for record in again.applied] == [0, 0, 0, 0, 1]
    assert [r.offset for r in again.applied] == [r.begin for r in again.applied]


@pytest.mark.slow
def test_scan_is_the_same_in_any_alignment_to_its_reads() -> None:
    """Records that lie across the end of a read are found whole: a segment larger than one read."""
    sizes = random.Random(1)
    disk = Disk()
    book = Book("/log", files=disk)
    numbers = range(1, 41)
    for number in numbers:
        book.write(number, size=sizes.randint(100_000, 400_000))
    assert book.store.committed > 2 * (4 << 20)
    assert list(numbers) == Book("/log", files=disk).numbers
