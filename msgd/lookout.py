"""The next incoming message that a consumer wants, looked for in the log itself, record by record.

It goes on from where it was: what was passed is never read again. Only `in` records count: what `recover` got
back was here before, and is history. Where a part of the log is no longer kept, the numbers of the next
message of each peer tell how many were in it.
"""

from collections.abc import Iterator

import msgspec

from msgd import model
from msgd.cursors import Location
from msgd.log.ahead import Ahead
from msgd.log.errors import Damaged
from msgd.log.reader import OnDamage, Reader
from msgd.log.record import Header, Kind, Record
from msgd.wire.codec import Message
from msgd.wire.consuming import Found
from msgd.wire.reports import asks

STRETCH_BYTES = 64 << 20  # of the log that are looked through at once
UNNAMED = frozenset((model.MESSAGE_KINDS.index("result"), model.MESSAGE_KINDS.index("control")))


class Lookout:
    """Looks from `at` on for messages of peer number `peer` (0: any) and `kind` (below 0: but UNNAMED)."""

    def __init__(
        self,
        reader: Reader,
        peer: int,
        kind: int,
        at: Location,
        on_damage: OnDamage,
        seen: dict[int, int] | None = None,
    ) -> None:
        """`seen`: the last seq of each peer before `at`, 0 where there is none; None: not known."""
        self.at = at  # nothing that fits lies before this position
        self.found: Found | None = None  # what lies there, once `peek` has found it
        self.lost = 0  # messages passed over, not kept any more or unreadable; whoever tells sets it to 0
        self._reader = reader
        self._peer = peer
        self._kind = kind
        self._on_damage = on_damage
        self._headers: Iterator[Header] = iter(())
        self._stop = 0  # log offset where that walk ends
        self._ahead: Ahead | None = None  # of the walk under way
        self._record: Record | None = None  # in which `at` lies
        self._messages: list[Message] = []
        self._seen = dict(seen or {})
        self._is_known = seen is not None  # who is not in `_seen` had sent nothing
        self._unsure: set[int] | None = None  # behind a gap: peers whose next message was looked at

    @property
    def is_at_end(self) -> bool:
        """Whether all that is committed was looked through."""
        return self.at[0] >= self._reader.committed

    def peek(self) -> Found | None:
        """The next message that fits; None at the end, or behind a long stretch without one."""
        stop = self.at[0] + STRETCH_BYTES
        while self.found is None:
            if self._record is not None:
                self.found = self._next_in(self._record)
            elif not self._open_next(stop):
                break
        return self.found

    def take(self, place: Location) -> tuple[Record, Message] | None:
        """The message at this place, if it was just found; the position then moves behind it."""
        found, record = self.found, self._record
        if found is None or record is None or (found.offset, found.index) != place:
            return None
        message = self._messages[found.index]
        self.seek((found.next_offset, found.next_index))
        return record, message

    def seek(self, at: Location) -> None:
        """Go on from this position, if it lies ahead: nothing that fits lies before it."""
        if at <= self.at:
            return
        self.at, self.found = at, None
        if self._record is not None and at[0] != self._record.offset:
            if at[0] != self._record.end:
                self._headers, self._stop = iter(()), 0
            self._record = None

    # --- steps ------------------------------------------------------------------------------------------

    def _next_in(self, record: Record) -> Found | None:
        """The next one in the open record; the position moves to it, or behind the record."""
        count, end = len(self._messages), (record.end, 0)
        for index in range(self.at[1], count):
            message = self._messages[index]
            if self._fits(message.kind):
                self.at = record.offset, index
                behind = (record.offset, index + 1) if index + 1 < count else end
                seq = record.first_seq + index
                return Found(*self.at, message.id, record.peer, seq, asks(message), *behind)
        self.at, self._record = end, None
        return None

    def _fits(self, kind: int) -> bool:
        return kind == self._kind if self._kind >= 0 else kind not in UNNAMED

    def _open_next(self, stop: int) -> bool:
        """Open the next record that may fit; False: none is there, or begins before log offset `stop`."""
        while self.at[0] < stop:
            header = self._next_header()
            if header is None:
                return False
            self._skip_to(header.offset)
            if self._peer in (0, header.peer):
                self._note_seq(header)
                if header.kind == Kind.IN and self._open(header):
                    return True
            self.at = header.end, 0
        return False

    def _next_header(self) -> Header | None:
        """Of the walk under way, or where that is at its end of a new one."""
        header = next(self._headers, None)
        if header is None:
            self._skip_to(self._stop)
            header = None if self.is_at_end else self._begin_walk()
        if header is None:
            self._ahead = None  # idle: it keeps a block of the log
        return header

    def _begin_walk(self) -> Header | None:
        reader = self._reader
        self._stop = reader.committed
        self._headers = reader.headers(self.at[0], self._stop, on_damage=self._on_damage)
        self._ahead = Ahead(reader, lambda: reader.committed)
        header = next(self._headers, None)
        if header is None:
            self._skip_to(self._stop)
        return header

    def _skip_to(self, offset: int) -> None:
        """What lies between is not kept any more, or damaged."""
        if offset > self.at[0]:
            self.at, self._unsure = (offset, 0), set()

    def _open(self, header: Header) -> bool:
        try:
            record = (self._ahead or self._reader).record(header.offset)
            self._messages = self._reader.messages(record)
        except Damaged as damaged:
            self._on_damage(damaged)
        except msgspec.MsgspecError as error:
            self._on_damage(
                Damaged(self._reader.directory, header.offset, f"the payload is no messages: {error}")
            )
        except LookupError:
            pass
        else:
            self._record = record
            return True
        self.lost += header.count
        return False

    def _note_seq(self, header: Header) -> None:
        """What a peer's next message, or the beginning of an epoch, says of what a gap held."""
        peer, first = header.peer, header.first_seq
        if header.kind == Kind.EPOCH and header.direction == model.IN:
            self._seen[peer] = first - 1
        if header.kind != Kind.IN:
            return
        if self._unsure is not None and peer not in self._unsure:
            self._unsure.add(peer)
            if self._is_known or peer in self._seen:
                self.lost += max(0, first - 1 - self._seen.get(peer, 0))
        self._seen[peer] = first + header.count - 1
