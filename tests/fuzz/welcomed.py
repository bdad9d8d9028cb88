"""What a peer says that was welcomed: on a link, the messages in its batches, for a service.

A stranger does not get here; who stole a peer's key does.
"""

from random import Random
from typing import Any

import msgspec
from msgspec import inspect

from msgd.peer import service
from msgd.peer.codec import encode
from msgd.peer.connection import Connection
from msgd.peer.errors import RemoteProtocolError
from msgd.peer.frames import MAX_SEQ, Batch, Pong, clock_sample
from msgd.peer.heads import chain
from msgd.peer.state import ACCEPTOR
from msgd.wire.codec import Message, decode_ids, decode_payload
from msgd.wire.codec import encode as encode_message
from tests.fuzz.engine import Target
from tests.fuzz.mutate import (
    MOST_BYTES,
    change_bytes,
    change_value,
    frames_mutation,
    join,
    packed,
    split,
    unpacked,
)
from tests.fuzz.peer import REFUSED, encode_hello, fed
from tests.peer_nodes import End, Log, Two
from tests.peer_pair import SAMPLES, A, D, greet, hello

# --- a standing link ----------------------------------------------------------------------------------------


HELLO = join([(2, packed([encode_hello(hello()), bytes(64)]))])


def link_seeds() -> list[bytes]:
    """What a dialler says on links with and without a past, recorded from two nodes that talk."""
    recorded = []
    for waiting in (0, 1, 9):
        two = Two()
        two.accept(1, waiting)
        two.accept(0, waiting)
        two.connect(1)
        said = bytearray()
        while any(end.sent for end in two.ends):
            said += two.ends[1].sent
            two.carry(1, len(two.ends[1].sent))
            two.carry(0, len(two.ends[0].sent))
        recorded.append(join(split(bytes(said))[1:]))
    return recorded + [encode(SAMPLES[name]) for name in ("ping", "pong", "state", "epoch", "goodbye")]


class Welcomed(End):
    """An acceptor that has welcomed this peer. Heads are compared as by the log process."""

    def __init__(self, log: Log) -> None:
        super().__init__(ACCEPTOR, A, D, log, iter([bytes([n]) * 16 for n in range(1, 250)]))
        self.connection = Connection(ACCEPTOR, verify=lambda *_: True, identity=A.identity)
        self.say(greet())
        self.hear(HELLO)
        self.sent.clear()

    def on_batch(self, batch: Batch) -> None:
        assert self.inbox is not None
        head = chain(self.log.in_.head, batch.first_seq, batch.count, batch.payload)
        if self.inbox.committed + 1 == batch.first_seq and batch.head != head:
            raise RemoteProtocolError("another head than ours")
        super().on_batch(batch)


def run_link(data: bytes) -> str:
    """A peer that was welcomed says anything: judged, counted and answered as by a link worker."""
    log = Log()
    log.waiting = [b"%08d" % number for number in range(9)]
    end = Welcomed(log)
    told = []
    for event in fed(end.connection, data):
        told.append(type(event).__name__)
        if isinstance(event, Pong):
            clock_sample(event, 1 << 40)
        end.on(event)
        assert len(end.sent) < 1 << 20
    assert log.in_.last <= MAX_SEQ + MOST_BYTES
    return f"{end.connection.state} {' '.join(told[:6])}"


# --- messages -----------------------------------------------------------------------------------------------


def payload_seeds() -> list[bytes]:
    """One byte of count, then the messages as they stand in a batch."""
    some = [
        Message(bytes([n]) * 16, n % 3, 1 << 60, "ana", {"a": "b"} if n % 2 else {}, b"x" * n)
        for n in range(5)
    ]
    return [bytes([n]) + b"".join(encode_message(message) for message in some[:n]) for n in (1, 2, 5)]


def run_payload(data: bytes) -> str:
    """Both ways of reading a payload see the same messages."""
    count, payload = (data[0], data[1:]) if data else (0, b"")
    found = decode_payload(payload, count)
    assert count == len(found)
    assert [message.id for message in found] == decode_ids(payload, count)
    return f"{count} messages"


def mutate_payload(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    value = unpacked(b"\xdd\0\0\0" + data) if data else None
    if not isinstance(value, list) or rng.random() < 0.3:
        return change_bytes(rng, data, corpus)
    changed = change_value(rng, value)
    if not isinstance(changed, list) or len(changed) > 255:
        return change_bytes(rng, data, corpus)
    return bytes([len(changed)]) + b"".join(packed(message) for message in changed)


# --- a service ----------------------------------------------------------------------------------------------


def service_seeds() -> list[bytes]:
    """One of each frame, made from its type."""
    return [join([(code, packed(sample_array(kind)))]) for code, kind in service.TYPES.items()]


def sample_array(kind: type[Any]) -> Any:
    """A value of each field of a struct that is an array, at the lower border of its type."""
    return _sample(inspect.type_info(kind))


def _sample(kind: inspect.Type) -> Any:
    match kind:
        case inspect.StructType():
            return [_sample(field.type) for field in kind.fields]
        case inspect.TupleType():
            return [_sample(item) for item in kind.item_types]
        case inspect.ListType():
            return [_sample(kind.item_type)] * 2
        case inspect.StrType():
            return "outline"
        case inspect.IntType():
            return kind.ge or 1
        case inspect.BoolType():
            return False
        case inspect.BytesType() | inspect.MemoryViewType():
            return bytes(kind.min_length or 1)
    raise TypeError(f"no sample of {kind}")


def run_service(data: bytes) -> str:
    """Both ends read the same frames; what is taken is written back as something that means the same."""
    told = []
    for code, body in split(data):
        frame = service.decode(memoryview(bytes([code]) + body))
        told.append(type(frame).__name__)
        if frame is not None:
            again = service.encode(frame)
            assert packed(frame) == packed(service.decode(memoryview(again)[4:]))
    return " ".join(told[:3])


TARGETS = [
    Target("link", link_seeds, run_link, frames_mutation(), REFUSED, weight=0.6),
    Target("payload", payload_seeds, run_payload, mutate_payload, (msgspec.MsgspecError, ValueError)),
    Target("service", service_seeds, run_service, frames_mutation(), REFUSED, weight=2),
]
