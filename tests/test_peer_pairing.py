"""What is not a link: an exchange of words, a join, a service. Who says what when, the same for both ends."""

from collections.abc import Sequence
from itertools import permutations
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.peer.codec import encode
from msgd.peer.connection import Connection
from msgd.peer.errors import LocalProtocolError, RemoteProtocolError
from msgd.peer.frames import (
    HANDSHAKE_BYTES,
    Commit,
    Frame,
    Joined,
    Nonce,
    Ping,
    Refuse,
    Reveal,
    Verdict,
    Want,
)
from msgd.peer.refusals import FORGOTTEN, REACTIONS, reaction, sentence
from msgd.peer.state import (
    ACCEPTOR,
    ACCEPTOR_VERDICT_DUE,
    ANSWER_DUE,
    CLOSED,
    COMMIT_DUE,
    DIALLER,
    DIALLER_VERDICT_DUE,
    JOINED_DUE,
    NONCE_DUE,
    REVEAL_DUE,
    SERVICE_DUE,
    SERVING,
    VERDICTS_DUE,
    WELCOME_DUE,
    Role,
)
from msgd.trust.proof import transcript
from msgd.trust.words import commit_of, is_commit, words_of
from tests.peer_pair import (
    SAMPLES,
    UNLINKED,
    A,
    D,
    LinkPair,
    acceptor,
    dialler,
    greet,
    hello,
    wanting,
    welcome,
)

ROLES: tuple[Role, Role] = (DIALLER, ACCEPTOR)
R_A, R_D = bytes([3]) * 32, bytes([4]) * 32
UP_TO_REVEAL: list[tuple[Role, Frame]] = [
    (ACCEPTOR, Commit("node-a", bytes(32))),
    (DIALLER, Nonce(R_D)),
    (ACCEPTOR, Reveal(R_A)),
]


def exchange(frames: Sequence[tuple[Role, Frame]]) -> LinkPair:
    pair = LinkPair().greeted("pair")
    for role, frame in frames:
        assert pair.send(role, frame) == [frame]
    return pair


def states(pair: LinkPair) -> set[str]:
    return {pair.dialler.state, pair.acceptor.state}


@pytest.mark.parametrize(
    ("want", "state"),
    [
        ("link", WELCOME_DUE),
        ("pair", COMMIT_DUE),
        ("join", JOINED_DUE),
        ("service", SERVICE_DUE),
        ("files", SERVICE_DUE),
    ],
)
def test_a_good_hello_decides_what_is_due(want: Want, state: str) -> None:
    """At both ends, and each may be refused."""
    pair = LinkPair().greeted(want)
    assert {state} == states(pair)
    assert [Refuse("closing")] == pair.send(ACCEPTOR, Refuse("closing"))
    assert {CLOSED} == states(pair)


@pytest.mark.parametrize("want", ["pair", "join"])
def test_only_a_link_and_a_service_are_welcomed(want: Want) -> None:
    """Who asks to pair has not stated where its logs are, and hears nothing of ours."""
    pair = LinkPair().greeted(want)
    with pytest.raises(LocalProtocolError, match="may not say Welcome"):
        pair.acceptor.send(welcome())
    with pytest.raises(RemoteProtocolError, match="may not say Welcome"):
        list(pair.dialler.receive_data(encode(welcome())))


# -- an exchange of words


def test_an_exchange_goes_step_by_step() -> None:
    """Commit, nonce, reveal, and then both wait for their persons."""
    pair = exchange([])
    for (role, frame), state in zip(UP_TO_REVEAL, [NONCE_DUE, REVEAL_DUE, VERDICTS_DUE], strict=True):
        assert [frame] == pair.send(role, frame)
        assert {state} == states(pair)


