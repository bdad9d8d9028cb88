"""An exchange of words between two workers: each side's log process, and now and then a side, is the test."""

import time
from collections.abc import Iterator

import pytest

from msgd import meeting
from msgd.peer.frames import Commit, Nonce, Refuse, Reveal, Verdict
from msgd.penalties import UNFINISHED, UNWANTED
from msgd.session import Wire
from msgd.trust.proof import transcript, transcript_hash
from msgd.trust.words import commit_of
from msgd.wire.ledger import Cut, Denied, DialFailed, Done, Granted, MayDial, TakeHello
from msgd.wire.trust import FileRequest, MayPair, OurVerdict, TheirVerdict
from tests.peer_pair import A, D
from tests.worker_ends import NODE_A, NODE_D, NOWHERE, SOON_S, End, Ends, grant, node

NONCE = bytes([3]) * 32


@pytest.fixture
def ends() -> Iterator[Ends]:
    with Ends() as made:
        yield made


def take(acceptor: End, *, is_pinned: bool = False) -> TakeHello:
    """The acceptor's log process allows the exchange."""
    hello = acceptor.hear(TakeHello)
    acceptor.say(MayPair(hello.token, is_pinned, 0))
    return hello


def filed(end: End) -> FileRequest:
    """The log process keeps the request."""
    request = end.hear(FileRequest)
    end.say(Done(request.token))
    return request


def exchange(ends: Ends, *, is_pinned: bool = False) -> tuple[End, End]:
    """(dialler, acceptor) with the words on both screens."""
    dialler, acceptor = ends.dial(), ends.accept()
    grant(dialler)
    take(acceptor, is_pinned=is_pinned)
    filed(acceptor)
    filed(dialler)
    return dialler, acceptor


def over(dialler: End, acceptor: End) -> None:
    """Both workers end, and the exchange is not repeated by itself."""
    assert DialFailed(7, "", -1.0) == dialler.next()
    assert (0, 0) == (dialler.code(), acceptor.code())


def test_both_sides_file_the_same_words_the_acceptor_before_it_reveals(ends: Ends) -> None:
    dialler, acceptor = ends.dial(), ends.accept()
    asked = grant(dialler)
    assert (7, "pair", A.identity, A.spki, []) == (
        asked.peer,
        asked.want,
        asked.identity,
        asked.spki,
        asked.chain,
    )
    hello = take(acceptor)
    assert ("pair", D.identity, "node-d", 7001) == (hello.want, hello.identity, hello.name, hello.port)
    theirs = acceptor.hear(FileRequest)
    assert dialler.is_silent(), "what the acceptor has not filed the dialler cannot know"
    acceptor.say(Done(theirs.token))
    ours = filed(dialler)
    assert ours.words == theirs.words
    assert 4 == len(ours.words)
    assert ours.transcript == theirs.transcript
    assert (True, A.identity, "node-a", ends.address, 7) == (
        ours.is_ours,
        ours.identity,
        ours.name,
        ours.address,
        ours.peer,
    )
    assert (False, D.identity, "node-d", "192.0.2.9:7001", 0) == (
        theirs.is_ours,
        theirs.identity,
        theirs.name,
        theirs.address,
        theirs.peer,
    )


@pytest.mark.parametrize("first", ["dialler", "acceptor"])
def test_with_two_yeses_both_workers_end(ends: Ends, first: str) -> None:
    dialler, acceptor = exchange(ends)
    one, other = (dialler, acceptor) if first == "dialler" else (acceptor, dialler)
    one.say(OurVerdict(True))
    assert TheirVerdict(True) == other.next()
    other.say(OurVerdict(True))
    assert TheirVerdict(True) == one.next()
    over(dialler, acceptor)


@pytest.mark.parametrize("who", ["dialler", "acceptor"])
def test_a_no_ends_the_exchange_on_both_sides(ends: Ends, who: str) -> None:
    dialler, acceptor = exchange(ends)
    one, other = (dialler, acceptor) if who == "dialler" else (acceptor, dialler)
    one.say(OurVerdict(False))
    assert TheirVerdict(False) == other.next()
    over(dialler, acceptor)


