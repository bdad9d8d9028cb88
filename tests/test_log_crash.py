"""The log and power loss: at every step of what a store does, and of the start after it, again and again."""

import random
from collections.abc import Callable

import pytest

from msgd.log.errors import StorageFull, SyncFailed
from tests.log_book import Book, numbers_in
from tests.log_disk import Disk, PowerLoss

SEGMENT_BYTES = 1500
Script = Callable[[Book], None]


class Promise:
    """What was told to be durable, and what may be, since it was on its way."""

    def __init__(self, kept: list[int]) -> None:
        self.kept = kept
        self.maybe: list[int] = []

    def write(self, book: Book, *numbers: int, size: int = 8) -> None:
        self.maybe = list(numbers)
        book.write(*numbers, size=size)
        self.kept = self.kept + self.maybe
        self.maybe = []

    def check(self, numbers: list[int]) -> None:
        surplus = len(numbers) - len(self.kept)
        assert self.kept == numbers[: len(self.kept)]
        assert self.maybe[:surplus] == numbers[len(self.kept) :]


def live(disk: Disk, promise: Promise) -> None:
    """A start, appends of every shape over several segments, then an end without goodbye."""
    book = Book("/log", files=disk, segment_bytes=SEGMENT_BYTES)
    promise.check(book.numbers)
    promise.kept, promise.maybe = list(book.numbers), []
    at = max(book.numbers, default=0) + 1
    for step, size in enumerate((8, 700, 8, 1500, 40)):
        promise.write(book, *range(at, at + 1 + step), size=size)
        at += 1 + step
        if book.store.needs_roll:
            book.roll()


def crashed(disk: Disk, promise: Promise, step: int) -> bool:
    """Live until the power is lost at `step`; False when the life was shorter."""
    disk.crash_at = step
    try:
        live(disk, promise)
    except PowerLoss:
        return True
    return False


def check_all(disk: Disk, promise: Promise) -> None:
    """A start finds what was promised, a reader finds the same, and the log goes on."""
    book = Book("/log", files=disk, segment_bytes=SEGMENT_BYTES)
    promise.check(book.numbers)
    book.write(7_000_000)
    assert numbers_in("/log", lambda: book.store.committed, disk) == book.numbers


def steps_of_a_life(disk: Disk) -> int:
    live(disk, Promise([]))
    return disk.steps


def test_scenario_covers_every_kind_of_step() -> None:
    """The life that is cut short below rolls segments, writes, syncs, renames and seals."""
    disk = Disk()
    steps_of_a_life(disk)
    assert disk.trace.count("rename") >= 3
    assert {"pwritev", "fdatasync", "fsync", "ftruncate", "posix_fallocate"} <= set(disk.trace)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_committed_records_survive_power_loss_at_any_step(seed: int) -> None:
    """Whatever the disk kept of what was not synced, the next start has all that was committed."""
    rng = random.Random(seed)
    for step in range(1, steps_of_a_life(Disk()) + 1):
        disk, promise = Disk(), Promise([])
        assert crashed(disk, promise, step)
        check_all(disk.after_power_loss(rng), promise)


@pytest.mark.slow
def test_committed_records_survive_a_kill_at_any_step() -> None:
    """When only the process dies, the next start has all that was committed."""
    for step in range(1, steps_of_a_life(Disk()) + 1):
        disk, promise = Disk(), Promise([])
        assert crashed(disk, promise, step)
        check_all(disk.after_kill(), promise)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_power_loss_during_recovery_loses_nothing(seed: int) -> None:
    """A start that dies at any of its steps, after a life that died at any of its steps, is repeated."""
    rng = random.Random(seed)
    for step in range(1, steps_of_a_life(Disk()) + 1, 2):
        disk, promise = Disk(), Promise([])
        assert crashed(disk, promise, step)
        image = disk.after_power_loss(rng)
        again, cut = 1, True
        while cut:
            second, hope = image.after_power_loss(rng), Promise(promise.kept)
            hope.maybe = promise.maybe
            cut = crashed(second, hope, again)
            check_all(second.after_power_loss(rng), hope)
            again += 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_then_power_loss_loses_nothing(seed: int) -> None:
    """A process dies, the next one starts and commits, then the power goes: what it committed is there."""
    rng = random.Random(seed)
    for step in range(1, steps_of_a_life(Disk()) + 1):
        disk, promise = Disk(), Promise([])
        assert crashed(disk, promise, step)
        disk.after_kill()
        cut = crashed(disk, promise, rng.randint(20, 60))
        assert cut or promise.maybe == []
        check_all(disk.after_power_loss(rng), promise)


@pytest.mark.slow
def test_failed_sync_is_never_taken_for_durable() -> None:
    """After a failed fdatasync the pages look written and a second sync says yes; nothing relies on that."""
    for step in range(1, steps_of_a_life(Disk()) + 1):
        disk, promise = Disk(), Promise([])
        disk.sync_errors = {step}
        try:
            live(disk, promise)
        except SyncFailed:
            failed = True
        else:
            failed = False
        assert failed == (disk.trace[step - 1] == "fdatasync" or is_file_sync(disk, step))
        survivors = disk.after_kill()
        book = Book("/log", files=survivors, segment_bytes=SEGMENT_BYTES)
        promise.check(book.numbers)
        told = list(book.numbers)
        after = Book(
            "/log", files=survivors.after_power_loss(random.Random(step)), segment_bytes=SEGMENT_BYTES
        )
        assert told == after.numbers


def is_file_sync(disk: Disk, step: int) -> bool:
    """Whether the step was a sync of a file, which is where the fault is injected, not of a directory."""
    return disk.trace[step - 1] == "fsync" and disk.trace[step - 2] != "open"


def test_refused_append_does_not_come_back_behind_a_torn_one() -> None:
    """An append is refused half written; the next one is torn just where a record of the first began."""

    class Full(Disk):
        full_at = 0

        def pwritev(self, fd: int, pieces: list[bytes], at: int) -> int:
            if self.full_at and len(self.trace) >= self.full_at:
                self.full_at = 0
                super().pwritev(fd, [b"".join(pieces)], at)
                raise OSError(28, "No space left on device")
            return super().pwritev(fd, pieces, at)

    for seed in range(40):
        disk = Full()
        book = Book("/log", files=disk)
        book.write(1)
        disk.full_at = len(disk.trace)
        book.add(2)
        book.add(3)
        with pytest.raises(StorageFull):
            book.store.commit()
        book.add(4)
        disk.crash_at = disk.steps + 2  # the write is step 1, its fdatasync step 2
        with pytest.raises(PowerLoss):
            book.store.commit()
        found = Book("/log", files=disk.after_power_loss(random.Random(seed))).numbers
        assert found in ([1], [1, 4])
