"""When which peer is dialled: at once, then with a growing wait, sooner when it is about to come back."""

from itertools import pairwise

import pytest

from msgd.dialling import (
    CONNECT_S,
    EAGER_CAP_S,
    EAGER_CONNECT_S,
    JUST_SEEN_S,
    NEVER_S,
    STABLE_S,
    Course,
    Dialling,
)
from msgd.wire.ledger import KnownPeer

CAP_S = 30.0


def peer(
    number: int = 1,
    *,
    address: str = "127.0.0.9:6743",
    linked: bool = False,
    waiting: bool = False,
    removed: bool = False,
    want: str = "link",
    identity: bytes = bytes(32),
) -> KnownPeer:
    return KnownPeer(number, f"p{number}", address, identity, linked, waiting, removed, 0, want)


@pytest.fixture
def dialling() -> Dialling:
    return Dialling(lambda: 0.999_999, CAP_S)  # always the longest wait


def due(dialling: Dialling, now_s: float) -> list[int]:
    return [course.peer.number for course in dialling.due(now_s)]


def fail(dialling: Dialling, now_s: float, retry_s: float = 0.0) -> Course:
    """A worker is forked for peer 1 and ends without a link."""
    course = dialling.courses[1]
    dialling.began(course, 42, now_s)
    dialling.ended(course, now_s, retry_s)
    return course


def test_a_new_peer_is_dialled_at_once(dialling: Dialling) -> None:
    dialling.learn(peer(), 100.0)
    assert [1] == due(dialling, 100.0)
    assert 100.0 == dialling.next_s()


def test_a_peer_without_address_is_never_dialled(dialling: Dialling) -> None:
    dialling.learn(peer(address=""), 100.0)
    assert [] == due(dialling, 1e9)
    assert NEVER_S == dialling.next_s()


def test_a_peer_that_is_linked_dialled_or_removed_is_not_dialled(dialling: Dialling) -> None:
    dialling.learn(peer(1), 0.0)
    dialling.learn(peer(2), 0.0)
    dialling.learn(peer(3), 0.0)
    dialling.began(dialling.courses[1], 42, 0.0)
    dialling.learn(peer(2, linked=True), 1.0)
    dialling.learn(peer(3, removed=True), 1.0)
    assert [] == due(dialling, 1e9)
    assert NEVER_S == dialling.next_s()
    assert 3 not in dialling.courses


def test_the_wait_doubles_up_to_the_limit(dialling: Dialling) -> None:
    dialling.learn(peer(), 0.0)
    waits = [fail(dialling, 0.0).next_s for _ in range(12)]
    assert all(later >= earlier for earlier, later in pairwise(waits))
    assert waits[0] == pytest.approx(0.2, abs=1e-3)
    assert waits[3] == pytest.approx(1.6, abs=1e-3)
    assert waits[-1] == pytest.approx(CAP_S, abs=1e-3)


def test_a_peer_just_seen_for_which_messages_wait_is_tried_every_second(dialling: Dialling) -> None:
    """For ten minutes; then the ordinary backoff goes on."""
    dialling.learn(peer(linked=True), 0.0)
    dialling.learn(peer(waiting=True), 10.0)
    for _ in range(12):
        assert fail(dialling, 20.0).next_s <= 20.0 + EAGER_CAP_S
    course = dialling.courses[1]
    assert EAGER_CONNECT_S == dialling.connect_s(course, 20.0)
    late_s = 10.0 + JUST_SEEN_S
    assert fail(dialling, late_s).next_s == pytest.approx(late_s + CAP_S, abs=1e-3)
    assert CONNECT_S == dialling.connect_s(course, late_s)


def test_a_link_that_breaks_again_and_again_is_tried_within_a_second_too(dialling: Dialling) -> None:
    """A peer that is restarted a few times in a row must not be away for half a minute."""
    dialling.learn(peer(), 0.0)
    for round_s in range(0, 20, 2):
        dialling.learn(peer(linked=True), float(round_s))
        dialling.learn(peer(waiting=True), round_s + 0.5)
        assert dialling.next_s() <= round_s + 0.5 + EAGER_CAP_S


