"""Trust between real daemons over time: new keys, blocks, peers that were forgotten, copies of a node."""

import shutil

import pytest

from msgd.errors import NOT_TRUSTED, OK
from msgd.peer.frames import Refuse
from msgd.trust.identity import load
from tests.nodes import Node, Nodes, wait_for
from tests.pairs import (
    SOON_S,
    accept,
    compare,
    events,
    held,
    hold_of,
    peer_of,
    request_of,
    requests,
    texts,
    wait_linked,
    wait_stored,
)
from tests.strangers import Stranger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def send(node: Node, to: str, text: str = "hola") -> None:
    done = node.ctl("send", to, "--wait=stored", "--timeout=20", text)
    assert done.returncode == OK, done


def queued(node: Node, to: str, text: str) -> dict[str, str]:
    """Sent without waiting; the receipt."""
    (receipt,) = node.query("send", to, "--wait=queued", text)
    return receipt


def audit(node: Node) -> str:
    """What `log --kind control` tells, as one text."""
    return "\n".join(message["text"] for message in node.query("log", "--kind", "control"))


# --- new keys -----------------------------------------------------------------------------------------------


def test_a_rotated_key_is_followed_quietly(nodes: Nodes) -> None:
    """While the link stands, and by a peer that was away; messages flow on both ways, the log tells of it."""
    a, b = nodes.pair()
    before = b.identity
    b.query("identity", "rotate")
    wait_for(lambda: b.identity != before, SOON_S, "the new key")
    wait_linked(a, b)
    send(a, "b", "to the new key")
    send(b, "a", "from the new key")
    shown = peer_of(a, "b")
    assert (b.identity, [before]) == (shown["identity"], shown["former_identities"])

    a.stop()
    b.query("identity", "rotate")
    b.query("identity", "rotate")
    a.start()
    wait_linked(a, b)
    send(a, "b", "after two more")
    assert b.identity == peer_of(a, "b")["identity"]
    assert 3 == len(peer_of(a, "b")["former_identities"])
    assert "b has a new key, signed by its old one" in audit(a)
    assert 3 == audit(b).count("new key")
    assert [] == requests(a) == requests(b)


def test_a_rotated_key_is_no_longer_taken(nodes: Nodes) -> None:
    """Who comes with the old one is told so, and its peer gets an event: a backup, or a thief."""
    a, b = nodes.pair()
    thief = Stranger("b")
    thief.key = load(str(b.state / "node.key"))
    b.query("identity", "rotate")
    wait_for(lambda: peer_of(a, "b")["former_identities"], SOON_S, "a to follow")
    answer = thief.exchange(a)
    assert isinstance(answer, Refuse)
    assert "retired" == answer.code
    thief.close()
    wait_linked(a, b)
    send(a, "b")


def test_a_rotation_survives_a_kill(nodes: Nodes) -> None:
    """At any instant: the key on disk is the one that the log names, and peers follow."""
    a, b = nodes.pair()
    for _ in range(2):
        with b.client() as client:
            client.sock.sendall(b'{"method": "org.msgd.Control.IdentityRotate"}\0')
            b.kill9()
        b.start()
        assert not (b.state / "node.key.next").exists()
        wait_linked(a, b)
        assert b.identity == peer_of(a, "b")["identity"]
    send(a, "b")
    send(b, "a")


def test_an_unsigned_change_of_the_key_holds_until_words_are_compared(nodes: Nodes) -> None:
    """Exit 4, the three things that may have happened, what to do; one yes on each side, then all flows."""
    a, b = nodes.pair()
    send(a, "b", "before")
    old = b.identity
    b.stop()
    (b.state / "node.key").unlink()
    b.start()
    a.ctl("retry", "b")
    wait_for(lambda: hold_of(a, "b") == "key-changed", SOON_S, "the hold")
    message = held(a, "b", "during")
    assert "key-changed" == message["reason"]
    assert "msgctl peer rekey b" in message["pairing"]["next"]
    assert old in message["pairing"]["detail"]
    assert b.identity in message["pairing"]["detail"]
    assert texts(b) == ["before"]

    a.query("peer", "rekey", "b")
    assert request_of(a, "b")["words"] == request_of(b, "a")["words"]
    accept(a, "b")
    wait_stored(a, message)
    assert (b.identity, [old]) == (peer_of(a, "b")["identity"], peer_of(a, "b")["former_identities"])
    assert 1 == len(events(a, "peer.changed"))
    assert texts(b) == ["before", "during"]


