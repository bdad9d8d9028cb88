"""The supervisor's side of casts: one process, forked while there is something to cast."""

from collections.abc import Callable

from msgd.backoff import Backoff
from msgd.children import Child, Children, Ended, Kind
from msgd.dialling import NEVER_S
from msgd.files.jobs import Jobs

AGAIN_S = 1.0  # where there is no room for a process

Fork = Callable[[], Child | None]


class Casters:
    """`store` tells the directory of the store; `random` returns 0 ≤ x < 1."""

    def __init__(
        self, children: Children, fork: Fork, store: Callable[[], str], random: Callable[[], float]
    ) -> None:
        self._children = children
        self._fork = fork
        self._store = store
        self._backoff = Backoff(random, first_s=0.1, cap_s=60.0)
        self._due_s = NEVER_S  # CLOCK_MONOTONIC

    def look(self, now_s: float) -> None:
        """There may be a cast: at the start, and when one was made."""
        if self._has_work():
            self._due_s = min(self._due_s, now_s)

    def next_s(self) -> float:
        """When a process is to be started."""
        return NEVER_S if self._children.of(Kind.CAST) else self._due_s

    def start_due(self, now_s: float) -> None:
        """Start it, if it is due."""
        if self.next_s() <= now_s:
            self._due_s = NEVER_S if self._fork() is not None else now_s + AGAIN_S

    def ended(self, ended: Ended, now_s: float) -> None:
        """It has nothing to cast any more, or died."""
        wait_s = self._backoff.failed(now_s, ended.lived_s)
        if ended.code == 0:
            self._backoff.reset(now_s)
        if self._has_work():  # it may have been made just now
            self._due_s = now_s + wait_s

    def _has_work(self) -> bool:
        try:
            return bool(Jobs(self._store()).open_ids())
        except OSError:
            return False
