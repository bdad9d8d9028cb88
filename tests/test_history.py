"""The history, rule by rule: states, cursors, ends of queries, damage, and what a query costs."""

import os
import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd import model
from msgd.audit import CONTROL
from msgd.errors import UsageError
from msgd.history import History
from msgd.log.files import REAL_FILES
from msgd.log.segment import list_bases, segment_path
from msgd.parts import LIST_BYTES, LIST_ROWS
from msgd.rows import Cursor, Filter, parse_cursor
from msgd.states import Place, States
from tests.message_world import FIRST_NS, REASON, TICK_NS, Known, World, rows, told


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(str(tmp_path))
    yield world
    world.close()


@pytest.fixture
def history(world: World) -> Iterator[History]:
    history = world.history()
    yield history
    history.close()


def states(world: World) -> list[tuple[int | None, str]]:
    world.commit()
    history = world.history()
    found = list(rows(history, Filter()))
    assert [told(row) for row in found] == [world.row_of(m) for m in world.expected(Filter())]
    history.close()
    return [(row.seq, row.state) for row in found]


# --- states ---------------------------------------------------------------------------------------------


def test_receipt_covers_what_came_before_it(world: World) -> None:
    """Cumulative: everything up to its seq is stored, in the middle of a batch, too."""
    world.send(1, 2)
    world.send(1, 3)
    world.receipt(1, 3)
    assert states(world) == [(1, "stored"), (2, "stored"), (3, "stored"), (4, "queued"), (5, "queued")]


def test_first_receipt_tells_when(world: World, history: History) -> None:
    """A later receipt for more does not change what an earlier one said."""
    world.send(1, 1)
    world.receipt(1, 1)
    world.send(1, 1)
    world.receipt(1, 1)
    world.commit()
    assert [row.receipt_at_ns for row in rows(history, Filter())] == [1001, 1002]


def test_held_message_gets_its_seq_when_it_is_released(world: World) -> None:
    """Its place stays that of the held record; a release makes no second row."""
    world.hold(1, 3)
    world.release(1, 2)
    world.receipt(1, 1)
    assert states(world) == [(1, "stored"), (2, "queued"), (None, "queued")]


def test_what_waits_for_a_peer_that_gets_nothing_is_held(world: World) -> None:
    """Without a seq only: what was released may be there already."""
    world.hold(1, 2)
    world.release(1, 1)
    world.held_peers = {1}
    assert states(world) == [(1, "queued"), (None, "held")]


def test_new_epoch_voids_seqs_without_a_receipt(world: World) -> None:
    """They wait again until they are released under others; what was stored stays stored."""
    world.send(1, 3)
    world.receipt(1, 1)
    world.epoch(1, model.OUT)
    assert states(world) == [(1, "stored"), (None, "queued"), (None, "queued")]
    world.release(1, 2)
    assert states(world) == [(1, "stored"), (5, "queued"), (None, "queued")]
    world.receipt(1, 9)
    assert states(world) == [(1, "stored"), (5, "stored"), (None, "queued")]


def test_receipt_of_a_later_epoch_says_nothing_of_void_seqs(world: World) -> None:
    """Though it is higher than they were."""
    world.send(1, 2)
    world.epoch(1, model.OUT)
    world.send(1, 1)
    world.receipt(1, 9)
    assert states(world) == [(None, "queued"), (None, "queued"), (3, "stored")]


def test_first_final_state_stays(world: World) -> None:
    """An ending after a receipt changes nothing, nor a receipt after an ending, nor a second ending."""
    sent = world.send(1, 2)
    world.receipt(1, 1)
    world.end(1, sent, model.CANCELLED)
    world.end(1, sent, model.EXPIRED)
    world.receipt(1, 1)
    assert states(world) == [(1, "stored"), (2, "cancelled")]


def test_reason_of_an_ending_is_told(world: World, history: History) -> None:
    """As the `ended` record gives it."""
    world.end(1, world.hold(1, 3)[1:2], model.REJECTED)
    world.commit()
    assert [row.reason for row in rows(history, Filter())] == [None, REASON, None]


def test_endings_of_a_large_batch_are_told_one_by_one(world: World, history: History) -> None:
    """Every second of 1,500 messages: what is asked for by state is just those."""
    held = world.hold(1, 1500)[::2]
    world.end(1, held, model.EXPIRED)
    world.release(1, 1500)
    world.commit()
    assert [row.location for row in rows(history, Filter(state="expired"))] == [m.location for m in held]
    queued = list(rows(history, Filter(state="queued")))
    assert [row.seq for row in queued] == list(range(1, 751))


# --- merged addresses, what came back, what was done here --------------------------------------------------


