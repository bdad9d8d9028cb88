"""The processes of one msgd: titles, ends of every kind, bursts without zombies, stop, reload."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from msgctl.client import Client
from msgd.errors import MsgdError
from tests.nodes import (
    PORT,
    Node,
    Nodes,
    children_of,
    command_line,
    is_connected,
    is_running,
    pair,
    wait_for,
)

pytestmark = pytest.mark.slow

ZOMBIE_S = 1.0
CLIENT_HELLO = b"\x16\x03\x01\x00\x05garbage that begins as TLS does"


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@contextmanager
def no_zombies(pid: int) -> Iterator[None]:
    """Watch all children of `pid`; fail if one stays a zombie for a second."""
    over, old, since = threading.Event(), [], dict[int, float]()

    def watch() -> None:
        while not over.wait(0.02):
            now_s = time.monotonic()
            zombies = [child for child in children_of(pid) if state_of(child) == "Z"]
            for child in list(since):
                if child not in zombies:
                    del since[child]
            for child in zombies:
                if now_s - since.setdefault(child, now_s) > ZOMBIE_S:
                    old.append(child)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert [] == old, "zombies that were not reaped within a second"


def kinds(node: Node) -> dict[str, int]:
    """How many children of each kind: the first word of their titles."""
    counts: dict[str, int] = {}
    for role, pids in node.pids().items():
        counts[role.split()[0]] = counts.get(role.split()[0], 0) + len(pids)
    return counts


def only(node: Node, role: str) -> int:
    (pid,) = node.pids()[role]
    return pid


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- titles -------------------------------------------------------------------------------------------------


def test_ps_shows_what_every_process_is_for(nodes: Nodes) -> None:
    a, _ = nodes.pair()
    with a.client() as client:
        client.call("Status")
        assert command_line(a.pid).startswith("msgd")
        wait_for(lambda: {"log", "index", "peer b", "control uid 0"} <= set(a.pids()), 5, "every kind")
        for role in ("log", "index", "peer b", f"control uid {os.getuid()}"):
            assert f"msgd: {role}" == command_line(only(a, role))
    wait_for(lambda: "control" not in kinds(a), 5, "the client's process to end")


# --- bursts -------------------------------------------------------------------------------------------------


def test_300_short_clients_leave_no_process_and_no_zombie(nodes: Nodes) -> None:
    node = nodes.start("a")
    with no_zombies(node.pid):
        for _ in range(300):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(node.socket))
        wait_for(lambda: {"supervisor": 1, "log": 1, "index": 1} == kinds(node), 20, "all to be reaped")
    assert node.ctl("status").returncode == 0


@pytest.mark.parametrize("said", [b"", b"\x16", b"GET / HTTP/1.1\r\n\r\n", CLIENT_HELLO], ids=repr)
def test_300_short_strangers_leave_no_process_and_no_zombie(nodes: Nodes, said: bytes) -> None:
    """Nothing, one byte, garbage, or garbage that begins like TLS: the daemon goes on."""
    node = nodes.start("a")
    with no_zombies(node.pid):
        for _ in range(300):
            with socket.create_connection((node.host, PORT), 5) as sock:
                sock.sendall(said)
        wait_for(lambda: {"supervisor": 1, "log": 1, "index": 1} == kinds(node), 20, "all to be reaped")
    assert node.ctl("status").returncode == 0


def test_strangers_that_stay_lose_their_places_and_the_peer_gets_through(nodes: Nodes) -> None:
    """200 connections that say nothing more, from many addresses, do not keep a paired peer out."""
    a, b = nodes.make("a").start(), nodes.make("b").start()
    held = []
    try:
        for n in range(200):
            sock = socket.create_connection((a.host, PORT), 5, (f"127.61.50.{n % 200 + 1}", 0))
            sock.sendall((b"", b"\x16", b"\x16\x03")[n % 3])
            held.append(sock)
        a.trust(b)
        b.trust(a)
        wait_for(lambda: b.ctl("retry", "a").returncode == 0 and is_connected(b, a), 10, "b to reach a")
        wait_for(lambda: len(node_guests(a)) <= 64, 5, "the places to be bounded")
    finally:
        for sock in held:
            sock.close()


def node_guests(node: Node) -> list[int]:
    """Workers that still shake hands: their titles are addresses."""
    return [pid for role, pids in node.pids().items() if role.startswith("peer 127.") for pid in pids]


def test_one_byte_of_a_stranger_costs_no_processor_time(nodes: Nodes) -> None:
    """The supervisor sleeps until there is enough to judge by."""
    node = nodes.start("a")
    with socket.create_connection((node.host, PORT), 5) as sock:
        sock.sendall(b"\x16")
        before_s = cpu_s(node.pid)
        end_s = time.monotonic() + 0.5
        wait_for(lambda: time.monotonic() > end_s, 5, "half a second of its time")
        assert cpu_s(node.pid) - before_s <= 0.1
        sock.sendall(CLIENT_HELLO[1:])
        assert sock.recv(100)[:1] in (b"", b"\x15"), "an alert of TLS, or the end"


def test_a_stopped_log_process_does_not_stop_the_supervisor(nodes: Nodes) -> None:
    """Nobody reads its channel, as while a disk stalls: the supervisor goes on accepting and reaping."""
    node = nodes.start("a")
    log = only(node, "log")
    os.kill(log, signal.SIGSTOP)
    try:
        with no_zombies(node.pid):
            for _ in range(600):
                with socket.create_connection((node.host, PORT), 5) as sock:
                    sock.sendall(CLIENT_HELLO)
            wait_for(lambda: "peer" not in kinds(node), 20, "all to be reaped")
    finally:
        os.kill(log, signal.SIGCONT)
    assert node.ctl("status").returncode == 0
    assert log == only(node, "log")


# --- kill -9 ------------------------------------------------------------------------------------------------


def test_a_killed_link_comes_back_and_no_other_is_touched(nodes: Nodes) -> None:
    a, b = nodes.pair()
    c = nodes.make("c").start()
    pair(a, c)
    before = a.pids()
    os.kill(before["peer b"][0], signal.SIGKILL)

    def is_back() -> bool:
        now = a.pids()
        return is_connected(a, b) and now.get("peer b", before["peer b"]) != before["peer b"]

    wait_for(is_back, 5, "the link to come back")
    after = a.pids()
    for role in ("supervisor", "log", "index", "peer c"):
        assert before[role] == after[role]
    assert a.ctl("send", "--wait=stored", "b", "hola").returncode == 0


def test_a_killed_index_is_restarted_alone(nodes: Nodes) -> None:
    a, _ = nodes.pair()
    before = a.pids()
    os.kill(before["index"][0], signal.SIGKILL)
    wait_for(lambda: a.pids().get("index", before["index"]) != before["index"], 10, "another index process")
    after = a.pids()
    assert (before["log"], before["peer b"]) == (after["log"], after["peer b"])
    assert a.ctl("send", "--wait=stored", "b", "hola").returncode == 0
    assert ["hola"] == [row["text"] for row in a.query("log")]


def test_a_killed_log_process_is_replaced_with_all_its_clients(nodes: Nodes) -> None:
    """Everybody who held a channel to it is replaced; nothing that was answered is lost."""
    a, b = nodes.pair()
    assert a.ctl("send", "--wait=stored", "b", "before").returncode == 0
    before = a.pids()
    os.kill(before["log"][0], signal.SIGKILL)
    wait_for(lambda: a.ctl("status").returncode == 0 and is_connected(a, b), 15, "the link to come back")
    after = a.pids()
    assert before["supervisor"] == after["supervisor"]
    for role in ("log", "index", "peer b"):
        assert not set(before[role]) & set(after[role])
    assert a.ctl("send", "--wait=stored", "b", "after").returncode == 0
    assert ["before", "after"] == [row["text"] for row in b.query("log")]


def test_clients_of_a_killed_log_process_hear_uncertain_or_the_truth(nodes: Nodes) -> None:
    """Senders at work while it is killed three times: whatever was answered is in the log, once, in order."""
    a, b = nodes.pair()
    accepted: list[list[str]] = [[] for _ in range(4)]
    uncertain: list[set[str]] = [set() for _ in range(4)]
    wrong: list[str] = []
    over = threading.Event()

    def send(worker: int) -> None:
        number = 0
        while not over.is_set():
            try:
                with Client(str(a.socket), timeout_s=20) as client:
                    while not over.is_set():
                        number += 1
                        text = f"{worker}-{number}"
                        uncertain[worker].add(text)
                        receipt = client.send("b", text)
                        uncertain[worker].discard(text)
                        if receipt["state"] not in ("queued", "stored"):
                            wrong.append(f"{text}: {receipt}")
                        accepted[worker].append(text)
            except MsgdError as error:
                if error.name not in ("Uncertain", "Unreachable"):
                    wrong.append(f"{error.name}: {error}")

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            counts = [len(done) for done in accepted]
            wait_for(
                lambda counts=counts: all(len(d) > c + 20 for d, c in zip(accepted, counts, strict=True)),
                20,
                "each to send on",
            )
            os.kill(only(a, "log"), signal.SIGKILL)
            wait_for(lambda: a.ctl("status").returncode == 0, 15, "the log process to be back")
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert [] == wrong
    wait_for(lambda: not a.query("queue"), 20, "all to be stored")
    for node in (a, b):
        rows = [row["text"] for row in node.query("log", "-n", "1000000")]
        for worker in range(4):
            mine = [text for text in rows if text.startswith(f"{worker}-")]
            assert len(mine) == len(set(mine)), "each once"
            assert mine == sorted(mine, key=lambda text: int(text.split("-")[1])), "in order"
            assert set(accepted[worker]) <= set(mine)
            assert set(mine) <= set(accepted[worker]) | uncertain[worker]


def test_children_end_when_their_supervisor_is_killed(nodes: Nodes) -> None:
    """By themselves, within 2 s, idle clients and links included."""
    a, _ = nodes.pair()
    with a.client() as client:
        client.call("Status")
        children = children_of(a.pid)
        assert len(children) >= 4
        os.kill(a.pid, signal.SIGKILL)
        wait_for(lambda: not any(map(is_running, children)), 2, "the children to end")
    assert -signal.SIGKILL == a.wait_exit()


def test_a_daemon_that_was_killed_starts_again_on_the_same_state(nodes: Nodes) -> None:
    a, b = nodes.pair()
    assert a.ctl("send", "--wait=stored", "b", "one").returncode == 0
    a.kill9()
    a.start()
    wait_for(lambda: is_connected(a, b), 10, "the link to come back")
    assert a.ctl("send", "--wait=stored", "b", "two").returncode == 0
    assert ["one", "two"] == [row["text"] for row in b.query("log")]


# --- stop ---------------------------------------------------------------------------------------------------


def test_sigterm_ends_everything_within_5_s_whatever_is_under_way(nodes: Nodes) -> None:
    """Links say goodbye, clients are let go, and what was accepted is there after the next start."""
    a, b = nodes.pair()
    accepted: list[str] = []
    over = threading.Event()

    def send() -> None:
        with Client(str(a.socket), timeout_s=20) as client:
            while not over.is_set():
                text = str(len(accepted))
                try:
                    client.send("b", text)
                except MsgdError:
                    return
                accepted.append(text)

    sender = threading.Thread(target=send)
    sender.start()
    idle = a.client()
    try:
        wait_for(lambda: len(accepted) > 50, 20, "messages under way")
        children = children_of(a.pid)
        began_s = time.monotonic()
        a.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert 0 == a.wait_exit(6)
        assert time.monotonic() - began_s <= 5
        assert not any(map(is_running, children))
    finally:
        over.set()
        sender.join(30)
        idle.close()
    assert not a.socket.exists()
    reasons = [e["reason"] for e in b.events() if e["event"] == "link.closed"]
    assert any("said goodbye: closing" in reason for reason in reasons), reasons
    a.start()
    wait_for(lambda: len(b.query("log", "-n", "1000000")) >= len(accepted), 20, "all to arrive")
    rows = [row["text"] for row in b.query("log", "-n", "1000000")]
    assert accepted == rows[: len(accepted)]


def test_sigterm_during_a_restart_of_the_log_process_is_obeyed(nodes: Nodes) -> None:
    node = nodes.start("a")
    os.kill(only(node, "log"), signal.SIGKILL)
    began_s = time.monotonic()
    assert 0 == node.stop(6)
    assert time.monotonic() - began_s <= 5


def test_a_second_daemon_on_the_same_state_ends_with_78(nodes: Nodes) -> None:
    a = nodes.start("a")
    other = nodes.make("other")
    other.state = a.state
    other.start(wait=False)
    assert 78 == other.wait_exit()
    assert "Another msgd is running" in other.said()
    assert a.ctl("status").returncode == 0


# --- reload -------------------------------------------------------------------------------------------------


def reloaded(node: Node) -> int:
    return sum(1 for e in node.events() if e["event"] == "daemon.reloaded")


def rewrite(node: Node, settings: str) -> None:
    """Another configuration, not yet read."""
    node.config.write_text(
        f'name = "{node.name}"\nlisten = "{node.address}"\nstate = "{node.state}"\n'
        f'socket = "{node.socket}"\n{settings}\n'
    )


def test_sighup_applies_level_and_limits_and_keeps_links(nodes: Nodes) -> None:
    """Shown by a debug event of a new client, and by the limit on clients."""
    a, _ = nodes.pair()
    worker = only(a, "peer b")
    assert not [e for e in a.events() if e["event"] == "control.opened"]
    rewrite(a, 'log_level = "debug"\n[limits]\ncontrol_per_uid = 2\n')
    os.kill(a.pid, signal.SIGHUP)
    wait_for(lambda: reloaded(a) == 1, 5, "the reload")
    with a.client() as one, a.client() as other, a.client() as third:
        assert one.call("Status")["node"]["name"] == "a"
        assert other.call("Status")["node"]["name"] == "a"
        with pytest.raises(MsgdError, match="2 connections"):
            third.call("Status")
    assert [e for e in a.events() if e["event"] == "control.opened"]
    assert worker == only(a, "peer b")
    wait_for(lambda: "control" not in kinds(a), 5, "the clients to be gone")
    assert a.ctl("send", "--wait=stored", "b", "hola").returncode == 0


def test_reload_applies_the_address_of_a_peer(nodes: Nodes) -> None:
    """Where the log knows a wrong one, `[peer.NAME] address` wins, and is dialled at once."""
    a, b = nodes.make("a").start(), nodes.make("b").start()
    assert b.ctl("peer", "add", "a", "--key", a.identity, a.address).returncode == 0
    assert a.ctl("peer", "add", "b", "--key", b.identity, "127.61.51.1:6743").returncode == 0
    assert b.stop() == 0
    b.start('[peer.a]\naddress = "127.61.51.2"\n')  # nobody is there: b cannot reach a
    assert not is_connected(a, b)
    rewrite(a, f'[peer.b]\naddress = "{b.address}"\n')
    done = a.ctl("reload")
    assert (0, "") == (done.returncode, done.stderr)
    wait_for(lambda: is_connected(a, b), 5, "a to reach b at its new address")


def test_reload_applies_the_size_of_segments(nodes: Nodes) -> None:
    """The next append finds the present one full: the log goes on in another."""
    a, _ = nodes.pair()
    body = "x" * 500_000
    for _ in range(5):
        assert 0 == a.ctl("send", "b", "-", stdin=body).returncode
    assert 1 == len(list(a.state.glob("log/*.log")))
    rewrite(a, "[limits]\nsegment_bytes = 2097152\n")
    assert 0 == a.ctl("reload").returncode
    assert 0 == a.ctl("send", "b", "one more").returncode
    assert 2 == len(list(a.state.glob("log/*.log")))


def test_a_bad_configuration_is_refused_and_the_old_one_stays(nodes: Nodes) -> None:
    node = nodes.start("a")
    rewrite(node, 'log_level = "loud"\n')
    done = node.ctl("reload")
    assert done.returncode != 0
    assert "log_level" in done.stderr
    assert "loud" in done.stderr
    assert "Traceback" not in done.stderr
    (refused,) = [e for e in node.events() if e["event"] == "reload.refused"]
    assert "log_level" in json.dumps(refused)
    assert node.ctl("status").returncode == 0
    rewrite(node, "")
    assert node.ctl("reload").returncode == 0


def test_a_changed_listen_is_told_as_ignored(nodes: Nodes) -> None:
    node = nodes.start("a")
    before = node.config.read_text()
    node.config.write_text(before.replace(node.address, "127.61.51.3:6743"))
    assert node.ctl("reload").returncode == 0
    (ignored,) = [e for e in node.events() if e["event"] == "setting.ignored"]
    assert "listen" in json.dumps(ignored)
    with socket.create_connection((node.host, PORT), 5):
        pass
