"""Every call to the kernel fails once: the store says so, keeps what it promised, and never syncs twice."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msgd.log.errors import LogError, StorageFull, SyncFailed
from msgd.log.files import Files
from tests.log_book import Book, numbers_in

SEGMENT_BYTES = 1500
SYNCS = ("fsync", "fdatasync")
SHORT = 0  # instead of an errno: do only half of it


class Faults(Files):
    """The kernel's calls; one of them, counted from 1, fails."""

    def __init__(self, at: int = 0, code: int = SHORT) -> None:
        self.trace: list[str] = []
        self._at = at
        self._code = code
        self._failed_syncs: set[int] = set()

    def call(self, name: str, args: tuple[Any, ...]) -> Any:
        self.trace.append(name)
        if name in SYNCS:
            assert args[0] not in self._failed_syncs, "a sync after a failed one"
        if name == "close":
            self._failed_syncs.discard(args[0])
        if len(self.trace) == self._at:
            return self._fail(name, args)
        return getattr(os, name)(*args)

    def _fail(self, name: str, args: tuple[Any, ...]) -> Any:
        if self._code == SHORT:
            return getattr(os, name)(*halved(name, args))
        if name == "close":
            os.close(args[0])  # Linux: gone, whatever close says
        if name in SYNCS:
            self._failed_syncs.add(args[0])
        raise OSError(self._code, os.strerror(self._code))


def passing(name: str) -> Callable[..., Any]:
    def call(self: Faults, *args: Any) -> Any:
        return self.call(name, args)

    return call


for _name in [name for name in vars(Files) if not name.startswith("_") and name != "urandom"]:
    setattr(Faults, _name, passing(_name))


def halved(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of half a read or write; of any other call what they are."""
    if name == "pwritev":
        data = b"".join(args[1])
        return args[0], [data[: len(data) // 2]], args[2]
    if name == "pwrite":
        return args[0], args[1][: len(args[1]) // 2], args[2]
    if name == "pread":
        return args[0], (args[1] + 1) // 2, args[2]
    return args


class Life:
    """A start on a log with a torn tail, appends, rolls. `kept` was committed, `maybe` was on its way."""

    def __init__(self, directory: Path, files: Files) -> None:
        self.kept = [1, 2, 3]
        self.maybe: list[int] = []
        self.refused = 0
        self._directory = str(directory)
        self._files = files

    def run(self) -> None:
        book = Book(self._directory, files=self._files, segment_bytes=SEGMENT_BYTES)
        assert book.numbers == self.kept
        for number, size in ((10, 8), (20, 700), (30, 700), (40, 9000), (50, 8)):
            self._step(lambda n=number, s=size: self._write(book, n, s))
            if book.store.needs_roll:
                self._step(book.roll)
        book.store.close()

    def _step(self, step: Callable[[], None]) -> None:
        """A refusal is no end: the same store goes on, and what was refused is not there."""
        try:
            step()
        except StorageFull:
            self.refused += 1
            self.maybe = []

    def _write(self, book: Book, number: int, size: int) -> None:
        book.store.room(3 * (size + 200))
        self.maybe = [number, number + 1, number + 2]
        book.write(*self.maybe, size=size)
        self.kept = self.kept + self.maybe
        self.maybe = []


def torn_log(directory: Path) -> Path:
    """A log of three records, the last append not yet moved, and a torn tail."""
    book = Book(str(directory))
    book.write(1)
    book.write(2, 3)
    book.store.close()
    with open(directory / f"{0:020d}.log", "r+b") as file:
        file.seek(book.store.committed)
        file.write(b"torn")
    return directory


def calls_of_a_life(directory: Path) -> list[str]:
    files = Faults()
    Life(torn_log(directory), files).run()
    return files.trace


def test_life_makes_every_kind_of_call(tmp_path: Path) -> None:
    """What fails once below is every call that the store makes without another fault."""
    names = {name for name in vars(Files) if not name.startswith("_")}
    assert names - {"urandom", "pwrite", "unlink"} <= set(calls_of_a_life(tmp_path / "log"))


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE, SHORT])
def test_any_call_may_fail(tmp_path: Path, code: int) -> None:
    """The store tells it or goes on; the next start finds all that was committed, and keeps what was torn."""
    torn_log(tmp_path / "torn")
    for at, name in enumerate(calls_of_a_life(tmp_path / "log"), 1):
        directory = tmp_path / str(at)
        shutil.copytree(tmp_path / "torn", directory)
        life = Life(directory, Faults(at, code))
        ended: Exception | None = None
        try:
            life.run()
        except (LogError, OSError) as error:
            ended = error
        if name in SYNCS and code != SHORT:
            assert isinstance(ended, SyncFailed)
        if code == SHORT:
            assert ended is None
        book = Book(str(directory))
        surplus = book.numbers[len(life.kept) :]
        assert book.numbers[: len(life.kept)] == life.kept
        assert surplus == life.maybe[: len(surplus)]
        assert numbers_in(str(directory), lambda b=book: b.store.committed) == book.numbers
        assert b"torn" in [path.read_bytes() for path in directory.glob("*.broken")]
        book.store.close()
        shutil.rmtree(directory)


def test_refusal_is_survived_by_the_same_store(tmp_path: Path) -> None:
    """ENOSPC from the write or the allocation of an append ends nothing: the appends after it are there."""
    trace = calls_of_a_life(tmp_path / "log")
    writes = [
        at for at, name in enumerate(trace, 1) if name == "pwritev" and trace[at : at + 1] == ["fdatasync"]
    ]
    assert len(writes) == 5
    for at in writes:
        directory = torn_log(tmp_path / str(at))
        life = Life(directory, Faults(at, errno.ENOSPC))
        life.run()
        assert life.refused == 1
        assert len(life.kept) == 3 + 4 * 3
        assert Book(str(directory)).numbers == life.kept
