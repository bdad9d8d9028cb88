"""The records that a query opens: each read, checked and decoded once while it is in use.

A query goes from record to record, and asks for the same one several times: for its time, for its messages,
for where they begin. So the last one is kept. Of receipts and endings only what they say is kept, for some.
"""

from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

import msgspec

from msgd.log.ahead import Ahead
from msgd.log.errors import Damaged
from msgd.log.harvest import CONTROL_KINDS, decode_ended
from msgd.log.reader import Reader
from msgd.log.record import Kind, Record
from msgd.wire.codec import Message, decode_payload

OUTCOMES = 256

_decode_raw = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class Records:
    """The records that a query opens: the last one with its messages, and what receipts and endings say."""

    def __init__(
        self, reader: Reader, committed: Callable[[], int], told: Callable[[Record], Message]
    ) -> None:
        self._reader = reader
        self._told = told  # the one message that tells a record which has none
        self._ahead = Ahead(reader, committed)
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
            try:
                if record.kind in CONTROL_KINDS:
                    self._messages = [self._told(record)]
                else:
                    self._messages = decode_payload(record.payload, record.count)
            except msgspec.MsgspecError as error:
                raise self._no_messages(offset, error) from error
        return self._messages

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
        """The reason that an ending gives, or the clock that a receipt tells. Raises Damaged, LookupError."""
        found = self._outcomes.get(offset)
        if found is None:
            record = self._reader.record(offset)
            is_receipt = record.kind == Kind.RECEIPT
            found = (None, record.aux) if is_receipt else (decode_ended(record.payload).reason, None)
            if len(self._outcomes) >= OUTCOMES:
                self._outcomes.clear()
            self._outcomes[offset] = found
        return found

    def _no_messages(self, offset: int, error: Exception) -> Damaged:
        return Damaged(self._reader.directory, offset, f"the payload is no messages: {error}")
