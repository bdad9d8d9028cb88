"""Who may talk: every code that a hello can be refused with, in its order; what a dial may begin."""

from typing import Any

import pytest

from msgd.clones import LASTS_S
from msgd.log.errors import StorageFull
from msgd.reporting import state
from msgd.trust.identity import NodeKey
from msgd.trust.rotation import make_rotation
from msgd.wire.ledger import Denied, DialFailed, Granted, Indexed, MayDial, Opened, PutPeer, Snapshot, Taken
from msgd.wire.trust import KeyFound
from tests.gate_world import Node, code, here, identity, new_node

__all__ = ["here"]

LINKED = ("link", "service", "files")


# --- the order of section 4 ---------------------------------------------------------------------------------


def test_own_key_is_refused_before_anything_else(here: Node) -> None:
    for want in ("link", "pair", "join", "service", "files"):
        _, answer = here.hello("x", want, identity=here.key.identity)
        assert "self" == code(answer)


@pytest.mark.parametrize("want", ["link", "pair", "join", "service", "files"])
def test_a_blocked_peer_is_refused_whatever_it_wants(here: Node, want: str) -> None:
    peer = here.add("b", "b")
    here.person(PutPeer(1, "block", "eva", peer.number))
    assert "blocked" == code(here.hello("b", want)[1])
    here.person(PutPeer(1, "unblock", "eva", peer.number))
    assert "blocked" != code(here.hello("b", want, dial=2)[1])


@pytest.mark.parametrize("want", LINKED)
def test_an_identity_without_pin_gets_unpaired(here: Node, want: str) -> None:
    assert "unpaired" == code(here.hello("b", want)[1])


@pytest.mark.parametrize("want", LINKED)
def test_a_removed_peer_gets_unpaired(here: Node, want: str) -> None:
    peer = here.add("b", "b")
    here.person(PutPeer(1, "remove", "eva", peer.number))
    assert "unpaired" == code(here.hello("b", want)[1])


def test_a_link_gets_pending_while_its_request_waits_and_rejected_for_an_hour_after_a_no(here: Node) -> None:
    here.asked_by("b")
    assert "pending" == code(here.hello("b", dial=2)[1])
    here.decide("b", False)
    assert "rejected" == code(here.hello("b", dial=3)[1])
    assert "rejected" == code(here.hello("b", "pair", dial=4)[1])
    here.clock.pass_s(3599)
    assert "rejected" == code(here.hello("b", dial=5)[1])
    here.clock.pass_s(1)
    assert "unpaired" == code(here.hello("b", dial=6)[1])


def test_a_peer_is_taken_and_told_its_name(here: Node) -> None:
    peer = here.add("b", "b")
    channel, answer = here.hello("b")
    assert (peer.number, "b", channel.fd) == (answer.peer, answer.name, answer.link)
    assert here.known(peer.number).linked


def test_services_stand_beside_the_link_and_in_any_number_of_dials(here: Node) -> None:
    """A service is not arbitrated: an old dial number, a standing link and a second one do not matter."""
    here.add("b", "b")
    link, _ = here.hello("b", dial=5)
    for _ in range(2):
        channel, answer = here.hello("b", "service", dial=1)
        assert isinstance(answer, Taken)
        assert not link.is_cut
        here.end(channel)
    assert here.known(1).linked


# --- section 5, through the gate ----------------------------------------------------------------------------


def test_an_older_dial_of_the_same_start_is_a_duplicate(here: Node) -> None:
    here.add("b", "b")
    first, _ = here.hello("b", dial=2)
    assert "duplicate" == code(here.hello("b", dial=2)[1])
    newer, answer = here.hello("b", dial=3)
    assert isinstance(answer, Taken)
    assert first.is_cut and not newer.is_cut


@pytest.mark.parametrize("want", ["link", "pair"])
@pytest.mark.parametrize(("other", "refused"), [(b"\xff" * 32, True), (b"\x00" * 32, False)])
def test_while_our_own_hello_is_unanswered_the_smaller_refuses(
    here: Node, want: str, other: bytes, refused: bool
) -> None:
    """For links and for exchanges alike, by identity: of the second kind the other one is no peer."""
    if want == "link":
        put = PutPeer(1, "add", "eva", identity=other, name="b", address="192.0.2.7:6743")
        number = here.person(put).value
    else:
        number = here.hold().number
    own, granted = here.dial(number, "b", want, identity=other)
    assert isinstance(granted, Granted)
    _, answer = here.hello("b", want, identity=other)
    assert ("duplicate" if refused else "") == code(answer)
    assert refused != own.is_cut


