"""What a test needs of the machine: skipped on a laptop that lacks it, a failure where everything must run.

`require("root", "strace")` stands at the top of a test, a fixture or a module. With MSGD_TEST_REQUIRE=all (as
in CI) a missing thing fails the test, and `conftest.py` turns any other skip into a failure, too.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
JOURNAL_REMOTE = "/lib/systemd/systemd-journal-remote"  # reads the journal export format
EVERYTHING = os.environ.get("MSGD_TEST_REQUIRE") == "all"


def require(*things: str) -> None:
    """Go on only if this machine has all of `things` (keys of CHECKS)."""
    missing = [thing for thing in things if not has(thing)]
    if not missing:
        return
    sentence = f"needs {', '.join(missing)}, which this machine does not have"
    if EVERYTHING:
        pytest.fail(f"{sentence} (MSGD_TEST_REQUIRE=all)", pytrace=False)
    pytest.skip(sentence, allow_module_level=True)


@functools.cache
def has(thing: str) -> bool:
    """Whether this machine has `thing`; asked once per run."""
    return CHECKS[thing]()


def program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def is_root() -> bool:
    return os.geteuid() == 0


def works(*command: str) -> bool:
    """Whether a harmless trial of the real thing succeeds."""
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def has_namespaces() -> bool:
    return works("unshare", "--mount", "--net", "--pid", "--fork", "ip", "link", "set", "lo", "up")


def can_trace() -> bool:
    return works("strace", "-o", "/dev/null", "true")


CHECKS: dict[str, Callable[[], bool]] = {
    "root": is_root,
    "namespaces": has_namespaces,  # a network and pid namespace of our own
    "loop": lambda: is_root() and os.path.exists("/dev/loop-control"),  # file systems in files
    "strace": can_trace,  # faults in system calls, from outside
    "systemd": program("systemd-analyze"),  # the tools; test hosts boot a systemd of their own
    "zones": lambda: os.path.exists("/usr/share/zoneinfo/Europe/Lisbon"),  # names of time zones
    "less": program("less"),
    "journal files": lambda: os.path.exists(JOURNAL_REMOTE) and has("journalctl"),
    "journalctl": program("journalctl"),
    "ip": program("ip"),
    "make": program("make"),
    "wheels": lambda: (REPOSITORY / "build/wheels/.gathered").exists(),  # `make wheels`, once with a network
    "tmux": program("tmux"),
    "gcc": program("gcc"),
    "mkfs.ext4": program("mkfs.ext4"),
    "mkfs.xfs": program("mkfs.xfs"),
    "nft": program("nft"),
    "openssl": program("openssl"),  # a foreign TLS scanner
}
