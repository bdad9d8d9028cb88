"""Marks of messages: that a consumer has handled them, as reports in the log say.

A message that asked for a report is marked by the first one about it, of its peer where it went out, of this
node where it came in (`wire.reports`). An index finds reports by the id. Whatever asks for no report costs no
look at the index, and nothing at all where the log has no reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from msgd import model
from msgd.layers import View
from msgd.lines import quoted, rfc3339
from msgd.log.index import BY_PEER, BY_US, REPORT, REPORT_GROUPS
from msgd.matches import Found, Match, Run
from msgd.rows import Row
from msgd.states import Place, Span
from msgd.wire.codec import Message
from msgd.wire.reports import asks

MARKED_STATES = (model.STORED, model.RECEIVED)  # it is on both disks
ABOVE = b"\xff" * 9  # behind an id: sorts behind every entry about it


class Mark(NamedTuple):
    """Who has handled a message, and when by the clock of the node where that was."""

    at_ns: int
    consumer: str
    offset: int  # of the record with the report


class Marks:
    """Of the messages of one view. Methods raise sqlite3.Error where an index is damaged."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.renew()

    def renew(self) -> None:
        """An index has got older records, too."""
        self._tables = [index.report for index in self._view.indexes if not index.report.is_empty]

    @property
    def has_any(self) -> bool:
        """Whether the log has reports, as far as the view reaches."""
        return bool(self._tables)

    def of(self, place: Place, message: Message, state: str) -> Mark | None:
        """The mark of a message, of which this is the place and the state."""
        if state not in MARKED_STATES or not message.headers or not asks(message):
            return None
        return self.first(place, message.id)

    def first(self, place: Place, raw: bytes) -> Mark | None:
        """What the first report says about a message with this id in such a place."""
        group = place.peer * REPORT_GROUPS + (BY_US if place.direction == model.IN else BY_PEER)
        view, least, found = self._view, 1 << 64, None
        for table in self._tables:
            for entry in table.find(group, raw, raw + ABOVE):
                _, at, at_ns, name = REPORT.unpack(entry)
                if at < least and at >> 17 < view.upto and view.is_kept(at >> 17):
                    least, found = at, Mark(at_ns, name.rstrip(b"\0").decode(), at >> 17)
        return found

    def only(self, found: Iterable[Found]) -> Iterator[Found]:
        """Of what a pass has read the messages that are marked."""
        for some in found:
            if isinstance(some, Run):
                marked: Found = some.only([self.of(p, m, span.state) for p, span, _, m in some.each()])
            else:
                marked = some._replace(chosen=list(self._chosen(some)))
            if marked.size:
                yield marked

    def _chosen(self, match: Match) -> Iterator[tuple[Span, Sequence[int]]]:
        messages = match.messages or ()
        for span, indexes in match.chosen:
            some = [i for i in indexes if self.of(match.place, messages[i], span.state)]
            if some:
                yield span, some


def on_rows(rows: list[Row], marks: Iterable[Mark | None]) -> list[Row]:
    """The rows with their marks, one for each."""
    return [
        row
        if mark is None
        else msgspec.structs.replace(row, handled_at_ns=mark.at_ns, handled_by=mark.consumer)
        for row, mark in zip(rows, marks, strict=True)
    ]


def on_lines(lines: list[bytes], marks: Iterable[Mark | None]) -> list[bytes]:
    """The same of finished JSON lines."""
    return [
        line if mark is None else b"%b%b}" % (line[:-1], _members(mark))
        for line, mark in zip(lines, marks, strict=True)
    ]


def _members(mark: Mark) -> bytes:
    at_ns, name = mark.at_ns, quoted(mark.consumer)
    return f',"handled_at":"{rfc3339(at_ns)}","handled_at_ns":{at_ns},"handled_by":{name}'.encode()
