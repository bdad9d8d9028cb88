"""Runs make in this repository, for tests of what it installs."""

import subprocess

from tests.require import REPOSITORY, require


def make(*words: str) -> None:
    """Run make; fails with its output."""
    command = ["make", "--no-print-directory", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def require_wheels() -> None:
    """Go on only if wheels were gathered (`make wheels`, once, with a network); msgd's own is made anew."""
    require("make", "wheels")
    make("wheels")
