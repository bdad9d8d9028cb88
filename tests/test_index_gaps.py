"""Stretches of the log that are not kept any more: the index forgets them, and nothing that it is asked."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd import model
from msgd.log.files import REAL_FILES
from msgd.log.index import known_ids
from msgd.log.segment import list_bases
from msgd.rows import Filter
from tests.message_world import Known, World, rows, told


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Six segments of 30 messages out and 20 in, all stored; then some that are not."""
    world = World(str(tmp_path), segment_bytes=1 << 20)
    for _ in range(6):
        for _ in range(10):
            world.send(1, 3)
            world.receive(2, 2)
            world.receipt(1, 3)
            world.commit()
        world.roll()
    world.send(1, 3)
    world.commit()
    world.send(1, 1)
    world.commit()
    yield world
    world.close()


def assert_right(world: World) -> None:
    history = world.history()
    for wanted in (Filter(), Filter(lines=40), Filter(state=model.STORED, reverse=True), Filter(peer=2)):
        expected = [world.row_of(m) for m in world.expected(wanted)]
        assert expected == [told(row) for row in rows(history, wanted)]
    history.close()


def entries(world: World, table: str) -> int:
    """Bytes of all leaves of a table."""
    db = sqlite3.connect(world.index_path)
    total = db.execute(f"SELECT sum(length(data)) FROM {table}").fetchone()[0]
    db.close()
    return int(total or 0)


def removed(world: World, first: int, count: int) -> list[Known]:
    """The messages that go with these segments."""
    before = list(world.known)
    world.vacuum(first, count)
    gone = [m for m in before if m not in world.known]
    assert gone, "no segment went"
    return gone


@pytest.mark.parametrize("first", [0, 2])
def test_what_is_gone_is_shown_to_nobody(world: World, first: int) -> None:
    """At once, before the index has forgotten it, and after; at the beginning of the log and inside it."""
    indexer = world.index_all()
    gone = removed(world, first, 2)
    assert 100 == len(gone)
    assert_right(world)
    history = world.history()
    assert [[]] * 100 == [history.find(m.message.id.hex()) for m in gone]
    while indexer.step():
        pass
    assert_right(world)
    assert [[]] * 100 == [history.find(m.message.id.hex()) for m in gone]
    history.close()
    indexer.close()


@pytest.mark.parametrize("first", [0, 2])
def test_an_id_that_is_gone_may_be_used_again(world: World, first: int) -> None:
    """Known ids are those of messages that are kept, whether the index has forgotten the others or not."""
    indexer = world.index_all()
    sent = [m for m in world.known[:-1] if m.state != model.RECEIVED]
    gone = {m.message.id for m in removed(world, first, 2)}
    for _ in range(2):
        ids = [m.message.id for m in sent]
        kept = sorted(set(ids) - gone)
        assert (kept, indexer.position) == known_ids(world.index_path, world.log, world.store.log_id, ids)
        while indexer.step():
            pass
    indexer.close()


def test_the_index_shrinks_with_the_log(world: World) -> None:
    """Entries, ids first of all, go; then nothing is left to do, also for the next one that opens it."""
    indexer = world.index_all()
    ids, places = entries(world, "id"), entries(world, "place")
    removed(world, 0, 3)
    while indexer.step():
        pass
    assert ids * 0.5 < entries(world, "id") < ids * 0.55  # 153 of 303 are left
    assert places > entries(world, "place")
    indexer.close()
    indexer = world.indexer()
    assert not indexer.step()
    assert indexer._pruning is None
    indexer.close()


@pytest.mark.parametrize("first", [0, 2])
def test_index_made_anew_from_what_is_left_says_the_same(world: World, first: int) -> None:
    """A receipt that is gone is known by the checkpoint behind the gap; only its clock is not."""
    removed(world, first, 2)
    world.index_all().close()
    assert_right(world)
    stored = [m for m in world.known if m.state == model.STORED]
    assert stored, "nothing is left to say something about"
    os.unlink(world.index_path)
    assert_right(world)


def test_removal_that_comes_bit_by_bit(world: World) -> None:
    """Each segment after the other, the index with it, until only the newest is left."""
    indexer = world.index_all()
    for _ in range(5):
        removed(world, 0, 1)
        while indexer.step():
            pass
        assert_right(world)
    assert 2 == len(list_bases(REAL_FILES, world.log))
    indexer.close()


def test_a_gap_behind_the_position_is_passed_over(world: World) -> None:
    """The log lost what was never indexed: the index goes on behind it."""
    indexer = world.indexer()
    indexer.step(50)
    assert 0 < indexer.position <= list_bases(REAL_FILES, world.log)[1]
    removed(world, 1, 3)
    while indexer.step():
        pass
    assert world.known[-1].record.offset == indexer.position
    assert_right(world)
    indexer.close()
