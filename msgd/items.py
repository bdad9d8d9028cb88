"""Rows or finished lines of the messages that a walk found, piece by piece."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from msgd import model
from msgd.lines import Head, Lines
from msgd.log.errors import Damaged
from msgd.log.index import Location
from msgd.log.opened import Records
from msgd.log.record import Kind
from msgd.matches import Match, Run
from msgd.rows import Row, cursor_text, kind_name
from msgd.states import Place, Span
from msgd.wire.codec import Message

Outcome = tuple[str | None, int | None]  # the reason for a state, and the receiver's clock, ns

UNKNOWN: Outcome = (None, None)


class Piece(NamedTuple):
    """Some messages of one place that share a span, in the order of telling."""

    match: Match
    span: Span
    indexes: Sequence[int]
    length: int  # bytes of their bodies, or more

    @property
    def size(self) -> int:
        return len(self.indexes)

    @property
    def last(self) -> tuple[Location, bytes]:
        """Where the last message stands, and its id."""
        assert self.match.messages is not None
        index = self.indexes[-1]
        return (self.match.place.offset, index), self.match.messages[index].id


class Items:
    """Makes rows or lines. `records` and `log`, an id in hexadecimal, are the walk's."""

    def __init__(
        self,
        records: Records,
        log: str,
        own_name: str,
        peer_name: Callable[[int], str],
        held_reason: Callable[[int], str | None],
        on_damage: Callable[[Damaged], None],
    ) -> None:
        self._records = records
        self._log = log
        self._own_name = own_name
        self._peer_name = peer_name
        self._held_reason = held_reason
        self._on_damage = on_damage
        self._lines = Lines(own_name)

    def rows(self, piece: Piece | Run) -> list[Row]:
        """One for each message, in the order of telling."""
        return self._rows_of_run(piece) if isinstance(piece, Run) else self._rows(piece)

    def lines(self, piece: Piece | Run, was: str | None) -> bytes:
        """The same as lines; `was`: the state of all of them before, where they tell a change."""
        return self._lines_of_run(piece, was) if isinstance(piece, Run) else self._lines_of(piece, was)

    def _rows(self, piece: Piece) -> list[Row]:
        (place, _, record, messages), span = piece.match, piece.span
        assert record is not None
        assert messages is not None
        outcome = self._outcome(place, span, record.aux)
        return [self._row(place, span, i, record.wall_ns, outcome, messages[i]) for i in piece.indexes]

    def _rows_of_run(self, run: Run) -> list[Row]:
        self._records.learn({span.by for span in run.spans if span.by})
        return [
            self._row(place, span, 0, wall_ns, self._outcome(place, span, 0), message)
            for place, span, wall_ns, message in run.each()
        ]

    def _row(
        self, place: Place, span: Span, index: int, wall_ns: int, outcome: Outcome, message: Message
    ) -> Row:
        name = self._name(place.peer)
        sender, receiver = (name, self._own_name) if place.direction == model.IN else (self._own_name, name)
        return Row(
            id=message.id,
            peer=name,
            direction=model.DIRECTIONS.get(place.direction, ""),
            seq=span.seq + index - span.start if span.seq else None,
            kind=kind_name(message.kind),
            state=span.state,
            reason=outcome[0],
            from_=sender,
            to=receiver,
            user=message.user,
            sent_at_ns=message.sent_ns,
            stored_at_ns=wall_ns,
            receipt_at_ns=outcome[1],
            body=message.body,
            headers=message.headers,
            cursor=cursor_text(self._log, (place.offset, index), message.id),
            peer_number=place.peer,
            location=(place.offset, index),
        )

    def _lines_of(self, piece: Piece, was: str | None) -> bytes:
        lines = self._lines
        (place, _, record, messages), span, indexes = piece.match, piece.span, piece.indexes
        assert record is not None
        assert messages is not None
        reason, receipt_at_ns = self._outcome(place, span, record.aux)
        head = lines.head(place.direction, self._name(place.peer), span.state, reason)
        ahead, count = span.seq - span.start, len(indexes)
        seqs = [ahead + index for index in indexes] if span.seq else [0] * count
        times = [record.wall_ns] * count, [receipt_at_ns] * count
        return lines.of([messages[index] for index in indexes], seqs, [head] * count, *times, was)

    def _lines_of_run(self, run: Run, was: str | None) -> bytes:
        self._records.learn({span.by for span in run.spans if span.by})
        lines = self._lines
        known: dict[tuple[int, int, str, str | None], Head] = {}
        heads, receipts = [], []
        for place, span in zip(run.places, run.spans, strict=True):
            (_, _, _, _, peer, direction), (_, _, seq, state, by) = place, span
            reason, receipt_at_ns = self._outcome(place, span, 0) if by or not seq else UNKNOWN
            fate = peer, direction, state, reason
            head = known.get(fate)
            if head is None:
                head = known[fate] = lines.head(direction, self._name(peer), state, reason)
            heads.append(head)
            receipts.append(receipt_at_ns)
        return lines.of(run.messages, [span.seq for span in run.spans], heads, run.walls, receipts, was)

    def _outcome(self, place: Place, span: Span, aux: int) -> Outcome:
        if span.state == model.HELD:
            return self._held_reason(place.peer), None
        if place.kind == Kind.RECOVERED and place.direction == model.OUT:
            return None, aux or None
        if not span.by:
            return UNKNOWN
        try:
            return self._records.outcome(span.by)
        except Damaged as damaged:
            self._on_damage(damaged)
        except LookupError:
            pass  # vacuumed; the index still knows the state
        return UNKNOWN

    def _name(self, peer: int) -> str:
        return self._peer_name(peer) if peer else ""


def pieces(match: Match, reverse: bool, most: int, most_bytes: int) -> list[Piece]:
    """What is chosen, cut so that each piece has no more than this, or one message."""
    assert match.record is not None
    found: list[Piece] = []
    for span, chosen in reversed(match.chosen) if reverse else match.chosen:
        indexes = chosen[::-1] if reverse else chosen
        if len(indexes) == match.place.count <= most and match.record.length <= most_bytes:
            found.append(Piece(match, span, indexes, match.record.length))
        else:
            found += _cut(match, span, indexes, most, most_bytes)
    return found


def _cut(match: Match, span: Span, indexes: Sequence[int], most: int, most_bytes: int) -> Iterator[Piece]:
    assert match.messages is not None
    start = size = 0
    for at, index in enumerate(indexes):
        more = len(match.messages[index].body)
        if at - start == most or (at > start and size + more > most_bytes):
            yield Piece(match, span, indexes[start:at], size)
            start, size = at, 0
        size += more
    yield Piece(match, span, indexes[start:], size)
