"""Penalties of sources: what adds up, when a source is closed, how much is remembered."""

import pytest

from msgd.penalties import (
    CRASH,
    ENFORCED_ABOVE_S,
    EXITS,
    GARBAGE,
    MISDEEDS,
    MOST_S,
    NOT_TLS,
    SOURCES,
    UNFINISHED,
    UNWANTED,
    WRONG_INVITATION,
    WRONG_PROOF,
    Penalties,
)

HERE = "192.0.2.1"


@pytest.mark.parametrize(
    ("misdeed", "times"),
    [
        (NOT_TLS, 4),
        (GARBAGE, 4),
        (WRONG_PROOF, 4),
        (WRONG_INVITATION, 4),
        (UNFINISHED, 16),
        (UNWANTED, 16),
        (CRASH, 1),
    ],
)
def test_a_source_is_closed_above_the_threshold_and_told_once(misdeed: int, times: int) -> None:
    penalties = Penalties()
    begins = [penalties.add(HERE, misdeed, 100.0) for _ in range(times + 3)]
    assert [times - 1] == [at for at, began in enumerate(begins) if began]
    assert 0.0 == penalties.left_s("192.0.2.2", 100.0)


def test_every_misdeed_of_a_worker_has_its_price() -> None:
    """Exit codes that nothing else uses: a shell's and sysexits' are above or below."""
    assert {UNFINISHED, UNWANTED, GARBAGE, WRONG_PROOF, WRONG_INVITATION} == EXITS
    assert EXITS < MISDEEDS.keys()
    assert all(2 < code < 64 for code in EXITS)


@pytest.mark.parametrize(
    ("steps", "left_s"),
    [
        # (seconds since the start, misdeed) of each step; what is left at the last one
        ([(0, GARBAGE), (0, GARBAGE), (0, GARBAGE)], 0.0),  # 15 s are not above 15 s
        ([(0, GARBAGE), (0, GARBAGE), (0, GARBAGE), (0, UNFINISHED)], 16.0),
        (
            [(0, GARBAGE), (5, GARBAGE), (10, GARBAGE), (15, GARBAGE), (20, GARBAGE)],
            0.0,
        ),  # no faster than it passes
        ([(second, UNFINISHED) for second in range(100)], 0.0),
        ([(0, GARBAGE), (0, GARBAGE), (0, GARBAGE), (4, GARBAGE), (4, UNFINISHED)], 17.0),
        ([(0, CRASH), (80, UNFINISHED)], 11.0),  # closed until all of it has passed
        ([(0, CRASH)] * 20, MOST_S),
        ([(0, CRASH), (90, GARBAGE)], 0.0),  # begins anew
    ],
)
def test_penalties_add_up_and_pass(steps: list[tuple[float, int]], left_s: float) -> None:
    penalties = Penalties()
    for second, misdeed in steps:
        penalties.add(HERE, misdeed, 1000.0 + second)
    assert left_s == pytest.approx(penalties.left_s(HERE, 1000.0 + steps[-1][0]))


def test_a_penalty_that_has_passed_is_forgotten() -> None:
    penalties = Penalties()
    penalties.add(HERE, CRASH, 0.0)
    assert 0.5 == penalties.left_s(HERE, 89.5)
    assert 0.0 == penalties.left_s(HERE, 90.0)
    assert {} == penalties.entries


def test_a_second_period_is_told_again() -> None:
    penalties = Penalties()
    assert penalties.add(HERE, CRASH, 0.0)
    assert not penalties.add(HERE, CRASH, 1.0)
    assert penalties.add(HERE, CRASH, 500.0)


def test_the_table_is_bounded_and_keeps_those_with_most_to_serve() -> None:
    penalties = Penalties()
    penalties.add("worst", CRASH, 0.0)
    for n in range(3 * SOURCES):
        penalties.add(f"source {n}", UNFINISHED, 0.0)
        assert len(penalties.entries) <= SOURCES
    assert 90.0 == penalties.left_s("worst", 0.0)


def test_room_is_made_by_what_has_passed_first() -> None:
    penalties = Penalties()
    for n in range(SOURCES - 1):
        penalties.add(f"old {n}", UNFINISHED, 0.0)
    penalties.add("new", GARBAGE, 10.0)
    penalties.add("newer", GARBAGE, 10.0)
    assert {"new", "newer"} == penalties.entries.keys()
    assert ENFORCED_ABOVE_S > penalties.entries["new"].until_s - 10.0
