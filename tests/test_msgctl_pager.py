"""A pager stands between msgctl and a terminal, and nowhere else; leaving it early is no error."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgctl import pager
from tests.control_server import ControlServer, control_server
from tests.require import require
from tests.terminal import Terminal

LINES = 3000  # more than a pipe holds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlServer]:
    """One that holds many messages."""
    with control_server(tmp_path_factory.mktemp("control")) as running:
        for number in range(LINES):
            running.keep("node3", {"text": f"message {number} of many, which fills a line"})
        yield running


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A pager that shows its environment, then the first two lines it gets."""
    file = tmp_path / "pager"
    file.write_text('#!/bin/sh\necho "LESS=$LESS $1"\nhead -n 2 | sed "s/^/paged: /"\n')
    file.chmod(0o755)
    return file


def at(server: ControlServer, *words: str, **env: str) -> Terminal:
    """`msgctl log` on a terminal that is no dumb one."""
    given = {"TERM": "xterm", "NO_COLOR": "1", "MSGCTL_PAGER": "", **env}
    return Terminal("--socket", server.path, "log", *words, env=given)


@pytest.mark.slow
def test_pager_gets_the_lines_and_may_leave_early(server: ControlServer, program: Path) -> None:
    """With the options that journalctl gives to less; its words are the program and arguments."""
    with at(server, MSGCTL_PAGER=f"{program} word", PAGER="/nowhere") as terminal:
        assert terminal.end() == 0
    first, *rest = terminal.shown.splitlines()
    assert first == "LESS=FRSXMK word"
    assert [line.split(": ")[0] for line in rest] == ["paged", "paged"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["--no-pager"], {}),
        ([], {"MSGCTL_PAGER": "cat"}),
        ([], {"MSGCTL_PAGER": ""}),
        ([], {"TERM": "dumb"}),
    ],
)
def test_no_pager_where_none_is_wanted(
    server: ControlServer, program: Path, words: list[str], env: dict[str, str]
) -> None:
    """All lines come straight to the terminal."""
    with at(server, *words, **{"MSGCTL_PAGER": str(program), **env}) as terminal:
        assert terminal.end() == 0
    assert terminal.shown.count("\n") == LINES and "paged" not in terminal.shown


@pytest.mark.slow
def test_following_needs_no_pager(server: ControlServer, program: Path) -> None:
    """As journalctl."""
    with at(server, "-f", "-o", "cat", MSGCTL_PAGER=str(program)) as terminal:
        assert terminal.end() == 0
    assert "paged" not in terminal.shown


@pytest.mark.slow
def test_less_shows_the_end_first_and_ends_by_q(server: ControlServer) -> None:
    """-e; what fits on the screen ends it at once."""
    require("less")
    with at(server, "-e", "-o", "cat", MSGCTL_PAGER="less") as terminal:
        terminal.see(f"message {LINES - 1} of many")
        assert "message 0 " not in terminal.shown
        terminal.answer("q")
        assert terminal.end() == 0
    with at(server, "-o", "cat", "--after-cursor=c", "-n", "2", MSGCTL_PAGER="less") as terminal:
        assert terminal.end() == 0
    assert "message 1 of many" in terminal.shown


@pytest.mark.slow
def test_interrupt_belongs_to_the_pager(server: ControlServer, tmp_path: Path) -> None:
    """Once it has everything; msgctl ends when it does."""
    file = tmp_path / "pager"
    file.write_text(
        f"#!{sys.executable}\nimport signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "sys.stdin.read()\nprint('ready', flush=True)\nsignal.sigwait([signal.SIGINT])\nprint('bye')\n"
    )
    file.chmod(0o755)
    with at(server, MSGCTL_PAGER=str(file)) as terminal:
        terminal.see("ready")
        terminal.interrupt()
        terminal.see("bye")
        assert terminal.end() == 0


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, [["less"], ["more"]]),
        ({"PAGER": "most -s"}, [["most", "-s"]]),
        ({"PAGER": "most", "MSGCTL_PAGER": "less -R"}, [["less", "-R"]]),
        ({"PAGER": "most", "MSGCTL_PAGER": ""}, []),
        ({"PAGER": "cat"}, []),
        ({"PAGER": "sh -c id", "SUDO_UID": "1000"}, [["less"]]),
    ],
)
def test_pager_is_chosen_by_the_environment(env: dict[str, str], expected: list[list[str]]) -> None:
    """Nothing but less for somebody who is root for one command only."""
    assert expected == pager._commands({"TERM": "xterm", **env})


def test_less_runs_no_commands_for_another_user() -> None:
    """Who may run `sudo msgctl log` gets no shell by that."""
    assert pager._environment({"SUDO_UID": "1000", "LESS": "x"}, at_end=True) == {
        "SUDO_UID": "1000",
        "LESS": "FRSXMK +G",
        "LESSCHARSET": "utf-8",
        "LESSSECURE": "1",
    }
    assert "LESSSECURE" not in pager._environment(os.environ, at_end=False)


@pytest.mark.slow
def test_pager_that_is_not_there_is_done_without(server: ControlServer) -> None:
    """The lines are worth more than the pager."""
    with at(server, MSGCTL_PAGER="/nowhere/at/all") as terminal:
        assert terminal.end() == 0
    assert terminal.shown.count("\n") == LINES
