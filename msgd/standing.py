"""Where every peer stands: the state that the log's records add up to, and how a checkpoint keeps it.

Nothing here is the truth; the log is. Each struct below can be rebuilt by applying records in order, and
is what a checkpoint holds (msgpack, one `Peer` per peer), so that a start reads one segment, not the log.
Its size is bounded per peer: by the window for what is unreceipted, or by one `Batch` per 256 KiB that
went into a parcel; by one `Range` per 1,024 messages or 1 MiB for what waits.
"""

from collections.abc import Iterator

import msgspec

ZERO_EPOCH = bytes(16)
ZERO_HEAD = bytes(32)

RANGE_MESSAGES = 1024
RANGE_BYTES = 1 << 20


class Batch(msgspec.Struct, array_like=True):
    """One released batch without receipt: where its record lies and the head after it."""

    first_seq: int
    count: int
    offset: int
    length: int  # of the whole record
    size: int  # bytes of messages
    head: bytes
    start: int = 0  # log offset from which on its messages stand, in records before its own where it was held

    @property
    def last_seq(self) -> int:
        return self.first_seq + self.count - 1


class Range(msgspec.Struct, array_like=True):
    """A stretch of the log with messages that wait for release, in order.

    Every record of `kind` for this peer in [start, stop) behind `after`; records of others may lie
    between. `kind` is `held`, or `out` for one batch, whichever its record, that a new epoch made wait again.
    """

    kind: int
    start: int
    stop: int
    count: int  # messages that still wait
    size: int
    expires_ns: int = 0  # the earliest expiry in it (CLOCK_REALTIME), 0 none
    after: int = -1  # records up to this offset are released already
    peer: int = 0  # number in those records, where it is not this peer's own (an address, merged)


class Outward(msgspec.Struct):
    """The direction from this node to the peer."""

    epoch: bytes = ZERO_EPOCH
    last: int = 0
    head: bytes = ZERO_HEAD
    receipt: int = 0  # receipt <= last
    receipt_head: bytes = ZERO_HEAD
    unreceipted: list[Batch] = []
    unreceipted_size: int = 0  # bytes of messages in them
    waiting: list[Range] = []
    ended: dict[int, list[int]] = {}  # record offset -> places in it that ended while waiting
    base: int = 0  # the first seq of this epoch, 0 unknown
    opened: "EpochChange | None" = None  # how this epoch began
    exported: int = 0  # up to this seq of this epoch a parcel has it: it may be with the peer

    @property
    def waiting_count(self) -> int:
        return sum(r.count for r in self.waiting)

    @property
    def queued_count(self) -> int:
        """Messages on this disk of which no receipt says that they are on the peer's."""
        return self.waiting_count + sum(b.count for b in self.unreceipted)


class Inward(msgspec.Struct):
    """The direction from the peer to this node."""

    epoch: bytes = ZERO_EPOCH
    last: int = 0
    head: bytes = ZERO_HEAD


class Joining(msgspec.Struct):
    """An invitation that this node accepted and the inviter has not yet confirmed."""

    invitation: bytes
    secret: bytes
    expires_s: int  # Unix seconds, as the invitation says
    addresses: list[str] = []
    name: str = ""  # what the person here wants to call it
    before: str = ""  # what it was before: pinned, removed, or empty


class Break(msgspec.Struct):
    """Both ends of a direction did not hold the same, and it began anew above both."""

    at_ns: int  # CLOCK_REALTIME
    direction: int
    base: int
    sender_last: int
    receiver_last: int


class Peer(msgspec.Struct):
    """One peer: who it is, what people call it, how both directions stand.

    One that is not `pinned` is an address that somebody here sent to: what is sent to it waits, and its
    identity is empty until a person accepts who answers there.
    """

    number: int  # in this log only, never given again
    identity: bytes
    name: str
    address: str = ""
    removed: bool = False
    seen_ns: int = 0  # CLOCK_REALTIME of the last record that it caused
    pinned: bool = True
    blocked: bool = False
    changed: bytes = b""  # the identity that answered instead of the pinned one, until that is solved
    retired: list[bytes] = []  # its former identities
    paired_ns: int = 0  # CLOCK_REALTIME when it was pinned
    how: str = ""  # key, words, invitation, rotation or rekey
    aliases: list[int] = []  # numbers of unpinned addresses whose messages became this peer's
    into: int = 0  # of such an address: the number whose they became
    joining: Joining | None = None
    breaks: list[Break] = []  # the last one of each direction
    out: Outward = msgspec.field(default_factory=Outward)
    inward: Inward = msgspec.field(default_factory=Inward)


