"""What a query reads by itself where the index holds little or nothing: backwards, and only what it needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd import layers, model
from msgd.log import gather
from msgd.rows import Filter
from tests.message_world import World, rows, told

STRETCH = 2000


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Traffic in both directions over several segments, with everything that can befall a message."""
    monkeypatch.setattr(layers, "REFRESH_BYTES", STRETCH)
    monkeypatch.setattr(layers, "FIRST_BYTES", STRETCH)
    monkeypatch.setattr(layers, "MOST_BYTES", STRETCH)
    monkeypatch.setattr(gather, "BLOCK_BYTES", STRETCH)
    world = World(str(tmp_path), segment_bytes=20_000)
    for number in range(60):
        world.send(1, 1 + number % 7)
        world.receive(2, 1 + number % 3)
        if number % 9 == 8:
            world.hold(1, 2)
            world.commit()
            world.end(1, world.line(1).waiting[:1], model.EXPIRED)
            world.release(1, 1)
        if number < 50:
            world.receipt(1, 3)
        if number == 30:
            world.epoch(1, model.OUT)
        world.commit()
    yield world
    world.close()


def read_from(world: World, wanted: Filter) -> int:
    """Ask, check the answer against the model, and tell from where on the log was read for it."""
    history = world.history()
    assert [world.row_of(m) for m in world.expected(wanted)] == [told(r) for r in rows(history, wanted)]
    rest = history._layers._rest
    assert rest is not None
    history.close()
    return rest.lo


@pytest.mark.parametrize("wanted", [Filter(lines=5), Filter(lines=5, reverse=True), Filter(lines=3, peer=1)])
def test_the_last_messages_are_found_without_the_rest_of_the_log(world: World, wanted: Filter) -> None:
    """Without any index only the end of the log is read, and what became of them is right all the same."""
    assert read_from(world, wanted) >= world.store.committed - 2 * STRETCH


def test_index_that_is_far_behind_serves_what_it_holds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer messages need nothing of it; older ones need all that was written since."""
    indexer = world.indexer()
    indexer.step(100)
    position = indexer.position
    indexer.close()
    assert 0 < position < world.store.committed // 2
    assert position < read_from(world, Filter(lines=5))
    assert position == read_from(world, Filter(until_ns=world.known[3].record.wall_ns))
    assert position == read_from(world, Filter(state=model.EXPIRED))


def test_stretches_of_any_length_say_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the log is cut for reading it backwards: in one, or between any two appends."""
    for size in (1, 150, 700, 5_000, 1 << 20):
        monkeypatch.setattr(layers, "FIRST_BYTES", size)
        for wanted in (Filter(reverse=True), Filter(), Filter(state=model.QUEUED, lines=2, reverse=True)):
            assert read_from(world, wanted) <= world.store.committed


def test_a_message_is_found_by_its_seq_from_behind(world: World) -> None:
    """The seq says how far back it must be read: none is lower before a lower one."""
    history = world.history()
    last = [m for m in world.known if m.record.peer == 2][-1]
    assert last.location == history.location_of(2, model.IN, last.seq)
    rest = history._layers._rest
    assert rest is not None
    assert rest.lo >= world.store.committed - 2 * STRETCH
    first = world.known[0]
    assert first.location == history.location_of(1, model.OUT, 1)
    history.close()
