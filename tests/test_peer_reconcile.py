"""What two positions mean: the table, the same answer for both ends, and heads that anyone can compute."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.peer.errors import RemoteProtocolError
from msgd.peer.frames import NOWHERE, Epoch, Position
from msgd.peer.heads import ZERO_HEAD, chain
from msgd.peer.reconcile import (
    RECEIVER,
    SENDER,
    Agree,
    Ahead,
    Conclusion,
    NewEpoch,
    Resend,
    adopt,
    compare,
    conclude,
    epoch_head,
    may_repeat,
    opened,
    proposal,
)

E1, E2, FRESH = (bytes([n]) * 16 for n in (1, 2, 3))
HA, HB = (bytes([n]) * 32 for n in (0xA, 0xB))


@pytest.mark.parametrize(
    ("sender", "receiver", "conclusion"),
    [
        (NOWHERE, NOWHERE, NewEpoch(1)),
        (Position(E1, 5, HA), NOWHERE, NewEpoch(6)),
        (NOWHERE, Position(E1, 5, HA), NewEpoch(6)),
        (Position(E1, 5, HA), Position(E2, 9, HB), NewEpoch(10)),
        (Position(E2, 9, HA), Position(E1, 5, HA), NewEpoch(10)),
        (Position(bytes(16), 9, HA), Position(bytes(16), 5, HA), NewEpoch(10)),
        (Position(E1, 5, HA), Position(E1, 5, HA), Agree(6)),
        (Position(E1, 5, HA), Position(E1, 5, HB), NewEpoch(6)),
        (Position(E1, 9, HB), Position(E1, 5, HA), Ahead(SENDER, 5)),
        (Position(E1, 5, HA), Position(E1, 9, HB), Ahead(RECEIVER, 5)),
    ],
)
def test_positions_are_compared(sender: Position, receiver: Position, conclusion: Conclusion) -> None:
    """One row of the table each."""
    assert conclusion == compare(sender, receiver)


@pytest.mark.parametrize(
    ("ours", "theirs", "stated", "conclusion"),
    [
        (Position(E1, 9, HB), Position(E1, 5, HA), HA, Resend(6)),
        (Position(E1, 9, HB), Position(E1, 5, HA), HB, NewEpoch(10)),
        (Position(E1, 9, HB), Position(E1, 5, HA), None, NewEpoch(10)),
        (Position(E1, 5, HA), Position(E1, 9, HB), HA, NewEpoch(10, 5)),
        (Position(E1, 5, HA), Position(E1, 9, HB), HB, NewEpoch(10)),
        (Position(E1, 5, HA), Position(E1, 9, HB), None, NewEpoch(10)),
    ],
)
def test_the_stated_head_decides(
    ours: Position, theirs: Position, stated: bytes | None, conclusion: Conclusion
) -> None:
    """Who is ahead shows whether the other's history is its own; we are the sender."""
    assert conclusion == conclude(ours, theirs, stated)


def test_heads_are_plain_digests() -> None:
    """Anyone with the bytes and SHA-256 comes to the same heads."""
    first = (1).to_bytes(8, "big") + (2).to_bytes(4, "big")
    head = sha256(ZERO_HEAD + first + b"payload").digest()
    assert head == chain(ZERO_HEAD, 1, 2, b"payload") == chain(ZERO_HEAD, 1, 2, memoryview(b"payload"))
    label = b"msgd/1 epoch\0"
    assert epoch_head(E1, 6, HA, HB) == sha256(label + E1 + (6).to_bytes(8, "big") + HA + HB).digest()


def test_a_fresh_epoch_follows_both_ends() -> None:
    """No seq of either history is used again, and both are inside its head."""
    epoch = proposal(Position(E1, 5, HA), Position(E2, 9, HB), None, FRESH)
    assert epoch == Epoch(FRESH, 10, 5, HA, 9, HB)
    assert opened(epoch) == Position(FRESH, 9, epoch_head(FRESH, 10, HA, HB))
    assert opened(epoch) == adopt(Position(E2, 9, HB), epoch)


RECORDED = Epoch(E2, 10, 9, HA, 9, HB)


@pytest.mark.parametrize(
    ("sender", "receiver", "again"),
    [
        (opened(RECORDED), Position(E1, 9, HB), True),  # a crash between the two commits
        (Position(E2, 20, HA), Position(E1, 9, HB), True),  # the receiver was restored, all of it can follow
        (Position(E2, 20, HA), NOWHERE, True),
        (opened(RECORDED), Position(E1, 10, HB), False),  # its seqs are used there
        (opened(RECORDED), Position(E2, 12, HB), False),  # the receiver knows it
        (Position(E1, 9, HA), Position(FRESH, 3, HB), False),  # not the sender's present one
    ],
)
def test_the_recorded_epoch_is_proposed_again(sender: Position, receiver: Position, again: bool) -> None:
    """As long as the receiver can take it; else a fresh one."""
    assert again == may_repeat(sender, receiver, RECORDED)
    assert again == (proposal(sender, receiver, RECORDED, FRESH) is RECORDED)


def test_a_receiver_keeps_its_seqs_and_its_epoch() -> None:
    """It adopts no epoch that would use a seq twice, nor its own once more."""
    with pytest.raises(RemoteProtocolError, match="from seq 10, but 10 is here already"):
        adopt(Position(E1, 10, HA), RECORDED)
    with pytest.raises(RemoteProtocolError, match="present one"):
        adopt(Position(E2, 5, HA), RECORDED)


EPOCHS = st.sampled_from([bytes(16), E1, E2])
HEADS = st.sampled_from([HA, HB])
POSITIONS = st.builds(Position, EPOCHS, st.integers(0, 12), HEADS)
RECORDS = st.none() | st.builds(
    lambda epoch, ours, theirs: Epoch(epoch, max(ours, theirs) + 1, ours, HA, theirs, HB),
    st.sampled_from([E1, E2]),
    st.integers(0, 12),
    st.integers(0, 12),
)


@given(POSITIONS, POSITIONS, st.none() | HEADS, RECORDS)
def test_whatever_stands_there_a_direction_comes_to_flow(
    sender: Position, receiver: Position, stated: bytes | None, recorded: Epoch | None
) -> None:
    """At most one state and one epoch later both ends are at the same place, and no seq is used twice."""
    conclusion = compare(sender, receiver)
    if isinstance(conclusion, Ahead):
        assert conclusion.seq == min(sender.last, receiver.last)
        conclusion = conclude(sender, receiver, stated)
    if isinstance(conclusion, NewEpoch):
        assert conclusion.base > max(sender.last, receiver.last)
        assert conclusion.proven in (0, sender.last)
        epoch = proposal(sender, receiver, recorded, FRESH)
        assert opened(epoch) == adopt(receiver, epoch)
        assert epoch.base > receiver.last
        assert epoch is recorded or epoch.base > sender.last
    else:
        assert sender.epoch == receiver.epoch
        assert conclusion.next_seq == receiver.last + 1
