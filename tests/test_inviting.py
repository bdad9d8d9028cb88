"""Invitations, at both ends: every refusal, one use, restarts between record and answer."""

from typing import Any

import pytest

from msgd.inviting import MAX_TTL_NS, OPEN, PATIENCE_NS
from msgd.log.errors import StorageFull
from msgd.trust.identity import identity_text
from msgd.trust.invitation import join_proof
from msgd.wire.ledger import DialFailed, Done, Granted, PutPeer, Refused, TakeHello, Taken
from msgd.wire.trust import Invite, Invited, JoinDone, MayJoin, PutJoin, Rotate
from tests.gate_world import S_NS, Node, Worker, code, here, identity

__all__ = ["here"]

TTL_NS = 600 * S_NS
GREET = b"g" * 32


def invite(node: Node, ttl_ns: int = TTL_NS) -> Invited:
    made = node.person(Invite(1, "eva", ttl_ns))
    assert isinstance(made, Invited), made
    return made


def asking(node: Node, made: Invited, letter: str, **fields: Any) -> dict[str, Any]:
    """What a hello that wants to join says, with a good proof unless told otherwise."""
    proof = join_proof(made.secret, node.key.identity, identity(letter), GREET)
    given = {"invitation": made.invitation, "proof": proof, "greet_hash": GREET}
    return given | fields


def join(node: Node, made: Invited, letter: str = "b", **fields: Any) -> tuple[Worker, Any]:
    return node.hello(letter, "join", **asking(node, made, letter, **fields))


def detail(answer: Any) -> str:
    assert "invitation" == code(answer), answer
    text: str = answer.detail
    return text


# --- the inviter --------------------------------------------------------------------------------------------


def test_a_good_proof_is_a_pin_and_a_redemption_in_one_record(here: Node) -> None:
    made = invite(here)
    _, answer = join(here, made)
    peer = here.peer(answer.peer)
    assert MayJoin(1, peer.number) == answer
    assert (identity("b"), "node-b", "198.51.100.1:6743", "invitation") == (
        peer.identity,
        peer.name,
        peer.address,
        peer.how,
    )
    assert ["invited", "paired"] == here.records()
    assert identity("b") == here.books.delivery.invitations[made.invitation].used_by
    assert ["node-b"] == [e["peer"] for e in here.take_events("invitation.used")]


def test_joining_again_is_joined_again(here: Node) -> None:
    """The answer may have been lost; whoever is a peer needs no invitation."""
    made = invite(here)
    join(here, made)
    assert isinstance(join(here, made)[1], MayJoin)
    here.restart()
    assert isinstance(join(here, made, proof=bytes(32))[1], MayJoin)
    assert ["invited", "paired"] == here.records()


def test_an_unknown_invitation_costs_no_record(here: Node) -> None:
    made = invite(here)
    made.invitation = b"another1"
    for _ in range(5):
        assert "unknown" == detail(join(here, made)[1])
    assert ["invited"] == here.records()


def test_used_names_the_identity_that_used_it(here: Node) -> None:
    made = invite(here)
    join(here, made)
    here.restart()
    _, answer = join(here, made, "c")
    assert f"used {identity_text(identity('b'))}" == detail(answer)
    assert len(answer.detail.encode()) <= 200


def test_the_third_wrong_proof_ends_an_invitation(here: Node) -> None:
    """Counted in the log, so that no restart gives new tries; afterwards the right proof is too late."""
    made = invite(here)
    assert "wrong" == detail(join(here, made, proof=bytes(32))[1])
    here.restart()
    assert "wrong" == detail(join(here, made, "c", proof=bytes(32))[1])
    here.restart()
    assert "wrong" == detail(join(here, made, proof=bytes(32))[1])
    assert "dead" == detail(join(here, made)[1])
    here.restart()
    assert "dead" == detail(join(here, made)[1])
    assert ["invited", "wrong proof", "wrong proof", "wrong proof", "invitation ended"] == here.records()
    assert [] == list(here.books.delivery.live())


def test_two_wrong_proofs_leave_it_usable(here: Node) -> None:
    made = invite(here)
    for _ in range(2):
        join(here, made, proof=bytes(32))
    assert isinstance(join(here, made)[1], MayJoin)


