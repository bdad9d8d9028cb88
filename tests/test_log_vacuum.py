"""Segments that leave: what is kept is told by the directory alone, at every step and after every crash."""

import os
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from msgd.log.ahead import Ahead
from msgd.log.errors import StorageFull
from msgd.log.files import REAL_FILES
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind
from msgd.log.segment import Extent, list_extents, segment_path
from msgd.log.vacuum import remove
from tests.log_book import Book, number_of, numbers_in
from tests.log_disk import Disk, PowerLoss

SEGMENTS = 8  # in a log of these tests, one number in each


class Kept:
    """A log in memory with a number in each of its segments, 0 to SEGMENTS - 1, and a reader of it."""

    def __init__(self, *gone: int) -> None:
        self.disk = Disk()
        self.book = Book("/log", files=self.disk)
        self.offsets = [self.book.write(0)[0]]
        for number in range(1, SEGMENTS):
            self.book.roll()
            self.offsets += self.book.write(number)
        self.reader = Reader("/log", lambda: self.book.store.committed, files=self.disk)
        self.bases = self.reader.segments()
        self.remove(*gone)

    def remove(self, *numbers: int) -> None:
        remove(self.disk, "/log", [self.bases[number] for number in numbers])

    def names(self) -> list[str]:
        """As in the directory: the number of a segment, with a dash that of a mark."""
        number = {f"{base:020d}": str(at) for at, base in enumerate(self.bases)}
        found = [name.split(".") for name in self.disk.files()]
        return sorted(number[stem] + ("-" if suffix == "gone" else "") for stem, suffix in found)


def numbers(headers: Iterator[Header]) -> list[int]:
    return [header.first_seq for header in headers if header.kind != Kind.CHECKPOINT]


def kept_in(disk: Disk, bases: list[int]) -> list[int]:
    """Which of the segments the directory says are kept. Each must end where the next one began."""
    extents = list_extents(disk, "/log", bases[-1] + 1)
    stops = dict(pairwise([*bases, bases[-1] + 1]))
    assert [Extent(extent.base, stops[extent.base]) for extent in extents] == extents
    return [bases.index(extent.base) for extent in extents]


@pytest.mark.parametrize(
    ("gone", "names"),
    [
        ((0,), "1 2 3 4 5 6 7"),
        ((0, 1, 2, 3, 4, 5, 6), "7"),
        ((2,), "0 1 2- 3 4 5 6 7"),
        ((2, 3), "0 1 2- 4 5 6 7"),
        ((1, 3, 4, 6), "0 1- 2 3- 5 6- 7"),
        ((0, 2), "1 2- 3 4 5 6 7"),
        ((0, 1, 3, 5, 6), "2 3- 4 5- 7"),
    ],
)
def test_marks_tell_what_is_not_kept(gone: tuple[int, ...], names: str) -> None:
    """One mark for each hole between segments that are kept, and none before the first of them."""
    log = Kept(*gone)
    assert names.split() == log.names()
    left = [number for number in range(SEGMENTS) if number not in gone]
    ends = [*log.bases[1:], log.book.store.committed]
    assert [Extent(log.bases[number], ends[number]) for number in left] == log.reader.extents()
    assert [log.bases[number] for number in left] == log.reader.segments()
    assert log.bases[left[0]] == log.reader.first


@pytest.mark.parametrize(
    ("steps", "names"),
    [
        (((2,), (3,)), "0 1 2- 4 5 6 7"),
        (((3,), (2,)), "0 1 2- 4 5 6 7"),
        (((2,), (4,), (3,)), "0 1 2- 5 6 7"),
        (((1,), (0,)), "2 3 4 5 6 7"),
        (((1,), (3,), (0, 2)), "4 5 6 7"),
        (((2,), (2, 1, 0)), "3 4 5 6 7"),
    ],
)
def test_holes_grow_together(steps: tuple[tuple[int, ...], ...], names: str) -> None:
    """Segments that go one after another leave the same marks as if they had gone at once."""
    log = Kept()
    for step in steps:
        log.remove(*step)
    assert names.split() == log.names()