def test_messages_to_an_address_become_the_peers(world: World, history: History) -> None:
    """Name, filter, order and receipts are those of the peer whose they became."""
    held = world.hold(3, 2)
    world.send(1, 1)
    world.commit()
    world.merged = {3: 1}
    world.line(1).waiting, world.line(3).waiting = held, []
    world.release(1, 1)
    world.receipt(1, 2)
    states(world)
    found = list(rows(world.history(), Filter(peer=1)))
    assert [("peer1", 2, "stored"), ("peer1", None, "queued"), ("peer1", 1, "stored")] == [
        (row.peer, row.seq, row.state) for row in found
    ]
    assert found == list(rows(world.history(), Filter(peer=3))), "whoever asks for the address means the peer"
    world.held_peers = {1}
    assert [("held", "unpaired")] == [
        (row.state, row.reason) for row in rows(world.history(), Filter(state="held"))
    ]


def test_recovered_messages_are_final(world: World) -> None:
    """Stored or received by direction, found by id and seq, whatever epochs and receipts say."""
    world.send(1, 1)
    sent = world.recover(1, model.OUT, 2)
    came = world.recover(1, model.IN, 2)
    world.epoch(1, model.OUT)
    assert [(None, "queued"), (2, "stored"), (3, "stored"), (1, "received"), (2, "received")] == states(world)
    for indexed in (False, True):
        if indexed:
            world.index_all().close()
        history = world.history()
        assert came[1].location == history.location_of(1, model.IN, 2)
        assert sent[1].location == history.location_of(1, model.OUT, 3)
        assert [sent[0].location] == history.find(sent[0].message.id.hex())
        history.close()


def test_what_was_done_is_told_only_when_asked_for(world: World) -> None:
    """Kind control: one readable row for each record, in the order of the log, found by its id."""
    world.deed(1, "paired", "ana", how="words", words="receive action stone hire", secret=b"s" * 16)
    world.send(1, 1)
    world.epoch(1, model.OUT)
    world.deed(0, "invited", "ana", invitation=b"i" * 8, secret=b"s" * 16)
    world.commit()
    history = world.history()
    assert [1] == [row.seq or 1 for row in rows(history, Filter())]
    control = list(rows(history, Filter(kind=CONTROL)))
    assert [told(row) for row in control] == [world.row_of(m) for m in world.expected(Filter(kind=CONTROL))]
    assert "ana paired this node with peer1 after comparing words (receive action stone hire)" == str(
        control[0].body, "utf-8"
    )
    assert ["peer1", "peer1", ""] == [row.peer for row in control]
    assert ["ana", "", "ana"] == [row.user for row in control]
    assert not any(b"ssss" in row.body or "ssss" in str(row.headers) for row in control)
    assert [control[1]] == list(rows(history, Filter(kind=CONTROL, after=control[0].cursor, peer=1)))
    assert control[2] == history.message_at(history.find(control[2].id.hex())[0])
    assert [] == list(rows(history, Filter(kind=CONTROL, direction=model.OUT)))
    history.close()


# --- cursors --------------------------------------------------------------------------------------------


def test_cursor_says_log_place_and_message(world: World, history: History) -> None:
    """The text that scripts keep."""
    sent = world.send(1, 2)[1]
    world.commit()
    text = list(rows(history, Filter()))[1].cursor
    log_id, (offset, index) = world.store.log_id, sent.location
    assert text == f"l={log_id.hex()};o={offset:x};i={index};m={sent.message.id.hex()}"
    assert parse_cursor(text, log_id) == Cursor(log_id, sent.location, sent.message.id)


def test_cursor_without_a_message_is_a_place(world: World, history: History) -> None:
    """`o` and `i` are enough; what is behind them follows."""
    sent = world.send(1, 3)
    world.commit()
    text = Cursor(world.store.log_id, sent[0].location, None).text
    assert [row.location for row in rows(history, Filter(after=text))] == [m.location for m in sent[1:]]


@pytest.mark.parametrize("text", ["", "x", "l=00;o=1;i=2", "l=0011223344556677;o=1", "s=abc;i=1"])
def test_text_that_is_no_cursor_is_refused(world: World, history: History, text: str) -> None:
    """At once, with a hint, before the first row is asked for."""
    with pytest.raises(UsageError) as refused:
        history.query(Filter(after=text))
    assert refused.value.hint


def test_cursor_of_another_log_is_refused(world: World, history: History) -> None:
    """A cursor kept from before the state was removed would skip messages."""
    with pytest.raises(UsageError, match="another log") as refused:
        history.query(Filter(after="l=0011223344556677;o=1;i=0"))
    assert refused.value.hint


