"""Waiting for processes and conditions with a deadline, and processes that end with their maker."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(condition: Callable[[], object], within_s: float, what: str) -> None:
    """Return once `condition` holds. Raises TimeoutError naming `what` after `within_s` seconds."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not, nor do threads of other people's processes count."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def lifeline(tied: bool) -> list[str]:
    """Prefix of a command that shall die with this process, however this process ends."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if tied else []


def reap(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.wait(timeout=10)
