"""Messages between real daemons: kept while one is away, in order, once; their ends; restored copies."""

import base64
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from msgctl.client import new_id
from msgd.errors import UnknownPeer, UsageError
from msgd.model import MAX_MESSAGE_BYTES
from msgd.trust.identity import identity_text
from msgd.wire import varlink
from msgd.wire.codec import Message, encode
from tests.nodes import Node, Nodes, is_connected, wait_for
from tests.speaker import Speaker, speakers_until

pytestmark = pytest.mark.slow

QUIET = ("-n", "1000000")
MIB = 1 << 20


def texts(node: Node, *words: str) -> list[str]:
    return [row["text"] for row in node.query("log", *QUIET, *words)]


def queue(node: Node, *texts: str, words: Sequence[str] = ()) -> list[str]:
    """Send these to b with --wait=queued; their ids."""
    found = []
    for text in texts:
        (receipt,) = node.query("send", "--wait=queued", *words, "b", text)
        assert "queued" == receipt["state"]
        found.append(receipt["id"])
    return found


def row(node: Node, id: str) -> dict[str, Any]:
    (found,) = node.query("show", id)
    return found


def away(nodes: Nodes) -> tuple[Node, Node]:
    """a, and b that trusts it and has stopped."""
    a, b = nodes.pair()
    assert b.stop() == 0
    wait_for(lambda: not is_connected(a, b), 5, "a to see that b is away")
    return a, b


def private_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


# --- away and back ------------------------------------------------------------------------------------------


def test_messages_wait_on_disk_and_flow_within_a_second_of_the_return(nodes: Nodes) -> None:
    """In order and once, though the sender is restarted, too, one time orderly and one time not."""
    a, b = away(nodes)
    queue(a, "1", "2")
    a.restart()
    queue(a, "3")
    a.kill9()
    a.start()
    queue(a, "4")
    assert ["1", "2", "3", "4"] == texts(a, "--state", "queued")
    b.start()
    wait_for(lambda: len(texts(b)) == 4, 1, "all four, a second after b answers")
    assert ["1", "2", "3", "4"] == texts(b)
    wait_for(lambda: texts(a, "--state", "stored") == ["1", "2", "3", "4"], 5, "the receipts")
    assert [1, 2, 3, 4] == [r["seq"] for r in b.query("log")]


def test_messages_of_both_ends_cross_after_both_were_away(nodes: Nodes) -> None:
    a, b = nodes.pair()
    assert a.stop() == 0
    (receipt,) = b.query("send", "--wait=queued", "a", "from b")
    assert "queued" == receipt["state"]
    assert b.stop() == 0
    a.start()
    queue(a, "from a")
    b.start()
    wait_for(lambda: ["from a"] == texts(b, "--direction", "in"), 5, "what a had queued")
    wait_for(lambda: ["from b"] == texts(a, "--direction", "in"), 5, "what b had queued")


def test_20000_messages_queued_while_away_arrive_in_order_and_once(nodes: Nodes) -> None:
    a, b = away(nodes)
    lines = [f"line {n}" for n in range(20_000)]
    done = a.ctl("send", "-q", "--lines", "--wait=queued", "b", stdin="\n".join(lines) + "\n", within_s=60)
    assert done.returncode == 0, done.stderr
    (peer,) = a.query("peer", "ls")
    assert len(lines) == peer["queued"]
    b.start()
    wait_for(lambda: a.query("peer", "ls")[0]["queued"] == 0, 30, "all to be stored")
    rows = b.query("log", *QUIET)
    assert lines == [r["text"] for r in rows]
    assert list(range(1, len(lines) + 1)) == [r["seq"] for r in rows]
    assert {"stored"} == {r["state"] for r in a.query("log", *QUIET)}


def test_a_receiver_that_is_killed_again_and_again_gets_all_once(nodes: Nodes) -> None:
    a, b = away(nodes)
    lines = [f"line {n}" for n in range(5000)]
    done = a.ctl("send", "-q", "--lines", "--wait=queued", "b", stdin="\n".join(lines) + "\n", within_s=60)
    assert done.returncode == 0, done.stderr
    for _ in range(3):
        b.start()
        wait_for(lambda: is_connected(b, a) or not a.query("queue"), 10, "the link")
        b.kill9()
    b.start()
    wait_for(lambda: a.query("peer", "ls")[0]["queued"] == 0, 30, "all to be stored")
    assert lines == texts(b)


