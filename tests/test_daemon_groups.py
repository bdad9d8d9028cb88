"""Groups in real daemons: one message, one id, a row for each member, and none of them twice."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from msgctl.client import new_id
from msgd.errors import MsgdError, NotTrusted, UnknownPeer, UsageError
from msgd.trust.identity import identity_text
from tests.nodes import Node, Nodes, is_connected, pair, retried, wait_for
from tests.require import REPOSITORY

pytestmark = pytest.mark.slow

GROUPS = """
[group.web]
peers = ["a", "b", "c", "b"]
[group.alone]
peers = ["a"]
[group.wrong]
peers = ["b", "nobody"]
"""


def send_group(node: Node, group: str, text: str, **more: Any) -> list[dict[str, Any]]:
    """The answers to a SendGroup with `more`."""
    message = {"text": text, "headers": more.pop("headers", None)}
    if "key" not in more:
        message["id"] = more.pop("id", None) or new_id()
    with node.client() as client:
        given = {name: value for name, value in message.items() if value is not None}
        return list(client.stream("SendGroup", group=group, message=given, **more))


def last(answers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last receipt of each member."""
    return {receipt["peer"]: receipt for answer in answers for receipt in answer["receipts"]}


def states(answers: list[dict[str, Any]]) -> dict[str, str]:
    return {peer: receipt["state"] for peer, receipt in last(answers).items()}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node, Node]]:
    """A node with a group, and its two members; each test leaves them connected."""
    nodes = Nodes(tmp_path_factory.mktemp("three"))
    try:
        a = nodes.make("a").start(GROUPS, wait=False)
        b = nodes.make("b").start(wait=False)
        c = nodes.start("c")
        a.wait_ready()
        b.wait_ready()
        pair(a, b)
        pair(a, c)
        yield a, b, c
    finally:
        nodes.end()


