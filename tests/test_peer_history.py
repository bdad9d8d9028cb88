"""Two nodes with logs, through lost connections, repetitions, crashes and restored backups."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd.peer.frames import NOWHERE
from msgd.peer.heads import chain
from msgd.peer.reconcile import opened
from tests.peer_nodes import Log, Two, messages

NODE = st.integers(0, 1)
FAULTS = st.one_of(
    st.tuples(st.just("accept"), NODE, st.integers(1, 9)),
    st.tuples(st.just("connect"), NODE, st.just(0)),
    st.tuples(st.just("carry"), NODE, st.integers(1, 600)),
    st.tuples(st.just("carry"), NODE, st.just(1 << 20)),
    st.tuples(st.just("settle"), st.just(0), st.just(0)),
)
# Histories part only where both nodes live on after a restore, so much of a story is just that.
LIVE = st.tuples(st.just("live"), NODE, st.integers(1, 9))
BACKUP = st.tuples(st.just("back up"), NODE, st.just(0))
RESTORE_BOTH = st.tuples(st.just("restore both"), NODE, st.integers(0, 20))
RESTORE = st.tuples(st.just("restore"), NODE, st.integers(0, 20))
RESTORE_1 = st.tuples(st.just("restore"), st.just(1), st.integers(0, 20))
RESTORES = st.one_of(LIVE, RESTORE, LIVE, RESTORE, RESTORE_BOTH, FAULTS, BACKUP)
RESTORES_1 = st.one_of(LIVE, RESTORE_1, LIVE, RESTORE_1, FAULTS, BACKUP)


def run(two: Two, story: list[tuple[str, int, int]]) -> None:
    """Live through it, and then in peace for long enough to settle."""
    for what, node, number in story:
        match what:
            case "accept":
                two.accept(node, number)
            case "connect":
                two.connect(node)
            case "carry":
                two.carry(node, number)
            case "settle":
                two.settle()
            case "live":
                two.connect(node)
                two.settle()
                two.accept(node, number)
                two.settle()
                two.back_up()
            case "back up":
                two.back_up()
            case "restore":
                two.restore(node, number)
            case "restore both":
                two.restore(0, number)
                two.restore(1, number)
    two.connect(0)
    two.settle()


def all_of(log: Log) -> list[bytes]:
    return [body for _, batch in log.received for body in messages(batch)]


def check_agreement(two: Two) -> None:
    """What holds whatever happened: the same heads; seqs used once; each message once per epoch."""
    for sender, receiver in ((two.logs[0], two.logs[1]), (two.logs[1], two.logs[0])):
        assert sender.out == receiver.in_
        assert not sender.waiting
        assert sender.receipted == sender.out.last
        check_received(receiver)
        check_epoch(sender, receiver)


def check_received(receiver: Log) -> None:
    last, times = 0, Counter[tuple[bytes, bytes]]()
    for epoch, batch in receiver.received:
        assert batch.first_seq > last, "a seq used twice"
        last = batch.first_seq + batch.count - 1
        times.update((epoch, body) for body in messages(batch))
    assert all(count == 1 for count in times.values())


def check_epoch(sender: Log, receiver: Log) -> None:
    """The present epoch: the same bytes on both, from its base on, without a gap."""
    mine = [batch for epoch, batch in receiver.received if epoch == receiver.in_.epoch]
    assert sender.released == mine
    assert sender.recorded is not None
    position = opened(sender.recorded)
    for batch in mine:
        assert batch.first_seq == position.last + 1
        head = chain(position.head, batch.first_seq, batch.count, batch.payload)
        position = type(position)(position.epoch, position.last + batch.count, head)
    assert position == receiver.in_


@pytest.mark.slow
@given(st.lists(FAULTS, max_size=30))
def test_every_message_arrives_once_and_in_order(story: list[tuple[str, int, int]]) -> None:
    """Connections lost at any byte and made anew by either side: nothing lost, nothing twice, one epoch."""
    two = Two()
    run(two, story)
    check_agreement(two)
    for node in (0, 1):
        assert two.logs[node].accepted == all_of(two.logs[1 - node])
        assert len({epoch for epoch, _ in two.logs[node].received}) <= 1


@pytest.mark.slow
@given(st.lists(RESTORES, min_size=12, max_size=30))
def test_restored_logs_agree_again(story: list[tuple[str, int, int]]) -> None:
    """Either side restored from any older copy, at any moment: the logs meet, and no seq is used twice."""
    two = Two()
    run(two, story)
    check_agreement(two)


@pytest.mark.slow
@given(st.lists(RESTORES_1, min_size=12, max_size=30))
def test_a_restored_receiver_gets_everything_again(story: list[tuple[str, int, int]]) -> None:
    """A sender that lost nothing fills up a receiver that did: the old seqs, the old bytes, once."""
    two = Two()
    run(two, story)
    check_agreement(two)
    assert two.logs[0].accepted == all_of(two.logs[1])


@pytest.mark.slow
@given(st.lists(RESTORES_1, min_size=12, max_size=30))
def test_a_restored_sender_loses_nothing_that_it_still_holds(story: list[tuple[str, int, int]]) -> None:
    """Whatever its older copy had accepted has arrived in the end, though epochs have ended."""
    two = Two()
    run(two, story)
    check_agreement(two)
    assert set(two.logs[1].accepted) <= set(all_of(two.logs[0]))


def linked(messages_each: int = 5) -> Two:
    two = Two()
    two.connect(0)
    two.settle()
    two.accept(0, messages_each)
    two.accept(1, messages_each)
    two.settle()
    return two


def test_the_first_contact_opens_epochs_at_seq_1() -> None:
    """Two nodes that never met begin at 1, each direction in an epoch of its own."""
    two = linked()
    assert all(log.recorded is not None and log.recorded.base == 1 for log in two.logs)
    assert two.logs[0].out.last == 5
    assert two.logs[0].out.epoch != two.logs[1].out.epoch


def test_a_hello_counts_as_a_receipt() -> None:
    """Receipts lost with the connection are not missed: the next hello says how far the receiver is."""
    two = linked()
    two.accept(0, 3)
    two.carry(0, 1 << 20)
    assert two.logs[0].receipted == 5
    two.connect(1)
    two.settle()
    assert two.logs[0].receipted == 8
    assert two.logs[0].accepted == all_of(two.logs[1])


def test_a_crash_between_the_two_commits_repeats_the_same_epoch() -> None:
    """The sender's record stands: the next connection proposes it, no second one."""
    two = Two()
    two.accept(0, 2)
    two.connect(0)
    while two.logs[0].recorded is None:
        two.carry(0, 1)
        two.carry(1, 1)
    recorded = two.logs[0].recorded
    assert two.logs[1].in_ == NOWHERE
    two.connect(1)
    two.settle()
    assert two.logs[0].recorded is recorded
    assert two.logs[1].in_.epoch == recorded.epoch
    assert two.logs[0].accepted == all_of(two.logs[1])


