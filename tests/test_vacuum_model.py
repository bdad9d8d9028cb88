"""What goes and what is left against the plain list: logs, vacuums and the state of the index at random."""

import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd import model
from msgd.log import vacuum
from msgd.log.files import REAL_FILES
from msgd.log.reader import Reader
from msgd.log.record import Kind
from msgd.log.segment import Extent
from msgd.surveying import Survey
from msgd.vacuuming import Wish
from msgd.wire.keeping import OFFSET, STRETCH, Needed
from tests.message_world import Known, World, Written
from tests.test_history_model import CALM, STEPS, check, delete, fill, keep_open, leave, play

MESSAGES = frozenset({Kind.OUT, Kind.HELD, Kind.RELEASED, Kind.IN, Kind.RECOVERED})
BOOT_TICK_NS = 1000  # between two records, at least

VACUUM = st.tuples(st.just("vacuum"), st.sampled_from((0, 0, 3, 10)))
ROLL = st.just(("roll",))  # often: only whole segments go
SOME_STEPS = st.lists(st.one_of(STEPS, STEPS, STEPS, ROLL, VACUUM), min_size=20, max_size=60)
CONDITIONS: tuple[Callable[[World], None], ...] = (leave, fill, delete, keep_open)


class Kept:
    """The world's log, of which some went."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.receipts: dict[int, list[Known]] = {}

    def vacuum(self, age: int) -> None:
        """Remove what is older; what goes is just what the plain rules say."""
        world = self.world
        world.commit()
        reader = world.reader()
        older_ns = age * BOOT_TICK_NS
        now_ns = world.clock.boot_ns()
        expected = self._expected(reader, now_ns - older_ns)
        world.clock.boot_ns = lambda: now_ns  # the same moment for both
        plan = Survey(reader, world.clock).plan(Wish(older_ns, None), self._needed())
        world.clock.boot_ns = world.clock._boot
        assert expected == [going.base for going in plan.going]
        at_first = [m for m in world.known if self._extent(reader, m.record).base in expected]
        assert len(at_first) == sum(going.messages for going in plan.going)
        assert all(m.direction == model.IN or m.state != model.QUEUED for m in at_first)
        self._forget(reader, set(expected))
        vacuum.remove(REAL_FILES, world.log, expected)
        assert not {extent.base for extent in reader.extents()} & set(expected)

    def _needed(self) -> Needed:
        """As the log process knows it: released without a receipt, and waiting."""
        records, waiting = [], []
        for m in self.world.known:
            if m.direction == model.OUT and m.state == model.QUEUED:
                if m.record.kind == Kind.HELD and m.life[-1].kind != Kind.RELEASED:
                    waiting.append(STRETCH.pack(m.record.offset, m.record.offset + 1))
                else:
                    records.append(OFFSET.pack(m.life[-1].offset))
        return Needed(0, b"".join(records), b"".join(waiting))

    def _expected(self, reader: Reader, newest_ns: int) -> list[int]:
        """The bases of those that may go, by the rules in their plainest form."""
        extents = reader.extents()
        stays: set[int] = set()
        going: list[int] = []
        held: set[tuple[int, int]] = set()
        last_records = [m.life[-1] for m in self.world.known if self._is_open(m)]
        open_batches = {w.offset for w in last_records if w.kind == Kind.RELEASED}
        for extent in extents[:-1]:
            last = [*reader.headers(extent.base, extent.stop)][-1]
            if last.boot_ns > newest_ns:
                break
            inside = [m for m in self.world.known if self._extent(reader, m.record) == extent]
            is_waiting = any(self._is_open(m) or open_batches & {w.offset for w in m.life} for m in inside)
            tells = any(
                self._extent(reader, m.record).base in stays
                for m in self.world.known
                for written in m.life[1:]
                if written.kind != Kind.RECEIPT and self._extent(reader, written) == extent
            )
            headers = [*reader.headers(extent.base, extent.stop)]
            begins = any(h.kind == Kind.EPOCH and (h.peer, h.direction) in held for h in headers)
            if is_waiting or tells or begins:
                stays.add(extent.base)
                held |= {(h.peer, h.direction) for h in headers if h.kind in MESSAGES}
            else:
                going.append(extent.base)
        return going

    @staticmethod
    def _is_open(m: Known) -> bool:
        return m.direction == model.OUT and m.state == model.QUEUED

    def _forget(self, reader: Reader, bases: set[int]) -> None:
        """The list without what goes; who has no receipt record any more has no time of it."""
        world = self.world

        def is_kept(written: Written) -> bool:
            return self._extent(reader, written).base not in bases

        world.known = [m for m in world.known if is_kept(m.record)]
        world.deeds = [deed for deed in world.deeds if is_kept(deed[0])]
        for m in world.known:
            if any(w.kind == Kind.RECEIPT and not is_kept(w) for w in m.life):
                m.receipt_at_ns = None
            m.life = [w for w in m.life if is_kept(w)]

    @staticmethod
    def _extent(reader: Reader, written: Written) -> Extent:
        return reader.extent_at(written.offset)


@pytest.mark.slow
@settings(CALM, max_examples=40)
@given(SOME_STEPS, st.sampled_from(CONDITIONS), st.data())
def test_what_is_left_is_what_the_list_says(
    steps: list[tuple[Any, ...]], condition: Callable[[World], None], data: st.DataObject
) -> None:
    """Only what is final goes, nothing that may go stays, and every query tells the rest as it was."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        kept = Kept(world)
        for step in steps:
            if step[0] == "vacuum":
                kept.vacuum(step[1])
            else:
                play(world, [step])
        condition(world)
        check(world, data, 4)
        assert world.damage == []
        world.close()
