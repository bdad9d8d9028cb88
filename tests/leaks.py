"""What a test run left behind. All it starts inherits MSGD_TEST_SESSION, and so differs from what others run.

Found are: processes with our mark in their environment, and mounts below the run's own directory.
Nothing else on the machine is looked at, so runs side by side do not see each other.
"""

import os
import signal
import time
from pathlib import Path

MARK = "MSGD_TEST_SESSION"


def our_processes(mark: str) -> dict[int, str]:
    """Pid and command line of every process of this run, but for the run itself."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                )
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found


def our_mounts(directory: str) -> list[str]:
    """Mount points below the run's own directory."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in points if directory and point.startswith(f"{directory}/")]


def leftovers(mark: str, directory: str, within_s: float = 5) -> list[str]:
    """Sentences about what stays; what is just ending gets `within_s` seconds."""
    deadline_s = time.monotonic() + within_s
    while True:
        found = [f"process {pid}: {command}" for pid, command in our_processes(mark).items()]
        found += [f"mount {point}" for point in our_mounts(directory)]
        if not found or time.monotonic() > deadline_s:
            return found
        time.sleep(0.1)


def end_processes(mark: str) -> None:
    """Kill what is left of this run, by pid."""
    for pid in our_processes(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
