"""Children of the supervisor: one way to make them, one way to take their end, what each end means.

`spawn` is bare os.fork. multiprocessing's fork context is ruled out: it reaps by itself at each start (its
`_cleanup` polls all its children) and so races with a `waitpid(-1)` loop, which then finds no status; and
it costs more. Fork, exit and reap, from a parent of 39 MiB with the daemon's imports (medians of 12 rounds;
2 cores, Python 3.11, 2026-11): bare fork 406 a second, `spawn` with all its steps 333, multiprocessing with
an empty body 295 and with the same steps 284.

A child gets: default signals, its title in ps, the descriptors on its list (and 0, 1, 2 and the journal's)
and nothing else, the collector's frozen heap. It never returns to its parent's code: `os._exit`, so no
atexit hook and no finalizer of the parent runs in it. The objects of the supervisor stay referenced by
the stack below the body, so none of them closes, later, a descriptor number that has been given anew.

What an end means is decided by the child's kind alone (`POLICIES`).
"""

import ctypes
import enum
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("SPT_NOENV", "1")  # before the import below: else it wipes the environment for titles
import setproctitle

from msgd import capabilities, journal, signals
from msgd.backoff import Backoff as Backoff
from msgd.errors import EX_CONFIG, EX_IOERR, UNEXPECTED, ConfigError, Fatal
from msgd.penalties import EXITS


class Kind(enum.StrEnum):
    """What a child is for; also the beginning of its title."""

    LOG = "log"
    INDEX = "index"
    PEER = "peer"
    CONTROL = "control"
    HOOK = "hook"
    CAST = "cast"


class Then(enum.Enum):
    """What the supervisor does when a child has ended."""

    FORGET = enum.auto()  # its client has gone, or will call again
    BACK_OFF = enum.auto()  # for this peer alone
    RESTART = enum.auto()  # this child alone, with backoff
    REPLACE_ALL = enum.auto()  # restart it; whoever held a channel to it ends and is replaced
    END = enum.auto()  # msgd ends with the child's exit code


HOOK_REFUSED = 3  # exit code of a hook's process that cannot work, and said why

OBJECTS = range(48, 513, 16)  # classes of Python's allocator; of 16 and 32 there is no `bytes` of its own
BYTES_HEAD = sys.getsizeof(b"")
PIECES = (
    *range(8184, 1032, -512),
    *range(1032, 8, -16),
)  # of malloc, which rounds up to these; big ones first
PIECE_HEAD = 8  # what malloc puts before each
NEW_POOL = 20  # objects side by side: a pool that was empty, for one has room for 31 of the largest
NEW_LAND = 20  # pieces side by side: from the end of the heap
MOST_GAPS = 20_000  # with another allocator there is no end to it
_filling: list[object] = []


@dataclass(frozen=True, slots=True)
class Policy:
    """The rule for one kind of child."""

    then: Then
    level: str  # of child.started, and of child.ended for a clean end
    fatal: frozenset[int] = frozenset()  # exit codes with which msgd ends, too
    ordinary: frozenset[int] = frozenset((0,))  # exit codes of a clean end


POLICIES = {
    Kind.LOG: Policy(Then.REPLACE_ALL, "info", frozenset((EX_IOERR, EX_CONFIG))),
    Kind.INDEX: Policy(Then.RESTART, "info"),
    Kind.PEER: Policy(Then.BACK_OFF, "debug", ordinary=EXITS | {0}),
    Kind.CONTROL: Policy(Then.FORGET, "debug"),
    Kind.CAST: Policy(Then.RESTART, "info"),
    Kind.HOOK: Policy(Then.RESTART, "debug", ordinary=frozenset((0, HOOK_REFUSED))),
}


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """A process that runs."""

    pid: int
    kind: Kind
    label: str  # the peer's name or address; empty for log and index
    started_mono_s: float
    data: Any = None  # the supervisor's own: its end of a channel, whom to tell

    @property
    def title(self) -> str:
        return _title(self.kind, self.label)


@dataclass(frozen=True, slots=True)
class Ended:
    """A child that was reaped: exactly one of `code` and `signal` is not None."""

    child: Child
    code: int | None
    signal: int | None
    text: str  # 'exit 74', 'killed by SIGKILL'
    lived_s: float

    @property
    def then(self) -> Then:
        """What its kind says about this end."""
        policy = POLICIES[self.child.kind]
        return Then.END if self.code in policy.fatal else policy.then


