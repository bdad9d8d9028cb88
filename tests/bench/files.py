"""Files between two nodes on loopback: one big, many small, and messages meanwhile.

`python -m tests.bench.files MIB [ROUNDS] [SMALL]` measures with a smaller file than `make bench BENCH=files`.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

from msgctl.client import Client
from tests.bench import pouring
from tests.bench.elsewhere import Sshd
from tests.bench.rounds import Cell, Figures, measure
from tests.bench.table import Row, show
from tests.bench.watching import Watch
from tests.nodes import Nodes

MIB = 1 << 20
BIG_MIB = 4096
SMALL = 10_000
SMALL_BYTES = 4096
SINGLE = 300  # messages of which the slowest hundredth is looked at
SETTINGS = '[files]\npeers = "write"\n'


class Pair:
    """Two nodes that are linked, a big file, and a directory of small ones."""

    def __init__(self, directory: Path, mib: int, small: int) -> None:
        self.mib, self.small, self.directory = mib, small, directory
        self.big = directory / "big"
        with self.big.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        self.many = directory / "many"
        self.many.mkdir()
        for number in range(small):
            (self.many / str(number)).write_bytes(os.urandom(SMALL_BYTES))
        os.sync()
        self.nodes = Nodes(directory)
        self.a, self.b = self.nodes.pair("a", "b", SETTINGS)
        self.client = Client(str(self.a.socket))
        self._runs = 0

    def stop(self) -> None:
        self.client.close()
        self.nodes.end()

    def _file(self, *words: str) -> float:
        """Time of the whole process."""
        command = [sys.executable, "-m", "msgctl", "--socket", str(self.a.socket), "file", *words]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    def put_mib_s(self) -> float:
        """Until it is durable there and told in both logs."""
        return self.mib / self._file("put", "b", str(self.big), "big")

    def get_mib_s(self) -> float:
        """Until it is durable here."""
        return self.mib / self._file("get", "b", "big", str(self.directory / "back"))

    def small_per_s(self) -> float:
        """Each time into a directory that is new."""
        self._runs += 1
        return self.small / self._file("put", "b", str(self.many), f"many{self._runs}")

    def quiet_p99_us(self) -> float:
        """Of a message at a time, stored on both nodes, and nothing else."""
        return self._p99_us()

    def busy_p99_us(self) -> float:
        """The same while the big file goes there, again and again."""
        done = threading.Event()

        def carry() -> None:
            while not done.is_set():
                self._file("put", "b", str(self.big), "big")

        thread = threading.Thread(target=carry)
        thread.start()
        time.sleep(0.5)  # until it flows
        try:
            return self._p99_us()
        finally:
            done.set()
            thread.join()

    def _p99_us(self) -> float:
        times = []
        for _ in range(SINGLE):
            began = time.perf_counter()
            self.client.send("b", "x" * 100, wait="stored", timeout_s=60)
            times.append((time.perf_counter() - began) * 1e6)
        return sorted(times)[int(SINGLE * 0.99)]

    def peaks(self) -> str:
        """USS of every process that takes part in a put, at its peak."""
        with Watch(self.a.pid, self.b.pid) as watch:
            self._file("put", "b", str(self.big), "big")
        parts = {name: peak for name, peak in watch.peaks.items() if name.startswith(("files", "control"))}
        return ", ".join(f"{name} {peak.uss / MIB:.1f}" for name, peak in sorted(parts.items()))


def run(directory: Path, rounds: int, mib: int = BIG_MIB, small: int = SMALL) -> None:
    """Measure, and print the table."""
    pair, sshd = Pair(directory, mib, small), Sshd(directory)
    limit = min(mib, 1024) * MIB
    cells: dict[str, Cell] = {
        "disk": lambda: pouring.disk_mib_s(directory, limit),
        "tls": lambda: pouring.tls_mib_s(limit, hashes=False),
        "digest": lambda: pouring.tls_mib_s(limit, hashes=True),
        "put": pair.put_mib_s,
        "get": pair.get_mib_s,
        "small": pair.small_per_s,
        "quiet": pair.quiet_p99_us,
        "busy": pair.busy_p99_us,
    }
    for tool in ("scp", "rsync"):
        if not sshd.why_not(tool):
            cells[tool] = partial(sshd.copy_mib_s, tool, pair.big, directory / "copy", mib)
    try:
        figures = measure(cells, rounds)
        peaks = pair.peaks()
    finally:
        pair.stop()
        sshd.stop()
    report(figures, {tool: sshd.why_not(tool) for tool in ("scp", "rsync")}, mib, small, peaks)


def report(figures: dict[str, Figures], absent: dict[str, str], mib: int, small: int, peaks: str) -> None:
    """The table, each figure beside the lowest limit of the same run."""
    limit = min(figures[name].median for name in ("disk", "tls", "digest"))
    share = {
        name: f"{100 * figures[name].median / limit:.0f} % of the lowest limit" for name in ("put", "get")
    }
    ratio = figures["busy"].median / figures["quiet"].median
    rows = [
        Row("limit: disk, write and fdatasync, MiB/s", figures["disk"]),
        Row("limit: TLS on loopback, MiB/s", figures["tls"]),
        Row("limit: TLS and SHA-256 on one core, MiB/s", figures["digest"]),
        Row(f"msgctl file put, {mib} MiB, MiB/s", figures["put"], [share["put"], "goal 60 %"]),
        Row(f"msgctl file get, {mib} MiB, MiB/s", figures["get"], [share["get"]]),
        *(Row(f"{tool}, the same, MiB/s", figures.get(tool, why)) for tool, why in absent.items()),
        Row(f"msgctl file put, {small} of 4 KiB, files/s", figures["small"], ["goal 3,000"]),
        Row("a message, stored on both, p99 µs", figures["quiet"]),
        Row("the same during a transfer, p99 µs", figures["busy"], [f"{ratio:.1f} ×, goal 5"]),
        Row("memory in a transfer, USS MiB", peaks, ["goal 16"]),
    ]
    show("files: two nodes on loopback", rows, figures)


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    with tempfile.TemporaryDirectory(prefix="msgd-bench-") as name:
        mib, rounds, small = (*given, *(BIG_MIB, 3, SMALL)[len(given) :])
        run(Path(name), rounds, mib, small)
