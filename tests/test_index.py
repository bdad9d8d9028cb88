"""The index file: what it holds, when it is made anew, what it says about ids."""

import os
import resource
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd import model
from msgd.indexer import Indexer
from msgd.log import derived, gather
from msgd.log.derived import NotUsableError
from msgd.log.files import REAL_FILES
from msgd.log.index import Index, known_ids
from msgd.log.segment import list_bases, segment_path
from msgd.rows import Filter
from tests.forked import in_child
from tests.message_world import World, rows, told


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(str(tmp_path))
    yield world
    world.close()


def fill(world: World) -> None:
    """Three appends, of which the last is left out of the index."""
    world.send(1, 3)
    world.commit()
    world.receive(1, 2)
    world.commit()
    world.hold(2, 1)
    world.commit()


def names(world: World) -> list[str]:
    return [name for name, _ in world.events]


def indexed(world: World) -> list[bytes]:
    index = Index.open(world.index_path, world.store.log_id)
    ids = [raw for digit in "0123456789abcdef" for raw, _ in index.ids(digit)]
    index.close()
    return ids


def assert_right(world: World) -> None:
    """The history tells what the model tells."""
    history = world.history()
    assert [world.row_of(m) for m in world.expected(Filter())] == [told(r) for r in rows(history, Filter())]
    history.close()


# --- following the log ----------------------------------------------------------------------------------


def test_last_append_is_never_indexed(world: World) -> None:
    """A start may move the last append, so the index ends before it."""
    fill(world)
    indexer = world.index_all()
    assert world.known[-1].record.offset == indexer.position
    assert [m.message.id for m in world.known[:-1]] == indexed(world)
    world.receive(1, 1)
    world.commit()
    assert not indexer.step()
    assert world.known[-1].record.offset == indexer.position
    indexer.close()


@pytest.mark.parametrize("appends", [1, 2, 3])
def test_index_stays_right_when_a_start_moves_the_last_append(world: World, appends: int) -> None:
    """Also when that append stands right behind a checkpoint, which the start writes in another length."""
    for number in range(appends):
        world.send(1, 1 + number)
        world.commit()
    world.roll()
    world.send(1, 2)
    world.commit()
    world.index_all().close()
    for _ in range(3):
        world.restart()
        indexer = world.index_all()
        assert_right(world)
        indexer.close()
    assert names(world) == ["index.opened"] * 3


