"""The search by words: what may be asked, the file of words, and `msgctl log --search` of a running msgd."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd import wording
from msgd.errors import UsageError
from msgd.log import words
from msgd.log.files import REAL_FILES
from msgd.log.segment import list_bases, segment_path
from msgd.log.terms import Terms
from msgd.log.words import Words
from msgd.rows import Filter
from msgd.wording import Wording
from tests.message_world import World, rows
from tests.nodes import Node, Nodes, wait_for

ANYTHING = st.text(
    st.one_of(st.sampled_from('ab Ñé"*^+-():{},.\0\\'), st.characters(exclude_categories=["Cs"]))
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(str(tmp_path))
    yield world
    world.close()


def fill(world: World) -> Wording:
    indexer = world.index_all()
    writer = world.wording(indexer.position)
    while writer.step():
        pass
    indexer.close()
    return writer


def found(world: World, search: str) -> list[tuple[int, int]]:
    history = world.history()
    try:
        return [row.location for row in rows(history, Filter(search=search))]
    finally:
        history.close()


def shelves(world: World) -> int:
    db = sqlite3.connect(world.search_path)
    try:
        listed = db.execute("SELECT count(*) FROM shelf").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL%'").fetchone()
        assert tables[0] == listed
        return int(listed)
    finally:
        db.close()


# --- what may be asked ----------------------------------------------------------------------------------


@given(ANYTHING, ANYTHING)
@settings(max_examples=300, deadline=None, database=None)
def test_whatever_a_person_writes_is_no_error_of_sql(text: str, body: str) -> None:
    """Each text finds itself and any text may be looked through; only one without words is refused."""
    try:
        terms = Terms(text)
    except UsageError as error:
        assert "There is no word" in error.message or "too long" in error.message
    else:
        assert terms.fits(text.encode())
        assert [at for at, each in enumerate((body, text)) if terms.fits(each.encode())] == terms.fitting(
            [body.encode(), text.encode()]
        )


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("disk", ["the DISK is full", "dísk-full"]),
        ("disk full", ["the DISK is full", "dísk-full"]),
        ('"disk full"', ["dísk-full"]),
        ("disk-full", ["dísk-full"]),
        ("dis*", ["the DISK is full", "dísk-full", "distance"]),
        ("dis", []),
        ('"is fu"*', ["the DISK is full"]),
        ('full "the disk', ["the DISK is full"]),
        ("NEAR OR", ["near or far"]),
        ("日本", ["日本 東京"]),
    ],
)
def test_words_find_texts(search: str, expected: list[str]) -> None:
    """All of the words; in quotes in a row; with a star what begins so; capitals and accents do not count."""
    texts = ["the DISK is full", "dísk-full", "distance", "near or far", "日本 東京", ""]
    assert expected == [texts[at] for at in Terms(search).fitting([text.encode() for text in texts])]


@pytest.mark.parametrize("search", ["", "-", '""', "* \0 *", "a " * 65, "a" * 9000])
def test_what_is_no_search_is_refused(world: World, search: str) -> None:
    """At once, with what to write instead."""
    with pytest.raises(UsageError) as refused:
        world.history().query(Filter(search=search))
    assert refused.value.hint


# --- the file -------------------------------------------------------------------------------------------


def test_words_of_what_is_gone_leave_the_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shelves without a kept segment are dropped, before that nothing of them is shown."""
    monkeypatch.setattr(wording, "SHELF_BYTES", 1)
    for _ in range(4):
        world.receive(1, 3, 1)
        world.roll()
    for _ in range(2):
        world.receive(1, 1, 1)
        world.commit()
    writer = fill(world)
    assert 5 == shelves(world)
    world.vacuum(1, 2)
    expected = [m.location for m in world.known if b"hello" in m.message.body.lower()]
    assert 4 == len(expected)
    assert expected == found(world, "hello")
    while writer.step():
        pass
    assert 3 == shelves(world)
    assert expected == found(world, "hello")
    writer.close()


