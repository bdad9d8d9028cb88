"""The records that a query opens: each read, checked and decoded once while it is in use.

A query goes from record to record, and asks for the same one several times: for its time, for its messages,
for where they begin. So the last one is kept. Of receipts and endings only what they say is kept, for some.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import attrgetter

import msgspec

from msgd.log.ahead import Ahead, Has
from msgd.log.errors import Damaged
from msgd.log.harvest import CONTROL_KINDS, decode_ended
from msgd.log.reader import Reader
from msgd.log.record import Kind, Record, kind_and_aux
from msgd.wire.codec import Message, decode_payload

OUTCOMES = 512

_ID = slice(3, 19)  # of a message: behind the heads of the array and of its first place
_id_of = attrgetter("id")
_decode_raw = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class Records:
    """The records that a query opens: the last one with its messages, and what receipts and endings say."""

    def __init__(
        self, reader: Reader, committed: Callable[[], int], told: Callable[[Record], Message]
    ) -> None:
        self._reader = reader
        self._told = told  # the one message that tells a record which has none
        self._ahead = Ahead(reader, committed)
        self._receipts = Ahead(reader, committed)  # they stand elsewhere
        self._record: Record | None = None
        self._messages: list[Message] | None = None
        self._starts: list[int] | None = None
        self._outcomes: dict[int, tuple[str | None, int | None]] = {}

    def record(self, offset: int) -> Record:
        """The record at this log offset. Raises Damaged, LookupError."""
        if self._record is None or self._record.offset != offset:
            self._record = self._ahead.record(offset)
            self._messages = self._starts = None
        return self._record

    def messages(self, offset: int) -> list[Message]:
        """Its messages. Raises Damaged, LookupError."""
        record = self.record(offset)
        if self._messages is None:
            self._messages = self.messages_of(record)
        return self._messages

    def messages_of(self, record: Record) -> list[Message]:
        """The messages of a record that was read. Raises Damaged."""
        try:
            if record.kind in CONTROL_KINDS:
                return [self._told(record)]
            return decode_payload(record.payload, record.count)
        except msgspec.MsgspecError as error:
            raise self._no_messages(record.offset, error) from error

    def alone(self, payloads: Sequence[bytes]) -> list[Message] | None:
        """The messages of payloads that hold one each, decoded at once; None if one of them does not."""
        try:
            messages = decode_payload(b"".join(payloads), len(payloads))
        except msgspec.MsgspecError:
            return None
        # a payload with more or less than one would shift those behind it
        return messages if [payload[_ID] for payload in payloads] == list(map(_id_of, messages)) else None

    def some(
        self, offsets: Sequence[int], may_fit: Has | None, on_damage: Callable[[Damaged], None]
    ) -> Iterator[tuple[int, Record]]:
        """As `Ahead.records`, each read when it is asked for."""
        return self._ahead.records(offsets, may_fit, on_damage)

    def raw(
        self, offsets: Sequence[int], may_fit: Has | None, on_damage: Callable[[Damaged], None]
    ) -> Iterator[tuple[int, bytes | Record]]:
        """As `Ahead.raw`, each read when it is asked for."""
        return self._ahead.raw(offsets, may_fit, on_damage)

    def first_index(self, offset: int, byte: int) -> int:
        """Which of its messages begins at this byte of its payload. Raises Damaged, LookupError."""
        record = self.record(offset)
        if self._starts is None:
            try:
                raws = _decode_raw(b"\xdd" + record.count.to_bytes(4, "big") + record.payload)
            except msgspec.MsgspecError as error:
                raise self._no_messages(offset, error) from error
            self._starts = list(accumulate((memoryview(raw).nbytes for raw in raws), initial=0))
        return bisect_left(self._starts, byte)

    def outcome(self, offset: int) -> tuple[str | None, int | None]:
        """The reason that an ending gives, or the clock that a receipt tells. Raises Damaged, LookupError.

        A checkpoint knows of the receipt, but not the clock.
        """
        found = self._outcomes.get(offset)
        if found is None:
            record = self._reader.record(offset)
            if record.kind == Kind.ENDED:
                found = (decode_ended(record.payload).reason, None)
            else:
                found = (None, record.aux if record.kind == Kind.RECEIPT else None)
            if len(self._outcomes) >= OUTCOMES:
                self._outcomes.clear()
            self._outcomes[offset] = found
        return found

    def learn(self, offsets: set[int]) -> None:
        """Read the receipts among these at once; what cannot be read is left to `outcome`."""
        if len(self._outcomes) + len(offsets) > OUTCOMES:
            self._outcomes.clear()
        unknown = sorted(offsets - self._outcomes.keys())
        for number, found in self._receipts.raw(unknown, None, lambda _: None):
            kind, aux = kind_and_aux(found) if isinstance(found, bytes) else (found.kind, found.aux)
            if kind == Kind.RECEIPT:
                self._outcomes[unknown[number]] = None, aux

    def _no_messages(self, offset: int, error: Exception) -> Damaged:
        return Damaged(self._reader.directory, offset, f"the payload is no messages: {error}")
