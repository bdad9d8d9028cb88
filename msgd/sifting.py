"""What fits of the places that a pass goes through.

Cheapest first: the record with its own time; then whether its bytes hold what a pattern needs; its messages
last, only if a filter looks into them. What is damaged or gone is told and passed over.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice

from msgd.fates import Fates, Spans
from msgd.log.errors import Damaged
from msgd.log.index import Location
from msgd.log.opened import Records
from msgd.log.record import Record
from msgd.matches import Found, Match, Run, paired, within
from msgd.searching import Search
from msgd.sieve import Sieve
from msgd.singles import Stack, stacked
from msgd.states import Place, Span, is_single
from msgd.wire.codec import Message

UNREAD_PLACES = 64  # in a run that is not read: few, since most questions are for some last messages


class Sifting:
    """One pass, for what fits in [lo, hi)."""

    def __init__(
        self,
        records: Records,
        fates: Fates,
        sieve: Sieve,
        search: Search | None,
        bounds: tuple[Location, Location],
        on_damage: Callable[[Damaged], None],
    ) -> None:
        self._records = records
        self._fates = fates
        self._sieve = sieve
        self._search = search
        self._bounds = bounds
        self._edges = (bounds[0][0], bounds[1][0])
        self._on_damage = on_damage

    def unread(self, places: Sequence[Place], spans: Spans | None) -> Iterator[Found]:
        """The places, where nothing in their records is asked for. `spans`: what fits by its state."""
        for are_single, group in groupby(places, self._is_single):
            if not are_single:
                for place in group:
                    yield from self._match(place, within(place, *self._bounds), spans, None, None)
                continue
            while some := list(islice(group, UNREAD_PLACES)):
                yield from self._run(Run(some, (), (), (), 0), spans)

    def read(self, places: Sequence[Place], spans: Spans | None) -> Iterator[Found]:
        """What fits of these places, with records."""
        sieve, offsets = self._sieve, [place.offset for place in places]
        raw = self._records.raw(offsets, sieve.may_fit, self._on_damage)
        for some in stacked(raw, places, self._edges, sieve.fits_time if sieve.is_timed else None):
            if not isinstance(some, Stack):
                yield from self._one(*some, spans)
                continue
            messages = self._records.alone(some.payloads)
            if messages is not None:
                yield from self._stack(some, messages, spans)
                continue
            offsets = [place.offset for place in some.places]
            for number, record in self._records.some(offsets, None, self._on_damage):
                yield from self._one(some.places[number], record, spans)

    def _is_single(self, place: Place) -> bool:
        return is_single(place) and place.offset not in self._edges

    def _one(self, place: Place, record: Record, spans: Spans | None) -> Iterator[Match]:
        sieve, search = self._sieve, self._search
        if sieve.is_timed and not sieve.fits_time(record.wall_ns):
            return
        try:
            messages = self._records.messages_of(record)
        except Damaged as damaged:
            self._on_damage(damaged)
            return
        chosen: Sequence[int] = within(place, *self._bounds)
        if sieve.fits is not None:
            chosen = [i for i in chosen if sieve.fits(messages[i])]
        if search is not None and chosen:
            chosen = search.chosen(place.offset, chosen, messages)
        if chosen:
            yield from self._match(place, chosen, spans, record, messages)

    def _stack(self, stack: Stack, messages: list[Message], spans: Spans | None) -> Iterator[Run]:
        fits, search = self._sieve.fits, self._search
        run = Run(stack.places, (), stack.walls, messages, stack.length)
        if fits is not None:
            run = run.only([fits(message) for message in messages])
        if search is not None:
            each = zip(run.places, run.messages, strict=True)
            run = run.only([search.chosen(place.offset, range(1), (message,)) for place, message in each])
        if run.places:
            yield from self._run(run, spans)

    def _match(
        self,
        place: Place,
        indexes: Sequence[int],
        spans: Spans | None,
        record: Record | None,
        messages: list[Message] | None,
    ) -> Iterator[Match]:
        chosen = paired(indexes, self._fates.of(place) if spans is None else spans[place.offset])
        if chosen:
            yield Match(place, chosen, record, messages)

    def _run(self, run: Run, spans: Spans | None) -> Iterator[Run]:
        """The run with spans, which it has not yet; without what has none."""
        known: Sequence[Span | None]
        known = self._fates.alone(run.places) if spans is None else [spans[p.offset][0] for p in run.places]
        found = [span for span in known if span is not None]
        if len(found) < len(known):
            run = run.only(known)
        if found:
            yield run._replace(spans=found)
