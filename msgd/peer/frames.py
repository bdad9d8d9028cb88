"""Every frame between two nodes: a struct, and its bytes.

| field | type | |
|---|---|---|
| length | u32 BE | of what follows, 1 to the limit of the moment |
| type | u8 | the tables below |
| body | msgpack | the rest; nothing may follow the one value |

| type | frame | from | body |
|---|---|---|---|
| 1 | Greet | acceptor | map |
| 2 | SignedHello | dialler | array: content, signature. The content is a Hello, a map |
| 3 | Welcome | acceptor | map |
| 4 | Refuse | acceptor; the dialler after a bad reveal | map |
| 5 | Commit | acceptor | map |
| 6 | Nonce | dialler | map |
| 7 | Reveal | acceptor | map |
| 8 | Verdict | either | map |
| 9 | Joined | acceptor | map |
| 16 | Batch | a direction's sender | array: first seq, count, head, payload |
| 17 | Receipt | its receiver | array: seq, head, wall clock, boot clock |
| 18 | Ping | either | array: t1 wall, t1 monotonic |
| 19 | Pong | the other | array: both again, t2 wall at arrival, t3 wall at departure |
| 20 | State | who is ahead in a direction | array: direction, seq, head or nil |
| 21 | Epoch | a direction's sender | array: epoch, base, and both ends' last seq and head |
| 22 | EpochDone | its receiver | array: epoch |
| 23 | Goodbye | either, last | array: reason, seconds until a new try makes sense |

Rules: unknown keys of maps and further places of arrays are ignored (a newer version), missing or wrongly
sized ones are an error; the size of a frame is judged by its first four bytes, before more of it is kept.
Clocks are nanoseconds. `codec` makes bytes of them and back. Left out on purpose: compression, fragments,
channels.
"""

from typing import Annotated, Literal

import msgspec

from msgd.model import IN, MAX_APPEND_BYTES, OUT, is_name

VERSION = 1
BINDING = "tls-unique"
NO_BINDING = "none"

HANDSHAKE_BYTES = 8 << 10  # a greet with 8 rotations and room for later keys is under 3 KiB
LINK_BYTES = MAX_APPEND_BYTES + (8 << 10)  # the biggest append and the batch around it

# No seq comes near: a million messages a second for 146,000 years. Below 2**63, SQLite's limit, whatever a
# peer claims.
MAX_SEQ = 1 << 62

