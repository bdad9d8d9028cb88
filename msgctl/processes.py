"""Processes of the lab: waiting for their end, what /proc says of them.

Waiting goes by pidfds: a number cannot come to mean another process meanwhile, and the end is noticed at
once, whoever the parent is.
"""

import os
import select
import signal
import time
from collections.abc import Iterable


class Watch:
    """Waits for processes to end, by their pidfds: no pid can come to mean another process meanwhile."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids: dict[int, int] = {}
        self._poll = select.poll()
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            self._pids[fd] = pid
            self._poll.register(fd, select.POLLIN)

    def ended(self, timeout_ms: int) -> bool:
        """Whether all have ended; waits a little for one to do so."""
        if self._pids:
            for fd, _ in self._poll.poll(timeout_ms):
                self._poll.unregister(fd)
                os.close(fd)
                del self._pids[fd]
        return not self._pids

    def wait(self, timeout_s: float) -> list[int]:
        """Wait until all have ended; who has not."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0 and not self.ended(int(left_s * 1000) + 1):
            pass
        return list(self._pids.values())

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._pids:
            os.close(fd)


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signal a process; one that has ended needs none."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def proc(pid: int, name: str) -> list[bytes]:
    """The words of /proc/PID/NAME, such as its command line; none where it may not be read."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as reader:
            return reader.read().split(b"\0")
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """The process ids of its children, their children and so on."""
    found = []
    for thread in _listed(f"/proc/{pid}/task"):
        for word in b" ".join(proc(pid, f"task/{thread}/children")).split():
            found += [int(word), *descendants(int(word))]
    return found


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
