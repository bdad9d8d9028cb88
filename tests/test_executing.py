"""How a hook's command is run: what it finds, how long it may take, what stays of it (nothing)."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd import executing
from msgd.executing import END_NOW, CannotRunError, Ended, Program, run
from msgd.saying import MOST_BYTES, MOST_LINES, Lines
from msgd.signals import Signals
from tests.forked import in_child
from tests.nodes import is_running, wait_for
from tests.require import require

SH = "/bin/sh"
GLIBC_SIGNALS = (
    0b11 << 31
)  # 32 and 33 are glibc's own: no program can set them, and make hands on what it has


@pytest.fixture
def signals() -> Iterator[Signals]:
    caught = Signals((signal.SIGTERM, END_NOW))
    yield caught
    caught.close()


def ran(
    signals: Signals,
    *words: str,
    body: bytes = b"",
    variables: dict[str, str] | None = None,
    user: str | None = None,
    timeout_s: float = 20.0,
) -> tuple[Ended, list[str]]:
    """One run, and what it said."""
    said: list[str] = []
    ended = run(Program(words, user, timeout_s), body, variables or {}, signals, said.append)
    return ended, said


@pytest.mark.parametrize("body", [b"", b"hola", b"\xff\0\n", b"x" * (1 << 20)], ids=len)
def test_the_body_is_standard_input_byte_for_byte(signals: Signals, tmp_path: Path, body: bytes) -> None:
    """Whatever its bytes, and from its beginning."""
    copy = tmp_path / "copy"
    ended, said = ran(signals, SH, "-c", f"cat > {copy}", body=body)
    assert ("", []) == (ended.why, said)
    assert body == copy.read_bytes()


def test_a_command_that_does_not_read_its_body_is_no_failure(signals: Signals) -> None:
    assert "" == ran(signals, "/bin/true", body=b"x" * (1 << 20))[0].why


def test_the_environment_is_clean(signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH, LANG, who it is, and what is given; nothing of the daemon's own."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    _, said = ran(signals, "/usr/bin/env", variables={"MSGD_ID": "1 2"})
    names = {line.partition("=")[0] for line in said}
    assert {"PATH", "LANG", "HOME", "USER", "LOGNAME", "MSGD_ID"} == names
    assert "MSGD_ID=1 2" in said


def test_what_a_peer_says_need_not_fit_the_locale(signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "fsencode", lambda path: path if isinstance(path, bytes) else path.encode("ascii")
    )
    ended, said = ran(signals, "/usr/bin/env", variables={"MSGD_USER": "日本"})
    assert ("", True) == (ended.why, "MSGD_USER=日本" in said)


def test_a_command_is_walled_in(signals: Signals) -> None:
    """A session of its own, ordinary signals, no core, 1,024 descriptors of which it has three, at /."""
    script = (
        "cat /proc/self/stat; ulimit -c; ulimit -S -n; ls /proc/self/fd; pwd; grep Sig[IB] /proc/self/status"
    )
    _, said = ran(signals, "/bin/bash", "-c", script)
    stat = said[0].rpartition(")")[2].split()
    session, leader = int(stat[3]), int(stat[2])
    assert session == leader != os.getsid(0)
    assert ["0", "1024", "0", "1", "2", "3", "/"] == said[1:8]  # 3 is that of `ls`
    masks = {name: int(mask, 16) & ~GLIBC_SIGNALS for name, mask in (line.split(":\t") for line in said[8:])}
    assert {"SigIgn": 0, "SigBlk": 0} == masks


@pytest.mark.parametrize(
    ("script", "why"),
    [("exit 0", ""), ("exit 3", "it ended with 3"), ("kill -9 $$", "it was killed by SIGKILL")],
)
def test_how_it_ended_is_told(signals: Signals, script: str, why: str) -> None:
    assert why == ran(signals, SH, "-c", script)[0].why


@pytest.mark.parametrize("path", ["/nonexistent", "/etc/passwd", "/", "/etc/passwd/x"])
def test_what_cannot_be_run_is_told(signals: Signals, path: str) -> None:
    """And no descriptor is lost over it."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CannotRunError):
        ran(signals, path)
    with pytest.raises(CannotRunError, match="there is no user 'nobody-at-all'"):
        ran(signals, "/bin/true", user="nobody-at-all")
    assert len(before) == len(os.listdir("/proc/self/fd"))


