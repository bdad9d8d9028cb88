"""Faults from outside: system calls that fail by strace, small and read-only disks in a mount namespace.

msgd itself is the one that is shipped: it has no switch for any of this.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgd.errors import EX_CONFIG
from tests.nodes import Node, wait_for
from tests.require import require


class Trace:
    """What strace saw of a process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def calls(self, name: str = "") -> list[str]:
        """The lines of one system call, in order; each with its result."""
        return [line for line in self.path.read_text().splitlines() if line.startswith(f"{name}(")]

    @property
    def injected(self) -> int:
        return self.path.read_text().count("(INJECTED)")


@contextmanager
def injected(
    pid: int, path: Path, *faults: str, trace: str = "fdatasync,pwritev,pwritev2,pwrite64"
) -> Iterator[Trace]:
    """strace attached to `pid`, with its `inject=` expressions, until the block ends or the process does."""
    require("root", "strace")
    command = ["strace", "-qq", "-o", str(path), "-e", f"trace={trace}"]
    command += [word for fault in faults for word in ("-e", f"inject={fault}")]
    path.touch()
    strace = subprocess.Popen([*command, "-p", str(pid)])
    try:
        wait_for(lambda: tracer_of(pid) == strace.pid, 10, "strace to attach")
        yield Trace(path)
    finally:
        strace.send_signal(signal.SIGTERM)
        strace.wait(10)


def tracer_of(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("TracerPid:")[2].split()[0])


def own_disk(node: Node, size: str) -> list[str]:
    """For `Node.start(within=…)`: the state directory on a disk of `size`, seen by this msgd alone."""
    require("root", "namespaces")
    node.state.mkdir(exist_ok=True)
    return unshared(f"mount -t tmpfs -o size={size},mode=700 tmpfs '{node.state}'")


def read_only(node: Node) -> list[str]:
    """The same with the state directory as it is, read-only."""
    require("root", "namespaces")
    return unshared(f"mount --bind '{node.state}' '{node.state}'", f"mount -o remount,ro,bind '{node.state}'")


def unshared(*commands: str) -> list[str]:
    """In a mount namespace of its own, after these commands; the process keeps its pid."""
    script = " && ".join((*commands, 'exec "$@"'))
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


def inside(node: Node) -> Path:
    """The state directory as the running msgd sees it."""
    return Path(f"/proc/{node.pid}/root{node.state}")


class Ballast:
    """A file that takes all space of a node's disk, until it is thrown away."""

    def __init__(self, node: Node) -> None:
        self.path = inside(node) / "ballast"

    def fill(self) -> None:
        """Take what is free, to the last block."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (1 << 16, 1 << 12):
                while True:
                    os.write(fd, bytes(size))
        except OSError:
            self._fill_rest(fd)
        finally:
            os.close(fd)

    def _fill_rest(self, fd: int) -> None:
        try:
            while True:
                os.write(fd, bytes(4096))
        except OSError:
            return

    def drop(self) -> float:
        """Give the space back; the moment at which that was."""
        self.path.unlink()
        return time.monotonic()


def fails_to_start(node: Node, code: int = EX_CONFIG, within: Sequence[str] = ()) -> str:
    """Start it, expect its end; what a person sees, from this start alone."""
    before = len(node.said())
    node.start(wait=False, within=within)
    assert node.wait_exit() == code, node.said()[before:]
    said = node.said()[before:]
    assert "Traceback" not in said
    return said


def sentence(said: str) -> str:
    """What msgd prints for a person at its end: the sentence and the next step."""
    lines = [line for line in said.splitlines() if not line.startswith("{")]
    assert lines[:1] and lines[0].startswith("msgd: "), said
    return "\n".join(lines)


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
