"""What a chat makes of what it is told: lines are shown once, in order, when they have ended."""

import random
from typing import Any

import pytest

from msgctl.chat_talk import FAREWELL, LEFT, MAX_ADOPTED, Talk

NOW_NS = 1_795_262_400_000_000_000


def told(id: str, state: str = "stored", *, way: str = "out", **more: Any) -> dict[str, Any]:
    """A message as the log tells it."""
    same = {"kind": "text", "user": "ana", "from": "node1", "text": id, "headers": {}, "sent_at_ns": NOW_NS}
    return {"id": id, "direction": way, "state": state, "receipt_at_ns": NOW_NS + 5, **same, **more}


def shown(talk: Talk, *messages: dict[str, Any]) -> list[str]:
    return [found["id"] for found in map(talk.heard, messages) if found is not None]


@pytest.fixture
def talk() -> Talk:
    return Talk("ana", "node1", adopts=True)


def test_own_line_is_shown_when_it_is_stored_and_what_comes_at_once(talk: Talk) -> None:
    talk.typed("one", b"hola", {}, NOW_NS)
    assert ["theirs"] == shown(talk, told("one", "queued"), told("theirs", "received", way="in"))
    assert 1 == talk.waiting and not talk.unkept
    assert ["one"] == shown(talk, told("one", was="queued"))
    assert (0, {"stored": 1}) == (talk.waiting, talk.ended)


@pytest.mark.parametrize("seed", range(20))
def test_each_is_shown_once_however_often_and_in_whatever_order_it_is_told(talk: Talk, seed: int) -> None:
    """By the log twice, and by two calls: one line, with its receipt."""
    chance = random.Random(seed)
    line = talk.typed("one", b"hola", {}, NOW_NS)
    receipt = {"state": "stored", "receipt_at_ns": NOW_NS + 5}
    steps = [
        lambda: talk.heard(told("one", "queued")),
        lambda: talk.heard(told("one", was="queued")),
        lambda: talk.heard(told("one")),
        lambda: talk.answered(line, {"state": "queued"}),
        lambda: talk.answered(line, receipt),
    ]
    chance.shuffle(steps)
    found = [message for message in (step() for step in steps) if message is not None]
    assert [("one", "stored", NOW_NS + 5)] == [(m["id"], m["state"], m["receipt_at_ns"]) for m in found]
    assert {"stored": 1} == talk.ended and not talk.open and not talk.unkept


def test_line_of_another_terminal_waits_as_well(talk: Talk) -> None:
    """And a mark that comes on top of stored says nothing anew."""
    assert [] == shown(talk, told("old", "queued"))
    assert ["old"] == shown(talk, told("old", was="queued"))
    assert [] == shown(talk, told("older", was="stored"))
    assert 0 == talk.waiting


def test_flood_of_another_program_is_shown_without_waiting(talk: Talk) -> None:
    names = [f"{number}" for number in range(MAX_ADOPTED + 2)]
    assert names[MAX_ADOPTED:] == shown(talk, *(told(name, "queued") for name in names))
    assert MAX_ADOPTED == len(talk.open)


def test_line_that_ended_otherwise_is_shown_with_its_state(talk: Talk) -> None:
    talk.typed("one", b"hola", {}, NOW_NS)
    found = talk.heard(told("one", "expired", reason="ttl", was="queued"))
    assert found is not None and ("expired", "ttl") == (found["state"], found["reason"])


def test_script_shows_only_the_peer_and_keeps_no_body_that_msgd_has() -> None:
    talk = Talk("ana", "node1", adopts=False)
    line = talk.typed("one", b"hola", {}, NOW_NS)
    talk.answered(line, {"state": "held", "reason": "unpaired"})
    assert b"hola" == line.body  # it is sent again, to be told the words
    talk.answered(line, {"state": "queued"})
    assert b"" == line.body
    assert ["theirs"] == shown(talk, told("theirs", "received", way="in"), told("other"))


def test_goodbye_counts_nowhere(talk: Talk) -> None:
    """It is sent like any line, but nobody typed it."""
    talk.typed("one", b"hola", {}, NOW_NS)
    last = talk.typed("last", FAREWELL.encode(), LEFT, NOW_NS)
    assert talk.farewell is last and ["one", "last"] == list(talk.unkept)
    assert (1, 1) == (talk.waiting, talk.unsure)
    assert ["one", "last"] == shown(talk, told("one"), told("last", "expired"))
    assert (0, 0, {"stored": 1}) == (talk.waiting, talk.unsure, talk.ended)
    assert "expired" == last.state


def test_lost_line_is_sent_again(talk: Talk) -> None:
    line = talk.typed("one", b"hola", {}, NOW_NS)
    talk.answered(line, {"state": "queued"})
    assert {} == talk.unkept
    talk.lost(line)
    assert [line] == list(talk.unkept.values())