@pytest.mark.parametrize("binding", [b"", b"finished"], ids=["none", "tls-unique"])
def test_both_ends_find_the_same_words(binding: bytes) -> None:
    """What the connection keeps is all that T is made of."""
    pair = LinkPair(dialler(binding=binding), acceptor(binding=binding)).greeted("pair")

    def t(end: Connection) -> bytes:
        return transcript(A.identity, D.identity, end.greet_body, end.content, end.bound)

    (commit,) = pair.send(ACCEPTOR, Commit("node-a", commit_of(t(pair.acceptor), R_A)))
    assert binding == pair.dialler.bound == pair.acceptor.bound
    assert isinstance(commit, Commit)
    assert is_commit(commit.commit, t(pair.dialler), R_A)
    assert words_of(t(pair.acceptor), R_A, R_D) == words_of(t(pair.dialler), R_A, R_D)


@pytest.mark.parametrize("first", ROLES)
@pytest.mark.parametrize("accepts", [(True, True), (True, False), (False, True), (False, False)])
def test_verdicts_come_in_any_order(first: Role, accepts: tuple[bool, bool]) -> None:
    """Each side once; with both the exchange is over."""
    second = DIALLER if first == ACCEPTOR else ACCEPTOR
    due = {DIALLER: ACCEPTOR_VERDICT_DUE, ACCEPTOR: DIALLER_VERDICT_DUE}
    pair = exchange(UP_TO_REVEAL)
    assert [Verdict(accepts[0])] == pair.send(first, Verdict(accepts[0]))
    assert {due[first]} == states(pair)
    assert [Verdict(accepts[1])] == pair.send(second, Verdict(accepts[1]))
    assert {CLOSED} == states(pair)


@pytest.mark.parametrize("role", ROLES)
def test_nobody_decides_twice(role: Role) -> None:
    """A person's word is said once."""
    pair = exchange([*UP_TO_REVEAL, (role, Verdict(True))])
    speaker, listener = (pair.dialler, pair.acceptor) if role == DIALLER else (pair.acceptor, pair.dialler)
    with pytest.raises(LocalProtocolError, match=f"{role} may not say Verdict"):
        speaker.send(Verdict(False))
    with pytest.raises(RemoteProtocolError, match=f"{role} may not say Verdict"):
        list(listener.receive_data(encode(Verdict(False))))


def test_verdicts_may_cross() -> None:
    """Both say theirs before they hear the other's."""
    pair = exchange(UP_TO_REVEAL)
    said = [b"".join(end.send(Verdict(True))) for end in (pair.dialler, pair.acceptor)]
    assert [Verdict(True)] == list(pair.acceptor.receive_data(said[0]))
    assert [Verdict(True)] == list(pair.dialler.receive_data(said[1]))
    assert {CLOSED} == states(pair)


@pytest.mark.parametrize("is_pinned", [False, True])
def test_a_bad_reveal_is_refused(is_pinned: bool) -> None:
    """By the dialler, whose only refusal it is; a verdict that the acceptor said at once changes nothing."""
    pair = exchange(UP_TO_REVEAL)
    late = b"".join(pair.acceptor.send(Verdict(True))) if is_pinned else b""
    assert [Refuse("proof")] == pair.send(DIALLER, Refuse("proof"))
    assert {CLOSED} == states(pair)
    assert [] == list(pair.dialler.receive_data(late))


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_dialler_refuses_nothing_but_a_reveal(steps: int) -> None:
    """Before it, and after its own verdict."""
    for pair in (exchange(UP_TO_REVEAL[:steps]), exchange([*UP_TO_REVEAL, (DIALLER, Verdict(True))])):
        with pytest.raises(LocalProtocolError, match="dialler may not say Refuse"):
            pair.dialler.send(Refuse("proof"))


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_acceptor_may_refuse_up_to_its_reveal(steps: int) -> None:
    """The request could not be filed, for instance; even while the dialler's nonce is on its way."""
    pair = exchange(UP_TO_REVEAL[:steps])
    if steps == 1:
        pair.dialler.send(Nonce(R_D))
    assert [Refuse("limit", 60)] == pair.send(ACCEPTOR, Refuse("limit", 60))
    assert {CLOSED} == states(pair)