def test_the_pinned_key_ends_the_hold_when_it_answers_again(nodes: Nodes) -> None:
    """Nobody has to do anything: the messages flow."""
    a, b = nodes.pair()
    key = b.state / "node.key"
    content = key.read_bytes()
    b.stop()
    key.unlink()
    b.start()
    a.ctl("retry", "b")
    wait_for(lambda: hold_of(a, "b") == "key-changed", SOON_S, "the hold")
    message = held(a, "b")
    b.stop()
    key.write_bytes(content)
    b.start()
    a.ctl("retry", "b")
    wait_stored(a, message, 40)
    assert hold_of(a, "b") is None


# --- no longer peers ----------------------------------------------------------------------------------------


def test_a_blocked_peer_is_told_so_and_kept_out(nodes: Nodes) -> None:
    """Its queue here is cancelled, its messages wait there as held; after unblock they flow."""
    a, b = nodes.pair()
    b.query("peer", "block", "a")
    wait_for(lambda: hold_of(a, "b") == "blocked", SOON_S, "a to hear of it")
    message = held(a, "b", "to who blocked me")
    assert "blocked" == message["reason"]
    refused = b.ctl("send", "a", "to whom I blocked")
    assert (NOT_TRUSTED, True) == (refused.returncode, "msgctl peer unblock a" in refused.stderr)
    answer = a.ctl("-o", "json", "pair", "ask", "b")
    assert answer.returncode == NOT_TRUSTED
    assert requests(b) == []
    b.query("peer", "unblock", "a")
    a.ctl("retry", "b")
    wait_stored(a, message, 40)
    assert "block" in audit(b)


def test_a_forgotten_peer_needs_one_yes(nodes: Nodes) -> None:
    """b removed a: a's queue and log stay, it is told; b's person alone decides whether it comes back."""
    a, b = nodes.pair()
    send(a, "b", "before")
    assert OK == b.ctl("peer", "rm", "a").returncode
    wait_for(lambda: hold_of(a, "b") == "forgotten", SOON_S, "a to hear of it")
    message = held(a, "b", "while forgotten")
    assert "forgotten" == message["reason"]
    a.ctl("pair", "ask", "b")
    assert request_of(b, "a")["words"]
    accept(b, "a")
    wait_stored(a, message)
    assert texts(b) == ["before", "while forgotten"]


def test_who_forgot_may_ask_and_needs_its_own_yes_alone(nodes: Nodes) -> None:
    """a still knows b, so it says yes by itself."""
    a, b = nodes.pair()
    b.ctl("peer", "rm", "a")
    wait_for(lambda: hold_of(a, "b") == "forgotten", SOON_S, "a to hear of it")
    b.query("pair", "ask", a.address)
    wait_for(lambda: request_of(b, "a")["theirs"] == "accepted", SOON_S, "a's own yes")
    accept(b, "a")
    wait_linked(a, b)
    send(a, "b")
    send(b, "a")


def test_a_removed_peer_meets_a_stranger(nodes: Nodes) -> None:
    """Its history stays readable here; its next hello is that of an unknown node."""
    a, b = nodes.pair()
    send(a, "b", "kept")
    assert OK == b.ctl("peer", "rm", "a").returncode
    assert ["kept"] == [message["text"] for message in b.query("log", "--kind", "text")]
    a.ctl("retry", "b")
    wait_for(lambda: events(b, "peer.unknown"), SOON_S, "a's hello")
    assert peer_of(b, "a") == {}


