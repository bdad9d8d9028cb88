"""What every process takes while it works on a short and on a long history, and what the index costs.

Memory is sampled every 10 ms. `index` is what the index process needs to fill a new file from the whole log.
"""

import os
import subprocess
from pathlib import Path

from tests.bench.histories import Histories
from tests.bench.history import DUMP, LAST_OF, SEARCH
from tests.bench.making import wait_indexed
from tests.bench.subject import Subject
from tests.bench.watching import Watch, cpu_s

INDEX_FILES = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")


def run(histories: Histories, directory: Path, rounds: int) -> None:
    """Measure once, and print the tables."""
    for name in ("short", "long"):
        with Subject(histories.copy(name, directory, "a")) as subject:
            _tell(subject)


def _tell(subject: Subject) -> None:
    node = subject.node
    print(f"\nmemory at its peak, USS/PSS in MiB: {subject.messages:,} messages")
    questions = {
        f"last {LAST_OF['b'][3]} of a peer": LAST_OF["b"],
        "100 by time": subject.range,
        "search": SEARCH,
        "dump": DUMP,
    }
    for name, words in questions.items():
        with Watch(node.pid, os.getpid()) as watch:
            subprocess.run(subject.log(*words), stdout=subprocess.DEVNULL, check=True)
        _print(name, watch)
    node.stop()
    for file in INDEX_FILES:
        (node.state / file).unlink(missing_ok=True)
    subject.kept.start("a")
    with Watch(node.pid) as watch:
        wait_indexed(node)
        spent_s = cpu_s(node.pids()["index"][0])
    _print("start, index anew", watch)
    node.stop()  # closes the index: nothing of it lies in the write-ahead file then
    size = (node.state / INDEX_FILES[0]).stat().st_size
    rate, share = subject.messages / spent_s, size / subject.messages
    print(
        f"index process: {rate:,.0f} rows/s of its own time, {share:.1f} MB per million rows",
        flush=True,
    )


def _print(name: str, watch: Watch) -> None:
    peaks = "   ".join(f"{role} {peak}" for role, peak in sorted(watch.peaks.items()) if role != "bench")
    print(f"  {name:24} {peaks}", flush=True)
