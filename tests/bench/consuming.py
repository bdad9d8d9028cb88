"""One consumer on a node: messages that are handed out, handled and noted, one durable step for each."""

import base64
import itertools
import os
import time
from pathlib import Path
from typing import Any

from msgctl.client import Client
from msgctl.pipeline import send_many
from tests.bench import limits
from tests.bench.rounds import Figures, measure
from tests.bench.table import Row, show
from tests.bench.watching import cpu_s
from tests.nodes import Nodes

MANY = 5_000
BODY = "x" * 100


class Subject:
    """Two nodes, and what one has received from the other."""

    def __init__(self, directory: Path) -> None:
        self.nodes = Nodes(directory)
        a, self.b = self.nodes.pair("a", "b")
        with a.client() as client:
            for _, answer in send_many(client, "b", [BODY] * MANY, wait="stored", timeout_s=120):
                assert answer["state"] == "stored", answer
        self.names = (f"consumer-{number}" for number in itertools.count())
        self.client: Client = self.b.client()

    def stop(self) -> None:
        self.client.close()
        self.nodes.end()

    def handled_per_s(self) -> float:
        """Messages a second that a new consumer handles, each done when the next one is asked for."""
        who: dict[str, Any] = {"name": next(self.names), "holder": base64.b64encode(os.urandom(16)).decode()}
        self.client.call("RecvBegin", **who)
        settle: list[dict[str, str]] = []
        began, handled = time.perf_counter(), 0
        while True:
            answer = self.client.call("RecvNext", **who, settle=settle, timeout_ms=0)
            if answer["message"] is None:
                break
            settle = [{"id": answer["message"]["id"], "outcome": "done"}]
            handled += 1
        assert handled == MANY, handled
        return MANY / (time.perf_counter() - began)

    def log_process_us(self) -> float:
        """Time on a processor of the log process for each of them."""
        (log,) = self.b.pids()["log"]
        before = cpu_s(log)
        self.handled_per_s()
        return (cpu_s(log) - before) / MANY * 1e6


def run(directory: Path, rounds: int) -> None:
    """Measure, and print the table."""
    subject = Subject(directory)
    try:
        figures = measure(
            {
                "fdatasync": lambda: limits.fdatasync_us(directory),
                "handled": subject.handled_per_s,
                "log": subject.log_process_us,
            },
            rounds,
        )
    finally:
        subject.stop()
    report(figures)


def report(figures: dict[str, Figures]) -> None:
    """The table."""
    each_us = 1e6 / figures["handled"].median
    beside = [f"{each_us / figures['fdatasync'].median:.1f} × sync each"]
    rows = [
        Row("limit: append 128 B + fdatasync, p50 µs", figures["fdatasync"]),
        Row("messages/s, one consumer, library", figures["handled"], beside),
        Row("log process, processor µs a message", figures["log"]),
    ]
    show("consuming: 100-byte messages, one durable step each", rows, figures)