# --- how messages end ---------------------------------------------------------------------------------------


def test_a_message_expires_while_it_waits_and_says_so(nodes: Nodes) -> None:
    """In log, show and queue; what has more time, or none to lose, stays."""
    a, b = away(nodes)
    (short,) = queue(a, "short", words=["--ttl=1s"])
    longer, forever = *queue(a, "longer", words=["--ttl=1h"]), *queue(a, "forever")
    waiting = {r["id"]: r for r in a.query("queue")}
    assert waiting[longer]["expires_at_ns"] > time.time_ns() + 3000 * 10**9
    assert waiting[forever]["expires_at_ns"] is None
    wait_for(lambda: row(a, short)["state"] == "expired", 5, "the end of its time")
    assert "time to live" in row(a, short)["reason"]
    assert ["short"] == texts(a, "--state", "expired")
    assert [longer, forever] == [r["id"] for r in a.query("queue")]
    a.restart()
    b.start()
    wait_for(lambda: ["longer", "forever"] == texts(b), 5, "the others")
    assert "expired" == row(a, short)["state"]


def test_a_message_that_was_released_in_time_does_not_expire(nodes: Nodes) -> None:
    a, b = nodes.pair()
    (receipt,) = a.query("send", "--wait=stored", "--ttl=1s", "b", "hola")
    assert "stored" == receipt["state"]
    assert b.stop() == 0
    (other,) = queue(a, "later", words=["--ttl=6s"])
    due_s = time.monotonic() + 6.2
    b.start()
    wait_for(lambda: row(a, other)["state"] == "stored", 6, "it to be stored")
    wait_for(lambda: time.monotonic() > due_s, 10, "its time to be over")
    assert ["stored", "stored"] == [row(a, id)["state"] for id in (receipt["id"], other)]


def test_a_message_can_be_cancelled_until_it_is_released(nodes: Nodes) -> None:
    a, b = away(nodes)
    first, second, third = queue(a, "one", "two", "three")
    (receipt,) = a.query("cancel", second)
    assert ("cancelled", second) == (receipt["state"], receipt["id"])
    assert 6 == a.ctl("cancel", second).returncode, "a final state does not change"
    assert [first, third] == [r["id"] for r in a.query("queue")]
    b.start()
    wait_for(lambda: row(a, third)["state"] == "stored", 5, "the others to be stored")
    assert ["one", "three"] == texts(b)
    late = a.ctl("cancel", first)
    assert 6 == late.returncode
    assert "stored" in late.stderr
    assert "cancelled" == row(a, second)["state"]
    assert 7 == a.ctl("cancel", "0000aaaa").returncode


def test_one_of_many_lines_can_be_cancelled(nodes: Nodes) -> None:
    """Many messages lie in one record: the others of it flow."""
    a, b = away(nodes)
    lines = [str(n) for n in range(100)]
    assert a.ctl("send", "-q", "-l", "--wait=queued", "b", stdin="\n".join(lines)).returncode == 0
    ids = {r["text"]: r["id"] for r in a.query("log")}
    for text in ("0", "50", "51", "99"):
        assert a.ctl("cancel", ids[text]).returncode == 0
    a.restart()
    b.start()
    left = [text for text in lines if text not in ("0", "50", "51", "99")]
    wait_for(lambda: a.query("peer", "ls")[0]["queued"] == 0, 10, "the others to be stored")
    assert left == texts(b)
    assert ["0", "50", "51", "99"] == texts(a, "--state", "cancelled")


def test_a_released_message_without_receipt_cannot_be_cancelled(nodes: Nodes) -> None:
    """It may be with the peer already; `peer rm` ends it as in doubt."""
    node = nodes.start("a")
    speaker = Speaker("p", "127.61.60.1")
    speaker.holds_receipts = True
    speaker.pin_at(node)
    speaker.dial(node)
    with node.client() as client:
        id = client.send("p", "hola")["id"]
    speakers_until([speaker], lambda: speaker.messages, 5, "the message")
    refused = node.ctl("cancel", id)
    assert 6 == refused.returncode
    assert "may already be" in refused.stderr
    assert node.ctl("peer", "rm", "p").returncode == 0
    ended = row(node, id)
    assert ("cancelled", "in doubt") == (ended["state"], ended["reason"])


