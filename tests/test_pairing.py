"""Comparing words, in the log process: acts, limits, requests, and what the persons at both ends say."""

from typing import Any

import pytest

from msgd import requests
from msgd.arbiter import FRESH_S
from msgd.log.errors import StorageFull
from msgd.requests import IN_ALL, PER_IDENTITY, PER_SOURCE, REQUESTS
from msgd.standing import PeerChange
from msgd.wire.ledger import DialFailed, Done, Granted, PutPeer, Refused, Taken
from msgd.wire.trust import (
    Act,
    Admitted,
    Decide,
    FileRequest,
    MayPair,
    OurVerdict,
    TheirVerdict,
    TrustChanged,
)
from tests.gate_world import T_HASH, WORDS, Node, Worker, code, here, identity, new_node

__all__ = ["here"]

HELD = "192.0.2.9:6743"
PHRASE = " ".join(WORDS)


def act(node: Node, number: int, *, rekey: bool = False) -> Any:
    return node.person(Act(1, number, "eva", rekey))


def exchange(node: Node, number: int, letter: str, **fields: Any) -> Worker:
    """Our own exchange with who answers, up to its words."""
    channel, granted = node.dial(number, letter)
    assert isinstance(granted, Granted), granted
    assert isinstance(node.file(channel, is_ours=True, address=HELD, **fields), Done)
    return channel


def hear(node: Node, channel: Worker, accept: bool) -> None:
    node.ask(channel, TheirVerdict(accept))


def verdicts(channel: Worker) -> list[bool]:
    return [frame.accept for frame in channel.of(OurVerdict)]


# --- acts ---------------------------------------------------------------------------------------------------


def test_each_send_to_an_address_is_an_act_that_has_it_dialled_for_words(here: Node) -> None:
    peer = here.hold()
    assert ("pair", True) == (here.known(peer.number).want, here.known(peer.number).waiting)
    assert (peer.number, True) in here.dials


def test_one_act_is_one_exchange(here: Node) -> None:
    """It is used up when a worker gets its leave, whatever comes of that; another act allows another."""
    peer = here.hold()
    channel, granted = here.dial(peer.number, "b")
    assert isinstance(granted, Granted)
    assert "" == here.known(peer.number).want
    here.end(channel)
    here.ask(channel, DialFailed(peer.number, "the connection broke", -1.0))
    assert "duplicate" == code(here.dial(peer.number, "b")[1])
    assert isinstance(act(here, peer.number), Done)
    assert isinstance(here.dial(peer.number, "b")[1], Granted)


@pytest.mark.parametrize(
    ("refusal", "again"),
    [("limit", True), ("closing", True), ("rejected", False), ("duplicate", True), ("off", False)],
)
def test_an_act_counts_again_only_when_the_other_side_had_no_time(
    here: Node, refusal: str, again: bool
) -> None:
    peer = here.hold()
    channel, _ = here.dial(peer.number, "b")
    here.end(channel)
    here.ask(channel, DialFailed(peer.number, "refused", 5.0, refusal))
    assert ("pair" if again else "") == here.known(peer.number).want


def test_an_act_outlives_the_end_of_the_exchange_before_it(here: Node) -> None:
    """The supervisor dials after an exchange only when told: also told before its worker had ended."""
    peer = here.hold()
    channel = exchange(here, peer.number, "b")
    hear(here, channel, False)
    act(here, peer.number)
    here.dials.clear()
    here.ask(channel, DialFailed(peer.number, "", -1.0))
    assert [(peer.number, True)] == here.dials
    assert isinstance(here.dial(peer.number, "b")[1], Granted)


def test_an_address_out_of_reach_does_not_use_up_the_act(here: Node) -> None:
    peer = here.hold()
    here.ask(here.worker(), DialFailed(peer.number, "no route to host", 0.0))
    assert "pair" == here.known(peer.number).want


def test_a_dial_denied_for_another_reason_keeps_the_act(here: Node) -> None:
    """Somebody's own exchange with us is open: ours is tried later, if that one fails."""
    peer = here.hold()
    theirs, _ = here.hello("b", "pair")
    assert "duplicate" == code(here.dial(peer.number, "b")[1])
    assert "pair" == here.known(peer.number).want
    here.end(theirs)
    assert isinstance(here.dial(peer.number, "b")[1], Granted)


