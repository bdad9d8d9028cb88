"""What processes take: memory at its peak, processor time so far."""

import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.nodes import children_of, command_line

EVERY_S = 0.01


class Memory(NamedTuple):
    """Bytes of one process: USS its own, PSS with its share of what others have as well."""

    uss: int
    pss: int

    def __str__(self) -> str:
        return f"{self.uss / (1 << 20):.1f}/{self.pss / (1 << 20):.1f}"


def memory(pid: int) -> Memory | None:
    """What it has now; None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    kib = {words[0]: int(words[1]) for words in map(str.split, lines)}
    return Memory((kib["Private_Clean:"] + kib["Private_Dirty:"]) << 10, kib["Pss:"] << 10) if kib else None


def cpu_s(pid: int) -> float:
    """Processor time of a process with one thread."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def role(pid: int) -> str:
    """What msgd calls this process, without the user's number; the program otherwise."""
    line = command_line(pid)
    _, mark, title = line.partition("msgd: ")
    if mark:
        return title.partition(" uid ")[0].strip()
    return "msgctl" if "msgctl" in line else "supervisor" if "-m msgd" in line else "bench"


class Watch:
    """The peak of every process below some others, while the block runs."""

    def __init__(self, *roots: int) -> None:
        self.peaks: dict[str, Memory] = {}
        self._roots = roots
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            for root in self._roots:
                for pid in (root, *children_of(root)):
                    self._look(pid)

    def _look(self, pid: int) -> None:
        now, name = memory(pid), role(pid)
        if now is not None:
            before = self.peaks.get(name, Memory(0, 0))
            self.peaks[name] = Memory(max(before.uss, now.uss), max(before.pss, now.pss))