def test_a_hello_counts_as_a_receipt(nodes: Nodes) -> None:
    """The receiver has it, its receipt was lost with the link: the next hello says so, by itself."""
    node = nodes.start("a")
    speaker = Speaker("p", "127.61.60.2")
    speaker.holds_receipts = True
    speaker.pin_at(node)
    speaker.dial(node)
    with node.client() as client:
        id = client.send("p", "hola")["id"]
    speakers_until([speaker], lambda: speaker.messages, 5, "the message")
    speaker.close()
    speaker.dial(node)
    wait_for(lambda: row(node, id)["state"] == "stored", 5, "it to be stored")
    assert 1 == len(speaker.messages), "it is not sent again"


def test_queue_why_and_retry_say_what_a_person_needs(nodes: Nodes) -> None:
    a, b = away(nodes)
    (id,) = queue(a, "hola")

    def is_refused() -> bool:  # the first plan after a link's end knows of no failed try yet
        (waiting,) = a.query("queue")
        return "refused" in str(waiting["reason"]).lower() and waiting["next_try_s"] is not None

    wait_for(is_refused, 10, "a try that failed and the next one planned")
    (waiting,) = a.query("queue")
    assert (id, "b", "queued") == (waiting["id"], waiting["peer"], waiting["state"])
    assert 0 <= waiting["next_try_s"] <= 30
    why = a.ctl("why", id)
    assert why.returncode == 0
    assert "queued" in why.stdout
    assert "when b is back" in why.stdout
    b.start(environment=None)
    assert a.ctl("retry", "b").returncode == 0
    wait_for(lambda: row(a, id)["state"] == "stored", 5, "it to be stored")
    assert "stored" in a.ctl("why", id).stdout
    assert [] == a.query("queue")


# --- peers --------------------------------------------------------------------------------------------------


def test_removing_a_peer_ends_what_waits_and_refuses_its_attempts(nodes: Nodes) -> None:
    a, b = away(nodes)
    ids = queue(a, "one", "two")
    assert a.ctl("peer", "rm", "b").returncode == 0
    for id in ids:
        assert ("cancelled", "peer removed") == (row(a, id)["state"], row(a, id)["reason"])
    assert [] == a.query("queue")
    assert a.ctl("send", "b", "three").returncode in (4, 7)
    b.start()
    b.ctl("retry", "a")
    wait_for(lambda: b.query("peer", "ls")[0]["hold"] == "forgotten", 5, "b to be told")
    assert any(e["event"] == "peer.unknown" for e in a.events())
    a.trust(b)
    b.ctl("retry", "a")
    wait_for(lambda: is_connected(a, b), 10, "the link after pairing again")
    assert a.ctl("send", "--wait=stored", "b", "four").returncode == 0
    assert b.ctl("send", "--wait=stored", "a", "five").returncode == 0
    assert ["four", "five"] == texts(b)


def test_removing_a_connected_peer_cuts_its_link(nodes: Nodes) -> None:
    a, b = nodes.pair()
    assert a.ctl("peer", "rm", "b").returncode == 0
    wait_for(lambda: not is_connected(b, a), 5, "b to lose the link")
    assert a.query("peer", "ls") == []
    wait_for(lambda: b.query("peer", "ls")[0]["hold"] == "forgotten", 5, "b to be told")
    done = b.ctl("-o", "json", "send", "--wait=queued", "a", "hola")
    receipt = json.loads(done.stdout)
    assert (4, "held", "forgotten") == (done.returncode, receipt["state"], receipt["reason"])
    assert [] == texts(a)


