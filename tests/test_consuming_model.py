"""Consumers against a plain list, whatever is killed in between: the daemon, a connection, a program.

The list says of each message whether it is new, with whom it is, waiting, aside or done, and how often it was
handed out. The log process, the log and the receivers must say the same after every step.
"""

import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from msgd import journal
from msgd.holders import GRACE_S
from msgd.receiving import ASIDE, DONE, FAILED, RELEASE, Settled
from msgd.wire.consuming import ListUnsettled, RetryAside
from tests.consumer_world import Crashed, Program, Station
from tests.gate_world import Node, Worker

LETTERS = "hij"
letters = st.sampled_from(LETTERS)
outcomes = st.sampled_from((DONE, DONE, FAILED, ASIDE, RELEASE))


class Item:
    """What is true of one message."""

    def __init__(self, raw: bytes, asks: bool) -> None:
        self.id = raw
        self.asks = asks
        self.state = "new"  # taken, retrying, aside, done
        self.holder = ""  # of a taken one
        self.logged = ""  # the holder that the log knows
        self.attempts = 0
        self.has_failed = False

    def take(self, letter: str) -> None:
        """Handed out, which is an attempt unless it was with this holder all the time."""
        if self.state != "taken" or self.has_failed:
            self.attempts += 1
        self.state, self.holder, self.logged, self.has_failed = "taken", letter, letter, False

    def settle(self, outcome: str) -> None:
        if outcome == FAILED:
            self.has_failed = True
            return
        self.attempts -= outcome == RELEASE
        self.state = {DONE: "done", ASIDE: "aside", RELEASE: "retrying"}[outcome]
        self.holder = self.logged = ""
        self.has_failed = False

    def free(self) -> None:
        """Its holder has ended: the log is not told."""
        self.state, self.holder, self.has_failed = "retrying", "", False