def test_one_end_of_a_link_counts_once(dialling: Dialling) -> None:
    """The log process tells that the link is gone, the kernel that its worker is: one failure in all."""
    for learn_first in (True, False):
        here = Dialling(lambda: 0.999_999, CAP_S)
        here.learn(peer(), 0.0)
        course = here.courses[1]
        here.began(course, 42, 0.0)
        here.learn(peer(linked=True), 0.1)
        if learn_first:
            here.learn(peer(), 1.0)
            here.ended(course, 1.0, 0.0)
        else:
            here.ended(course, 1.0, 0.0)
            here.learn(peer(), 1.0)
        assert (0, 1) == (course.pid, course.backoff.failures)
        assert here.next_s() == pytest.approx(1.2, abs=1e-3)


def test_a_link_that_lasted_begins_the_backoff_anew(dialling: Dialling) -> None:
    dialling.learn(peer(), 0.0)
    for _ in range(10):
        fail(dialling, 0.0)
    dialling.learn(peer(linked=True), 0.0)
    dialling.learn(peer(), STABLE_S)
    assert dialling.next_s() == pytest.approx(STABLE_S + 0.2, abs=1e-3)


def test_what_a_refusal_says_goes_before_the_backoff(dialling: Dialling) -> None:
    dialling.learn(peer(waiting=True), 0.0)
    assert 60.0 == fail(dialling, 0.0, 60.0).next_s
    assert NEVER_S == fail(dialling, 0.0, -1.0).next_s
    assert [] == due(dialling, 1e9)


def test_a_person_may_ask_at_any_time(dialling: Dialling) -> None:
    dialling.learn(peer(), 0.0)
    fail(dialling, 0.0, -1.0)
    dialling.ask(1, True, 5.0)
    assert [1] == due(dialling, 5.0)
    dialling.ask(99, True, 5.0)  # gone meanwhile


def test_a_message_shortens_the_wait_for_a_peer_just_seen(dialling: Dialling) -> None:
    """It does not begin a try that has just failed anew: a stream of messages is no storm of dials."""
    dialling.learn(peer(linked=True), 0.0)
    dialling.learn(peer(waiting=True), 0.0)
    dialling.courses[1].next_s = 30.0
    dialling.ask(1, False, 1.0)
    assert 1.0 + EAGER_CAP_S == dialling.next_s()
    dialling.ask(1, False, 1.5)
    assert 1.0 + EAGER_CAP_S == dialling.next_s(), "a later message does not push it back"


def test_a_message_does_not_shorten_the_wait_for_a_peer_long_gone(dialling: Dialling) -> None:
    dialling.learn(peer(waiting=True), 0.0)
    course = fail(dialling, 0.0)
    course.next_s = 30.0
    dialling.ask(1, False, 1.0)
    assert 30.0 == dialling.next_s()


def test_another_address_is_tried_at_once(dialling: Dialling) -> None:
    dialling.learn(peer(), 0.0)
    for _ in range(10):
        fail(dialling, 0.0)
    dialling.learn(peer(address="127.0.0.10:6743"), 1.0)
    assert [1] == due(dialling, 1.0)
    assert 0 == dialling.courses[1].backoff.failures


def test_another_limit_counts_from_the_next_try_on(dialling: Dialling) -> None:
    dialling.learn(peer(), 0.0)
    for _ in range(10):
        fail(dialling, 0.0)
    dialling.limit(2.0)
    assert fail(dialling, 0.0).next_s == pytest.approx(2.0, abs=1e-3)
    dialling.learn(peer(2), 0.0)
    assert 2.0 == dialling.courses[2].backoff.cap_s


