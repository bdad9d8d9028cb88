"""A new key for this node: a stop at any instant leaves one key, and peers that can follow it."""

import os
from typing import Any

import pytest

from msgd.errors import Fatal
from msgd.log.errors import StorageFull
from msgd.rotating import proven_chain
from msgd.trust import identity as keys
from msgd.trust import nextkey
from msgd.trust.rotation import follow
from msgd.wire.ledger import Done, PutPeer, Refused
from msgd.wire.trust import Chain, Invite, Rotate, Rotated
from tests.gate_world import S_NS, Node, code, here, identity

__all__ = ["here"]


def key_on_disk(node: Node) -> bytes:
    return keys.load(f"{node.state}/node.key").identity


def has_next(node: Node) -> bool:
    return os.path.exists(f"{node.state}/{nextkey.NEXT_FILE}")


def rotate(node: Node) -> Any:
    return node.person(Rotate(1, "eva"))


def chains(node: Node) -> list[Chain]:
    return [frame for frame in node.said if isinstance(frame, Chain)]


def told_anew(node: Node) -> bool:
    return any(isinstance(frame, Rotated) for frame in node.said)


def test_rotating_replaces_the_key_records_it_and_tells_everybody(here: Node) -> None:
    here.add("b", "b")
    link, _ = here.hello("b")
    request = here.asked_by("c")
    old = here.key.identity
    assert isinstance(rotate(here), Done)
    new = key_on_disk(here)
    assert old != new == here.links.identity == here.links.arbiters.mine
    assert not has_next(here)
    assert ["paired", "own rotated"] == here.records()
    assert link.is_cut and request.is_cut
    assert [] == here.requests()
    spki = keys.load(f"{here.state}/node.key").spki
    assert old == follow(chains(here)[-1].rotations, spki, {old}, {}).pinned
    assert [Chain, Rotated] == [type(f) for f in here.said if isinstance(f, Chain | Rotated)][-2:]
    assert ["eva"] == [e["user"] for e in here.take_events("key.rotated_here")]


def test_the_chain_is_told_at_each_start_before_any_peer(here: Node) -> None:
    here.add("b", "b")
    for count in range(1, 4):
        rotate(here)
        here.restart()
        assert isinstance(here.said[0], Chain)
        assert count == len(here.said[0].rotations)
        assert not told_anew(here), "the key that it began with is the right one"


def test_a_chain_has_at_most_eight_rotations(here: Node) -> None:
    first = here.key
    for _ in range(9):
        rotate(here)
    chain, spki = chains(here)[-1].rotations, keys.load(f"{here.state}/node.key").spki
    assert 8 == len(chain)
    assert b"" == follow(chain, spki, {first.identity}, {}).pinned
    here.restart()
    assert chain == chains(here)[-1].rotations


def test_own_former_keys_are_no_peers(here: Node) -> None:
    """A copy of this node's old state that dials it."""
    old = here.key.identity
    rotate(here)
    assert "unpaired" == code(here.hello("x", identity=old)[1])
    assert "self" == code(here.hello("x", identity=key_on_disk(here))[1])


def test_open_invitations_end(here: Node) -> None:
    made = here.person(Invite(1, "eva", 600 * S_NS))
    rotate(here)
    here.restart()
    assert here.books.delivery.invitations[made.invitation].ended


# --- stops --------------------------------------------------------------------------------------------------


class Killed(Exception):
    """The process ends here."""


def kill(*_: Any) -> None:
    raise Killed


