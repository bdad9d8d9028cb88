"""Real daemons on failing disks, with damaged logs, hung, and with nobody who reads their events."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from msgctl.client import Client
from msgctl.pipeline import send_many
from msgd.errors import (
    EX_IOERR,
    STORAGE,
    MsgdError,
    StorageRefused,
    Uncertain,
    UnknownMessage,
    Unreachable,
)
from msgd.log.record import Kind
from msgd.log.segment import segment_path
from tests.faults import Ballast, fails_to_start, flip, injected, own_disk, read_only, sentence, unshared
from tests.nodes import Node, Nodes, is_connected, pair, wait_for
from tests.require import REPOSITORY, require
from tests.storm import batches, log_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SOON_S = 10
SMALL_SEGMENTS = "[limits]\nsegment_bytes = 2097152\n"
READY_WITHIN_S = 1.0


def log_process(node: Node) -> int:
    wait_for(lambda: "log" in node.pids(), SOON_S, f"the log process of {node.name}")
    return node.pids()["log"][0]


def event_names(node: Node) -> list[str]:
    return [event["event"] for event in node.events()]


def texts(node: Node, *words: str) -> list[str]:
    return [str(message["text"]) for message in node.query("log", *words)]


def in_background(calls: list[Callable[[], object]]) -> list[object]:
    """Run all at once; what each returned or raised."""
    found: list[object] = [None] * len(calls)

    def run(place: int) -> None:
        try:
            found[place] = calls[place]()
        except MsgdError as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


# --- a failed sync ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("errno", ["EIO", "ENOSPC"])
def test_a_failed_sync_is_final(nodes: Nodes, tmp_path: Path, errno: str) -> None:
    """Whoever waits hears "unknown", msgd ends with 74 and does not sync again; by hand it starts, sound."""
    a, b = nodes.pair()
    assert a.ctl("send", "b", "--wait=stored", "before").returncode == 0

    clients = [a.client() for _ in range(4)]
    with injected(log_process(a), tmp_path / "trace", f"fdatasync:error={errno}:when=1") as trace:
        answers = in_background([partial(client.send, "b", "caught") for client in clients])
        assert a.wait_exit() == EX_IOERR
    assert [type(answer) for answer in answers] == [Uncertain] * 4
    assert len(trace.calls("fdatasync")) == 1, "a sync after a failed one"
    assert "log.failed" in event_names(a)
    assert log_starts(a) == 1, "nobody but a person may open the log again"
    assert a.ctl("status").returncode == 3
    a.start()
    wait_for(lambda: is_connected(a, b), 20, "the link")
    assert a.ctl("send", "b", "--wait=stored", "after").returncode == 0
    kept = texts(a, "--direction", "out")
    assert kept == texts(b, "--direction", "in")
    assert (kept[0], kept[-1]) == ("before", "after")
    assert len(kept) <= 2 + len(clients)


def log_starts(node: Node) -> int:
    """How often a log process was forked."""
    return sum(1 for e in node.events() if e["event"] == "child.started" and e["title"] == "msgd: log")


def test_a_failed_sync_of_a_new_segment_is_final_too(nodes: Nodes, tmp_path: Path) -> None:
    """An fsync outside of any append: exit 74 all the same, and nothing that was acknowledged is lost."""
    a, b = nodes.pair(settings=SMALL_SEGMENTS)
    sent = 0
    with (
        injected(log_process(a), tmp_path / "trace", "fsync:error=EIO:when=1", trace="fsync"),
        a.client() as client,
        pytest.raises(MsgdError),
    ):
        for sent in range(100):
            client.send("b", f"{sent} " + "x" * 100_000)
    assert a.wait_exit() == EX_IOERR
    assert log_starts(a) == 1
    assert sent > 10
    a.start()
    wait_for(
        lambda: a.query("peer", "ls")[0]["queued"] == 0 and is_connected(a, b), 20, "the rest to be stored"
    )
    assert [text.split()[0] for text in texts(b)][:sent] == [str(number) for number in range(sent)]


def test_msgctl_says_that_it_is_unknown(nodes: Nodes, tmp_path: Path) -> None:
    """Exit 1 and a sentence, never a refusal."""
    a, _ = nodes.pair()
    with injected(log_process(a), tmp_path / "trace", "fdatasync:error=EIO:when=1"):
        done = a.ctl("send", "b", "--wait=queued", "caught")
        assert a.wait_exit() == EX_IOERR
    assert done.returncode == 1, done
    assert "unknown whether the message was kept" in done.stderr.lower()


def test_no_receipt_leaves_when_the_receiver_cannot_sync(nodes: Nodes, tmp_path: Path) -> None:
    """The sender keeps the message queued; once a person has started the receiver again it is stored."""
    a, b = nodes.pair()
    with injected(log_process(b), tmp_path / "trace", "fdatasync:error=EIO:when=1"):
        done = a.ctl("send", "b", "--wait=stored", "--timeout=3", "caught")
        assert b.wait_exit() == EX_IOERR
    assert done.returncode == 5, done
    assert [m["state"] for m in a.query("log")] == ["queued"]
    b.start()
    wait_for(lambda: [m["state"] for m in a.query("log")] == ["stored"], 20, "the message to be stored")
    assert texts(b) == ["caught"]


def test_a_lost_receipt_is_made_good_by_the_next_hello(nodes: Nodes, tmp_path: Path) -> None:
    """The log process dies before it hears the receipt; the next hello says that the peer has it all."""
    a, b = nodes.pair()
    log = log_process(a)
    with (
        injected(log_process(b), tmp_path / "trace", "fdatasync:delay_enter=500000:when=1"),
        a.client() as client,
    ):
        client.send("b", "its receipt is lost")
        os.kill(log, signal.SIGSTOP)
        wait_for(lambda: texts(b) == ["its receipt is lost"], SOON_S, "the message to arrive")
        os.kill(log, signal.SIGKILL)
    wait_for(lambda: log_process(a) != log, SOON_S, "another log process")
    wait_for(lambda: is_connected(a, b), 20, "the link")
    wait_for(lambda: [m["state"] for m in a.query("log")] == ["stored"], SOON_S, "the message to be stored")
    assert texts(b) == ["its receipt is lost"]


# --- a full disk --------------------------------------------------------------------------------------------


def fill_up(node: Node, peer: str) -> None:
    """Send until the disk takes no more; every refusal says so."""
    with node.client() as client:
        for number in range(400):
            try:
                client.send(peer, f"filling {number} " + "x" * 50_000)
            except StorageRefused:
                return
    raise AssertionError("the disk is not full")


def test_a_full_disk_refuses_messages_and_nothing_else(nodes: Nodes) -> None:
    """Nothing of what was refused is kept; reads, receipts and endings go on; no process is restarted."""
    a, b, c = nodes.make("a"), nodes.start("b"), nodes.start("c")
    a.start(within=own_disk(a, "6m"))
    pair(a, b)
    pair(a, c)
    b.stop()
    with a.client() as client:
        waiting = client.send("b", "waits for its peer")["id"]
        doomed = client.send("b", "will be cancelled")["id"]
    processes = {role: pids for role, pids in a.pids().items() if role in ("supervisor", "log", "index")}
    ballast = Ballast(a)
    ballast.fill()
    fill_up(a, "c")
    with a.client() as client:
        refused = "01890000-0000-7000-8000-000000000001"
        with pytest.raises(StorageRefused):
            client.send("c", "refused", id=refused)
        with pytest.raises(UnknownMessage):
            client.call("Show", id=refused)
    done = a.ctl("send", "c", "refused, too")
    assert done.returncode == STORAGE
    assert "no space" in done.stderr.lower()
    assert a.ctl("log", "-n", "1").returncode == 0
    assert a.ctl("cancel", doomed).returncode == 0
    b.start()
    wait_for(lambda: state_of(a, waiting) == "stored", 20, "the receipt for what was queued before")
    assert state_of(a, doomed) == "cancelled"
    freed_s = ballast.drop()
    with a.client() as client:
        assert client.send("c", "refused", id=refused, wait="stored", timeout_s=5)["state"] == "stored"
    assert time.monotonic() - freed_s < 5
    assert {role: a.pids().get(role) for role in processes} == processes
    assert event_names(a).count("log.full") == event_names(a).count("log.recovered") == 1


def state_of(node: Node, id: str) -> str:
    return str(node.query("show", id)[0]["state"])


def test_a_full_receiver_lets_messages_wait_with_their_sender(nodes: Nodes) -> None:
    """They are stored, in order, once, within 5 s after there is space again; the link stands all along."""
    a, b = nodes.start("a"), nodes.make("b")
    b.start(within=own_disk(b, "6m"))
    pair(a, b)
    log, ballast = log_process(b), Ballast(b)
    ballast.fill()
    bodies = [f"{number} ".encode() + b"x" * 40_000 for number in range(100)]
    with a.client() as client:
        states = {answer["state"] for _, answer in send_many(client, "b", bodies, wait="stored", timeout_s=2)}
    assert states >= {"queued"}
    opened = event_names(b).count("link.opened")
    time_to_fill_s = 3.0  # long enough for refused batches to be offered more than once
    time.sleep(time_to_fill_s)
    freed_s = ballast.drop()
    wait_for(
        lambda: all(m["state"] == "stored" for m in a.query("log", "--direction", "out")), 20, "the rest"
    )
    assert time.monotonic() - freed_s < 5 + 1
    assert [m.split()[0] for m in texts(b)] == [str(number) for number in range(100)]
    assert log_process(b) == log
    assert event_names(b).count("link.opened") == opened


def test_a_refused_write_leaves_nothing(nodes: Nodes, tmp_path: Path) -> None:
    """ENOSPC in the middle of an append: refused, and neither this process nor the next finds any of it."""
    a, b = nodes.pair()
    assert a.ctl("send", "b", "--wait=stored", "before").returncode == 0
    log = log_process(a)
    with (
        injected(log, tmp_path / "trace", "pwritev,pwritev2:error=ENOSPC:when=1") as trace,
        a.client() as client,
    ):
        id = "01890000-0000-7000-8000-000000000002"
        with pytest.raises(StorageRefused):
            client.send("b", "first refused, then sent again", id=id)
        assert trace.injected == 1
        with pytest.raises(UnknownMessage):
            client.call("Show", id=id)
        assert (
            client.send("b", "first refused, then sent again", id=id, wait="stored", timeout_s=15)["state"]
            == "stored"
        )
    assert log_process(a) == log
    a.kill9()
    a.start()
    wait_for(lambda: is_connected(a, b), 20, "the link")
    assert a.ctl("send", "b", "--wait=stored", "after").returncode == 0
    assert texts(a) == texts(b) == ["before", "first refused, then sent again", "after"]
    assert [node.stop() for node in (a, b)] == [0, 0]
    assert batches(a, Kind.OUT, Kind.RELEASED) == batches(b, Kind.IN)


# --- at the start -------------------------------------------------------------------------------------------


def files_of(node: Node) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((node.state / "log").iterdir())}


def with_messages(nodes: Nodes, settings: str = "", count: int = 5, size: int = 100) -> Node:
    """A node with messages for a peer that is away, each in an append of its own; stopped."""
    a, b = nodes.start("a", settings), nodes.start("b")
    a.trust(b)
    b.stop()
    with a.client() as client:
        for number in range(count):
            client.send("b", f"message {number} " + "x" * size)
    a.stop()
    return a


def newest(node: Node) -> Path:
    return max((node.state / "log").glob("*.log"))


def test_a_read_only_disk_is_told_at_the_start(nodes: Nodes) -> None:
    """Exit 78 and one sentence."""
    a = nodes.start("a")
    a.stop()
    told = sentence(fails_to_start(a, within=read_only(a)))
    assert str(a.state) in told
    assert "read-only" in told.lower()


def test_a_full_disk_is_told_at_the_start(nodes: Nodes) -> None:
    """Exit 78 and one sentence, whichever file finds no room first."""
    for size in ("4k", "8k", "16k", "64k", "200k"):
        a = nodes.make(f"a{size}")
        told = sentence(fails_to_start(a, within=own_disk(a, size)))
        assert "space" in told.lower(), told


def test_damage_in_the_middle_stops_the_start(nodes: Nodes) -> None:
    """Exit 78 naming segment and log offset; nothing on the disk is changed."""
    a = with_messages(nodes)
    segment = newest(a)
    flip(segment, segment.read_bytes().index(b"message 1"))
    before = files_of(a)
    told = sentence(fails_to_start(a))
    assert str(segment) in told
    assert re.search(r"log offset \d+", told)
    assert files_of(a) == before


def test_a_torn_tail_is_set_aside(nodes: Nodes) -> None:
    """Kept in a .broken file, cut, told; all before it is there."""
    a = with_messages(nodes)
    segment, end = newest(a), log_end(str(a.state / "log"))
    torn = os.urandom(300) + b"!"
    with segment.open("r+b") as file:
        file.seek(end - int(segment.stem))
        file.write(torn)
    a.start()
    assert [path.read_bytes() for path in (a.state / "log").glob("*.broken")] == [torn]
    (event,) = [event for event in a.events() if event["event"] == "log.repaired"]
    assert event["cut_bytes"] == len(torn)
    assert [text.split()[1] for text in texts(a)] == ["0", "1", "2", "3", "4"]
    assert a.ctl("send", "b", "--wait=queued", "goes on").returncode == 0


# --- damage while it runs -----------------------------------------------------------------------------------


def test_damage_in_an_older_segment_costs_only_what_is_damaged(nodes: Nodes) -> None:
    """`msgctl log` shows the rest and ends with 8; an event names the place."""
    a, _ = nodes.pair(settings=SMALL_SEGMENTS)
    with a.client() as client:
        for number in range(60):
            client.send("b", f"message {number} " + "x" * 100_000, wait="stored", timeout_s=10)
    first = segment_path(str(a.state / "log"), 0)
    flip(Path(first), Path(first).read_bytes().index(b"message 7 "))
    done = a.ctl("-o", "json", "log", "--direction", "out")
    assert done.returncode == STORAGE, done.stderr
    shown = [json.loads(line)["text"].split()[1] for line in done.stdout.splitlines()]
    assert shown == [str(number) for number in range(60) if number != 7]
    assert "Traceback" not in done.stderr
    assert [e["segment"] for e in a.events() if e["event"] == "log.damage_found"][:1] == [first]
    assert a.ctl("send", "b", "--wait=stored", "goes on").returncode == 0


def test_a_damaged_message_that_waits_harms_no_other_peer(nodes: Nodes) -> None:
    """It stays queued with all behind it; the log process lives, and others get their messages."""
    a, b, c = (nodes.start(name) for name in "abc")
    pair(a, b)
    pair(a, c)
    b.stop()
    with a.client() as client:
        for number in range(3):
            client.send("b", f"waiting {number}")
    log, segment = log_process(a), newest(a)
    flip(segment, segment.read_bytes().index(b"waiting 0"))
    b.start()
    wait_for(lambda: "log.damage_found" in event_names(a), 20, "the event")
    wait_for(lambda: is_connected(a, b), 20, "the link")
    assert a.ctl("send", "c", "--wait=stored", "for another").returncode == 0
    assert a.ctl("send", "b", "--wait=queued", "behind it").returncode == 0
    assert log_process(a) == log
    assert texts(b) == []


# --- a big log ----------------------------------------------------------------------------------------------

BUILDER = """
import os, sys, time
from msgd.config import load
from msgd.opening import open_books
from msgd.log.page import SharedPage
from msgd.log.record import Kind
from msgd.model import uuid7
from msgd.wire.codec import Message, encode
path, size = sys.argv[1], int(sys.argv[2])
books = open_books(load(path, os.environ, os.geteuid()), SharedPage())
(peer,) = books.delivery.peers.values()
body = os.urandom(50).hex().encode()
number = 0
while True:
    now_ns = time.time_ns()
    ids = [uuid7(now_ns // 1_000_000, (number + n).to_bytes(10, "big")) for n in range(1500)]
    number += len(ids)
    payload = b"".join(encode(Message(i, 0, now_ns, "root", {}, body)) for i in ids)
    offset = books.add(Kind.HELD, peer=peer.number, direction=1, count=len(ids), payload=payload)
    books.delivery.held(peer, offset, books.store.end, len(ids), len(payload), 0)
    books.commit()
    segment = books.store.committed - books.store.segment_base
    if books.store.committed > size and segment > 60 << 20:
        print(number, flush=True)
    elif books.store.needs_roll:
        books.store.roll(books.delivery.checkpoint(books.recent.newest_ms()))
        books.page.committed = books.store.committed
"""


def build_log(node: Node, size: int) -> int:
    """Fill a stopped node's log with messages that wait, kill -9 in the middle of that; how many it holds."""
    builder = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(node.config), str(size)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert builder.stdout is not None
    try:
        count = int(builder.stdout.readline())
    finally:
        builder.kill()
        builder.wait(10)
        builder.stdout.close()
    return count


def as_installed(directory: Path) -> dict[str, str]:
    """An environment in which msgd is compiled once, as an installation is, wherever its sources lie.

    Else each start compiles them where nothing may be written beside them: a third of a second more.
    """
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(directory / "compiled")}


def ready_within(node: Node, environment: dict[str, str]) -> float:
    """Seconds from the start of the process to the first answer on its control socket."""
    began_s = time.monotonic()
    node.start(environment=environment, wait=False)
    while time.monotonic() - began_s < 60:
        assert node.is_running, node.said()
        try:
            with Client(str(node.socket)) as client:
                client.call("org.varlink.service.GetInfo")
                return time.monotonic() - began_s
        except Unreachable:
            time.sleep(0.002)
    raise AssertionError("it never answered")


def start_after_kill(nodes: Nodes, size: int) -> float:
    """The best of up to three starts on the same log: other work on the machine slows a single one."""
    compiled = as_installed(nodes.directory)
    a, b = nodes.make("a").start(environment=compiled), nodes.start("b")
    a.trust(b)
    b.stop()
    a.stop()
    count = build_log(a, size)
    segment, kept = newest(a), a.directory / "newest"
    shutil.copyfile(segment, kept)
    found: list[float] = []
    while len(found) < 3 and min(found, default=2.0) > READY_WITHIN_S:
        if found:
            a.kill9()
            put_back(a, segment, kept)
        found.append(ready_within(a, compiled))
    in_log_s = [event["seconds"] for event in a.events() if event["event"] == "log.opened"][1:]
    total = sum(path.stat().st_size for path in (a.state / "log").glob("*.log"))
    print(f"\nready {found} s after kill -9 with a log of {total >> 20} MiB; in the log {in_log_s} s of it")
    assert a.query("peer", "ls")[0]["queued"] >= count
    return min(found)


def put_back(node: Node, segment: Path, kept: Path) -> None:
    """The log as the kill left it, before a start repaired it."""
    for path in [p for p in (node.state / "log").iterdir() if p.name > segment.name]:
        path.unlink()
    shutil.copyfile(kept, segment)
    for path in node.state.glob("index.sqlite*"):
        path.unlink()


def test_it_is_ready_soon_after_kill_9(nodes: Nodes) -> None:
    """Within a second, with 128 MiB of log, the newest segment nearly full of small messages."""
    assert start_after_kill(nodes, 128 << 20) <= READY_WITHIN_S


@pytest.mark.long
@pytest.mark.timeout(600)
def test_it_is_ready_within_a_second_with_a_gibibyte(nodes: Nodes) -> None:
    """The same with 1 GiB: a start reads one segment, however long the log."""
    assert start_after_kill(nodes, 1 << 30) <= READY_WITHIN_S


# --- the service manager ------------------------------------------------------------------------------------


class Manager(threading.Thread):
    """systemd's end of NOTIFY_SOCKET: every datagram with its time."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.heard: list[tuple[float, str]] = []

    def run(self) -> None:
        while data := self.sock.recv(4096):
            self.heard.append((time.monotonic(), data.decode()))

    def since(self, began_s: float, word: str) -> int:
        return sum(1 for at_s, text in list(self.heard) if at_s >= began_s and word in text.splitlines())

    def has(self, start: str) -> bool:
        return any(line.startswith(start) for _, text in list(self.heard) for line in text.splitlines())


@contextmanager
def manager(path: Path) -> Iterator[Manager]:
    made = Manager(path)
    made.start()
    try:
        yield made
    finally:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", str(path))
        made.join(5)
        made.sock.close()


WATCHDOG_S = 1.5


def watched(node: Node, path: Path) -> Node:
    return node.start(environment={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))})


def test_systemd_is_told_what_happens(nodes: Nodes, tmp_path: Path) -> None:
    """READY with a STATUS, RELOADING and READY again, WATCHDOG all the time, STOPPING."""
    path = tmp_path / "notify"
    with manager(path) as systemd:
        a = watched(nodes.make("a"), path)
        wait_for(lambda: systemd.since(0, "READY=1") == 1, SOON_S, "READY=1")
        assert systemd.has("STATUS=0 of 0 peers connected, 0 messages queued")
        wait_for(lambda: systemd.since(0, "WATCHDOG=1") >= 3, SOON_S, "the watchdog to be fed")
        os.kill(a.pid, signal.SIGHUP)
        wait_for(lambda: systemd.since(0, "READY=1") == 2, SOON_S, "the end of the reload")
        assert systemd.since(0, "RELOADING=1") == 1
        assert systemd.has("MONOTONIC_USEC=")
        assert a.stop() == 0
        wait_for(lambda: systemd.since(0, "STOPPING=1") == 1, SOON_S, "STOPPING=1")


def test_a_hung_log_process_starves_the_watchdog(nodes: Nodes, tmp_path: Path) -> None:
    """Stopped: no WATCHDOG=1 for longer than systemd waits, and an event; going on: fed again."""
    path = tmp_path / "notify"
    with manager(path) as systemd:
        a = watched(nodes.make("a"), path)
        wait_for(lambda: systemd.since(0, "WATCHDOG=1") >= 2, SOON_S, "the watchdog to be fed")
        log = log_process(a)
        os.kill(log, signal.SIGSTOP)
        try:
            wait_for(lambda: "watchdog.withheld" in event_names(a), SOON_S, "the event")
            quiet_s = time.monotonic()
            time.sleep(WATCHDOG_S)  # what systemd waits: silence has no event to await
            assert systemd.since(quiet_s, "WATCHDOG=1") == 0
        finally:
            os.kill(log, signal.SIGCONT)
        going_s = time.monotonic()
        wait_for(lambda: systemd.since(going_s, "WATCHDOG=1") >= 2, SOON_S, "the watchdog to be fed again")
        assert a.ctl("status").returncode == 0


def test_a_stalled_disk_does_not_starve_the_watchdog(nodes: Nodes, tmp_path: Path) -> None:
    """One fdatasync takes 8 s: WATCHDOG=1 goes on, sync.stalled and sync.resumed are told, none is lost."""
    path = tmp_path / "notify"
    with manager(path) as systemd:
        a, b = nodes.make("a"), nodes.start("b")
        watched(a, path)
        pair(a, b)
        with injected(log_process(a), tmp_path / "trace", "fdatasync:delay_exit=8000000:when=1"):
            began_s = time.monotonic()
            done = a.ctl("send", "b", "--wait=stored", "--timeout=20", "slow")
            assert done.returncode == 0, done
            lasted_s = time.monotonic() - began_s
        assert lasted_s > 7
        fed = systemd.since(began_s, "WATCHDOG=1")
        assert fed >= lasted_s / WATCHDOG_S, f"fed {fed} times in {lasted_s:.1f} s"
        wait_for(lambda: {"sync.stalled", "sync.resumed"} <= set(event_names(a)), SOON_S, "both events")
        assert systemd.has("STATUS=waiting for the disk since")
        assert "watchdog.withheld" not in event_names(a)


# --- journald -----------------------------------------------------------------------------------------------


def test_a_stopped_journald_costs_events_and_nothing_else(nodes: Nodes, tmp_path: Path) -> None:
    """Nobody reads the journal's socket: sends go on as fast; what was dropped is counted and told later."""
    require("root", "namespaces")
    journal = tmp_path / "journal"
    journal.mkdir()
    a, b = nodes.make("a"), nodes.start("b")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(journal / "socket"))
        a.output.touch()
        stream = a.output.stat()
        hidden = unshared(
            "mount -t tmpfs tmpfs /run",
            "mkdir -p /run/systemd/journal",
            f"mount --bind '{journal}' /run/systemd/journal",
        )
        a.start(
            'log_level = "debug"',
            environment={"JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}"},
            within=hidden,
        )
        pair(a, b)
        began_s = time.monotonic()
        for number in range(300):  # each client is a process with events of its own
            with a.client() as client:
                assert client.send("b", f"message {number}", wait="stored", timeout_s=10)["state"] == "stored"
        seconds = time.monotonic() - began_s
        assert seconds < 60
        assert a.said() == ""
        heard = read_all(journald)
        assert not any(b"EVENT=events.dropped" in datagram for datagram in heard)
        os.kill(a.pid, signal.SIGHUP)  # something to tell
        wait_for(lambda: heard_dropped(journald), SOON_S, "the count of what was dropped")
    print(f"\n300 clients and messages in {seconds:.1f} s, a journal that nobody reads; it took {len(heard)}")


def read_all(sock: socket.socket) -> list[bytes]:
    """What waits in a datagram socket."""
    found = []
    try:
        while True:
            found.append(sock.recv(65536, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return found


def heard_dropped(sock: socket.socket) -> bool:
    counts = [re.search(rb"\nCOUNT=(\d+)\n", d) for d in read_all(sock) if b"EVENT=events.dropped" in d]
    return any(count and int(count[1]) > 0 for count in counts)
