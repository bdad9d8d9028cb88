"""Becoming peers, between real daemons: words, invitations, nos, and who stands in between."""

import json
import re
import threading
import time
from random import Random

import pytest

from msgd.errors import NOT_TRUSTED, OK, STILL_QUEUED
from msgd.peer.frames import Hello, Joined, Refuse, Verdict
from msgd.trust.invitation import parse_invitation
from tests.nodes import PORT, Node, Nodes, free_address, wait_for
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
from tests.speaker import Speaker
from tests.strangers import Acceptor, Cheat, Forwarder, Middle, Stranger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FOUR_WORDS = r"[a-z]{3,8}( [a-z]{3,8}){3}"
SECRET_TEXT = "the content that nobody else may see"
KNOWN_ONLY = '[pairing]\ntrust = "known-only"\n'
FIRST_USE = '[pairing]\ntrust = "first-use"\n'


# --- words --------------------------------------------------------------------------------------------------


def test_a_message_to_an_unknown_address_flows_once_both_said_yes(nodes: Nodes) -> None:
    """Held with the words and the next command; the same words there; then it is delivered by itself."""
    a, b = nodes.both()
    message = held(a, b.address)
    pairing = message["pairing"]
    assert message["reason"] == "unpaired"
    assert re.fullmatch(FOUR_WORDS, pairing["words"])
    assert (b.name, b.identity) == (pairing["name"], pairing["identity"])
    assert "msgctl pair accept b" in pairing["next"]
    there = request_of(b, "a")
    assert (pairing["words"], a.identity, False) == (there["words"], there["identity"], there["is_ours"])
    assert texts(b) == []

    assert accept(b, "a")["complete"] is False
    assert texts(b) == []
    assert accept(a, "b")["complete"] is True
    wait_stored(a, message)
    assert texts(b) == ["hola"]
    assert requests(a) == requests(b) == []
    assert ("words", "words") == (peer_of(a, "b")["how"], peer_of(b, "a")["how"])


def test_the_audit_tells_who_paired_and_with_which_words(nodes: Nodes) -> None:
    """As records in both logs, with the user, and as events in both journals."""
    a, b = nodes.both()
    words = compare(a, b)
    for node, other in ((a, "b"), (b, "a")):
        told = [m for m in node.query("log", "--kind", "control") if m["peer"] == other]
        paired = [m for m in told if words in m["text"]]
        assert [m["user"] for m in paired] == ["root"], told
        (event,) = events(node, "pair.accepted")
        assert (other, words, "root") == (event["peer"], event["words"], event["user"])


def test_a_no_ends_the_request_at_both(nodes: Nodes) -> None:
    """The message stays held, the asker hears of it and is refused for an hour, no content has left."""
    a, b = nodes.both()
    message = held(a, b.address)
    request_of(b, "a")
    b.query("pair", "reject", "a")
    assert requests(b) == []
    wait_for(lambda: events(a, "pair.rejected_by_peer"), SOON_S, "a to hear of the no")
    done = a.ctl("-o", "json", "pair", "ask", b.address)
    assert done.returncode == NOT_TRUSTED
    assert "reject" in done.stdout + done.stderr
    assert "held" == a.query("show", message["id"])[0]["state"]
    assert texts(b) == []
    assert [m["user"] for m in b.query("log", "--kind", "control") if "reject" in m["text"]] == ["root"]


def test_who_said_no_may_still_ask(nodes: Nodes) -> None:
    """A person's own act goes before the no of an hour ago."""
    a, b = nodes.both()
    held(a, b.address)
    request_of(b, "a")
    b.query("pair", "reject", "a")
    compare(b, a)
    assert texts(b) == [] or texts(b) == ["hola"]