def test_step_takes_about_as_much_as_it_may(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget ends a step behind the block that has used it up; the rest is told to be there."""
    monkeypatch.setattr(gather, "BLOCK_BYTES", 1)  # no record fits, so that each counts alone
    for _ in range(10):
        world.send(1, 1)
        world.commit()
    indexer = world.indexer()
    assert indexer.step(8)  # checkpoint, and four records of one message each
    assert world.known[4].record.offset == indexer.position
    assert indexer.step(8)
    assert world.known[8].record.offset == indexer.position
    assert not indexer.step(8)
    assert world.known[9].record.offset == indexer.position
    indexer.close()


def test_position_moves_with_what_it_stands_for(world: World, tmp_path: Path) -> None:
    """An indexer killed in the middle of a transaction leaves the position and the rows of the one before."""
    for _ in range(3):
        world.send(1, 1)
        world.commit()
    indexer = world.index_all()
    position = indexer.position
    indexer.close()
    for _ in range(3):
        world.send(1, 1)
        world.commit()

    def killed_in_transaction() -> None:
        indexer = world.indexer()
        db = indexer._opened().db
        db.set_trace_callback(lambda sql: os.kill(os.getpid(), signal.SIGKILL) if sql == "COMMIT" else None)
        indexer.step()

    pid = os.fork()
    if pid == 0:
        try:
            killed_in_transaction()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    index = Index.open(world.index_path, world.store.log_id)
    assert position == index.position
    index.close()
    assert [m.message.id for m in world.known[:2]] == indexed(world)
    assert_right(world)
    world.index_all().close()
    assert names(world) == ["index.opened"]
    assert [m.message.id for m in world.known[:5]] == indexed(world)


# --- when it is made anew -------------------------------------------------------------------------------


def execute(world: World, sql: str) -> None:
    db = sqlite3.connect(world.index_path)
    db.execute(sql)
    db.commit()
    db.close()


def garble(world: World) -> None:
    with open(world.index_path, "r+b") as file:
        file.write(b"no database at all")


def spoil_tables(world: World) -> None:
    with open(world.index_path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (os.path.getsize(world.index_path) - 4096))


SPOILED = {
    "its version is 99": lambda world: execute(world, "PRAGMA user_version = 99"),
    "another log": lambda world: execute(world, "UPDATE about SET log = x'00'"),
    "the machine started anew": lambda world: execute(world, "UPDATE about SET boot = x'00', closed = 0"),
    "it knows more than the log": lambda world: execute(world, "UPDATE about SET position = 1 << 40"),
    "the log went on in another way": lambda world: execute(world, "UPDATE about SET mark = mark + 1"),
    "not a database": garble,
    "it is damaged": spoil_tables,
}


@pytest.mark.parametrize("reason", SPOILED)
def test_index_that_cannot_be_trusted_is_made_anew(world: World, reason: str) -> None:
    """It is told why, and the new one holds what the old one should have held."""
    fill(world)
    world.index_all().close()
    SPOILED[reason](world)
    assert_right(world)
    world.index_all().close()
    if os.path.exists(world.index_path) and "index.rebuilt" in names(world):
        assert reason in str(dict(world.events)["index.rebuilt"]["reason"])
    else:
        assert reason == "it is damaged", "a reader removed it already, and then there was none"
    assert [m.message.id for m in world.known[:-1]] == indexed(world)


def test_index_that_was_closed_counts_after_a_start_of_the_machine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing syncs the file, so only one that was open when the power went is made anew."""
    fill(world)
    world.index_all().close()
    monkeypatch.setattr(derived, "boot_id", lambda: b"another boot")
    Index.open(world.index_path, world.store.log_id).close()
    monkeypatch.undo()
    indexer = world.index_all()
    monkeypatch.setattr(derived, "boot_id", lambda: b"another boot")
    with pytest.raises(NotUsableError, match="started anew"):
        Index.open(world.index_path, world.store.log_id)
    indexer.close()


def test_index_deleted_while_it_is_open_is_made_anew(world: World) -> None:
    """The next step sees that the file is gone."""
    fill(world)
    indexer = world.index_all()
    os.unlink(world.index_path)
    assert_right(world)
    while indexer.step():
        pass
    assert world.events == [("index.rebuilt", {"file": "index.sqlite", "reason": "the file was deleted"})]
    assert [m.message.id for m in world.known[:-1]] == indexed(world)
    indexer.close()


def test_index_that_cannot_be_written_is_told_once_and_tried_again(world: World) -> None:
    """No space for it costs no message: it is told, queries go on, and it catches up when there is space."""
    fill(world)

    def with_small_files() -> list[str]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        indexer = world.index_all()
        world.send(1, 1000)
        world.commit()
        world.send(1, 1)
        world.commit()
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        assert not indexer.step()
        assert not indexer.step()
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        while indexer.step():
            pass
        indexer.close()
        assert sorted(m.message.id for m in world.known[:-1]) == indexed(world)
        return names(world)

    assert in_child(with_small_files) == ["index.write_failed", "index.opened"]


def test_damaged_record_is_told_once_and_passed_over(world: World) -> None:
    """What cannot be read is an event; the rest is indexed, and queries tell it again."""
    fill(world)
    world.send(1, 1)
    world.commit()
    spoil_payload(world, world.known[3].record.offset)
    indexer = world.index_all()
    indexer.step()
    assert names(world) == ["log.damage_found"]
    indexer.close()
    history = world.history()
    sound = [m for m in world.expected(Filter()) if m.record is not world.known[3].record]
    for _ in range(2):
        assert [world.row_of(m) for m in sound] == [told(row) for row in rows(history, Filter())]
    assert [world.known[3].record.offset] == [damaged.offset for damaged in world.damage]
    history.close()


def spoil_payload(world: World, offset: int) -> None:
    base = max(b for b in list_bases(REAL_FILES, world.log) if b <= offset)
    with open(segment_path(world.log, base), "r+b") as file:
        file.seek(offset - base + 130)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((byte[0] ^ 1,)))


# --- ids ------------------------------------------------------------------------------------------------


def test_known_ids_are_those_that_were_submitted_here(world: World) -> None:
    """A peer that sends a message under an id of ours cannot keep us from using it."""
    fill(world)
    world.send(3, 1)
    world.commit()
    indexer = world.index_all()
    ids = [m.message.id for m in world.known]
    expected = [m.message.id for m in world.known[:-1] if m.state != model.RECEIVED]
    found, position = known_ids(
        world.index_path, world.log, world.store.log_id, [*ids, bytes(16), b"\xff" * 16]
    )
    assert sorted(expected) == found
    assert indexer.position == position
    indexer.close()


def test_known_ids_without_an_index_are_none_up_to_nowhere(world: World) -> None:
    """No file, another log's, or one that is being made: position 0 tells that nothing is known."""
    fill(world)
    ids = [m.message.id for m in world.known]
    assert known_ids(world.index_path, world.log, world.store.log_id, ids) == ([], 0)
    world.index_all().close()
    assert known_ids(world.index_path, world.log, b"otherlog", ids) == ([], 0)
    spoil_tables(world)
    assert known_ids(world.index_path, world.log, world.store.log_id, ids) == ([], 0)
    Path(world.index_path).write_bytes(b"")
    assert known_ids(world.index_path, world.log, world.store.log_id, ids) == ([], 0)


def test_indexer_makes_the_file_for_its_owner_only(world: World) -> None:
    """Ids and users are nobody else's business."""
    fill(world)
    world.index_all().close()
    assert os.stat(world.index_path).st_mode & 0o777 == 0o600


def test_position_is_nowhere_before_the_first_step(world: World) -> None:
    """Making an indexer opens nothing."""
    indexer: Indexer = world.indexer()
    assert indexer.position == 0
    assert not os.path.exists(world.index_path)
    indexer.close()
