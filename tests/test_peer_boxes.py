"""Outbox, inbox and refusals: what is under way, in which order it is taken, what a refusal means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.peer.errors import LocalProtocolError, RemoteProtocolError
from msgd.peer.frames import Batch, Limits, Position
from msgd.peer.inbox import Inbox
from msgd.peer.outbox import Outbox
from msgd.peer.refusals import REACTIONS, reaction
from tests.peer_pair import EPOCH, HEAD, LIMITS

START = Position(EPOCH, 5, HEAD)
SMALL = Limits(window_bytes=100, window_batches=3, message_bytes=1000, keepalive_s=30)


def head(seq: int) -> bytes:
    return bytes([seq]) * 32


def batch(first: int, count: int = 2) -> Batch:
    return Batch(first, count, head(first + count - 1), memoryview(b""))


# -- outbox


def under_way(*sizes: int, limits: Limits = SMALL) -> Outbox:
    """Batches of two messages from seq 6 on."""
    outbox = Outbox(START, limits)
    for size in sizes:
        first = outbox.last + 1
        outbox.send(first, 2, head(first + 1), size)
    return outbox


def test_the_window_bounds_bytes_and_batches() -> None:
    """Whatever is full first."""
    assert under_way(60).room() == 40
    assert under_way(60, 40).room() == 0
    assert not under_way(60).fits(41)
    assert under_way(1, 1, 1).room() == 0
    assert not under_way(1, 1, 1).fits(1)


def test_the_first_batch_always_fits() -> None:
    """Or a message bigger than the window would wait for ever."""
    outbox = under_way(900)
    assert outbox.room() == 0
    assert outbox.receipt(7, head(7)) == 1
    assert outbox.fits(900)
    assert outbox.room() == 100


def test_a_receipt_answers_all_batches_before_it() -> None:
    """Receipts are cumulative; the window opens by as much."""
    outbox = under_way(10, 20, 30)
    assert outbox.receipt(9, head(9)) == 2
    assert (outbox.receipted, outbox.head, outbox.size_bytes, len(outbox)) == (9, head(9), 30, 1)
    assert outbox.receipt(11, head(11)) == 1
    assert (outbox.receipted, outbox.size_bytes, len(outbox)) == (11, 0, 0)


def test_a_repeated_receipt_answers_nothing() -> None:
    """Of the beginning, or of a batch."""
    outbox = under_way(10)
    assert outbox.receipt(5, HEAD) == 0
    assert outbox.receipt(7, head(7)) == 1
    assert outbox.receipt(7, head(7)) == 0


@pytest.mark.parametrize(
    ("seq", "stated", "why"),
    [
        (8, head(8), "inside a batch"),
        (9, HEAD, "another head"),
        (5, head(5), "another head"),
        (4, head(4), "expected 5 to 11"),
        (12, head(12), "expected 5 to 11"),
    ],
)
def test_a_receipt_for_nothing_of_ours_is_the_peers_error(seq: int, stated: bytes, why: str) -> None:
    """Between boundaries, with other bytes, back in time, or for what was never sent."""
    with pytest.raises(RemoteProtocolError, match=why):
        under_way(10, 10, 10).receipt(seq, stated)


@pytest.mark.parametrize(("first", "count", "size"), [(7, 1, 1), (5, 1, 1), (8, 0, 1), (8, 1, 91)])
def test_what_does_not_follow_or_fit_is_our_own_mistake(first: int, count: int, size: int) -> None:
    """A gap, a repetition, nothing, and too much."""
    with pytest.raises(LocalProtocolError):
        under_way(10).send(first, count, HEAD, size)


# -- inbox


def test_the_next_batch_is_taken_and_receipted_after_its_commit() -> None:
    """Taken is not committed; only what is committed is receipted, once."""
    inbox = Inbox(START)
    assert inbox.take(batch(6))
    assert inbox.take(batch(8))
    assert inbox.receipt() is None
    inbox.commit(9, head(9))
    assert inbox.receipt() == (9, head(9))
    assert inbox.receipt() is None


def test_a_batch_that_is_here_is_dropped_and_receipted_again() -> None:
    """The receipt is the last one: it answers everything up to there."""
    inbox = Inbox(START)
    inbox.take(batch(6))
    inbox.commit(7, head(7))
    inbox.receipt()
    assert not inbox.take(batch(6))
    assert not inbox.take(batch(2))
    assert inbox.receipt() == (7, head(7))


@pytest.mark.parametrize(("first", "count"), [(9, 1), (10, 1), (6, 3), (5, 4), (7, 2), (1 << 61, 2)])
def test_a_gap_or_an_overlap_is_the_peers_error(first: int, count: int) -> None:
    """Batches are never split or merged, so no honest sender comes to this."""
    inbox = Inbox(START)
    inbox.take(batch(6))
    with pytest.raises(RemoteProtocolError, match="expected one from 8"):
        inbox.take(Batch(first, count, HEAD, memoryview(b"")))


def test_other_bytes_under_the_last_seq_are_the_peers_error() -> None:
    """The head tells."""
    with pytest.raises(RemoteProtocolError, match="another head at seq 5"):
        Inbox(START).take(Batch(4, 2, head(1), memoryview(b"")))


@pytest.mark.parametrize("seq", [5, 8])
def test_only_what_was_taken_is_committed(seq: int) -> None:
    """Our own mistake otherwise."""
    inbox = Inbox(START)
    inbox.take(batch(6))
    with pytest.raises(LocalProtocolError, match="expected 6 to 7"):
        inbox.commit(seq, head(seq))


@pytest.mark.slow
@given(st.data())
def test_an_outbox_and_an_inbox_agree(data: st.DataObject) -> None:
    """In whatever rhythm all happens: receipted <= committed <= taken <= sent."""
    outbox, inbox, wire = Outbox(START, SMALL), Inbox(START), list[Batch]()
    for _ in range(data.draw(st.integers(0, 30))):
        match data.draw(st.sampled_from(["send", "take", "commit", "receipt"])):
            case "send":
                count, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 60))
                if outbox.fits(size):
                    first = outbox.last + 1
                    outbox.send(first, count, head((first + count) % 251), size)
                    wire.append(Batch(first, count, head((first + count) % 251), memoryview(b"")))
            case "take" if wire:
                assert inbox.take(wire.pop(0))
            case "commit" if inbox.taken > inbox.committed:
                inbox.commit(inbox.taken, head((inbox.taken + 1) % 251))
            case "receipt":
                due = inbox.receipt()
                if due is not None:
                    outbox.receipt(*due)
        assert outbox.receipted <= inbox.committed <= inbox.taken <= outbox.last
        assert len(outbox) <= SMALL.window_batches


def test_limits_are_the_receivers() -> None:
    """The same outbox with a bigger window has more room."""
    assert under_way(10, 10, 10, limits=LIMITS).room() == LIMITS.window_bytes - 30


# -- refusals


def test_every_refusal_of_the_protocol_has_its_reaction() -> None:
    """The codes of the trust protocol's section 4, no more and no less."""
    assert set(REACTIONS) == {
        *("version", "proof", "self", "unpaired", "pending", "rejected", "blocked", "retired"),
        *("duplicate", "clone", "invitation", "limit", "off", "closing"),
    }


def test_a_peer_that_knew_us_once_has_forgotten_us() -> None:
    """The same code means another thing after a link stood."""
    assert (reaction("unpaired").hold, reaction("unpaired").every_s) == ("unpaired", 60.0)
    forgotten = reaction("unpaired", linked_before=True)
    assert (forgotten.hold, forgotten.every_s) == ("forgotten", 60.0)
    assert reaction("blocked", linked_before=True) == reaction("blocked")


def test_an_unknown_refusal_is_treated_as_closing() -> None:
    """A newer peer may know more reasons."""
    assert reaction("full moon") == REACTIONS["closing"]
    assert REACTIONS["closing"].retry_given


def test_a_hold_never_comes_from_what_passes_by_itself() -> None:
    """Messages stay queued unless the other side has decided something about us."""
    assert {code for code, what in REACTIONS.items() if what.hold} == {
        *("unpaired", "pending", "rejected", "blocked")
    }
    assert {code for code, what in REACTIONS.items() if not what.again} == {"rejected", "invitation"}
