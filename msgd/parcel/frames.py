"""The frames of a parcel as structs, and their bytes; the format stands in the package's docstring."""

import struct

import msgspec

from msgd.model import is_name
from msgd.peer.frames import Bytes32, Chain, Epoch, First, Link, Nanoseconds, Signature, Spki

FIRST_LINE = b"msgd parcel 1\n"
ANY_VERSION = b"msgd parcel "
LABEL = b"msgd/1 parcel\0"
HEAD, END, BATCH = 1, 2, 16
HEAD_BYTES = 8 << 10  # with 8 rotations it is under 2 KiB

LENGTH = struct.Struct(">IB")

_encode = msgspec.msgpack.Encoder().encode


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks to whom, and where both directions stand."""

    spki: Spki
    to: Bytes32
    name: str
    made_ns: Nanoseconds
    chain: Chain
    link: Link
    epoch: Epoch | None
    first: First
    before: Bytes32

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(f"a name of {len(self.name)} letters, expected 1-63 of a-z, 0-9 and '-'")
        out = self.link.out
        if self.first > out.last + 1:
            raise ValueError(f"messages from {self.first} on, but the last one is {out.last}")
        if self.epoch is not None and self.epoch.epoch != out.epoch:
            raise ValueError("the beginning of another epoch than the present one")
        if self.epoch is not None and self.first < self.epoch.base:
            raise ValueError(f"messages from {self.first} on, but the epoch begins with {self.epoch.base}")
        if self.first <= out.last and not any(out.epoch):
            raise ValueError("messages without an epoch")

    @property
    def count(self) -> int:
        """How many messages it has."""
        return self.link.out.last + 1 - self.first


class End(msgspec.Struct, array_like=True, frozen=True):
    """The seal."""

    digest: Bytes32
    signature: Signature


decode_head = msgspec.msgpack.Decoder(Head).decode
decode_end = msgspec.msgpack.Decoder(End).decode


def encode(frame: Head | End) -> bytes:
    """The bytes of a frame. A batch is made by `peer.codec`."""
    body = _encode(frame)
    return LENGTH.pack(len(body) + 1, HEAD if isinstance(frame, Head) else END) + body