U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Some = Annotated[int, msgspec.Meta(ge=1, le=0xFFFFFFFF)]
Last = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
First = Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ + 1)]
Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Bytes8 = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Spki = Annotated[bytes, msgspec.Meta(min_length=44, max_length=44)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Rotation(msgspec.Struct, array_like=True, frozen=True):
    """One change of key: the old SPKI, signatures by the old and the new key."""

    spki: Spki
    by_old: Signature
    by_new: Signature


Want = Literal["link", "pair", "join", "service", "files"]  # what a connection is for
Chain = Annotated[list[Rotation], msgspec.Meta(max_length=8)]


class Position(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How far one end has got in one direction. All zero before the first epoch."""

    epoch: Bytes16
    last: Last
    head: Bytes32


NOWHERE = Position(bytes(16), 0, bytes(32))


class Link(msgspec.Struct, frozen=True, rename={"in_": "in"}):
    """Where the speaker stands: `out` is from the speaker to the listener."""

    out: Position
    in_: Position


class Limits(msgspec.Struct, frozen=True):
    """What the speaker takes: unreceipted bytes and batches, the biggest message, how much silence."""

    window_bytes: Some
    window_batches: Some
    message_bytes: Some
    keepalive_s: Some


class Greet(msgspec.Struct, frozen=True, kw_only=True):
    """The acceptor's first words."""

    versions: Annotated[list[U16], msgspec.Meta(min_length=1, max_length=32)]
    bindings: Annotated[list[str], msgspec.Meta(max_length=8)]
    nonce: Bytes32  # fresh for this connection
    chain: Chain


class Hello(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a dialler says of itself; signed as sent."""

    spki: Spki
    want: Want
    version: U16
    binding: Literal["tls-unique", "none"]
    instance: Bytes16  # random, of this start
    dial: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]  # counts this start's hellos
    name: str
    chain: Chain
    limits: Limits | None = None  # link
    link: Link | None = None  # link
    port: U16 | None = None  # pair and join: where the dialler listens
    invitation: Bytes8 | None = None  # join
    proof: Bytes32 | None = None  # join

    def __post_init__(self) -> None:
        _check_name(self.name)
        for key in HELLO_KEYS[self.want]:
            if getattr(self, key) is None:
                raise ValueError(f"a hello that wants {self.want} without {key}")


HELLO_KEYS = {
    "link": ("limits", "link"),
    "pair": ("port",),
    "join": ("port", "invitation", "proof"),
    "service": ("limits",),
    "files": ("limits",),
}


class SignedHello(msgspec.Struct, array_like=True, frozen=True):
    """A hello on the wire."""

    content: bytes  # a Hello
    signature: Signature


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """The acceptor takes the link."""

    version: U16
    name: str
    instance: Bytes16
    limits: Limits
    link: Link

    def __post_init__(self) -> None:
        _check_name(self.name)


class Refuse(msgspec.Struct, frozen=True):
    """The acceptor does not, and closes. Codes: `refusals`."""

    code: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    retry_s: U32 | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if len(self.detail.encode()) > 200:
            raise ValueError("a refusal's detail of more than 200 bytes")


class Commit(msgspec.Struct, frozen=True):
    """The acceptor of an exchange of words binds itself to a nonce."""

    name: str
    commit: Bytes32

    def __post_init__(self) -> None:
        _check_name(self.name)


class Nonce(msgspec.Struct, frozen=True):
    """The dialler's nonce."""

    nonce: Bytes32


class Reveal(msgspec.Struct, frozen=True):
    """The acceptor's nonce, which its commit must fit."""

    nonce: Bytes32


class Verdict(msgspec.Struct, frozen=True):
    """What the speaker's person has decided."""

    accept: bool


class Joined(msgspec.Struct, frozen=True):
    """The invitation is redeemed: the dialler is a peer here."""

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)


class Batch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Messages first_seq … first_seq + count - 1, verbatim; `head` is the direction's after them."""

    first_seq: First
    count: Some
    head: Bytes32
    payload: memoryview  # a view of the receive buffer: valid as long as somebody holds it


class Receipt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Everything up to `seq` is on the receiver's disk; its clocks at the commit."""

    seq: Last
    head: Bytes32
    wall_ns: Nanoseconds
    boot_ns: Nanoseconds


class Ping(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Is anybody there, and what is the time?"""

    t1_wall_ns: Nanoseconds
    t1_mono_ns: Nanoseconds


class Pong(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The answer to a ping, with its clocks repeated."""

    t1_wall_ns: Nanoseconds
    t1_mono_ns: Nanoseconds
    t2_wall_ns: Nanoseconds
    t3_wall_ns: Nanoseconds


class State(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The speaker is ahead in a direction: its head at the other's last seq.

    `direction` is OUT when the speaker is the direction's sender, IN when its receiver. `head` is None when
    the speaker knows no boundary of a batch at `seq` in the epoch that both named.
    """

    direction: Annotated[int, msgspec.Meta(ge=OUT, le=IN)]
    seq: Last
    head: Bytes32 | None


class Epoch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The sender has committed a new epoch of its direction; nothing of it was sent before."""

    epoch: Bytes16
    base: First  # the first seq of the epoch
    sender_last: Last
    sender_head: Bytes32
    receiver_last: Last
    receiver_head: Bytes32

    def __post_init__(self) -> None:
        if not any(self.epoch):
            raise ValueError("an epoch of zeros")
        if self.base != max(self.sender_last, self.receiver_last) + 1:
            raise ValueError("an epoch whose base does not follow both ends")


class EpochDone(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The receiver has committed it, too."""

    epoch: Bytes16


class Goodbye(msgspec.Struct, array_like=True, frozen=True):
    """The speaker says nothing more and closes."""

    reason: Annotated[str, msgspec.Meta(max_length=200)]
    retry_s: U32


Handshake = Greet | SignedHello | Welcome | Refuse | Commit | Nonce | Reveal | Verdict | Joined
LinkFrame = Batch | Receipt | Ping | Pong | State | Epoch | EpochDone | Goodbye
Frame = Handshake | LinkFrame

TYPES: dict[int, type[Frame]] = {
    1: Greet,
    2: SignedHello,
    3: Welcome,
    4: Refuse,
    5: Commit,
    6: Nonce,
    7: Reveal,
    8: Verdict,
    9: Joined,
    16: Batch,
    17: Receipt,
    18: Ping,
    19: Pong,
    20: State,
    21: Epoch,
    22: EpochDone,
    23: Goodbye,
}
CODES = {kind: code for code, kind in TYPES.items()}


def other(direction: int) -> int:
    """The same direction as the other end calls it."""
    return IN if direction == OUT else OUT


def clock_sample(pong: Pong, t4_mono_ns: int) -> tuple[int, int]:
    """(offset of the peer's clock to ours, round trip), in nanoseconds, from a pong that arrived at t4.

    Our own wall clock is read once, at t1; its t4 is t1 and the monotonic time since, so that a step in
    between spoils nothing. The error of the offset is at most half the round trip.
    """
    elapsed = t4_mono_ns - pong.t1_mono_ns
    inside = pong.t3_wall_ns - pong.t2_wall_ns
    offset = (pong.t2_wall_ns - pong.t1_wall_ns + pong.t3_wall_ns - pong.t1_wall_ns - elapsed) // 2
    return offset, max(0, elapsed - max(0, inside))


def _check_name(name: str) -> None:
    if not is_name(name):
        raise ValueError(f"a name of {len(name)} letters, expected 1-63 of a-z, 0-9 and '-'")
