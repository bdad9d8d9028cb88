"""A parcel: its bytes, what is taken for one, and what follows from it."""

import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.parcel.frames import LENGTH, Head
from msgd.parcel.judge import (
    NEW_EPOCH,
    NOTHING,
    RECEIPT,
    Differs,
    Ended,
    Gap,
    Ours,
    Take,
    judge_in,
    judge_out,
)
from msgd.parcel.reader import BrokenParcel, NoParcel, Parcel, WrongSeal
from msgd.parcel.writer import Writer
from msgd.peer.frames import NOWHERE, Batch, Epoch, Position
from tests.parcels import BEGUN, E1, E2, batches, head_of, made, sample
from tests.peer_pair import A, D

GOLDEN = Path(__file__).parent / "golden" / "parcel-v1.parcel"
HX = bytes([0xAB]) * 32


def opened(data: bytes) -> Parcel:
    parcel = Parcel(io.BytesIO(data))
    parcel.check()
    return parcel


def test_a_parcel_has_its_golden_bytes() -> None:
    """Version 1 is written today as it was on the first day, and read."""
    assert GOLDEN.read_bytes() == sample()
    parcel = opened(GOLDEN.read_bytes())
    assert [1, 2, 5] == [batch.first_seq for batch in parcel.batches(0)]
    assert [5] == [batch.first_seq for batch in parcel.batches(4)]


def test_a_parcel_cut_anywhere_is_not_taken() -> None:
    data = sample()
    for size in range(len(data)):
        with pytest.raises((NoParcel, BrokenParcel)):
            opened(data[:size])


def test_a_parcel_with_a_flipped_bit_is_not_taken() -> None:
    data = sample()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises((NoParcel, BrokenParcel, WrongSeal)):
            opened(bytes(changed))


def test_a_parcel_sealed_by_another_key_is_forged() -> None:
    said = batches((2,))
    with pytest.raises(WrongSeal):
        opened(made(head_of(said, key=D), said, key=A))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "begins with ''"),
        (b"From eva@", "From eva@"),
        (b"msgd parcel 2\nabc", "version 2"),
        (sample() + b"x", "behind its end"),
    ],
)
def test_what_is_no_parcel_is_told(data: bytes, told: str) -> None:
    with pytest.raises((NoParcel, BrokenParcel), match=told):
        opened(data)


def test_a_sealed_parcel_must_be_sound_all_the_same() -> None:
    """A peer that signs nonsense: batches in another order, some missing, no messages, another beginning."""
    said = batches((1, 3, 2))
    head = head_of(said)
    broken = msgspec.structs.replace(said[1], payload=memoryview(b"\xc1" * 40))
    for wrong in ([said[1], said[0], said[2]], said[:2], [said[0], broken, said[2]], [*said, said[2]]):
        with pytest.raises(BrokenParcel):
            opened(made(head, wrong))
    for changes in ({"before": HX}, {"epoch": msgspec.structs.replace(BEGUN, sender_head=HX)}):
        with pytest.raises(BrokenParcel):
            opened(made(msgspec.structs.replace(head, **changes), said))


def test_frames_of_a_later_msgd_are_skipped() -> None:
    said = batches((2,))
    parcel = made(head_of(said), said)
    writer = Writer(D.private.sign)
    pieces = [*writer.begin(head_of(said)), *writer._counted([LENGTH.pack(4, 99) + b"abc"])]  # sealed, too
    pieces += [*writer.batch(said[0]), *writer.end()]
    later = b"".join(pieces)
    assert len(parcel) < len(later)
    assert [1] == [batch.first_seq for batch in opened(later).batches(0)]


# --- what follows -------------------------------------------------------------------------------------------


class Kept:
    """What a log knows of what came in."""

    def __init__(self, said: list[Batch], ended: list[Ended]) -> None:
        self.heads = {batch.first_seq + batch.count - 1: batch.head for batch in said}
        self.ended = ended

    def head_at(self, seq: int) -> bytes | None:
        return self.heads.get(seq, b"")

    def epochs(self) -> list[Ended]:
        return self.ended


def judged(
    sizes: tuple[int, ...],
    skip: int,
    here: Position,
    *,
    held: tuple[int, ...] = (1, 3, 2),
    ended: tuple[Ended, ...] = (),
    epoch: Epoch = BEGUN,
) -> Take:
    """What a log that stands at `here` and has held batches of these sizes takes of a parcel."""
    said = batches(sizes, epoch=epoch)
    head = head_of(said, skip=skip, epoch=epoch)
    parcel = opened(made(head, said[skip:]))
    return judge_in(head, here, parcel.boundary, Kept(batches(held), list(ended)))


def at(sizes: tuple[int, ...]) -> Position:
    """Where a log stands that holds just these batches."""
    said = batches(sizes)
    return head_of(said).link.out