def test_a_renamed_peer_keeps_its_link_its_messages_and_its_log(nodes: Nodes) -> None:
    a, _ = nodes.pair()
    worker = a.pids()["peer b"]
    assert a.ctl("send", "--wait=stored", "b", "one").returncode == 0
    assert a.ctl("peer", "rename", "b", "bob").returncode == 0
    assert a.ctl("send", "--wait=stored", "bob", "two").returncode == 0
    assert 7 == a.ctl("send", "b", "three").returncode
    assert ["one", "two"] == texts(a, "--peer", "bob")
    assert set(worker) <= {pid for pids in a.pids().values() for pid in pids}
    assert a.ctl("peer", "rename", "bob", "No Name").returncode == 2


def test_who_is_unknown_has_its_exit_code_and_the_next_step(nodes: Nodes) -> None:
    a = nodes.start("a")
    for words, code, step in (
        (("127.61.61.1",), 4, "pair ask"),
        (("--no-hold", "127.61.61.2"), 4, "pair ask"),
        (("nobody",), 7, "pair join"),
    ):
        done = a.ctl("send", "--wait=queued", *words, "hola")
        assert code == done.returncode
        assert step in done.stderr
    assert ["hola"] == texts(a), "what is held is kept"


# --- once ---------------------------------------------------------------------------------------------------


def test_the_same_id_twice_is_kept_once(nodes: Nodes) -> None:
    """Linked or not, and after a restart; another body under it is refused."""
    a, b = nodes.pair()
    id = new_id()
    for round_ in range(2):
        for repeat in range(2):
            with a.client() as client:
                receipt = client.send("b", "hola", id=id, wait="stored")
            assert ("stored", id) == (receipt["state"], receipt["id"])
            assert receipt["duplicate"] == bool(round_ or repeat)
        a.restart()
        wait_for(lambda: is_connected(a, b), 10, "the link")
    assert ["hola"] == texts(b)


def test_a_key_is_kept_once_for_ever(nodes: Nodes) -> None:
    """Queued, stored, after a restart, and with the index deleted; another body is refused with 2."""
    a, b = away(nodes)

    def send(text: str) -> int:
        return a.ctl("send", "--wait=queued", "--id", "order 7", "b", text).returncode

    assert [0, 0] == [send("hola"), send("hola")]
    assert 2 == send("another text")
    b.start()
    wait_for(lambda: ["hola"] == texts(b), 5, "the message")
    a.restart()
    assert 0 == send("hola")
    assert a.stop() == 0
    for path in a.state.glob("index.sqlite*"):
        path.unlink()
    a.start()
    wait_for(lambda: send("hola") == 0, 10, "the index to have caught up")
    assert 2 == send("another text")
    wait_for(lambda: is_connected(a, b), 10, "the link")
    assert a.ctl("send", "--wait=stored", "b", "last").returncode == 0
    assert ["hola", "last"] == texts(b)


def test_a_key_belongs_to_one_peer(nodes: Nodes) -> None:
    a, _ = away(nodes)
    other = Speaker("other", "127.61.60.9")
    other.pin_at(a)
    for peer in ("b", "other"):
        assert a.ctl("send", "--wait=queued", "--id", "k", peer, f"to {peer}").returncode == 0
    assert ["to b", "to other"] == texts(a)


# --- bytes --------------------------------------------------------------------------------------------------


def test_bytes_that_are_no_utf8_arrive_as_they_are(nodes: Nodes, tmp_path: Path) -> None:
    a, b = nodes.pair()
    body = bytes(range(256)) + b"\xff\xfe\x00 \xc3"
    (tmp_path / "body").write_bytes(body)
    assert a.ctl("send", "--wait=stored", "-f", str(tmp_path / "body"), "b").returncode == 0
    for node in (a, b):
        (found,) = node.query("log")
        assert found.get("text") is None
        assert body == base64.b64decode(found["data"])


def test_a_message_has_at_most_a_mebibyte_less_4_kib(nodes: Nodes, tmp_path: Path) -> None:
    """The greatest one arrives, one byte more is refused with 2 and leaves no trace."""
    a, b = nodes.pair()
    with a.client() as client:
        user = client.send("b", "who am I")["id"]
    overhead = len(encode(Message(bytes(16), 0, 1 << 63, row(a, user)["user"], {}, b"x" * MIB))) - MIB
    path = tmp_path / "body"
    path.write_bytes(os.urandom(MAX_MESSAGE_BYTES - overhead))
    assert a.ctl("send", "--wait=stored", "-f", str(path), "b").returncode == 0
    path.write_bytes(os.urandom(MAX_MESSAGE_BYTES - overhead + 1))
    done = a.ctl("send", "--wait=stored", "-f", str(path), "b")
    assert 2 == done.returncode
    assert "limit" in done.stderr
    assert 2 == len(b.query("log"))


