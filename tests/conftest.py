"""For all tests: no silent skip where everything must run, nothing left behind, real nodes on request."""

import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests import leaks
from tests.control_server import ControlServer, control_server
from tests.msgctl_run import Runner
from tests.nodes import Nodes
from tests.require import EVERYTHING

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
LEFT = pytest.StashKey[list[str]]()
DIRECTORY = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    os.environ[leaks.MARK] = f"{os.getpid()}-{secrets.token_hex(4)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return refuse_skip((yield))


def refuse_skip(report: Report) -> Report:
    """Where everything must run, a skip is a failure that says what was skipped and why."""
    if EVERYTHING and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"skipped under MSGD_TEST_REQUIRE=all: {report.longrepr}"
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves a process or a mount behind has failed, whatever its tests say."""
    mark = os.environ[leaks.MARK]
    found = leaks.leftovers(mark, session.config.stash.get(DIRECTORY, ""))
    if found:
        leaks.end_processes(mark)
        session.config.stash[LEFT] = found
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for sentence in config.stash.get(LEFT, []):
        terminalreporter.write_line(f"LEFT BEHIND: {sentence}", red=True, bold=True)


@pytest.fixture(scope="session", autouse=True)
def run_directory(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> str:
    """The directory that holds everything this run writes; no mount may stay below it."""
    directory = os.fspath(tmp_path_factory.getbasetemp())
    pytestconfig.stash[DIRECTORY] = directory
    return directory


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Makes real daemons, each on a loopback address of its own; ends all of them after the test."""
    made = Nodes(tmp_path)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    """A daemon of the test's own, for msgctl to talk to."""
    with control_server(tmp_path) as running:
        yield running


@pytest.fixture
def run(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Runs msgctl in this process against it."""
    return Runner(server.path, monkeypatch)
