"""Runs a command for one message: the body on standard input, the message in the environment, never a shell.

The body lies in a memory file, so that a command that does not read it all blocks nobody and gets no SIGPIPE
into our writing. Standard output and error are the caller's. The command dies with this process (PDEATHSIG).

While it runs, `Stops` holds back what would end this process: SIGINT, SIGTERM and SIGHUP are passed on to the
command, but not what a terminal sends to both anyway, and whoever asked for the run acts when it is over.
"""

import ctypes
import os
import signal
import subprocess
from _collections_abc import Iterable
from types import TracebackType

from msgd.errors import UsageError

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BLOCKED = (*STOPPING, signal.SIGCHLD)
LOOK_S = 1.0  # a SIGCHLD that another thread took would else be waited for
SI_KERNEL = 128  # si_code of a signal that no process sent: from the terminal
PR_SET_PDEATHSIG = 1  # linux/prctl.h
GONE = 127  # of a command whose maker had died before it could be tied to its life


class Stops:
    """Holds the stopping signals back for a while. `seen`: the first one; on leaving it has its effect."""

    def __init__(self) -> None:
        self.seen: int | None = None
        self._mask: Iterable[int] = ()

    def __enter__(self) -> "Stops":
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.seen is not None:
            os.kill(os.getpid(), self.seen)  # blocked until the next line
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def wait(self, seconds: float) -> bool:
        """Sleep; whether a stopping signal has come by then, or before."""
        if self.seen is None:
            came = signal.sigtimedwait(STOPPING, seconds)
            self.seen = came.si_signo if came else None
        return self.seen is not None

    def attend(self, process: "subprocess.Popen[bytes]") -> int:
        """Until the process has ended; its exit code, or minus the signal that killed it."""
        while process.poll() is None:
            came = signal.sigtimedwait(BLOCKED, LOOK_S)
            if came is not None and came.si_signo != signal.SIGCHLD:
                self.seen = self.seen or came.si_signo
                if came.si_code != SI_KERNEL:
                    process.send_signal(came.si_signo)
        return process.returncode


class Command:
    """A program with its arguments, that runs once for each message."""

    def __init__(self, words: list[str]) -> None:
        """Raises UsageError where there is no such program."""
        self.words = words
        self.name = os.path.basename(words[0])
        self._libc = ctypes.CDLL(None)
        if not any(map(_is_executable, _places(words[0]))):
            raise UsageError(f"cannot run {words[0]}: {_why_not(words[0])}", _hint(words[0]))

    def run(self, body: bytes, variables: dict[str, str], stops: Stops) -> int:
        """One run; its exit code, or minus the signal that killed it. Raises UsageError: it cannot run."""
        fd = _memory_file(body)
        try:
            process = subprocess.Popen(
                self.words,
                stdin=fd,
                env={**os.environb, **_encoded(variables)},
                preexec_fn=self._tie(os.getpid()),  # there are no threads here
            )
        except OSError as exc:
            raise UsageError(f"cannot run {self.words[0]}: {exc.strerror}", _hint(self.words[0])) from exc
        finally:
            os.close(fd)
        return stops.attend(process)

    def _tie(self, maker: int) -> "Callable[[], None]":
        def tie() -> None:
            """In the child: it dies with its maker, and signals are as a program expects them."""
            self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != maker:
                os._exit(GONE)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # one that waits must not reach Python here
            signal.pthread_sigmask(signal.SIG_SETMASK, ())

        return tie


def describe(code: int) -> str:
    """How a run ended: 'ended with 3', 'was killed by SIGKILL'."""
    if code >= 0:
        return f"ended with {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed by {name}"


def _encoded(variables: dict[str, str]) -> dict[bytes, bytes]:
    """Always as UTF-8: what a peer says may not fit this process's locale."""
    return {name.encode(): value.encode() for name, value in variables.items()}


def _memory_file(body: bytes) -> int:
    fd = os.memfd_create("message", os.MFD_CLOEXEC)
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _places(word: str) -> list[str]:
    """Where a program of this name would be."""
    return [word] if "/" in word else [os.path.join(place, word) for place in os.get_exec_path()]


def _is_executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _why_not(word: str) -> str:
    if any(os.path.isfile(path) for path in _places(word)):
        return "the file is not executable"
    return "it is a directory" if os.path.isdir(word) else "there is no such program"


def _hint(word: str) -> str:
    if " " in word:
        return "a program and its arguments are words of their own: -- CMD ARG ARG"
    return "it is run as it stands, without a shell: -- sh -c '…' has one"


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
