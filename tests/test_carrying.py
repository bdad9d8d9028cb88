"""Parcels in the log process: what a link says that rests on former positions is not heard any more."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msgd.delivery import Delivery
from msgd.errors import MsgdError
from msgd.exporting import _unreceipted
from msgd.model import IN, MAX_APPEND_BYTES, OUT
from msgd.outgoing import RELEASE_BYTES
from msgd.peer.heads import ZERO_HEAD, chain, epoch_head
from msgd.standing import Batch, EpochChange, Outward, Peer, decode_peers
from msgd.wire import parcel
from msgd.wire.codec import Message, encode
from msgd.wire.frame import DirectionState, EpochEnds
from msgd.wire.ledger import (
    Cut,
    Denied,
    Done,
    EpochOpened,
    Granted,
    MayDial,
    Opened,
    OpenEpoch,
    Ready,
    Receipt,
    Refused,
    Send,
    Submitted,
    TakeHello,
    Taken,
)
from msgd.wire.pipe import Pipe
from tests.test_ledger import THEIRS, Log, message

NOWHERE = DirectionState(bytes(16), 0, ZERO_HEAD)
E1, E2 = bytes([1]) * 16, bytes([2]) * 16
ENDS = EpochEnds(E1, 1, 0, ZERO_HEAD, 0, ZERO_HEAD)
HEAD = epoch_head(E1, 1, ZERO_HEAD, ZERO_HEAD)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    running = Log(tmp_path)
    running.add()
    yield running
    running.stop()


def ask(log: Log, pipe: Pipe, kind: type[Any], *fields: Any) -> Any:
    """The answer to this request of a link's channel."""
    log.tokens += 1
    pipe.send(kind(log.tokens, *fields))
    return log.hear(pipe, lambda frame: getattr(frame, "token", 0) == log.tokens)


def linked(log: Log, dial: int = 1) -> Pipe:
    """A link that the peer dialled; both ends are yet to agree."""
    pipe = log.channel("link")
    assert isinstance(ask(log, pipe, TakeHello, THEIRS, b"i" * 16, dial, "192.0.2.1:6743"), Taken)
    return pipe


def put(log: Log, number: int, head: bytes = HEAD) -> Any:
    """One message of a parcel, in the first epoch."""
    _, raw = message(number)
    return log.ask(parcel.PutCarried, 1, E1, number, 1, chain(head, number, 1, raw), payload=raw)


def submit(log: Log, *numbers: int) -> None:
    for number in numbers:
        raw_id, raw = message(number)
        assert isinstance(log.submit(1, raw, raw_id), Submitted)


def released(log: Log) -> parcel.Exported:
    """All that waits is released, and where the peer's directions stand then."""
    while log.ask(parcel.Release, 1, log.identity).released:
        pass
    exported = log.ask(parcel.Export, 1, "eva")
    assert isinstance(exported, parcel.Exported)
    return exported


def test_a_link_that_agrees_meanwhile_begins_again(log: Log) -> None:
    """Else the epoch that it opens would bring the parcel's messages a second time."""
    link = linked(log)
    assert isinstance(log.ask(parcel.BeginEpoch, 1, ENDS), Done)
    assert put(log, 1).changed
    assert isinstance(log.hear(link, lambda frame: isinstance(frame, Cut)), Cut)
    link.send(OpenEpoch(99, IN, E2, 1, 0, ZERO_HEAD, 0, ZERO_HEAD))
    assert not put(log, 1).changed, "it is in the epoch of the parcel still"
    assert [1] == [peer.received for peer in log.peers()]


def test_a_dial_that_told_former_positions_is_dropped(log: Log) -> None:
    link = log.channel("link")
    assert isinstance(ask(log, link, MayDial, 1, "link", THEIRS), Granted)
    submit(log, 1)
    released(log)
    assert isinstance(ask(log, link, Opened, 1, b"i" * 16), Denied)


