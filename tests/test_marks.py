"""Marks: which report marks which message, however the index is; what that costs who asked for none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from msgctl.messages import as_json
from msgd import model, showing
from msgd.history import History
from msgd.log.index import REPORT, Index
from msgd.log.record import FLAG_REPORTS, Kind
from msgd.marks import Mark, Marks
from msgd.rows import Filter, Row
from msgd.wire.codec import Message
from msgd.wire.reports import has_reports, reports_of
from msgd.wire.varlink import dump_text
from tests.message_world import Known, World, rows

ASKS, ASKS_NOT = 6, 7  # salts: with the header `report`, and without
RESULT = model.MESSAGE_KINDS.index("result")
SOME = Message(b"\1" * 16, RESULT, 5, "eva", {"handled": model.id_text(b"\2" * 16), "consumer": "job"}, b"")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(str(tmp_path))
    yield world
    world.close()


def number_of(world: World, m: Known) -> int:
    return world.known.index(m)


def row_at(history: History, m: Known) -> Row:
    return history.message_at(m.location)


def mark_in(world: World, m: Known) -> tuple[int | None, str | None]:
    """What the history says, with no index and with a whole one, which must be the same."""
    world.commit()
    found = []
    for index in (False, True):
        if index:
            world.index_all().close()
        history = world.history()
        row = row_at(history, m)
        found.append((row.handled_at_ns, row.handled_by))
        history.close()
    assert found[0] == found[1]
    return found[0]


def stored(world: World, salt: int = ASKS, peer: int = 1) -> Known:
    (message,) = world.send(peer, 1, salt)
    world.receipt(peer, 1)
    return message


# --- what a report is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"kind": 0},
        {"headers": {}},
        {"headers": {"handled": SOME.headers["handled"]}},
        {"headers": {**SOME.headers, "consumer": "No Name"}},
        {"headers": {**SOME.headers, "consumer": "x" * 64}},
        {"headers": {**SOME.headers, "handled": "\u0663" * 36}},
        {"headers": {**SOME.headers, "handled": SOME.headers["handled"].replace("-", "0")}},
        {"headers": {**SOME.headers, "handled": SOME.headers["handled"].upper().replace("0", "A")}},
        {"headers": {**SOME.headers, "handled": "02020202-0202-0202-0202-0202020202"}},
    ],
)
def test_what_is_not_quite_a_report_is_none(change: dict[str, Any]) -> None:
    """Whatever a peer writes into these headers."""
    other = msgspec.structs.replace(SOME, **change)
    assert not has_reports([other])
    assert [] == list(reports_of([other]))
    assert has_reports([other, SOME])
    assert [(b"\2" * 16, "job", 5, 1)] == list(reports_of([other, SOME]))


# --- what is marked -------------------------------------------------------------------------------------


def test_message_is_marked_by_the_first_report_of_its_peer(world: World) -> None:
    """Later ones change nothing, wherever they stand; of another peer, or of our own, it is none."""
    message = stored(world)
    number = number_of(world, message)
    assert (None, None) == mark_in(world, message)
    world.report(2, number, Kind.IN, has_more=False)
    world.report(1, number, Kind.OUT, has_more=False)
    assert (None, None) == mark_in(world, message)
    world.report(1, number, Kind.IN, has_more=True)
    first = world.known[-1].message
    expected = (first.sent_ns, first.headers["consumer"])
    assert expected == mark_in(world, message)
    again = msgspec.structs.replace(
        first, id=b"\7" * 16, sent_ns=77, headers={**first.headers, "consumer": "b"}
    )
    world._receive(1, world._put(Kind.IN, 1, [again], model.IN, world.inward[1] + 1, flags=FLAG_REPORTS))
    assert expected == mark_in(world, message)


@pytest.mark.parametrize("kind", [Kind.OUT, Kind.HELD])
def test_what_came_in_is_marked_by_our_own_report(world: World, kind: int) -> None:
    """Sent at once, or waiting for the peer."""
    (message,) = world.receive(1, 1, ASKS)
    world.report(1, number_of(world, message), Kind.IN, has_more=False)
    assert (None, None) == mark_in(world, message)
    world.report(1, number_of(world, message), kind, has_more=False)
    assert (0, "c0") == mark_in(world, message)


def test_who_did_not_ask_is_not_marked(world: World) -> None:
    """A peer cannot put marks on messages as it likes."""
    message = stored(world, ASKS_NOT)
    world.report(1, number_of(world, message), Kind.IN, has_more=False)
    assert (None, None) == mark_in(world, message)


def test_mark_stands_beside_stored_only(world: World) -> None:
    """A report that comes before the receipt waits for it; what ended otherwise is never handled."""
    early, ended = world.send(1, 1, ASKS) + world.send(1, 1, ASKS)
    for message in (early, ended):
        world.report(1, number_of(world, message), Kind.IN, has_more=False)
    world.end(1, [ended], model.CANCELLED)
    assert (None, None) == mark_in(world, early)
    assert (None, None) == mark_in(world, ended)
    world.receipt(1, 1)
    assert (0, "c0") == mark_in(world, early)
    assert (None, None) == mark_in(world, ended)


def test_mark_goes_with_its_report(world: World) -> None:
    """What is vacuumed says nothing any more, whether the index still knows of it or not."""
    held = world.hold(1, 1)[0]  # keeps its segment
    message = stored(world)
    world.roll()
    world.report(1, number_of(world, message), Kind.IN, has_more=False)
    world.roll()
    indexer = world.index_all()
    world.send(2, 3)
    world.commit()
    assert (0, "c1") == mark_in(world, message)
    world.vacuum(1, 1)
    history = world.history()
    assert ("stored", None) == (row_at(history, message).state, row_at(history, message).handled_by)
    while indexer.step():
        pass
    assert row_at(history, message).handled_by is None
    assert held in world.known
    history.close()
    indexer.close()


def test_report_of_later_is_not_there_before(world: World) -> None:
    """A query is exact as of one log offset."""
    message = stored(world)
    world.commit()
    upto = world.page.committed
    world.report(1, number_of(world, message), Kind.IN, has_more=False)
    world.commit()
    world.send(2, 1)  # the last append is never indexed
    world.commit()
    world.index_all().close()
    history = world.history()
    ((row,),) = history.query(Filter(id=message.message.id.hex()), upto)
    assert row.handled_by is None
    assert row_at(history, message).handled_by == "c0"
    history.close()


# --- how it is told -------------------------------------------------------------------------------------


def test_line_with_a_mark_is_what_msgctl_makes_of_the_object(world: World) -> None:
    """In the place where msgctl puts it, in rows and in lines, with the state before as well."""
    message = stored(world)
    world.commit()
    since = world.page.committed
    world.report(1, number_of(world, message), Kind.IN, has_more=False)
    world.commit()
    history = world.history()
    told = [*history.told(Filter(direction=model.OUT), as_lines=True)]
    changed = [*history.changes(Filter(), since, world.page.committed, as_lines=True)]
    for part, was in ((told[0], None), (changed[0], "stored")):
        shown = showing.message(row_at(history, message)) | ({"was": was} if was else {})
        line = part.lines if isinstance(part.lines, str) else part.lines.decode()  # type: ignore[union-attr]
        assert dump_text(as_json(shown)) == line
        assert ("stored", 0, "c0") == tuple(
            json.loads(line)[name] for name in ("state", "handled_at_ns", "handled_by")
        )
    history.close()


def test_only_who_asked_is_looked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that asked for nothing costs no look at the index; a log without reports none at all."""
    looked: list[bytes] = []
    first = Marks.first

    def noted(self: Marks, place: Any, raw: bytes) -> Mark | None:
        looked.append(raw)
        return first(self, place, raw)

    monkeypatch.setattr(Marks, "first", noted)
    asking, _ = stored(world), stored(world, ASKS_NOT)
    world.commit()
    assert 2 == len(list(rows(world.history(), Filter())))
    assert [] == looked
    world.report(1, number_of(world, asking), Kind.IN, has_more=False)
    world.commit()
    assert 3 == len(list(rows(world.history(), Filter())))
    assert [asking.message.id] == looked


