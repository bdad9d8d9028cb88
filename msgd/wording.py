"""Fills the file of words (`log.words`) from the log, behind the index, a shelf after the other.

It goes no further than the index has come: what a start of msgd may write anew elsewhere is in neither.
"""

from collections.abc import Callable

import msgspec

from msgd.keeper import Event, Keeper
from msgd.log.ahead import Ahead
from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind
from msgd.log.terms import text_of
from msgd.log.words import Words
from msgd.wire.codec import decode_payload

STEP_TEXTS = 8192  # of one transaction: 0.1 s
STEP_BYTES = 1 << 20  # of text, where they are large
SHELF_BYTES = 32 << 20  # at least, of the log: whole segments, one of the usual size
KINDS = frozenset({Kind.OUT, Kind.IN, Kind.HELD, Kind.RECOVERED})


class Wording(Keeper[Words]):
    """Fills the file at `path` as far as the index goes, `upto`."""

    kind = Words
    budget = STEP_TEXTS

    def __init__(
        self, path: str, reader: Reader, committed: Callable[[], int], upto: Callable[[], int], event: Event
    ) -> None:
        super().__init__(path, reader, committed, event)
        self._upto = upto
        self._ahead = Ahead(reader, committed)

    def _step(self, index: Words, budget: int) -> bool:
        if self._tidy(index):
            return True
        start, upto = max(index.position, self._reader.first), self._upto()
        if start >= upto:
            return False
        shelf, stop = self._shelf(index, start, upto)
        texts: list[tuple[int, int, str]] = []
        unread: list[int] = []
        size, last, at = 0, -1, stop
        for header in self._reader.headers(start, stop, on_damage=self._tell):
            last = header.offset
            if header.kind in KINDS:
                found = self._texts(header)
                texts += found or ()
                size += header.length
                if found is None:
                    unread.append(header.offset)
                if len(texts) >= budget or size >= STEP_BYTES:
                    at = header.end
                    break
        index.db.execute("BEGIN IMMEDIATE")
        if shelf is None:
            shelf = start
            index.begin_shelf(shelf)
        index.add(shelf, at, texts, unread)
        self._commit(index, at, last)
        return at < upto

    def _texts(self, header: Header) -> list[tuple[int, int, str]] | None:
        """The texts of a record, None if it cannot be read."""
        try:
            messages = decode_payload(self._ahead.payload(header), header.count)
        except Damaged as damaged:
            self._tell(damaged)
            return None
        except (LookupError, msgspec.MsgspecError):
            return None
        return [(header.offset, at, text_of(message.body)) for at, message in enumerate(messages)]

    def _shelf(self, index: Words, start: int, upto: int) -> tuple[int | None, int]:
        """The shelf for what stands at `start`, None a new one, and where it has to end."""
        last = index.shelves()[-1:]
        lo = last[0][0] if last else start
        ends = [base for base in self._reader.segments() if base >= lo + SHELF_BYTES]
        if ends and ends[0] <= start:
            later = [base for base in self._reader.segments() if base >= start + SHELF_BYTES]
            return None, min([upto, *later[:1]])
        return lo if last else None, min([upto, *ends[:1]])

    def _tidy(self, index: Words) -> bool:
        """Drop one shelf of which nothing is kept any more, or give room back; whether there was one."""
        extents = self._reader.extents()
        for lo, hi in index.shelves():
            if not any(base < hi and lo < stop for base, stop in extents):
                index.db.execute("BEGIN IMMEDIATE")
                index.drop_shelf(lo, hi)
                index.db.execute("COMMIT")
                return True
        return index.give_back()