# --- bounds -------------------------------------------------------------------------------------------------


def test_a_peer_that_stops_reading_does_not_grow_our_memory(nodes: Nodes) -> None:
    """48 MiB wait for it: on disk, but for one window."""
    node = nodes.start("a")
    speaker = Speaker("p", "127.61.60.3")
    speaker.pin_at(node)
    speaker.dial(node)
    worker, log = node.pids()["peer p"][0], node.pids()["log"][0]
    before = private_bytes(log)
    body = os.urandom(256 << 10)
    with node.client() as client:
        for _ in range(192):
            assert "queued" == client.send("p", body)["state"]
    assert private_bytes(worker) <= 24 * MIB
    assert private_bytes(log) <= before + 16 * MIB
    assert worker in node.pids()["peer p"], "the link stands all the while"
    speakers_until([speaker], lambda: len(speaker.messages) == 192, 30, "all, once it reads again")
    wait_for(lambda: node.query("peer", "ls")[0]["queued"] == 0, 10, "the receipts")


# --- restored copies ----------------------------------------------------------------------------------------


def exchange(a: Node, b: Node, *words: str) -> None:
    """Each word both ways, until stored."""
    for text in words:
        for one, other in ((a, "b"), (b, "a")):
            done = one.ctl("send", "--wait=stored", "--timeout", "10", other, f"{text} from {one.name}")
            assert done.returncode == 0, done.stderr + done.stdout


def back_to(node: Node, copy: Path) -> None:
    """The node comes back with the state that it had when `copy` was made."""
    assert node.stop() == 0
    shutil.rmtree(node.state)
    shutil.copytree(copy, node.state)
    node.start()


def epochs(node: Node) -> list[dict[str, Any]]:
    return [e for e in node.events() if e["event"] == "epoch.opened"]


@pytest.mark.parametrize("restored", ["a", "b"])
def test_a_node_restored_from_a_copy_begins_a_new_epoch_and_claims_nothing_wrong(
    nodes: Nodes, restored: str
) -> None:
    """What it sent after the copy stays with the other; what it received is sent again; then all flows."""
    a, b = nodes.pair()
    node, other = (a, b) if restored == "a" else (b, a)
    exchange(a, b, "one")
    assert node.stop() == 0
    copy = node.directory / "copy"
    shutil.copytree(node.state, copy)
    node.start()
    wait_for(lambda: is_connected(a, b) and is_connected(b, a), 10, "the link")
    exchange(a, b, "two", "three")
    back_to(node, copy)
    wait_for(lambda: is_connected(a, b) and is_connected(b, a), 10, "the link")
    exchange(a, b, "four")

    mine, theirs = f"from {node.name}", f"from {other.name}"
    everything = [f"{n} {theirs}" for n in ("one", "two", "three", "four")]
    assert everything == texts(node, "--direction", "in"), "what was receipted is here again"
    assert everything == texts(other, "--direction", "out", "--state", "stored")
    assert [f"one {mine}", f"four {mine}"] == texts(node, "--direction", "out", "--state", "stored")
    kept = [f"{n} {mine}" for n in ("one", "two", "three", "four")]
    assert kept == texts(other, "--direction", "in")
    for one, direction in ((node, "out"), (other, "in")):
        assert [direction] == [e["direction"] for e in epochs(one) if e["base"] > 1]
    seqs = [r["seq"] for r in other.query("log", "--direction", "in")]
    assert sorted(set(seqs)) == seqs, "no seq is given twice"