def test_a_link_that_the_other_side_replaced_is_not_opened(here: Node) -> None:
    """The bigger one gave way: what its own dial hears later comes too late."""
    put = PutPeer(1, "add", "eva", identity=b"\x00" * 32, name="b", address="192.0.2.7:6743")
    number = here.person(put).value
    own, _ = here.dial(number, "b", "link", identity=b"\x00" * 32)
    here.hello("b", identity=b"\x00" * 32)
    assert "duplicate" == code(here.ask(own, Opened(2, number, b"its start is this")))


def test_no_hello_where_a_link_stands_or_another_dial_asks(here: Node) -> None:
    here.add("b", "b")
    asking, granted = here.dial(1, "b", "link")
    assert isinstance(granted, Granted)
    assert "duplicate" == code(here.dial(1, "b", "link")[1])
    assert isinstance(here.ask(asking, Opened(2, 1, b"its start")), Taken)
    assert "duplicate" == code(here.dial(1, "b", "link")[1])
    here.end(asking)
    assert isinstance(here.dial(1, "b", "link")[1], Granted)


def test_dials_are_numbered_upwards_also_in_the_next_log_process(here: Node) -> None:
    """The peer refuses what is not above the highest it took from this start of msgd, which goes on."""
    here.add("b", "b")
    numbers = []
    for _ in range(3):
        channel, granted = here.dial(1, "b", "link")
        numbers.append(granted.dial)
        here.end(channel)
        here.clock.pass_s(0.1)
    here.restart()
    numbers.append(here.dial(1, "b", "link")[1].dial)
    assert sorted(set(numbers)) == numbers


# --- what a dial may begin ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "want", "found", "refusal"),
    [
        (lambda node: None, "link", "b", "duplicate"),
        (lambda node: node.add("b", "b"), "link", "own", "self"),
        (lambda node: node.hold(), "pair", "own", "self"),
        (lambda node: node.hold(), "link", "b", "unpaired"),
        (lambda node: node.hold(), "service", "b", "unpaired"),
        (lambda node: node.hold(send=False), "pair", "b", "duplicate"),
        (lambda node: node.add("b", "b"), "join", "b", "duplicate"),
        (lambda node: node.add("b", "b"), "pair", "b", "duplicate"),
        (lambda node: node.add("b", "b"), "link", "c", "key-changed"),
    ],
)
def test_why_no_hello_is_said(here: Node, prepare: Any, want: str, found: str, refusal: str) -> None:
    prepare(here)
    who = here.key.identity if found == "own" else identity(found)
    assert refusal == code(here.dial(1, "b", want, identity=who)[1])


def test_nothing_is_dialled_that_is_removed_or_blocked(here: Node) -> None:
    here.add("b", "b")
    here.person(PutPeer(1, "block", "eva", 1))
    assert "blocked" == code(here.dial(1, "b", "link")[1])
    assert "" == here.known(1).want
    here.person(PutPeer(1, "remove", "eva", 1))
    assert "duplicate" == code(here.dial(1, "b", "link")[1])
    assert "" == here.known(1).want


# --- keys ---------------------------------------------------------------------------------------------------


class Keys:
    """A peer's keys, each signed by the one before."""

    def __init__(self, count: int) -> None:
        self.keys = [NodeKey.generate() for _ in range(count)]
        pairs = zip(self.keys, self.keys[1:], strict=False)
        self.chain = [make_rotation(old, new) for old, new in pairs]

    def shown(self, place: int) -> dict[str, Any]:
        """What is said with the key at this place."""
        return {
            "identity": self.keys[place].identity,
            "spki": self.keys[place].spki,
            "chain": self.chain[:place],
        }