# --- copies -------------------------------------------------------------------------------------------------


def clone_of(nodes: Nodes, node: Node) -> Node:
    """Another node with a copy of its state, the key in it, at an address of its own."""
    copy = nodes.make(f"{node.name}2")
    shutil.copytree(node.state, copy.state)
    return copy


def test_two_live_nodes_with_one_key_are_detected(nodes: Nodes) -> None:
    """Their peer says so in an event and in status, and so do they; nothing of the history is damaged."""
    a, b = nodes.pair()
    send(a, "b", "before the copy")
    copy = clone_of(nodes, b).start()
    for _ in range(3):
        copy.ctl("retry", "a")
        b.ctl("retry", "a")
    wait_for(lambda: peer_of(a, "b")["notes"], 40, "a to tell of two nodes")
    assert "Two live nodes" in " ".join(peer_of(a, "b")["notes"])
    assert [] == events(a, "log.damage_found")
    copy.stop()
    send(a, "b", "after the copy has gone")
    assert "after the copy has gone" in texts(b)
    for node in (a, b):
        assert OK == node.ctl("verify").returncode


def test_a_restored_node_is_no_clone(nodes: Nodes) -> None:
    """What it had received comes again, what it had sent is named as lost there; `recover` gets it back."""
    a, b = nodes.pair()
    send(a, "b", "one")
    b.stop()
    backup = b.directory / "backup"
    shutil.copytree(b.state, backup)
    b.start()
    wait_linked(a, b)
    send(a, "b", "two")
    send(b, "a", "lost at b")
    b.stop()
    shutil.rmtree(b.state)
    shutil.copytree(backup, b.state)
    b.start()
    wait_linked(a, b)
    send(b, "a", "after")
    send(a, "b", "three")
    assert ["one", "two", "three"] == texts(b)
    for node, other in ((a, "b"), (b, "a")):
        (broken,) = peer_of(node, other)["breaks"]
        assert (0, 1) == (broken["sender_last"], broken["receiver_last"])
        assert "recover --from" in broken["detail"]
        assert [] == peer_of(node, other)["notes"]
    assert ["after"] == texts(b, "out")
    assert OK == b.ctl("recover", "--from", "a").returncode
    assert {"lost at b", "after"} == set(texts(b, "out"))


def test_a_person_can_tell_names_apart(nodes: Nodes) -> None:
    """Another node with the name of a peer is marked, and needs a name of its own here."""
    a, b = nodes.pair()
    impostor = Stranger("b")
    words = impostor.exchange(a)
    assert isinstance(words, list)
    (request,) = requests(a)
    assert ("b", impostor.identity) == (request["conflict"], request["identity"])
    done = a.ctl("pair", "accept", impostor.identity)
    assert done.returncode != OK
    assert "--name" in done.stderr
    accept(a, impostor.identity, "--name", "another-b")
    assert impostor.identity == peer_of(a, "another-b")["identity"]
    assert b.identity == peer_of(a, "b")["identity"]
    impostor.close()


def test_words_again_after_everything_was_lost_there(nodes: Nodes) -> None:
    """A node set up anew, key and log gone: it pairs again, and the direction begins anew without harm."""
    a, b = nodes.both()
    compare(a, b)
    send(a, "b", "lost there")
    b.stop()
    shutil.rmtree(b.state)
    b.start()
    a.ctl("retry", "b")
    wait_for(lambda: hold_of(a, "b") == "key-changed", SOON_S, "the hold")
    message = held(a, "b", "to the new one")
    a.query("peer", "rekey", "b")
    request_of(b, "a")
    accept(b, "a")
    accept(a, "b")
    wait_stored(a, message)
    assert ["to the new one"] == texts(b)
    assert ["lost there", "to the new one"] == texts(a, "out")
