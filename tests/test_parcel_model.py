"""Parcels beside a link that breaks anywhere: every message arrives once, in order, whatever comes first.

Two nodes with durable logs (`peer_nodes`), their connection, and a pile of parcels that are read at any
time, any number of times, in any order. The rules are the real ones: `parcel.judge`, `peer.reconcile`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from msgd.model import IN, OUT
from msgd.parcel.frames import Head
from msgd.parcel.judge import NEW_EPOCH, RECEIPT, Ended, Ours, judge_in, judge_out
from msgd.parcel.reader import Boundary
from msgd.peer.connection import Event
from msgd.peer.frames import Batch, Epoch, Link, Position, Receipt
from msgd.peer.reconcile import Agree, NewEpoch, Resend, opened, proposal
from msgd.peer.state import ACCEPTOR, DIALLER, Role
from tests.peer_nodes import End, Log, Two, messages
from tests.peer_pair import A, D

KEYS = (A, D)


class CarryLog(Log):
    """As the log process has it: with the epochs of what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.in_epochs: list[Ended] = []

    def begin_in(self, epoch: Epoch) -> None:
        self.in_epochs.append(Ended(epoch.epoch, epoch.sender_last, epoch.sender_head))
        self.in_ = opened(epoch)

    def head_at(self, seq: int) -> bytes | None:
        return self.in_head(seq)

    def epochs(self) -> Iterator[Ended]:
        return iter(self.in_epochs)


class CarryEnd(End):
    """A link worker with its log process: what a parcel has moved meanwhile does not confuse it."""

    log: CarryLog
    in_flows = False

    @property
    def is_ready(self) -> bool:
        return self.outbox is not None and self.in_flows

    def on(self, event: Event) -> None:
        if isinstance(event, Epoch):
            self.log.begin_in(event)
        if isinstance(event, Receipt):
            if event.seq > self.log.receipted:
                assert self.log.out_head(event.seq) == event.head
                self.log.receipt(event.seq)
            self.flow()
        else:
            super().on(event)

    def settle_in(self) -> None:
        super().settle_in()
        self.in_flows = isinstance(self.connection.conclusion(IN), Agree | Resend)

    def settle_out(self) -> None:
        conclusion = self.connection.conclusion(OUT)
        if not isinstance(conclusion, NewEpoch):
            super().settle_out()
            return
        self.log.receipt(conclusion.proven)
        sender, receiver = self.connection.positions(OUT)
        epoch = proposal(sender, receiver, self._present(receiver), next(self.fresh))
        if epoch is not self.log.recorded:
            self.log.open_epoch(epoch)
        self.say(epoch)

    def _present(self, receiver: Position) -> Epoch | None:
        recorded = self.log.recorded
        if recorded is None or self.log.receipted >= recorded.base:
            return None
        here = (receiver.last, receiver.head)
        return recorded if here == (recorded.receiver_last, recorded.receiver_head) else None

    def on_batch(self, batch: Batch) -> None:
        if batch.first_seq + batch.count - 1 > self.log.in_.last:
            self.log.commit(batch)
        self.say(Receipt(self.log.in_.last, self.log.in_.head, 1, 1))

    def flow(self) -> None:
        if self.outbox is None:
            return
        while self.log.waiting:
            self.log.release()
        for batch in self.log.released:
            if batch.first_seq >= self.next_seq:
                self.next_seq = batch.first_seq + batch.count
                self.say(batch)


class Carried(NamedTuple):
    """A parcel as its reader has it once it is checked."""

    head: Head
    batches: list[Batch]

    def boundary(self, seq: int) -> Boundary | None:
        ends = [Boundary(self.head.first - 1, self.head.before)]
        ends += [Boundary(b.first_seq + b.count - 1, b.head) for b in self.batches]
        return max((end for end in ends if end.seq <= seq), default=None)


