"""The two hosts themselves: real systemd, a wire that can be cut, a disk that survives, no traces."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.hosts import Host, Pair, two_hosts
from tests.hosts.processes import wait_until
from tests.require import require

pytestmark = [pytest.mark.hosts, pytest.mark.slow]

LISTEN = (
    "import socket; s = socket.create_server(('', 7000)); c, a = s.accept(); print('from', a[0], flush=True)"
)
DIAL = "import socket, sys; socket.create_connection((sys.argv[1], 7000), 2)"


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    require("root", "namespaces", "systemd", "ip")
    with two_hosts() as pair:
        yield pair


def namespaces_of(pair: Pair) -> set[str]:
    kinds = ("mnt", "pid", "net", "uts", "ipc", "cgroup")
    pids = [host.pid1 for host in pair.hosts]
    return {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids for kind in kinds} | {
        os.readlink(f"/proc/{pair.bridge.pid}/ns/net")
    }


def namespaces_in_use() -> set[str]:
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found |= {os.readlink(kind) for kind in (process / "ns").iterdir()}
            except OSError:
                continue
    return found


def test_nothing_stays_of_two_hosts() -> None:
    """After the end no namespace, process, cgroup, mount, link or file of theirs is left."""
    require("root", "namespaces", "systemd", "ip")
    links, mounts = set(os.listdir("/sys/class/net")), Path("/proc/self/mounts").read_text()
    with two_hosts() as pair:
        ours = namespaces_of(pair)
        cgroups = [host.cgroup for host in pair.hosts]
        assert ours <= namespaces_in_use()
        assert all(cgroup.is_dir() for cgroup in cgroups)
        assert mounts == Path("/proc/self/mounts").read_text()
    wait_until(lambda: not ours & namespaces_in_use(), 5, "the end of the hosts' namespaces")
    assert not pair.directory.exists()
    assert not any(cgroup.exists() for cgroup in cgroups)
    assert str(pair.directory) not in Path("/proc/self/mounts").read_text()
    assert set(os.listdir("/sys/class/net")) <= links


def test_each_host_is_a_machine_of_its_own(pair: Pair) -> None:
    """Names, addresses, boot ids and PID 1 differ from each other and from the machine's."""
    boot_ids = {Path("/proc/sys/kernel/random/boot_id").read_text()}
    for host in pair.hosts:
        assert host.run("hostname").stdout == f"host-{host.name}\n"
        assert host.run("cat", "/proc/1/comm").stdout == "systemd\n"
        assert f"{host.address}/24" in host.run("ip", "-br", "addr", "show", "eth0").stdout
        assert host.run("systemctl", "--failed", "--quiet").stdout == ""
        boot_ids.add(host.run("cat", "/proc/sys/kernel/random/boot_id").stdout)
    assert len(boot_ids) == 3


def test_a_service_runs_hardened_and_tells_the_journal(pair: Pair) -> None:
    """A transient service with walls around it runs under each systemd, and its words are in that journal."""
    for host in pair.hosts:
        walls = ("-p", "DynamicUser=yes", "-p", "ProtectSystem=strict", "-p", "StateDirectory=trial")
        host.run(
            "systemd-run", "--quiet", "--wait", "--unit=trial", *walls, "echo", f"hello from {host.name}"
        )
        host.run("journalctl", "--sync")
        assert (
            host.run("journalctl", "-u", "trial", "-o", "cat", "-t", "echo").stdout
            == f"hello from {host.name}\n"
        )


def test_a_cut_is_silent_and_heals(pair: Pair) -> None:
    """Both ways a connection is made; while one host is cut off it times out instead of being refused."""
    for server, client in (pair.hosts, pair.hosts[::-1]):
        unit = f"listen-{client.name}"
        server.run("systemd-run", "--quiet", f"--unit={unit}", "/usr/bin/python3", "-c", LISTEN)
        listening = "ss", "-Hltn", "sport = :7000"
        wait_until(lambda: server.run(*listening).stdout, 10, "the listener")  # noqa: B023
        server.cut()
        began_s = time.monotonic()
        assert (
            "TimeoutError" in client.run("/usr/bin/python3", "-c", DIAL, server.address, check=False).stderr
        )
        assert time.monotonic() - began_s >= 2
        server.heal()
        client.run("/usr/bin/python3", "-c", DIAL, server.address)
        wait_until(lambda: f"from {client.address}" in journal_of(server, unit), 10, "the connection")  # noqa: B023


def journal_of(host: Host, unit: str) -> str:
    return host.run("journalctl", "-u", unit, "-o", "cat").stdout


def test_a_power_cut_keeps_the_disk(pair: Pair) -> None:
    """After SIGKILL to everything the host boots again with its files and journal, under a new boot id."""
    host = pair.b
    host.run("sh", "-c", "echo kept > /var/lib/kept && sync")
    host.kill()
    assert not host.is_on
    host.boot()
    host.wait_up()
    assert host.run("cat", "/var/lib/kept").stdout == "kept\n"
    assert len(host.run("journalctl", "--list-boots", "--quiet").stdout.splitlines()) == 2


def test_a_reboot_stops_services_first(pair: Pair) -> None:
    """A service hears SIGTERM and may say goodbye before the host is off."""
    farewell = "trap 'echo goodbye > /var/lib/farewell; exit 0' TERM; sleep infinity & wait"
    pair.a.run("systemd-run", "--quiet", "--unit=polite", "sh", "-c", farewell)
    pair.a.reboot()
    assert pair.a.run("cat", "/var/lib/farewell").stdout == "goodbye\n"


def test_a_command_that_hangs_is_killed(pair: Pair) -> None:
    """A command over its time raises, and does not go on inside the host."""
    with pytest.raises(Exception, match="timed out"):
        pair.a.run("sleep", "4711", within_s=0.3)
    wait_until(lambda: "4711" not in pair.a.run("ps", "ax", "-o", "args").stdout, 5, "the end of the command")