def test_a_no_to_a_yes_is_heard(ends: Ends) -> None:
    dialler, acceptor = exchange(ends)
    acceptor.say(OurVerdict(True))
    assert TheirVerdict(True) == dialler.next()
    dialler.say(OurVerdict(False))
    assert TheirVerdict(False) == acceptor.next()
    over(dialler, acceptor)


def test_who_is_a_peer_here_already_needs_one_yes_its_own(ends: Ends) -> None:
    dialler, acceptor = exchange(ends, is_pinned=True)
    assert TheirVerdict(True) == dialler.next()
    dialler.say(OurVerdict(True))
    assert TheirVerdict(True) == acceptor.next()
    over(dialler, acceptor)


def test_a_verdict_that_comes_with_the_answer_is_said(ends: Ends) -> None:
    """First use: the request is accepted as it is filed."""
    dialler, acceptor = ends.dial(), ends.accept()
    grant(dialler)
    take(acceptor)
    filed(acceptor)
    request = dialler.hear(FileRequest)
    both = b"".join((dialler.pipe.frame(OurVerdict(True)), dialler.pipe.frame(Done(request.token))))
    dialler.pipe.send_bytes(both)
    assert TheirVerdict(True) == acceptor.next()


@pytest.mark.parametrize("who", ["dialler", "acceptor"])
def test_the_log_process_may_cut_an_exchange(ends: Ends, who: str) -> None:
    """The other end notices, and ends as well."""
    dialler, acceptor = exchange(ends)
    (dialler if who == "dialler" else acceptor).say(Cut("replaced by a newer one"))
    assert -1.0 == dialler.hear(DialFailed).retry_s
    assert (0, 0) == (dialler.code(), acceptor.code())


def test_the_acceptor_that_does_not_keep_the_request_reveals_nothing(ends: Ends) -> None:
    dialler, acceptor = ends.dial(), ends.accept()
    grant(dialler)
    take(acceptor)
    request = acceptor.hear(FileRequest)
    acceptor.say(Denied(request.token, "limit", retry_s=60))
    failed = dialler.hear(DialFailed)
    assert ("limit", -1.0) == (failed.code, failed.retry_s), "an exchange that has begun is not repeated"
    assert (0, 0) == (dialler.code(), acceptor.code())


def test_the_dialler_that_does_not_keep_the_request_ends(ends: Ends) -> None:
    dialler, acceptor = ends.dial(), ends.accept()
    grant(dialler)
    take(acceptor)
    filed(acceptor)
    request = dialler.hear(FileRequest)
    dialler.say(Denied(request.token, "duplicate"))
    assert -1.0 == dialler.hear(DialFailed).retry_s
    assert (0, 0) == (dialler.code(), acceptor.code())


# --- a side that does not keep to it ------------------------------------------------------------------------


def accept_here(ends: Ends) -> tuple[Wire, bytes]:
    """The test is the acceptor: the wire and T, once the hello is there."""
    wire, _ = meeting.accept(NODE_A, ends.connection(), time.monotonic() + SOON_S)
    c = wire.connection
    return wire, transcript(A.identity, D.identity, c.greet_body, c.content, c.bound)


@pytest.mark.parametrize("lie", ["nonce", "transcript"])
def test_a_commitment_that_does_not_fit_is_refused_and_nothing_is_shown(ends: Ends, lie: str) -> None:
    dialler = ends.dial()
    deadline_s = time.monotonic() + SOON_S
    grant_soon(dialler)
    wire, t = accept_here(ends)
    wire.say(Commit("node-a", commit_of(t if lie == "nonce" else bytes(160), NONCE)), deadline_s)
    assert isinstance(wire.wait_event(deadline_s), Nonce)
    wire.say(Reveal(NONCE if lie == "transcript" else bytes(32)), deadline_s)
    refuse = wire.wait_event(deadline_s)
    assert isinstance(refuse, Refuse)
    assert "proof" == refuse.code
    dialler.hear(MayDial)
    failed = dialler.hear(DialFailed)
    assert ("", -1.0) == (failed.code, failed.retry_s)
    assert 0 == dialler.code()