@pytest.mark.slow
def test_what_takes_too_long_is_ended_with_all_its_children(signals: Signals, tmp_path: Path) -> None:
    """SIGTERM first, which it may use to tidy up."""
    mark = tmp_path / "tidied"
    script = f"trap 'echo tidied > {mark}; exit 0' TERM; sleep 1000 & echo $!; sleep 1001"
    ended, said = ran(signals, SH, "-c", script, timeout_s=0.2)
    assert ended.seconds < 2
    assert mark.read_text() == "tidied\n"
    wait_for(lambda: not is_running(int(said[0])), 5, "its child to end")


@pytest.mark.slow
def test_who_ignores_sigterm_is_killed(signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment of grace."""
    monkeypatch.setattr(executing, "GRACE_S", 0.3)
    ended, _ = ran(signals, SH, "-c", "trap '' TERM; while :; do sleep 1000; done", timeout_s=0.1)
    assert "it took longer than 0.1 s" == ended.why
    assert 0.4 <= ended.seconds < 5


def test_what_a_command_leaves_behind_is_killed(signals: Signals) -> None:
    """A child in the background, even one that holds the output open."""
    ended, said = ran(signals, SH, "-c", "sleep 1000 & echo $!")
    assert ("", 1) == (ended.why, len(said))
    wait_for(lambda: not is_running(int(said[0])), 5, "what it left behind to end")


def test_a_signal_ends_the_command_or_is_noted(signals: Signals) -> None:
    """END_NOW ends it; SIGTERM is for afterwards."""
    for number, why in ((signal.SIGTERM, ""), (END_NOW, "msgd stops")):
        timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
        timer.start()
        ended, _ = ran(signals, "/bin/sleep", "0.2" if number == signal.SIGTERM else "1000")
        timer.join()
        assert (why, frozenset((number,))) == (ended.why, ended.asked)


def test_a_command_dies_with_its_maker() -> None:
    """SIGKILL to the process that runs it is SIGKILL to the command."""

    def body() -> int:
        pid = os.fork()
        if pid == 0:
            run(Program(("/bin/sleep", "1000"), None, 1000.0), b"", {}, Signals((END_NOW,)), print)
        deadline_s = time.monotonic() + 5
        children = Path(f"/proc/{pid}/task/{pid}/children")
        while not (found := children.read_text().split()) or "sleep" not in comm(int(found[0])):
            assert time.monotonic() < deadline_s
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return int(found[0])

    command = in_child(body)
    wait_for(lambda: not is_running(command), 5, "the command to end")


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def test_it_runs_as_another_user_with_nothing_of_ours(signals: Signals) -> None:
    """Its groups are that user's, and it has no capability."""
    require("root")
    _, said = ran(
        signals, SH, "-c", "id -un; id -Gn; echo $HOME; grep CapPrm /proc/self/status", user="nobody"
    )
    assert ["nobody", "nogroup", "/nonexistent", "CapPrm:\t0000000000000000"] == said


# --- what it says -------------------------------------------------------------------------------------------


def told(*parts: bytes) -> list[str]:
    said: list[str] = []
    lines = Lines(said.append)
    for part in parts:
        lines.feed(part)
    lines.end()
    return said


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"o", b"ne\nt", b"wo"), ["one", "two"]),
        ((b"\n\n",), ["", ""]),
        ((b"\xff\xc3\xa9\n",), ["\\xffé"]),
        ((b"x" * 3000 + b"\nnext\n",), ["x" * MOST_BYTES + "…", "next"]),
        ((b"x" * 1500, b"x" * 1500, b"x\nnext\n"), ["x" * MOST_BYTES + "…", "next"]),
        ((b"x" * 1500, b"\n\n"), ["x" * MOST_BYTES + "…", ""]),
        ((b"y\n" * (MOST_LINES + 7),), ["y"] * MOST_LINES + ["… 7 more lines"]),
        ((), []),
    ],
    ids=range(9),
)
def test_lines_are_told_within_bounds(parts: tuple[bytes, ...], expected: list[str]) -> None:
    """However they arrive."""
    assert expected == told(*parts)


@pytest.mark.slow
def test_endless_output_costs_no_memory_and_ends_in_time(signals: Signals) -> None:
    """It is read, counted, and forgotten."""
    ended, said = ran(signals, "/usr/bin/yes", timeout_s=0.3)
    assert "it took longer than 0.3 s" == ended.why
    assert ended.seconds < 2
    assert ["y"] * MOST_LINES == said[:MOST_LINES]
    assert said[MOST_LINES].endswith(" more lines")
