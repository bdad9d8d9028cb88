"""msgd as installed on one host: a systemd service with its sockets, user and journal."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.hosts.hosts import Host
from tests.hosts.processes import wait_until

SOURCE = "/mnt/msgd"  # where the hosts see this repository, read-only
UNIT = "msgd.service"
SOCKETS = ("msgd-control.socket", "msgd-peer.socket")


class Service:
    """What an operator does with msgd on `host`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.name = f"host-{host.name}"

    def install(self) -> None:
        self.host.run("make", "--no-print-directory", "-C", SOURCE, "install", within_s=240)

    def uninstall(self) -> None:
        self.host.run("make", "--no-print-directory", "-C", SOURCE, "uninstall")

    def systemctl(self, *words: str, within_s: float = 60) -> str:
        return self.host.run("systemctl", *words, within_s=within_s).stdout

    def state(self, unit: str = UNIT) -> str:
        """active, inactive, failed, activating …"""
        return self.host.run("systemctl", "is-active", unit, check=False).stdout.strip()

    def show(self, name: str) -> str:
        """A property of the unit, such as MainPID or NRestarts."""
        return self.systemctl("show", "--value", "-p", name, UNIT).strip()

    def ctl(self, *words: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        who = () if user == "root" else ("runuser", "-u", user, "--")
        return self.host.run(*who, "msgctl", *words, check=False)

    def query(self, *words: str) -> list[dict[str, Any]]:
        """The objects that `msgctl -o json WORDS` prints."""
        done = self.ctl("-o", "json", *words)
        assert done.returncode == 0, f"{self.name}: msgctl {words}: {done.returncode} {done.stderr}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    def node(self) -> dict[str, Any]:
        return self.query("status")[0]

    def trust(self, other: Service) -> None:
        """Pair by hand, as configuration management does, with the key that the other's status shows."""
        address, key = f"{other.host.address}:6743", other.node()["identity"]
        done = self.ctl("peer", "add", other.name, address, "--key", key)
        assert done.returncode == 0, done.stderr

    def wait_connected(self, within_s: float = 60) -> None:
        wait_until(lambda: self.node()["peers_connected"] == 1, within_s, f"{self.name} to reach its peer")

    def wait_delivered(self, within_s: float = 60) -> None:
        """Until nothing is on its way from this node any more."""

        def idle() -> bool:
            return [(peer["queued"], peer["unreceipted"]) for peer in self.query("peer", "ls")] == [(0, 0)]

        wait_until(idle, within_s, f"every message of {self.name} to be stored")

    def log(self, direction: str) -> list[dict[str, Any]]:
        return self.query("log", "--direction", direction, "-n", "all")

    def journal(self, *matches: str) -> str:
        """What the journal holds of the service, `matches` as `PEER=host-b`."""
        self.host.run("journalctl", "--sync")
        return self.host.run("journalctl", "--no-pager", "-o", "cat", "-u", "msgd", *matches).stdout

    def process(self, role: str) -> str:
        """Pid, inside the host, of the child whose title is `msgd: ROLE`."""
        main = self.show("MainPID")
        listing = self.host.run("ps", "-o", "pid=,args=", "--ppid", main).stdout
        found = [line.split()[0] for line in listing.splitlines() if line.endswith(f" msgd: {role}")]
        assert len(found) == 1, f"{self.name} has {len(found)} processes for {role}:\n{listing}"
        return found[0]


def pair(a: Service, b: Service) -> None:
    """Pin each at the other. Who dialled before it was pinned there was refused, so both try again."""
    a.trust(b)
    b.trust(a)
    for service, other in ((a, b), (b, a)):
        service.ctl("retry", other.name)
    a.wait_connected()
    b.wait_connected()
