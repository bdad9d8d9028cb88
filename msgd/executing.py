"""Runs a hook's command: once, walled in, for a bounded time, and leaves nothing of it running.

- Its own session; SIGKILL when this process dies (PDEATHSIG). What takes too long gets SIGTERM, then SIGKILL,
  with its whole process group; what it leaves behind there when it ends is killed.
- The body on standard input, a memory file, so that nobody waits for a command that does not read.
- Standard output and error are one pipe; its lines are told, so many and so long at most.
- Never a shell; a clean environment; no core; the usual number of descriptors; no capability.
"""

import ctypes
import os
import pwd
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from msgd import capabilities
from msgd.saying import Lines
from msgd.signals import Signals

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DESCRIPTORS = 1024  # the usual soft limit: programs that use select(2) know no others
END_NOW = signal.SIGUSR1  # to a process that runs a command: end the command
GRACE_S = 2.0  # between SIGTERM and SIGKILL; a stop of msgd has 3 s for all of it
READ_BYTES = 1 << 16
LAST_READS = 16  # behind its end: a pipe holds 64 KiB, and whoever it let loose may go on writing
PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None)


class Program(NamedTuple):
    """What to run."""

    words: tuple[str, ...]  # the first is an absolute path
    user: str | None  # None: the user of this process
    timeout_s: float


class CannotRunError(Exception):
    """The command was not started; says why."""


class Ended(NamedTuple):
    """How a run ended."""

    why: str  # empty: with 0
    seconds: float
    asked: frozenset[int]  # signals that came meanwhile


def die_with(parent: int) -> None:
    """This process is killed when its parent ends; if that has happened already, at once."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def kill_left(group: int) -> None:
    """Kill what is left of a command whose maker has died: its own process died with that, not its children.

    While one of them lives nobody else gets this number; a living process of this number is another one.
    """
    try:
        with open(f"/proc/{group}/stat", encoding="ascii", errors="replace") as stream:
            if stream.read().rpartition(")")[2].split()[0] not in "ZX":
                return
    except FileNotFoundError:
        pass
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def environment(entry: pwd.struct_passwd | None) -> dict[str, str]:
    """What a command of this user finds besides `MSGD_*`."""
    found = {"PATH": PATH, "LANG": os.environ.get("LANG", "C.UTF-8"), "HOME": "/"}
    if entry is not None:
        found |= {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return found


def _entry(user: str | None) -> pwd.struct_passwd | None:
    """Who the command runs as; None: as this process, which has no name."""
    try:
        return pwd.getpwuid(os.geteuid()) if user is None else pwd.getpwnam(user)
    except KeyError:
        if user is None:
            return None
        raise CannotRunError(f"there is no user {user!r}") from None


def run(
    program: Program,
    body: bytes,
    variables: dict[str, str],
    signals: Signals,
    say: Callable[[str], None],
    started: Callable[[int], None] = lambda group: None,
) -> Ended:
    """Run it to its end; `say` hears its lines, `started` its process group.

    END_NOW among `signals` ends it, others are only noted. A command that is ended may still end with 0.
    Raises CannotRunError.
    """
    began_s, entry = time.monotonic(), _entry(program.user)
    output, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(theirs, True)
    try:
        process = _start(program, entry, body, variables, theirs)
    except (OSError, subprocess.SubprocessError) as error:
        os.close(output)
        raise CannotRunError(getattr(error, "strerror", None) or str(error)) from error
    finally:
        os.close(theirs)
    started(process.pid)
    watch = _Watch(process, output, signals, Lines(say), program.timeout_s)
    why = watch.until_over()
    return Ended(why, time.monotonic() - began_s, frozenset(watch.asked))


def _start(
    program: Program,
    entry: pwd.struct_passwd | None,
    body: bytes,
    variables: dict[str, str],
    output: int,
) -> "subprocess.Popen[bytes]":
    maker = os.getpid()
    other = entry if entry is not None and entry.pw_uid != os.geteuid() else None
    stdin = _memory_file(body)
    try:
        return subprocess.Popen(
            program.words,
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_encoded(environment(entry) | variables),
            start_new_session=True,
            preexec_fn=lambda: _wall_in(maker),
            user=other and other.pw_uid,
            group=other and other.pw_gid,
            extra_groups=other and os.getgrouplist(other.pw_name, other.pw_gid),
        )
    finally:
        os.close(stdin)


def _encoded(variables: dict[str, str]) -> dict[bytes, bytes]:
    """Always as UTF-8: what a peer says may not fit this process's locale."""
    return {
        name.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
        for name, value in variables.items()
    }


def _wall_in(maker: int) -> None:
    """In the new process, as the user that it is for, right before it becomes the command."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, END_NOW):
        signal.signal(number, signal.SIG_DFL)  # our children ignore some, and that would be inherited
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, most), most))
    capabilities.pass_none_on()
    die_with(maker)  # last: a change of user would undo it


def _memory_file(body: bytes) -> int:
    fd = os.memfd_create("message", os.MFD_CLOEXEC)
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class _Watch:
    """A command that runs: its output, its deadline, its end."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        output: int,
        signals: Signals,
        lines: Lines,
        timeout_s: float,
    ) -> None:
        self.asked: set[int] = set()
        self._process = process
        self._output = output
        self._signals = signals
        self._lines = lines
        self._deadline_s = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._ending = ""  # why it is being ended
        self._pidfd = os.pidfd_open(process.pid)
        self._poll = select.poll()
        for fd in (output, self._pidfd, signals.fileno()):
            self._poll.register(fd, select.POLLIN)

    def until_over(self) -> str:
        """Until it has ended and nothing of it is left; why it failed, or nothing."""
        try:
            while not self._step():
                pass
            self._kill(signal.SIGKILL)  # whom it left behind: the group is its own until it is reaped
            code = self._process.wait()
            for _ in range(LAST_READS):
                if not self._read():
                    break
        finally:
            os.close(self._pidfd)
            os.close(self._output)
        self._lines.end()
        if self._ending and code != 0:
            return self._ending
        return "" if code == 0 else _describe(code)

    def _step(self) -> bool:
        """Wait for the next thing to happen; whether it was the end."""
        left_ms = max(0.0, self._deadline_s - time.monotonic()) * 1000
        ready = {fd for fd, _ in self._poll.poll(left_ms)}
        if self._output in ready and not self._read():
            self._poll.unregister(self._output)
        if self._signals.fileno() in ready:
            taken = self._signals.take()
            self.asked |= taken
            if END_NOW in taken:
                self._end("msgd stops")
        if time.monotonic() >= self._deadline_s:
            self._end(f"it took longer than {self._timeout_s:g} s")
        return self._pidfd in ready

    def _end(self, why: str) -> None:
        """End it: politely the first time."""
        self._kill(signal.SIGKILL if self._ending else signal.SIGTERM)
        self._ending = self._ending or why
        self._deadline_s = time.monotonic() + GRACE_S

    def _kill(self, number: int) -> None:
        # none is left; or it has become another user, as sudo does, and ends when it ends
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _read(self) -> bool:
        """Take some of what was written; False where there is nothing, for now or for good."""
        try:
            data = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return False
        self._lines.feed(data)
        return bool(data)


def _describe(code: int) -> str:
    if code > 0:
        return f"it ended with {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"it was killed by {name}"