def grant_soon(dialler: End) -> None:
    """Say what the dialler will ask for, so that the test may play the acceptor meanwhile."""
    dialler.say(Granted(1, 1, NOWHERE, NOWHERE))


def test_a_refused_reveal_counts_as_a_no(ends: Ends) -> None:
    wire, acceptor = dial_with(ends)
    deadline_s = time.monotonic() + SOON_S
    wire.say(Nonce(NONCE), deadline_s)
    filed(acceptor)
    assert isinstance(wire.wait_event(deadline_s), Reveal)
    wire.say(Refuse("proof", detail="it does not fit"), deadline_s)
    assert TheirVerdict(False) == acceptor.next()
    assert 0 == acceptor.code()
    wire.session.close()


def dial_with(ends: Ends) -> tuple[Wire, End]:
    """The test dials a worker that may pair; its log process's words are said in advance."""
    sock = ends.connect()
    acceptor = ends.accept(node(A, "node-a", handshake_s=1.0))
    acceptor.say(MayPair(1, False, 0))
    granted = Granted(0, 1, NOWHERE, NOWHERE)
    deadline_s = time.monotonic() + SOON_S
    wire, commit = meeting.dial(NODE_D, sock, A.identity, lambda _: granted, deadline_s, "pair")
    assert isinstance(commit, Commit)
    acceptor.hear(TakeHello)
    return wire, acceptor


@pytest.mark.slow
def test_who_goes_silent_before_the_reveal_leaves_no_request(ends: Ends) -> None:
    """One deadline for all; the worker says whose fault it was."""
    wire, acceptor = dial_with(ends)
    assert UNFINISHED == acceptor.code()
    wire.session.close()


def test_who_leaves_before_its_nonce_leaves_no_request(ends: Ends) -> None:
    wire, acceptor = dial_with(ends)
    wire.session.close()
    assert UNFINISHED == acceptor.code()


@pytest.mark.slow
def test_words_that_are_shown_stay_beyond_the_deadline_of_the_exchange(ends: Ends) -> None:
    wire, acceptor = dial_with(ends)
    deadline_s = time.monotonic() + SOON_S
    wire.say(Nonce(NONCE), deadline_s)
    filed(acceptor)
    assert isinstance(wire.wait_event(deadline_s), Reveal)
    assert not acceptor.says_within(1.2)
    wire.say(Verdict(True), deadline_s)
    assert TheirVerdict(True) == acceptor.next()
    wire.session.close()
    assert 0 == acceptor.code()


def test_who_has_more_requests_than_allowed_is_refused_before_the_exchange(ends: Ends) -> None:
    dialler, acceptor = ends.dial(), ends.accept()
    grant(dialler)
    hello = acceptor.hear(TakeHello)
    acceptor.say(Denied(hello.token, "limit", retry_s=33))
    failed = dialler.hear(DialFailed)
    assert ("limit", 33.0) == (failed.code, failed.retry_s)
    assert (0, UNWANTED) == (dialler.code(), acceptor.code())


def test_the_transcript_that_is_filed_is_the_protocols(ends: Ends) -> None:
    dialler = ends.dial()
    deadline_s = time.monotonic() + SOON_S
    grant_soon(dialler)
    wire, t = accept_here(ends)
    wire.say(Commit("node-a", commit_of(t, NONCE)), deadline_s)
    wire.wait_event(deadline_s)
    wire.say(Reveal(NONCE), deadline_s)
    dialler.hear(MayDial)
    assert transcript_hash(t) == filed(dialler).transcript
    wire.session.close()
    assert DialFailed(7, "", -1.0) == dialler.next()
