"""Consumers: what is handed out, to whom, how often, in which order; and what a log says of it later."""

import os
from typing import Any

import pytest

from msgd import consumers, cursors, lending, model
from msgd.errors import StorageRefused, UnknownConsumer, UsageError
from msgd.holders import GRACE_S
from msgd.log.errors import StorageFull
from msgd.log.record import FLAG_REPORTS, MAX_PAYLOAD_BYTES, Kind
from msgd.log.segment import Segment, segment_path
from msgd.receiving import ASIDE, DONE, FAILED, RELEASE, Settled
from msgd.wire.consuming import ListUnsettled, RemoveConsumer, RetryAside
from tests.consumer_world import Program, Station
from tests.gate_world import Node, Worker, here

__all__ = ["here"]

ASKS = {"report": "handled"}


@pytest.fixture
def station(here: Node) -> Station:
    return Station(here)


def unsettled(station: Station, name: str = "job") -> list[tuple[str, int, str]]:
    """State, attempts and reason of what is not done."""
    found = station.ask(Worker("control"), ListUnsettled(1, name)).unsettled
    return [(each.state, each.attempts, each.why) for each in found]


def retry(station: Station, *ids: bytes) -> int:
    value: int = station.ask(Worker("control"), RetryAside(1, "job", list(ids), "eva")).value
    return value


def next_of(program: Program, *settled: Settled) -> tuple[bytes, int]:
    """Id and attempt of the next message."""
    taken = program.next(*settled)
    assert taken is not None
    return taken.row.id, taken.attempt


# --- where it begins, and what it wants ------------------------------------------------------------------


def test_a_new_consumer_starts_at_the_oldest_message_and_an_old_one_goes_on(station: Station) -> None:
    ids = station.arrive(count=3) + station.arrive(station.c)
    first = station.program()
    assert ids[0] == first.handle()
    first.close()
    assert ids[1:] == station.program().all()
    station.restart()
    assert station.program().all() == []


def test_from_now_passes_over_what_is_there(station: Station) -> None:
    station.arrive(count=2)
    program = station.program(start="now")
    (new,) = station.arrive()
    assert [new] == program.all()


def test_from_now_holds_though_the_record_that_says_so_is_moved_by_a_start(station: Station) -> None:
    """The last append is written anew, behind a checkpoint: nothing of it may become newer than `now`."""
    books = station.node.books
    station.arrive()
    station.program(start="now")
    end = books.store.end
    station.restart()
    assert station.node.books.store.end > end
    assert station.program(start="now").all() == []


def test_results_and_other_peers_are_passed_over(station: Station) -> None:
    station.arrive(station.c)
    station.arrive(kind="result")
    (file,) = station.arrive(kind="file")
    (text,) = station.arrive()
    assert [file, text] == station.program(peer="node-b").all()
    assert [file] == station.program("files", peer="node-b", kind="file").all()


def test_results_come_where_they_are_named(station: Station) -> None:
    station.arrive()
    (result,) = station.arrive(kind="result")
    assert [result] == station.program(kind="result").all()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({}, "peer node-b and kind text"),
        ({"peer": "node-c", "kind": "text"}, "peer node-b and kind text"),
        ({"peer": "node-b", "kind": "file"}, "peer node-b and kind text"),
        ({"peer": "node-b", "kind": "text", "start": "then"}, "cannot begin at 'then'"),
        ({"kind": "control"}, "No message of kind 'control'"),
        ({"kind": "poem"}, "No message of kind 'poem'"),
    ],
)
def test_another_filter_than_the_first_is_refused(
    station: Station, wanted: dict[str, Any], words: str
) -> None:
    station.program(peer="node-b", kind="text")
    with pytest.raises(UsageError, match=words):
        station.program(**wanted)


