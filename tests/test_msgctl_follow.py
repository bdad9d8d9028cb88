"""`msgctl log -f` of a real node: what comes, and what becomes of it."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from msgctl.client import Lost
from msgd.wire import varlink
from tests.nodes import Node, Nodes, wait_for
from tests.require import REPOSITORY

NOBODY = "127.0.0.250:1"


@contextmanager
def following(node: Node, output: Path, *words: str) -> Iterator[None]:
    """`msgctl log -f` that writes into a file."""
    command = [sys.executable, "-m", "msgctl", "--socket", os.fspath(node.socket), "log", "-f", *words]
    with output.open("wb") as file, subprocess.Popen(command, cwd=REPOSITORY, stdout=file) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.mark.slow
def test_state_change_is_shown_but_not_to_scripts(nodes: Nodes, tmp_path: Path) -> None:
    """A message that was held is told again when it is cancelled; with a cursor file it comes once."""
    a = nodes.start("a")
    people, scripts = tmp_path / "people", tmp_path / "scripts"
    once = ("-o", "json", "--cursor-file", os.fspath(tmp_path / "seen"))
    with following(a, people), following(a, scripts, *once):
        held = a.ctl("send", NOBODY, "--wait=queued", "-o", "json", "first")
        wait_for(lambda: b"[held: unpaired]: first" in people.read_bytes(), 20, "the first")
        wait_for(lambda: b"first" in scripts.read_bytes(), 20, "the first in JSON")
        assert a.ctl("cancel", json.loads(held.stdout)["id"]).returncode == 0
        wait_for(lambda: b"[held -> cancelled" in people.read_bytes(), 20, "its change")
        a.ctl("send", NOBODY, "--wait=queued", "second")
        wait_for(lambda: b"second" in scripts.read_bytes(), 20, "the second")
    assert ["first", "second"] == [json.loads(line)["text"] for line in scripts.read_text().splitlines()]
    assert 2 == people.read_text().count("first")


@pytest.mark.slow
def test_log_process_that_dies_ends_the_reading_and_makes_nothing_uncertain(nodes: Nodes) -> None:
    """msgctl ends with 3, also where the worker was busy writing when it happened."""
    a = nodes.start("a")
    done = a.ctl("send", NOBODY, "-lq", "--wait=queued", stdin=f"{'x' * 1000}\n" * 3000)
    assert 4 == done.returncode, done.stderr
    with a.client() as client:
        client.sock.sendall(varlink.call("org.msgd.Control.Log", {"follow": True}, more=True))
        assert select.select([client.sock], [], [], 20)[0], "no answer"
        dead = a.pids()["log"][0]
        os.kill(dead, signal.SIGKILL)
        wait_for(lambda: a.pids().get("log", [dead])[0] != dead, 20, "another log process")
        with pytest.raises(Lost, match="closed the connection"):
            while True:
                reply = client.next_reply()
                assert reply is None or not reply.error, reply
                if reply is None:
                    client.feed(client.sock.recv(1 << 18))
