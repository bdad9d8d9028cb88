"""What a query hands over: rows or finished JSON lines, in parts of bounded size, and clock steps between."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple

from msgd.audit import clock_step_ns
from msgd.changes import Changed
from msgd.items import Items, Piece, pieces
from msgd.lines import BETWEEN
from msgd.log.errors import Damaged
from msgd.log.index import Location
from msgd.marks import Mark, on_lines, on_rows
from msgd.matches import Found, Run
from msgd.rows import Row, cursor_text
from msgd.walk import Walk

LIST_ROWS = 256  # in one part, or
LIST_BYTES = 256 << 10  # of bodies, whichever comes first


class Part(NamedTuple):
    """Some messages in a row, told as rows or as lines."""

    rows: list[Row]
    lines: bytes  # finished ones, BETWEEN between two; empty: they are rows
    size: int  # messages
    last: Location  # of the last one
    cursor: str
    was: str | None = None  # the state of all of them before, where they tell a change


class Step(NamedTuple):
    """The clock was set by so much; then it said `at_ns`. `last`: where the log says so."""

    clock_step_ns: int
    at_ns: int
    last: Location


class Steps:
    """Puts the clock's steps between messages; who `follows` hears of each one as it comes."""

    def __init__(self, follows: bool = False) -> None:
        self._follows = follows
        self._begun = follows

    def between(self, matches: Iterable[Found], steps: Iterator[int], reverse: bool) -> Iterator[Found | int]:
        """The matches, and in their places the log offsets of steps."""
        step = next(steps, None)
        for found in matches:
            start = 0
            for at, place in enumerate(found.places if step is not None else ()):
                while step is not None and (step > place.offset if reverse else step < place.offset):
                    if start < at:
                        yield found.cut(start, at)
                        self._begun, start = True, at
                    if self._begun:
                        yield step
                    step = next(steps, None)
            self._begun = True
            yield found.cut(start, found.size) if start else found
        while step is not None and self._follows:
            yield step
            step = next(steps, None)


class Telling:
    """Makes parts of the messages that one walk finds, of rows or, `as_lines`, of lines."""

    def __init__(
        self, walk: Walk, items: Items, on_damage: Callable[[Damaged], None], as_lines: bool
    ) -> None:
        self._walk = walk
        self._items = items
        self._on_damage = on_damage
        self._as_lines = as_lines
        self._was: str | None = None  # the state before, of what is told now

    def changes(self, found: Iterable[Changed]) -> Iterator[Part]:
        """As `parts`, of messages whose state was another before."""
        for was, some in groupby(found, key=itemgetter(0)):
            self._was = was
            for part in self.parts((match for _, match in some), reverse=False):
                assert isinstance(part, Part)
                yield part
        self._was = None

    def parts(self, found: Iterable[Found | int], reverse: bool) -> Iterator[Part | Step]:
        """All messages of the matches, a part at a time, none empty; the steps at the log offsets between."""
        items: list[Any] = []
        size = length = 0
        last: Piece | Run | None = None
        for match in found:
            if isinstance(match, int):
                if last is not None and items:
                    yield self._part(items, size, last)
                    items, size, length = [], 0, 0
                yield from self._step(match)
                continue
            cut = [match] if isinstance(match, Run) else pieces(match, reverse, LIST_ROWS, LIST_BYTES)
            for piece in cut:
                is_full = size + piece.size > LIST_ROWS or length + piece.length > LIST_BYTES
                if is_full and items and last is not None:
                    yield self._part(items, size, last)
                    items, size, length = [], 0, 0
                items.append(self._item(piece))
                size += piece.size
                length += piece.length
                last = piece
        if items and last is not None:
            yield self._part(items, size, last)

    def _marks_of(self, piece: Piece | Run) -> list[Mark | None] | None:
        """One for each message, None where it has none; None: there are none at all."""
        marks = self._walk.marks
        if not marks.has_any:
            return None
        if isinstance(piece, Run):
            return [marks.of(place, message, span.state) for place, span, _, message in piece.each()]
        (place, _, _, messages), state = piece.match, piece.span.state
        return [marks.of(place, (messages or ())[index], state) for index in piece.indexes]

    def _step(self, offset: int) -> Iterator[Step]:
        try:
            record = self._walk.records.record(offset)
            yield Step(clock_step_ns(record), record.wall_ns, (offset, 0))
        except Damaged as damaged:
            self._on_damage(damaged)
        except LookupError:
            pass  # vacuumed meanwhile

    def _item(self, piece: Piece | Run) -> bytes | list[Row]:
        """What is told of a piece: made at once, since a piece keeps all the messages of its record."""
        marks = self._marks_of(piece)
        if not self._as_lines:
            rows = self._items.rows(piece)
            return rows if marks is None else on_rows(rows, marks)
        lines = self._items.lines(piece, self._was)
        return lines if marks is None else BETWEEN.join(on_lines(lines.split(BETWEEN), marks))

    def _part(self, items: list[Any], size: int, piece: Piece | Run) -> Part:
        location, raw = piece.last
        cursor = cursor_text(self._walk.log, location, raw)
        if self._as_lines:
            return Part([], BETWEEN.join(items), size, location, cursor, self._was)
        return Part(list(chain.from_iterable(items)), b"", size, location, cursor, self._was)
