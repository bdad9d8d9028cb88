"""Rotation: what a chain of keys proves, to whom, and everything that it does not prove."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from msgd.peer.frames import HANDSHAKE_BYTES
from msgd.trust.identity import NodeKey
from msgd.trust.rotation import (
    MAX_CHAIN,
    NOTHING,
    Conflict,
    Followed,
    Rotation,
    chain_of,
    follow,
    make_rotation,
    successors_of,
)

KEYS = [NodeKey(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)) for seed in range(1, 12)]
IDS = [key.identity for key in KEYS]
GARBAGE = bytes(64)


def chain(*places: int) -> list[Rotation]:
    """The rotations from one key to the next, by their places in KEYS."""
    return [make_rotation(KEYS[old], KEYS[new]) for old, new in pairwise(places)]


def forged(good: Sequence[Rotation], place: int, signature: int) -> list[Rotation]:
    """The same chain with one signature (1 old key's, 2 new key's) of one rotation replaced."""
    parts = list(good[place])
    parts[signature] = GARBAGE
    return [*good[:place], (parts[0], parts[1], parts[2]), *good[place + 1 :]]


def test_a_rotation_is_signed_by_both_keys() -> None:
    """Labels, order and what is signed, as section 7 of the trust protocol says."""
    spki, by_old, by_new = make_rotation(KEYS[0], KEYS[1])
    assert KEYS[0].spki == spki
    m = IDS[0] + IDS[1]
    KEYS[0].private.public_key().verify(by_old, b"msgd/1 rotate from\0" + m)
    KEYS[1].private.public_key().verify(by_new, b"msgd/1 rotate to\0" + m)


@pytest.mark.parametrize(
    ("length", "pinned", "expected"),
    [
        (2, 0, Followed(IDS[0], IDS[:1], [])),
        (5, 3, Followed(IDS[3], IDS[:4], [])),
        (5, 0, Followed(IDS[0], IDS[:4], [])),
        (9, 0, Followed(IDS[0], IDS[:8], [])),
        (9, 7, Followed(IDS[7], IDS[:8], [])),
    ],
)
def test_a_chain_leads_from_the_pinned_key_to_the_one_in_use(
    length: int, pinned: int, expected: Followed
) -> None:
    """Whichever of its keys we knew; all that are replaced are retired, those before it too."""
    assert expected == follow(chain(*range(length)), KEYS[length - 1].spki, {IDS[pinned]}, {})


def test_the_newest_pinned_key_counts() -> None:
    """It needs the fewest signatures."""
    assert follow(chain(0, 1, 2, 3), KEYS[3].spki, {IDS[0], IDS[2]}, {}).pinned == IDS[2]


@pytest.mark.parametrize(
    ("shown", "used", "pinned"),
    [
        ([], 0, 1),  # a stranger
        (chain(0, 1, 2), 2, 5),  # a stranger with a past
        (chain(0, 1), 2, 0),  # another key in use than the chain leads to
        (chain(0, 1, 2)[::-1], 2, 0),  # the wrong way round
        (chain(0, 1) + chain(2, 3), 3, 0),  # a link of the chain is missing
        (chain(*range(10)), 9, 0),  # more than 8
        (chain(0, 1, 0, 2), 2, 0),  # in a circle
        (chain(0, 0), 0, 0),
    ],
)
def test_what_does_not_lead_here_is_not_followed(shown: list[Rotation], used: int, pinned: int) -> None:
    """The same answer as for a stranger."""
    assert NOTHING == follow(shown, KEYS[used].spki, {IDS[pinned]}, {})


@pytest.mark.parametrize("signature", [1, 2])
@pytest.mark.parametrize("place", range(4))
def test_every_signature_from_the_pinned_key_on_counts(place: int, signature: int) -> None:
    """One that is not good ends it; one before it only ends what is retired."""
    shown = forged(chain(0, 1, 2, 3, 4), place, signature)
    for pinned in range(4):
        found = follow(shown, KEYS[4].spki, {IDS[pinned]}, {})
        if place >= pinned:
            assert NOTHING == found
        else:
            assert Followed(IDS[pinned], IDS[place + 1 : 4], []) == found


def test_nobody_retires_a_key_that_is_not_his() -> None:
    """A peer puts another peer's key before its own: that one stays as it is."""
    victim = (KEYS[5].spki, GARBAGE, GARBAGE)
    found = follow([victim, *chain(0, 1)], KEYS[1].spki, {IDS[0]}, {})
    assert Followed(IDS[0], [IDS[0]], []) == found


