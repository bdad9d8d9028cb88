"""All filters of a query in all combinations, against a plain list: each random history is asked a lot."""

import random
import tempfile
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd import model
from msgd.history import History
from msgd.rows import Filter
from tests.message_world import FIRST_NS, SEARCHES, TICK_NS, USERS, World, rows, told
from tests.test_history_model import (
    CALM,
    CONDITIONS,
    GREPS,
    STEPS,
    WORD_CONDITIONS,
    play,
    small_measures,
)

__all__ = ["small_measures"]

QUESTIONS = 50
LONG_STEPS = st.lists(STEPS, min_size=30, max_size=120)
SEGMENTS = st.sampled_from((2_000, 1 << 16))  # bytes: some begin by themselves, too
HISTORIES = (
    LONG_STEPS,
    st.sampled_from(CONDITIONS),
    st.sampled_from(WORD_CONDITIONS),
    SEGMENTS,
    st.integers(),
)


@pytest.mark.slow
@settings(CALM, max_examples=25)
@given(*HISTORIES)
def test_all_filters_combine(
    steps: list[tuple[Any, ...]],
    condition: Callable[[World], None],
    word_condition: Callable[[World], None],
    segment_bytes: int,
    seed: int,
) -> None:
    """Whatever is asked together finds what the list has, at once and page by page."""
    combine(steps, condition, word_condition, segment_bytes, random.Random(seed))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(CALM, max_examples=1000)
@given(*HISTORIES)
def test_all_filters_combine_in_many_histories(
    steps: list[tuple[Any, ...]],
    condition: Callable[[World], None],
    word_condition: Callable[[World], None],
    segment_bytes: int,
    seed: int,
) -> None:
    """The same with 50,000 questions."""
    combine(steps, condition, word_condition, segment_bytes, random.Random(seed))


def combine(
    steps: list[tuple[Any, ...]],
    condition: Callable[[World], None],
    word_condition: Callable[[World], None],
    segment_bytes: int,
    dice: random.Random,
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory, segment_bytes=segment_bytes)
        play(world, steps)
        world.held_peers = {peer for peer in (1, 2) if dice.random() < 0.2}
        word_condition(world)
        condition(world)
        history = world.history()
        for number in range(QUESTIONS):
            asked = any_filter(dice)
            after = dice.choice(world.known) if world.known and dice.random() < 0.3 else None
            if after is not None:
                asked["after"] = history.message_at(after.location).cursor
            wanted = Filter(**asked)
            expected = [world.row_of(m) for m in world.expected(wanted, after)]
            assert expected == [told(row) for row in rows(history, wanted)]
            if number % 5 == 0 and not wanted.reverse and wanted.lines is None:
                assert expected == paged(history, wanted, dice.randint(1, 5))
        assert world.damage == []
        history.close()
        world.close()


def any_filter(dice: random.Random) -> dict[str, Any]:
    """Each filter with a chance of three in ten."""
    since_ns, until_ns = sorted(FIRST_NS + dice.randint(-100, 400) * TICK_NS for _ in range(2))
    choices: dict[str, Any] = {
        "peer": dice.choice((1, 1, 2, 2, 7)),
        "direction": dice.choice((model.OUT, model.IN)),
        "state": dice.choice(model.STATES),
        "kind": dice.randint(0, 5),
        "user": dice.choice(USERS),
        "since_ns": since_ns,
        "until_ns": until_ns,
        "grep": dice.choice(GREPS),
        "search": dice.choice(sorted(SEARCHES)),
        "id": dice.choice(("018b", "018bcf", "0100", "0200")),
        "lines": dice.randint(0, 8),
        "reverse": True,
    }
    return {name: value for name, value in choices.items() if dice.random() < 0.3}


def paged(history: History, wanted: Filter, size: int) -> list[dict[str, object]]:
    """What a script gets that goes on behind the cursor of the last message, a few at a time."""
    found: list[dict[str, object]] = []
    while page := list(islice(rows(history, wanted), size)):
        found += [told(row) for row in page]
        wanted = msgspec.structs.replace(wanted, after=page[-1].cursor)
    return found