@pytest.mark.parametrize("name", ["", "Job", "a b", "x" * 64])
def test_a_consumer_has_a_name_as_nodes_have(station: Station, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a consumer"):
        station.program(name)


def test_there_are_only_so_many_consumers(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "MAX_CONSUMERS", 2)
    station.program("one")
    station.program("two")
    with pytest.raises(UsageError, match="2 consumers"):
        station.program("three")
    assert not station.program("two").all()


# --- one message, one holder -----------------------------------------------------------------------------


def test_two_programs_of_one_name_get_different_messages(station: Station) -> None:
    ids = station.arrive(count=3)
    one, two = station.program(), station.program(letter="i")
    assert [ids[0], ids[1]] == [next_of(one)[0], next_of(two)[0]]
    assert (ids[2], 1) == next_of(one, Settled(ids[0], DONE))
    assert two.next(Settled(ids[1], DONE)) is None


def test_what_is_not_settled_comes_again_with_the_same_attempt(station: Station) -> None:
    (raw,) = station.arrive()
    program = station.program()
    assert [(raw, 1), (raw, 1)] == [next_of(program), next_of(program)]


def test_what_has_failed_comes_again_before_what_is_new(station: Station) -> None:
    first, second = station.arrive(count=2)
    program = station.program()
    assert (first, 1) == next_of(program)
    assert (first, 2) == next_of(program, Settled(first, FAILED, "exit 1", 1))
    assert [("taken", 2, "exit 1")] == unsettled(station)
    assert (second, 1) == next_of(program, Settled(first, DONE))


def test_to_say_that_an_attempt_failed_may_be_repeated(station: Station) -> None:
    (raw,) = station.arrive()
    program = station.program()
    program.next()
    program.receiver.settle([Settled(raw, FAILED, "exit 1", 1)])
    program.receiver.settle([Settled(raw, FAILED, "exit 1", 1)])
    assert (raw, 2) == next_of(program)
    assert (raw, 2) == next_of(program, Settled(raw, FAILED, "exit 1", 1))


def test_what_is_released_goes_to_the_next_who_asks_and_does_not_count(station: Station) -> None:
    ids = station.arrive(count=2)
    one, two = station.program(), station.program(letter="i")
    one.next()
    two.next()
    assert two.next(Settled(ids[1], DONE)) is None
    one.receiver.settle([Settled(ids[0], RELEASE)])
    two.wait(0)
    assert {"job"} == two.freed
    assert [("retrying", 0, "")] == unsettled(station)
    assert (ids[0], 1) == next_of(two)
    assert (ids[0], 1) == next_of(two, Settled(ids[0], RELEASE))


def test_what_is_set_aside_comes_when_a_person_says_so(station: Station) -> None:
    bad, good, new = station.arrive(count=3)
    program = station.program()
    program.next()
    assert (good, 1) == next_of(program, Settled(bad, ASIDE, "no such file"))
    assert [("aside", 1, "no such file"), ("taken", 1, "")] == unsettled(station)
    assert 0 == retry(station, good)
    assert 1 == retry(station)
    assert (bad, 1) == next_of(program, Settled(good, DONE))
    assert [new] == [next_of(program, Settled(bad, DONE))[0]]
    assert ["message.set_aside"] == [name for name, _ in station.node.events if "aside" in name]


def test_an_attempt_that_was_not_made_does_not_count_with_what_is_set_aside(station: Station) -> None:
    """Who had it died of it; the next one makes no attempt of its own. Nobody else gets it in between."""
    bad, good = station.arrive(count=2)
    one, two = station.program(), station.program(letter="i")
    assert (bad, 1) == next_of(one)
    one.receiver.leave()
    assert (bad, 2) == next_of(two)
    assert (good, 1) == next_of(two, Settled(bad, ASIDE, "no end", 1))
    assert [("aside", 1, "no end"), ("taken", 1, "")] == unsettled(station)
    assert [1] == [said["count"] for name, said in station.node.events if name == "message.set_aside"]
    station.restart()
    assert [("aside", 1, "no end"), ("taken", 1, "")] == unsettled(station)


def test_only_so_much_is_set_aside(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "MAX_ASIDE", 1)
    one, two = station.arrive(count=2)
    program = station.program()
    program.next()
    program.next(Settled(one, ASIDE))
    with pytest.raises(UsageError, match="set aside"):
        program.next(Settled(two, ASIDE))
    assert (two, 1) == next_of(program)


def test_only_so_much_is_out(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "MAX_TAKEN", 1)
    (one, two) = station.arrive(count=2)
    first, second = station.program(), station.program(letter="i")
    first.next()
    with pytest.raises(UsageError, match="1 messages are out"):
        second.next()
    assert (two, 1) == next_of(first, Settled(one, DONE))


def test_who_waits_is_told_what_was_given_back(station: Station) -> None:
    (raw,) = station.arrive()
    one, two = station.program(), station.program(letter="i")
    one.next()
    assert two.next() is None
    one.close()
    two.wait(0)
    assert {"job"} == two.freed
    assert (raw, 2) == next_of(two)


# --- deaths ----------------------------------------------------------------------------------------------


def test_a_program_that_lost_its_connection_may_settle_what_it_did_meanwhile(station: Station) -> None:
    (raw,) = station.arrive()
    station.program().next()
    station.programs[0].die()
    other = station.program(letter="i")
    station.pass_s(GRACE_S - 1)
    assert other.next() is None
    again = station.program()
    station.pass_s(GRACE_S)
    assert other.next() is None
    again.receiver.settle([Settled(raw, DONE)])
    again.close()
    assert other.next() is None


def test_one_that_does_not_come_again_gives_back_what_it_had(station: Station) -> None:
    (raw,) = station.arrive()
    program = station.program()
    program.next()
    program.die()
    station.pass_s(GRACE_S)
    assert (raw, 2) == next_of(station.program(letter="i"))


def test_holders_have_the_same_grace_after_a_start(station: Station) -> None:
    (raw,) = station.arrive()
    station.program().next()
    station.restart()
    other = station.program(letter="i")
    assert other.next() is None
    assert (raw, 1) == next_of(station.program())
    station.programs[-1].die()
    station.pass_s(GRACE_S)
    assert (raw, 2) == next_of(other)


def test_a_holder_that_is_connected_twice_leaves_with_its_last_connection(station: Station) -> None:
    (raw,) = station.arrive()
    one = station.program()
    one.next()
    two = station.program()
    one.close()
    assert station.program(letter="i").next() is None
    two.close()
    assert (raw, 2) == next_of(station.program(letter="i"))


def test_who_comes_late_changes_nothing(station: Station) -> None:
    (raw,) = station.arrive()
    late = station.program()
    late.next()
    late.die()
    station.pass_s(GRACE_S)
    present = station.program(letter="i")
    present.next()
    for outcome in (DONE, FAILED, ASIDE, RELEASE):
        late.receiver.settle([Settled(raw, outcome)])
    assert [("taken", 2, "")] == unsettled(station)
    present.receiver.settle([Settled(raw, DONE)])
    late.receiver.settle([Settled(raw, FAILED)])
    assert [] == unsettled(station)


def test_all_of_it_survives_a_start_and_a_new_segment(station: Station) -> None:
    aside, failed, back, new = station.arrive(count=4)
    one, two = station.program(), station.program(letter="i")
    one.next()
    one.next(Settled(aside, ASIDE, "bad"))
    two.next()
    two.receiver.settle([Settled(back, RELEASE)])
    one.receiver.settle([Settled(failed, FAILED, "exit 2")])
    expected = [("aside", 1, "bad"), ("taken", 1, "exit 2"), ("retrying", 0, "")]
    assert expected == unsettled(station)
    station.restart()
    assert expected == unsettled(station)
    station.roll()
    station.restart()
    assert expected == unsettled(station)
    one = station.program()
    assert [(failed, 2), (back, 1)] == [next_of(one), next_of(one, Settled(failed, DONE))]
    assert (new, 1) == next_of(one, Settled(back, DONE))


def test_a_checkpoint_takes_several_payloads_where_one_does_not_hold_it(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors, "PART_ENTRIES", 2)
    monkeypatch.setattr(cursors, "PART_BYTES", 64)
    ids = station.arrive(count=5)
    program = station.program()
    program.next()
    for raw in ids:
        program.next(Settled(raw, ASIDE, "ñ" * 500))
    station.roll()
    station.restart()
    assert [("aside", 1, "ñ" * lending.WHY_LETTERS)] * 5 == unsettled(station)
    assert 5 == retry(station)
    assert ids[0] == next_of(station.program())[0]


def test_no_payload_of_a_checkpoint_is_larger_than_a_record_may_be() -> None:
    """With as much set aside as there may be, for reasons as long as they may be."""
    known = cursors.Cursors()
    entry = cursors.Entry(bytes(16), 1, False, 1, 1 << 60, why="\U0001f600" * lending.WHY_LETTERS)
    for number in range(4):
        consumer = cursors.Consumer(f"job-{number}", 0, -1, (0, 0), 1, 1, 1)
        consumer.aside = {(place, 0): entry for place in range(lending.MAX_ASIDE)}
        known.by_name[consumer.name] = consumer
    parts = list(known.parts())
    assert max(map(len, parts)) <= MAX_PAYLOAD_BYTES
    again = cursors.Cursors()
    for part in parts:
        again.restore(part)
    assert known.by_name == again.by_name


def test_what_was_not_committed_was_not_handed_out(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room refuses, and nothing has changed when there is some again."""
    (raw,) = station.arrive()
    program = station.program()

    def full(size: int, *, essential: bool = False) -> None:
        raise StorageFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(station.node.books, "room", full)
        with pytest.raises(StorageFull):
            program.next()
    assert [] == unsettled(station)
    assert (raw, 1) == next_of(program)


def test_a_commit_without_room_changes_nothing(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables are read anew then; a holder that had left is waited for again, as after a start."""
    first, second, third = station.arrive(count=3)
    gone, here = station.program(letter="g"), station.program()
    assert (first, 1) == next_of(gone)
    gone.close()
    assert (first, 2) == next_of(here)
    other = station.program(letter="i")
    assert (second, 1) == next_of(other)
    other.close()

    def full(*_: object) -> None:
        raise StorageFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "write", full)
        with pytest.raises(StorageRefused):
            here.next(Settled(first, DONE))
    assert [("taken", 2, ""), ("taken", 1, "")] == unsettled(station)
    assert (third, 1) == next_of(here, Settled(first, DONE))
    station.pass_s(GRACE_S)
    assert (second, 2) == next_of(here, Settled(third, DONE))


# --- removal ---------------------------------------------------------------------------------------------


def test_a_removed_consumer_is_unknown_and_one_of_its_name_is_another(station: Station) -> None:
    (raw,) = station.arrive()
    program = station.program()
    program.next()
    station.ask(Worker("control"), RemoveConsumer(1, "job", "eva"))
    with pytest.raises(UnknownConsumer):
        program.next()
    fresh = station.program(letter="i")
    with pytest.raises(UnknownConsumer):
        program.receiver.settle([Settled(raw, DONE)])
    assert (raw, 1) == next_of(fresh)
    station.restart()
    assert [("taken", 1, "")] == unsettled(station)


def test_nothing_is_received_for_a_consumer_that_was_never_begun(station: Station) -> None:
    with pytest.raises(UnknownConsumer):
        station.program(begins=False).next()


# --- what is gone ----------------------------------------------------------------------------------------


def drop_old(station: Station) -> None:
    """As a vacuum of all but the newest segment does."""
    reader = station.node.books.reader
    for base in reader.segments()[:-1]:
        os.unlink(segment_path(reader.directory, base))


def test_what_is_no_longer_kept_is_passed_over_and_told_once(station: Station) -> None:
    station.arrive(count=2)
    program = station.program()
    program.next()
    station.arrive(count=3)
    station.restart()
    station.roll()
    drop_old(station)
    (raw,) = station.arrive()
    other = station.program(letter="i")
    assert raw == other.handle()
    assert [4, 0] == [other.receiver.take_lost(), other.receiver.take_lost()]
    station.restart()
    again = station.program(letter="i")
    assert again.handle() is None
    assert 0 == again.receiver.take_lost()
    assert 1 == len(station.node.take_events("consumer.passed_over"))


def test_a_vacuum_of_what_was_handled_or_never_wanted_loses_nothing(station: Station) -> None:
    station.arrive(count=2)
    station.program("ready").all()
    station.program("new", start="now")
    station.arrive(kind="result")
    assert station.program("ready").next() is None
    station.roll()
    station.restart()
    drop_old(station)
    (raw,), (other,) = station.arrive(), station.arrive(station.c)
    for name, lost in (("ready", 0), ("new", 1)):
        program = station.program(name)
        assert [raw, other] == program.all()
        assert lost == program.receiver.take_lost()


def test_what_was_set_aside_and_is_no_longer_kept_is_told_when_it_would_come(station: Station) -> None:
    first, second = station.arrive(count=2)
    program = station.program()
    program.next()
    program.next(Settled(first, ASIDE))
    program.receiver.settle([Settled(second, DONE)])
    station.roll()
    drop_old(station)
    retry(station)
    other = station.program(letter="i")
    assert other.handle() is None
    assert 1 == other.receiver.take_lost()
    assert [] == unsettled(station)


def test_a_damaged_message_is_told_and_passed_over(station: Station) -> None:
    (_,), (good,) = station.arrive(), station.arrive()
    reader = station.node.books.reader
    header = next(h for h in reader.headers() if h.kind == Kind.IN)
    with open(segment_path(reader.directory, 0), "r+b") as log:
        log.seek(header.end - 8)
        log.write(b"\xff\xff")
    program = station.program()
    assert [good] == program.all()
    assert [header.offset] == [damaged.offset for damaged in program.damage]
    assert 1 == program.receiver.take_lost()


def test_a_damaged_end_of_the_log_is_passed_over_until_more_comes(station: Station) -> None:
    station.program(start="now")
    station.arrive()
    reader = station.node.books.reader
    *_, last = reader.headers()
    with open(segment_path(reader.directory, 0), "r+b") as log:
        log.seek(last.offset)
        log.write(b"\xff\xff")
    program = station.program(letter="i")
    assert program.next() is None
    assert [last.offset] == [damaged.offset for damaged in program.damage]
    (raw,) = station.arrive()
    assert [raw] == program.all()
    assert 1 == program.receiver.take_lost()


# --- what is told of them ---------------------------------------------------------------------------------


def behind(station: Station) -> list[int | None]:
    """What `Consumers` says of each."""
    asks: Any = station.program("other", letter="x", start="now")
    told: list[dict[str, Any]] = []
    asks.reply = told.append
    consumers.list_all(asks, None, False)
    return [consumer["behind"] for consumer in told[0]["consumers"] if consumer["name"] != "other"]


def test_it_is_counted_what_is_behind_a_consumer_where_that_is_cheap(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    station.arrive(count=3)
    station.arrive(station.c, kind="result")
    one = station.program("one")
    one.next()
    station.program("two", peer="node-c")
    assert [3, 0] == behind(station)
    one.handle()
    assert [2, 0] == behind(station)
    monkeypatch.setattr(consumers, "COUNT_BYTES", 1)
    assert [None, None] == behind(station)


# --- reports ---------------------------------------------------------------------------------------------


def test_its_sender_hears_once_that_a_message_was_handled(station: Station) -> None:
    (asks,) = station.arrive(headers=ASKS)
    station.arrive()
    program = station.program()
    program.next()
    assert [] == station.reports()
    program.all()
    program.receiver.settle([Settled(asks, DONE)])
    (report,) = station.reports()
    expected = {"handled": model.id_text(asks), "consumer": "job"}
    assert ("result", expected, b"", "eva") == (
        model.MESSAGE_KINDS[report.kind],
        report.headers,
        report.body,
        report.user,
    )
    assert report.id[6] >> 4 == 8
    headers = list(station.node.books.reader.headers())
    (place,) = [n for n, h in enumerate(headers) if h.kind == Kind.HELD]
    assert (station.b.number, FLAG_REPORTS, Kind.CURSOR) == (
        headers[place].peer,
        headers[place].flags,
        headers[place + 1].kind,
    )


def test_only_what_is_done_is_reported(station: Station) -> None:
    ids = station.arrive(headers=ASKS, count=2)
    program = station.program()
    program.next()
    program.next(Settled(ids[0], ASIDE))
    program.receiver.settle([Settled(ids[1], RELEASE)])
    assert [] == station.reports()


def test_a_peer_that_was_blocked_meanwhile_hears_nothing(station: Station) -> None:
    station.arrive(headers=ASKS)
    station.b.blocked = True
    program = station.program()
    assert 1 == len(program.all())
    assert [] == station.reports()


def test_each_consumer_reports_for_itself(station: Station) -> None:
    station.arrive(headers=ASKS)
    for name in ("one", "two"):
        station.program(name).all()
    assert ["one", "two"] == [report.headers["consumer"] for report in station.reports()]
    assert 2 == len({report.id for report in station.reports()})