def test_nobody_takes_a_key_in_without_its_consent() -> None:
    """The old key signs a stranger's key, which has not signed: nobody becomes another by that."""
    spki, by_old, _ = make_rotation(KEYS[0], KEYS[1])
    _, _, by_other = make_rotation(KEYS[2], KEYS[1])
    assert NOTHING == follow([(spki, by_old, by_other)], KEYS[1].spki, {IDS[0]}, {})


def test_a_signature_of_one_kind_is_none_of_another() -> None:
    """The two labels keep from and to apart."""
    spki, by_old, by_new = make_rotation(KEYS[0], KEYS[1])
    assert NOTHING == follow([(spki, by_new, by_old)], KEYS[1].spki, {IDS[0]}, {})
    m = IDS[0] + IDS[1]
    bare = (spki, KEYS[0].private.sign(m), KEYS[1].private.sign(m))
    assert NOTHING == follow([bare], KEYS[1].spki, {IDS[0]}, {})


@pytest.mark.parametrize("spki", [b"", KEYS[1].spki[:-1], b"\x31" + KEYS[1].spki[1:]])
def test_a_key_of_another_form_is_not_followed(spki: bytes) -> None:
    """In the chain or in use."""
    assert NOTHING == follow(chain(0, 1), spki, {IDS[0]}, {})
    assert NOTHING == follow([(spki, GARBAGE, GARBAGE)], KEYS[1].spki, {IDS[0]}, {})


# -- conflicts


def test_a_retired_key_with_another_successor_is_a_conflict() -> None:
    """An old key in other hands, or an old backup: told, never followed."""
    known = successors_of([IDS[0]], IDS[1])
    assert Followed(b"", [], [Conflict(IDS[0], IDS[2])]) == follow(chain(0, 2), KEYS[2].spki, {IDS[1]}, known)


def test_a_conflict_that_nobody_signed_is_no_event() -> None:
    """Anybody can copy a public key."""
    known = successors_of([IDS[0]], IDS[1])
    for signature in (1, 2):
        assert NOTHING == follow(forged(chain(0, 2), 0, signature), KEYS[2].spki, {IDS[1]}, known)


def test_a_pinned_key_is_not_followed_over_a_retired_one() -> None:
    """Back to an old key and from there elsewhere."""
    known = successors_of([IDS[0]], IDS[1])
    assert Followed(b"", [], [Conflict(IDS[0], IDS[2])]) == follow(
        chain(1, 0, 2), KEYS[2].spki, {IDS[1]}, known
    )


def test_an_old_conflict_does_not_hold_up_a_peer_that_was_rekeyed() -> None:
    """A node restored from a backup rotates another way, is accepted by a person, and rotates again."""
    known = successors_of([IDS[0], IDS[1]], IDS[2])
    assert Followed(IDS[2], [IDS[0], IDS[2]], []) == follow(chain(0, 2, 3), KEYS[3].spki, {IDS[2]}, known)


def test_known_successors_are_no_conflict() -> None:
    """A peer that shows its past again, and goes on."""
    known = successors_of(IDS[:2], IDS[2])
    assert {IDS[0]: IDS[1], IDS[1]: IDS[2]} == known
    assert Followed(IDS[2], IDS[:3], []) == follow(chain(0, 1, 2, 3), KEYS[3].spki, {IDS[2]}, known)


def test_what_is_shown_is_the_newest_of_ours() -> None:
    """As many as a chain may have; eight of them leave room in a greet."""
    all_of_them = chain(*range(11))
    assert all_of_them[-8:] == chain_of(all_of_them)
    assert all_of_them[:2] == chain_of(all_of_them[:2])
    assert MAX_CHAIN * sum(map(len, all_of_them[0])) < HANDSHAKE_BYTES // 2


rotations = st.tuples(
    st.sampled_from([key.spki for key in KEYS]) | st.binary(max_size=44),
    st.binary(max_size=64),
    st.binary(max_size=64),
)


@given(st.lists(rotations | st.sampled_from(chain(0, 1, 2, 3)), max_size=9), st.integers(0, 10))
def test_nothing_is_followed_but_a_chain_of_good_signatures(shown: list[Rotation], used: int) -> None:
    """Whatever is shown: either nothing, or the end of it is the real chain from the pinned key."""
    found = follow(shown, KEYS[used].spki, {IDS[0]}, successors_of([IDS[7]], IDS[8]))
    assert [] == found.conflicts
    if found.pinned:
        assert 1 <= used <= 3
        assert chain(*range(used + 1)) == shown[-used:]
        assert IDS[:used] == found.retired
