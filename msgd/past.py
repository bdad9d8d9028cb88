"""Older batches of one pair, found by the index: what a link worker sends again, and heads it has to state.

Without an index that can be used it reads the log from its beginning (`layers`).
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import TypeVar

from msgd.layers import Layer, Layers
from msgd.log.index import EPOCH, KEY, LANES, NAME, NUMBERED, RECEIVED
from msgd.log.reader import Reader
from msgd.log.record import Record
from msgd.model import IN, OUT

Result = TypeVar("Result")


class Past:
    """The past of the pair with this peer. Methods raise Damaged, LookupError; blocks while it reads."""

    def __init__(self, reader: Reader, number: int) -> None:
        path = os.path.join(os.path.dirname(reader.directory), NAME)
        self._reader = reader
        self._layers = Layers(reader, lambda: reader.committed, path)
        self._groups = {OUT: number * LANES + NUMBERED, IN: number * LANES + RECEIVED}

    def head_at(self, direction: int, seq: int) -> bytes | None:
        """The head of a direction at `seq`: of the batch that ends there or the epoch that begins behind."""
        offset = self._ask(lambda layers: self._ending_at(layers, direction, seq))
        return None if offset is None else self._reader.record(offset).head

    def batches(self, first: int, stop: int) -> Iterator[Record]:
        """The batches sent, from the one that begins with seq `first` on; those that begin before `stop`."""
        while first < stop:
            offset = self._ask(lambda layers, seq=first: self._place_of(layers, seq))  # type: ignore[misc]
            if offset is None:
                return
            record = self._reader.record(offset)
            yield record
            first = record.first_seq + record.count

    def close(self) -> None:
        """Close the index."""
        self._layers.close()

    def _place_of(self, layers: list[Layer], seq: int) -> int | None:
        for layer in layers:
            found = layer.index.numbered(self._groups[OUT], seq)
            if found is not None and found[3] == seq:
                return found[0]
        return None

    def _ending_at(self, layers: list[Layer], direction: int, seq: int) -> int | None:
        group, ends = self._groups[direction], []
        for layer in layers:
            found = layer.index.numbered(group, seq)
            if found is not None and found[3] + found[1] == seq + 1:
                ends.append(found[0])
            epochs = (EPOCH.unpack(entry) for entry in layer.index.epoch.scan(group, b"", KEY.pack(1 << 63)))
            ends += [offset for offset, base in epochs if base == seq + 1]
        return max(ends, default=None)

    def _ask(self, question: Callable[[list[Layer]], Result]) -> Result:
        while True:
            try:
                return question(self._layers.upto(self._reader.committed))
            except sqlite3.Error as error:
                self._layers.distrust(error)