class Carriers(Two):
    """Both nodes, their link, and the parcels that were made."""

    def __init__(self) -> None:
        super().__init__()
        self.both = (CarryLog(), CarryLog())
        self.logs = list(self.both)
        self.parcels: list[tuple[int, Carried]] = []  # node that it is for

    def connect(self, dialling: int) -> None:
        roles: list[Role] = [ACCEPTOR, ACCEPTOR]
        roles[dialling] = DIALLER
        self.ends = [CarryEnd(roles[n], KEYS[n], KEYS[1 - n], self.logs[n], self._fresh) for n in (0, 1)]

    def moved(self, node: int) -> None:
        """A direction moved beside the link."""
        if self.ends:
            end = self.ends[node]
            assert isinstance(end, CarryEnd)
            if not end.is_ready:
                self.ends = []
            else:
                end.flow()

    def export(self, node: int) -> None:
        log = self.both[node]
        is_new = bool(log.waiting)
        if not any(log.out.epoch):
            assert not log.out.last
            is_new = True
            log.open_epoch(Epoch(next(self._fresh), 1, 0, bytes(32), 0, bytes(32)))
        while log.waiting:
            log.release()
        batches = [b for b in log.released if b.first_seq > log.receipted]
        before = log.out_head(log.receipted)
        assert before is not None
        head = Head(
            spki=KEYS[node].spki,
            to=KEYS[1 - node].identity,
            name="a",
            made_ns=1,
            chain=[],
            link=Link(out=log.out, in_=log.in_),
            epoch=log.recorded,
            first=log.receipted + 1,
            before=before,
        )
        self.parcels.append((1 - node, Carried(head, batches)))
        if is_new:
            self.moved(node)

    def read(self, which: int) -> None:
        node, parcel = self.parcels[which % len(self.parcels)]
        log = self.both[node]
        base = log.recorded.base if log.recorded else 0
        ours, theirs = Ours(log.out, base, log.receipted), parcel.head.link.in_
        verdict = judge_out(ours, theirs, lambda seq: log.out_head(seq) or b"")
        wanted = judge_in(parcel.head, log.in_, parcel.boundary, log)
        before = log.in_
        if wanted.epoch is not None:
            log.begin_in(wanted.epoch)
        for batch in parcel.batches:
            if batch.first_seq > wanted.after:
                log.commit(batch)
        assert verdict != NEW_EPOCH, "no log was lost"
        if verdict == RECEIPT:
            log.receipt(theirs.last)
        if log.in_ != before:
            self.moved(node)


class Story(RuleBasedStateMachine):
    """What may happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.two = Carriers()

    @rule(node=st.integers(0, 1), count=st.integers(1, 6))
    def accept(self, node: int, count: int) -> None:
        self.two.accept(node, count)

    @rule(node=st.integers(0, 1), turns=st.integers(0, 8))
    def connect(self, node: int, turns: int) -> None:
        """What both say in so many turns arrives: somewhere in there they agree where they stand."""
        self.two.connect(node)
        for turn in range(turns):
            self.two.carry((node + 1 + turn) % 2, 1 << 20)

    @rule(node=st.integers(0, 1), count=st.sampled_from([60, 200, 1 << 20]))
    def carry(self, node: int, count: int) -> None:
        self.two.carry(node, count)

    @rule()
    def settle(self) -> None:
        self.two.settle()

    @rule()
    def cut(self) -> None:
        self.two.ends = []

    @rule(node=st.integers(0, 1))
    def export(self, node: int) -> None:
        self.two.export(node)

    @precondition(lambda self: self.two.parcels)
    @rule(which=st.integers(0, 30))
    def read(self, which: int) -> None:
        self.two.read(which)

    @invariant()
    def each_arrived_once_in_order(self) -> None:
        for node in (0, 1):
            accepted = self.two.logs[node].accepted
            received = [m for _, b in self.two.logs[1 - node].received for m in messages(b)]
            assert accepted[: len(received)] == received

    def teardown(self) -> None:
        """A link at the end brings the rest, and old parcels nothing more."""
        self.two.connect(0)
        self.two.settle()
        for which in range(len(self.two.parcels)):
            self.two.read(which)
        for node in (0, 1):
            received = [m for _, b in self.two.logs[1 - node].received for m in messages(b)]
            assert self.two.logs[node].accepted == received
            log = self.two.logs[node]
            assert (log.out.last, self.two.logs[1 - node].in_) == (log.receipted, log.out)


@pytest.mark.parametrize("turns", range(8))
def test_a_parcel_is_read_while_both_ends_agree_where_they_stand(turns: int) -> None:
    """Its messages come with it, and not once more by the link, wherever that one is in its first frames."""
    two = Carriers()
    two.accept(0, 3)
    two.export(0)
    two.connect(0)
    for turn in range(turns):
        two.carry((1 + turn) % 2, 1 << 20)
    two.read(0)
    two.settle()
    two.connect(0)
    two.settle()
    assert two.logs[0].accepted == [m for _, b in two.logs[1].received for m in messages(b)]


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
