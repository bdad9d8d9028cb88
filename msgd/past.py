"""Older batches of one pair, found by the index: what a link worker sends again, and heads it has to state.

Without an index that can be used it reads the log backwards, as far as it must (`layers`).
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import msgspec

from msgd.layers import Layers, View
from msgd.log.index import EPOCH, KEY, LANES, NAME, NUMBERED, RECEIVED
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind, Record, decode_ranges
from msgd.log.segment import Extent, gaps_of
from msgd.model import IN, OUT
from msgd.standing import EpochChange, decode_peers

TICK_RECORDS = 4096

Result = TypeVar("Result")

_epoch_change = msgspec.msgpack.Decoder(EpochChange).decode


class Past:
    """The past of the pair with this peer. Methods raise Damaged, LookupError.

    Blocks while it reads, which may be long where there is no index: `tick` is called now and then.
    """

    def __init__(self, reader: Reader, number: int, tick: Callable[[], None] = lambda: None) -> None:
        path = os.path.join(os.path.dirname(reader.directory), NAME)
        self._reader = reader
        self._number = number
        self._tick = tick
        self._layers = Layers(reader, lambda: reader.committed, path)
        self._groups = {OUT: number * LANES + NUMBERED, IN: number * LANES + RECEIVED}

    def head_at(self, direction: int, seq: int) -> bytes | None:
        """The head of a direction at `seq`: of the batch that ends there or the epoch that begins behind."""
        offset = self._ask(lambda view: self._ending_at(view, direction, seq))
        try:
            return self._stated_at(direction, seq) if offset is None else self._reader.record(offset).head
        except LookupError:
            return None  # it went just now

    def can_send(self, first: int, stop: int) -> bool:
        """Whether every message from seq `first` on, before `stop`, is kept and can be sent again."""
        extents = self._reader.extents()
        if not _behind_gaps(extents):
            return True
        start = self._start_of(first)
        headers = iter(()) if start is None else self._reader.headers(start)
        for count, header in enumerate(headers):
            if count % TICK_RECORDS == 0:
                self._tick()
            if header.peer != self._number or header.kind not in (Kind.OUT, Kind.RELEASED):
                continue
            if header.first_seq != first or not self._is_whole(header):
                return False
            first += header.count
            if first >= stop:
                return True
        return first >= stop

    def batches(self, first: int, stop: int) -> Iterator[Record]:
        """The batches sent, from the one that begins with seq `first` on; those that begin before `stop`."""
        while first < stop:
            offset = self._start_of(first)
            if offset is None:
                return
            record = self._reader.record(offset)
            yield record
            first = record.first_seq + record.count

    def holds(self, direction: int, seq: int) -> bool:
        """Whether the message with this seq is in the log."""
        return self._ask(lambda view: self._numbered(view, direction, seq)) is not None

    def epochs(self, direction: int) -> Iterator[EpochChange]:
        """How the epochs of a direction began that are in the log."""
        for offset in self._ask(lambda view: self._epoch_places(view, direction)):
            with suppress(LookupError):  # it went just now
                yield _epoch_change(self._reader.record(offset).payload)

    def close(self) -> None:
        """Close the index."""
        self._layers.close()

    def _numbered(self, view: View, direction: int, seq: int) -> tuple[int, int, int, int] | None:
        """The entry of `place` that gave this seq to a message, if its record is kept."""
        group = self._groups[direction]
        view.reach_seq(group, seq)
        for index in view.indexes:
            found = index.numbered(group, seq)
            if found is not None and view.is_kept(found[0]):
                return found
        return None

    def _start_of(self, seq: int) -> int | None:
        """Where the batch lies that begins with this seq."""
        found = self._ask(lambda view: self._numbered(view, OUT, seq))
        return found[0] if found is not None and found[3] == seq else None

    def _ending_at(self, view: View, direction: int, seq: int) -> int | None:
        found = self._numbered(view, direction, seq)
        ends = [found[0]] if found is not None and found[3] + found[1] == seq + 1 else []
        ends += [offset for offset, base in self._epochs(view, direction) if base == seq + 1]
        return max(ends, default=None)

    def _epoch_places(self, view: View, direction: int) -> list[int]:
        view.reach(0)
        return sorted({offset for offset, _ in self._epochs(view, direction)})

    def _epochs(self, view: View, direction: int) -> Iterator[tuple[int, int]]:
        """Log offset and base of those that are known."""
        for index in view.indexes:
            for entry in index.epoch.scan(self._groups[direction], b"", KEY.pack(1 << 63)):
                yield EPOCH.unpack(entry)

    def _is_whole(self, header: Header) -> bool:
        """Whether the messages of a batch are kept wherever they stand."""
        if header.kind != Kind.RELEASED:
            return True
        try:
            for place, _, _, _ in decode_ranges(self._reader.payload(header)):
                self._reader.extent_at(place)
        except LookupError:
            return False
        return True

    def _stated_at(self, direction: int, seq: int) -> bytes | None:
        """The head at `seq` where a checkpoint behind what is not kept any more states it."""
        for base, stop in _behind_gaps(self._reader.extents()):
            for header in self._reader.headers(base, stop):
                if header.kind != Kind.CHECKPOINT:
                    break
                for peer in decode_peers(self._reader.payload(header)) if header.offset != base else ():
                    stated = peer.out if direction == OUT else peer.inward
                    if peer.number == self._number and stated.last == seq and any(stated.head):
                        return stated.head
        return None

    def _ask(self, question: Callable[[View], Result]) -> Result:
        while True:
            try:
                view = self._layers.view(self._reader.committed, lambda damaged: None)
                view.deeper = self._tick
                return question(view)
            except sqlite3.Error as error:
                self._layers.distrust(error)


def _behind_gaps(extents: list[Extent]) -> list[Extent]:
    """Those before which something is not kept any more."""
    stops = {stop for _, stop in gaps_of(extents)}
    return [extent for extent in extents if extent.base in stops]
