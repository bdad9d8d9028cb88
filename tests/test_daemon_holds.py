"""What is sent to whom nobody has accepted: kept, shown, expired, or sent on once somebody has."""

import json
import time
from typing import Any

import pytest

from tests.nodes import Node, Nodes, is_connected, wait_for

pytestmark = pytest.mark.slow

NOWHERE = "127.61.61.1:6743"


def send(node: Node, who: str, text: str, *words: str, code: int = 4) -> dict[str, Any]:
    """Send without waiting for anything, ending with `code`; the receipt, empty where none was printed."""
    done = node.ctl("-o", "json", "send", "--wait=queued", *words, who, text)
    assert code == done.returncode, done.stderr
    return dict(json.loads(done.stdout)) if done.stdout else {}


def states(node: Node) -> dict[str, tuple[str, str | None]]:
    return {row["text"]: (row["state"], row["reason"]) for row in node.query("log")}


def peer_of(node: Node, name: str) -> dict[str, Any]:
    return next(peer for peer in node.query("peer", "ls") if peer["name"] == name)


def wait_state(node: Node, text: str, state: str, within_s: float = 10) -> None:
    wait_for(lambda: states(node)[text][0] == state, within_s, f"{text!r} to be {state}")


def test_what_is_sent_to_an_unknown_address_is_held_and_a_start_finds_it(nodes: Nodes) -> None:
    a = nodes.start("a")
    receipt = send(a, "127.61.61.1", "one")
    assert ("held", "unpaired") == (receipt["state"], receipt["reason"])
    assert ("held", "unpaired") == (send(a, NOWHERE, "two")["state"], peer_of(a, NOWHERE)["hold"])
    assert [2, 0] == [a.query("status")[0][count] for count in ("held", "queued")]
    a.kill9()
    a.start()
    assert [2, 0] == [a.query("status")[0][count] for count in ("held", "queued")]
    assert ["one", "two"] == list(states(a))
    assert a.query("cancel", receipt["id"])[0]["state"] == "cancelled"
    assert [("two", "held")] == [(row["text"], row["state"]) for row in a.query("log", "--state", "held")]
    assert 0 == a.ctl("peer", "rm", NOWHERE).returncode
    assert ("cancelled", "peer removed") == states(a)["two"]
    assert [] == a.query("peer", "ls")


def test_what_nobody_pairs_for_expires_but_not_once_somebody_has(nodes: Nodes) -> None:
    """The default expiry is the hold's: it ends with it. A time to live of its own goes on counting."""
    a, b = nodes.start("a", "[pairing]\nhold_s = 6"), nodes.start("b")
    key = b.identity
    assert 0 == b.stop()
    send(a, NOWHERE, "lost")
    send(a, b.address, "kept")
    send(a, b.address, "short", "--ttl=6s")
    assert 0 == a.ctl("peer", "add", "b", b.address, "--key", key).returncode
    wait_state(a, "short", "expired")
    wait_state(a, "lost", "expired")
    assert ("expired", "nobody was paired with there in time") == states(a)["lost"]
    due_s = time.monotonic() + 0.5
    wait_for(lambda: time.monotonic() > due_s, 5, "the hold's time to be over for all")
    assert "queued" == states(a)["kept"][0]
    b.start()
    b.trust(a)
    wait_for(lambda: a.ctl("retry", "b").returncode == 0 and is_connected(a, b), 10, "the link")
    wait_state(a, "kept", "stored")
    assert ["kept"] == list(states(b))


def test_an_address_of_a_peer_gives_it_what_waited_there_in_order(nodes: Nodes) -> None:
    """Somebody sends to a peer's new address before anybody here knows that it is the peer's."""
    a, b = nodes.start("a"), nodes.start("b")
    assert 0 == a.ctl("peer", "add", "b", "127.61.61.9:6743", "--key", b.identity).returncode
    assert 0 == b.stop()
    send(a, b.address, "one")
    send(a, "b", "two", code=0)
    first = send(a, b.address, "three")
    send(a, b.address, "four")
    assert "cancelled" == a.query("cancel", first["id"])[0]["state"]
    b.start()
    b.trust(a)
    a.trust(b)
    assert ["b"] == [peer["name"] for peer in a.query("peer", "ls")]
    wait_for(lambda: is_connected(a, b), 10, "the link")
    for text in ("one", "two", "four"):
        wait_state(a, text, "stored")
    assert {"one", "two", "four"} == set(states(b))
    assert ["one", "four"] == [text for text in states(b) if text != "two"]
    a.kill9()
    a.start()
    assert ("stored", "stored", "cancelled", "stored") == tuple(
        states(a)[text][0] for text in ("one", "two", "three", "four")
    )


def test_a_node_that_pairs_with_nobody_over_the_network_keeps_nothing(nodes: Nodes) -> None:
    a = nodes.start("a", '[pairing]\ntrust = "known-only"')
    assert {} == send(a, NOWHERE, "one")
    assert ([], []) == (a.query("log"), a.query("peer", "ls"))


def test_a_blocked_peer_gets_nothing_and_is_told(nodes: Nodes) -> None:
    a, b = nodes.pair()
    assert 0 == b.stop()
    send(a, "b", "one", code=0)
    assert 0 == a.ctl("peer", "block", "b").returncode
    assert ("cancelled", "peer blocked") == states(a)["one"]
    assert {} == send(a, "b", "two")
    b.start()
    wait_for(lambda: peer_of(b, "a")["hold"] == "blocked", 10, "b to be told")
    assert "held" == send(b, "a", "three")["state"]
    assert 0 == a.ctl("peer", "unblock", "b").returncode
    wait_for(lambda: is_connected(a, b), 10, "the link")
    wait_state(b, "three", "stored")
    assert 0 == a.ctl("send", "--wait=stored", "b", "four").returncode
    assert ["three", "four"] == list(states(b))


def test_another_key_at_a_peers_address_holds_what_waits_until_its_own_answers(nodes: Nodes) -> None:
    a, b = nodes.pair()
    assert 0 == b.stop()
    key, other = b.state / "node.key", b.directory / "own.key"
    key.rename(other)
    b.start()
    wait_for(lambda: peer_of(a, "b")["hold"] == "key-changed", 10, "a to find another key")
    receipt = send(a, "b", "one")
    assert ("held", "key-changed") == (receipt["state"], receipt["reason"])
    a.kill9()
    a.start()
    assert "key-changed" == peer_of(a, "b")["hold"]
    assert 0 == b.stop()
    other.rename(key)
    b.start()
    wait_for(lambda: a.ctl("retry", "b").returncode == 0 and is_connected(a, b), 10, "the link")
    wait_state(a, "one", "stored")
    assert [1, 1] == [
        len([event for event in a.events() if event["event"] == name])
        for name in ("peer.changed", "peer.returned")
    ]
