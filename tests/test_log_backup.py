"""A copy that is taken while the log is written: what was durable when it began is in it, ready for use."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd.log.errors import Damaged
from msgd.log.record import HEADER_BYTES
from tests.log_book import Book, numbers_in

SEGMENT_BYTES = 40_000
PART_BYTES = 2048  # that one moment shows of a file
STEPS = 100  # of the writer, during one copy


class Writer:
    """A log on a real disk with small segments; each step is one append, or a roll."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.book = Book(str(directory), segment_bytes=SEGMENT_BYTES)
        self.sizes = random.Random(1)
        self.next = 1

    def step(self) -> None:
        if self.book.store.needs_roll:
            self.book.roll()
        numbers = range(self.next, self.next + self.sizes.choice((1, 1, 3)))
        self.next = numbers.stop
        self.book.write(*numbers, size=self.sizes.choice((8, 300, 4000)))


def copied(writer: Writer, target: Path, rng: random.Random) -> None:
    """As a slow cp does it: the names, then file by file in parts, while the writer goes on all the time."""
    target.mkdir()
    names = sorted(os.listdir(writer.directory), reverse=True)  # the newest first: most is written to it
    if rng.random() < 0.5:
        rng.shuffle(names)
    left = STEPS
    for name in names:
        with (target / name).open("wb") as copy:
            for part in parts(writer.directory / name):
                copy.write(part)
                for _ in range(min(left, rng.choice((0, 0, 0, 1, 5)))):
                    writer.step()
                    left -= 1


def parts(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while part := file.read(PART_BYTES):
            yield part


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_copy_of_a_log_that_is_written_is_a_sound_log(tmp_path: Path, seed: int) -> None:
    """Nothing that was durable when the copy began is missing, nothing is out of order, and it goes on."""
    rng, writer, torn = random.Random(seed), Writer(tmp_path / "log"), 0
    for number in range(10):
        for _ in range(rng.randrange(12)):
            writer.step()
        durable = list(writer.book.numbers)
        target = tmp_path / f"copy{number}"
        copied(writer, target, rng)
        book = Book(str(target), segment_bytes=SEGMENT_BYTES)
        assert durable == book.numbers[: len(durable)]
        assert book.numbers == writer.book.numbers[: len(book.numbers)]
        torn += book.report.cut_bytes > 0
        book.write(7_000_000)
        again = Book(str(target), segment_bytes=SEGMENT_BYTES)
        assert [*book.numbers] == again.numbers
        assert again.numbers == numbers_in(str(target), lambda: again.store.committed)  # noqa: B023
    assert torn > 0, "no copy was torn: the writer did not go on meanwhile"


def test_what_a_copy_may_be_the_log_itself_may_not(tmp_path: Path) -> None:
    """Zeros before a sound record are damage in the log, and the end of a copy; both keep what is behind."""
    writer = Writer(tmp_path / "log")
    offsets = [writer.book.write(number, size=300)[0] for number in range(1, 6)]
    path = tmp_path / "log" / f"{0:020d}.log"
    with path.open("r+b") as file:
        file.seek(offsets[2])
        file.write(bytes(HEADER_BYTES))
    writer.book.store.close()
    with pytest.raises(Damaged):
        Book(str(tmp_path / "log"))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    book = Book(str(tmp_path / "copy"))
    assert [1, 2] == book.numbers
    assert path.read_bytes()[offsets[2] :].rstrip(b"\0") == Path(book.report.broken_path or "").read_bytes()
    with pytest.raises(Damaged):
        Book(str(tmp_path / "log"))


def test_renamed_directory_is_no_copy(tmp_path: Path) -> None:
    """Who moves the state elsewhere on its file system has the same files."""
    writer = Writer(tmp_path / "log")
    offsets = [writer.book.write(number, size=300)[0] for number in range(1, 6)]
    writer.book.store.close()
    (tmp_path / "log").rename(tmp_path / "moved")
    with (tmp_path / "moved" / f"{0:020d}.log").open("r+b") as file:
        file.seek(offsets[2])
        file.write(bytes(HEADER_BYTES))
    with pytest.raises(Damaged):
        Book(str(tmp_path / "moved"))


def test_copy_that_ends_with_a_checkpoint_is_a_log_of_its_own(tmp_path: Path) -> None:
    """What is damaged after the copy's first start is damage, and no torn tail any more."""
    writer = Writer(tmp_path / "log")
    writer.book.write(1)
    writer.book.roll()
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    book = Book(str(tmp_path / "copy"))
    assert ([1], None) == (book.numbers, book.report.moved_from)
    offsets = [book.write(number, size=300)[0] for number in range(2, 6)]
    book.store.close()
    base = max(int(path.stem) for path in (tmp_path / "copy").glob("*.log"))
    with (tmp_path / "copy" / f"{base:020d}.log").open("r+b") as file:
        file.seek(offsets[1] - base)
        file.write(bytes(HEADER_BYTES))
    with pytest.raises(Damaged):
        Book(str(tmp_path / "copy"))
