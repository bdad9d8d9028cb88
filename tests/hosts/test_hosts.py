"""msgd under systemd on two hosts: installed, started, paired, talked to, reloaded, run by a user."""

import json
import re

import pytest

from tests.hosts.service import SOCKETS, UNIT, Service

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(240)]

Services = tuple[Service, Service]


def send_all_ways(a: Service, b: Service, text: str) -> list[str]:
    """By name, by address and by identity; the ids."""
    ways = (b.name, f"{b.host.address}:6743", b.node()["identity"])
    found = []
    for way in ways:
        done = a.ctl("-o", "json", "send", way, "--wait=stored", text)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)["id"])
    return found


def test_installation_is_complete_and_sound(services: Services) -> None:
    """systemd has nothing to say about the installed units; the running service is walled in as promised."""
    for service in services:
        done = service.host.run("systemd-analyze", "verify", UNIT, *SOCKETS, "msgd-stop-sockets.target")
        assert done.stdout + done.stderr == ""
        report = service.host.run("systemd-analyze", "security", "--no-pager", "msgd").stdout
        (exposure,) = re.findall(r"exposure level for msgd.service: ([0-9.]+)", report)
        assert float(exposure) <= 1.2
        owner = service.host.run("stat", "-c", "%U %a", "/var/lib/msgd").stdout
        assert owner == "msgd 700\n"


def test_both_hosts_send_by_name_address_and_identity(services: Services) -> None:
    """Each way of naming the peer ends in the same conversation, which both logs hold alike."""
    a, b = services
    for one, other in ((a, b), (b, a)):
        ids = send_all_ways(one, other, f"hello from {one.name}")
        for service, direction in ((one, "out"), (other, "in")):
            peer = other.name if service is one else one.name
            found = service.query("log", "--peer", peer, "--direction", direction, "-n", "3")
            assert [m["id"] for m in found] == ids
            assert {m["text"] for m in found} == {f"hello from {one.name}"}


def test_the_journal_tells_the_story_by_peer(services: Services) -> None:
    """`journalctl -u msgd PEER=host-b` finds the link's opening, with our fields."""
    a, b = services
    for one, other in ((a, b), (b, a)):
        one.host.run("journalctl", "--sync")
        entries = one.host.run("journalctl", "-u", "msgd", f"PEER={other.name}", "-o", "json").stdout
        events = [json.loads(line) for line in entries.splitlines()]
        opened = [event for event in events if event.get("EVENT") == "link.opened"]
        assert opened, entries
        assert all(re.fullmatch("[0-9a-f]{32}", event["MESSAGE_ID"]) for event in opened)


def test_users_are_told_apart(services: Services) -> None:
    """A member of the group msgd sends under her own name; a stranger is refused and nothing is kept."""
    a, _ = services
    for name, group in (("alice", "msgd"), ("mallory", "nogroup")):
        a.host.run("useradd", "--no-create-home", "-G", group, name)
    done = a.ctl("-o", "json", "send", "host-b", "from a person", user="alice")
    assert done.returncode == 0, done.stderr
    (message,) = a.query("show", json.loads(done.stdout)["id"])
    assert message["user"] == "alice"
    count = len(a.log("out"))
    refused = a.ctl("send", "host-b", "not allowed", user="mallory")
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert len(a.log("out")) == count


def test_a_reload_keeps_the_link(services: Services) -> None:
    """`systemctl reload` returns when the new setting is in force; the link's process is as before."""
    a, _ = services
    worker, main = a.process("peer host-b"), a.show("MainPID")
    a.host.run("sh", "-c", "echo 'log_level = \"debug\"' > /etc/msgd/msgd.d/level.toml")
    try:
        a.systemctl("reload", "msgd")
        assert (a.process("peer host-b"), a.show("MainPID")) == (worker, main)
        assert "daemon.reloaded" in a.journal("-o", "verbose", "EVENT=daemon.reloaded")
    finally:
        a.host.run("rm", "/etc/msgd/msgd.d/level.toml")
        a.systemctl("reload", "msgd")


