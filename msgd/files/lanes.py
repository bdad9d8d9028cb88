"""Syncs of many files side by side: a disk and its journal do many at once in hardly more time than one."""

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from _thread import LockType

LANES = 16  # three times as many files a second as 4; 32 are hardly more
MANY = 16  # files for which that is worth its threads

Item = TypeVar("Item")


class Lanes(Generic[Item]):
    """Has `step` done for every item; it begins at once. What it raises, `wait` raises."""

    def __init__(self, step: Callable[[Item], None], items: Sequence[Item]) -> None:
        self._step = step
        self._left = iter(items)  # whoever is free takes the next one
        self._done: list[LockType] = []
        self._error: BaseException | None = None
        if len(items) >= MANY:
            for _ in range(LANES):
                self._open()

    def _open(self) -> None:
        done = allocate_lock()
        done.acquire()
        try:
            start_new_thread(self._run, (done,))
        except RuntimeError:  # no more threads are to be had: the others do it
            return
        self._done.append(done)

    def _run(self, done: "LockType") -> None:
        try:
            self._take()
        except BaseException as error:
            self._error = error
        finally:
            done.release()

    def _take(self) -> None:
        for item in self._left:
            self._step(item)

    def wait(self) -> None:
        """Until all are done; who waits takes part."""
        self._take()
        for done in self._done:
            done.acquire()
        self._done.clear()
        if self._error is not None:
            raise self._error