def test_a_peer_for_which_no_dial_is_wanted_is_not_dialled(dialling: Dialling) -> None:
    """An address whose exchange has been tried, or a blocked peer."""
    dialling.learn(peer(want=""), 0.0)
    assert [] == due(dialling, 1e9)
    assert NEVER_S == dialling.next_s()
    dialling.learn(peer(want="pair"), 5.0)
    assert [1] == due(dialling, 5.0)


@pytest.mark.parametrize(
    "after",
    [peer(want="pair"), peer(want="join"), peer(identity=bytes([1]) * 32), peer(address="127.0.0.10:6743")],
    ids=["exchange", "join", "identity", "address"],
)
def test_another_aim_begins_anew_at_once(dialling: Dialling, after: KnownPeer) -> None:
    dialling.learn(peer(), 0.0)
    fail(dialling, 0.0, -1.0)
    dialling.learn(after, 1.0)
    assert [1] == due(dialling, 1.0)
    assert 0 == dialling.courses[1].backoff.failures


def test_the_end_of_a_dial_with_another_aim_says_nothing_about_the_new_one(dialling: Dialling) -> None:
    """A person has accepted while the exchange's connection waited: the link follows at its end."""
    dialling.learn(peer(want="pair"), 0.0)
    course = dialling.courses[1]
    dialling.began(course, 42, 0.0)
    dialling.learn(peer(want="link"), 30.0)
    assert [] == due(dialling, 30.0), "not while the exchange runs"
    dialling.ended(course, 40.0, -1.0)
    assert [1] == due(dialling, 40.0)


def test_who_asks_while_a_dial_ends_is_heard(dialling: Dialling) -> None:
    """The exchange before has used up its act, is refused for good, and a person asks again meanwhile."""
    dialling.learn(peer(want="pair"), 0.0)
    course = dialling.courses[1]
    dialling.began(course, 42, 0.0)
    dialling.learn(peer(want=""), 1.0)
    dialling.learn(peer(want="pair"), 2.0)
    dialling.ended(course, 3.0, -1.0)
    assert [1] == due(dialling, 3.0)
    dialling.began(course, 43, 3.0)
    dialling.ask(1, True, 4.0)
    dialling.ended(course, 5.0, -1.0)
    assert [1] == due(dialling, 5.0)
    fail(dialling, 5.0, -1.0)
    assert [] == due(dialling, 1e6)


def test_all_peers_are_dialled_anew_with_a_new_key(dialling: Dialling) -> None:
    dialling.learn(peer(1), 0.0)
    dialling.learn(peer(2), 0.0)
    fail(dialling, 0.0, -1.0)
    dialling.begin_anew(1.0)
    assert [1, 2] == due(dialling, 1.0)


@pytest.mark.parametrize(("code", "most_s"), [("pending", CAP_S), ("proof", 600.0), ("retired", 600.0)])
def test_some_refusals_let_the_waits_grow_further(dialling: Dialling, code: str, most_s: float) -> None:
    """Also while messages wait for a peer that was just seen."""
    dialling.learn(peer(linked=True), 0.0)
    dialling.learn(peer(waiting=code != "pending"), 1.0)
    course = dialling.courses[1]
    for _ in range(15):
        dialling.began(course, 42, 1.0)
        dialling.ended(course, 1.0, 0.0, code)
    assert course.next_s == pytest.approx(1.0 + most_s, abs=1e-2)
    assert fail(dialling, 1.0).next_s <= 1.0 + CAP_S, "another failure is an ordinary one"


def test_an_address_that_was_never_paired_is_no_peer(dialling: Dialling) -> None:
    dialling.learn(peer(1), 0.0)
    dialling.learn(peer(2, want="pair", identity=b""), 0.0)
    assert 1 == dialling.peers()


def test_a_worker_is_found_by_its_pid(dialling: Dialling) -> None:
    dialling.learn(peer(), 0.0)
    dialling.began(dialling.courses[1], 42, 0.0)
    assert dialling.courses[1] is dialling.by_pid(42)
    assert dialling.by_pid(43) is None