def test_an_acceptor_does_not_take_its_reveal_back() -> None:
    """From there on it has only its verdict."""
    with pytest.raises(LocalProtocolError, match="acceptor may not say Refuse"):
        exchange(UP_TO_REVEAL).acceptor.send(Refuse("limit"))


@pytest.mark.parametrize("order", [o for o in permutations(UP_TO_REVEAL) if list(o) != UP_TO_REVEAL])
def test_another_order_closes(order: tuple[tuple[Role, Frame], ...]) -> None:
    """A nonce after the reveal would let the acceptor choose the words."""
    pair = LinkPair().greeted("pair")
    with pytest.raises(RemoteProtocolError, match="may not say"):
        for role, frame in order:
            end = pair.acceptor if role == DIALLER else pair.dialler
            list(end.receive_data(encode(frame)))
    assert CLOSED in states(pair)


SAID = (
    "commit",
    "nonce",
    "reveal",
    "verdict-yes",
    "verdict-no",
    "refuse",
    "joined",
    "welcome",
    "greet",
    "ping",
)


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(ROLES), st.sampled_from(SAID)), max_size=8))
def test_any_frames_are_an_exchange_or_an_error(said: list[tuple[Role, str]]) -> None:
    """Each end hears commit, nonce, reveal and verdict in their order and once, whatever is said."""
    legal = {ACCEPTOR: (Commit, Reveal, Verdict, Refuse), DIALLER: (Nonce, Verdict, Refuse)}
    for role in ROLES:
        pair = LinkPair().greeted("pair")
        end = pair.acceptor if role == DIALLER else pair.dialler
        heard = []
        try:
            for who, name in said:
                if who == role:
                    heard += list(end.receive_data(encode(SAMPLES[name])))
                else:
                    end.send(SAMPLES[name])
        except (LocalProtocolError, RemoteProtocolError):
            pass
        kinds = [type(event) for event in heard]
        assert all(kind in legal[role] for kind in kinds)
        assert len(set(kinds)) == len(kinds)
        assert [kind for kind in legal[role] if kind in kinds] == kinds


@pytest.mark.parametrize("frames", [[], UP_TO_REVEAL[:1], UP_TO_REVEAL], ids=["commit", "nonce", "verdicts"])
def test_an_exchange_takes_8_kib_and_no_unknown_type(frames: list[tuple[Role, Frame]]) -> None:
    """Whoever is on the other end is not a peer yet."""
    big = (HANDSHAKE_BYTES + 1).to_bytes(4, "big")
    for end in ("dialler", "acceptor"):
        with pytest.raises(RemoteProtocolError, match=f"expected 1 to {HANDSHAKE_BYTES}"):
            list(getattr(exchange(frames), end).receive_data(big))
        with pytest.raises(RemoteProtocolError, match="a frame of type 200 before the link stands"):
            list(getattr(exchange(frames), end).receive_data(b"\x00\x00\x00\x02\xc8\xc0"))
        with pytest.raises(RemoteProtocolError, match="may not say Ping"):
            list(getattr(exchange(frames), end).receive_data(encode(Ping(1, 1))))


# -- a join


def test_joined_ends_the_connection() -> None:
    """One answer, and both are done."""
    pair = LinkPair().greeted("join")
    assert pair.acceptor.hello is not None
    assert (bytes([6]) * 8, bytes([5]) * 32) == (pair.acceptor.hello.invitation, pair.acceptor.hello.proof)
    assert [Joined("node-a")] == pair.send(ACCEPTOR, Joined("node-a"))
    assert {CLOSED} == states(pair)


@pytest.mark.parametrize("want", ["link", "pair", "service"])
def test_only_a_join_is_joined(want: Want) -> None:
    """Nobody becomes a peer by another way in."""
    pair = LinkPair().greeted(want)
    with pytest.raises(RemoteProtocolError, match="acceptor may not say Joined"):
        list(pair.dialler.receive_data(encode(Joined("node-a"))))


