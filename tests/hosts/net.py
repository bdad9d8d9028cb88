"""The cable between the hosts: a bridge in a private network namespace, one veth pair per host.

A `sleep` holds the namespace; with it the bridge and all cables go. A cut is silent: the carrier stays up and
frames vanish, as behind a switch that died, so only timeouts notice.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.hosts.processes import is_alive, lifeline, wait_until


class Bridge:
    """The switch. `pid_file` keeps the holder's pid, so that another process can find the switch again."""

    def __init__(self, pid_file: Path) -> None:
        self.pid_file = pid_file

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def up(self, *, tied: bool) -> None:
        holder = subprocess.Popen(
            [*lifeline(tied), "unshare", "--net", "sleep", "infinity"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid_file.write_text(str(holder.pid))
        wait_until(lambda: command_of(holder.pid) == "sleep", 5, "the bridge's namespace")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "add", "br0", "type", "bridge")
        self.run("ip", "link", "set", "br0", "up")

    def down(self) -> None:
        if self.pid_file.exists() and is_alive(self.pid):
            os.kill(self.pid, signal.SIGKILL)
            wait_until(lambda: not is_alive(self.pid), 5, "the end of the bridge")

    def run(self, *command: str) -> str:
        """A command in the bridge's network namespace (ip, bridge, nft)."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "--"]
        done = subprocess.run([*enter, *command], check=True, capture_output=True, text=True, timeout=20)
        return done.stdout

    def plug(self, name: str, pid1: int, address: str) -> None:
        """A cable from the bridge to the host whose PID 1 is `pid1`."""
        self.run(
            "ip", "link", "add", f"port-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(pid1)
        )
        self.run("ip", "link", "set", f"port-{name}", "master", "br0", "up")
        inside = ["nsenter", "-t", str(pid1), "-n", "ip"]
        subprocess.run([*inside, "addr", "add", f"{address}/24", "dev", "eth0"], check=True, timeout=20)
        subprocess.run([*inside, "link", "set", "eth0", "up"], check=True, timeout=20)

    def wait_unplugged(self, name: str) -> None:
        """The kernel takes a dead host's cable away a moment after the host."""
        deadline_s = time.monotonic() + 10
        while f"port-{name}@" in self.run("ip", "-o", "link"):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the cable of host {name} is still there")
            time.sleep(0.02)

    def cut(self, name: str) -> None:
        self.run("bridge", "link", "set", "dev", f"port-{name}", "state", "0")

    def heal(self, name: str) -> None:
        self.run("bridge", "link", "set", "dev", f"port-{name}", "state", "3")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
