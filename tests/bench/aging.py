"""Does a node that keeps much take in messages as fast as a fresh one? `send --lines` into both, in turn.

Beside the rates stands the processor time of the processes that live as long as the nodes (log, link, index)
for one message: on a busy machine it tells more.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.histories import Histories
from tests.bench.making import Kept, bodies, wait_indexed
from tests.bench.rounds import Cell, measure
from tests.bench.table import Row, show
from tests.bench.watching import cpu_s
from tests.nodes import Node, Nodes, is_connected, wait_for

MANY = 200_000
LASTING = ("log", "index", "peer a", "peer b")


def run(histories: Histories, directory: Path, rounds: int) -> None:
    """Measure, and print the table."""
    kept = Kept(histories.copy("long", directory, "a", "b"))
    fresh = Nodes(directory / "fresh")
    lines = directory / "lines"
    lines.write_text("".join(f"{body}\n" for body in bodies(0, MANY)))
    try:
        old = kept.start("a", "b")
        for node in old:
            wait_indexed(node)
        wait_for(lambda: is_connected(old[0], old[1]), 60, "the old nodes to meet")
        new = fresh.pair("a", "b")
        sides = {"fresh": Side(new, lines), "old": Side(old, lines)}
        cells: dict[str, Cell] = {name: side.lines_per_s for name, side in sides.items()}
        figures = measure(cells, rounds)
    finally:
        kept.nodes.end()
        fresh.end()
    pairs = zip(figures["old"].values, figures["fresh"].values, strict=True)
    ratios = sorted(old_per_s / fresh_per_s for (_, old_per_s), (_, fresh_per_s) in pairs)
    beside = f"{ratios[len(ratios) // 2]:.2f} × fresh [{ratios[0]:.2f} to {ratios[-1]:.2f}] (goal 0.90)"
    cpu = {
        name: f"{statistics.median(side.cpu_us):.1f} µs of processor time each"
        for name, side in sides.items()
    }
    rows = [
        Row("send --lines into fresh nodes, messages/s", figures["fresh"], [cpu["fresh"]]),
        Row(f"into nodes with {histories.lengths['long']:,} messages", figures["old"], [cpu["old"], beside]),
    ]
    show("aging: stored on both, the indexes follow", rows, figures)


class Side:
    """Two linked nodes and what is sent from the first to the second."""

    def __init__(self, nodes: Sequence[Node], lines: Path) -> None:
        self.cpu_us: list[float] = []  # for a message
        self._nodes = nodes
        self._lines = lines

    def lines_per_s(self) -> float:
        """Messages a second through `msgctl send --lines`, whole process; then the indexes catch up."""
        command = [sys.executable, "-m", "msgctl", "--socket", str(self._nodes[0].socket)]
        spent_s = self._cpu_s()
        began_s = time.perf_counter()
        with self._lines.open() as lines:
            options = ["send", "b", "--lines", "-q", "--wait=stored", "--timeout=120"]
            subprocess.run([*command, *options], stdin=lines, check=True)
        took_s = time.perf_counter() - began_s
        for node in self._nodes:
            wait_indexed(node)
        self.cpu_us.append((self._cpu_s() - spent_s) / MANY * 1e6)
        return MANY / took_s

    def _cpu_s(self) -> float:
        roles = [(role, pid) for node in self._nodes for role, pids in node.pids().items() for pid in pids]
        return sum(cpu_s(pid) for role, pid in roles if role in LASTING)
