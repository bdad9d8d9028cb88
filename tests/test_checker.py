"""The checker itself: each kind of fault is found, named by its shape, and nothing else is said."""

from collections.abc import Sequence

import pytest

from tests.checker import check

A = [b"a1", b"a2", b"a3", b"a4"]
B = [b"b1", b"b2"]
BOTH = {"a": A, "b": B}
ALL = [*A, *B]


def faults(
    read: list[bytes], acknowledged: Sequence[bytes] = ALL, refused: Sequence[bytes] = ()
) -> dict[str, list[bytes]]:
    return check(BOTH, acknowledged, refused, read).faults


@pytest.mark.parametrize(
    "read",
    [ALL, [b"b1", b"a1", b"b2", b"a2", b"a3", b"a4"], [*B, *A]],
    ids=["one by one", "mingled", "the other first"],
)
def test_a_sound_log_has_no_faults(read: list[bytes]) -> None:
    """Writers may mingle in any way; each one's own order stands."""
    assert faults(read) == {}
    assert check(BOTH, ALL, [], read).recovered == []


@pytest.mark.parametrize(
    ("lost", "shape"),
    [
        ([b"a1"], "lost_prefix"),
        ([b"a2"], "lost_middle"),
        ([b"a2", b"a3"], "lost_middle"),
        ([b"a4"], "lost_postfix"),
        ([b"b1", b"b2"], "lost_postfix"),
    ],
)
def test_a_loss_is_named_by_its_place_among_its_writers(lost: list[bytes], shape: str) -> None:
    """Lost before, between or behind what is kept of the same writer; all of a writer counts as behind."""
    assert faults([item for item in ALL if item not in lost]) == {shape: lost}


def test_what_was_never_acknowledged_may_be_absent_or_there() -> None:
    """A client that heard "unknown" finds either; what is there is counted as recovered."""
    acknowledged = [item for item in ALL if item != b"a2"]
    assert faults(ALL, acknowledged) == {}
    assert faults([item for item in ALL if item != b"a2"], acknowledged) == {}
    assert check(BOTH, acknowledged, [], ALL).recovered == [b"a2"]


def test_a_refused_message_that_is_there_is_revived() -> None:
    """A refusal says that nothing was kept."""
    assert faults(ALL, [i for i in ALL if i != b"b2"], [b"b2"]) == {"revived": [b"b2"]}


def test_a_message_that_nobody_sent_is_unexpected() -> None:
    """Whatever its place."""
    assert faults([*A, b"x", *B]) == {"unexpected": [b"x"]}


def test_a_second_copy_is_repeated_wherever_it_stands() -> None:
    """The copy does not count as disorder as well."""
    assert faults([*ALL, b"a1"]) == {"repeated": [b"a1"]}
    assert faults([b"a1", *ALL]) == {"repeated": [b"a1"]}


def test_disorder_names_what_came_too_early() -> None:
    """The one that overtook, not all those that it passed."""
    assert faults([b"a1", b"a4", b"a2", b"a3", *B]) == {"disordered": [b"a4", b"a4"]}
    assert faults([b"a2", b"a1", b"a3", b"a4", b"b2", b"b1"]) == {"disordered": [b"a2", b"b2"]}


def test_an_empty_log_has_lost_everything() -> None:
    """And no more than was acknowledged."""
    assert faults([]) == {"lost_postfix": ALL[:5]}
    assert faults([], []) == {}
