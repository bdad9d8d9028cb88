"""One pair of nodes, 100-byte messages, durable on both, over TLS: rates, and times of single ones."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from msgctl.client import Client
from msgctl.pipeline import send_many
from tests.bench import limits
from tests.bench.rounds import Figures, measure
from tests.bench.table import Row, show
from tests.nodes import Nodes, wait_for

MANY = 200_000
ONE_BY_ONE = 2_000
BODY = "x" * 100


class Pair:
    """Two nodes that are linked, and a client of the first."""

    def __init__(self, directory: Path) -> None:
        self.nodes = Nodes(directory)
        self.a, self.b = self.nodes.pair("a", "b")
        self.client = Client(str(self.a.socket))
        self.lines = directory / "lines"
        self.lines.write_text(f"{BODY}\n" * MANY)

    def stop(self) -> None:
        self.client.close()
        self.nodes.end()

    def library_per_s(self) -> float:
        """Messages a second through the client library, until all are stored on both nodes."""
        began = time.perf_counter()
        sent = 0
        for ids, answer in send_many(self.client, "b", [BODY] * MANY, wait="stored", timeout_s=120):
            assert answer["state"] == "stored", answer
            sent += len(ids)
        assert sent == MANY
        return MANY / (time.perf_counter() - began)

    def lines_per_s(self) -> float:
        """Messages a second through `msgctl send --lines`, whole process."""
        command = [sys.executable, "-m", "msgctl", "--socket", str(self.a.socket)]
        began = time.perf_counter()
        with self.lines.open() as lines:
            options = ["send", "b", "--lines", "-q", "--wait=stored", "--timeout=120"]
            subprocess.run([*command, *options], stdin=lines, check=True)
        return MANY / (time.perf_counter() - began)

    def one_by_one_us(self) -> list[float]:
        """Times of single sends on one connection, each until stored on both nodes."""
        times = []
        for _ in range(ONE_BY_ONE):
            began = time.perf_counter()
            receipt = self.client.send("b", BODY, wait="stored", timeout_s=30)
            times.append((time.perf_counter() - began) * 1e6)
            assert receipt["state"] == "stored", receipt
        return times

    def local_us(self) -> float:
        """Median of single sends until durable on this node alone."""
        times = []
        for _ in range(ONE_BY_ONE):
            began = time.perf_counter()
            self.client.send("b", BODY, wait="queued")
            times.append((time.perf_counter() - began) * 1e6)
        wait_for(self.is_idle, 60, "the queue to drain")
        return statistics.median(times)

    def is_idle(self) -> bool:
        return bool(self.client.call("Status")["node"]["queued"] == 0)

    def send_ms(self) -> float:
        """Median wall time of a plain `msgctl send`, whole process, until stored on both nodes."""
        command = [sys.executable, "-m", "msgctl", "--socket", str(self.a.socket), "send", "b", BODY]
        return limits.whole_process_ms(command, 10)


def run(directory: Path, rounds: int) -> None:
    """Measure, and print the table."""
    nodes = Pair(directory)
    try:
        single: list[list[float]] = []

        def both_us() -> float:
            single.append(sorted(nodes.one_by_one_us()))
            return statistics.median(single[-1])

        figures = measure(
            {
                "fdatasync": lambda: limits.fdatasync_us(directory),
                "tls": limits.tls_round_trip_us,
                "python": limits.python_ms,
                "library": nodes.library_per_s,
                "lines": nodes.lines_per_s,
                "both": both_us,
                "local": nodes.local_us,
                "send": nodes.send_ms,
            },
            rounds,
        )
    finally:
        nodes.stop()
    report(figures, statistics.median(times[int(len(times) * 0.99)] for times in single))


def report(figures: dict[str, Figures], p99_us: float) -> None:
    """The table, each figure beside its limit of the same run."""
    sync, tls, python = (figures[name].median for name in ("fdatasync", "tls", "python"))
    floor = 2 * sync + tls
    per_sync = figures["library"].median * sync / 1e6
    rows = [
        Row("limit: append 128 B + fdatasync, p50 µs", figures["fdatasync"]),
        Row("limit: TLS round trip 100 B, p50 µs", figures["tls"]),
        Row("limit: python3 -c pass, ms", figures["python"]),
        Row(
            "messages/s, library, stored on both",
            figures["library"],
            [f"{per_sync:.1f} in the time of one sync"],
        ),
        Row("messages/s, send --lines, stored on both", figures["lines"]),
        Row(
            "one at a time, stored on both, p50 µs",
            figures["both"],
            [f"{figures['both'].median / floor:.1f} × (2 syncs + TLS); p99 {p99_us:,.0f}"],
        ),
        Row(
            "one at a time, queued here, p50 µs",
            figures["local"],
            [f"{figures['local'].median / sync:.1f} × sync"],
        ),
        Row(
            "msgctl send, whole process, ms",
            figures["send"],
            [f"{figures['send'].median / python:.2f} × python3"],
        ),
    ]
    show("traffic: one pair of nodes, 100-byte messages", rows, figures)