def test_while_the_words_are_on_both_screens_nobody_asks_again(here: Node) -> None:
    """Also when the words came of the other side's exchange, from another address."""
    peer = here.hold()
    here.asked_by("b")
    assert "duplicate" == code(here.dial(peer.number, "b")[1])
    assert "" == here.known(peer.number).want
    assert [peer.number] == [r.peer for r in here.requests()]
    assert act(here, peer.number) == Done(1, False, peer.number)
    assert "" == here.known(peer.number).want


def test_after_a_start_what_waits_for_an_address_asks_again(here: Node) -> None:
    waiting, empty = here.hold(), here.hold("192.0.2.10:6743", send=False)
    here.restart()
    assert ["pair", ""] == [here.known(n).want for n in (waiting.number, empty.number)]


def test_known_only_asks_nobody(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node = new_node(str(tmp_path), monkeypatch)
    peer = node.hold()
    node.trust = "known-only"
    node.restart()
    assert "" == node.known(peer.number).want
    answer = act(node, peer.number)
    assert isinstance(answer, Refused) and "NotTrusted" == answer.name and "known-only" in answer.message


def test_acts_about_nobody_are_refused(here: Node) -> None:
    peer = here.add("b", "b")
    assert "UnknownPeer" == act(here, 99).name
    here.person(PutPeer(1, "block", "eva", peer.number))
    assert "NotTrusted" == act(here, peer.number).name
    here.person(PutPeer(1, "remove", "eva", peer.number))
    assert "UnknownPeer" == act(here, peer.number).name


def test_a_peer_with_a_link_needs_no_words(here: Node) -> None:
    peer = here.add("b", "b")
    channel, _ = here.hello("b")
    standing = here.links.standing(channel)
    assert standing is not None
    standing.ready = True
    assert act(here, peer.number) == Done(1, False, peer.number)
    assert "link" == here.known(peer.number).want


# --- who answers at an address ------------------------------------------------------------------------------


def test_a_peer_that_answers_at_an_address_gets_what_waits_there(here: Node) -> None:
    place, peer = here.hold(), here.add("b", "b")
    _, answer = here.dial(place.number, "b")
    assert ("known", "b") == (code(answer), answer.detail)
    assert (1, peer.number) == (here.peer(peer.number).out.waiting_count, here.peer(place.number).into)
    assert (peer.number, True) in here.dials
    here.restart()
    assert (1, peer.number) == (here.peer(peer.number).out.waiting_count, here.peer(place.number).into)


def test_a_peer_that_has_moved_is_dialled_where_it_answered(here: Node) -> None:
    """What was sent there waits for it; its old address may be nobody's now."""
    peer = here.add("b", "b", "192.0.2.7:6743")
    for n in (2, 3, 4, 5):
        place = here.hold(f"192.0.2.{n}:6743")
        here.dial(place.number, "b")
    others = ["192.0.2.5:6743", "192.0.2.4:6743", "192.0.2.3:6743"]
    assert ("192.0.2.7:6743", others) == (here.known(peer.number).address, here.known(peer.number).others)
    assert others == here.said[-1].peers[0].others, "the supervisor has heard of it"
    here.restart()
    assert others == here.known(peer.number).others


def test_a_blocked_peer_that_answers_gets_nothing(here: Node) -> None:
    place, peer = here.hold(), here.add("b", "b")
    here.person(PutPeer(1, "block", "eva", peer.number))
    assert "blocked" == code(here.dial(place.number, "b")[1])
    assert (0, "") == (here.peer(place.number).into, here.known(place.number).want)


def test_a_replaced_key_that_answers_exchanges_no_words(here: Node) -> None:
    place, peer = here.hold(), here.add("b", "b")
    here.gate.peering.rekey(here.peer(peer.number), identity("c"), "eva")
    assert "retired" == code(here.dial(place.number, "b")[1])


# --- limits -------------------------------------------------------------------------------------------------


def address(number: int) -> str:
    return f"203.0.113.{number}:4000"


def test_an_identity_begins_five_exchanges_in_ten_minutes(here: Node) -> None:
    answers = [here.hello("b", "pair", n, address=address(n))[1] for n in range(1, PER_IDENTITY + 2)]
    assert [""] * PER_IDENTITY + ["limit"] == [code(a) for a in answers]
    assert 600 == answers[-1].retry_s
    here.clock.pass_s(599)
    assert ("limit", 1) == (code(a := here.hello("b", "pair", 10, address=address(9))[1]), a.retry_s)
    here.clock.pass_s(1)
    assert "" == code(here.hello("b", "pair", 11, address=address(9))[1])


@pytest.mark.parametrize(
    ("sources", "is_one"),
    [
        (["198.51.100.1:1", "198.51.100.1:2", "198.51.100.1:3", "198.51.100.1:4"], True),
        (["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "[2001:db8::4]:1"], True),
        (["198.51.100.1:1", "198.51.100.2:1", "198.51.100.3:1", "198.51.100.4:1"], False),
        (["[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", "[2001:db8:0:3::1]:1", "[2001:db8:0:4::1]:1"], False),
    ],
)
def test_a_source_begins_three_exchanges(here: Node, sources: list[str], is_one: bool) -> None:
    """A source is an IPv4 address or an IPv6 /64, whatever identities it makes."""
    answers = [here.hello(chr(98 + n), "pair", address=source)[1] for n, source in enumerate(sources)]
    assert [""] * PER_SOURCE + ["limit" if is_one else ""] == [code(a) for a in answers]


def test_thirty_exchanges_begin_in_all(here: Node) -> None:
    """However many identities and sources there are; and the refused ones are told once a minute."""
    for number in range(IN_ALL):
        who = number.to_bytes(32, "big")
        assert "" == code(here.hello("?", "pair", address=address(number), identity=who)[1])
    for _ in range(5):
        assert "limit" == code(here.hello("b", "pair", address=address(99))[1])
    assert 1 == len(here.take_events("pair.limited"))
    here.clock.pass_s(60)
    here.hello("b", "pair", address=address(99))
    assert 1 == len(here.take_events("pair.limited"))


def test_a_refused_exchange_does_not_count(here: Node) -> None:
    """Else whoever asks too early would be kept out for ever."""
    for at in range(PER_SOURCE):
        here.hello(chr(98 + at), "pair")
    for _ in range(10):
        here.clock.pass_s(59)
        here.hello("x", "pair")
    here.clock.pass_s(10)
    assert "" == code(here.hello("x", "pair")[1])


def fill(node: Node) -> None:
    """As many requests as wait at a time, of as many sources."""
    for number in range(REQUESTS):
        who = number.to_bytes(32, "big")
        channel, answer = node.hello("?", "pair", address=address(number), identity=who)
        assert isinstance(answer, MayPair)
        assert isinstance(node.file(channel, is_ours=False, name="x"), Done)


def test_sixteen_requests_wait_at_a_time(here: Node) -> None:
    early, _ = here.hello("c", "pair", address=address(98))
    fill(here)
    assert REQUESTS == len(here.requests())
    assert "limit" == code(here.hello("b", "pair", address=address(99))[1])
    assert "limit" == code(here.file(early, is_ours=False)), "it took too long"
    first = (0).to_bytes(32, "big")
    assert "" == code(here.hello("?", "pair", 2, address=address(97), identity=first)[1]), (
        "it replaces its own"
    )
    assert REQUESTS == len(here.requests())


def test_this_node_can_always_ask_itself(here: Node) -> None:
    """A flood of requests does not keep its own people from pairing: the oldest foreign one goes."""
    peer = here.hold()
    fill(here)
    exchange(here, peer.number, "b")
    found = here.requests()
    assert REQUESTS == len(found)
    assert identity("b") == found[-1].identity and (0).to_bytes(32, "big") != found[0].identity
    other = here.hold("192.0.2.10:6743")
    exchange(here, other.number, "c")
    assert [True, True] == [r.is_ours for r in here.requests()][-2:], "and not those of its own people"


def test_this_nodes_own_request_outlives_a_flood(here: Node) -> None:
    exchange(here, here.hold().number, "b")
    for number in range(REQUESTS - 1):
        who = number.to_bytes(32, "big")
        channel, _ = here.hello("?", "pair", address=address(number), identity=who)
        here.file(channel, is_ours=False, name="x")
    exchange(here, here.hold("192.0.2.10:6743").number, "c")
    assert {identity("b"), identity("c")} == {r.identity for r in here.requests() if r.is_ours}


def test_an_exchange_in_an_append_that_found_no_room_is_refused(
    here: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood beside somebody's record; its worker waits for an answer all the same."""

    def full(*_: Any) -> None:
        raise StorageFull("no room")

    channel, _ = here.hello("b", "pair")
    here.books.change_node(PeerChange("rejected", identity("c"), "c"))
    with monkeypatch.context() as patch:
        patch.setattr(here.books.store, "commit", full)
        assert "closing" == code(here.file(channel, is_ours=False))
        here.books.change_node(PeerChange("rejected", identity("c"), "c"))
        assert "closing" == code(here.hello("d", "pair")[1])


def test_the_tables_stay_small_whoever_knocks(here: Node) -> None:
    for number in range(500):
        here.clock.pass_s(7)
        who = number.to_bytes(32, "big")
        channel, answer = here.hello("?", "pair", address=address(number % 250), identity=who)
        if isinstance(answer, MayPair):
            here.file(channel, is_ours=False, name="x")
    assert len(here.gate.pairing.requests) <= REQUESTS
    assert len(here.gate.pairing.limits._begun) <= IN_ALL
    assert [] == here.records(), "a stranger writes nothing into the log"


# --- requests -----------------------------------------------------------------------------------------------


def test_an_exchange_that_others_began_is_filed_before_it_is_revealed(here: Node) -> None:
    channel, answer = here.hello("b", "pair")
    assert MayPair(1, False, 0) == answer
    assert isinstance(here.file(channel, is_ours=False), Done)
    assert Admitted(channel.pid, "pair") in here.said
    (request,) = here.requests()
    assert (identity("b"), "node-b", WORDS, False, "") == (
        request.identity,
        request.name,
        request.words,
        request.is_ours,
        request.theirs,
    )
    assert [PHRASE] == [e["words"] for e in here.take_events("pair.requested")]


def test_a_newer_exchange_of_an_identity_replaces_its_request(here: Node) -> None:
    first = here.asked_by("b")
    second, _ = here.hello("b", "pair", 2)
    assert not first.is_cut, "only once its words are known"
    here.file(second, is_ours=False, words=["other", "words", "than", "before"])
    assert first.is_cut
    (request,) = here.requests()
    assert ["other", "words", "than", "before"] == request.words
    here.end(first)
    hear(here, second, True)
    assert ["accepted"] == [r.theirs for r in here.requests()]


def test_a_worker_files_only_what_it_may(here: Node) -> None:
    """One without an exchange, one about somebody else, one that was replaced."""
    stray = here.worker()
    frame = FileRequest(2, identity("b"), "b", HELD, WORDS, T_HASH, True, 0)
    assert "duplicate" == code(here.ask(stray, frame))
    channel, _ = here.hello("c", "pair")
    assert "duplicate" == code(here.ask(channel, frame))
    newer, _ = here.hello("c", "pair", 2)
    assert channel.is_cut
    assert "duplicate" == code(here.file(channel, is_ours=False))
    assert isinstance(here.file(newer, is_ours=False), Done)


def test_a_request_waits_ten_minutes_whatever_the_wall_clock_does(here: Node) -> None:
    channel = here.asked_by("b")
    here.clock.wall += 10**18
    here.clock.pass_s(599)
    assert 1 == len(here.requests())
    here.clock.pass_s(1)
    here.gate.expire()
    here.commit()
    assert [] == here.requests()
    assert channel.is_cut
    assert 1 == len(here.take_events("pair.expired"))
    assert isinstance(here.decide("b", True), Refused)


def test_the_loop_is_told_when_to_look_again(here: Node) -> None:
    assert here.gate.next_expiry_s() is None
    here.asked_by("b")
    here.clock.pass_s(400)
    assert 200.0 == here.gate.next_expiry_s()


def test_a_request_about_a_held_address_is_known_by_that_address(here: Node) -> None:
    peer = here.hold("198.51.100.1:6743")
    here.asked_by("b")
    assert [peer.number] == [r.peer for r in here.requests()]


def test_a_name_of_another_peer_is_marked(here: Node) -> None:
    here.add("c", "node-b")
    here.asked_by("b")
    assert ["node-b"] == [r.conflict for r in here.requests()]


def test_whoever_watches_the_address_hears_of_every_step(here: Node) -> None:
    peer = here.hold()
    watcher = Worker("control")
    watcher.watching.add(peer.number)
    here.books.watchers.add(watcher)
    steps: list[Any] = [
        lambda: exchange(here, peer.number, "b"),
        lambda: hear(here, next(iter(here.gate.pairing.exchanges.values())).channel, True),  # type: ignore[arg-type]
        lambda: here.decide("b", True),
        lambda: here.ask(here.worker(), DialFailed(peer.number, "refused", 0.0)),
    ]
    for step in steps:
        watcher.heard.clear()
        step()
        assert TrustChanged(peer.number) in watcher.heard


# --- decisions ----------------------------------------------------------------------------------------------


def test_a_yes_is_a_record_with_user_words_and_transcript_then_a_verdict(here: Node) -> None:
    channel = here.asked_by("b")
    answer = here.decide("b", True, name="ana")
    peer = here.peer(answer.value)
    assert ("ana", "198.51.100.1:6743", "words", True) == (peer.name, peer.address, peer.how, peer.pinned)
    assert [True] == verdicts(channel)
    header = next(h for h in here.books.reader.headers() if h.kind == 7)
    written = bytes(here.books.reader.record(header.offset).payload)
    assert all(part in written for part in (b"eva", PHRASE.encode(), T_HASH, identity("b")))
    assert [("eva", "words", "ana")] == [
        (e["user"], e["how"], e["peer"]) for e in here.take_events("pair.accepted")
    ]


def test_a_no_is_a_record_then_a_verdict_and_nobody_becomes_a_peer(here: Node) -> None:
    channel = here.asked_by("b")
    assert isinstance(here.decide("b", False, words=""), Done)
    assert [False] == verdicts(channel)
    assert ["rejected"] == here.records()
    assert ({}, []) == (here.books.delivery.peers, here.requests())
    assert ["eva"] == [e["user"] for e in here.take_events("pair.rejected")]
    here.restart()
    assert {} == here.books.delivery.peers


def test_asking_again_lifts_our_own_no(here: Node) -> None:
    """A person here who changes his mind asks; the other one need not wait an hour."""
    peer = here.hold()
    here.asked_by("b")
    here.decide("b", False)
    exchange(here, peer.number, "b")
    assert "pending" == code(here.hello("b", dial=5)[1])


@pytest.mark.parametrize(
    "words", ["", "receive action stone", "hire stone action receive", "receive action stone hire hire"]
)
def test_other_words_than_those_of_the_request_are_no_yes(here: Node, words: str) -> None:
    channel = here.asked_by("b")
    answer = here.decide("b", True, words=words)
    assert isinstance(answer, Refused) and "words" in answer.message
    assert ([], {}) == (verdicts(channel), here.books.delivery.peers)
    assert isinstance(here.decide("b", True, words=" Receive  ACTION stone hire "), Done)


def test_a_yes_to_words_that_were_replaced_meanwhile_is_refused(here: Node) -> None:
    here.asked_by("b")
    second, _ = here.hello("b", "pair", 2)
    here.file(second, is_ours=False, words=["other", "words", "than", "before"])
    assert isinstance(here.decide("b", True), Refused)


def test_nobody_can_be_accepted_who_does_not_ask(here: Node) -> None:
    assert isinstance(here.decide("b", True), Refused)
    assert isinstance(here.decide("b", False), Refused)


def test_a_name_that_is_taken_is_refused_with_both_ways_on(here: Node) -> None:
    here.add("c", "node-b")
    here.asked_by("b")
    answer = here.decide("b", True)
    assert isinstance(answer, Refused)
    assert "name" in answer.message and "rekey node-b" in answer.hint
    assert isinstance(here.decide("b", True, name="bad name"), Refused)
    assert isinstance(here.decide("b", True, name="other"), Done)


def test_a_yes_makes_the_held_address_the_peer_with_its_messages(here: Node) -> None:
    place = here.hold()
    exchange(here, place.number, "b")
    answer = here.decide("b", True)
    peer = here.peer(place.number)
    assert (place.number, "node-b", HELD, 1) == (
        answer.value,
        peer.name,
        peer.address,
        peer.out.waiting_count,
    )


def test_a_yes_lets_what_waits_for_other_addresses_of_the_same_node_flow(here: Node) -> None:
    """The words were known when the others were tried, so nothing else of them will ever be asked."""
    place, other, stranger = here.hold(), here.hold("192.0.2.10:6743"), here.hold("192.0.2.11:6743")
    exchange(here, place.number, "b")
    assert "duplicate" == code(here.dial(other.number, "b")[1])
    exchange(here, stranger.number, "c")
    places = [asked.places for asked in here.requests()]
    assert [[place.number, other.number], [stranger.number]] == places
    assert not act(here, other.number).changed, "its words are on the screen"
    here.decide("b", True)
    assert (place.number, 0) == (here.peer(other.number).into, here.peer(stranger.number).into)
    assert 2 == here.peer(place.number).out.waiting_count


def test_a_link_lets_what_waits_where_that_peer_answers_flow(here: Node) -> None:
    """However it became one: here its request has expired, and a person typed its key."""
    place = here.hold()
    exchange(here, place.number, "b")
    here.clock.pass_s(601)
    peer = here.add("b", "b")
    assert 0 == here.peer(place.number).into
    here.gate.link_stands(peer)
    here.commit()
    assert (peer.number, 1) == (here.peer(place.number).into, here.peer(peer.number).out.waiting_count)


def test_who_asks_from_a_held_address_takes_over_what_waits_there(here: Node) -> None:
    first, second = here.hold("198.51.100.1:6743"), here.hold()
    exchange(here, second.number, "b", name="node-b")
    here.clock.pass_s(FRESH_S + 1)  # no late hello any more
    here.asked_by("b")
    answer = here.decide("b", True)
    assert [2] == [here.peer(answer.value).out.waiting_count]
    assert {answer.value} == {here.peer(n).into or n for n in (first.number, second.number)}


def test_a_removed_peer_gets_its_number_again(here: Node) -> None:
    number = here.add("b", "b").number
    here.person(PutPeer(1, "remove", "eva", number))
    here.asked_by("b")
    assert number == here.decide("b", True).value


# --- both verdicts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("is_ours", [True, False])
def test_with_two_yeses_who_began_dials_and_the_request_is_over(
    here: Node, is_ours: bool, ours_first: bool
) -> None:
    place = here.hold()
    channel = exchange(here, place.number, "b") if is_ours else here.asked_by("b", address="192.0.2.9:4000")
    here.dials.clear()
    if ours_first:
        number = here.decide("b", True).value
        assert "" == here.known(number).want, "the verdict comes on this connection"
        assert "unpaired" == here.links.hold_of(here.peer(number)).reason
        hear(here, channel, True)
    else:
        hear(here, channel, True)
        assert ["accepted"] == [r.theirs for r in here.requests()]
        number = here.decide("b", True).value
    assert [True] == verdicts(channel)
    assert [] == here.requests()
    assert ("link", "") == (here.known(number).want, here.links.hold_of(here.peer(number)).reason)
    assert is_ours == ((number, True) in here.dials)


def test_when_the_connection_is_gone_who_accepts_last_dials(here: Node) -> None:
    channel = here.asked_by("b")
    hear(here, channel, True)
    here.end(channel)
    number = here.decide("b", True).value
    assert (number, True) in here.dials
    assert "198.51.100.1:6743" == here.known(number).address


def test_an_accepted_peer_is_dialled_once_the_connection_is_gone(here: Node) -> None:
    """Its next refusal or welcome shows what the person there has said."""
    channel = here.asked_by("b")
    number = here.decide("b", True).value
    here.end(channel)
    assert "link" == here.known(number).want
    assert ["node-b"] == [r.name for r in here.requests()], "it still waits for the other yes"
    _, answer = here.hello("b", dial=3)
    assert isinstance(answer, Taken)
    here.gate.link_stands(here.peer(number))
    here.commit()
    assert [] == here.requests()


def test_a_request_that_is_over_there_is_over_here(here: Node) -> None:
    """Else a person here would wait for a yes that nobody there is asked for any more."""
    channel = here.asked_by("b")
    number = here.decide("b", True).value
    here.end(channel)
    here.person(DialFailed(number, "it has our request", 0.0, "pending"))
    assert ["node-b"] == [r.name for r in here.requests()]
    here.person(DialFailed(number, "it has not accepted us", 60.0, "unpaired"))
    assert [] == here.requests()
    assert "msgctl pair ask node-b" in here.links.hold_of(here.peer(number)).detail


def test_their_no_is_shown_and_holds_what_waits(here: Node) -> None:
    place = here.hold()
    channel = exchange(here, place.number, "b")
    hear(here, channel, False)
    assert ["rejected"] == [r.theirs for r in here.requests()]
    assert 1 == len(here.take_events("pair.rejected_by_peer"))
    number = here.decide("b", True).value
    assert "unpaired" == here.links.hold_of(here.peer(number)).reason
    assert act(here, number) == Done(1, True, number), "a person may ask again"


def test_verdicts_of_others_are_not_heard(here: Node) -> None:
    """A worker without an exchange, or before its words are known."""
    channel, _ = here.hello("b", "pair")
    hear(here, channel, True)
    hear(here, here.worker(), True)
    here.file(channel, is_ours=False)
    assert [""] == [r.theirs for r in here.requests()]


# --- one that forgot the other ------------------------------------------------------------------------------


def test_a_peer_that_forgot_us_has_our_yes_at_once(here: Node) -> None:
    peer = here.add("b", "b")
    channel, answer = here.hello("b", "pair")
    assert MayPair(1, True, peer.number) == answer
    here.file(channel, is_ours=False)
    assert [(peer.number, WORDS)] == [(r.peer, r.words) for r in here.requests()], "words for that person"
    hear(here, channel, True)
    assert [] == here.requests()
    assert ["paired"] == here.records(), "our log says so already"


def test_asking_one_that_forgot_us_says_our_yes_by_itself(here: Node) -> None:
    peer = here.add("b", "b")
    act(here, peer.number)
    assert "pair" == here.known(peer.number).want
    channel = exchange(here, peer.number, "b")
    assert [True] == verdicts(channel)
    hear(here, channel, True)
    assert (peer.number, True) in here.dials
    assert "link" == here.known(peer.number).want


def test_asking_a_peer_whose_key_changed_needs_rekey(here: Node) -> None:
    peer = here.add("b", "b")
    act(here, peer.number)
    assert "key-changed" == code(here.dial(peer.number, "c")[1])


# --- rekey --------------------------------------------------------------------------------------------------


def test_rekey_replaces_the_key_after_comparing_words(here: Node) -> None:
    peer = here.add("b", "b")
    act(here, peer.number, rekey=True)
    channel = exchange(here, peer.number, "c", name="b")
    assert [(True, peer.number, "")] == [(r.rekey, r.peer, r.theirs) for r in here.requests()]
    assert identity("b") == here.peer(peer.number).identity, "until a person says yes"
    assert peer.number == here.decide("c", True).value
    assert [True] == verdicts(channel)
    here.restart()
    assert (identity("c"), [identity("b")], "b") == (
        here.peer(peer.number).identity,
        here.peer(peer.number).retired,
        here.peer(peer.number).name,
    )
    assert ["paired", "rekeyed"] == here.records()
    assert "retired" == code(here.hello("b", dial=1)[1])


def test_rekey_can_be_undone(here: Node) -> None:
    peer = here.add("b", "b")
    for letter in ("c", "b"):
        act(here, peer.number, rekey=True)
        exchange(here, peer.number, letter, name="b")
        here.decide(letter, True)
        here.gate.pairing.drop(identity(letter), "done")
    assert identity("b") == here.peer(peer.number).identity
    assert isinstance(here.hello("b", dial=1)[1], Taken)
    assert "retired" == code(here.hello("c", dial=1)[1])


def test_rekey_where_the_new_key_has_asked_already_uses_its_words(here: Node) -> None:
    peer = here.add("b", "b")
    here.asked_by("c", name="b")
    act(here, peer.number, rekey=True)
    assert "duplicate" == code(here.dial(peer.number, "c")[1])
    assert [(True, peer.number)] == [(r.rekey, r.peer) for r in here.requests()]
    here.decide("c", True)
    assert identity("c") == here.peer(peer.number).identity


def test_rekey_where_the_pinned_key_answers_changes_nothing(here: Node) -> None:
    peer = here.add("b", "b")
    here.gate.peering.note_changed(here.peer(peer.number), identity("c"))
    act(here, peer.number, rekey=True)
    assert "known" == code(here.dial(peer.number, "b")[1])
    assert (b"", "link") == (here.peer(peer.number).changed, here.known(peer.number).want)


def test_rekey_to_the_key_of_another_peer_is_refused(here: Node) -> None:
    peer, other = here.add("b", "b"), here.add("c", "c", "192.0.2.8:6743")
    act(here, peer.number, rekey=True)
    _, answer = here.dial(peer.number, "c")
    assert ("known", "c") == (code(answer), answer.detail)
    assert [identity("b"), identity("c")] == [here.peer(n).identity for n in (peer.number, other.number)]


def test_a_no_to_a_new_key_keeps_the_old_one(here: Node) -> None:
    peer = here.add("b", "b")
    act(here, peer.number, rekey=True)
    exchange(here, peer.number, "c", name="b")
    here.decide("c", False)
    assert (identity("b"), ["paired", "rejected"]) == (here.peer(peer.number).identity, here.records())


# --- first use ----------------------------------------------------------------------------------------------


@pytest.fixture
def trusting(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Node:
    return new_node(str(tmp_path), monkeypatch, "first-use")


def test_first_use_accepts_whom_somebody_here_sends_to(trusting: Node) -> None:
    place = trusting.hold()
    channel = exchange(trusting, place.number, "b")
    peer = trusting.peer(place.number)
    assert (True, "first-use", [True]) == (peer.pinned, peer.how, verdicts(channel))
    assert ["eva"] == [e["user"] for e in trusting.take_events("pair.accepted")]
    assert ["node-b"] == [r.name for r in trusting.requests()], "the other side still decides"


def test_first_use_accepts_nobody_who_asks(trusting: Node) -> None:
    channel = trusting.asked_by("b")
    assert ([], {}) == (verdicts(channel), trusting.books.delivery.peers)


def test_first_use_takes_no_new_key(trusting: Node) -> None:
    peer = trusting.add("b", "b")
    act(trusting, peer.number, rekey=True)
    channel = exchange(trusting, peer.number, "c", name="b")
    assert ([], identity("b")) == (verdicts(channel), trusting.peer(peer.number).identity)


def test_first_use_finds_another_name_when_the_proposed_one_is_taken(trusting: Node) -> None:
    trusting.add("c", "node-b", "192.0.2.8:6743")
    place = trusting.hold()
    exchange(trusting, place.number, "b")
    assert "node-b-2" == trusting.peer(place.number).name


# --- what else a person does --------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["block", "remove"])
def test_blocking_or_removing_a_peer_ends_what_is_under_way(here: Node, action: str) -> None:
    peer = here.add("b", "b")
    channel = here.asked_by("b")
    here.person(PutPeer(1, action, "eva", peer.number))
    assert channel.is_cut
    assert [] == here.requests()


def test_adding_by_key_is_a_yes_to_the_words_that_wait(here: Node) -> None:
    channel = here.asked_by("b")
    hear(here, channel, True)
    here.add("b", "b")
    assert ([True], []) == (verdicts(channel), here.requests())


def test_retry_of_an_address_asks_again(here: Node) -> None:
    place = here.hold()
    channel, _ = here.dial(place.number, "b")
    here.end(channel)
    here.gate.nudge(place.number)
    assert "pair" == here.known(place.number).want


# --- a kill, a full disk ------------------------------------------------------------------------------------


def test_killed_before_the_commit_a_yes_was_none(here: Node) -> None:
    channel = here.asked_by("b")
    person = Worker("control")
    here.gate.pairing.decide(person, Decide(1, identity("b"), PHRASE, True, "eva"))
    assert ([], []) == (verdicts(channel), person.heard), "nobody has heard it"
    here.restart()
    assert ({}, "unpaired") == (here.books.delivery.peers, code(here.hello("b")[1]))


def test_killed_after_the_commit_a_yes_holds_though_nobody_heard_it(here: Node) -> None:
    here.asked_by("b")
    number = here.decide("b", True).value
    here.restart()
    assert ("link", True) == (here.known(number).want, here.peer(number).pinned)
    assert isinstance(here.hello("b", dial=2)[1], Taken)


def test_a_full_disk_says_no_verdict_and_the_request_waits_on(
    here: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = here.asked_by("b")

    def full(*_: Any) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(here.books.store, "commit", full)
        assert "StorageRefused" == here.decide("b", True).name
    assert ([], {}) == (verdicts(channel), here.books.delivery.peers)
    assert 1 == len(here.requests())


def test_limits_are_those_of_the_protocol() -> None:
    """Its section 6a, 8: stated here once more, so that none is changed by the way."""
    assert (16, 600, 600, 5, 3, 30, 3600) == (
        REQUESTS,
        requests.REQUEST_NS // 10**9,
        requests.WINDOW_NS // 10**9,
        PER_IDENTITY,
        PER_SOURCE,
        IN_ALL,
        requests.REJECTED_NS // 10**9,
    )
