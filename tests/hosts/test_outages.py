"""msgd under systemd on two hosts in bad times: killed, without power, hung, on a failing disk."""

import json
import time

import pytest

from tests.hosts.processes import wait_until
from tests.hosts.service import SOCKETS, SOURCE, UNIT, Service

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(240)]

Services = tuple[Service, Service]
# WatchdogSec, its third in which the last feeding may still have been right, RestartSec, and 2 s of leeway.
RESTARTED_WITHIN_S = 15 + 5 + 1 + 2


DIAL = """
import socket, sys, time
PLACES = (socket.AF_UNIX, "/run/msgd/control.sock"), (socket.AF_INET, ("127.0.0.1", 6743))
end, attempts = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < end:
    for family, address in PLACES:
        with socket.socket(family) as s:
            s.settimeout(0.2)
            try:
                s.connect(address)
                s.recv(1)
            except OSError:
                pass
            attempts += 1
print(attempts)
"""


def assert_same_history(a: Service, b: Service, acknowledged: set[str]) -> None:
    """What was acknowledged on `a` is in both logs once, in one order, without a gap."""
    sent, received = [m for m in a.log("out") if m["state"] == "stored"], b.log("in")
    there = {m["id"] for m in received}
    assert [m for m in sent if m["id"] not in there] == []
    assert [m["id"] for m in sent] == [m["id"] for m in received]
    assert [m["seq"] for m in received] == list(range(1, len(received) + 1))
    assert len({m["id"] for m in received}) == len(received)
    assert acknowledged <= there


def test_nothing_acknowledged_is_lost_when_the_service_is_killed(services: Services) -> None:
    """SIGKILL to all of the service, again and again, on both hosts, while three writers send."""
    a, b = services
    command = ("/opt/msgd/bin/python", f"{SOURCE}/tests/hosts/writer.py", b.name, "/run/enough")
    writers = [a.host.popen(*command) for _ in range(3)]
    before = int(a.show("NRestarts"))
    for victim in (b, a, b, a):
        wait_until(lambda: victim.state() == "active", 30, f"{victim.name} to run")  # noqa: B023
        victim.systemctl("kill", "--signal=KILL", "msgd")
        wait_until(lambda: victim.ctl("status").returncode == 0, 30, f"{victim.name} to answer")  # noqa: B023
    a.host.run("touch", "/run/enough")
    outputs = [writer.communicate(timeout=60) for writer in writers]
    assert [error for _, error in outputs] == ["", "", ""]
    acknowledged = {line for out, _ in outputs for line in out.split()}
    assert len(acknowledged) > 100
    assert int(a.show("NRestarts")) == before + 2
    a.wait_connected()
    a.wait_delivered()
    assert_same_history(a, b, acknowledged)


def test_queued_messages_survive_a_power_cut_of_either_host(services: Services) -> None:
    """Messages for a peer that is off wait; their node loses power, too; in the end both hold all of them."""
    a, b = services
    b.host.kill()
    ids = set()
    for number in range(20):
        done = a.ctl("-o", "json", "send", b.name, "--wait=queued", f"waiting {number}")
        assert done.returncode == 0, done.stderr
        ids.add(json.loads(done.stdout)["id"])
    a.host.kill()
    for service in services:
        service.host.boot()
    for service in services:
        service.host.wait_up()
        service.systemctl("start", "msgd")
    a.wait_connected()
    a.wait_delivered()
    assert_same_history(a, b, ids)


def test_a_reboot_leaves_nothing_behind(services: Services) -> None:
    """An orderly reboot stops msgd within its time; afterwards the peers find each other by themselves."""
    a, b = services
    b.systemctl("enable", "msgd")
    b.host.reboot()
    a.wait_connected()
    assert b.state() == "active"
    assert "msgd has stopped" in b.journal("-b", "-1")
    assert a.ctl("send", b.name, "--wait=stored", "welcome back").returncode == 0


