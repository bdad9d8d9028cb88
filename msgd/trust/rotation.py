"""A new key signed by the old one: how one is made, and what a chain of them proves.

| thing | value |
|---|---|
| M | old identity ‖ new identity |
| rotation | (old SPKI 44, signature by the old key, signature by the new key) |
| old key's | over `msgd/1 rotate from\\0` ‖ M |
| new key's | over `msgd/1 rotate to\\0` ‖ M |
| chain | up to 8 rotations, oldest first; the new key is the next one's old, the last one's is in use |

Who meets an unknown key looks for a pinned identity in its chain: hashes first, so that a stranger's chain
costs nothing, signatures from there on. The keys behind the pinned one have each signed their successor, so
they are retired with it; so are those before it, as far back as their signatures are good: nobody may retire
a key that is not his own.

A retired key is never followed to another successor than the known one: somebody has an old key, or an old
backup. Such a claim is looked at even where the chain leads from no pin, since it is worth telling; one that
stands before the pinned key is old news.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature

from msgd.trust.identity import NodeKey
from msgd.trust.proof import identity_of, is_spki, public_key

FROM_LABEL = b"msgd/1 rotate from\0"
TO_LABEL = b"msgd/1 rotate to\0"
MAX_CHAIN = 8

Rotation = tuple[bytes, bytes, bytes]


class Conflict(NamedTuple):
    """A retired key that has signed another successor than the known one."""

    identity: bytes
    successor: bytes


class Followed(NamedTuple):
    """What a chain proves about the key in use."""

    pinned: bytes  # the pinned identity that it leads from, empty: none
    retired: list[bytes]  # identities that are replaced by it, oldest first, `pinned` among them
    conflicts: list[Conflict]


NOTHING = Followed(b"", [], [])


def make_rotation(old: NodeKey, new: NodeKey) -> Rotation:
    """The old key hands over to the new one."""
    m = old.identity + new.identity
    return old.spki, old.private.sign(FROM_LABEL + m), new.private.sign(TO_LABEL + m)


def chain_of(rotations: Sequence[Rotation]) -> list[Rotation]:
    """What is shown of all our rotations: the newest, as many as a chain may have."""
    return list(rotations[-MAX_CHAIN:])


def follow(
    chain: Sequence[Rotation], spki: bytes, pinned: Container[bytes], successors: Mapping[bytes, bytes]
) -> Followed:
    """What this chain proves about the key of `spki`, which is in use and proven otherwise.

    `pinned`: identities of peers. `successors`: of each retired identity that is known (`successors_of`).
    """
    if len(chain) > MAX_CHAIN or not all(is_spki(key) for key in (*(entry[0] for entry in chain), spki)):
        return NOTHING
    keys = [*(entry[0] for entry in chain), spki]
    identities = [identity_of(key) for key in keys]
    if len(set(identities)) != len(identities):
        return NOTHING
    at = next((place for place in range(len(chain) - 1, -1, -1) if identities[place] in pinned), None)
    conflicts = _conflicts(chain, keys, identities, successors, at or 0)
    if at is None or conflicts:
        return Followed(b"", [], conflicts)
    if not all(_is_good(chain, keys, identities, place) for place in range(at, len(chain))):
        return NOTHING
    first = at
    while first and _is_good(chain, keys, identities, first - 1):
        first -= 1
    return Followed(identities[at], identities[first:-1], [])


def successors_of(retired: Iterable[bytes], identity: bytes) -> dict[bytes, bytes]:
    """The known successor of each retired identity of a peer (oldest first), that is now `identity`."""
    return dict(pairwise((*retired, identity)))


def _conflicts(
    chain: Sequence[Rotation],
    keys: Sequence[bytes],
    identities: Sequence[bytes],
    successors: Mapping[bytes, bytes],
    start: int,
) -> list[Conflict]:
    """Retired keys of the chain, from `start` on, that did sign another successor than the known one."""
    found = []
    for place in range(start, len(chain)):
        old, new = identities[place], identities[place + 1]
        if successors.get(old, new) != new and _is_good(chain, keys, identities, place):
            found.append(Conflict(old, new))
    return found


def _is_good(
    chain: Sequence[Rotation], keys: Sequence[bytes], identities: Sequence[bytes], place: int
) -> bool:
    """Whether both keys have signed this rotation."""
    _, by_old, by_new = chain[place]
    m = identities[place] + identities[place + 1]
    return _has_signed(keys[place], by_old, FROM_LABEL + m) and _has_signed(
        keys[place + 1], by_new, TO_LABEL + m
    )


def _has_signed(spki: bytes, signature: bytes, what: bytes) -> bool:
    try:
        public_key(spki).verify(signature, what)
    except (InvalidSignature, ValueError):
        return False
    return True
