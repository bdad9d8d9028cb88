"""Sample parcels, made by a real key."""

import io
from collections.abc import Sequence

from msgd.parcel.frames import Head
from msgd.parcel.writer import Writer
from msgd.peer.frames import Batch, Chain, Epoch, Link, Position
from msgd.peer.heads import ZERO_HEAD, chain, epoch_head
from msgd.trust.identity import NodeKey
from msgd.wire.codec import Message, encode
from tests.peer_pair import A, D

E1 = bytes([0xE1]) * 16
E2 = bytes([0xE2]) * 16
MADE_NS = 1_790_000_000_000_000_000
BEGUN = Epoch(E1, 1, 0, ZERO_HEAD, 0, ZERO_HEAD)


def message(number: int) -> bytes:
    raw = bytes([number]) * 6 + b"\x7a\x00\x80" + bytes(7)
    return encode(Message(raw, 0, MADE_NS, "eva", {}, b"hola %d" % number))


def batches(sizes: Sequence[int], *, epoch: Epoch = BEGUN) -> list[Batch]:
    """Batches of so many messages each, from the beginning of the epoch on."""
    head = epoch_head(epoch.epoch, epoch.base, epoch.sender_head, epoch.receiver_head)
    found, seq = [], epoch.base
    for size in sizes:
        payload = memoryview(b"".join(message(seq + n) for n in range(size)))
        head = chain(head, seq, size, payload)
        found.append(Batch(seq, size, head, payload))
        seq += size
    return found


def head_of(
    said: list[Batch],
    *,
    key: NodeKey = D,
    to: bytes = A.identity,
    theirs: Position | None = None,
    skip: int = 0,
    epoch: Epoch = BEGUN,
    rotations: Chain | None = None,
) -> Head:
    """The head of a parcel with these batches; the first `skip` of them are not in it."""
    begun = epoch_head(epoch.epoch, epoch.base, epoch.sender_head, epoch.receiver_head)
    heads = [begun, *(batch.head for batch in said)]
    last = said[-1].first_seq + said[-1].count - 1 if said else epoch.base - 1
    return Head(
        spki=key.spki,
        to=to,
        name="d",
        made_ns=MADE_NS,
        chain=rotations or [],
        link=Link(
            out=Position(epoch.epoch, last, heads[-1]), in_=theirs or Position(bytes(16), 0, ZERO_HEAD)
        ),
        epoch=epoch,
        first=said[skip].first_seq if skip < len(said) else last + 1,
        before=heads[skip],
    )


def made(head: Head, said: Sequence[Batch], key: NodeKey = D) -> bytes:
    """The bytes of the parcel."""
    writer = Writer(key.private.sign)
    file = io.BytesIO()
    file.writelines(writer.begin(head))
    for batch in said:
        file.writelines(writer.batch(batch))
    file.writelines(writer.end())
    return file.getvalue()


def sample(sizes: Sequence[int] = (1, 3, 2)) -> bytes:
    """A whole one, from D to A."""
    said = batches(sizes)
    return made(head_of(said), said)