@pytest.mark.parametrize("wrong", ["secret", "acceptor", "dialler", "greet"])
def test_a_proof_fits_one_secret_one_pair_and_one_connection(here: Node, wrong: str) -> None:
    made = invite(here)
    parts = {
        "secret": made.secret,
        "acceptor": here.key.identity,
        "dialler": identity("b"),
        "greet": GREET,
    } | {wrong: b"x" * (16 if wrong == "secret" else 32)}
    assert "wrong" == detail(join(here, made, proof=join_proof(*parts.values()))[1])


def test_boottime_decides_when_it_expires(here: Node) -> None:
    """The wall clock may jump as it likes."""
    made = invite(here)
    here.clock.wall += 10**18
    here.clock.boot += 599 * S_NS
    assert isinstance(join(here, made)[1], MayJoin)
    late = invite(here)
    here.clock.wall -= 2 * 10**18
    here.clock.boot += 600 * S_NS
    assert "expired" == detail(join(here, late, "c")[1])


@pytest.mark.parametrize(("passed_s", "answer"), [(-10_000, ""), (599, ""), (601, "invitation")])
def test_after_a_start_of_the_machine_the_wall_clock_decides(here: Node, passed_s: int, answer: str) -> None:
    """One that was set back makes it no older than new."""
    made = invite(here)
    here.clock.boot = 7 * S_NS
    here.clock.wall += passed_s * S_NS
    here.restart(boot=b"boot-two")
    assert answer == code(join(here, made)[1])


def test_a_restart_of_msgd_alone_changes_nothing_about_its_age(here: Node) -> None:
    made = invite(here)
    here.clock.wall += 10**18
    here.restart()
    assert isinstance(join(here, made)[1], MayJoin)


def test_what_has_expired_is_noted_once(here: Node) -> None:
    invite(here)
    here.clock.pass_s(601)
    for _ in range(3):
        here.gate.expire()
        here.clock.pass_s(2)
        here.commit()
    assert ["invited", "invitation ended"] == here.records()
    assert ["expired"] == [e["reason"] for e in here.take_events("invitation.ended")]


def test_at_most_64_invitations_are_open(here: Node) -> None:
    made = [invite(here) for _ in range(OPEN)]
    refused = here.person(Invite(1, "eva", TTL_NS))
    assert isinstance(refused, Refused) and "64" in refused.message
    join(here, made[0])
    invite(here)
    here.clock.pass_s(601)
    invite(here)


@pytest.mark.parametrize("ttl_ns", [0, -1, S_NS - 1, MAX_TTL_NS + 1])
def test_a_senseless_time_to_live_is_refused(here: Node, ttl_ns: int) -> None:
    assert isinstance(here.person(Invite(1, "eva", ttl_ns)), Refused)
    assert [] == here.records()


def test_who_joins_takes_over_what_waits_at_its_address(here: Node) -> None:
    place = here.hold("198.51.100.1:6743")
    _, answer = join(here, invite(here))
    assert (place.number, 1) == (answer.peer, here.peer(answer.peer).out.waiting_count)


@pytest.mark.parametrize(("port", "address"), [(7000, "198.51.100.1:7000"), (0, "")])
def test_who_joins_is_dialled_where_it_listens(here: Node, port: int, address: str) -> None:
    _, answer = join(here, invite(here), port=port)
    assert address == here.peer(answer.peer).address


def test_a_taken_name_gets_a_number(here: Node) -> None:
    here.add("c", "node-b")
    _, answer = join(here, invite(here))
    assert "node-b-2" == here.peer(answer.peer).name


def test_a_removed_peer_that_joins_is_the_same_peer(here: Node) -> None:
    number = here.add("b", "bea").number
    here.person(PutPeer(1, "remove", "eva", number))
    _, answer = join(here, invite(here))
    assert (number, "bea") == (answer.peer, here.peer(number).name)


def test_an_invitation_overrides_an_earlier_no_but_no_block(here: Node) -> None:
    here.asked_by("b")
    here.decide("b", False)
    made = invite(here)
    _, answer = join(here, made, dial=5)
    assert isinstance(answer, MayJoin)
    here.person(PutPeer(1, "block", "eva", answer.peer))
    assert "blocked" == code(join(here, made, dial=6)[1])


def test_rotating_the_key_ends_open_invitations(here: Node) -> None:
    made = invite(here)
    assert isinstance(here.person(Rotate(1, "eva")), Done)
    here.key = here.gate.rotating._load()
    assert "expired" == detail(join(here, made)[1])