# -- a service


def test_a_service_takes_over_behind_the_welcome() -> None:
    """What has arrived with it is handed out whole, and is not read as frames."""
    pair = LinkPair().greeted("service")
    data = b"".join(pair.acceptor.send(welcome(link=UNLINKED)))
    assert [welcome(link=UNLINKED)] == list(pair.dialler.receive_data(data + b"\xff\xff\xff\xff of its own"))
    assert {SERVING} == states(pair)
    assert b"\xff\xff\xff\xff of its own" == pair.dialler.rest()
    assert b"" == pair.dialler.rest()
    assert b"" == pair.acceptor.rest()
    assert pair.acceptor.peer_limits == pair.dialler.peer_limits


def test_bytes_of_a_service_pass_untouched() -> None:
    """Also those that come later, before the owner takes over."""
    pair = LinkPair().greeted("service")
    pair.send(ACCEPTOR, welcome(link=UNLINKED))
    assert [] == list(pair.acceptor.receive_data(encode(Ping(1, 1))))
    assert encode(Ping(1, 1)) == pair.acceptor.rest()


def test_no_frame_is_said_in_a_service() -> None:
    """It has a language of its own; and before the welcome it has none."""
    pair = LinkPair().greeted("service")
    with pytest.raises(RemoteProtocolError, match="dialler may not say Ping in state SERVICE_DUE"):
        list(pair.acceptor.receive_data(encode(Ping(1, 1))))
    pair = LinkPair().greeted("service")
    pair.send(ACCEPTOR, welcome(link=UNLINKED))
    with pytest.raises(LocalProtocolError, match="may not say Ping in state SERVING"):
        pair.dialler.send(Ping(1, 1))


def test_a_hello_that_is_not_believed_can_only_be_refused() -> None:
    """Whatever it wanted."""
    for want in get_args(Want):
        pair = LinkPair(dialler(key=A, to=A))
        pair.send(ACCEPTOR, greet())
        with pytest.raises(RemoteProtocolError):
            pair.send(DIALLER, wanting(want, hello(key=A)))
        assert ANSWER_DUE == pair.acceptor.state
        for name in ("welcome", "commit", "joined"):
            with pytest.raises(LocalProtocolError, match="in state ANSWER_DUE"):
                pair.acceptor.send(SAMPLES[name])
        pair.acceptor.send(Refuse("self"))


# -- refusals


def test_a_peer_that_forgot_us_is_told_from_one_that_never_knew_us() -> None:
    """By whether a link ever stood."""
    assert FORGOTTEN == reaction("unpaired", linked_before=True)
    assert "unpaired" == reaction("unpaired").hold
    assert reaction("blocked") == reaction("blocked", linked_before=True)


@pytest.mark.parametrize(
    ("code", "detail", "expected"),
    [
        ("unpaired", "", "has not accepted us"),
        ("invitation", "used 7UIQ2MA-5F4DX3Y", "says that this invitation was used by 7UIQ2MA-5F4DX3Y"),
        ("invitation", "expired", "says that this invitation has expired"),
        ("invitation", "of tomorrow", "does not take the invitation (of tomorrow)"),
        ("limit", "", "takes no more connections now"),
        ("dance\x1b[2J", "a\nb", "refuses: dance\\x1b[2J (a\\nb)"),
    ],
)
def test_a_refusal_reads_as_a_sentence(code: str, detail: str, expected: str) -> None:
    """Foreign text without what a terminal would obey."""
    assert expected == sentence(code, detail)


def test_every_code_of_the_protocol_has_its_reaction() -> None:
    """Section 4 of the trust protocol; anything else is as if the peer went down."""
    codes = (
        "version proof self unpaired pending rejected blocked retired duplicate clone invitation limit off"
    )
    assert {*codes.split(), "closing"} == set(REACTIONS)
    assert reaction("closing") == reaction("news")
