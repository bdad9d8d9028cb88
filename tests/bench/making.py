"""Histories of any length, made by real traffic: node `a`, its peers `b` and `c`, and `rare`, long silent.

Every message has 100 bytes and begins with its number. A history grows: `grow(n)` goes on until `a` keeps
`n` messages, so that a short one, kept by a copy, is the beginning of a long one. The shares of a round:

| of 1,000 | | |
|---|---|---|
| 560 | a to b | batches of 256, as `send --lines` makes them |
| 200 | b to a | |
| 120 | a to c | |
| 100 | c to a | |
| 10 | a to b | one call each, so that most are alone in their record |
| 10 | b to a | |

`python -m tests.bench.making DIRECTORY N [N …]` makes a history and keeps a copy of each length.
"""

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from msgctl.client import Client
from msgctl.pipeline import Call, Pipeline, send_many
from tests.nodes import Node, Nodes, pair, wait_for

BODY_BYTES = 100
ROUND = 100_000
SMALLEST = 10_000
RARE = 100  # messages with the peer that fell silent
SHARES = (("a", "b", 560), ("b", "a", 200), ("a", "c", 120), ("c", "a", 100))
SINGLES = (("a", "b", 10), ("b", "a", 10))
NEEDLE = "needle"
NEEDLE_EVERY = 250_000  # messages; the first one is the NEEDLE_EVERY / 50 th
WORDS = ("alfa", "carga", "datos", "enviar", "fuente", "hora", "indice", "lista", "mensaje", "nodo", "puerto")
TIMEOUT_S = 300
APPEND_BYTES = 1 << 20  # at most
NAMES = ("a", "b", "c", "rare")


def bodies(first: int, count: int) -> Iterator[str]:
    """Texts of 100 bytes: a number, and words that make them differ as those of people do."""
    texts = _texts()
    for number in range(first, first + count):
        if number % NEEDLE_EVERY == NEEDLE_EVERY // 50:
            yield f"{number:010d} {NEEDLE} ".ljust(BODY_BYTES, ".")
        else:
            yield f"{number:010d} {texts[number & 1023]}"


def _texts() -> list[str]:
    dice = random.Random(1)
    line = BODY_BYTES - 11
    return [" ".join(dice.choices(WORDS, k=line // 2)).ljust(line)[:line] for _ in range(1024)]


class Maker:
    """Nodes that talk; `sent` is what `a` keeps, in both directions."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        self.settings = settings
        self.nodes = Nodes(directory)
        self.sent = 0
        self.a = self.nodes.start("a", settings)
        for name in ("b", "c", "rare"):
            pair(self.a, self.nodes.start(name, settings))
        self.by_name = {node.name: node for node in self.nodes.made}
        self._batches("a", "rare", RARE // 2)
        self._batches("rare", "a", RARE // 2)
        self.by_name["rare"].stop()

    def grow(self, messages: int) -> None:
        """Go on until `a` keeps so many, all of them stored at both ends."""
        while (left := messages - self.sent) > len(SHARES) + len(SINGLES):
            size = min(left, ROUND if self.sent >= SMALLEST else SMALLEST)
            for sender, receiver, share in SINGLES:
                self._singles(sender, receiver, size * share // 1000)
            for sender, receiver, share in SHARES:
                self._batches(sender, receiver, size * share // 1000)
        self._batches("a", "b", left)  # what rounding left

    def keep(self, directory: Path) -> Path:
        """Stop, copy everything to `directory`, and go on."""
        self.stop()
        directory.parent.mkdir(parents=True, exist_ok=True)
        copy_tree(self.nodes.directory, directory)
        for node in self.talking:
            node.start(self.settings)
        return directory

    def stop(self) -> None:
        """Stop all nodes, their indexes complete."""
        for node in self.talking:
            if node.is_running:
                wait_indexed(node)
                node.stop()

    @property
    def talking(self) -> list[Node]:
        return [node for node in self.nodes.made if node.name != "rare"]

    def _batches(self, sender: str, receiver: str, count: int) -> None:
        if not count:
            return
        with self.by_name[sender].client() as client:
            texts = bodies(self.sent, count)
            for _, answer in send_many(client, receiver, texts, wait="stored", timeout_s=TIMEOUT_S):
                assert answer["state"] == "stored", answer
        self.sent += count

    def _singles(self, sender: str, receiver: str, count: int) -> None:
        with self.by_name[sender].client() as client:
            send_singles(client, receiver, bodies(self.sent, count))
        self.sent += count


def send_singles(client: Client, peer: str, texts: Iterator[str]) -> None:
    """Send each by a call of its own, 64 under way at a time, until all are stored."""
    call = Call(peer, wait="stored", timeout_s=TIMEOUT_S)
    pipeline = Pipeline(client)
    for text in texts:
        while pipeline.full:
            pipeline.wait()
            _check(pipeline)
        pipeline.put(*call.frame([text]))
    while pipeline.under_way:
        pipeline.wait()
        _check(pipeline)


def _check(pipeline: Pipeline) -> None:
    for _, answer in pipeline.answers():
        assert isinstance(answer, dict) and answer["state"] == "stored", answer


def copy_tree(source: Path, target: Path) -> None:
    """A copy that shares its blocks where the file system can."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(target)], check=True)


class Kept:
    """The nodes of a copy, on addresses of their own, started when they are wanted."""

    def __init__(self, directory: Path) -> None:
        self.nodes = Nodes(directory)
        for name in NAMES:
            self.nodes.make(name)
        self.by_name = {node.name: node for node in self.nodes.made}

    def start(self, *names: str, settings: str = "", wait: bool = True) -> list[Node]:
        """Start these; those that are not started are not in reach."""
        places = "".join(f'[peer.{node.name}]\naddress = "{node.address}"\n' for node in self.nodes.made)
        nodes = [self.by_name[name] for name in names]
        for node in nodes:
            node.start(f"{settings}\n{places}", wait=wait)
        return nodes


def wait_indexed(node: Node, within_s: float = 900) -> None:
    """Until the index holds what is committed, but the last append, which stays out."""
    with node.client() as client:
        wait_for(
            lambda: client.call("Status")["node"]["index"]["behind_bytes"] <= APPEND_BYTES,
            within_s,
            f"the index of {node.name}",
        )


def main() -> None:
    """Make histories of these lengths, the beginning of one another, and keep a copy of each."""
    directory, *lengths = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="making-", dir=directory) as name:
        maker = Maker(Path(name))
        try:
            for length in sorted(map(int, lengths)):
                began_s = time.monotonic()
                maker.grow(length)
                print(f"{length:,} messages, {time.monotonic() - began_s:.0f} s after the last", flush=True)
                maker.keep(Path(directory) / str(length))
        finally:
            maker.nodes.end()


if __name__ == "__main__":
    main()