def test_a_wrong_setting_does_not_survive_a_reload(services: Services) -> None:
    """The reload fails, the journal names file and key, and the service goes on with what it had."""
    a, _ = services
    a.host.run("sh", "-c", "echo 'log_levl = \"debug\"' > /etc/msgd/msgd.d/wrong.toml")
    try:
        done = a.host.run("systemctl", "reload", "msgd", check=False)
        assert done.returncode != 0
        assert "wrong.toml" in a.journal("EVENT=reload.refused")
        assert a.state() == "active"
        assert a.ctl("send", "host-b", "--wait=stored", "still here").returncode == 0
    finally:
        a.host.run("rm", "/etc/msgd/msgd.d/wrong.toml")


def test_a_connection_starts_the_stopped_service(services: Services) -> None:
    """After `systemctl stop` the sockets stay; the first client waits for the service instead of failing."""
    a, b = services
    a.host.cut()  # else the peer would be the one that comes, and starts it again
    for service in services:
        service.systemctl("stop", "msgd")
        assert [service.state(unit) for unit in (UNIT, *SOCKETS)] == ["inactive", "active", "active"]
    a.host.heal()
    done = a.ctl("send", "host-b", "--wait=stored", "--timeout=30", "good morning")
    assert done.returncode == 0, done.stderr
    assert a.state() == b.state() == "active"


def test_a_user_runs_her_own_node(services: Services) -> None:
    """Under her user manager the user units start msgd with state and socket of her own, and reload it."""
    a, _ = services
    a.host.run("useradd", "--create-home", "--uid", "4321", "carol")
    a.host.run("install", "-d", "-o", "carol", "-m", "0700", "/run/user/4321")
    runtime = "XDG_RUNTIME_DIR=/run/user/4321"
    options = ("-p", "User=carol", "-p", "Type=notify", "-p", "Delegate=yes", "-p", f"Environment={runtime}")
    a.host.run("systemd-run", "--quiet", "--unit=manager-carol", *options, "/lib/systemd/systemd", "--user")
    as_carol = ("runuser", "-u", "carol", "--", "env", runtime, "HOME=/home/carol")
    drop_in = "/home/carol/.config/systemd/user/msgd-peer.socket.d/port.conf"
    a.host.run(*as_carol, "mkdir", "-p", drop_in.rpartition("/")[0])
    lines = "[Socket]\\nListenStream=\\nListenStream=16743\\n"
    a.host.run(*as_carol, "sh", "-c", f"printf '{lines}' > {drop_in}")
    try:
        a.host.run(*as_carol, "systemctl", "--user", "daemon-reload")
        a.host.run(*as_carol, "systemctl", "--user", "start", "msgd")
        status = a.host.run(*as_carol, "msgctl", "-o", "json", "status").stdout
        node = json.loads(status.splitlines()[0])
        assert node["state_dir"] == "/home/carol/.local/state/msgd"
        assert node["identity"] != a.node()["identity"]
        a.host.run(*as_carol, "systemctl", "--user", "reload", "msgd")
    finally:
        a.systemctl("stop", "manager-carol")


def test_a_reinstallation_keeps_identity_and_log(services: Services) -> None:
    """`make uninstall` stops msgd and takes its files, not the log; installed again, it is the same node."""
    a, _ = services
    identity, log = a.node()["identity"], [m["id"] for m in a.log("out")]
    a.uninstall()
    try:
        assert (
            a.host.run("sh", "-c", "ls -d /opt/msgd /usr/lib/systemd/system/msgd*", check=False).stdout == ""
        )
        assert [a.state(unit) for unit in (UNIT, *SOCKETS)] == ["inactive"] * 3, a.journal()
    finally:
        a.install()
        a.systemctl("start", "msgd")
    assert a.node()["identity"] == identity
    assert [m["id"] for m in a.log("out")] == log
    a.wait_connected()
