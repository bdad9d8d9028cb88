"""How fast the index is filled: messages per second of CPU time, out of logs of four shapes.

`python -m tests.bench.indexing [MESSAGES [ROUNDS]]`. CPU time, because on a shared machine the wall clock
measures the neighbours. Per shape the best of the rounds, and the bytes of the file per million messages.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from msgd import model
from msgd.indexer import Indexer
from msgd.log.clock import Clock
from msgd.log.reader import Reader
from msgd.log.record import Kind
from msgd.log.store import Store
from msgd.wire.codec import Message, encode

MESSAGES = 1_000_000
BODY = b"x" * 100
COMMIT_BYTES = 512 << 10


class Shape(NamedTuple):
    """What a log is made of."""

    kind: int
    batch: int  # messages in one record
    receipts: int  # one after so many records, 0: none


SHAPES = {
    "sent one by one, a receipt for 8": Shape(Kind.OUT, 1, 8),
    "sent one by one, a receipt for each": Shape(Kind.OUT, 1, 1),
    "received one by one": Shape(Kind.IN, 1, 0),
    "sent in batches of 256": Shape(Kind.OUT, 256, 1),
}


class Filled(NamedTuple):
    """What it took to index one log."""

    cpu_s: float
    file_bytes: int


def build(directory: str, shape: Shape, messages: int) -> int:
    """A log of `messages` from or to one peer, ids as msgctl makes them: four in a millisecond. Its end."""
    store = Store(directory, Clock())
    store.recover(lambda record: None, lambda: [b"\x80"])
    for number, payload in enumerate(_payloads(shape, messages), 1):
        seq = (number - 1) * shape.batch + 1
        direction = model.IN if shape.kind == Kind.IN else model.OUT
        store.add(shape.kind, peer=1, direction=direction, count=shape.batch, first_seq=seq, payload=payload)
        if shape.receipts and number % shape.receipts == 0:
            last = seq + shape.batch - 1
            store.add(Kind.RECEIPT, peer=1, direction=model.OUT, first_seq=last, aux=time.time_ns())
        if store.pending > COMMIT_BYTES:
            store.commit()
            if store.needs_roll:
                store.roll([b"\x80"])
    store.commit()
    store.close()
    return store.committed


def _payloads(shape: Shape, messages: int) -> Iterator[bytes]:
    began_ms = time.time_ns() // 1_000_000
    for first in range(0, messages, shape.batch):
        ids = (
            model.uuid7(began_ms + number // 4, os.urandom(10))
            for number in range(first, first + shape.batch)
        )
        yield b"".join(encode(Message(raw, 0, time.time_ns(), "maria", {}, BODY)) for raw in ids)


def fill(log: str, committed: int, path: str) -> Filled:
    """Index the log at `log` into a new file at `path`."""
    reader = Reader(log, lambda: committed)
    indexer = Indexer(path, reader, lambda: committed, lambda name, /, **fields: None)
    began_s = time.process_time()
    while indexer.step():
        pass
    indexer.close()
    spent_s = time.process_time() - began_s
    reader.close()
    return Filled(spent_s, os.path.getsize(path))


def run(messages: int = MESSAGES, rounds: int = 3) -> None:
    """Measure each shape, and print its line."""
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory(prefix="msgd-bench-") as directory:
            end = build(f"{directory}/log", shape, messages)
            found = []
            for number in range(rounds):
                found.append(fill(f"{directory}/log", end, f"{directory}/{number}.sqlite"))
                os.unlink(f"{directory}/{number}.sqlite")
        best = min(found)
        size = best.file_bytes / messages
        print(f"{name:38} {messages / best.cpu_s:12,.0f} messages/s {size:8.1f} MB per million", flush=True)


if __name__ == "__main__":
    run(*map(int, sys.argv[1:]))