AWAY = [f"m{n}" for n in range(8)]


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that is alone, with a group of eight peers that are away."""
    nodes = Nodes(tmp_path_factory.mktemp("away"))
    try:
        limits = "[limits]\nsegment_bytes = 2097152\n"
        a = nodes.start("a", f"{limits}[group.web]\npeers = {json.dumps(AWAY)}\n")
        add_peers(a, AWAY)
        yield a
    finally:
        nodes.end()


def add_peers(node: Node, names: list[str]) -> None:
    with node.client() as client:
        for name in names:
            client.call("PeerAdd", name=name, key=identity_text(os.urandom(32)))


def rows(node: Node, id: str) -> Counter[str]:
    """How many rows of this message each peer has."""
    return Counter(row["peer"] for row in node.query("log", "--id", id, "--direction", "out"))


def test_a_message_to_a_group_has_one_id_and_a_row_for_each_member(three: tuple[Node, Node, Node]) -> None:
    a, b, c = three
    answers = send_group(a, "@web", "hola", wait="stored", timeout_ms=20_000)
    assert {"b": "stored", "c": "stored"} == states(answers)
    assert (2, 2) == (answers[-1]["reached"], answers[-1]["wanted"])
    (id,) = {receipt["id"] for receipt in last(answers).values()}
    for member in (b, c):
        (row,) = member.query("log", "--id", id)
        assert ("hola", {"group": "web"}, "received") == (row["text"], row["headers"], row["state"])
    assert Counter(b=1, c=1) == rows(a, id)
    shown = a.query("show", id)
    assert [("b", "stored", "hola"), ("c", "stored", "hola")] == [
        (row["peer"], row["state"], row["text"]) for row in shown
    ]
    assert ["b", "c"] == [life["message"]["peer"] for life in a.query("why", id[:13])]
    assert "next:" in a.ctl("why", id).stdout


def test_a_member_that_was_away_gets_it_when_it_returns(three: tuple[Node, Node, Node]) -> None:
    a, _, c = three
    c.stop()
    wait_for(lambda: not is_connected(a, c), 10, "the link to c to end")
    in_time = a.ctl("send", "@web", "to all", "--wait", "stored", "--timeout", "0.3")
    assert 5 == in_time.returncode, in_time.stderr
    assert ["stored b", "queued c"] == sorted(
        (" ".join(line.split()[1:3]) for line in in_time.stdout.splitlines()), reverse=True
    )
    enough = a.ctl("send", "@web", "enough", "--wait", "stored", "--quorum", "1", "-o", "json")
    assert 0 == enough.returncode
    assert {"b": "stored", "c": "queued"} == {
        r["peer"]: r["state"] for r in map(json.loads, enough.stdout.splitlines())
    }
    assert 0 == a.ctl("send", "@web", "no level is asked for", "--timeout", "0.1").returncode
    id = in_time.stdout.split()[0]
    cancelled = a.query("cancel", json.loads(enough.stdout.splitlines()[0])["id"])
    assert {"b": "stored", "c": "cancelled"} == {r["peer"]: r["state"] for r in cancelled}
    lost = a.ctl("send", "@web", "late", "--quorum", "2", "--ttl", "0.2", "--timeout", "20")
    assert 6 == lost.returncode, "one has expired, so the quorum cannot be reached any more"
    c.start()
    wait_for(
        lambda: [row["state"] for row in a.query("log", "--id", id)] == ["stored"] * 2, 20, "c's receipt"
    )
    wait_for(lambda: len(c.query("log", "--state", "received", "-n", "2")) == 2, 20, "both")
    assert ["to all", "no level is asked for"] == [row["text"] for row in c.query("log", "-n", "2")]


def test_what_cannot_be_sent_to_a_group_is_refused_as_a_whole(three: tuple[Node, Node, Node]) -> None:
    a, _, c = three
    before = a.query("log")
    for group, refusal, says in (
        ("nothing", UnknownPeer, r"no group @nothing \(groups: @web, @alone, @wrong, @all\)"),
        ("alone", UnknownPeer, "no members besides this node"),
        ("wrong", UnknownPeer, "names nobody, which is no peer"),
    ):
        with pytest.raises(refusal, match=says):
            send_group(a, group, "hola")
    assert 7 == a.ctl("send", "@wrong", "hola").returncode
    for more in (
        {"wait": "often"},
        {"quorum": 3, "wait": "stored"},
        {"quorum": 1},
        {"headers": {"group": "x"}},
    ):
        with pytest.raises(UsageError):
            send_group(a, "web", "hola", **more)
    assert 2 == a.ctl("send", "@web", "--lines").returncode
    assert 2 == a.ctl("send", "@web", "--quorum", "none", "hola").returncode
    a.ctl("peer", "block", "c")
    with pytest.raises(NotTrusted, match="c of group @web is blocked"):
        send_group(a, "web", "hola")
    assert before == a.query("log")
    assert {"b": "stored"} == states(send_group(a, "all", "to who is not blocked", wait="stored"))
    listed = {group["name"]: [m["peer"] for m in group["members"]] for group in a.query("group", "ls")}
    assert {"web": ["b", "c"], "alone": [], "wrong": ["b", "nobody"], "all": ["b"]} == listed
    table = [line.split() for line in a.ctl("group").stdout.splitlines()]
    assert {"@web": "blocked", "@wrong": "unknown"} == {
        line[0]: line[2] for line in table if line[1] in ("c", "nobody") and line[0] != "@alone"
    }
    a.ctl("peer", "unblock", "c")
    wait_for(lambda: is_connected(a, c) or retried(a, c), 20, "c to be back")


def test_a_call_that_is_repeated_completes_and_doubles_nothing(three: tuple[Node, Node, Node]) -> None:
    """The last one with these nodes: it leaves another group behind."""
    a, b, c = three
    first = last(send_group(a, "web", "hola", key="nightly", wait="stored"))
    a.restart(GROUPS.replace('"a", "b", "c", "b"', '"b", "c", "d"'))
    add_peers(a, ["d"])
    again = last(send_group(a, "web", "hola", key="nightly", wait="queued"))
    assert {"b": True, "c": True, "d": False} == {peer: r["duplicate"] for peer, r in again.items()}
    assert {"b": "stored", "c": "stored", "d": "queued"} == {peer: r["state"] for peer, r in again.items()}
    id = first["b"]["id"]
    assert Counter(b=1, c=1, d=1) == rows(a, id)
    assert 1 == len({row["sent_at_ns"] for row in a.query("log", "--id", id)}), "the same bytes for all"
    with pytest.raises(UsageError, match="another message"):
        send_group(a, "web", "adios", key="nightly")
    assert [1, 1] == [len(member.query("log", "--id", id)) for member in (b, c)]


def test_a_reload_changes_groups(away: Node) -> None:
    with away.config.open("a") as config:
        config.write('[group.late]\npeers = ["m1"]\n')
    assert 0 == away.ctl("reload").returncode
    assert {"m1": "queued"} == states(send_group(away, "late", "hola"))


@pytest.mark.parametrize("members", [50, pytest.param(400, marks=pytest.mark.long)])
def test_many_members_are_one_call(nodes: Nodes, members: int) -> None:
    a = nodes.start("a")
    names = [f"m{n}" for n in range(members)]
    add_peers(a, names)
    began_s = time.monotonic()
    answers = send_group(a, "all", "hola", key="once", wait="queued")
    print(f"\n{members} members: {time.monotonic() - began_s:.3f} s")
    assert dict.fromkeys(names, "queued") == states(answers)
    id = answers[0]["receipts"][0]["id"]
    a.kill9()
    a.start()
    began_s = time.monotonic()
    again = last(send_group(a, "all", "hola", key="once", wait="queued"))
    print(f"again: {time.monotonic() - began_s:.3f} s")
    assert all(receipt["duplicate"] for receipt in again.values())
    assert Counter(dict.fromkeys(names, 1)) == rows(a, id)
    assert members == len(a.query("cancel", id))


def test_a_call_whose_messages_are_not_kept_any_more_is_a_new_one(away: Node) -> None:
    """Memory still knows the id; the log has nothing of it."""
    id = last(send_group(away, "web", "hola", key="once"))["m0"]["id"]
    with away.client() as client:
        for each in {row["id"] for row in away.query("queue")}:
            client.call("Cancel", id=each)
        for _ in range(4):
            client.call("Cancel", id=client.send("m0", bytes(900_000))["id"])
    away.query("vacuum", "--size", "1")
    assert Counter() == rows(away, id)
    for is_duplicate in (False, True):
        again = last(send_group(away, "web", "hola", key="once"))
        assert [(id, is_duplicate)] * 8 == [(each["id"], each["duplicate"]) for each in again.values()]
    assert Counter(dict.fromkeys(AWAY, 1)) == rows(away, id)


CONTROL = f"control uid {os.getuid()}"


def killed_often(node: Node, body: Path, kills: int, seed: int) -> None:
    """Send to the group while msgd's processes are killed: every member has it once, all the same bytes."""
    random_ = random.Random(seed)
    for n in range(kills):
        body.write_bytes(b"%d" % n + bytes(200_000))  # so much that each member needs an append of its own
        words = ["send", "@web", "-f", str(body), "--wait=queued", "--timeout", "30", "-o", "json"]
        sender = subprocess.Popen(
            [sys.executable, "-m", "msgctl", "--socket", str(node.socket), *words],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
        )
        role = random_.choice(("log", "log", CONTROL, "supervisor"))
        wait_for(partial(is_begun, node, sender), 10, "msgctl to be connected")
        time.sleep(random_.uniform(0, 0.03))  # of which the appends take about two thirds
        kill(node, role)
        out, _ = sender.communicate(timeout=60)
        assert 0 == sender.returncode, f"kill {n} of {role}"
        (id,) = {json.loads(line)["id"] for line in out.splitlines()}
        found = node.query("log", "--id", id)
        assert AWAY == sorted(row["peer"] for row in found), f"kill {n} of {role}"
        assert 1 == len({row["sent_at_ns"] for row in found})


def is_begun(node: Node, sender: subprocess.Popen[bytes]) -> bool:
    return CONTROL in node.pids() or sender.poll() is not None


def kill(node: Node, role: str) -> None:
    """With the supervisor all end; msgd is started again by hand, as systemd would."""
    if role == "supervisor":
        node.kill9()
        node.start(node.config.read_text().partition('control.sock"\n')[2])
        return
    for pid in node.pids().get(role, []):
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass


def test_deaths_between_members_lose_and_double_nothing(away: Node, tmp_path: Path) -> None:
    killed_often(away, tmp_path / "body", kills=2, seed=20261122)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_deaths_between_members_lose_and_double_nothing(away: Node, tmp_path: Path) -> None:
    killed_often(away, tmp_path / "body", kills=150, seed=int(time.time()))


def test_an_id_of_a_group_is_not_sent_alone(away: Node) -> None:
    id = new_id()
    send_group(away, "web", "hola", id=id)
    with away.client() as client, pytest.raises(MsgdError, match="another message"):
        client.send("m1", "hola", id=id)
    with away.client() as client:
        alone = client.send("m1", "hola")["id"]
    with pytest.raises(UsageError, match="one peer"):
        send_group(away, "web", "hola", id=alone)
