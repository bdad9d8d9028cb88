"""One pass over the history: the places that may fit, in order, and of each the messages that do.

What is cheapest is asked first (`sifting`).

Damage and what is gone is told and passed over, so a pass always comes to its end.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgd import model
from msgd.audit import Audit
from msgd.fates import Fates
from msgd.layers import View
from msgd.log.errors import Damaged
from msgd.log.index import LANES, NUMBERED, RECEIVED, RECOVERED_IN, RECOVERED_OUT, Location
from msgd.log.opened import Records
from msgd.log.reader import Reader
from msgd.log.record import Kind, Record, decode_ranges
from msgd.marks import Marks
from msgd.matches import Found, Match, first_of, singly
from msgd.places import Places
from msgd.rows import Filter
from msgd.searching import Searching
from msgd.sieve import Sieve
from msgd.sifting import Sifting
from msgd.states import States
from msgd.wire.codec import Message

KEPT_PLACES = 4096  # of those found backwards: so many need not be looked for a second time


class Walk:
    """One query's view of the log before `upto`. Methods raise sqlite3.Error where an index is damaged."""

    def __init__(
        self,
        view: View,
        reader: Reader,
        is_held: Callable[[int], bool],
        on_damage: Callable[[Damaged], None],
        merged: Mapping[int, int],
        open_from: Callable[[int], int],
        audit: Audit,
        searching: Searching,
    ) -> None:
        self.records = Records(reader, lambda: view.upto, audit.message)
        self.states = States(view.indexes, view.upto, self.records.first_index, is_held)
        self.fates = Fates(self.states, on_damage)
        self.places = Places(view, reader, self.records, merged, open_from, on_damage)
        self.marks = Marks(view)
        view.deeper = self._renew
        self.log = reader.log_id.hex()
        self.view = view
        self._reader = reader
        self._on_damage = on_damage
        self._is_held = is_held
        self._searching = searching

    def _renew(self) -> None:
        """More was read of what lies before."""
        self.states.renew()
        self.marks.renew()

    # --- messages that fit ------------------------------------------------------------------------------

    def matches(self, wanted: Filter, lo: Location, hi: Location, reverse: bool) -> Iterator[Found]:
        """The places with messages that fit in [lo, hi), in order or the opposite one, with records."""
        return self._matches(wanted, lo, hi, reverse, is_read=True)

    def _matches(
        self, wanted: Filter, lo: Location, hi: Location, reverse: bool, is_read: bool
    ) -> Iterator[Found]:
        sieve = Sieve(wanted)
        search = None if sieve.terms is None else self._searching.begin(sieve.terms)
        sifting = Sifting(self.records, self.fates, sieve, search, (lo, hi), self._on_damage)
        for places in self.places.lists(wanted, lo[0], hi[0] + 1, reverse, search):
            if wanted.state == model.HANDLED:
                yield from self.marks.only(sifting.read(places, None))
                continue
            spans = None if wanted.state is None else self.fates.having(places, wanted.state)
            if spans is not None:
                places = [place for place in places if place.offset in spans]
            yield from (sifting.read if is_read or sieve.reads else sifting.unread)(places, spans)

    def last(
        self, wanted: Filter, lo: Location, hi: Location, lines: int
    ) -> tuple[Location, Sequence[Match]]:
        """Where the last `lines` messages that fit begin, or `lo`; all from there if they are few."""
        kept: deque[Match] = deque(maxlen=KEPT_PLACES)
        places = 0
        for found in first_of(self._matches(wanted, lo, hi, reverse=True, is_read=False), lines):
            kept.extendleft(singly(found))
            places += len(found.places)
        return kept[0].first if kept else lo, kept if places == len(kept) else ()

    def read(self, matches: Iterable[Match]) -> Iterator[Match]:
        """The same with their records, without those that cannot be read."""
        some = list(matches)
        offsets = [match.place.offset for match in some]
        for number, record in self.records.some(offsets, None, self._on_damage):
            messages = self._messages(record)
            if messages is not None:
                yield some[number]._replace(record=record, messages=messages)

    def opened(self, offsets: Sequence[int], sieve: Sieve) -> Iterator[Match]:
        """The places at these offsets that can be read and may fit, with their records; nothing is chosen."""
        for _, record in self.records.some(offsets, sieve.may_fit, self._on_damage):
            if sieve.fits_time(record.wall_ns):
                messages = self._messages(record)
                if messages is not None:
                    yield Match(self.places.of(record), [], record, messages)

    def states_at(self, upto: int) -> States:
        """The states as of an earlier log offset."""
        return States(self.view.indexes, upto, self.records.first_index, self._is_held)

    def _messages(self, record: Record) -> list[Message] | None:
        try:
            return self.records.messages_of(record)
        except Damaged as damaged:
            self._on_damage(damaged)
            return None

    # --- single ones ------------------------------------------------------------------------------------

    def reach(self, offset: int) -> None:
        """Know what became of the messages from this log offset on."""
        self.view.reach(offset)

    def numbered(self, peer: int, direction: int, seq: int) -> Location | None:
        """Where the message stands that got this seq. Raises Damaged, LookupError."""
        group = peer * LANES + (RECEIVED if direction == model.IN else NUMBERED)
        self.view.reach_seq(group, seq)
        for index in self.view.indexes:
            found = index.numbered(group, seq)
            if found is None or found[0] >= self.view.upto:
                continue
            offset, _, kind, first_seq = found
            if kind != Kind.RELEASED:
                return offset, seq - first_seq
            return self._released(self._reader.record(offset), seq - first_seq)
        group = peer * LANES + (RECOVERED_IN if direction == model.IN else RECOVERED_OUT)
        self.view.reach(0)
        for index in self.view.indexes:
            place = index.recovered_at(group, seq)
            if place is not None and place[0] < self.view.upto:
                return place[0], seq - place[1]
        return None

    def _released(self, record: Record, index: int) -> Location | None:
        for offset, start, _, count in decode_ranges(record.payload):
            if index < count:
                return offset, self.records.first_index(offset, start) + index
            index -= count
        return None
