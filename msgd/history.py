"""The history of messages: what a control worker answers from the log, with the index's help.

One message is one row. Its place in the history is the record where it was first committed (`out`, `held`
or `in`), and rows come in the order of places, never of clocks. A query is exact as of one committed
offset, `upto`, however far the index is (`layers`). Its memory does not grow with what it finds: rows are
handed over in lists of bounded size, and the last N are found by going backwards without keeping any
(`walk`), then told forwards from there.

A damaged record is told to `on_damage`, once per place, and left out. An index that turns out to be damaged
is removed, so that the index process makes a new one, and the query goes on without it from where it was.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from msgd import model
from msgd.audit import Audit
from msgd.layers import Layers
from msgd.log.errors import Damaged
from msgd.log.harvest import CONTROL_KINDS
from msgd.log.index import Location
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind
from msgd.rows import Cursor, Filter, Row, cursor_text, kind_name, parse_cursor
from msgd.states import Place, Span
from msgd.walk import Chosen, Match, Walk

LIST_ROWS = 256  # in one list, or
LIST_BYTES = 256 << 10  # of bodies, whichever comes first
ID_DIGITS = 32  # of a whole id

Result = TypeVar("Result")


class History:
    """Queries over the log that `reader` reads; for one process, any number of them at a time.

    `peer_name` gives the name of a peer by its number; `held_reason` the reason why nothing is released to
    it, None when messages to it are queued; `merged` the peer whose messages those to an address became, by
    both numbers. Blocks while it reads. Writes nothing, but removes an index that is damaged.
    """

    def __init__(
        self,
        reader: Reader,
        committed: Callable[[], int],
        index_path: str,
        *,
        own_name: str,
        peer_name: Callable[[int], str],
        held_reason: Callable[[int], str | None] = lambda peer: None,
        merged: Mapping[int, int] | None = None,
        on_damage: Callable[[Damaged], None],
    ) -> None:
        self._reader = reader
        self._committed = committed
        self._layers = Layers(reader, committed, index_path)
        self._own_name = own_name
        self._peer_name = peer_name
        self._held_reason = held_reason
        self._merged = merged or {}
        self._audit: Audit | None = None
        self._on_damage = on_damage
        self._told: set[int] = set()

    def query(self, wanted: Filter, upto: int | None = None) -> Iterator[list[Row]]:
        """The rows that fit, in order of places (`reverse`: newest first), a list at a time, none empty.

        As of `upto`, a log offset that was once all that was committed; by default what is committed now.
        To follow, ask again with the cursor `(upto - 1, 0)`. Raises UsageError at once.
        """
        upto = self._committed() if upto is None else upto
        wanted.check()
        if wanted.peer is not None:
            wanted = msgspec.structs.replace(wanted, peer=self._merged.get(wanted.peer, wanted.peer))
        lo = (0, 0) if wanted.after is None else self._behind(parse_cursor(wanted.after, self._reader.log_id))
        return self._query(wanted, lo, (upto, 0))

    def find(self, prefix: str, limit: int = 16) -> list[Location]:
        """Where messages stand whose id begins with these digits (`model.id_prefix`), at most `limit`."""
        told = self._told_at(prefix)
        return [told] if told else sorted(self._ask(lambda walk: walk.find(prefix, limit)))

    def message_at(self, location: Location) -> Row:
        """The message at a location. Raises LookupError when there is none, Damaged."""

        def row(walk: Walk) -> Row:
            place, index = self._place(walk, location)
            walk.records.messages(place.offset)  # raises what `_rows` would only tell
            span = next(s for s in walk.states.of(place) if s.start <= index < s.stop)
            return next(self._rows(walk, place, [(index, span)]))

        return self._ask(row)

    def life(self, location: Location) -> list[Header]:
        """The records that tell about one message, in order: its own, releases, receipt or ending.

        Raises as `message_at`.
        """

        def headers(walk: Walk) -> list[Header]:
            place, index = self._place(walk, location)
            offsets = walk.states.life(place, index)
            return [Header._make(self._reader.record(offset)[: len(Header._fields)]) for offset in offsets]

        return self._ask(headers)

    def location_of(self, peer: int, direction: int, seq: int) -> Location | None:
        """Where the message stands that this seq was given to; None if there is none. Raises Damaged."""
        return self._ask(lambda walk: walk.numbered(peer, direction, seq))

    def close(self) -> None:
        """Close the index. The history may be used again."""
        self._layers.close()

    # --- steps of a query -------------------------------------------------------------------------------

    def _query(self, wanted: Filter, lo: Location, hi: Location) -> Iterator[list[Row]]:
        upto, left = hi[0], wanted.lines
        while left is None or left > 0:
            try:
                walk = self._walk(upto)
                if left is not None and not wanted.reverse:
                    lo, left = walk.start_of_last(wanted, lo, hi, left), None
                matches = walk.matches(wanted, lo, hi, wanted.reverse)
                for rows in self._lists(walk, matches, wanted.reverse):
                    if left is not None:
                        rows = rows[:left]
                        left -= len(rows)
                    yield rows
                    if wanted.reverse:
                        hi = rows[-1].location
                    else:
                        lo = (rows[-1].location[0], rows[-1].location[1] + 1)
                    if left == 0:
                        return
                return
            except sqlite3.Error as error:
                self._layers.distrust(error)

    def _lists(self, walk: Walk, matches: Iterable[Match], reverse: bool) -> Iterator[list[Row]]:
        """All rows of the matches, in lists of bounded size."""
        rows: list[Row] = []
        size = 0
        for place, chosen in matches:
            for row in self._rows(walk, place, chosen[::-1] if reverse else chosen):
                rows.append(row)
                size += len(row.body)
                if len(rows) >= LIST_ROWS or size >= LIST_BYTES:
                    yield rows
                    rows, size = [], 0
        if rows:
            yield rows

    def _rows(self, walk: Walk, place: Place, chosen: Chosen) -> Iterator[Row]:
        """The rows of one place; none if it cannot be read."""
        try:
            messages = walk.records.messages(place.offset)
            stored_at_ns = walk.records.record(place.offset).wall_ns
        except Damaged as damaged:
            self._damage(damaged)
            return
        except LookupError:
            return  # vacuumed meanwhile
        name = self._peer_name(place.peer) if place.peer else ""
        sender, receiver = self._own_name, name
        if place.direction == model.IN:
            sender, receiver = name, self._own_name
        before = None
        for index, span in chosen:
            if span is not before:
                reason, receipt_at_ns = self._outcome(walk, place, span)
                before = span
            message, location = messages[index], (place.offset, index)
            yield Row(
                id=message.id,
                peer=name,
                direction=model.DIRECTIONS.get(place.direction, ""),
                seq=span.seq + index - span.start if span.seq else None,
                kind=kind_name(message.kind),
                state=span.state,
                reason=reason,
                from_=sender,
                to=receiver,
                user=message.user,
                sent_at_ns=message.sent_ns,
                stored_at_ns=stored_at_ns,
                receipt_at_ns=receipt_at_ns,
                body=message.body,
                headers=message.headers,
                cursor=cursor_text(walk.log, location, message.id),
                peer_number=place.peer,
                location=location,
            )

    def _outcome(self, walk: Walk, place: Place, span: Span) -> tuple[str | None, int | None]:
        """The reason for a state, and the receiver's clock."""
        if span.state == model.HELD:
            return self._held_reason(place.peer), None
        if place.kind == Kind.RECOVERED and place.direction == model.OUT:
            return None, walk.records.record(place.offset).aux or None
        if not span.by:
            return None, None
        try:
            return walk.records.outcome(span.by)
        except Damaged as damaged:
            self._damage(damaged)
        except LookupError:
            pass  # vacuumed; the index still knows the state
        return None, None

    def _behind(self, cursor: Cursor) -> Location:
        """The first location behind a cursor, wherever its message stands now."""
        offset, index = cursor.location
        if cursor.id is not None and offset >= self._reader.first and not self._stands_at(cursor):
            moved = [at for at in self.find(cursor.id.hex()) if at >= cursor.location]
            offset, index = min(moved, default=cursor.location)
        return offset, index + 1

    def _stands_at(self, cursor: Cursor) -> bool:
        offset, index = cursor.location
        try:
            record = self._reader.record(offset)
            if record.kind in CONTROL_KINDS:
                return cursor.id == self._telling().id_of(offset)
            return self._reader.messages(record)[index].id == cursor.id
        except (Damaged, LookupError, msgspec.MsgspecError):
            return False

    def _told_at(self, prefix: str) -> Location | None:
        """Where the record stands whose row has this id, if it is one of those that tell what was done."""
        offset = self._telling().offset_of(bytes.fromhex(prefix)) if len(prefix) == ID_DIGITS else None
        if offset is None:
            return None
        try:
            return (offset, 0) if self._reader.record(offset).kind in CONTROL_KINDS else None
        except (Damaged, LookupError):
            return None

    def _telling(self) -> Audit:
        if self._audit is None:
            self._audit = Audit(self._reader.log_id, self._own_name, self._peer_name)
        return self._audit

    # --- helpers ----------------------------------------------------------------------------------------

    def _ask(self, question: Callable[[Walk], Result]) -> Result:
        while True:
            try:
                return question(self._walk(self._committed()))
            except sqlite3.Error as error:
                self._layers.distrust(error)

    def _walk(self, upto: int) -> Walk:
        layers = self._layers.upto(upto)
        for layer in layers:
            for damaged in layer.index.damage():
                self._damage(damaged)
        return Walk(
            layers,
            upto,
            self._reader,
            lambda peer: self._held_reason(peer) is not None,
            self._damage,
            self._merged,
            self._telling(),
        )

    @staticmethod
    def _place(walk: Walk, location: Location) -> tuple[Place, int]:
        place = walk.place_of(walk.records.record(location[0]))
        if not 0 <= location[1] < place.count:
            raise LookupError(f"log offset {location[0]} has {place.count} messages, none at {location[1]}")
        return place, location[1]

    def _damage(self, damaged: Damaged) -> None:
        if damaged.offset not in self._told:
            self._told.add(damaged.offset)
            self._on_damage(damaged)