class Children:
    """The processes that this one has forked, by pid. One thread only."""

    def __init__(self) -> None:
        self.by_pid: dict[int, Child] = {}

    def of(self, *kinds: Kind) -> list[Child]:
        """Those of these kinds, oldest first."""
        return [child for child in self.by_pid.values() if child.kind in kinds]

    def spawn(
        self,
        kind: Kind,
        label: str,
        body: Callable[[], int | None],
        keep_fds: Iterable[int] = (),
        data: Any = None,
    ) -> Child:
        """Fork; the child runs `body` and exits with what it returns (None: 0) or the error it raises.

        Raises OSError when the system has no room for another process; nothing has happened then.
        """
        started_mono_s = time.monotonic()
        mask = signals.hold()
        try:
            pid = os.fork()
            if pid == 0:
                _run(kind, label, body, keep_fds)
        finally:
            signals.release(mask)
        child = Child(pid, kind, label, started_mono_s, data)
        self.by_pid[pid] = child
        journal.event("child.started", level=POLICIES[kind].level, title=child.title, pid=pid)
        return child

    def reap(self) -> list[Ended]:
        """Take every child that has ended, without waiting, and tell each end."""
        ended: list[Ended] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            child = self.by_pid.pop(pid, None)
            if child is None:  # as process 1 of a container we inherit orphans
                journal.event("child.unknown", pid=pid, reason=describe(status))
            else:
                ended.append(_ended(child, status))

    def kill(self, number: int, *kinds: Kind) -> None:
        """Send a signal to all of these kinds. A pid stays ours until reaped, so it meets no stranger."""
        for child in self.of(*kinds):
            os.kill(child.pid, number)


def _ended(child: Child, status: int) -> Ended:
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    number = os.WTERMSIG(status) if code is None else None
    ended = Ended(child, code, number, describe(status), time.monotonic() - child.started_mono_s)
    policy = POLICIES[child.kind]
    level = policy.level if code in policy.ordinary or number == signal.SIGTERM else "warning"
    seconds = round(ended.lived_s, 3)
    journal.event(
        "child.ended", level=level, title=child.title, pid=child.pid, reason=ended.text, seconds=seconds
    )
    return ended


def describe(status: int) -> str:
    """A wait status in words: 'exit 74', 'killed by SIGKILL'."""
    if os.WIFEXITED(status):
        return f"exit {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"killed by {name}" + (", core dumped" if os.WCOREDUMP(status) else "")


def prepare(title: str) -> None:
    """Once in the parent, when all is loaded and before the first spawn.

    The collector's marks would copy every page of the heap into each child at its first collection: 7.9
    instead of 0.8 MiB of its own for an idle one. Frozen objects are left alone. `title` is the parent's
    own in ps; the first one set costs more than the later ones of the children.
    """
    setproctitle.setproctitle(title)
    freeze()


def freeze() -> None:
    """Leave all that there is now alone at later collections, here and in the children."""
    gc.collect()
    gc.freeze()


def fill_gaps() -> None:
    """Take every free place that lies among what there is, for good: Python's objects and malloc's pieces.

    What a child makes then lies together, not in gaps all over its parent's pages, each of which it would
    copy: an idle link worker has 0.3 MiB less of its own (2 cores, Python 3.11, glibc 2.36, 2026-11).
    """
    for size in OBJECTS:
        _fill(size, NEW_POOL, partial(_keep, partial(bytes, size - BYTES_HEAD)))
    _fill(32, NEW_POOL, partial(_keep, lambda: len(_filling) / 2))  # a float
    _fill(16, NEW_POOL, partial(_keep, object))
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_size_t, (ctypes.c_size_t,)
    for size in PIECES:
        _fill(size + PIECE_HEAD, NEW_LAND, partial(malloc, size))


def _keep(make: Callable[[], object]) -> int:
    _filling.append(make())
    return id(_filling[-1])


def _fill(size: int, enough: int, take: Callable[[], int]) -> None:
    """Take places of one size, by their addresses, until they come to lie side by side."""
    last, in_a_row = 0, 0
    for _ in range(MOST_GAPS):
        at = take()
        in_a_row = in_a_row + 1 if at == last + size else 0
        last = at
        if in_a_row == enough:
            break


def set_title(kind: str, label: str) -> None:
    """In a child that has learned for whom it works: its title in ps."""
    setproctitle.setproctitle(_title(kind, label))


def _title(kind: str, label: str) -> str:
    return f"msgd: {kind} {label}".rstrip()


def _run(kind: Kind, label: str, body: Callable[[], int | None], keep_fds: Iterable[int]) -> None:
    """The whole life of a child; never returns. Signals are held when it begins."""
    title, code = _title(kind, label), UNEXPECTED

    def live() -> int | None:
        _close_all_but({0, 1, 2, *journal.fds(), *keep_fds})
        if kind != Kind.HOOK:
            capabilities.give_up()
        signals.reset_in_child()
        setproctitle.setproctitle(title)
        journal.bind(worker=os.getpid())
        return body()

    try:
        code = _exit_code(title, live)
    finally:
        os._exit(code)


def _exit_code(title: str, live: Callable[[], int | None]) -> int:
    """Run the child; what it raises is told once, here."""
    code = UNEXPECTED
    try:
        code = live() or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else UNEXPECTED if error.code else 0
    except (ConfigError, Fatal) as error:  # a known end with its sentence: no traceback
        journal.event("child.failed", title=title, reason=error.message, hint=error.hint or None)
        code = error.code
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        journal.event("child.failed", title=title, reason=reason, exception=traceback.format_exc())
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return code


def _close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is not in `keep`.

    os.closerange is one close_range(2) per gap: 1 µs, where listing /proc/self/fd alone takes 5 to 9, and
    the same with a limit of 1,024 and of 20,000 descriptors.
    """
    low = 0
    for fd in sorted(keep):
        if low < fd:  # closerange(0, 0) asks the kernel for 0 to -1, that is for all (Python 3.11)
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
