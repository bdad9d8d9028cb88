"""A log of which segments went: what is left proves itself, and everybody knows what is not there."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd import spans
from msgd.asking import LinkEnded
from msgd.control import Control
from msgd.delivery import Delivery
from msgd.errors import Uncertain
from msgd.inspecting import verify
from msgd.link import Link
from msgd.log import vacuum
from msgd.log.clock import Clock
from msgd.log.files import REAL_FILES
from msgd.log.reader import Reader
from msgd.log.record import HEADER_BYTES, Kind, encode_ranges
from msgd.log.segment import segment_path
from msgd.log.store import Store
from msgd.model import IN, OUT
from msgd.past import Past
from msgd.peer.heads import chain, epoch_head
from msgd.reconciling import GONE_MEANWHILE, Agreement
from msgd.standing import EpochChange, Peer, PeerChange
from msgd.surveying import Survey
from msgd.tracks import Pair
from msgd.vacuuming import Wish
from msgd.verifying import Check
from msgd.wire.codec import Message, encode
from msgd.wire.keeping import OFFSET, STRETCH, Needed
from tests.test_history_model import CALM

PEER = 1
ALL = Wish(0, None)
_pack = msgspec.msgpack.Encoder().encode


class Story:
    """A log with one peer, written as the log process does."""

    def __init__(self, state: Path, peers: int = 1) -> None:
        self._directory = str(state / "log")
        self._ids = itertools.count(1)
        self.start()
        for self.number in range(peers, 0, -1):
            change = PeerChange("paired", bytes([self.number]) * 32, f"b{self.number}", how="key")
            self._add(Kind.PEER, payload=_pack(change))
            for direction in (OUT, IN):
                self.epoch(direction)

    def start(self) -> None:
        """As the log process begins: the newest segment says where everybody stands."""
        self.delivery = Delivery()
        self.store = Store(self._directory, Clock())
        self.store.recover(self.delivery.apply, lambda: self.delivery.checkpoint(0))
        self.reader = Reader(self.store.directory, lambda: self.store.committed)

    def close(self) -> None:
        self.store.close()
        self.reader.close()

    @property
    def peer(self) -> Peer:
        return self.delivery.peers[self.number]

    def _add(self, kind: int, **fields: object) -> int:
        offset = self.store.add(kind, peer=self.number, **fields)  # type: ignore[arg-type]
        self.store.commit()
        self.delivery.apply(self.reader.record(offset))
        return offset

    def _payload(self) -> bytes:
        number = next(self._ids)
        return encode(Message(number.to_bytes(16, "big"), 0, 0, "ana", {}, b"message %d" % number))

    def epoch(self, direction: int) -> None:
        now = self.peer.out if direction == OUT else self.peer.inward
        ends = (now.last, now.head, now.last, now.head)
        epoch, base = bytes([now.last % 250 + 1]) * 16, now.last + 1
        head = epoch_head(epoch, base, now.head, now.head)
        payload = _pack(EpochChange(epoch, *ends))
        self._add(Kind.EPOCH, direction=direction, first_seq=base, head=head, payload=payload)

    def send(self) -> int:
        """One message that gets its seq at once."""
        return self._batch(Kind.OUT, OUT, self.peer.out.last, self.peer.out.head)

    def receive(self) -> int:
        return self._batch(Kind.IN, IN, self.peer.inward.last, self.peer.inward.head)

    def _batch(self, kind: int, direction: int, last: int, head: bytes) -> int:
        payload = self._payload()
        new = chain(head, last + 1, 1, payload)
        return self._add(kind, direction=direction, count=1, first_seq=last + 1, head=new, payload=payload)

    def hold(self) -> int:
        return self._add(Kind.HELD, direction=OUT, count=1, payload=self._payload())

    def release(self, *places: int) -> int:
        """What was held there gets its seqs, as one batch."""
        records = [self.reader.record(place) for place in places]
        out, ranges = self.peer.out, [(r.offset, 0, len(r.payload), r.count) for r in records]
        head = chain(out.head, out.last + 1, len(records), b"".join(r.payload for r in records))
        fields = {"direction": OUT, "count": len(records), "first_seq": out.last + 1, "head": head}
        return self._add(Kind.RELEASED, payload=encode_ranges(ranges), **fields)

    def receipt(self) -> None:
        """The peer has all."""
        out = self.peer.out
        self._add(Kind.RECEIPT, direction=OUT, first_seq=out.last, head=out.head)

    def roll(self) -> int:
        """The base of the new segment."""
        self.store.roll(self.delivery.checkpoint(0))
        return self.store.segment_base

    def vacuum(self, *bases: int) -> None:
        vacuum.remove(REAL_FILES, self.store.directory, bases)

    def going(self) -> list[int]:
        """What may go, were all wanted."""
        outs = [peer.out for peer in self.delivery.peers.values()]
        records = [batch.offset for out in outs for batch in out.unreceipted]
        records += [each.start for out in outs for each in out.waiting if each.kind != Kind.HELD]
        held = [each for out in outs for each in out.waiting if each.kind == Kind.HELD]
        waiting = b"".join(STRETCH.pack(each.start, each.stop) for each in held)
        needed = Needed(0, b"".join(map(OFFSET.pack, records)), waiting)
        return [g.base for g in Survey(self.reader, Clock()).plan(ALL, needed).going]

    def pair(self) -> Pair:
        pair = Pair(self.reader, self.number)
        pair.advance()
        return pair

    def check(self) -> Check:
        check = Check(self.reader, lambda number: "b", lambda offset: None)
        self.totals = check.run()
        return check


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    told = Story(tmp_path)
    yield told
    told.close()


def test_a_held_record_is_needed_until_the_receipt_for_its_batch(story: Story) -> None:
    """However far behind it the batch stands, and whatever else is final."""
    place = story.hold()
    second = story.roll()
    story.receive()
    third = story.roll()
    assert [second] == story.going()
    story.release(place)
    story.roll()
    assert [second] == story.going(), "on its way; the batch tells of a segment that stays"
    story.receipt()
    assert [0, second, third] == story.going()


def test_a_new_epoch_makes_a_batch_wait_again(story: Story) -> None:
    """It is needed as before, and the record of the epoch stays with it."""
    story.send()
    second = story.roll()
    story.epoch(OUT)
    story.roll()
    assert [] == story.going()
    (again,) = story.peer.out.waiting
    story.release(again.start)
    story.receipt()
    story.roll()
    assert [0, second] == story.going()[:2]


def test_holes_are_passed_over_and_named(story: Story) -> None:
    """Numbers, heads and receipts go on behind them; damage in what is left is found as ever."""
    story.send(), story.receive(), story.receipt()
    second = story.roll()
    story.send(), story.send(), story.receive(), story.receipt()
    third = story.roll()
    story.send(), story.receipt()
    fourth = story.roll()
    last = story.send()
    story.vacuum(second, third)
    check = story.check()
    assert ([], {(PEER, OUT): [(2, 4)], (PEER, IN): [(2, 2)]}) == (check.findings, check.gone)
    pair = story.pair()
    track = pair.tracks[OUT]
    assert ([(1, 1), (5, 5)], [(2, 4)], 5, 4) == (track.held, track.gone, track.last, track.receipt)
    assert [1, 5] == [header.first_seq for header in pair.headers(OUT, 1, 9)]
    assert story.reader.record(last).head == chain(
        pair.head_before(OUT, 5), 5, 1, story.reader.record(last).payload
    )
    story.vacuum(0)
    pair.advance()
    assert ([(5, 5)], [(1, 4)]) == (pair.tracks[OUT].held, pair.tracks[OUT].gone)
    with open(segment_path(story.store.directory, fourth), "r+b") as file:
        file.seek(last - fourth + HEADER_BYTES + 20)
        file.write(b"\xff\xff")
    assert [last] == [finding.offset for finding in story.check().findings]


def test_what_is_found_by_a_reader_of_a_former_log_process_is_no_damage(story: Story) -> None:
    """The next one has moved the last append: the place of it holds something else."""
    place = story.send()
    with open(segment_path(story.store.directory, 0), "r+b") as file:
        file.seek(place + HEADER_BYTES)
        file.write(b"\xff\xff")

    def ends() -> SimpleNamespace:
        raise Uncertain("the log process has ended")

    states = iter((lambda: SimpleNamespace(peers=[]), ends))
    told: list[object] = []
    control = SimpleNamespace(
        place=SimpleNamespace(reader=story.reader),
        state=lambda: next(states)(),
        reply=lambda reply, continues=False: told.append(reply),
        check_client=lambda: None,
    )
    with pytest.raises(Uncertain):
        verify(cast(Control, control), None, more=True)
    assert [] == told


def test_a_checkpoint_behind_a_hole_has_to_agree_with_what_was_before(story: Story) -> None:
    """It may say more, never less or another head."""
    story.send(), story.receipt()
    second = story.roll()
    story.receive()
    third = story.roll()
    story.peer.out.head = bytes(32)
    fourth = story.roll()
    story.vacuum(second, third)
    (finding,) = story.check().findings
    assert (True, "stands at 1" in finding.why) == (finding.offset > fourth, True)


def test_a_batch_is_gone_with_a_message_of_it(story: Story) -> None:
    """Its record is there, but not all of its bytes: it is neither shown nor sent again."""
    one = story.hold()
    second = story.roll()
    two = story.hold()
    story.release(one, two)
    story.send(), story.receipt()
    story.roll()
    story.send(), story.receipt()
    assert [0, second] == story.going()
    story.vacuum(0)
    check = story.check()
    assert ([], [(1, 2)], 2) == (check.findings, check.gone[PEER, OUT], story.totals.messages)
    pair = story.pair()
    assert ([(3, 4)], [(1, 2)]) == (pair.tracks[OUT].held, pair.tracks[OUT].gone)
    assert [3, 4] == [header.first_seq for header in pair.headers(OUT, 1, 9)]
    past = Past(story.reader, PEER)
    assert [False, False, True, True] == [past.can_send(seq, 5) for seq in (1, 2, 3, 4)]
    story.vacuum(0, second)
    assert [False, True] == [past.can_send(seq, 5) for seq in (3, 4)]
    past.close()


def test_what_went_while_it_was_sent_again_ends_the_link(story: Story) -> None:
    """A peer that lost its log gets what is kept and follows; the next link agrees anew."""
    story.send(), story.receipt()
    second = story.roll()
    story.send(), story.send(), story.receipt()
    story.roll()
    link = SimpleNamespace(reader=story.reader, peer=PEER, keep_alive=lambda: None)
    for gone in ((), (0, second)):
        batches = Agreement(cast(Link, link))._old_batches(1, 4)
        assert 1 == next(batches).first_seq
        story.vacuum(*gone)
        if not gone:
            assert [2, 3] == [batch.first_seq for batch in batches]
            continue
        with pytest.raises(LinkEnded, match=GONE_MEANWHILE):
            next(batches)


def test_a_long_look_for_what_can_be_sent_gives_signs_of_life(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other end waits for the answer, and gives a silent link up."""
    monkeypatch.setattr("msgd.past.TICK_RECORDS", 2)
    story.receive()
    second = story.roll()
    for _ in range(9):
        story.send()
    story.receipt()
    story.roll()
    story.vacuum(0)
    told: list[int] = []
    past = Past(story.reader, PEER, lambda: told.append(second))
    assert past.can_send(1, 10)
    assert len(told) >= 5
    past.close()


