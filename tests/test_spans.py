"""Spans of seqs against plain sets, and the frames of a service connection against a foreign end."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd import spans
from msgd.peer.errors import RemoteProtocolError
from msgd.peer.service import ASK_BYTES, CODES, Ask, End, Outline, Piece, decode, encode
from msgd.spans import Span

SPANS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6)).map(lambda t: (t[0], t[0] + t[1])))


def members(found: list[Span]) -> set[int]:
    return {seq for first, last in found for seq in range(first, last + 1)}


def gathered(pieces: list[Span]) -> list[Span]:
    found: list[Span] = []
    for first, last in pieces:
        spans.add(found, first, last)
    return found


@given(SPANS, SPANS)
def test_spans_are_sets(one: list[Span], other: list[Span]) -> None:
    """Whatever comes in whatever order; what is left is apart and sorted."""
    a, b = gathered(one), gathered(other)
    assert members(one) == members(a)
    assert all(before[1] + 1 < behind[0] for before, behind in pairwise(a))
    assert members(a) - members(b) == members(spans.less(a, b))
    assert len(members(a)) == spans.count(a)
    for first, last in other:
        wanted = set(range(first, last + 1))
        assert bool(wanted & members(a)) == spans.touches(a, first, last)
        assert (wanted <= members(a)) == spans.holds(a, first, last)


@pytest.mark.parametrize(
    "frame",
    [
        Ask(7, "marks", 2, 1, 9),
        End(7, "unknown", "no"),
        Outline(9, 3, [(1, 9)], [], []),
        Piece(1, 2, b"", bytes(32), 5, memoryview(b"ab")),
    ],
)
def test_frames_come_back_and_may_have_more_places(frame: Ask | End | Outline | Piece) -> None:
    """A newer version may add places to an array, and types that we do not know."""
    data = encode(frame)
    assert len(data) - 4 == int.from_bytes(data[:4], "big")
    assert frame == decode(memoryview(data[4:]))
    newer = msgspec.msgpack.encode([*msgspec.structs.astuple(frame), "more"])
    assert frame == decode(memoryview(bytes([CODES[type(frame)]]) + newer))
    assert decode(memoryview(b"\xee\xc0")) is None


@given(st.binary(max_size=ASK_BYTES))
def test_garbage_is_one_error(data: bytes) -> None:
    """Whatever a peer sends becomes a frame, nothing, or the one exception."""
    for code in (*CODES.values(), 200):
        try:
            decode(memoryview(bytes([code]) + data))
        except RemoteProtocolError:
            continue
