"""`msgd --daemon`: the classic way to the background, on machines without systemd.

    shell ── msgd ──────────── waits on a pipe ─── "ready" or the error ─── exits with it
               └ fork ─ python-daemon: setsid, fork, fork ─ msgd, the daemon ─ ready() or failed()

The command comes back only when the daemon answers or has failed, so `msgd --daemon && msgctl status`
works, and an error that a person can correct is read on the terminal, not in a file.

python-daemon's DaemonContext does the detaching, with these arguments and reasons:

| argument | |
|---|---|
| files_preserve | our listening sockets and the pipe: it closes everything else |
| umask=0o077 | its default is 0: the key would be readable by all |
| signal_map={} | its default handler for SIGTERM raises SystemExit wherever the program is |
| detach_process=True | it would not detach below an init or a super-server, and then nobody would wait |
| working_directory="/" | so that no mount is kept busy; all our paths are absolute |
| pidfile | written by the daemon itself, removed at its end |
| stdout, stderr | the log file, where events go as JSON lines |

Left out: rotation of the log file. It is opened for appending, so logrotate's `copytruncate` is right.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from types import TracebackType
from typing import NoReturn, TextIO

from msgd.errors import OK, UNEXPECTED, ConfigError, MsgdError
from msgd.journal import event

READY = b"ready"


class PidFile:
    """A file that names the running msgd, and a lock on it for as long as that one lives.

    The lock, not the number, says whether it lives: a number may be somebody else's by now. `acquire`
    before going to the background, so that a second daemon is told on the terminal; enter in the daemon.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # the daemon's working directory is another
        self.fd = -1
        self.stale_pid = ""

    def acquire(self) -> None:
        """Lock the file, making it if need be. Raises ConfigError when a running msgd holds it."""
        try:
            os.makedirs(os.path.dirname(self.path), 0o755, exist_ok=True)
            while not self._is_current():
                self.close()
                self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                flock(self.fd, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            pid = self._content()
            self.close()
            state = f"running as process {pid}" if pid else "starting"
            raise ConfigError(
                f"msgd is already {state}, says {self.path}",
                "End that one first, or give this one a configuration of its own.",
            ) from None
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be used as pid file: {error.strerror}") from error
        self.stale_pid = self._content()

    def _is_current(self) -> bool:
        """Whether what we locked is still the file of that name: a msgd that ends takes its own away."""
        try:
            return self.fd >= 0 and os.path.samestat(os.fstat(self.fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _content(self) -> str:
        return os.pread(self.fd, 32, 0).decode("ascii", "replace").strip()

    def tell_stale(self) -> None:
        """The event for a file that an earlier msgd left behind; after the journal was set up."""
        if self.stale_pid:
            event("pidfile.replaced", path=self.path, pid=self.stale_pid)

    def close(self) -> None:
        """Let the lock go, without removing the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> "PidFile":
        """Write this process's number."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Remove the file while it is still locked, then let go."""
        if self._content() == str(os.getpid()):
            with suppress(OSError):
                os.unlink(self.path)
        self.close()


class Background:
    """The daemon's end of the pipe to the command that a person waits for. Used once."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ready(self) -> None:
        """Let the command end with success."""
        self._answer(READY)

    def failed(self, error: MsgdError) -> None:
        """Let the command end with this error."""
        self._answer(f"{error.code}\n{error.message}\n{error.hint}".encode("utf-8", "replace"))

    def _answer(self, answer: bytes) -> None:
        if self._fd >= 0:
            with suppress(OSError):  # the person has not waited
                os.write(self._fd, answer)
            os.close(self._fd)
            self._fd = -1


def detach(pid_file: PidFile, log_file: str, keep_fds: Iterable[int] = ()) -> Background:
    """Go to the background. Returns in the daemon; the command itself raises SystemExit(0) or the error.

    `pid_file` has been acquired; `keep_fds` are the descriptors that must stay open. Set the journal up
    after this, since all others are closed. The daemon removes the pid file when it ends by `sys.exit`.
    """
    log_file = os.path.abspath(log_file)
    log = _open_log(log_file)
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        os.close(write_fd)
        _wait(pid, read_fd, log_file)
    os.close(read_fd)
    background = Background(write_fd)
    import daemon  # only here: under systemd no start waits for it

    context = daemon.DaemonContext(
        files_preserve=[write_fd, pid_file.fd, *keep_fds],
        umask=0o077,
        signal_map={},
        detach_process=True,
        working_directory="/",
        pidfile=pid_file,
        stdout=log,
        stderr=log,
    )
    try:
        context.open()
    except (daemon.DaemonError, OSError) as error:
        background.failed(MsgdError(f"cannot go to the background: {error}"))
        os._exit(UNEXPECTED)
    return background


def _wait(pid: int, fd: int, log_file: str) -> NoReturn:
    """In the command: until the daemon has answered, or has ended without a word."""
    with open(fd, "rb") as stream:
        answer = stream.read()
    os.waitpid(pid, 0)  # the first of the forks, gone at once
    if answer == READY:
        raise SystemExit(OK)
    if not answer:
        raise MsgdError("msgd ended before it was ready", f"See the end of {log_file}.")
    code, message, hint = answer.decode().split("\n", 2)
    error = MsgdError(message, hint)
    error.code = int(code)
    raise error


def open_standard_fds() -> None:
    """Give 0, 1 and 2 to the null device where the caller closed them, so that no file of ours gets them.

    The first thing that the program does.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, "r" if fd == 0 else "w", closefd=False))


def _open_log(path: str) -> TextIO:
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be used as log file: {error.strerror}") from error
    return os.fdopen(fd, "a")