class Consumers(RuleBasedStateMachine):
    """Three programs that receive as one consumer."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.station = Station(Node(self.directory.name))
        self.items: list[Item] = []
        self.connected: dict[str, Program] = {}
        self.missed: set[str] = set()  # disconnected without a word
        self.failed_in_log: set[bytes] = set()

    def teardown(self) -> None:
        self.station.node.books.store.close()
        self.station.node.books.reader.close()
        self.directory.cleanup()

    # --- what comes -------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 3), asks=st.booleans())
    def arrive(self, count: int, asks: bool) -> None:
        headers = {"report": "handled"} if asks else {}
        self.items += [Item(raw, asks) for raw in self.station.arrive(count=count, headers=headers)]

    @rule()
    def arrive_unwanted(self) -> None:
        self.station.arrive(kind="result")

    # --- programs ---------------------------------------------------------------------------------------

    def program(self, letter: str) -> Program:
        if letter not in self.connected:
            self.connected[letter] = self.station.program(letter=letter)
            self.missed.discard(letter)
        return self.connected[letter]

    def own(self, letter: str) -> list[Item]:
        return [item for item in self.items if item.state == "taken" and item.holder == letter]

    @rule(letter=letters, outcome=st.none() | outcomes)
    def next(self, letter: str, outcome: str | None) -> None:
        program, settled = self.program(letter), []
        own = self.own(letter)
        if outcome is not None and own:
            settled = [Settled(own[0].id, outcome, "why", own[0].attempts)]
            own[0].settle(outcome)
        expected = self.expected(letter)
        taken = program.next(*settled)
        if expected is None:
            assert taken is None
            return
        expected.take(letter)
        assert taken is not None
        assert (expected.id, expected.attempts) == (taken.row.id, taken.attempt)

    def expected(self, letter: str) -> Item | None:
        """What this program gets: its own, else what waits, else what is new."""
        own = self.own(letter)
        waiting = [item for item in self.items if item.state == "retrying"]
        new = [item for item in self.items if item.state == "new"]
        return next(iter(own or waiting or new), None)

    @rule(letter=letters, outcome=outcomes, again=st.booleans())
    def settle(self, letter: str, outcome: str, again: bool) -> None:
        program = self.program(letter)
        for item in self.own(letter):
            settled = [Settled(item.id, outcome, "why", item.attempts)]
            for _ in range(1 + again):  # the answer was lost
                program.receiver.settle(settled)
            item.settle(outcome)

    @rule(letter=letters)
    def lose_connection(self, letter: str) -> None:
        program = self.connected.pop(letter, None)
        if program is not None:
            program.die()
            self.missed.add(letter)

    @rule(letter=letters)
    def leave(self, letter: str) -> None:
        program = self.connected.pop(letter, None)
        if program is not None:
            program.close()
            for item in self.own(letter):
                item.free()

    # --- time, and the daemon ---------------------------------------------------------------------------

    @rule()
    def grace_ends(self) -> None:
        self.station.pass_s(GRACE_S)
        for letter in self.missed:
            for item in self.own(letter):
                item.free()
        self.missed.clear()

    @rule()
    def kill(self) -> None:
        """Of what was given back by an end the log knows nothing: its last holder is waited for again."""
        self.station.restart()
        self.connected.clear()
        self.missed = set(LETTERS)
        for item in self.items:
            if item.state == "retrying" and item.logged:
                item.state, item.holder = "taken", item.logged
                item.has_failed = item.id in self.failed_in_log

    @rule(letter=letters, outcome=outcomes, crash=st.sampled_from(("before the commit", "before the answer")))
    def kill_in_a_request(self, letter: str, outcome: str, crash: str) -> None:
        """It happened, or it did not: who asked cannot know, and asks again some time."""
        self.lose_connection(letter)
        program, own = self.program(letter), self.own(letter)
        settled = [Settled(item.id, outcome, "why", item.attempts) for item in own]
        self.station.crash = crash
        with pytest.raises(Crashed):
            program.next(*settled)
        if crash == "before the answer":
            for item in own:
                item.settle(outcome)
            expected = self.expected(letter)
            if expected is not None:
                expected.take(letter)
            self.note_failed()
        self.kill()

    @rule()
    def roll(self) -> None:
        """What a checkpoint says is the present: also of what was given back."""
        self.station.roll()
        for item in self.items:
            if item.state == "retrying":
                item.logged = ""

    @rule()
    def retry(self) -> None:
        self.station.ask(Worker("control"), RetryAside(1, "job", [], "eva")) if self.has_consumer else None
        for item in self.items:
            if item.state == "aside":
                item.state, item.attempts = "retrying", 0

    def note_failed(self) -> None:
        """Of what failed the log goes on saying so when its holder has ended."""
        back = {item.id for item in self.items if item.state == "retrying"}
        failed = {item.id for item in self.items if item.state == "taken" and item.has_failed}
        self.failed_in_log = failed | self.failed_in_log & back

    # --- what must be true ------------------------------------------------------------------------------

    @property
    def has_consumer(self) -> bool:
        return "job" in self.station.consuming.cursors.by_name

    @invariant()
    def the_tables_say_the_same(self) -> None:
        if not self.has_consumer:
            return
        self.note_failed()
        found = self.station.ask(Worker("control"), ListUnsettled(1, "job")).unsettled
        expected = [(i.id, i.state, i.attempts) for i in self.items if i.state not in ("new", "done")]
        assert expected == [(each.id, each.state, each.attempts) for each in found]

    @invariant()
    def each_that_is_done_was_reported_once(self) -> None:
        told = sorted(report.headers["handled"].replace("-", "") for report in self.station.reports())
        assert sorted(i.id.hex() for i in self.items if i.state == "done" and i.asks) == told


@pytest.mark.slow
@pytest.mark.parametrize("examples", [30, pytest.param(400, marks=pytest.mark.long)])
def test_no_message_is_lost_and_none_comes_again_that_was_done(
    examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "event", lambda name, **fields: None)
    shape = settings(max_examples=examples, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(Consumers, settings=shape)
