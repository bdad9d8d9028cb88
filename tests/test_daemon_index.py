"""The index of a running node: killed, deleted, spoiled, another one's, while somebody asks all the time."""

import os
import random
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from msgctl.pipeline import send_many
from tests.nodes import Node, Nodes, wait_for

MESSAGES = 3000


def kill(node: Node, other: Node) -> None:
    os.kill(node.pids()["index"][0], signal.SIGKILL)


def delete(node: Node, other: Node) -> None:
    for path in node.state.glob("index.sqlite*"):
        path.unlink()


def spoil(node: Node, other: Node) -> None:
    """Random bytes all over the file, while both its writer and readers have it open."""
    dice = random.Random(7)
    with (node.state / "index.sqlite").open("r+b") as file:
        for _ in range(8):
            file.seek(dice.randrange(100, file.seek(0, os.SEEK_END)))
            file.write(dice.randbytes(300))


def cut(node: Node, other: Node) -> None:
    os.truncate(node.state / "index.sqlite", 10_000)


def put_of_another(node: Node, other: Node) -> None:
    shutil.copy(other.state / "index.sqlite", node.state / "new")
    (node.state / "new").rename(node.state / "index.sqlite")


class Asker:
    """Asks for everything again and again on connections of its own; `wrong` is what was not right."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.asked = 0
        self.wrong: list[str] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._ask_all)
        self._thread.start()

    def _ask_all(self) -> None:
        while not self._is_over and not self.wrong:
            found = [row["text"] for row in self.node.query("log", "--direction", "out")]
            if [f"message {n}" for n in range(MESSAGES)] != found[:MESSAGES]:
                self.wrong.append(f"{len(found)} messages, from {found[:1]} to {found[-1:]}")
            last = self.node.query("log", "-n1", "--state", "stored", "--direction", "out")
            if len(last) != 1:
                self.wrong.append(f"the last stored one is {last}")
            self.asked += 1

    def end(self) -> None:
        self._is_over = True
        self._thread.join(60)


@pytest.mark.slow
def test_queries_are_right_whatever_befalls_the_index(nodes: Nodes) -> None:
    """Nothing that happens to the file or its process is seen by who asks, and in the end it is complete."""
    a, b = nodes.pair("a", "b")

    def send(texts: list[str]) -> None:
        with a.client() as client:
            for _, answer in send_many(client, "b", texts, wait="stored", timeout_s=60):
                assert answer["state"] == "stored", answer

    send([f"message {n}" for n in range(MESSAGES)])
    deeds: tuple[Callable[[Node, Node], None], ...] = (kill, delete, spoil, cut, put_of_another)
    asker = Asker(a)
    try:
        for number, befall in enumerate(deeds):
            wait_for(lambda: is_filled(a) and is_filled(b), 20, "both indexes")
            befall(a, b)
            before = asker.asked
            send([f"more {number}"])
            wait_for(
                lambda at=before: asker.wrong or asker.asked > at + 1, 60, f"answers after {befall.__name__}"
            )
    finally:
        asker.end()
    assert [] == asker.wrong

    send(["the last one"])
    wait_for(lambda: is_filled(a), 20, "the index to be complete again")


def is_filled(node: Node) -> bool:
    """Whether all but the last append is in the file."""
    path = node.state / "index.sqlite"
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            position = int(db.execute("SELECT position FROM about").fetchone()[0])
    except (sqlite3.Error, TypeError):
        return False
    with node.client() as client:
        index = client.call("Status")["node"]["index"]
    return bool(0 < position == index["position"])