def rotated(here: Node, keys: Keys) -> int:
    """The number of a peer pinned with the first key."""
    put = PutPeer(1, "add", "eva", identity=keys.keys[0].identity, name="b", address="192.0.2.7:6743")
    number: int = here.person(put).value
    return number


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_signed_new_key_goes_on_as_the_peer_and_the_old_ones_are_retired(here: Node, steps: int) -> None:
    keys = Keys(steps + 1)
    number = rotated(here, keys)
    _, answer = here.hello("b", dial=1, **keys.shown(steps))
    assert isinstance(answer, Taken) and number == answer.peer
    assert keys.keys[-1].identity == here.peer(number).identity
    assert 1 == len(here.take_events("key.rotated"))
    here.restart()
    assert keys.keys[-1].identity == here.peer(number).identity
    for old in range(steps):
        assert "retired" == code(here.hello("b", dial=9, **keys.shown(old))[1])
    assert steps == len(here.take_events("key.retired_seen"))


def test_a_dialler_follows_the_acceptors_chain_and_says_hello(here: Node) -> None:
    keys = Keys(2)
    number = rotated(here, keys)
    _, answer = here.dial(number, "b", "link", **keys.shown(1))
    assert isinstance(answer, Granted)
    assert keys.keys[1].identity == here.peer(number).identity
    assert [] == here.take_events("peer.changed")


def test_a_link_that_stands_goes_on_under_the_new_key(here: Node) -> None:
    """The end of the old connection is the end of the link, which the new one has replaced before."""
    keys = Keys(2)
    number = rotated(here, keys)
    old, _ = here.hello("b", dial=1, **keys.shown(0))
    new, _ = here.hello("b", dial=2, **keys.shown(1))
    assert old.is_cut
    here.end(old)
    assert here.known(number).link_pid == new.pid


@pytest.mark.parametrize("broken", ["signature", "spki", "empty", "unrelated"])
def test_a_chain_that_does_not_lead_from_the_pin_to_the_key_is_not_followed(here: Node, broken: str) -> None:
    keys, others = Keys(2), Keys(2)
    number = rotated(here, keys)
    shown = keys.shown(1)
    if broken == "signature":
        spki, by_old, by_new = shown["chain"][0]
        shown["chain"] = [(spki, by_new, by_old)]
    elif broken == "spki":
        shown |= {"spki": others.keys[1].spki, "identity": others.keys[1].identity}
    elif broken == "empty":
        shown["chain"] = []
    else:
        shown = others.shown(1)
    assert "unpaired" == code(here.hello("b", **shown)[1])
    assert "key-changed" == code(here.dial(number, "b", "link", **shown)[1])
    assert keys.keys[0].identity == here.peer(number).identity


def test_the_identity_of_a_dial_must_be_that_of_the_key_in_its_proof(here: Node) -> None:
    keys = Keys(2)
    number = rotated(here, keys)
    shown = keys.shown(1) | {"identity": identity("c")}
    assert "key-changed" == code(here.dial(number, "b", "link", **shown)[1])


def test_a_retired_key_with_another_successor_is_told_and_not_followed(here: Node) -> None:
    keys = Keys(2)
    number = rotated(here, keys)
    here.hello("b", dial=1, **keys.shown(1))
    thief = NodeKey.generate()
    chain = [make_rotation(keys.keys[0], thief)]
    _, answer = here.hello("b", dial=2, identity=thief.identity, spki=thief.spki, chain=chain)
    assert "unpaired" == code(answer)
    assert 1 == len(here.take_events("key.conflict"))
    assert keys.keys[1].identity == here.peer(number).identity


def test_a_blocked_peer_stays_blocked_under_a_new_key(here: Node) -> None:
    keys = Keys(2)
    number = rotated(here, keys)
    here.person(PutPeer(1, "block", "eva", number))
    assert "blocked" == code(here.hello("b", **keys.shown(1))[1])
    assert keys.keys[1].identity == here.peer(number).identity