def test_index_holds_what_reports_say(world: World) -> None:
    """By peer and by who reports; the golden form of an entry."""
    message = stored(world)
    number = number_of(world, message)
    world.report(1, number, Kind.IN, has_more=True)
    world.report(1, number, Kind.OUT, has_more=False)
    world.send(2, 1)
    world.commit()
    world.send(2, 1)
    world.commit()
    world.index_all().close()
    index = Index.open(world.index_path, world.store.log_id)
    by_peer, by_us = (list(index.report.scan(group, b"", b"\xff" * 99)) for group in (2, 3))
    reports = [m for m in world.known if m.tells_of]
    raw = message.message.id
    assert [REPORT.pack(raw, reports[0].record.offset << 17 | 1 << 1 | 1, 0, b"c0")] == by_peer
    assert [REPORT.pack(raw, reports[1].record.offset << 17, 0, b"c0")] == by_us
    assert [2, 3] == list(index.report.groups())
    index.close()


# --- threads --------------------------------------------------------------------------------------------


def test_thread_is_found_over_peers_and_with_other_filters(world: World) -> None:
    """By the id of its first message, whoever sent the others; a message that only mentions the id is not."""
    (root,) = world.receive(1, 1, ASKS_NOT)
    name = model.id_text(root.message.id)
    answer = msgspec.structs.replace(root.message, id=b"\5" * 16, headers={"thread": name, "reply-to": name})
    other = msgspec.structs.replace(answer, id=b"\6" * 16, headers={"n": name}, body=name.encode())
    third = msgspec.structs.replace(answer, id=b"\7" * 16)
    world._number(world.line(1), world._put(Kind.OUT, 1, [answer, other], model.OUT, 1))
    world._number(world.line(2), world._put(Kind.OUT, 2, [third], model.OUT, 1))
    world.commit()
    history = world.history()

    def found(**asked: Any) -> list[bytes]:
        return [row.id for row in rows(history, Filter(thread=name, **asked))]

    assert [root.message.id, answer.id, third.id] == found()
    assert [third.id] == found(peer=2)
    assert [root.message.id] == found(direction=model.IN)
    assert [answer.id, third.id] == found(direction=model.OUT, grep=root.message.body.decode())
    assert [third.id] == found(lines=1)
    history.close()


def test_thread_may_have_any_name(world: World) -> None:
    """A header `thread` that somebody set by hand."""
    (root,) = world.receive(1, 1, ASKS_NOT)
    named = msgspec.structs.replace(root.message, id=b"\5" * 16, headers={"thread": "abcd"})
    world._number(world.line(1), world._put(Kind.OUT, 1, [named], model.OUT, 1))
    world.commit()
    history = world.history()
    assert [named.id] == [row.id for row in rows(history, Filter(thread="abcd"))]
    history.close()