@pytest.mark.parametrize("restarts", [1, 2, 3])
@pytest.mark.parametrize("is_indexed", [False, True])
def test_cursor_holds_over_starts_that_move_it(world: World, restarts: int, is_indexed: bool) -> None:
    """A start writes the last append anew; who follows by cursor hears nothing twice and misses nothing."""
    world.send(1, 1)
    world.commit()
    sent = world.send(1, 3)
    world.commit()
    history = world.history()
    cursor = list(rows(history, Filter()))[-2].cursor
    place = sent[1].location
    for _ in range(restarts):
        world.restart()
    assert place != sent[1].location
    later = world.send(1, 1)
    world.commit()
    if is_indexed:
        world.index_all().close()
    history = world.history()
    heard = [row.location for row in rows(history, Filter(after=cursor))]
    assert heard == [sent[2].location, later[0].location]


# --- what is asked for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [Filter(state="lost"), Filter(id="xyz"), Filter(id="12"), Filter(lines=-1), Filter(grep="(")],
    ids=lambda wanted: repr(wanted)[:60],
)
def test_what_cannot_be_asked_is_refused_at_once(history: History, wanted: Filter) -> None:
    """With a sentence and a hint, not with no rows."""
    with pytest.raises(UsageError) as refused:
        history.query(wanted)
    assert refused.value.message
    assert refused.value.hint


def test_clock_steps_hide_no_message(world: World, history: History) -> None:
    """Each row is judged by its own time, and the order is that of the log."""
    at_ns = []
    indexer = world.indexer()
    for step in (0, -3600, 1800, 7200, -86400, 0):
        world.clock.now_ns += step * 1_000_000_000
        at_ns.append(world.send(1, 1)[0].record.wall_ns)
        world.commit()
        indexer.step()
    indexer.close()
    for since_ns in at_ns:
        for until_ns in at_ns:
            found = [r.stored_at_ns for r in rows(history, Filter(since_ns=since_ns, until_ns=until_ns))]
            assert found == [wall for wall in at_ns if since_ns <= wall <= until_ns]


def test_query_is_as_of_the_offset_that_is_given(world: World, history: History) -> None:
    """What is committed later does not show, neither as a row nor in a state, though the index knows it."""
    world.send(1, 1)
    held = world.hold(1, 3)
    world.commit()
    upto = world.page.committed
    before = [world.row_of(m) for m in world.known]
    world.receipt(1, 1)
    world.release(1, 1)
    world.end(1, held[1:2], model.EXPIRED)
    world.epoch(1, model.OUT)
    world.send(1, 1)
    world.commit()
    world.index_all().close()
    assert [told(row) for part in history.query(Filter(), upto) for row in part] == before
    assert list(history.query(Filter(state="expired"), upto)) == []


def test_beginning_of_an_id_that_many_share_is_found_all_the_same(world: World, history: History) -> None:
    """More than are looked up one by one."""
    for _ in range(4):
        world.send(1, 600, salt=0)
        world.commit()
    world.index_all().close()
    prefix = world.known[0].message.id.hex()[:4]
    expected = [m.location for m in world.expected(Filter(id=prefix))]
    assert len(expected) > 1000
    assert [row.location for row in rows(history, Filter(id=prefix))] == expected
    assert len(history.find(prefix, 5)) == 5


def test_message_that_is_not_there_is_a_lookup_error(world: World, history: History) -> None:
    """A place beyond the record's messages, beyond the log, or of a record without messages."""
    offset, _ = world.send(1, 2)[0].location
    world.receipt(1, 1)
    world.commit()
    for location in ((offset, 2), (offset, -1), (world.page.committed, 0), (world.records[-1].offset, 0)):
        with pytest.raises(LookupError):
            history.message_at(location)
    assert history.location_of(1, model.OUT, 3) is None
    assert history.location_of(1, model.IN, 1) is None
    assert history.find("0123") == []


# --- damage ---------------------------------------------------------------------------------------------


def spoil(world: World, m: Known, byte: int = 130) -> None:
    """One bit of the record where it stands: of the payload, or of the header's length (bytes 16 to 19)."""
    base = max(b for b in list_bases(REAL_FILES, world.log) if b <= m.record.offset)
    with open(segment_path(world.log, base), "r+b") as file:
        file.seek(m.record.offset - base + byte)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((byte[0] ^ 1,)))