def test_a_receiver_ahead_proves_what_the_sender_has() -> None:
    """The sender's older copy has messages without a receipt; the receiver shows that they are there."""
    two = linked()
    two.accept(0, 3)  # seqs 6 to 8, released without a receipt
    two.back_up()
    two.settle()
    two.accept(0, 4)
    two.settle()
    two.restore(0, 0)
    two.connect(0)
    two.settle()
    assert two.logs[0].recorded is not None
    assert two.logs[0].recorded.base == 13
    assert two.logs[0].accepted == all_of(two.logs[1])[:8]
    assert len(all_of(two.logs[1])) == 12  # none of them came a second time
    check_agreement(two)


@pytest.mark.parametrize("before", [2, 4, 6], ids=["behind", "the same", "ahead"])
@pytest.mark.parametrize("returned", [0, 1], ids=["sender", "receiver"])
def test_other_bytes_under_the_same_seqs_end_the_epoch(before: int, returned: int) -> None:
    """Both restored and gone on, then one of them back in what was before: the histories are not mixed.

    The seqs of both stay unused, and what the sender has without a receipt arrives in the new epoch.
    """
    two = linked()
    two.back_up()
    two.accept(0, before)
    two.carry(0, 1 << 20)
    two.back_up()  # both have 5 + before, and no receipt has come back
    two.restore(0, 0)
    two.restore(1, 0)
    two.connect(0)
    two.settle()
    two.accept(0, 4)  # and now 5 + 4 others, without a receipt
    two.carry(0, 1 << 20)
    two.restore(returned, 1)
    two.connect(0)
    two.settle()
    assert two.logs[0].recorded is not None
    assert two.logs[0].recorded.base == 5 + max(before, 4) + 1
    assert set(two.logs[0].accepted) <= set(all_of(two.logs[1]))
    check_agreement(two)


@pytest.mark.long
@settings(max_examples=3000, deadline=None)
@given(st.lists(RESTORES, min_size=12, max_size=60))
def test_long_histories_agree_again(story: list[tuple[str, int, int]]) -> None:
    """As above, longer and more often."""
    two = Two()
    run(two, story)
    check_agreement(two)