def test_newest_segment_stays() -> None:
    """It is refused, and nothing else goes either."""
    log = Kept()
    with pytest.raises(ValueError, match="newest"):
        log.remove(1, SEGMENTS - 1)
    assert [str(number) for number in range(SEGMENTS)] == log.names()


def test_reader_passes_over_holes() -> None:
    """Walks in both directions, from any place; one that began before the holes were made ends as well."""
    log = Kept()
    under_way = log.reader.headers()
    assert 0 == next(header.first_seq for header in under_way if header.kind != Kind.CHECKPOINT)
    log.remove(0, 2, 3, 6)
    left = [1, 4, 5, 7]
    assert left == numbers(under_way)
    assert left == numbers(log.reader.headers())
    assert left[::-1] == numbers(log.reader.headers_back())
    for number, offset in enumerate(log.offsets):
        assert [n for n in left if n >= number] == numbers(log.reader.headers(offset))
        assert [n for n in left if n < number] == numbers(log.reader.headers(0, offset))
        assert [n for n in left if n < number][::-1] == numbers(log.reader.headers_back(offset))


def test_what_lay_in_a_hole_is_not_kept_any_more() -> None:
    """A record of a hole is told apart from damage, by a reader and by one that reads ahead."""
    log = Kept(0, 2, 3, 6)
    ahead = Ahead(log.reader, lambda: log.book.store.committed)
    for number, offset in enumerate(log.offsets):
        for reader in (log.reader, ahead):
            if number in (1, 4, 5, 7):
                assert number == number_of(reader.record(offset).payload)
            else:
                with pytest.raises(LookupError, match="not kept"):
                    reader.record(offset)


def test_files_of_segments_that_are_gone_are_closed() -> None:
    """A reader that looks at the directory gives the room of what was removed back to the disk."""
    log = Kept()
    assert list(range(SEGMENTS)) == numbers(log.reader.headers())
    before = set(log.disk.open_files())
    log.remove(1, 2)
    log.reader.extents()
    assert 2 == len(before - set(log.disk.open_files()))


def test_room_is_given_back_while_readers_have_the_file_open(tmp_path: Path) -> None:
    """At once, since a reader may be idle for days; but a second name that a person gave a file keeps it."""
    book = Book(str(tmp_path / "log"))
    for number in range(3):
        book.write(number)
        book.roll()
    reader = Reader(book.store.directory, lambda: book.store.committed)
    first, second, *_ = reader.segments()
    paths = [segment_path(book.store.directory, base) for base in (first, second)]
    os.link(paths[1], tmp_path / "kept")
    whole = (tmp_path / "kept").read_bytes()
    with open(paths[0], "rb") as one, open(paths[1], "rb") as other:
        remove(REAL_FILES, book.store.directory, [first, second])
        assert b"" == one.read()
        assert whole == other.read() == (tmp_path / "kept").read_bytes()
    assert not any(map(os.path.exists, paths))


def test_damage_before_a_hole_does_not_hide_what_is_behind_it() -> None:
    """A walk that was told to go on looks for the next sound append on both sides of the hole."""
    log = Kept(3)
    name = f"{log.bases[2]:020d}.log"
    data = bytearray(log.disk.files()[name])
    data[log.offsets[2] - log.bases[2]] ^= 1
    log.disk.plant(name, bytes(data))
    told: list[int] = []
    found = numbers(log.reader.headers(on_damage=lambda damaged: told.append(damaged.offset)))
    assert ([0, 1, 4, 5, 6, 7], [log.offsets[2]]) == (found, told)


