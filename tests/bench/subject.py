"""A node that keeps a history, and the commands that ask it."""

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Self

from msgctl.client import Client
from msgd.errors import Unreachable
from tests.bench.making import Kept, wait_indexed
from tests.nodes import Node

RANGE = 100


class Subject:
    """Node `a` of a history that was kept; its peers do not run."""

    def __init__(self, directory: Path) -> None:
        self.kept = Kept(directory)
        self.node: Node = self.kept.by_name["a"]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.kept.nodes.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kept.nodes.end()

    def _start(self) -> None:
        self.kept.start("a")
        wait_indexed(self.node)  # the index of a copy is not trusted, it is built anew
        with self.client() as client:
            self.messages = sum(p["sent"] + p["received"] for p in client.call("Peers")["peers"])
        self.moment = middle_ns(self.node)  # Unix ns; a batch has one stored time
        at_us = self.moment // 1000
        self.times = ("--since", _unix(at_us), "--until", _unix(at_us + 1))
        self.range = (*self.times, "-n", str(RANGE), "-o", "json")

    def client(self) -> Client:
        return Client(str(self.node.socket))

    def log(self, *words: str) -> list[str]:
        """The command line of `msgctl log`, as a person's shell would run it."""
        script = Path(sys.executable).with_name("msgctl")
        program = [str(script)] if script.exists() else [sys.executable, "-m", "msgctl"]
        return [*program, "--socket", str(self.node.socket), "log", *words]

    def ready_ms(self) -> float:
        """Kill all its processes, start it, and ask until it answers; from the start on."""
        self.node.kill9()
        began_s = time.perf_counter()
        self.kept.start("a", wait=False)
        while True:
            try:
                with self.client() as client:
                    client.call("Status")
                return (time.perf_counter() - began_s) * 1e3
            except Unreachable:
                time.sleep(0.002)


def middle_ns(node: Node) -> int:
    """When the first batch of at least RANGE messages was stored in the second half of the history's time."""
    with node.client() as client:
        first = next(client.stream("Log"))["messages"][0]["stored_at_ns"]
    with node.client() as client:
        (last,) = (row["stored_at_ns"] for row in client.call("Log", lines=1)["messages"])
    counted = Counter[int]()
    with node.client() as client:  # which leaves before it has read all
        for reply in client.stream("Log", since_ns=(first + last) // 2):
            counted.update(row["stored_at_ns"] for row in reply["messages"])
            at_ns, count = counted.most_common(1)[0]
            if count >= RANGE:
                return at_ns
    raise AssertionError(f"no batch of {RANGE} in the second half")


def _unix(at_us: int) -> str:
    """A time as both msgctl and journalctl read it."""
    return f"@{at_us // 1_000_000}.{at_us % 1_000_000:06d}"
