"""What two nodes say on a connection that wants files: the dialler asks, the acceptor gives or takes.

The connection begins as every other one, with greet, hello and welcome. Then, both ways:

| field | type | |
|---|---|---|
| length | u32 BE | of what follows, 1 to CONTROL_BYTES; of Data 1 to DATA_BYTES + 1 |
| type | u8 | the table below |
| body | msgpack | an array; of Data: bytes of the file, as they are |

| type | frame | from | |
|---|---|---|---|
| 1 | List | dialler | what is there? Answered by Entries, then End |
| 2 | Put | dialler | a file follows: Data, then Close. With `asks` first From is waited for |
| 3 | Check | dialler | the digest of what the acceptor has of it; answered by From |
| 4 | Get | dialler | answered by Begin, Data, Close, or by End where it cannot be given |
| 5 | Dup | dialler | a copy under another name; answered by End |
| 6 | Remove | dialler | a file, or a tree; answered by End |
| 16 | Close | who sends a file | its digest, or why there is no more of it |
| 17 | From | acceptor | send it from this offset on; above 0 after a Put: send Check first |
| 18 | Begin | acceptor | this file follows, from this offset on |
| 19 | Entries | acceptor | some of what is there |
| 20 | End | acceptor | it is done and durable, or was refused |
| 21 | Alive | acceptor | at work; at least every few seconds of what takes time |
| 64 | Data | who sends a file | the next bytes of it |

`number` is the dialler's, counted up, and comes back in the answers; puts and gets are answered in their
order. Many may be under way: small files flow without waiting for anything. A Put whose name has a "/" at the
end means a directory, and Close follows at once. What follows a Put that is refused is read and thrown away.
Types that are not known are skipped, further places of arrays are ignored: both ends may be of any later
version.
"""

import struct
from typing import Annotated, NamedTuple

import msgspec

from msgd.peer.errors import LocalProtocolError, RemoteProtocolError

CONTROL_BYTES = 64 << 10
DATA_BYTES = 1 << 20  # content in one frame
PATTERN_BYTES = 4096
ENTRIES = 32  # in one frame: their names may be long
DATA = 64

U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
Nanoseconds = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]  # a file may be older than 1970
Name = Annotated[str, msgspec.Meta(max_length=PATTERN_BYTES)]  # judged by `names`
Text = Annotated[str, msgspec.Meta(max_length=4000)]
Digest = Annotated[bytes, msgspec.Meta(max_length=32)]  # SHA-256; empty: none


class List(msgspec.Struct, array_like=True, frozen=True):
    """What is there?"""

    number: U32
    pattern: Name
    recursive: bool


class Put(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A file follows."""

    number: U32
    name: Name
    size: Size
    mtime_ns: Nanoseconds
    executable: bool
    asks: bool  # nothing follows before From


class Check(msgspec.Struct, array_like=True, frozen=True):
    """The digest of the bytes before the offset of the last From."""

    number: U32
    digest: Digest


class Get(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Send this file, from `have` on where its beginning has this digest."""

    number: U32
    name: Name
    have: Size = 0
    digest: Digest = b""


class Dup(msgspec.Struct, array_like=True, frozen=True):
    """Copy it there."""

    number: U32
    name: Name
    new: Name


class Remove(msgspec.Struct, array_like=True, frozen=True):
    """Remove it."""

    number: U32
    name: Name
    recursive: bool


class Close(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The file is over."""

    number: U32
    digest: Digest  # of all of it
    error: Text = ""  # it is not what it was said to be: this is why


class From(msgspec.Struct, array_like=True, frozen=True):
    """The bytes before `offset` are there."""

    number: U32
    offset: Size


class Begin(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A file that was asked for."""

    number: U32
    size: Size
    mtime_ns: Nanoseconds
    executable: bool
    offset: Size  # of the first byte that follows


class Item(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One thing that is there."""

    name: Name
    size: Size
    mtime_ns: Nanoseconds
    executable: bool
    digest: Digest
    is_directory: bool


class Entries(msgspec.Struct, array_like=True, frozen=True):
    """Some of what is there, in order."""

    number: U32
    items: Annotated[list[Item], msgspec.Meta(max_length=ENTRIES)]


class End(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Done, or refused: `code` is the name of an error of `msgd.errors`, empty for none."""

    number: U32
    code: Annotated[str, msgspec.Meta(max_length=32)] = ""
    message: Text = ""
    hint: Text = ""
    digest: Digest = b""  # of the file that is there now
    value: Size = 0  # its size; of Remove how many files went


class Alive(msgspec.Struct, array_like=True, frozen=True):
    """At work."""


class Piece(NamedTuple):
    """Some bytes of the file that flows, as a view that is good until the next read."""

    data: memoryview


Frame = List | Put | Check | Get | Dup | Remove | Close | From | Begin | Entries | End | Alive
Event = Frame | Piece

TYPES: dict[int, type[Frame]] = {
    1: List,
    2: Put,
    3: Check,
    4: Get,
    5: Dup,
    6: Remove,
    16: Close,
    17: From,
    18: Begin,
    19: Entries,
    20: End,
    21: Alive,
}
CODES = {kind: code for code, kind in TYPES.items()}

_decoders = {code: msgspec.msgpack.Decoder(kind).decode for code, kind in TYPES.items()}
_encode = msgspec.msgpack.Encoder().encode
HEAD = struct.Struct(">IB")


def encode(frame: Frame) -> bytes:
    """The bytes of a frame. Raises LocalProtocolError when it is longer than the other end would take."""
    body = _encode(frame)
    if len(body) + 1 > CONTROL_BYTES:
        raise LocalProtocolError(f"a {type(frame).__name__} of {len(body)} bytes, more than {CONTROL_BYTES}")
    return HEAD.pack(len(body) + 1, CODES[type(frame)]) + body


def decode(code: int, body: memoryview) -> Frame | None:
    """The frame of this type and body; None when the type is not known. Raises RemoteProtocolError."""
    decoder = _decoders.get(code)
    if decoder is None:
        return None
    try:
        return decoder(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"{TYPES[code].__name__}: {error}") from error