# --- the inviter's restarts ---------------------------------------------------------------------------------


def test_killed_before_the_commit_nothing_was_redeemed(here: Node) -> None:
    made = invite(here)
    channel = here.worker()
    frame = TakeHello(
        1, identity("b"), b"start of this one"[:16], 1, "198.51.100.1:4", "join", "node-b", 6743
    )
    for name, value in asking(here, made, "b").items():
        setattr(frame, name, value)
    here.gate.admitting.take_hello(channel, frame)
    assert [] == channel.heard, "joined is said after the commit"
    here.restart()
    assert "" == here.books.delivery.invitations[made.invitation].ended
    assert isinstance(join(here, made)[1], MayJoin)


def test_a_full_disk_redeems_nothing_and_says_so(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    made = invite(here)

    def full(*_: Any) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(here.books.store, "commit", full)
        assert "closing" == code(join(here, made)[1])
    assert ("", {}) == (here.books.delivery.invitations[made.invitation].ended, here.books.delivery.peers)


def test_killed_after_the_commit_both_pin_and_redemption_stand(here: Node) -> None:
    made = invite(here)
    join(here, made)
    here.restart()
    assert identity("b") == here.books.delivery.invitations[made.invitation].used_by
    assert isinstance(here.hello("b", dial=9)[1], Taken)


# --- the joiner ---------------------------------------------------------------------------------------------

ADDRESSES = ["192.0.2.30:6743", "192.0.2.31:6743"]


def put_join(node: Node, letter: str = "i", invitation: bytes = b"the-id-1", **fields: Any) -> Any:
    expires_s = node.clock.wall // S_NS + 600
    who = fields.pop("identity", identity(letter))
    frame = PutJoin(1, "eva", who, invitation, b"s" * 16, expires_s, list(ADDRESSES), **fields)
    return node.person(frame)


def test_a_join_pins_and_is_dialled_at_each_address(here: Node) -> None:
    done = put_join(here)
    assert done.changed
    known = here.known(done.value)
    assert ("join", *ADDRESSES) == (known.want, known.address, *known.others)
    assert f"node-{identity_text(identity('i'))[:7].lower()}" == known.name
    assert ["joining"] == here.records()
    here.restart()
    assert "join" == here.known(done.value).want
    _, granted = here.dial(done.value, "i", "join")
    assert isinstance(granted, Granted)
    assert (b"the-id-1", b"s" * 16) == (granted.invitation, granted.secret)


def test_the_secret_goes_only_to_the_identity_in_the_string(here: Node) -> None:
    """Before the proof is made: a man in the middle gets no hello."""
    done = put_join(here)
    assert "key-changed" == code(here.dial(done.value, "x", "join")[1])


def test_joined_takes_the_proposed_name_unless_a_person_gave_one(here: Node) -> None:
    for letter, given, name in (("i", "", "inviter"), ("j", "mine", "mine"), ("k", "", "inviter-2")):
        done = put_join(here, letter, letter.encode() * 8, name=given)
        channel, _ = here.dial(done.value, letter, "join")
        assert isinstance(here.ask(channel, JoinDone(2, done.value, "inviter")), Done)
        here.end(channel)
        assert (name, None, "link") == (
            here.peer(done.value).name,
            here.peer(done.value).joining,
            here.known(done.value).want,
        )
        assert (done.value, True) in here.dials
    assert 3 == len(here.take_events("join.done"))


def test_running_join_again_is_safe(here: Node) -> None:
    done = put_join(here)
    again = put_join(here)
    assert (done.value, False) == (again.value, again.changed)
    channel, _ = here.dial(done.value, "i", "join")
    here.ask(channel, JoinDone(2, done.value, "inviter"))
    here.end(channel)
    link, _ = here.hello("i")
    standing = here.links.standing(link)
    assert standing is not None
    standing.ready = True
    assert not put_join(here).changed, "both know each other"
    assert 2 == len(here.records())


def test_another_invitation_of_the_same_node_replaces_the_first(here: Node) -> None:
    number = put_join(here).value
    assert put_join(here, invitation=b"the-id-2").changed
    _, granted = here.dial(number, "i", "join")
    assert b"the-id-2" == granted.invitation


def test_a_final_refusal_takes_the_pin_back(here: Node) -> None:
    number = put_join(here).value
    here.ask(here.worker(), DialFailed(number, "refused", -1.0, "invitation", "expired"))
    assert ["joining", "unjoined", "removed"] == here.records()
    assert ["expired"] == [e["reason"] for e in here.take_events("join.refused")]
    assert "unpaired" == code(here.hello("i")[1])
    here.restart()
    assert [] == list(here.books.delivery.live())


def test_a_refused_join_leaves_an_address_and_its_messages_as_they_were(here: Node) -> None:
    place = here.hold(ADDRESSES[0])
    number = put_join(here).value
    assert (place.number, True, "join") == (number, here.peer(number).pinned, here.known(number).want)
    here.ask(here.worker(), DialFailed(number, "refused", -1.0, "invitation", "wrong"))
    for _ in range(2):
        peer = here.peer(number)
        assert (False, b"", ADDRESSES[0], 1) == (
            peer.pinned,
            peer.identity,
            peer.name,
            peer.out.waiting_count,
        )
        here.restart()


def test_a_refused_join_of_a_peer_keeps_the_peer(here: Node) -> None:
    """It may have forgotten us, and this invitation was the wrong one: the pin is older."""
    number = here.add("i", "ina").number
    assert number == put_join(here).value
    here.ask(here.worker(), DialFailed(number, "refused", -1.0, "invitation", "dead"))
    assert (True, "ina", None) == (
        here.peer(number).pinned,
        here.peer(number).name,
        here.peer(number).joining,
    )
    assert "link" == here.known(number).want


@pytest.mark.parametrize("refusal", ["", "limit", "closing", "duplicate", "version"])
def test_other_failures_are_tried_again(here: Node, refusal: str) -> None:
    number = put_join(here).value
    here.ask(here.worker(), DialFailed(number, "failed", 0.0, refusal))
    assert "join" == here.known(number).want


def test_after_the_expiry_links_show_how_it_stands(here: Node) -> None:
    """The inviter's wall clock is known from the string only: patience counts, too."""
    number = put_join(here).value
    here.clock.wall += 10**18
    assert "join" == here.known(number).want, "a clock that is ahead ends nothing"
    here.clock.boot += PATIENCE_NS
    assert "link" == here.known(number).want
    here.clock.wall -= 10**18
    here.clock.wall -= 10 * S_NS
    assert "join" == here.known(number).want


def test_a_link_from_the_inviter_confirms_the_join(here: Node) -> None:
    """Its answer was lost, and it dialled first."""
    number = put_join(here).value
    _, answer = here.hello("i", name="inviter")
    assert isinstance(answer, Taken)
    assert (None, "inviter") == (here.peer(number).joining, here.peer(number).name)


def test_a_link_of_ours_confirms_the_join(here: Node) -> None:
    number = put_join(here).value
    here.gate.link_stands(here.peer(number))
    here.commit()
    assert None is here.peer(number).joining


@pytest.mark.parametrize("case", ["own", "name", "bad", "blocked", "retired"])
def test_why_a_join_is_refused(here: Node, case: str) -> None:
    fields: dict[str, Any] = {}
    match case:
        case "own":
            fields = {"identity": here.key.identity}
        case "name":
            here.add("c", "taken")
            fields = {"name": "taken"}
        case "bad":
            fields = {"name": "Not A Name"}
        case "blocked":
            here.person(PutPeer(1, "block", "eva", here.add("i", "i").number))
        case _:
            peer = here.add("i", "i")
            here.gate.peering.rekey(peer, identity("z"), "eva")
            here.commit()
    before = here.records()
    answer = put_join(here, **fields)
    assert isinstance(answer, Refused) and "InvalidRequest" == answer.name
    assert before == here.records()


def test_no_words_are_exchanged_at_an_address_whose_invitation_is_being_redeemed(here: Node) -> None:
    """Else its refusal would end what waits there."""
    place = here.hold()
    put_join(here)
    assert "duplicate" == code(here.dial(place.number, "i")[1])
    assert 0 == here.peer(place.number).into


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_join_ends_the_comparing_of_words_with_the_same_node(here: Node, is_ours: bool) -> None:
    """Else the invitation expires while the connection of the exchange waits for a person."""
    if is_ours:
        worker, _ = here.dial(here.hold().number, "b")
        here.file(worker, is_ours=True)
    else:
        worker = here.asked_by("b")
    number = put_join(here, "b").value
    assert worker.is_cut
    assert ([], "join") == (here.requests(), here.known(number).want)