def test_a_hung_log_process_is_ended_by_the_watchdog(services: Services) -> None:
    """SIGSTOP to the log process: systemd ends the service within WatchdogSec and starts a sound one."""
    a, _ = services
    before = int(a.show("NRestarts"))
    a.host.run("kill", "-STOP", a.process("log"))
    stopped_s = time.monotonic()
    wait_until(lambda: int(a.show("NRestarts")) > before, 60, "systemd's restart")
    assert time.monotonic() - stopped_s < RESTARTED_WITHIN_S
    assert "Watchdog timeout" in a.journal()
    a.wait_connected()
    assert a.ctl("send", "host-b", "--wait=stored", "after the hang").returncode == 0


def fail_next_sync(service: Service) -> None:
    """The next fdatasync of the log process answers EIO, as a broken disk does."""
    victim, fault = service.process("log"), ("-e", "inject=fdatasync:error=EIO:when=1")
    trace = ("strace", "-qq", "-o", "/run/strace", "-e", "trace=fdatasync", *fault, "-p", victim)
    service.host.run("systemd-run", "--quiet", "--collect", "--unit=fault", *trace)
    status = f"/proc/{victim}/status"
    wait_until(lambda: "TracerPid:\t0" not in service.host.run("cat", status).stdout, 10, "strace to attach")


def test_a_failed_sync_ends_the_service_for_good(services: Services) -> None:
    """Exit 74, no acknowledgement, and no second start however many connections come on both sockets."""
    a, b = services
    begun = a.show("ActiveEnterTimestampMonotonic")
    callers = a.host.popen("/usr/bin/python3", "-c", DIAL, "6")
    fail_next_sync(a)
    done = a.ctl("send", b.name, "--wait=queued", "caught by the fault")
    assert done.returncode == 1, done.stdout
    assert "unknown whether the message was kept" in done.stderr.lower()
    wait_until(lambda: a.state() == "failed", 5, "the end of the service")
    attempts, _ = callers.communicate(timeout=30)
    assert int(attempts) > 10
    assert a.show("ExecMainStatus") == "74"
    assert a.show("ActiveEnterTimestampMonotonic") == begun
    assert [a.state(unit) for unit in (UNIT, *SOCKETS)] == ["failed", "inactive", "inactive"]
    assert a.ctl("status").returncode == 3

    a.systemctl("start", "msgd")
    assert [a.state(unit) for unit in SOCKETS] == ["active", "active"]
    assert a.state("msgd-stop-sockets.target") == "inactive"
    a.wait_connected()
    a.wait_delivered()
    assert_same_history(a, b, set())


def test_an_unclean_restart_keeps_the_sockets(services: Services) -> None:
    """When the old process ends badly during `systemctl restart`, the new one still gets the same sockets."""
    a, _ = services
    drop_in = "/run/systemd/system/msgd.service.d"
    a.host.run("mkdir", "-p", drop_in)
    a.host.run("sh", "-c", f"printf '[Service]\\nKillSignal=SIGKILL\\n' > {drop_in}/unclean.conf")
    try:
        a.systemctl("daemon-reload")
        a.systemctl("restart", "msgd")
        assert [a.state(unit) for unit in (UNIT, *SOCKETS)] == ["active"] * 3
    finally:
        a.host.run("rm", "-r", drop_in)
        a.systemctl("daemon-reload")
    a.wait_connected()


def test_a_wrong_setting_stops_the_service_until_a_person_comes(services: Services) -> None:
    """Exit 78 at start, with a sentence in the journal; the sockets close; mended, it starts."""
    a, _ = services
    a.host.run("sh", "-c", "echo 'listen = 7' > /etc/msgd/msgd.d/wrong.toml")
    try:
        assert a.host.run("systemctl", "restart", "msgd", check=False).returncode != 0
        assert a.show("ExecMainStatus") == "78"
        wait_until(lambda: [a.state(unit) for unit in SOCKETS] == ["inactive"] * 2, 5, "the sockets to close")
        assert a.state() == "failed"
        assert "wrong.toml" in a.journal()
    finally:
        a.host.run("rm", "/etc/msgd/msgd.d/wrong.toml")
    a.systemctl("start", "msgd")
    a.wait_connected()
