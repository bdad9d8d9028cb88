"""`msgctl recv -- CMD` against a daemon of which every process may die at any moment."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nodes import Node, Nodes, wait_for
from tests.require import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]

SCRIPT = "body=$(cat); echo $body >> {book}"


def begun(node: Node, book: Path) -> "subprocess.Popen[bytes]":
    """recv, which appends each body to a book."""
    words = ("recv", "--as", "job", "-q", "--", "sh", "-c", SCRIPT.format(book=book))
    command = [sys.executable, "-m", "msgctl", "--socket", str(node.socket), *words]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL)


def lines(book: Path) -> list[str]:
    return book.read_text().splitlines() if book.exists() else []


def kill_one(node: Node, chance: random.Random) -> None:
    """The log process, the worker that recv talks to, or all of msgd."""
    what = chance.choice(("log", "control uid", "msgd"))
    if what == "msgd":
        node.kill9()
        node.start()
        return
    for role, pids in node.pids().items():
        if role.startswith(what):
            os.kill(pids[0], signal.SIGKILL)


def test_each_message_is_handled_once_whatever_dies_of_the_daemon(nodes: Nodes, tmp_path: Path) -> None:
    """Exit 0 was seen by recv, which lives: it tells it to the next process."""
    kills, chance, book = 60, random.Random(7), tmp_path / "book"
    a, b = nodes.pair()
    words = [f"word{number}" for number in range(12 * kills)]
    sent = a.ctl("send", "b", "--lines", stdin="".join(f"{word}\n" for word in words), within_s=120)
    assert 0 == sent.returncode
    process = begun(b, book)
    try:
        for _ in range(kills):
            wanted = min(len(words), len(lines(book)) + chance.randrange(1, 9))
            wait_for(lambda wanted=wanted: len(lines(book)) >= wanted, 30, "some to be handled")
            kill_one(b, chance)
        wait_for(lambda: len(lines(book)) >= len(words), 60, "all to be handled")
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(10)
    finally:
        process.kill()
        process.wait()
    assert words == lines(book)
