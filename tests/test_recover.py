"""`msgctl recover`: a log that was restored from an old copy, or lost, gets its half of a pair back."""

import shutil
import subprocess
import sys

import pytest

from msgd.log.record import Kind
from tests.nodes import Node, Nodes, is_connected, pair, retried, wait_for
from tests.require import REPOSITORY
from tests.test_verify import fill, findings, of_kind

pytestmark = pytest.mark.slow


def texts(node: Node, other: Node) -> list[str]:
    """All that both said to each other, as this node's log has it."""
    return sorted(row["text"] for row in node.query("log", "--peer", other.name))


def linked(a: Node, b: Node) -> None:
    wait_for(lambda: is_connected(a, b) or retried(a, b), 20, f"{a.name} to reach {b.name}")
    wait_for(lambda: is_connected(b, a), 20, f"{b.name} to reach {a.name}")


def recovered(node: Node, other: Node) -> dict[str, object]:
    result: dict[str, object] = node.query("recover", "--from", other.name)[-1]
    return result


def check_same(a: Node, b: Node, expected: list[str]) -> None:
    """Both logs show everything once, and verify finds nothing from either side."""
    for node, other in ((a, b), (b, a)):
        assert expected == texts(node, other)
        code, found, result = findings(node, other.name)
        assert (0, "same", []) == (code, result["state"], found)
        assert 0 == findings(node)[0]


@pytest.mark.parametrize("which", [0, 1])
def test_restored_copy_gets_everything_back(nodes: Nodes, which: int) -> None:
    """Whoever of both was set back: what it sent and received since comes back, once, and is marked."""
    both = nodes.pair()
    old, other = both[which], both[1 - which]
    fill(old, other, 5)
    old.stop()
    shutil.copytree(old.state, old.directory / "copy")
    old.start()
    linked(old, other)
    assert 0 == old.ctl("send", other.name, "--id", "once", "--wait=stored", "with a key").returncode
    fill(old, other, 40)
    expected = texts(other, old)
    old.stop()
    shutil.rmtree(old.state)
    shutil.move(old.directory / "copy", old.state)
    old.start()
    linked(old, other)
    fill(old, other, 2)
    code, found, _ = findings(old, other.name)
    assert 0 == code, "an epoch names what is lost"
    assert [("lost", "here", "out", 41)] == [
        (f["kind"], f["where"], f["direction"], int(f["last_seq"]) - int(f["first_seq"]) + 1)
        for f in found
        if f["kind"] == "lost"
    ]
    result = recovered(old, other)
    assert 41 == result["sent"]
    expected = sorted([*expected, *(f"{n.name} {number}" for n in both for number in range(2))])
    check_same(old, other, expected)
    assert (0, 0) == (recovered(old, other)["sent"], recovered(old, other)["received"]), "again: nothing"
    again = old.query("send", other.name, "--id", "once", "with a key")[-1]
    assert "stored" == again["state"]
    check_same(old, other, expected)
    assert "recovered" in [row["headers"]["record"] for row in old.query("log", "--kind", "control")]
    assert [other.name] == [e["peer"] for e in old.events() if e["event"] == "peer.recovered"]
    row = next(row for row in old.query("log", "--direction", "out") if row["text"] == "with a key")
    assert ("stored", True) == (row["state"], row["receipt_at"] is not None)


def test_lost_log_comes_back_from_the_peer(nodes: Nodes) -> None:
    """Nothing but the key is left, and the peer is added again: both directions, older epochs, too."""
    a, b = nodes.pair()
    fill(a, b, 5)
    expected = texts(b, a)
    a.stop()
    shutil.rmtree(a.state / "log")
    (a.state / "index.sqlite").unlink(missing_ok=True)
    a.start()
    pair(a, b)
    result = recovered(a, b)
    got = int(str(result["sent"])) + int(str(result["received"]))
    assert (len(expected), 0) == (got, result["waiting"])
    a.restart()
    linked(a, b)
    fill(a, b, 3)
    check_same(a, b, texts(b, a))


def test_both_lost_parts_come_back_from_each_other(nodes: Nodes) -> None:
    """What was recovered can be given back, too."""
    a, b = nodes.pair()
    fill(a, b, 6)
    expected = texts(a, b)
    for lost, other in ((a, b), (b, a)):
        lost.stop()
        shutil.rmtree(lost.state / "log")
        lost.start()
        pair(lost, other)
        recovered(lost, other)
        check_same(a, b, expected)


def test_killed_recovery_is_taken_up(nodes: Nodes) -> None:
    """kill -9 in the middle: what is on disk stays, the next run brings the rest, nothing comes twice."""
    a, b = nodes.pair()
    lines = "".join(f"{number} {'x' * 900}\n" for number in range(6_000))
    done = a.ctl("send", "b", "--lines", "--wait=stored", "--timeout", "100s", stdin=lines, within_s=110)
    assert done.returncode == 0, done.stderr
    a.stop()
    shutil.rmtree(a.state / "log")
    a.start()
    pair(a, b)
    command = [sys.executable, "-m", "msgctl", "--socket", str(a.socket), "recover", "--from", "b"]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL):
        wait_for(lambda: of_kind(a, Kind.RECOVERED), 20, "the first of what was recovered")
        a.kill9()
    a.start()
    linked(a, b)
    recovered(a, b)
    assert 6_000 == len(a.query("log", "--direction", "out"))
    code, found, result = findings(a, "b")
    assert (0, [], 6_000) == (code, found, result["sent"])
