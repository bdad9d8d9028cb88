"""The harness itself: nothing is skipped in silence, nothing is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leaks
from tests.nodes import free_address, is_running, wait_for
from tests.require import REPOSITORY

pytestmark = pytest.mark.slow  # each test runs a pytest of its own


def run_pytest(directory: Path, test: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `test` in a pytest of its own, with this project's conftest."""
    (directory / "test_it.py").write_text(test)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-ra",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            str(directory),
        ],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "MSGD_TEST_REQUIRE": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SKIPPING = """
import pytest
def test_skips():
    pytest.skip("no reason")
"""
SKIPPING_MODULE = """
import pytest
pytest.skip("no reason", allow_module_level=True)
"""
REQUIRING = """
from tests import require
require.CHECKS["a unicorn"] = lambda: False
def test_needs_it():
    require.require("root", "a unicorn") if require.has("root") else require.require("a unicorn")
"""
LEAKING = """
import subprocess
def test_leaks():
    subprocess.Popen(["sleep", "60"], start_new_session=True)
"""


@pytest.mark.parametrize("test", [SKIPPING, SKIPPING_MODULE], ids=["test", "module"])
def test_a_skip_fails_where_everything_must_run(tmp_path: Path, test: str) -> None:
    """The same skip passes on a laptop and fails in CI, with its reason."""
    laptop = run_pytest(tmp_path, test)
    assert "1 skipped" in laptop.stdout
    assert laptop.returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED)
    strict = run_pytest(tmp_path, test, MSGD_TEST_REQUIRE="all")
    assert strict.returncode not in (0, pytest.ExitCode.NO_TESTS_COLLECTED)
    assert "skipped under MSGD_TEST_REQUIRE=all" in strict.stdout
    assert "no reason" in strict.stdout


def test_a_missing_thing_is_named(tmp_path: Path) -> None:
    """`require` says what the machine lacks: a skip on a laptop, a failure in CI."""
    laptop = run_pytest(tmp_path, REQUIRING)
    assert (laptop.returncode, "needs a unicorn" in laptop.stdout) == (0, True)
    strict = run_pytest(tmp_path, REQUIRING, MSGD_TEST_REQUIRE="all")
    assert (strict.returncode, "needs a unicorn" in strict.stdout) == (1, True)


def test_a_run_that_leaves_a_process_behind_fails(tmp_path: Path) -> None:
    """A forgotten process is named, killed by its pid, and fails a run whose tests all passed."""
    run = run_pytest(tmp_path, LEAKING)
    assert "1 passed" in run.stdout
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    (line,) = [line for line in run.stdout.splitlines() if "LEFT BEHIND: process" in line]
    assert line.endswith(": sleep 60")
    pid = int(line.split("process ")[1].split(":")[0])
    wait_for(lambda: not is_running(pid), 5, "the forgotten process to end")


def test_only_processes_of_this_run_count_as_ours() -> None:
    """The mark tells a child of this run from one of another run."""
    ours = subprocess.Popen(["sleep", "60"])
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, leaks.MARK: "another-run"})
    try:
        found = leaks.our_processes(os.environ[leaks.MARK])
        assert ours.pid in found
        assert other.pid not in found
    finally:
        for process in (ours, other):
            process.send_signal(signal.SIGKILL)
            process.wait(10)


def test_addresses_differ() -> None:
    """Every node gets an address of its own, in the block that is ours."""
    given = [free_address() for _ in range(20)]
    assert len(set(given)) == 20
    assert all(address.startswith("127.99.") for address in given)