def test_what_does_not_follow_is_not_taken(log: Log) -> None:
    """Another epoch, a gap, another head: whoever reads the parcel has to look again."""
    assert isinstance(put(log, 1), parcel.Moved)
    log.ask(parcel.BeginEpoch, 1, ENDS)
    assert isinstance(put(log, 2), parcel.Moved)
    assert isinstance(put(log, 1, ZERO_HEAD), parcel.Moved)
    assert put(log, 1).changed
    again = EpochEnds(E2, 1, 0, ZERO_HEAD, 0, ZERO_HEAD)
    assert isinstance(log.ask(parcel.BeginEpoch, 1, again), parcel.Moved)


def test_the_epoch_of_a_parcel_is_the_one_that_a_link_opens(log: Log) -> None:
    """As long as the peer stands where it stood when the epoch began, and has confirmed nothing in it."""
    submit(log, 1, 2)
    exported = released(log)
    assert exported.opened is not None
    assert (1, 2) == (exported.opened.base, exported.out.last)
    link = linked(log)
    opened = ask(log, link, OpenEpoch, OUT, b"", 3, 2, exported.out.head, 0, ZERO_HEAD, NOWHERE.epoch)
    assert isinstance(opened, EpochOpened)
    assert exported.opened == opened.ends
    other = ask(log, link, OpenEpoch, OUT, b"", 8, 2, exported.out.head, 7, b"h" * 32, E2)
    assert (8, 7) == (other.ends.base, other.ends.receiver_last)
    assert exported.opened.epoch != other.ends.epoch


def test_a_link_gets_what_was_released_as_its_window_allows(log: Log) -> None:
    """A receipt that a parcel brings makes room as well, and is not asked of the link any more."""
    for number in range(1, 7):
        submit(log, number)
        exported = released(log)
    link = linked(log)
    ask(log, link, OpenEpoch, OUT, b"", 7, 6, exported.out.head, 0, ZERO_HEAD, NOWHERE.epoch)
    link.send(Ready(0, 1 << 20, 2))
    first = [log.hear(link, lambda frame: isinstance(frame, Send)) for _ in range(2)]
    assert [1, 2] == [frame.first_seq for frame in first]
    link.send(Receipt(1, first[0].head, 5, 5))
    third = log.hear(link, lambda frame: isinstance(frame, Send))
    assert 3 == third.first_seq
    batches = log.ask(parcel.Unreceipted, 1, 1).batches
    assert [2, 3, 4, 5, 6] == [batch.first_seq for batch in batches]
    carried = DirectionState(exported.out.epoch, 5, batches[3].head)
    assert 4 == log.ask(parcel.PutPosition, 1, carried, 5).value
    assert 6 == log.hear(link, lambda frame: isinstance(frame, Send)).first_seq
    assert 0 == log.ask(parcel.PutPosition, 1, carried, 5).value
    wrong = DirectionState(exported.out.epoch, 6, b"h" * 32)
    refused = log.ask(parcel.PutPosition, 1, wrong, 5)
    assert isinstance(refused, Refused)
    assert "LogsDiffer" == refused.name


def test_a_page_says_what_has_a_receipt_by_now(log: Log) -> None:
    """Else an export beside a busy link would not know where to begin."""
    submit(log, 1, 2)
    exported = released(log)
    page = log.ask(parcel.Unreceipted, 1, 1)
    assert (exported.out.epoch, 0, 1) == (page.epoch, page.receipt, len(page.batches))
    assert 2 == log.ask(parcel.PutPosition, 1, exported.out, 5).value
    page = log.ask(parcel.Unreceipted, 1, 1)
    assert (2, exported.out.head, []) == (page.receipt, page.receipt_head, page.batches)


class Pages:
    """A control worker whose log process answers with these pages."""

    def __init__(self, *pages: parcel.Batches) -> None:
        self._pages = list(pages)

    def next_token(self) -> int:
        return 1

    def ask(self, frame: parcel.Unreceipted) -> parcel.Batches:
        return self._pages.pop(0)