@pytest.mark.parametrize(("byte", "is_indexed"), [(130, False), (130, True), (16, True), (19, True)])
@pytest.mark.parametrize("reverse", [False, True])
def test_damaged_record_is_told_and_the_rest_is_shown(
    world: World, byte: int, is_indexed: bool, reverse: bool
) -> None:
    """Once per place, whatever is asked; the index may have been made before or after."""
    for _ in range(5):
        world.send(1, 2)
        world.commit()
    if is_indexed:
        world.index_all().close()
    bad = world.known[4]
    spoil(world, bad, byte)
    sound = [world.row_of(m) for m in world.expected(Filter(reverse=reverse)) if m.record is not bad.record]
    history = world.history()
    assert [told(row) for row in rows(history, Filter(reverse=reverse))] == sound
    assert [damaged.offset for damaged in world.damage] == [bad.record.offset]
    with pytest.raises(Exception, match="damaged at"):
        history.message_at(bad.location)


def test_damaged_index_is_removed_and_the_query_goes_on(world: World, history: History) -> None:
    """In the middle of telling: no row is missing and none comes twice."""
    for _ in range(8):
        world.send(1, 500, salt=0)
        world.commit()
    world.index_all().close()
    parts = history.query(Filter())
    heard = [told(row) for row in next(parts)]
    size = os.path.getsize(world.index_path)
    with open(world.index_path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    heard += [told(row) for part in parts for row in part]
    assert heard == [world.row_of(m) for m in world.expected(Filter())]
    assert [told(row) for row in rows(history, Filter(state="expired"))] == []
    assert world.damage == []


def test_index_that_leads_to_another_message_is_not_believed(world: World, history: History) -> None:
    """An id is looked up in the log before it is told: what differs costs the index, not the answer."""
    first, second = world.send(1, 1)[0], world.send(1, 1)[0]
    world.commit()
    world.send(1, 1)
    world.commit()
    world.index_all().close()
    db = sqlite3.connect(world.index_path)
    (data,) = db.execute("SELECT data FROM id").fetchone()
    one, other = (m.record.offset << 17 for m in (first, second))
    db.execute("UPDATE id SET data = ?", (data.replace(one.to_bytes(8, "big"), other.to_bytes(8, "big")),))
    db.commit()
    db.close()
    assert history.find(first.message.id.hex()) == [first.location]
    assert not os.path.exists(world.index_path)


# --- what a query costs ---------------------------------------------------------------------------------


def big_log(world: World, messages: int) -> None:
    """Bodies of 3,000 bytes, ten to an append, three peers."""
    for number in range(messages // 10):
        for _ in range(10):
            world.send(1 + number % 3, 1, salt=4)
        world.store.commit()


def read_bytes() -> int:
    with open("/proc/self/io", encoding="ascii") as file:
        return int(file.readline().split()[1])


@pytest.mark.slow
def test_last_rows_of_a_peer_do_not_read_the_log(world: World) -> None:
    """With the index there, a query touches its tables, the log's tail and the records that it tells."""
    big_log(world, 3000)
    world.index_all().close()
    history = world.history()
    before = read_bytes()
    found = [row.location for row in rows(history, Filter(peer=2, lines=20))]
    cost = read_bytes() - before
    assert found == [m.location for m in world.expected(Filter(peer=2, lines=20))]
    assert cost < world.page.committed // 5


@pytest.mark.slow
def test_what_waits_is_found_without_all_that_is_final(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the places before the first message that waits the state is not even asked for."""
    big_log(world, 3000)
    for peer in (1, 2, 3):
        world.receipt(peer, 1000)
    waiting = [*world.hold(2, 3), *world.send(1, 1)]
    world.commit()
    world.index_all().close()
    asked: list[Place] = []
    of = States.of
    monkeypatch.setattr(States, "of", lambda states, place: asked.append(place) or of(states, place))  # type: ignore[func-returns-value]
    found = [row.location for row in rows(world.history(), Filter(state="queued"))]
    assert [m.location for m in waiting] == found
    assert len(asked) < 20


@pytest.mark.slow
def test_memory_does_not_grow_with_the_result(world: World) -> None:
    """9 MB of bodies, told in lists of bounded size, never more than a few lists at once."""
    big_log(world, 3000)
    world.index_all().close()
    history = world.history()
    for wanted in (Filter(), Filter(reverse=True), Filter(lines=2900), Filter(grep="x")):
        tracemalloc.start()
        told_rows = 0
        for part in history.query(wanted):
            told_rows += len(part)
            assert len(part) <= LIST_ROWS
            assert sum(len(row.body) for row in part) < LIST_BYTES + model.MAX_MESSAGE_BYTES
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert told_rows >= 2900
        assert peak < 4 << 20


def test_stored_time_is_that_of_this_node(world: World, history: History) -> None:
    """The record's own clock, whatever the sender's said."""
    world.receive(1, 1, salt=3)
    world.commit()
    (row,) = rows(history, Filter())
    assert (row.sent_at_ns, row.stored_at_ns) == (3, world.known[0].record.wall_ns)
    assert row.stored_at_ns >= FIRST_NS + TICK_NS
