"""Children: made in one way, reaped without waiting, judged by their kind."""

import errno
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from msgd import journal
from msgd.children import Children, Ended, Kind, Then, describe, prepare
from msgd.errors import EX_CONFIG, EX_IOERR, ConfigError, Fatal, UsageError
from msgd.signals import Signals
from tests.forked import in_child
from tests.require import require

SOON_S = 10.0
Body = Callable[[], int | None]


@pytest.fixture
def children() -> Iterator[Children]:
    """Children of the test; what still runs afterwards is killed."""
    made = Children()
    yield made
    for pid in made.by_pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, object]]]]:
    """All events of the test and its children, from a file."""
    before = (journal._sink, journal._processors, journal._shown)
    with (tmp_path / "events").open("a") as stream:
        journal.setup("debug", stream=stream, env={})
        yield lambda: [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    journal._sink, journal._processors, journal._shown = before


def ended(children: Children) -> Ended:
    """The next end, waited for without taking it away from `reap`."""
    deadline_s = time.monotonic() + SOON_S
    while time.monotonic() < deadline_s:
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            (end,) = children.reap()
            return end
        select.select([], [], [], 0.001)
    raise AssertionError("no child ended in time")


def said(children: Children, body: Callable[[], object], keep_fds: tuple[int, ...] = ()) -> object:
    """What `body` returns in a spawned child, by a pipe."""
    read_fd, write_fd = os.pipe()

    def run() -> int:
        os.write(write_fd, json.dumps(body()).encode())
        return 0

    children.spawn(Kind.PEER, "node3", run, (write_fd, *keep_fds))
    os.close(write_fd)
    with os.fdopen(read_fd) as stream:
        answer = json.load(stream)
    assert ended(children).text == "exit 0"
    return answer


def stay() -> NoReturn:
    while True:
        signal.pause()


def raises(error: BaseException) -> Body:
    def body() -> NoReturn:
        raise error

    return body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (lambda: None, 0),
        (lambda: 0, 0),
        (lambda: 74, 74),
        (raises(SystemExit(9)), 9),
        (raises(SystemExit()), 0),
        (raises(SystemExit("sentence")), 1),
        (raises(ValueError("x")), 1),
        (raises(KeyboardInterrupt()), 1),
        (raises(UsageError("x")), 1),
        (raises(Fatal("x")), EX_IOERR),
        (raises(ConfigError("x")), EX_CONFIG),
    ],
)
def test_a_child_exits_with_what_its_body_returns_or_raises(
    children: Children, body: Body, code: int
) -> None:
    """And never comes back into its parent's code."""
    child = children.spawn(Kind.INDEX, "", body, data="mine")
    end = ended(children)
    assert (end.child, end.code, end.signal, end.text) == (child, code, None, f"exit {code}")
    assert (end.child.data, children.by_pid) == ("mine", {})
    assert 0 <= end.lived_s < SOON_S


def test_a_killed_child_is_told_by_the_signals_name(children: Children) -> None:
    """'killed by SIGKILL', as people search for it."""
    children.spawn(Kind.LOG, "", stay)
    children.kill(signal.SIGKILL, Kind.PEER)  # another kind: nothing happens
    children.kill(signal.SIGKILL, Kind.LOG)
    end = ended(children)
    assert (end.code, end.signal, end.text) == (None, signal.SIGKILL, "killed by SIGKILL")


def test_statuses_are_described() -> None:
    """Exit codes, signals, signals without a name, core dumps."""
    assert [describe(status) for status in (0, 74 << 8, 9, 50, 11 | 0x80)] == [
        "exit 0",
        "exit 74",
        "killed by SIGKILL",
        "killed by signal 50",
        "killed by SIGSEGV, core dumped",
    ]


def test_reap_takes_all_that_ended_and_never_waits(children: Children) -> None:
    """One SIGCHLD may stand for many ends; a child that runs on holds nobody up."""
    assert children.reap() == []
    running = children.spawn(Kind.LOG, "", stay)
    assert children.reap() == []
    for number in range(3):
        children.spawn(Kind.CONTROL, str(number), lambda: 0)
    found: list[Ended] = []
    deadline_s = time.monotonic() + SOON_S
    while len(found) < 3 and time.monotonic() < deadline_s:
        found += children.reap()
    assert {end.child.label for end in found} == {"0", "1", "2"}
    assert children.of(Kind.LOG, Kind.INDEX) == [running]


def test_a_child_that_is_not_ours_is_reaped_all_the_same(
    children: Children, events: Callable[[], list[dict[str, object]]]
) -> None:
    """As process 1 of a container msgd inherits orphans; they must not become zombies."""
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert children.reap() == []
    (unknown,) = events()
    assert (unknown["event"], unknown["pid"], unknown["reason"]) == ("child.unknown", pid, "exit 3")
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("kind", "code", "then"),
    [
        (Kind.LOG, 0, Then.REPLACE_ALL),
        (Kind.LOG, 1, Then.REPLACE_ALL),
        (Kind.LOG, EX_IOERR, Then.END),
        (Kind.LOG, EX_CONFIG, Then.END),
        (Kind.INDEX, EX_IOERR, Then.RESTART),
        (Kind.PEER, EX_CONFIG, Then.BACK_OFF),
        (Kind.CONTROL, 1, Then.FORGET),
    ],
)
def test_the_kind_decides_what_an_end_means(children: Children, kind: Kind, code: int, then: Then) -> None:
    """Only the log process can end msgd, and only with 74 or 78."""
    children.spawn(kind, "", lambda: code)
    assert ended(children).then is then