def test_a_receiver_restored_from_far_back_gets_everything_again_within_bounds(nodes: Nodes) -> None:
    """64 MiB, beyond the window: the worker that reads them from the log does not hold them all."""
    a, b = nodes.pair()
    assert b.stop() == 0
    copy = b.directory / "copy"
    shutil.copytree(b.state, copy)
    b.start()
    wait_for(lambda: is_connected(a, b), 10, "the link")
    body = os.urandom(256 << 10)
    with a.client() as client:
        for _ in range(256):
            client.send("b", body)
    wait_for(lambda: a.query("peer", "ls")[0]["queued"] == 0, 20, "all to be stored")
    back_to(b, copy)
    wait_for(lambda: b.query("peer", "ls")[0]["received"] == 256, 30, "all to be there again")
    worker = a.pids()["peer b"][0]
    peak = next(
        int(line.split()[1])
        for line in Path(f"/proc/{worker}/status").read_text().splitlines()
        if "VmHWM" in line
    )
    assert peak <= 64 << 10, f"{peak} KiB at its peak"
    reasons = [e["reason"] for e in b.events() if e["event"] == "link.closed"]
    assert not any("protocol" in reason for reason in reasons), reasons


# --- found by reading and by breaking -----------------------------------------------------------------------


def test_of_many_lines_each_is_told_as_it_ended(nodes: Nodes) -> None:
    """One is cancelled while the others wait: it is never called stored, and the command says so."""
    a, b = away(nodes)
    with a.client() as client:
        ids = [new_id() for _ in range(3)]
        messages = [{"id": id, "text": text} for id, text in zip(ids, ("la", "lb", "lc"), strict=True)]
        more = {"peer": "b", "messages": messages, "wait": "stored", "timeout_ms": 60_000}
        client._write(varlink.call("org.msgd.Control.SendMany", more))
        wait_for(lambda: len(a.query("queue")) == 3, 10, "three messages to wait")
        assert a.ctl("cancel", ids[1]).returncode == 0
        b.start()
        answer = client._answer(None).parameters
    assert ["stored", "cancelled", "stored"] == answer["states"]
    assert "cancelled" == answer["state"]
    assert ["la", "lc"] == texts(b)


@pytest.mark.parametrize(
    "times", [{"ttl_ms": 0}, {"ttl_ms": -5}, {"ttl_ms": 1 << 62}, {"timeout_ms": 1 << 62}]
)
def test_times_out_of_range_are_refused_at_the_door(nodes: Nodes, times: dict[str, int]) -> None:
    """They cost an error, not the log process, and nothing is kept."""
    a, _ = away(nodes)
    log = a.pids()["log"]
    with a.client() as client, pytest.raises(UsageError):
        client.call("Send", peer="b", message={"text": "x"}, **times)
    assert [] == a.query("log")
    assert log == a.pids()["log"]


def test_a_connection_learns_of_a_peer_that_was_added_since(nodes: Nodes) -> None:
    """A long-lived client is not told for ever that the peer is unknown."""
    a, b = nodes.start("a"), nodes.start("b")
    with a.client() as client:
        with pytest.raises(UnknownPeer):
            client.send("b", "too early")
        a.trust(b)
        assert client.send("b", "now")["state"] in ("queued", "held"), "b has not accepted a"


def test_damage_in_what_expires_costs_one_message_not_the_node(nodes: Nodes) -> None:
    """The log process stays, other messages expire and flow, and the peer can be removed."""
    a, _ = nodes.pair()
    key = identity_text(bytes(range(32)))
    assert a.ctl("peer", "add", "ghost", "127.99.255.254", "--key", key).returncode == 0
    (lost,) = a.query("send", "--wait=queued", "--ttl", "8", "ghost", "damaged by and by " * 10)
    a.restart()
    (segment,) = [s for s in (a.state / "log").glob("*.log") if b"damaged by and by" in s.read_bytes()]
    with segment.open("r+b") as file:
        file.seek(segment.read_bytes().index(b"damaged by and by") - 60)
        file.write(b"\xff" * 12)
    log = a.pids()["log"]
    wait_for(lambda: "log.damage_found" in [e["event"] for e in a.events()], 20, "the damage to be told")
    assert a.ctl("send", "b", "--wait=stored", "goes on").returncode == 0
    assert a.ctl("peer", "rm", "ghost").returncode == 0
    assert log == a.pids()["log"]
    assert lost["id"]