def test_a_shelf_that_goes_while_it_is_read_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was on it is not kept any more; the search goes on with the next."""
    monkeypatch.setattr(wording, "SHELF_BYTES", 1)
    monkeypatch.setattr(words, "FIRST_ROWS", 1)
    for _ in range(3):
        for _ in range(3):
            world.receive(1, 1, 1)
        world.roll()
    world.receive(1, 1, 1)
    world.commit()
    writer = fill(world)
    reader = Words.open(world.search_path, world.store.log_id)
    hits = reader.hits(Terms("hello").expression, 0, reader.position, False)
    assert [(world.known[0].record.offset, [0])] == next(hits)
    world.vacuum(0, 1)
    assert writer.step()
    assert [m.location for m in world.known[:6]] == [(at, 0) for some in hits for at, _ in some]
    reader.close()
    writer.close()


@pytest.mark.parametrize("what", ["deleted", "copied", "damaged", "foreign", "other version"])
def test_a_file_that_does_not_count_is_not_asked_and_made_anew(world: World, what: str) -> None:
    """Whatever befell it, the answer is that of the log."""
    world.receive(1, 40, 1)
    world.commit()
    world.send(1, 1)
    world.commit()
    writer = fill(world)
    assert 1 == shelves(world)
    expected = found(world, "hello")
    assert 17 == len(expected)
    writer.close()
    spoil(world.search_path, what)
    assert expected == found(world, "hello")
    writer = fill(world)
    assert expected == found(world, "hello")
    writer.close()
    rebuilt = [fields["file"] for name, fields in world.events if name == "index.rebuilt"]
    # a query removes a damaged one before anybody else sees it
    assert ([] if what in ("deleted", "damaged") else ["search.sqlite"]) == rebuilt


def spoil(path: str, what: str) -> None:
    db = sqlite3.connect(path)
    match what:
        case "deleted":
            os.unlink(path)
        case "copied":
            data = Path(path).read_bytes()
            Path(path + ".new").write_bytes(data)
            os.replace(path + ".new", path)
        case "damaged":
            name = db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'words_%data'").fetchone()[0]
            db.execute(f"UPDATE {name} SET block = x'0102030405' WHERE id > 10")
            db.commit()
        case "foreign":
            db.execute("UPDATE about SET log = x'0102030405060708'")
            db.commit()
        case "other version":
            db.execute("PRAGMA user_version = 77")
    db.close()


def test_a_record_that_cannot_be_read_is_told_by_every_search(world: World) -> None:
    """It may have held the word."""
    for _ in range(3):
        world.receive(1, 2, 1)
        world.commit()
    base = list_bases(REAL_FILES, world.log)[0]
    first = world.known[0].record.offset
    with open(segment_path(world.log, base), "r+b") as file:
        file.seek(first - base + 130)
        file.write(b"\xff\xff")
    writer = fill(world)
    assert [world.known[2].location, world.known[4].location] == found(world, "hello")
    assert [first] == [damaged.offset for damaged in world.damage]
    writer.close()


# --- a running msgd -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_log_searches_by_words(nodes: Nodes) -> None:
    """With other filters, at once and when the file holds it; off: refused, and the words are gone."""
    a, b = nodes.pair()
    assert 2 == a.ctl("log", "--search", "disk").returncode
    switch(a, "true")
    for text in ("the disk is full", "Disk: all well", "nothing"):
        assert 0 == a.ctl("send", b.name, text).returncode
    assert ["the disk is full", "Disk: all well"] == texts(a, "disk")
    assert ["Disk: all well"] == texts(a, "disk", "-n1", "--peer", b.name, "--state", "stored")
    path = a.state / "search.sqlite"
    wait_for(lambda: path.exists() and held(path) > 0, 20, "words in the file")
    assert ["the disk is full"] == texts(a, '"disk is" fu*')
    switch(a, "false")
    wait_for(lambda: not path.exists(), 20, "the file to be removed")
    refused = a.ctl("log", "--search", "disk")
    assert 2 == refused.returncode
    assert "history.search is false" in refused.stderr


def switch(node: Node, value: str) -> None:
    before = node.config.read_text().partition("[history]")[0]
    node.config.write_text(f"{before}[history]\nsearch = {value}\n")
    assert 0 == node.ctl("reload").returncode


def texts(node: Node, search: str, *words: str) -> list[str]:
    return [row["text"] for row in node.query("log", "--search", search, *words)]


def held(path: Path) -> int:
    """The messages in the file."""
    db = sqlite3.connect(path)
    try:
        return sum(
            db.execute(f"SELECT count(*) FROM words_{lo} WHERE words_{lo} MATCH 'disk'").fetchone()[0]
            for (lo,) in db.execute("SELECT lo FROM shelf")
        )
    except sqlite3.Error:
        return 0  # just being made
    finally:
        db.close()