def test_the_head_at_a_hole_is_what_the_checkpoint_states(story: Story) -> None:
    """So a peer that has everything up to there goes on without a new epoch."""
    story.send(), story.receive(), story.receipt()
    heads = {OUT: story.peer.out.head, IN: story.peer.inward.head}
    story.roll()
    story.send(), story.receive(), story.receipt()
    story.vacuum(0)
    past = Past(story.reader, PEER)
    assert heads == {direction: past.head_at(direction, 1) for direction in (OUT, IN)}
    assert None is past.head_at(OUT, 0)
    past.close()


STEPS = st.tuples(
    st.integers(1, 2),
    st.sampled_from(
        ("send", "receive", "hold", "release", "receipt", "epoch", "roll", "roll", "vacuum", "restart")
    ),
)


def live(story: Story, step: str) -> None:
    out = story.peer.out
    match step:
        case "send" if not out.waiting:
            story.send()
        case "send" | "hold":
            story.hold()
        case "release" if out.waiting:
            first = out.waiting[0]
            headers = story.reader.headers(first.start, first.stop)
            kinds = (first.kind, Kind.RELEASED if first.kind == Kind.OUT else first.kind)
            story.release(
                next(
                    h
                    for h in headers
                    if h.peer == story.number and h.kind in kinds and h.offset > first.after
                ).offset
            )
        case "receipt" if out.receipt < out.last:
            story.receipt()
        case "epoch":
            story.epoch(OUT)
        case "vacuum":
            story.vacuum(*story.going())
        case "restart":
            before = story.delivery.checkpoint(0)
            story.close()
            story.start()
            assert len(before) == len(story.delivery.checkpoint(0))
        case "receive" | "roll":
            getattr(story, step)()


@pytest.mark.slow
@settings(CALM, max_examples=40)
@given(st.lists(STEPS, min_size=15, max_size=60))
def test_whatever_goes_the_rest_is_whole(steps: list[tuple[int, str]]) -> None:
    """What is not final can be sent, every seq is held or named as gone, and the log proves itself."""
    with tempfile.TemporaryDirectory() as directory:
        story = Story(Path(directory), peers=2)
        for story.number, step in steps:
            live(story, step)
        for story.number in (1, 2):
            peer, pair = story.peer, story.pair()
            for batch in peer.out.unreceipted:
                assert story.reader.batch(story.reader.record(batch.offset))
            for waiting in peer.out.waiting:
                assert story.reader.batch(story.reader.record(waiting.start))
            for direction, last in ((OUT, peer.out.last), (IN, peer.inward.last)):
                track = pair.tracks[direction]
                assert last == track.last
                assert [] == spans.less(spans.less([(1, last)] if last else [], track.held), track.gone)
                assert [] == [each for each in track.held if spans.touches(track.gone, *each)]
        assert [] == story.check().findings
        story.close()
