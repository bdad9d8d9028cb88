"""The log against a list: appends, rolls, restarts, cuts, flipped bits, holes, in any order (Hypothesis).

The list knows of every record its number and the append that it came with. What a start and a reader must
find after each fault follows from the list and from where the reader saw the records before the fault.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind
from msgd.log.vacuum import remove
from tests.log_book import Book
from tests.log_disk import Disk

SEGMENT_BYTES = 1200
SIZES = st.sampled_from([8, 9, 100, 700, 5000])


class LogMachine(RuleBasedStateMachine):
    """`appends` is the model: lists of numbers, one list for each committed append."""

    @initialize()
    def begin(self) -> None:
        self.disk = Disk()
        self.appends: list[list[int]] = []
        self.removed: set[int] = set()
        self.next = 1
        self.start()

    # ---- what a node does

    def start(self) -> None:
        self.disk.after_kill()
        self.book = Book("/log", files=self.disk, segment_bytes=SEGMENT_BYTES)
        assert self.numbers() == self.book.numbers
        # what is left of a torn append is the last one now, and moved as such
        self.appends = [numbers for numbers in self.appends if numbers]

    @rule(sizes=st.lists(SIZES, min_size=1, max_size=5))
    def append(self, sizes: list[int]) -> None:
        if self.book.store.needs_roll:
            self.book.roll()
        numbers = list(range(self.next, self.next + len(sizes)))
        for number, size in zip(numbers, sizes, strict=True):
            self.book.add(number, size)
        self.book.store.commit()
        self.next += len(numbers)
        self.book.numbers += numbers
        self.appends.append(numbers)

    @rule()
    def roll(self) -> None:
        self.book.roll()

    @rule()
    def restart(self) -> None:
        self.start()

    @rule(size=SIZES)
    def die_with_pending(self, size: int) -> None:
        self.book.add(self.next, size)
        self.next += 1
        self.start()

    @precondition(lambda self: hasattr(self, "book") and len(self.reader().segments()) > 1)
    @rule(data=st.data())
    def remove_segments(self, data: st.DataObject) -> None:
        sealed = self.reader().extents()[:-1]
        leaving = data.draw(st.lists(st.sampled_from(sealed), min_size=1, max_size=3))
        gone = [h.first_seq for base, stop in leaving for h in self.reader().headers(base, stop)]
        remove(self.disk, "/log", [base for base, _ in leaving])
        self.removed.update(gone)

    # ---- what the world does to it

    @precondition(lambda self: self.last_places())
    @rule(data=st.data())
    def cut_the_last_append(self, data: st.DataObject) -> None:
        places = self.last_places()
        cut = data.draw(st.integers(places[0].offset, places[-1].end - 1))
        kept = [header.first_seq for header in places if header.end <= cut]
        name, content = self.newest()
        self.disk.plant(name, content[: cut - self.book.store.segment_base])
        self.appends[-1] = kept
        self.start()

    @precondition(lambda self: self.last_places())
    @rule(data=st.data())
    def flip_a_bit_in_the_last_append(self, data: st.DataObject) -> None:
        places = self.last_places()
        hit = self.flip(data, places)
        self.appends[-1] = [header.first_seq for header in places if header.offset < hit.offset]
        self.start()

    @precondition(lambda self: self.durable_places())
    @rule(data=st.data())
    def flip_a_bit_in_the_middle(self, data: st.DataObject) -> None:
        name, content = self.newest()
        hit = self.flip(data, self.durable_places())
        before = self.disk.files()
        with pytest.raises(Damaged) as caught:
            Book("/log", files=self.disk)
        assert (caught.value.segment, caught.value.offset) == (f"/log/{name}", hit.offset)
        assert before == self.disk.files()
        self.disk.plant(name, content)

    @precondition(lambda self: len(self.headers()) > 1)
    @rule(data=st.data())
    def flip_a_bit_under_a_reader(self, data: st.DataObject) -> None:
        headers = self.headers()
        before = self.disk.files()
        hit = self.flip(data, headers)
        told: list[Damaged] = []
        reader = self.reader()
        served = []
        for header in reader.headers(on_damage=told.append):
            try:
                reader.payload(header)
                served.append(header)
            except Damaged as damage:
                told.append(damage)
        assert [damage.offset for damage in told] == [hit.offset]
        assert [h for h in headers if h.begin != hit.begin] == [h for h in served if h.begin != hit.begin]
        assert hit not in served
        for name, content in before.items():
            self.disk.plant(name, content)

    @rule(tail=st.binary(min_size=1, max_size=300))
    def write_garbage_behind_the_end(self, tail: bytes) -> None:
        name, content = self.newest()
        end = self.book.store.committed - self.book.store.segment_base
        self.disk.plant(name, content[:end] + tail)
        self.start()
        assert self.book.report.cut_bytes == len(tail.rstrip(b"\0"))

    # ---- what holds

    @invariant()
    def reader_finds_the_list(self) -> None:
        if hasattr(self, "book"):
            kept = [number for number in self.numbers() if number not in self.removed]
            assert kept == [h.first_seq for h in self.headers() if h.kind != Kind.CHECKPOINT]

    @invariant()
    def readers_in_both_directions_agree(self) -> None:
        if hasattr(self, "book"):
            assert self.headers() == list(self.reader().headers_back())[::-1]

    # ---- helpers

    def numbers(self) -> list[int]:
        return [number for numbers in self.appends for number in numbers]

    def reader(self) -> Reader:
        return Reader("/log", lambda: self.book.store.committed, files=self.disk)

    def headers(self) -> list[Header]:
        return list(self.reader().headers())

    def newest(self) -> tuple[str, bytes]:
        name = f"{self.book.store.segment_base:020d}.log"
        return name, self.disk.files()[name]

    def in_newest(self) -> list[Header]:
        """The records of the newest segment, its checkpoint not among them."""
        return [h for h in self.reader().headers(self.book.store.segment_base) if h.kind != Kind.CHECKPOINT]

    def last_places(self) -> list[Header]:
        """The last append, if it lies in the newest segment."""
        found = self.in_newest() if hasattr(self, "book") else []
        return [header for header in found if header.begin == found[-1].begin]

    def durable_places(self) -> list[Header]:
        """What stands in the newest segment before its last append."""
        found = self.in_newest() if hasattr(self, "book") else []
        return [header for header in found if header.begin != found[-1].begin]

    def flip(self, data: st.DataObject, places: list[Header]) -> Header:
        """Flip one bit of one of these records; returns which."""
        hit = data.draw(st.sampled_from(places))
        base = max(base for base in self.reader().segments() if base <= hit.offset)
        name = f"{base:020d}.log"
        content = bytearray(self.disk.files()[name])
        at = data.draw(st.integers(hit.offset, hit.end - 1)) - base
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        self.disk.plant(name, bytes(content))
        return hit


LogMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@pytest.mark.slow
class TestLogAgainstList(LogMachine.TestCase):  # type: ignore[misc, name-defined]
    """The log holds what the list holds, whatever happens to either."""
