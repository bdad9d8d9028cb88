"""Which ids were submitted lately: what memory knows, what the index knows, and nothing lost between."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd import recent
from msgd.model import uuid7, uuid8
from msgd.recent import RecentIds


def timed(ms: int, n: int = 0) -> bytes:
    return uuid7(ms, n.to_bytes(10, "big"))


def keyed(n: int) -> bytes:
    return uuid8(n.to_bytes(16, "big"))


def test_an_id_that_was_added_is_seen() -> None:
    ids = RecentIds()
    ids.add([timed(5, 1), timed(5, 2)], 100)
    assert [timed(5, 2)] == ids.seen([timed(5, 3), timed(5, 2)])
    assert [] == ids.seen([timed(6, 1)])


def test_a_new_id_behind_the_horizon_needs_no_index() -> None:
    ids = RecentIds(horizon_ms=10)
    assert [] == ids.doubtful([timed(11), timed(12)])


def test_an_id_not_behind_the_horizon_is_doubtful() -> None:
    """What was dropped may have had the same millisecond, so only later ones are new for sure."""
    ids = RecentIds(horizon_ms=10)
    assert [timed(9), timed(10)] == ids.doubtful([timed(9), timed(10), timed(11)])


def test_an_id_made_from_a_key_is_always_doubtful() -> None:
    ids = RecentIds()
    assert [keyed(1)] == ids.doubtful([timed(1), keyed(1)])


def test_a_whole_generation_goes_once_the_index_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "GENERATION", 2)
    ids = RecentIds()
    ids.add([timed(3, 1), timed(4, 2)], 100)
    ids.add([timed(2, 3)], 200)
    ids.indexed(99)
    assert [timed(3, 1)] == ids.seen([timed(3, 1)])
    assert 0 == ids.start
    ids.indexed(100)
    assert [] == ids.seen([timed(3, 1)])
    assert [timed(2, 3)] == ids.seen([timed(2, 3)])
    assert 100 == ids.start, "from there on memory knows everything"
    assert [timed(4, 9)] == ids.doubtful([timed(4, 9), timed(5, 9)])


def test_the_present_generation_never_goes() -> None:
    ids = RecentIds()
    ids.add([timed(3)], 100)
    ids.indexed(10_000)
    assert [timed(3)] == ids.seen([timed(3)])


def test_memory_is_bounded_when_the_index_is_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "GENERATION", 1)
    ids = RecentIds()
    for n in range(1, 100):
        ids.add([timed(n)], n * 10)
    kept = [n for n in range(1, 100) if ids.seen([timed(n)])]
    assert recent.GENERATIONS == len(kept)
    assert all(ids.doubtful([timed(n)]) for n in range(1, 100) if n not in kept)
    assert (99 - recent.GENERATIONS) * 10 == ids.start


def test_the_newest_time_is_over_everything_that_was_ever_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "GENERATION", 1)
    ids = RecentIds(horizon_ms=5)
    assert 5 == ids.newest_ms()
    ids.add([timed(50), keyed(9)], 10)
    ids.add([timed(7)], 20)
    ids.indexed(10)
    assert 50 == ids.newest_ms()


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.lists(st.integers(0, 30), min_size=1, max_size=4, unique=True)),
            st.tuples(st.just("index"), st.integers(0, 1)),
        ),
        max_size=60,
    ),
    st.booleans(),
)
def test_no_id_is_ever_taken_for_new_again(steps: list[tuple[str, object]], keys: bool) -> None:
    """Each id is in memory or doubtful with its record before `start`, where the index must answer."""
    before, recent.GENERATION = recent.GENERATION, 3
    try:
        ids, ends, end = RecentIds(), {}, 0
        for what, given_ in steps:
            if what == "add":
                assert isinstance(given_, list)
                end += 10
                raw = [keyed(n) if keys and n % 3 == 0 else timed(n % 7, n) for n in given_]
                ids.add(raw, end)
                ends |= dict.fromkeys(raw, end)
            else:
                ids.indexed(end if given_ else end // 2)
        for one, its_end in ends.items():
            if not ids.seen([one]):
                assert [one] == ids.doubtful([one])
                assert its_end <= ids.start
    finally:
        recent.GENERATION = before


def test_a_message_to_a_group_is_known_for_each_peer_alone() -> None:
    ids = RecentIds(horizon_ms=4)
    ids.add(recent.keys_of([timed(5)], 7), 100)
    assert [recent.key_of(timed(5), 7)] == ids.seen([recent.key_of(timed(5), n) for n in (6, 7, 8)])
    assert [recent.key_of(timed(5), recent.TO_A_GROUP)] == ids.seen([recent.key_of(timed(5), 0)])
    assert [] == ids.seen([timed(5)])


def test_a_key_of_a_peer_is_as_doubtful_as_its_id() -> None:
    ids = RecentIds(horizon_ms=10)
    keys = {recent.key_of(raw, 7): raw for raw in (timed(10), timed(11), keyed(1))}
    assert [timed(10), keyed(1)] == [keys[key] for key in ids.doubtful([*keys])]