def test_both_ask_at_once_and_see_the_same_words(nodes: Nodes) -> None:
    """One request at each, however the two dials cross."""
    a, b = nodes.both()
    both = [
        threading.Thread(target=one.ctl, args=("send", other.address, "hola"))
        for one, other in ((a, b), (b, a))
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(SOON_S)
    assert request_of(a, "b")["words"] == request_of(b, "a")["words"]
    assert (1, 1) == (len(requests(a)), len(requests(b)))
    accept(a, "b")
    accept(b, "a")
    wait_for(lambda: texts(a) == texts(b) == ["hola"], SOON_S, "both messages to arrive")


def test_a_yes_to_other_words_is_refused(nodes: Nodes) -> None:
    """What a person saw must be what is asked now."""
    a, b = nodes.both()
    held(a, b.address)
    done = b.ctl("pair", "accept", request_of(b, "a")["identity"], "--words", "receive action stone hire")
    assert done.returncode not in (OK, NOT_TRUSTED)
    assert "words" in done.stderr
    assert len(requests(b)) == 1
    assert peer_of(b, "a") == {}


def test_nothing_is_kept_where_nothing_may_be_held(nodes: Nodes) -> None:
    """--no-hold, and known-only: exit 4, an empty log, no peer, nothing said to anybody."""
    a, b = nodes.both()
    done = a.ctl("send", "--no-hold", b.address, "hola")
    assert done.returncode == NOT_TRUSTED
    assert a.query("queue") == a.query("log") == a.query("peer", "ls") == []
    a.restart(KNOWN_ONLY)
    done = a.ctl("send", b.address, "hola")
    assert done.returncode == NOT_TRUSTED
    assert a.query("queue") == a.query("log") == a.query("peer", "ls") == []
    assert requests(b) == []


def test_a_node_that_knows_only_keys_takes_no_request(nodes: Nodes) -> None:
    """The asker hears that it is off; an invitation still works."""
    a, b = nodes.start("a"), nodes.start("b", KNOWN_ONLY)
    message = held(a, b.address)
    assert message["pairing"]["words"] is None
    assert "off" in json.dumps(message["pairing"])
    assert requests(b) == []
    a.query("pair", "join", b.query("pair", "invite")[0]["invitation"])
    wait_stored(a, message)


def test_first_use_needs_one_yes(nodes: Nodes) -> None:
    """That of the other side: here the first who answers is taken, and the record says so."""
    a, b = nodes.start("a", FIRST_USE), nodes.start("b")
    message = held(a, b.address)
    accept(b, "a")
    wait_stored(a, message)
    assert "first-use" == peer_of(a, "b")["how"]
    assert "words" == peer_of(b, "a")["how"]


def test_another_address_of_a_peer_needs_no_words(nodes: Nodes) -> None:
    """Who answers there is known by its key: what was sent to the address is its message."""
    a, b = nodes.pair()
    with Forwarder(b) as forwarder:
        (receipt,) = a.query("send", forwarder.address, "--wait=stored", "hola")
    assert ("stored", "b") == (receipt["state"], receipt["peer"])
    assert texts(b) == ["hola"]
    assert ["b"] == [peer["name"] for peer in a.query("peer", "ls")]
    assert [] == requests(a) == requests(b)


def test_what_is_held_too_long_expires(nodes: Nodes) -> None:
    """Into a state that everybody sees, and the address is forgotten with it."""
    a = nodes.start("a", "[pairing]\nhold_s = 1\n")
    message = held(a, f"{free_address()}:{PORT}", "hola", "--timeout=1")
    wait_for(lambda: a.query("show", message["id"])[0]["state"] == "expired", SOON_S, "the expiry")
    assert a.query("queue") == a.query("peer", "ls") == []


# --- invitations --------------------------------------------------------------------------------------------


def invite(node: Node) -> str:
    (answer,) = node.query("pair", "invite")
    return str(answer["invitation"])


def test_an_invitation_makes_peers_of_one_node(nodes: Nodes) -> None:
    """With no question; the same string again is fine for it, and names it to the next one who tries."""
    a, b, c = nodes.start("a"), nodes.start("b"), nodes.start("c")
    string = invite(b)
    for _ in range(2):
        (joined,) = a.query("pair", "join", string)
        assert joined["joined"] is True
    wait_linked(a, b)
    assert ("invitation", "invitation") == (peer_of(a, "b")["how"], peer_of(b, "a")["how"])
    assert OK == a.ctl("send", "b", "--wait=stored", "hola").returncode

    done = c.ctl("-o", "json", "pair", "join", string)
    assert done.returncode == NOT_TRUSTED, done
    assert a.identity in done.stdout + done.stderr
    assert peer_of(c, "b") == {}
    assert peer_of(b, "c") == {}


def test_three_wrong_proofs_end_an_invitation(nodes: Nodes) -> None:
    """The right one then comes too late; the inviter's log tells of it."""
    b = nodes.start("b")
    string = invite(b)
    invitation = parse_invitation(string)
    for number in range(3):
        answer = Stranger(f"guess-{number}").join(b, invitation, bytes([number]) * 16)
        assert isinstance(answer, Refuse)
        assert "invitation" == answer.code
    late = Stranger("late").join(b, invitation, invitation.secret)
    assert isinstance(late, Refuse)
    assert "dead" in late.detail
    assert b.query("peer", "ls") == []
    assert any("dead" in m["text"] or "wrong" in m["text"] for m in b.query("log", "--kind", "control"))


def test_two_wrong_proofs_do_not(nodes: Nodes) -> None:
    """Also across a start in between: the count is on disk."""
    b = nodes.start("b")
    invitation = parse_invitation(invite(b))
    for number in range(2):
        assert isinstance(Stranger(f"g{number}").join(b, invitation, bytes([number]) * 16), Refuse)
        b.kill9()
        b.start()
    assert isinstance(Stranger("friend").join(b, invitation, invitation.secret), Joined)
    assert "invitation" == peer_of(b, "friend")["how"]


def test_a_killed_joiner_joins_again(nodes: Nodes) -> None:
    """kill -9 of either side at any instant of a join: started and repeated, both know each other."""
    rng = Random(3)
    for number in range(2):
        a, b = nodes.both(f"a{number}", f"b{number}")
        string = invite(b)
        joining = threading.Thread(target=a.ctl, args=("pair", "join", "--timeout=2", string))
        joining.start()
        time.sleep(rng.uniform(0.05, 0.5))  # any instant is as good as another
        victim = (a, b)[number % 2]
        victim.kill9()
        joining.join(SOON_S + 20)
        victim.start()
        done = a.ctl("pair", "join", string)
        assert done.returncode in (OK, STILL_QUEUED), done
        wait_linked(a, b)
        a.kill9()
        b.kill9()


def test_a_mistyped_invitation_says_what_is_wrong(nodes: Nodes) -> None:
    """Cut, mistyped, or something else: exit 2, nothing kept, nobody dialled."""
    a = nodes.start("a")
    string = invite(a)
    for wrong in (string[:80], string[:-1] + ("a" if string[-1] != "a" else "b"), "hello"):
        done = a.ctl("pair", "join", wrong)
        assert done.returncode == 2, done
    assert "80 of" in a.ctl("pair", "join", string[:80]).stderr
    assert a.query("peer", "ls") == []


# --- who stands in between ----------------------------------------------------------------------------------


def test_a_man_in_the_middle_is_caught_by_the_words(nodes: Nodes) -> None:
    """He asks both with his own key and passes on what he can: the screens differ, he has seen no content."""
    a, b = nodes.both()
    with Middle("b", b) as middle:
        message = held(a, middle.address, SECRET_TEXT)
        words = message["pairing"]["words"]
        assert re.fullmatch(FOUR_WORDS, words)
        assert words != request_of(b, "b")["words"]
        assert message["pairing"]["identity"] == middle.identity
        assert SECRET_TEXT.encode() not in middle.raw
        assert middle.failed == []
    assert "held" == a.query("show", message["id"])[0]["state"]
    assert texts(b) == []


def test_a_yes_meant_for_another_key_gives_nothing_away_there(nodes: Nodes) -> None:
    """Who accepts him by mistake sends him nothing as long as he has not accepted."""
    a, b = nodes.both()
    with Middle("b", b) as middle:
        message = held(a, middle.address, SECRET_TEXT)
        accept(a, middle.identity)
        wait_for(lambda: Verdict(True) in middle.sides[0].heard, SOON_S, "the yes to arrive")
        assert SECRET_TEXT.encode() not in middle.raw
    assert "held" == a.query("show", message["id"])[0]["state"]
    assert peer_of(b, "a") == {}


def test_a_nonce_that_was_not_committed_to_shows_nothing(nodes: Nodes) -> None:
    """No words, an event, one exchange for one act: it is not tried again by itself."""
    a = nodes.start("a")
    with Cheat("cheat") as cheat:
        message = held(a, cheat.address, SECRET_TEXT)
        assert message["pairing"]["words"] is None
        assert requests(a) == []
        wait_for(lambda: events(a, "pair.broken"), SOON_S, "an event")
        assert [Refuse] == [type(frame) for frame in cheat.sides[0].heard[2:3]]
        assert 1 == len([side for side in cheat.sides if len(side.heard) > 1])
        assert SECRET_TEXT.encode() not in cheat.raw


def test_a_stranger_at_the_address_learns_no_more_than_a_request(nodes: Nodes) -> None:
    """Identity, name, port, versions: no content, no link, nothing of what this node has."""
    a = nodes.start("a")
    with Acceptor("elsewhere") as acceptor:
        message = held(a, acceptor.address, SECRET_TEXT)
        assert message["pairing"]["name"] == "elsewhere"
        (hello,) = [frame for frame in acceptor.sides[0].heard if isinstance(frame, Hello)]
        assert ("pair", None, None, "a") == (hello.want, hello.link, hello.limits, hello.name)
        assert SECRET_TEXT.encode() not in acceptor.raw


def test_another_key_at_a_pinned_address_hears_nothing(nodes: Nodes) -> None:
    """The connection ends before a hello; what waits is held, and the dialling goes on."""
    a = nodes.start("a")
    known = Stranger("known")
    with Acceptor("other") as other:
        assert OK == a.ctl("peer", "add", "known", other.address, "--key", known.identity).returncode
        a.ctl("retry", "known")
        wait_for(lambda: hold_of(a, "known") == "key-changed", SOON_S, "the hold")
        assert "key-changed" == held(a, "known", SECRET_TEXT)["reason"]
        connected = other.connected
        a.ctl("retry", "known")
        wait_for(lambda: other.connected > connected, SOON_S, "another try")
        assert b"" == other.raw
    assert 1 == len(events(a, "peer.changed"))


# --- floods -------------------------------------------------------------------------------------------------


def test_a_flood_of_requests_is_bounded(nodes: Nodes) -> None:
    """3 a source, 5 an identity, 16 in all; own requests and peers are not in its way."""
    a, b = nodes.both()
    neighbours = [Stranger(f"near-{n}", source="127.92.0.1") for n in range(4)]
    answers = [stranger.exchange(a) for stranger in neighbours]
    assert [True, True, True, False] == [isinstance(answer, list) for answer in answers]
    assert isinstance(answers[3], Refuse)
    assert ("limit", True) == (answers[3].code, (answers[3].retry_s or 0) > 0)

    same = Stranger("again")
    for number in range(6):
        same.source = f"127.92.1.{number + 1}"
        last = same.exchange(a)
    assert isinstance(last, Refuse)
    assert "limit" == last.code

    crowd = [Stranger(f"crowd-{n}", source=f"127.92.2.{n + 1}") for n in range(20)]
    taken = [isinstance(stranger.exchange(a), list) for stranger in crowd]
    assert 16 == len(requests(a))
    assert taken == [True] * 12 + [False] * 8

    message = held(a, b.address)
    assert message["pairing"]["words"] == request_of(b, "a")["words"]
    speaker = Speaker("p", source="127.92.3.1")
    speaker.pin_at(a)
    speaker.dial(a)
    assert 16 >= len(requests(a))
    for stranger in (*neighbours, same, *crowd):
        stranger.close()


# --- deaths -------------------------------------------------------------------------------------------------


def test_a_kill_between_any_two_steps_loses_nothing(nodes: Nodes) -> None:
    """Requests are memory, and are asked anew; what a person said, and the message, are on disk."""
    a, b = nodes.both()
    message = held(a, b.address)
    a.kill9()
    a.start()
    request_of(b, "a")
    wait_for(
        lambda: [r["words"] for r in requests(a)] == [r["words"] for r in requests(b)], SOON_S, "new words"
    )
    accept(b, "a")
    b.kill9()
    b.start()
    if not requests(a):
        a.ctl("pair", "ask", b.address)
    accept(a, "b")
    a.kill9()
    a.start()
    wait_stored(a, message, 60)
    assert texts(b) == ["hola"]
