"""Real daemons for tests: each with a loopback address, a configuration and a state directory of its own.

    def test_something(nodes):
        a, b = nodes.pair("a", "b")
        assert a.ctl("send", "b", "hola").returncode == 0

Addresses come from 127.99.0.0/16, tried until one is free, so that runs side by side do not meet.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.require import REPOSITORY

PORT = 6743
READY_WITHIN_S = 15


class Node:
    """One msgd, started and stopped by the test. `directory` holds all that is its own."""

    def __init__(self, name: str, address: str, directory: Path) -> None:
        self.name = name
        self.host = address
        self.address = f"{address}:{PORT}"
        self.directory = directory
        self.state = directory / "state"
        self.socket = directory / "control.sock"
        self.config = directory / "msgd.toml"
        self.output = directory / "msgd.out"
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        settings: str = "",
        *,
        environment: dict[str, str] | None = None,
        wait: bool = True,
        within: Sequence[str] = (),
    ) -> Node:
        """Start msgd; `settings` is TOML that follows the top-level keys. Returns when it answers.

        `within`: a command that executes the rest of its arguments, as `unshare`.
        """
        self.config.write_text(
            f'name = "{self.name}"\nlisten = "{self.address}"\nstate = "{self.state}"\n'
            f'socket = "{self.socket}"\n{settings}\n'
        )
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", "msgd", "--config", str(self.config)],
                cwd=REPOSITORY,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        if wait:
            self.wait_ready()
        return self

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Until the control socket answers Status."""

        def answers() -> bool:
            return not self.is_running or self.ctl("status").returncode == 0

        try:
            wait_for(answers, within_s, f"{self.name} to answer")
            assert self.is_running, f"{self.name} ended with {self.wait_exit()}"
        except AssertionError as error:
            raise AssertionError(f"{error}; it said:\n{self.said()}") from None

    def stop(self, within_s: float = 20) -> int:
        """SIGTERM, and its exit code."""
        return self.end(signal.SIGTERM, within_s)

    def kill9(self, within_s: float = 10) -> int:
        """SIGKILL to the supervisor; returns when none of its children is left."""
        children = [pid for pids in self.pids().values() for pid in pids]
        code = self.end(signal.SIGKILL, within_s)
        wait_for(
            lambda: not any(is_running(pid) for pid in children),
            within_s,
            f"the children of {self.name} to end",
        )
        return code

    def end(self, number: signal.Signals, within_s: float) -> int:
        assert self.process is not None, f"{self.name} was never started"
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(within_s)

    def wait_exit(self, within_s: float = 20) -> int:
        """Until msgd has ended by itself; its exit code."""
        assert self.process is not None, f"{self.name} was never started"
        return self.process.wait(within_s)

    def restart(self, settings: str = "") -> Node:
        self.stop()
        return self.start(settings)

    def said(self) -> str:
        """What msgd printed, that is its events as JSON lines."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def events(self) -> list[dict[str, Any]]:
        """Its events so far, in order."""
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]

    def ctl(
        self, *words: str, stdin: str | None = None, within_s: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run msgctl against this node."""
        return subprocess.run(
            [sys.executable, "-m", "msgctl", "--socket", str(self.socket), *words],
            cwd=REPOSITORY,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def query(self, *words: str) -> list[dict[str, Any]]:
        """The objects that `msgctl -o json WORDS` prints; fails the test when it does not end with 0."""
        done = self.ctl("-o", "json", *words)
        assert done.returncode == 0, f"msgctl {words} ended with {done.returncode}: {done.stderr}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    @property
    def identity(self) -> str:
        return str(self.query("status")[0]["identity"])

    def trust(self, other: Node) -> None:
        """Pin `other` here, by hand as configuration management would."""
        done = self.ctl("peer", "add", other.name, other.address, "--key", other.identity)
        assert done.returncode == 0, done.stderr

    def client(self) -> Any:
        """msgctl's own client, connected to this node."""
        from msgctl.client import Client

        return Client(str(self.socket))

    def pids(self) -> dict[str, list[int]]:
        """Its processes by role, from their titles: supervisor, log, index, peer NAME, control."""
        roles: dict[str, list[int]] = {"supervisor": [self.pid]}
        for pid in children_of(self.pid):
            _, _, role = command_line(pid).partition("msgd: ")
            roles.setdefault(role.strip() or "?", []).append(pid)
        return roles


class Nodes:
    """The daemons of one test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made: list[Node] = []

    def make(self, name: str) -> Node:
        """A node that is not started yet."""
        node = Node(name, free_address(), self.directory / name)
        self.made.append(node)
        return node

    def start(self, name: str, settings: str = "") -> Node:
        return self.make(name).start(settings)

    def pair(self, one: str = "a", other: str = "b", settings: str = "") -> tuple[Node, Node]:
        """Two running nodes that trust each other, with the link between them open."""
        a, b = self.both(one, other, settings)
        pair(a, b)
        return a, b

    def both(self, one: str = "a", other: str = "b", settings: str = "") -> tuple[Node, Node]:
        """Two running nodes that do not know each other."""
        a = self.make(one).start(settings, wait=False)
        b = self.make(other).start(settings)
        a.wait_ready()
        return a, b

    def end(self) -> None:
        """Kill every node that still runs, with its children."""
        for node in self.made:
            if node.is_running:
                node.kill9()


def pair(a: Node, b: Node, within_s: float = 20) -> None:
    """Pin each at the other and wait for the link.

    Who dials before it is pinned there is refused and would come back late, so both try again at once.
    """
    a.trust(b)
    b.trust(a)
    wait_for(lambda: is_connected(a, b) or retried(a, b), within_s, f"{a.name} to reach {b.name}")
    wait_for(lambda: is_connected(b, a), within_s, f"{b.name} to reach {a.name}")


def retried(a: Node, b: Node, for_s: float = 1) -> bool:
    """Have `a` dial `b` now; whether it is connected within `for_s`."""
    a.ctl("retry", b.name)
    end_s = time.monotonic() + for_s
    while not is_connected(a, b):
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


def is_connected(node: Node, other: Node) -> bool:
    return any(
        peer["name"] == other.name and peer["state"] == "connected" for peer in node.query("peer", "ls")
    )


def wait_for(condition: Callable[[], object], within_s: float, what: str) -> None:
    """Return once `condition` holds; fail the test naming `what` after `within_s` seconds."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {within_s:g} s for {what}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def addresses() -> Callable[[], str]:
    """An allocator over 127.99.0.0/16 that begins at a place of its own in every process."""
    place = os.getpid() * 61

    def next_free() -> str:
        nonlocal place
        for _ in range(1000):
            place += 1
            address = f"127.99.{place // 254 % 256}.{place % 254 + 1}"
            with socket.socket() as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    trial.bind((address, PORT))
                except OSError:
                    continue
            return address
        raise RuntimeError("no free address in 127.99.0.0/16")

    return next_free


free_address = addresses()