def test_another_key_is_one_record_until_the_pinned_one_answers(here: Node) -> None:
    """However often it is met, by a worker's report or by its question."""
    here.add("b", "b")
    for _ in range(3):
        here.ask(here.worker(), KeyFound(1, identity("c")))
        assert "key-changed" == code(here.dial(1, "c", "link")[1])
    assert ["paired", "key changed"] == here.records()
    assert 1 == len(here.take_events("peer.changed"))
    assert "key-changed" == here.links.hold_of(here.peer(1)).reason
    assert "link" == here.known(1).want, "dialling goes on"
    here.restart()
    assert identity("c") == here.peer(1).changed
    assert isinstance(here.dial(1, "b", "link")[1], Granted)
    assert ["paired", "key changed", "key returned"] == here.records()
    assert "" == here.links.hold_of(here.peer(1)).reason


# --- two nodes with one key ---------------------------------------------------------------------------------


def clone_hello(here: Node, start: bytes, dial: int) -> str:
    return code(here.hello("b", dial=dial, instance=start)[1])


def test_a_peer_with_two_live_nodes_is_told_at_the_second_refusal(here: Node) -> None:
    """The first may be a late hello of a restart; and it is not told for ever."""
    here.add("b", "b")
    first, second = b"first start.....", b"second start...."
    assert ["", "", "clone"] == [
        clone_hello(here, first, 1),
        clone_hello(here, second, 1),
        clone_hello(here, first, 2),
    ]
    assert [] == here.take_events("peer.cloned")
    assert "clone" == clone_hello(here, first, 3)
    assert "clone" == clone_hello(here, first, 4)
    assert 1 == len(here.take_events("peer.cloned"))
    assert [True] == [p.is_cloned for p in state(Snapshot(1), here.books, here.links, Indexed(0)).peers]
    here.clock.pass_s(LASTS_S + 1)
    assert [False] == [p.is_cloned for p in state(Snapshot(1), here.books, here.links, Indexed(0)).peers]


def test_this_node_hears_that_another_one_uses_its_key(here: Node) -> None:
    here.add("b", "b")
    told = []
    for _ in range(3):
        here.ask(here.worker(), DialFailed(1, "b has a link with another start", 0.0, "clone"))
        told.append(len(here.take_events("node.cloned")))
    assert [0, 1, 0] == told
    assert state(Snapshot(1), here.books, here.links, Indexed(0)).is_cloned


def full(*_: Any, **__: Any) -> None:
    """What a disk without room does."""
    raise StorageFull("no room")


# --- the disk -----------------------------------------------------------------------------------------------


def test_a_record_that_finds_no_room_is_a_refusal_that_passes(
    here: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer's new key cannot be recorded: nobody goes on with what the log does not know."""
    keys = Keys(2)
    number = rotated(here, keys)
    with monkeypatch.context() as patch:
        patch.setattr(here.books, "room", full)
        assert "closing" == code(here.hello("b", **keys.shown(1))[1])
        assert "closing" == code(here.dial(number, "b", "link", **keys.shown(1))[1])
    assert isinstance(here.hello("b", dial=2, **keys.shown(1))[1], Taken)


def test_strangers_take_a_bounded_place_among_the_arbiters(here: Node) -> None:
    """Whoever exchanges words once and goes is forgotten by and by; a peer's arbiter is not."""
    here.add("b", "b")
    link, _ = here.hello("b", dial=7)
    here.end(link)
    arbiters = here.links.arbiters
    for number in range(2000):
        arbiters.of(number.to_bytes(32, "big"))
    assert 300 > sum(1 for _ in arbiters)
    assert "duplicate" == code(here.hello("b", dial=7)[1]), "what was taken from a peer is remembered"


def test_a_refused_commit_is_said_as_closing(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker waits for an answer, whatever became of the append it stood in."""
    keys = Keys(2)
    number = rotated(here, keys)
    channel = here.worker()
    frame = MayDial(1, number, "link", **keys.shown(1))
    here.gate.admitting.may_dial(channel, frame)
    monkeypatch.setattr(here.books.store, "commit", full)
    assert not here.commit()
    assert ["closing"] == [f.code for f in channel.heard if isinstance(f, Denied)]


def test_known_only_has_no_exchange_with_strangers(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node = new_node(str(tmp_path), monkeypatch, "known-only")
    assert "off" == code(node.hello("b", "pair")[1])
    node.add("b", "b")
    assert "" == code(node.hello("b", "pair")[1]), "one that forgot us may ask: our yes is there"
