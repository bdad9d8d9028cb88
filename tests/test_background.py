"""Going to the background: the pid file, and what the waiting command hears. With real processes."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msgd.background import PidFile
from msgd.errors import EX_CONFIG, ConfigError

SOON_S = 20.0
REPOSITORY = Path(__file__).parent.parent

# A daemon as small as can be: goes to the background, says what the test wants, stays until SIGTERM.
PROGRAM = """
import signal, sys
from msgd import background, journal
from msgd.errors import MsgdError, ConfigError
background.open_standard_fds()
directory, what = sys.argv[1:]
try:
    pid_file = background.PidFile(directory + "/run/msgd.pid")
    pid_file.acquire()
    daemon = background.detach(pid_file, directory + "/state/msgd.out")
    journal.setup("info")
    pid_file.tell_stale()
    if what == "fail":
        daemon.failed(ConfigError("the key is not ours", "Look at it."))
        sys.exit(78)
    if what == "vanish":
        sys.exit(5)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("written to stdout", flush=True)
    journal.event("daemon.started", version="0", name="b")
    daemon.ready()
    while True:
        signal.pause()
except MsgdError as error:
    print(f"msgd: {error.message}\\n{error.hint}", file=sys.stderr)
    sys.exit(error.code)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs the command; the daemon that stays after a test is ended by its pid."""

    def run(what: str = "stay", **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), what]
        where = {"cwd": REPOSITORY, "capture_output": True, "text": True, "timeout": SOON_S, "check": False}
        return subprocess.run(command, **{**where, **options})  # type: ignore[call-overload,no-any-return]

    yield run
    end(tmp_path)


def pid_of(tmp_path: Path) -> int:
    return int((tmp_path / "run" / "msgd.pid").read_text())


def end(tmp_path: Path, number: int = signal.SIGTERM) -> None:
    """End the daemon that the pid file names, if it runs, and wait until it is gone."""
    try:
        fd = os.pidfd_open(pid_of(tmp_path))
    except (OSError, ValueError):
        return
    signal.pidfd_send_signal(fd, number)
    assert select.select([fd], [], [], SOON_S)[0]
    os.close(fd)


@pytest.mark.slow
def test_the_command_returns_when_the_daemon_is_ready(
    tmp_path: Path, start: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """So `msgd --daemon && msgctl status` works; the daemon is detached, its output is in the log file."""
    done = start()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = pid_of(tmp_path)
    assert os.getsid(pid) != os.getsid(0)
    assert os.getsid(pid) != pid  # not the leader of its session: it can get no terminal again
    assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")
    assert "Umask:\t0077" in Path(f"/proc/{pid}/status").read_text()
    written = (tmp_path / "state" / "msgd.out").read_text()
    assert "written to stdout" in written
    assert '"event": "daemon.started"' in written
    assert (tmp_path / "state" / "msgd.out").stat().st_mode & 0o777 == 0o600
    end(tmp_path)
    assert not (tmp_path / "run" / "msgd.pid").exists()


@pytest.mark.slow
def test_a_second_daemon_is_told_on_the_terminal(
    tmp_path: Path, start: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """One sentence with the pid, exit 78, and the first one lives on."""
    assert start().returncode == 0
    pid = pid_of(tmp_path)
    second = start()
    assert second.returncode == EX_CONFIG
    assert f"msgd is already running as process {pid}, says {tmp_path}/run/msgd.pid" in second.stderr
    assert pid_of(tmp_path) == pid
    os.kill(pid, 0)


@pytest.mark.slow
def test_a_pid_file_left_by_a_killed_daemon_is_replaced(
    tmp_path: Path, start: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """SIGKILL leaves the file, not the lock; the next one tells and goes on."""
    assert start().returncode == 0
    old = pid_of(tmp_path)
    end(tmp_path, signal.SIGKILL)
    assert pid_of(tmp_path) == old
    assert start().returncode == 0
    assert pid_of(tmp_path) != old
    written = (tmp_path / "state" / "msgd.out").read_text()
    assert '"event": "pidfile.replaced"' in written
    assert f'"pid": "{old}"' in written


@pytest.mark.slow
def test_a_daemon_that_fails_lets_the_command_fail_with_its_error(
    tmp_path: Path, start: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The sentence is read on the terminal, the exit code is the daemon's."""
    done = start("fail")
    assert (done.returncode, done.stderr) == (EX_CONFIG, "msgd: the key is not ours\nLook at it.\n")


@pytest.mark.slow
def test_a_daemon_that_ends_without_a_word_is_told_too(
    tmp_path: Path, start: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The command does not wait for ever, and says where to look."""
    done = start("vanish")
    assert done.returncode == 1
    assert "msgd ended before it was ready" in done.stderr
    assert f"See the end of {tmp_path}/state/msgd.out" in done.stderr


@pytest.mark.slow
def test_closed_standard_descriptors_do_no_harm(
    tmp_path: Path, start: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """As from a cron job or an init script with `<&- >&- 2>&-`: no file of ours takes their numbers."""

    def close() -> None:
        os.closerange(0, 3)

    assert start(preexec_fn=close).returncode == 0
    pid = pid_of(tmp_path)
    names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)]
    log = str(tmp_path / "state" / "msgd.out")
    assert names == ["/dev/null", log, log]


def test_a_pid_file_names_this_process_while_it_is_entered(tmp_path: Path) -> None:
    """Made with its directory, written on entry, removed at the end."""
    path = tmp_path / "new" / "msgd.pid"
    pid_file = PidFile(str(path))
    pid_file.acquire()
    assert path.read_text() == ""
    with pid_file:
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_held_pid_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """The lock says that its owner lives, whatever the number means."""
    path = tmp_path / "msgd.pid"
    first = PidFile(str(path))
    first.acquire()
    with first:
        with pytest.raises(ConfigError, match=rf"already running as process {os.getpid()}, says {path}"):
            PidFile(str(path)).acquire()
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_pid_file_held_but_not_yet_written_says_starting(tmp_path: Path) -> None:
    """Between lock and number there is a moment; nobody is called 'process nothing'."""
    first = PidFile(str(tmp_path / "msgd.pid"))
    first.acquire()
    with pytest.raises(ConfigError, match=r"msgd is already starting, says "):
        PidFile(str(tmp_path / "msgd.pid")).acquire()
    first.close()


def test_a_pid_file_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    """A person has written another number into it: not ours to remove."""
    path = tmp_path / "msgd.pid"
    pid_file = PidFile(str(path))
    pid_file.acquire()
    with pid_file:
        path.write_text("1\n")
    assert path.read_text() == "1\n"


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_no_lock(tmp_path: Path) -> None:
    """Many start and end at once: at no time do two hold the file of that name."""
    path = str(tmp_path / "msgd.pid")

    def body() -> int:
        held, deadline_s = 0, time.monotonic() + 0.2
        while time.monotonic() < deadline_s:
            pid_file = PidFile(path)
            try:
                pid_file.acquire()
            except ConfigError:
                continue
            with pid_file:
                assert Path(path).read_text() == f"{os.getpid()}\n"
                held += 1
        return held

    pids = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                body()
            except BaseException:
                os._exit(1)
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]


@pytest.mark.parametrize("path", ["/proc/1/msgd.pid", "/dev/null/msgd.pid"])
def test_an_impossible_pid_file_is_told(path: str) -> None:
    """Where it cannot be made: its name and the system's reason, exit 78."""
    with pytest.raises(ConfigError, match=rf"{path}: cannot be used as pid file: ") as caught:
        PidFile(path).acquire()
    assert caught.value.code == EX_CONFIG
