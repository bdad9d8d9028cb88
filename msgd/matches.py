"""What a pass over the history finds: messages of one record, or of a run of records that hold one each."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import NamedTuple

from msgd.log.index import Location
from msgd.log.record import Record
from msgd.states import Place, Span
from msgd.wire.codec import Message

Chosen = list[tuple[Span, Sequence[int]]]  # of each span the indexes, upwards, none empty


class Match(NamedTuple):
    """Some messages of one place. `record` and `messages`, all of it, where the pass had to read them."""

    place: Place
    chosen: Chosen
    record: Record | None
    messages: list[Message] | None

    @property
    def first(self) -> Location:
        return self.place.offset, self.chosen[0][1][0]

    @property
    def size(self) -> int:
        """Messages that are chosen."""
        return sum(len(indexes) for _, indexes in self.chosen)

    @property
    def places(self) -> Sequence[Place]:
        return (self.place,)

    def cut(self, start: int, stop: int) -> "Match":
        """All of it: it has one place."""
        return self


class Run(NamedTuple):
    """Messages that are alone in their records, in the order of telling: columns of one length.

    Made where records are many: a node that sends one message at a time has as many of them as messages.
    """

    places: Sequence[Place]
    spans: Sequence[Span]
    walls: Sequence[int]  # stored times, ns
    messages: Sequence[Message]
    length: int  # bytes of their bodies, or more

    @property
    def size(self) -> int:
        return len(self.places)

    @property
    def last(self) -> tuple[Location, bytes]:
        """Where the last message stands, and its id."""
        return (self.places[-1].offset, 0), self.messages[-1].id

    def each(self) -> Iterator[tuple[Place, Span, int, Message]]:
        """Message by message."""
        return zip(self.places, self.spans, self.walls, self.messages, strict=True)

    def cut(self, start: int, stop: int) -> "Run":
        """Some of them in a row."""
        places, spans, walls, messages, length = self
        return Run(places[start:stop], spans[start:stop], walls[start:stop], messages[start:stop], length)

    def only(self, keep: Sequence[object]) -> "Run":
        """Those where `keep`, one for each, is true."""
        places, spans = list(compress(self.places, keep)), list(compress(self.spans, keep))
        walls, messages = list(compress(self.walls, keep)), list(compress(self.messages, keep))
        return Run(places, spans, walls, messages, sum(len(message.body) for message in messages))


Found = Match | Run


def within(place: Place, lo: Location, hi: Location) -> range:
    """The messages of a place that stand in [lo, hi)."""
    first = lo[1] if place.offset == lo[0] else 0
    stop = min(hi[1], place.count) if place.offset == hi[0] else place.count
    return range(first, stop)


def paired(indexes: Sequence[int], spans: list[Span]) -> Chosen:
    """The indexes that lie in a span, by spans; both are in order."""
    found: Chosen = []
    if isinstance(indexes, range):
        if len(spans) == 1 and spans[0].start <= indexes.start < indexes.stop <= spans[0].stop:
            return [(spans[0], indexes)]
        for span in spans:
            part = range(max(indexes.start, span.start), min(indexes.stop, span.stop))
            if part:
                found.append((span, part))
        return found
    at = 0
    for span in spans:
        at = bisect_left(indexes, span.start, at)
        stop = bisect_left(indexes, span.stop, at)
        if at < stop:
            found.append((span, indexes[at:stop]))
        at = stop
    return found


def singly(found: Found) -> Iterator[Match]:
    """The same place by place, without what was read."""
    if isinstance(found, Match):
        yield found._replace(record=None, messages=None)
        return
    for place, span in zip(found.places, found.spans, strict=True):
        yield Match(place, [(span, (0,))], None, None)


def first_of(matches: Iterable[Found], count: int) -> Iterator[Found]:
    """Of matches that come backwards the first `count` messages, which stand last."""
    for match in matches:
        if match.size >= count:
            if isinstance(match, Run):
                yield match.cut(0, count)
            else:
                yield match._replace(chosen=last_of(match.chosen, count))
            return
        count -= match.size
        yield match


def last_of(chosen: Chosen, count: int) -> Chosen:
    """The last `count` of them."""
    kept: Chosen = []
    for span, indexes in reversed(chosen):
        if count <= 0:
            break
        kept.insert(0, (span, indexes[-count:]))
        count -= len(indexes)
    return kept