def test_segment_that_is_missing_without_a_mark_is_damage() -> None:
    """Only what was removed with a mark counts as not kept."""
    log = Kept(5)
    log.disk.unlink(f"/log/{log.bases[2]:020d}.log")
    told: list[int] = []
    fresh = Reader("/log", lambda: log.book.store.committed, files=log.disk)
    assert [0, 1, 3, 4, 6, 7] == numbers(fresh.headers(on_damage=lambda damaged: told.append(damaged.offset)))
    assert [log.bases[2]] == told


def test_oldest_segments_go_on_a_full_disk() -> None:
    """Where no file can be made a hole cannot be, but the beginning of the log can go."""

    class Full(Disk):
        def open(self, path: str, flags: int, mode: int = 0o777) -> int:
            if path.endswith(".gone"):
                raise OSError(28, "No space left on device", path)
            return super().open(path, flags, mode)

    log = Kept()
    log.disk.__class__ = Full
    with pytest.raises(StorageFull):
        log.remove(0, 1, 3)
    assert ["2", "3", "4", "5", "6", "7"] == log.names()


# ---- crashes

PLANS = [((2,),), ((0, 1),), ((2, 3), (5,), (1, 4)), ((1,), (3,), (0, 2, 5))]


def steps_of(plan: tuple[tuple[int, ...], ...]) -> int:
    log = Kept()
    before = log.disk.steps
    for step in plan:
        log.remove(*step)
    return log.disk.steps - before


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("seed", [None, *range(6)])
def test_crash_at_any_step_of_a_removal(plan: tuple[tuple[int, ...], ...], seed: int | None) -> None:
    """Only what was asked for is missing, nothing reads as damaged, and the same call finishes the work.

    After a kill (no seed) or a power loss that lets the disk keep any first part of what was not synced.
    """
    for step in range(1, steps_of(plan) + 1):
        log, asked, done = Kept(), set[int](), set[int]()
        log.disk.crash_at = log.disk.steps + step
        with pytest.raises(PowerLoss):
            for numbers_ in plan:
                asked.update(numbers_)
                log.remove(*numbers_)
                done.update(numbers_)
        disk = log.disk.after_kill() if seed is None else log.disk.after_power_loss(random.Random(seed))
        left = kept_in(disk, log.bases)
        assert asked >= set(range(SEGMENTS)) - set(left) >= done
        book = Book("/log", files=disk)
        reader = Reader("/log", lambda: book.store.committed, files=disk)  # noqa: B023
        assert left == numbers(reader.headers())
        remove(disk, "/log", [log.bases[number] for number in asked])
        assert [number for number in range(SEGMENTS) if number not in asked] == numbers(reader.headers())


def test_start_finishes_a_removal() -> None:
    """What was marked before the process died is gone after the next start, and marks without use as well."""
    log = Kept(4)
    log.disk.plant(f"{log.bases[2]:020d}.gone", b"")
    log.disk.plant(f"{log.bases[5]:020d}.gone", b"")
    log.disk.plant(f"{log.bases[-1] + 1_000_000:020d}.gone", b"")
    Book("/log", files=log.disk.after_kill())
    assert ["0", "1", "2-", "3", "4-", "6", "7"] == log.names()


def test_mark_inside_a_segment_cuts_nothing() -> None:
    """Somebody put it there: what it hides is read again once it is away."""
    disk = Disk()
    book = Book("/log", files=disk)
    offsets = [book.write(number)[0] for number in (1, 2, 3)]
    book.roll()
    book.write(4)
    whole = disk.files()[f"{0:020d}.log"]
    disk.plant(f"{offsets[1]:020d}.gone", b"")
    again = Book("/log", files=disk)
    assert whole == disk.files()[f"{0:020d}.log"]
    assert [1, 4] == numbers_in("/log", lambda: again.store.committed, disk)
    disk.unlink(f"/log/{offsets[1]:020d}.gone")
    assert [1, 2, 3, 4] == numbers_in("/log", lambda: again.store.committed, disk)
