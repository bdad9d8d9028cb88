"""Two hosts, host-a 192.168.1.4 and host-b 192.168.1.5: boot, use, cut, power-cut, end.

Each host has mount, pid, uts, ipc, net and cgroup namespaces of its own and a cgroup2 directory made *before*
the cgroup namespace (else two systemds fight over the machine's root group). All that is known about a pair
stands in its directory, so another process can attach to it; the directory's name tells pairs apart, and
several can run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hosts import disk
from tests.hosts.net import Bridge, command_of
from tests.hosts.processes import children_of, is_alive, lifeline, reap, wait_until

GUEST = Path(__file__).with_name("guest.py")
NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "--cgroup")
ENTER = ("-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = (f"PATH={PATH}", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8")


class Host:
    """One host. Commands run as root in its namespaces, but not in its cgroup: for that use systemd-run."""

    def __init__(
        self, name: str, directory: Path, bridge: Bridge, shares: tuple[str, ...], tied: bool
    ) -> None:
        self.name = name
        self.address = disk.ADDRESSES[name]
        self.directory = directory
        self.bridge = bridge
        self.shares = shares
        self.tied = tied
        self.process: subprocess.Popen[bytes] | None = None
        self.cgroup = cgroup2() / f"{directory.parent.name}-{name}"

    @property
    def outer(self) -> int:
        """Pid of the `unshare` whose only child is the host's PID 1; 0 when the host is off."""
        return read_pid(self.directory / "outer.pid")

    @property
    def pid1(self) -> int:
        """Pid, on the machine, of the host's PID 1; 0 when the host is off."""
        return read_pid(self.directory / "pid1.pid")

    @property
    def is_on(self) -> bool:
        return self.pid1 != 0 and is_alive(self.pid1)

    def boot(self) -> None:
        """Start the host on its disk. Returns when systemd runs and the cable is in; see `wait_up`."""
        self.cgroup.mkdir(exist_ok=True)
        join_cgroup = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.cgroup)]
        unshare = [*lifeline(self.tied), "unshare", *NAMESPACES, "--propagation", "private"]
        guest = ["/usr/bin/python3", str(GUEST), self.name, str(self.directory), *self.shares]
        with (self.directory / "console.log").open("ab") as console:
            self.process = subprocess.Popen(
                [*join_cgroup, *unshare, *guest],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        (self.directory / "outer.pid").write_text(str(self.process.pid))
        self._find_pid1(self.process.pid)
        self.bridge.plug(self.name, self.pid1, self.address)

    def _find_pid1(self, outer: int) -> None:
        def started() -> bool:
            if not is_alive(outer):
                raise RuntimeError(f"host-{self.name} did not start:\n{self.console()}")
            return [command_of(child) for child in children_of(outer)] == ["systemd"]

        wait_until(started, 20, f"systemd on host-{self.name}")
        (self.directory / "pid1.pid").write_text(str(children_of(outer)[0]))

    def wait_up(self, within_s: float = 60) -> None:
        def booted() -> bool:
            state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
            return state in ("running", "degraded")

        wait_until(booted, within_s, f"the boot of host-{self.name}")

    def run(
        self, *command: str, check: bool = True, within_s: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` and wait; on a timeout it and its children are killed. Raises with its output."""
        process = self.popen(*command, stdin=None if stdin is None else subprocess.PIPE)
        try:
            out, err = process.communicate(stdin, timeout=within_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        if check and process.returncode:
            raise RuntimeError(f"host-{self.name}: {command} ended with {process.returncode}\n{out}{err}")
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def popen(self, *command: str, stdin: int | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.enter(), *command],
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def enter(self) -> list[str]:
        """Prefix of a command that runs inside."""
        return ["nsenter", "-t", str(self.pid1), *ENTER, "--", "env", "-i", *ENVIRONMENT]

    def console(self) -> str:
        return (self.directory / "console.log").read_text(errors="replace")

    def kill(self) -> None:
        """Power cut: every process of the host dies at once. The disk stays, and the machine's page cache."""
        if self.outer:
            if self.is_on:
                os.kill(self.pid1, signal.SIGKILL)
            wait_until(lambda: not is_alive(self.outer), 10, f"the end of host-{self.name}")
            reap(self.process)
            self.bridge.wait_unplugged(self.name)
        for name in ("outer.pid", "pid1.pid"):
            (self.directory / name).unlink(missing_ok=True)

    def reboot(self) -> None:
        """Orderly: services are stopped, then the host starts again."""
        os.kill(self.pid1, signal.SIGRTMIN + 4)  # systemd: start poweroff.target
        wait_until(lambda: not self.is_on, 60, f"shutdown of host-{self.name}")
        self.kill()
        self.boot()
        self.wait_up()

    def cut(self) -> None:
        """Silent partition from the other host."""
        self.bridge.cut(self.name)

    def heal(self) -> None:
        self.bridge.heal(self.name)


class Pair:
    """Both hosts and their bridge, kept in one directory."""

    def __init__(self, directory: Path, *, tied: bool) -> None:
        self.directory = directory
        self.bridge = Bridge(directory / "bridge.pid")
        shares = tuple((directory / "shares").read_text().split("\n")[:-1])
        self.a, self.b = (Host(name, directory / name, self.bridge, shares, tied) for name in "ab")
        self.hosts = (self.a, self.b)

    @classmethod
    def up(cls, shares: tuple[str, ...] = (), directory: Path | None = None, *, tied: bool = True) -> Pair:
        """Boot both. `shares` are SOURCE:TARGET, read-only; `tied` hosts die with this process."""
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="msgd-hosts-", dir=disk.base_directory()))
        else:
            directory.mkdir(parents=True)
        (directory / "shares").write_text("".join(f"{share}\n" for share in shares))
        pair = cls(directory, tied=tied)
        try:
            pair.bridge.up(tied=tied)
            for host in pair.hosts:
                disk.prepare(host.name, host.directory)
                host.boot()
            for host in pair.hosts:
                host.wait_up()
        except BaseException:
            pair.down()
            raise
        return pair

    def down(self) -> None:
        """End both at once and remove everything of theirs."""
        for host in self.hosts:
            host.kill()
        self.bridge.down()
        for host in self.hosts:
            remove_cgroup(host.cgroup)
        shutil.rmtree(self.directory)


@contextmanager
def two_hosts(shares: tuple[str, ...] = ()) -> Iterator[Pair]:
    """A booted pair that is gone afterwards, whatever happens in between."""
    pair = Pair.up(shares)
    try:
        yield pair
    finally:
        pair.down()


def read_pid(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def cgroup2() -> Path:
    """Where the machine's cgroup2 hierarchy is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(point)
    raise RuntimeError("no cgroup2 hierarchy is mounted on this machine")


def remove_cgroup(group: Path) -> None:
    """Remove a cgroup and those below it; the kernel holds them busy for a moment after their processes."""

    def removed() -> bool:
        for directory, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(directory)
            except OSError:
                pass
        return not group.exists()

    wait_until(removed, 30, f"removal of the cgroup {group}")


def interactive(host: Host, command: list[str]) -> int:
    """Run `command` with this terminal; for use by hand."""
    sys.stdout.flush()
    return subprocess.run([*host.enter(), *command], check=False).returncode
