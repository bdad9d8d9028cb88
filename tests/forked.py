"""Run a function in a forked child of the test: what would change the test's own process, what is one."""

import os
import pickle
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from msgd import journal

FAILED = 70  # of a child whose body raised; its traceback is on stderr

T = TypeVar("T")


def in_child(body: Callable[[], T]) -> T:
    """What `body` returns in a child of its own; its failure fails the test with its traceback."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        try:
            answer = pickle.dumps((body(), ""))
        except BaseException:
            answer = pickle.dumps((None, traceback.format_exc()))
        with os.fdopen(write_fd, "wb") as stream:
            stream.write(answer)
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    value, failure = pickle.loads(answer)
    assert not failure, failure
    return value  # type: ignore[no-any-return]


def start(body: Callable[[], int], keep_fds: set[int]) -> int:
    """Run `body` in a child beside the test, with these descriptors and 0, 1, 2 only; the child's pid.

    It exits with what `body` returns, and writes its events to stderr.
    """
    pid = os.fork()
    if pid == 0:
        code = FAILED
        try:
            _close_all_but({0, 1, 2, *keep_fds})
            sys.stderr = os.fdopen(2, "w", closefd=False)
            journal.setup("debug")
            code = body()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def wait(pid: int, within_s: float) -> int:
    """The exit code of a child, which must end by itself in this time; minus the signal that killed it."""
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], within_s)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _close_all_but(keep: set[int]) -> None:
    """The child has nothing that belongs to the test: who closes a connection closes it for good."""
    for fd in {int(name) for name in os.listdir("/proc/self/fd")} - keep:
        with suppress(OSError):
            os.close(fd)
