"""The history against a plain list: random logs, random questions, the index in any condition."""

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from msgd import lanes, layers, model, parts, sifting, singles, states, walk, wording
from msgd.keeper import remove
from msgd.log import ahead, filling, gather, leaves, opened, words
from msgd.log.record import Header, Kind
from msgd.rows import Filter
from tests.message_world import FIRST_NS, SEARCHES, TICK_NS, USERS, Known, World, rows, thread_of, told

PEERS = st.integers(1, 2)
COUNTS = st.integers(1, 6)
SALTS = st.integers(0, 40)
STEPS_NS = st.integers(-300, 300).map(lambda ticks: ticks * TICK_NS)

TOLD = (Kind.IN, Kind.OUT, Kind.HELD)  # how a report may come into the log

STEPS = st.one_of(
    st.tuples(st.just("send"), PEERS, COUNTS, SALTS),
    st.tuples(st.just("hold"), PEERS, COUNTS, SALTS),
    st.tuples(st.just("receive"), PEERS, COUNTS, SALTS),
    st.tuples(st.just("release"), PEERS, COUNTS),
    st.tuples(st.just("receipt"), PEERS, st.integers(0, 9)),
    st.tuples(st.just("end waiting"), PEERS, st.integers(0, 5), st.integers(1, 4)),
    st.tuples(st.just("end doubtful"), PEERS),
    st.tuples(st.just("epoch"), PEERS, st.sampled_from((model.OUT, model.IN))),
    st.tuples(st.just("recover"), PEERS, st.sampled_from((model.OUT, model.IN)), st.integers(1, 4)),
    st.tuples(st.just("report"), PEERS, st.integers(0, 99), st.sampled_from(TOLD), st.booleans()),
    st.tuples(st.just("deed"), PEERS, st.sampled_from(("paired", "blocked", "removed"))),
    st.tuples(st.just("set_clock"), STEPS_NS),
    st.tuples(st.just("commit")),
    st.tuples(st.just("roll")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("vacuum"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("index"), st.integers(1, 10)),
)


SENT = (Kind.OUT, Kind.HELD)
SOME_STEPS = st.lists(STEPS, min_size=10, max_size=60)


@pytest.fixture(autouse=True)
def small_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short log fills many leaves and zones, and a reader often looks for a newer index."""
    monkeypatch.setattr(leaves, "LEAF_BYTES", 8 * 24)
    monkeypatch.setattr(leaves, "PACKED_BYTES", 6 * 32)
    monkeypatch.setattr(filling, "ZONE", 4)
    monkeypatch.setattr(layers, "REFRESH_BYTES", 1000)
    monkeypatch.setattr(layers, "FIRST_BYTES", 500)
    monkeypatch.setattr(layers, "MORE_TIMES", 2)
    monkeypatch.setattr(gather, "BLOCK_BYTES", 900)  # some records do not fit
    monkeypatch.setattr(lanes, "FIRST_BYTES", 300)
    monkeypatch.setattr(lanes, "MOST_BYTES", 1000)
    monkeypatch.setattr(ahead, "BLOCK_BYTES", 900)
    monkeypatch.setattr(ahead, "BEHIND_BYTES", 300)
    monkeypatch.setattr(parts, "LIST_ROWS", 3)
    monkeypatch.setattr(singles, "MOST", 3)
    monkeypatch.setattr(sifting, "UNREAD_PLACES", 2)
    monkeypatch.setattr(states, "RECEIPTS", 2)
    monkeypatch.setattr(opened, "OUTCOMES", 4)
    monkeypatch.setattr(walk, "KEPT_PLACES", 3)
    monkeypatch.setattr(words, "FIRST_ROWS", 2)
    monkeypatch.setattr(words, "MORE_TIMES", 2)
    monkeypatch.setattr(wording, "SHELF_BYTES", 2000)


def play(world: World, steps: list[tuple[Any, ...]]) -> None:
    """Let all this happen; an `index` step fills the index as far as it says."""
    for name, *arguments in steps:
        match name:
            case "end waiting":
                peer, first, count = arguments
                waiting = world.line(peer).waiting[first : first + count]
                world.end(peer, waiting, model.EXPIRED if first % 2 else model.REJECTED)
            case "end doubtful":
                out = [m for m in world.known if m.record.peer == arguments[0] and m.record.kind in SENT]
                world.end(arguments[0], out[-8::2], model.CANCELLED)
            case "index":
                world.store.commit()
                indexer = world.indexer()
                indexer.step(arguments[0])
                wordy = world.wording(indexer.position)
                wordy.step(arguments[0])
                wordy.close()
                indexer.close()
            case _:
                getattr(world, name)(*arguments)
    world.commit()


def leave(world: World) -> None:
    """The index as it is, behind or ahead of nothing, or not there."""


def fill(world: World) -> None:
    world.index_all().close()


def delete(world: World) -> None:
    world.index_all().close()
    os.unlink(world.index_path)


def fill_half(world: World) -> None:
    indexer = world.indexer()
    indexer.step(len(world.records) // 2)
    indexer.close()


def keep_open(world: World) -> None:
    """As it is while msgd runs: the last transactions only in the write-ahead file."""
    world.kept = world.index_all()  # type: ignore[attr-defined]


def other_version(world: World) -> None:
    indexer = world.index_all()
    assert indexer._index is not None
    indexer._index.db.execute("PRAGMA user_version = 77")
    indexer.close()


def other_log(world: World) -> None:
    indexer = world.index_all()
    assert indexer._index is not None
    indexer._index.db.execute("UPDATE about SET log = x'0102030405060708'")
    indexer.close()


def cut(world: World) -> None:
    world.index_all().close()
    os.truncate(world.index_path, os.path.getsize(world.index_path) // 2)


def overwrite(world: World) -> None:
    """All but the first page is something else."""
    world.index_all().close()
    size = os.path.getsize(world.index_path)
    with open(world.index_path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def no_database(world: World) -> None:
    with open(world.index_path, "wb") as file:
        file.write(b"this is no database\n" * 1000)


CONDITIONS: tuple[Callable[[World], None], ...] = (
    leave,
    fill,
    delete,
    fill_half,
    keep_open,
    other_version,
    other_log,
    cut,
    overwrite,
    no_database,
)


def fill_words(world: World) -> None:
    indexer = world.index_all()
    wordy = world.wording(indexer.position)
    while wordy.step(7):
        pass
    assert wordy.position == indexer.position
    wordy.close()
    indexer.close()


def delete_words(world: World) -> None:
    remove(world.search_path)


def copy_words(world: World) -> None:
    """As from a backup: the same, but it is another file."""
    fill_words(world)
    shutil.copy2(world.search_path, world.search_path + ".copy")
    os.replace(world.search_path + ".copy", world.search_path)


def overwrite_words(world: World) -> None:
    fill_words(world)
    size = os.path.getsize(world.search_path)
    with open(world.search_path, "r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (size - 8192))


def no_words(world: World) -> None:
    with open(world.search_path, "wb") as file:
        file.write(b"this is no database\n" * 1000)


WORD_CONDITIONS: tuple[Callable[[World], None], ...] = (
    leave,
    leave,
    fill_words,
    fill_words,
    delete_words,
    copy_words,
    overwrite_words,
    no_words,
)

GREPS = ("l", "^h", "ñ", "x{3000}", "nothing", "this node")
TIMES = st.none() | st.integers(-100, 400).map(lambda ticks: FIRST_NS + ticks * TICK_NS)
FILTERS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    peer=st.none() | PEERS,
    direction=st.none() | st.sampled_from((model.OUT, model.IN)),
    state=st.none() | st.sampled_from((*model.STATES, model.HANDLED)),
    kind=st.none() | st.none() | st.integers(0, 5),
    user=st.none() | st.none() | st.sampled_from(USERS),
    since_ns=TIMES,
    until_ns=TIMES,
    grep=st.none() | st.none() | st.sampled_from(GREPS),
    search=st.none() | st.none() | st.sampled_from(sorted(SEARCHES)),
    lines=st.none() | st.integers(0, 8),
    reverse=st.booleans(),
)
CALM = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def check(world: World, data: st.DataObject, questions: int) -> None:
    history = world.history()
    for _ in range(questions):
        asked = data.draw(FILTERS)
        after: Known | None = None
        if len(world.known) > 0 and data.draw(st.booleans()):
            number = data.draw(st.integers(0, len(world.known) - 1))
            some = world.known[number]
            if data.draw(st.booleans()):
                asked["id"] = some.message.id.hex()[: data.draw(st.integers(4, 32))]
            else:
                after = some
                asked["after"] = history.message_at(some.location).cursor
            if data.draw(st.booleans()):
                asked["thread"] = thread_of(some.message)
        wanted = Filter(**asked)
        expected = [world.row_of(m) for m in world.expected(wanted, after)]
        assert expected == [told(row) for row in rows(history, wanted)]
    history.close()


@pytest.mark.slow
@settings(CALM, max_examples=150)
@given(SOME_STEPS, st.sampled_from(CONDITIONS), st.data())
def test_query_tells_what_the_list_tells(
    steps: list[tuple[Any, ...]], condition: Callable[[World], None], data: st.DataObject
) -> None:
    """Whatever happened, whatever is asked and however the index is: exactly the rows of the model."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        play(world, steps)
        world.held_peers = set(data.draw(st.lists(PEERS)))
        data.draw(st.sampled_from(WORD_CONDITIONS))(world)
        condition(world)
        check(world, data, 4)
        assert world.damage == []
        world.close()


@pytest.mark.slow
@settings(CALM, max_examples=60)
@given(SOME_STEPS, st.sampled_from(CONDITIONS), SOME_STEPS, st.data())
def test_query_is_right_after_the_index_went_on(
    before: list[tuple[Any, ...]],
    condition: Callable[[World], None],
    later: list[tuple[Any, ...]],
    data: st.DataObject,
) -> None:
    """An index left in any condition is taken up again, or made anew, and tells the truth either way."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        play(world, before)
        data.draw(st.sampled_from(WORD_CONDITIONS))(world)
        condition(world)
        play(world, later)
        fill_words(world)
        check(world, data, 3)
        world.close()


@pytest.mark.slow
@settings(CALM, max_examples=60)
@given(st.lists(st.lists(STEPS.filter(lambda s: s[0] not in ("restart", "vacuum")), max_size=10), max_size=6))
def test_following_tells_every_message_once(parts: list[list[tuple[Any, ...]]]) -> None:
    """Who asks again and again behind the last cursor hears each message once, in order."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        history = world.history()
        heard: list[tuple[int, int]] = []
        cursor = None
        for steps in parts:
            play(world, steps)
            for row in rows(history, Filter(after=cursor)):
                heard.append(row.location)
                cursor = row.cursor
        assert [m.location for m in world.expected(Filter())] == heard
        history.close()
        world.close()


def check_life(known: Known, found: list[Header]) -> None:
    """All that tells about it; a checkpoint only for a receipt whose own record is gone."""
    checkpoints = [header for header in found if header.kind == Kind.CHECKPOINT]
    assert sorted(w.offset for w in known.life) == [h.offset for h in found if h not in checkpoints]
    if checkpoints:
        kinds = {written.kind for written in known.life}
        assert (1, model.STORED, False) == (len(checkpoints), known.state, Kind.RECEIPT in kinds)


@pytest.mark.slow
@settings(CALM, max_examples=60)
@given(SOME_STEPS, st.sampled_from(CONDITIONS))
@example(
    [
        *([("send", 1, 1, 0)] * 2),
        ("end doubtful", 1),
        *([("send", 1, 1, 0)] * 2),
        *[("commit",), ("roll",), ("receipt", 1, 2), ("roll",), ("vacuum", 0, 2)],
    ],
    leave,
)
def test_each_message_is_found_by_id_seq_and_place(
    steps: list[tuple[Any, ...]], condition: Callable[[World], None]
) -> None:
    """One message: where it stands, what it says, what became of it and which records tell so."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        play(world, steps)
        condition(world)
        history = world.history()
        for m in world.known:
            assert [m.location] == history.find(m.message.id.hex())
            assert world.row_of(m) == told(history.message_at(m.location))
            check_life(m, history.life(m.location))
            if m.seq:
                direction = model.IN if m.state == model.RECEIVED else model.OUT
                assert m.location == history.location_of(m.record.peer, direction, m.seq)
        history.close()
        world.close()
