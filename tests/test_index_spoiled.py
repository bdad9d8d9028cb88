"""An index file that somebody spoiled: whatever it says then is the truth, or it is made anew."""

import os
import random
import shutil
from pathlib import Path

import pytest

from msgd import model
from msgd.rows import Filter
from tests.message_world import FIRST_NS, TICK_NS, World, rows, told

FILTERS = (
    Filter(),
    Filter(lines=9),
    Filter(peer=2, lines=4, reverse=True),
    Filter(state=model.QUEUED),
    Filter(state=model.EXPIRED, reverse=True),
    Filter(since_ns=FIRST_NS + 20 * TICK_NS, until_ns=FIRST_NS + 60 * TICK_NS),
)
HEAD_BYTES = 100  # of the file: SQLite's own


def assert_right(world: World) -> None:
    """A new reader, and one that asks again, are told the truth; so is who looks for an id or a seq."""
    history = world.history()
    for wanted in FILTERS:
        expected = [world.row_of(m) for m in world.expected(wanted)]
        assert expected == [told(row) for row in rows(history, wanted)]
    for m in world.known[::17]:
        assert [m.location] == history.find(m.message.id.hex())
        if m.state == model.RECEIVED:
            assert m.location == history.location_of(m.record.peer, model.IN, m.seq)
    history.close()


def fill(world: World) -> None:
    for number in range(40):
        world.send(1 + number % 5, 1 + number % 13, salt=number)
        world.receive(2, 3, salt=number)
        if number % 3:
            world.receipt(1 + number % 5, 7)
        if number % 7 == 6:
            world.hold(1, 4)
            world.commit()
            world.end(1, world.line(1).waiting[1:3], model.EXPIRED)
            world.release(1, 1)
        world.commit()


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 16, 400, 4096])
def test_random_bytes_in_the_file_never_make_it_lie(tmp_path: Path, size: int) -> None:
    """Bits, words and pages overwritten anywhere, while it is closed and while a reader has it open."""
    world = World(str(tmp_path))
    fill(world)
    world.index_all().close()
    sound = Path(world.index_path).read_bytes()
    dice = random.Random(size)
    for number in range(16):
        spoiled = bytearray(sound)
        at = dice.randrange(HEAD_BYTES, len(sound) - size + 1)
        if size == 4096:
            at = at // size * size
        spoiled[at : at + size] = dice.randbytes(size)
        # in place: another inode would already tell
        if not os.path.exists(world.index_path):
            world.index_all().close()
            assert Path(world.index_path).read_bytes() != spoiled
            sound = Path(world.index_path).read_bytes()
            continue
        with open(world.index_path, "r+b") as file:
            file.write(spoiled)
            file.truncate(len(spoiled))
        assert_right(world)
        if number % 4 == 0:
            world.index_all().close()
            assert_right(world)
    world.close()


def test_a_copy_is_not_the_index(tmp_path: Path) -> None:
    """A backup copied while msgd ran may hold half a transaction: it is made anew."""
    world = World(str(tmp_path))
    fill(world)
    world.index_all().close()
    shutil.copy2(world.index_path, world.index_path + ".copy")
    os.rename(world.index_path + ".copy", world.index_path)
    assert_right(world)
    world.index_all().close()
    assert ("index.rebuilt", {"file": "index.sqlite", "reason": "it is a copy"}) in world.events
    assert_right(world)
    world.close()


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal", "-shm")])
def test_queries_go_on_while_the_file_is_deleted_and_made_anew(
    tmp_path: Path, suffixes: tuple[str, ...]
) -> None:
    """A reader that has the old file open, one that comes in between, and the indexer."""
    world = World(str(tmp_path))
    fill(world)
    indexer = world.index_all()
    old = world.history()
    assert_right(world)
    first = [row.location for row in rows(old, Filter())]
    for suffix in suffixes:
        os.unlink(world.index_path + suffix)
    fill(world)
    assert first == [row.location for row in rows(old, Filter())][: len(first)]
    assert_right(world)
    indexer.step(10)
    assert_right(world)
    while indexer.step():
        pass
    assert [world.row_of(m) for m in world.expected(Filter())] == [told(row) for row in rows(old, Filter())]
    assert_right(world)
    old.close()
    indexer.close()
    world.close()
