"""Run a function in a forked child of the test, for what would change the test's own process."""

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

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