class PeerChange(msgspec.Struct, omit_defaults=True):
    """Payload of a `peer` record."""

    action: str  # see the table of `msgd.pins`
    identity: bytes
    name: str
    address: str = ""
    user: str = ""
    how: str = ""
    words: str = ""  # that were compared
    transcript: bytes = b""  # SHA-256 of T, of the exchange
    old: bytes = b""  # rotated, rekeyed: the identity before; key changed: the one that answers
    retired: list[bytes] = []  # rotated, rekeyed: further former identities
    into: int = 0  # merged: the number of the peer that took the messages
    invitation: bytes = b""  # 8 bytes
    secret: bytes = b""  # 16 bytes
    expires_s: int = 0  # Unix seconds
    expires_boot_ns: int = 0  # CLOCK_BOOTTIME of the boot in the record's header
    seq: int = 0  # exported: all up to this seq
    addresses: list[str] = []  # joining
    reason: str = ""
    rotation: tuple[bytes, bytes, bytes] | None = None  # old SPKI, signatures by the old and the new key
    segments: int = 0  # vacuumed: how many went
    messages: int = 0  # the same: that stood in them
    size: int = 0  # the same, in bytes
    bases: list[int] = []  # the same: where they began


class EpochChange(msgspec.Struct, omit_defaults=True):
    """Payload of an `epoch` record; the header has peer, direction, base as first_seq, and the new head."""

    epoch: bytes
    sender_last: int
    sender_head: bytes
    receiver_last: int
    receiver_head: bytes


class Ended(msgspec.Struct, array_like=True):
    """Payload of an `ended` record: messages by the record and the place in it where they first stood."""

    state: str
    reason: str
    places: list[tuple[int, int]]


class ClockStep(msgspec.Struct):
    """Payload of a `clock_step` record: the wall clock moved by this much against CLOCK_BOOTTIME."""

    step_ns: int


class Invitation(msgspec.Struct):
    """An invitation of this node."""

    invitation: bytes  # 8 bytes
    secret: bytes  # 16 bytes
    user: str
    expires_s: int  # Unix seconds
    expires_boot_ns: int  # CLOCK_BOOTTIME; counts within the boot of `start`
    start: bytes  # of the record: 8 bytes of boot id, 8 of this start
    wrong: int = 0  # proofs that did not fit; the third one ends it
    used_by: bytes = b""  # identity
    ended: str = ""  # used, dead or expired


class Global(msgspec.Struct):
    """First payload of a checkpoint."""

    next_peer: int
    id_horizon_ms: int
    invitations: list[Invitation] = []
    rotations: list[tuple[bytes, bytes, bytes]] = []  # of this node's own key, oldest first
    identity: bytes = b""  # this node's own since the last of them
    leaving: list[int] = []  # bases of segments that are being removed


_encode = msgspec.msgpack.Encoder().encode
_global = msgspec.msgpack.Decoder(Global).decode
_peers = msgspec.msgpack.Decoder(list[Peer] | dict[str, msgspec.Raw]).decode

CHECKPOINT_BYTES = 512 << 10  # a payload is closed at this size
PART_RANGES = 4096  # of one peer in one payload, about 180 KiB
PART_ENDED = 16_384  # the same, about 250 KiB where each is a record of its own
PART_BATCHES = 4096  # the same, about 250 KiB


def encode_checkpoint(head: Global, peers: list[Peer]) -> list[bytes]:
    """The payloads of one checkpoint group: the global one, then lists of peers of bounded size."""
    payloads = [_encode(head)]
    group: list[bytes] = []
    size = 0
    for part in (part for peer in peers for part in _parts(peer)):
        raw = _encode(part)
        if group and size + len(raw) > CHECKPOINT_BYTES:
            payloads.append(_list(group))
            group, size = [], 0
        group.append(raw)
        size += len(raw)
    if group:
        payloads.append(_list(group))
    return payloads


def _parts(peer: Peer) -> Iterator[Peer]:
    """The peer itself, without what does not fit into one payload; then the rest, under the same number."""
    out = peer.out
    if (
        len(out.waiting) <= PART_RANGES
        and len(out.unreceipted) <= PART_BATCHES
        and sum(map(len, out.ended.values())) <= PART_ENDED
    ):
        yield peer
        return
    bare = msgspec.structs.replace(out, unreceipted=[], waiting=[], ended={})
    yield msgspec.structs.replace(peer, out=bare)
    for at in range(0, len(out.unreceipted), PART_BATCHES):
        yield _rest(peer, Outward(unreceipted=out.unreceipted[at : at + PART_BATCHES]))
    for at in range(0, len(out.waiting), PART_RANGES):
        yield _rest(peer, Outward(waiting=out.waiting[at : at + PART_RANGES]))
    part: dict[int, list[int]] = {}
    count = 0
    for offset, places in out.ended.items():
        part[offset] = places
        count += len(places)
        if count >= PART_ENDED:
            yield _rest(peer, Outward(ended=part))
            part, count = {}, 0
    yield _rest(peer, Outward(ended=part))


def _rest(peer: Peer, out: Outward) -> Peer:
    return Peer(peer.number, peer.identity, peer.name, out=out)


def decode_global(payload: bytes | memoryview) -> Global:
    """The first payload of a group."""
    return _global(payload)


def decode_peers(payload: bytes | memoryview) -> list[Peer]:
    """The peers of a later payload; those about consumers (`cursors`) have none."""
    found = _peers(payload)
    return found if isinstance(found, list) else []


def _list(group: list[bytes]) -> bytes:
    return b"\xdd" + len(group).to_bytes(4, "big") + b"".join(group)