def found(epoch: bytes, *pages: parcel.Batches) -> tuple[int, list[int]]:
    """Of an export that began with 9 messages without receipt: up to where they have one, the others."""
    state = parcel.Exported(1, DirectionState(epoch, 9, HEAD), NOWHERE, 0, ZERO_HEAD, None)
    peer = SimpleNamespace(name="b", number=1)
    state, batches = _unreceipted(Pages(*pages), peer, state)  # type: ignore[arg-type]
    return state.receipt, [batch.first_seq for batch in batches]


def test_an_export_begins_behind_what_a_link_confirms_meanwhile() -> None:
    """What was found by then has its receipt; in another epoch the numbers mean other messages."""
    begun, behind = (
        [parcel.UnreceiptedBatch(seq, count, 0, HEAD) for seq, count in places]
        for places in (((1, 2), (3, 2)), ((7, 3), (10, 1)))
    )
    first, later = parcel.Batches(1, E1, 0, ZERO_HEAD, begun), parcel.Batches(1, E1, 6, HEAD, behind)
    assert (6, [7]) == found(E1, first, later)
    assert (9, []) == found(E1, first, parcel.Batches(1, E1, 9, HEAD, []))
    with pytest.raises(MsgdError, match="other numbers"):
        found(E2, first)


def test_a_release_that_meets_damage_has_moved_the_direction_all_the_same(tmp_path: Path) -> None:
    """So a link that is agreeing begins again, and does not give the same numbers a second time."""
    log = Log(tmp_path)
    try:
        log.add()
        for number in (1, 2):
            raw_id = bytes([number]) * 6 + b"\x7a" + bytes(9)
            raw = encode(Message(raw_id, 0, 1, "eva", {}, b"%d" % number * RELEASE_BYTES))
            assert isinstance(log.submit(1, raw, raw_id), Submitted)
        link = linked(log)
        path = tmp_path / "log" / f"{0:020d}.log"
        with path.open("r+b") as file:
            file.seek(path.read_bytes().rindex(b"2" * 100))
            file.write(b"x")
        refused = log.ask(parcel.Release, 1, log.identity)
        assert isinstance(refused, Refused)
        assert "StorageRefused" == refused.name
        assert isinstance(log.hear(link, lambda frame: isinstance(frame, Cut)), Cut)
        assert 1 == log.peers()[0].unreceipted
    finally:
        log.stop()


def test_an_epoch_that_begins_above_what_is_here_tells_what_was_lost(log: Log) -> None:
    """The sender took it that the receiver held up to 3 when it began."""
    log.ask(parcel.BeginEpoch, 1, ENDS)
    assert put(log, 1).changed
    later = EpochEnds(E2, 4, 3, HEAD, 3, HEAD)
    assert isinstance(log.ask(parcel.BeginEpoch, 1, later), Done)
    assert [(IN, 4, 3, 1)] == [
        (each.direction, each.base, each.sender_last, each.receiver_last) for each in log.peers()[0].breaks
    ]


def test_a_checkpoint_holds_any_number_of_batches_without_receipt() -> None:
    """What was exported may be far more than a link's window; no payload may pass one append."""
    batches = [Batch(n + 1, 1, n * 300, 300, 100, bytes([n % 256]) * 32) for n in range(30_000)]
    out = Outward(E1, 30_000, HEAD, unreceipted=batches, unreceipted_size=3_000_000, base=1, exported=9)
    out.opened = EpochChange(E1, 0, ZERO_HEAD, 0, ZERO_HEAD)
    before = Delivery()
    before.restore([Peer(1, THEIRS, "b", out=out)])
    payloads = before.checkpoint(0)
    assert max(map(len, payloads)) < MAX_APPEND_BYTES // 2
    after = Delivery()
    for payload in payloads[1:]:
        after.restore(decode_peers(payload))
    assert out == after.peers[1].out