def test_an_error_in_a_body_is_told_once_with_its_traceback(
    children: Children, events: Callable[[], list[dict[str, object]]]
) -> None:
    """By the child, with its pid; the parent tells the end."""
    child = children.spawn(Kind.PEER, "node3", raises(ValueError("bad frame")))
    ended(children)
    started, failed, end = sorted(events(), key=lambda one: one["event"] != "child.started")
    assert (started["event"], started["level"]) == ("child.started", "debug")
    assert (failed["event"], failed["worker"]) == ("child.failed", child.pid)
    assert (failed["title"], failed["reason"]) == ("msgd: peer node3", "ValueError: bad frame")
    assert "in body" in str(failed["exception"])
    assert (end["event"], end["level"], end["reason"]) == ("child.ended", "warning", "exit 1")


def test_a_child_has_its_title_and_still_its_environment(children: Children) -> None:
    """`ps` shows what it does; /proc/PID/environ still says what it was started with."""
    os.environ["MSGD_TEST_CHILD"] = "kept"
    before = Path("/proc/self/environ").read_bytes()

    def body() -> tuple[str, bool]:
        title = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode()
        return title, Path("/proc/self/environ").read_bytes() == before

    assert said(children, body) == ["msgd: peer node3", True]
    del os.environ["MSGD_TEST_CHILD"]


def test_a_child_has_its_own_descriptors_only(children: Children) -> None:
    """0, 1, 2 and what is on its list; whatever else the parent had open is closed."""
    ours, other = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)
    far = os.dup2(other, 900)

    def body() -> list[int]:
        return [fd for fd in (0, 1, 2, ours, other, far) if os.path.exists(f"/proc/self/fd/{fd}")]

    assert said(children, body, (ours,)) == [0, 1, 2, ours]
    for fd in (ours, other, far):
        os.close(fd)


def test_a_child_can_write_events_to_journald(children: Children, tmp_path: Path) -> None:
    """The journal's socket is kept without being on anybody's list."""
    before = (journal._sink, journal._processors, journal._shown)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald, (tmp_path / "e").open("w") as stream:
        journald.bind(str(tmp_path / "journal"))
        journald.settimeout(SOON_S)
        info = os.fstat(stream.fileno())
        env = {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"}
        journal.setup("info", stream=stream, env=env, journal_socket=str(tmp_path / "journal"))
        child = children.spawn(Kind.PEER, "b", lambda: journal.event("link.opened", peer="b"))
        assert f"WORKER_PID={child.pid}\n".encode() in journald.recv(4096)
    ended(children)
    journal._sink, journal._processors, journal._shown = before


def test_a_child_meets_signals_as_a_new_process_does(children: Children) -> None:
    """Its parent's handlers are not its own: SIGTERM ends it, and the parent's loop hears nothing of it."""
    caught = Signals((signal.SIGTERM,))
    children.spawn(Kind.CONTROL, "", stay)
    children.kill(signal.SIGTERM, Kind.CONTROL)
    assert ended(children).text == "killed by SIGTERM"
    assert caught.take() == set()
    caught.close()


def test_a_signal_during_spawn_reaches_the_parents_loop_alone(children: Children) -> None:
    """It was held back, not lost; the mask is as before."""
    caught = Signals((signal.SIGUSR1,))
    children.spawn(Kind.CONTROL, "", lambda: os.kill(os.getppid(), signal.SIGUSR1))
    ended(children)
    assert caught.take() == {signal.SIGUSR1}
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    caught.close()


def test_no_room_for_a_process_is_an_error_that_changes_nothing() -> None:
    """The caller refuses one client; signals are let through again and nobody is on the list."""

    def body() -> object:
        os.setgid(65534)
        os.setuid(65533)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        children = Children()
        try:
            children.spawn(Kind.CONTROL, "", lambda: 0)
        except OSError as error:
            held = signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())
            return error.errno, children.by_pid, held
        return "forked"

    require("root")  # to become a user with no processes left
    assert in_child(body) == (errno.EAGAIN, {}, False)


def test_prepare_freezes_what_is_loaded() -> None:
    """So that a child's collector copies none of it; and the parent has its title."""

    def body() -> object:
        import gc

        prepare("msgd: test")
        return gc.get_freeze_count() > 10_000, Path("/proc/self/cmdline").read_bytes().rstrip(b"\0")

    assert in_child(body) == (True, b"msgd: test")


def test_output_of_a_child_is_flushed(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    """`os._exit` flushes nothing by itself."""
    with open(1, "w", closefd=False) as stream:

        def body() -> None:
            sys.stdout = stream
            print("last words")

        children.spawn(Kind.CONTROL, "", body)
        ended(children)
    assert capfd.readouterr().out == "last words\n"