def test_killed_before_the_record_the_old_key_stays(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    old = here.key.identity
    with monkeypatch.context() as patch:
        patch.setattr(here.books, "change_node", kill)
        with pytest.raises(Killed):
            rotate(here)
    assert has_next(here)
    here.restart()
    assert (old, False, False) == (key_on_disk(here), has_next(here), told_anew(here))
    assert [] == chains(here)[-1].rotations
    assert isinstance(rotate(here), Done)


def test_killed_before_the_commit_the_old_key_stays(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    old = here.key.identity
    with monkeypatch.context() as patch:
        patch.setattr(here.books, "commit", kill)
        with pytest.raises(Killed):
            rotate(here)
    here.restart()
    assert (old, False, []) == (key_on_disk(here), has_next(here), here.records())


def test_killed_after_the_record_a_start_finishes(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the log process alone was killed: the supervisor has the old key, and hears of it."""
    old = here.key.identity
    monkeypatch.setattr("msgd.rotating.adopt_next", kill)
    with pytest.raises(Killed):
        rotate(here)
    assert (old, True) == (key_on_disk(here), has_next(here))
    monkeypatch.undo()
    here.restart()
    assert here.books.delivery.own_identity == key_on_disk(here) == here.links.identity != old
    assert (False, True) == (has_next(here), told_anew(here))
    assert 1 == len(chains(here)[-1].rotations)
    here.restart()
    assert not told_anew(here)


def test_a_rename_that_fails_after_the_record_ends_the_process(
    here: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("msgd.rotating.adopt_next", fail)
    with pytest.raises(Fatal):
        rotate(here)


def test_a_full_disk_keeps_the_old_key(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    old = here.key.identity

    def full(*_: Any, **__: Any) -> None:
        raise StorageFull("no room")

    for place in ("room", "commit"):
        with monkeypatch.context() as patch:
            patch.setattr(here.books if place == "room" else here.books.store, place, full)
            answer = rotate(here)
        assert isinstance(answer, Refused) and "StorageRefused" == answer.name
        assert (old, old, False) == (key_on_disk(here), here.links.identity, has_next(here))
    assert [] == here.records()


def test_a_next_key_that_cannot_be_written_is_a_refusal(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    old = here.key.identity

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msgd.trust.nextkey.write_key", fail)
    answer = rotate(here)
    assert isinstance(answer, Refused) and "node.key.next" in answer.message
    assert (old, []) == (key_on_disk(here), here.records())


# --- keys that are not ours to rotate -----------------------------------------------------------------------


def test_a_key_from_systemds_credentials_is_refused_with_a_hint(
    here: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    os.rename(f"{here.state}/node.key", credentials / "node.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    answer = rotate(here)
    assert isinstance(answer, Refused)
    assert "credentials" in answer.message and answer.hint
    assert not has_next(here)


def test_a_key_that_a_person_put_there_stays_and_shows_no_chain(here: Node) -> None:
    """It was signed by none of ours: peers would only find the gap."""
    rotate(here)
    os.unlink(f"{here.state}/node.key")
    keys.create(f"{here.state}/node.key")
    given = key_on_disk(here)
    here.restart()
    assert (given, []) == (key_on_disk(here), chains(here)[-1].rotations)
    assert isinstance(rotate(here), Done)
    spki = keys.load(f"{here.state}/node.key").spki
    chain = chains(here)[-1].rotations
    assert (1, given) == (len(chain), follow(chain, spki, {given}, {}).pinned)


def test_a_key_that_was_replaced_since_the_start_is_not_rotated(here: Node) -> None:
    os.unlink(f"{here.state}/node.key")
    keys.create(f"{here.state}/node.key")
    answer = rotate(here)
    assert isinstance(answer, Refused) and "Restart" in answer.hint


def test_without_rotations_there_is_no_chain(here: Node) -> None:
    assert [] == proven_chain([], here.key.spki)
    assert [Chain([])] == chains(here)


def test_peers_are_told_the_new_key_and_links_are_arbitrated_by_it(here: Node) -> None:
    here.add("b", "b")
    here.hello("b")
    rotate(here)
    arbiter = here.links.arbiters.known(identity("b"))
    assert arbiter is not None
    assert (here.links.identity < identity("b")) == arbiter.smaller
    here.person(PutPeer(1, "remove", "eva", 1))