def test_what_is_here_is_passed_over_and_what_follows_is_taken() -> None:
    assert Take(0, BEGUN) == judged((1, 3, 2), 0, NOWHERE)
    assert Take(0) == judged((1, 3, 2), 0, at(()))
    assert Take(4) == judged((1, 3, 2), 0, at((1, 3)))
    assert Take(4) == judged((1, 3, 2), 2, at((1, 3)))
    assert Take(6) == judged((1, 3, 2), 0, at((1, 3, 2)))
    assert Take(4) == judged((1, 3), 0, at((1, 3, 2))), "an older parcel"
    assert Take(6) == judged((1, 3, 2), 3, NOWHERE), "receipts only"


def test_what_does_not_follow_is_refused() -> None:
    with pytest.raises(Gap) as gap:
        judged((1, 3, 2), 2, at((1,)))
    assert (2, 4) == (gap.value.first, gap.value.last)
    with pytest.raises(Gap) as gap:
        judged((1, 3, 2), 1, NOWHERE)
    assert (1, 1) == (gap.value.first, gap.value.last)
    with pytest.raises(Gap) as gap:
        judged((1, 3, 2), 3, at((1,)))
    assert (2, 6) == (gap.value.first, gap.value.last), "also of a parcel without messages"
    with pytest.raises(Differs, match="message 6"):
        judged((1, 3, 2), 3, Position(E1, 6, HX))
    with pytest.raises(Differs, match="message 4"):
        judged((1, 3, 2), 0, Position(E1, 4, HX))
    with pytest.raises(Differs, match="message 3"):
        judged((1, 3, 2), 0, Position(E1, 3, HX))
    with pytest.raises(Differs, match="message 4"):
        judged((2, 2), 0, at((1, 3, 2)))
    with pytest.raises(Differs, match="began anew"):
        judged((1, 3, 2), 0, Position(E2, 9, HX))


def test_a_parcel_of_an_epoch_that_was_left_brings_nothing() -> None:
    here = Position(E2, 9, HX)
    assert Take(6) == judged((1, 3, 2), 0, here, ended=(Ended(E1, 0, bytes(32)),))
    stood = at((1, 3))
    assert Take(6) == judged((1, 3, 2), 0, here, ended=(Ended(E2, 4, stood.head),))
    with pytest.raises(Differs):
        judged((1, 3, 2), 0, here, ended=(Ended(E2, 4, HX),))


def test_a_new_epoch_begins_above_what_is_here() -> None:
    epoch = Epoch(E2, 8, 7, HX, 5, HX)
    assert Take(7, epoch) == judged((2,), 0, Position(E1, 7, HX), epoch=epoch)
    with pytest.raises(Differs, match="began anew"):
        judged((2,), 0, Position(E1, 8, HX), epoch=epoch)


OURS = Ours(Position(E1, 9, bytes([9]) * 32), 3, 5)


def heads(seq: int) -> bytes:
    return bytes([seq]) * 32 if seq in (5, 7, 9) else b""


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [
        (NOWHERE, NOTHING),
        (Position(E2, 2, HX), NOTHING),
        (Position(E2, 3, HX), NEW_EPOCH),
        (Position(E1, 4, HX), NOTHING),
        (Position(E1, 5, heads(5)), NOTHING),
        (Position(E1, 7, heads(7)), RECEIPT),
        (Position(E1, 9, heads(9)), RECEIPT),
    ],
)
def test_what_the_writer_has_of_ours(theirs: Position, verdict: str) -> None:
    assert verdict == judge_out(OURS, theirs, heads)


@pytest.mark.parametrize("theirs", [Position(E1, 10, HX), Position(E1, 7, HX), Position(E1, 6, HX)])
def test_what_the_writer_cannot_have_of_ours(theirs: Position) -> None:
    with pytest.raises(Differs):
        judge_out(OURS, theirs, heads)


def test_without_an_epoch_of_ours_one_begins_where_something_was_said_before() -> None:
    assert NOTHING == judge_out(Ours(NOWHERE, 0, 0), NOWHERE, heads)
    assert NEW_EPOCH == judge_out(Ours(NOWHERE, 0, 0), Position(E1, 4, HX), heads)
    assert NEW_EPOCH == judge_out(Ours(Position(bytes(16), 4, HX), 0, 4), NOWHERE, heads)


@given(st.lists(st.integers(1, 4), max_size=6), st.integers(0, 30))
def test_a_boundary_is_the_last_end_of_a_batch(sizes: list[int], seq: int) -> None:
    parcel = opened(sample(sizes))
    ends = [0, *(sum(sizes[: n + 1]) for n in range(len(sizes)))]
    found = parcel.boundary(seq)
    assert found is not None
    assert max(end for end in ends if end <= seq) == found.seq


def test_a_head_says_what_it_can_mean() -> None:
    """What no writer says is refused at the door."""
    good = head_of(batches((2,)))
    for changes in ({"first": 4}, {"name": "A b"}, {"epoch": Epoch(E2, 1, 0, HX, 0, HX)}, {"to": b"x"}):
        with pytest.raises((ValueError, msgspec.ValidationError, BrokenParcel)):
            wrong = msgspec.structs.replace(good, **changes)
            Parcel(io.BytesIO(made(wrong, [])))
    assert isinstance(good, Head)
