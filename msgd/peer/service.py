"""What two nodes say on a connection that wants a service: one asks, the other answers out of its log.

The connection begins as every other one, with greet, hello and welcome. Then the dialler asks, as often as it
likes and one question at a time; every answer is a row of frames that ends with `End`.

| field | type | |
|---|---|---|
| length | u32 BE | of what follows, 1 to LIMIT_BYTES; to the acceptor 1 to ASK_BYTES |
| type | u8 | the table below |
| body | msgpack | an array |

| type | frame | from | |
|---|---|---|---|
| 1 | Ask | dialler | the question |
| 2 | End | acceptor | the answer is over; with a code where it could not be given |
| 3 | Progress | acceptor | at work; at least every second of an answer that takes time |
| 4 | Broken | acceptor | a place of its log that is damaged; the answer goes on behind it |
| 5 | Outline | acceptor | what its log holds of a direction, without the messages |
| 6 | Marks | acceptor | digests of windows of a direction, in order |
| 7 | Batches | acceptor | digests of batches |
| 8 | Messages | acceptor | ids and digests of the messages of one batch |
| 9 | Piece | acceptor | one batch, with its messages |

| question | answer |
|---|---|
| outline | Outline |
| marks | Marks, of the windows that begin at `first` or later |
| batches | Batches, those that begin at `first` to `last` |
| messages | Messages, of the batch that begins at `first` |
| fetch | Piece, in the order of seqs, of the batches that begin at `first` to `last` |

`direction` is always the acceptor's: 1 what it has sent, 2 what it has received. A *window* is the batches
that begin at one of WINDOW seqs in a row; its digest is chained over them like a head, but begins with zeros,
so that it says nothing of other windows. Types that are not known are skipped, a question that is not known
is answered with the code `unknown`, further places of arrays are ignored: both ends may be of any later
version.
"""

import struct
from typing import Annotated

import msgspec

from msgd.peer.errors import LocalProtocolError, RemoteProtocolError
from msgd.peer.frames import LINK_BYTES, U32, Bytes16, Bytes32, First, Last, Nanoseconds, Some

WINDOW = 1024  # seqs
LIMIT_BYTES = LINK_BYTES  # a Piece with the biggest append
ASK_BYTES = 4096  # all that the acceptor takes
MARKS = 64  # in one frame
ENTRIES = 2048  # batches or messages in one frame
PLACES = 4096  # spans and epochs in one outline: the newest

OUTLINE = "outline"
MARKS_OF = "marks"
BATCHES_OF = "batches"
MESSAGES_OF = "messages"
FETCH = "fetch"

Text = Annotated[str, msgspec.Meta(max_length=1000)]
Digest = Annotated[bytes, msgspec.Meta(max_length=32)]  # empty: the bytes cannot be read
Span = tuple[First, Last]  # seqs, both inclusive


class Ask(msgspec.Struct, array_like=True, frozen=True):
    """A question; `number` comes back in its End."""

    number: U32
    what: Annotated[str, msgspec.Meta(max_length=32)]
    direction: Annotated[int, msgspec.Meta(ge=1, le=2)]
    first: Last = 0
    last: Last = 0


class End(msgspec.Struct, array_like=True, frozen=True):
    """The answer to question `number` is over. `code`: empty, `unknown`, `damaged` or `gone`."""

    number: U32
    code: Annotated[str, msgspec.Meta(max_length=32)] = ""
    detail: Text = ""


class Progress(msgspec.Struct, array_like=True, frozen=True):
    """At work: up to this seq so far."""

    seq: Last


class Broken(msgspec.Struct, array_like=True, frozen=True):
    """A damaged place: the segment's file name, its log offset, what was found, which seqs (0: unknown)."""

    segment: Text
    offset: Nanoseconds
    why: Text
    first: Last = 0
    last: Last = 0


class Epoch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The beginning of an epoch: where both ends were, and the head it begins with."""

    epoch: Bytes16
    base: First
    sender_last: Last
    sender_head: Bytes32
    receiver_last: Last
    receiver_head: Bytes32
    head: Bytes32


class Outline(msgspec.Struct, array_like=True, frozen=True):
    """What a log holds of one direction, as of the moment of the answer."""

    last: Last  # the highest seq that was ever given or taken here
    receipt: Last  # sender: up to here the receiver has said that it holds it
    held: Annotated[list[Span], msgspec.Meta(max_length=PLACES)]  # seqs whose messages are in the log
    void: Annotated[list[Span], msgspec.Meta(max_length=PLACES)]  # sender: never receipted, sent anew since
    epochs: Annotated[list[Epoch], msgspec.Meta(max_length=PLACES)]
    gone: Annotated[list[Span], msgspec.Meta(max_length=PLACES)] = []  # seqs that are not kept any more


class Mark(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One window: what is in it, the digest of its bytes, and the head stored with its last batch."""

    window: Last  # its seqs begin at window · WINDOW
    first: First
    last: Last
    batches: Some
    digest: Digest
    head: Bytes32


class Marks(msgspec.Struct, array_like=True, frozen=True):
    """Some windows in order."""

    marks: Annotated[list[Mark], msgspec.Meta(max_length=MARKS)]


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One batch: the digest is its chain from zeros."""

    first: First
    count: Some
    digest: Digest
    head: Bytes32


class Batches(msgspec.Struct, array_like=True, frozen=True):
    """Some batches in order."""

    entries: Annotated[list[Entry], msgspec.Meta(max_length=ENTRIES)]


class Messages(msgspec.Struct, array_like=True, frozen=True):
    """Some messages of one batch in order: id and SHA-256 of each."""

    first: First
    entries: Annotated[list[tuple[Bytes16, Bytes32]], msgspec.Meta(max_length=ENTRIES)]


class Piece(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One batch verbatim. `before` is the head before it, empty where the answerer has none."""

    first: First
    count: Some
    before: Digest
    head: Bytes32
    wall_ns: Nanoseconds  # the answerer's clock when it was put into its log
    payload: memoryview


Frame = Ask | End | Progress | Broken | Outline | Marks | Batches | Messages | Piece

TYPES: dict[int, type[Frame]] = {
    1: Ask,
    2: End,
    3: Progress,
    4: Broken,
    5: Outline,
    6: Marks,
    7: Batches,
    8: Messages,
    9: Piece,
}
CODES = {kind: code for code, kind in TYPES.items()}

_decoders = {code: msgspec.msgpack.Decoder(kind).decode for code, kind in TYPES.items()}
_encode = msgspec.msgpack.Encoder().encode
_head = struct.Struct(">IB")


def encode(frame: Frame) -> bytes:
    """The bytes of a frame. Raises LocalProtocolError when it is longer than the other end would take."""
    body = _encode(frame)
    if len(body) + 1 > LIMIT_BYTES:
        raise LocalProtocolError(f"a {type(frame).__name__} of {len(body)} bytes, more than {LIMIT_BYTES}")
    return _head.pack(len(body) + 1, CODES[type(frame)]) + body


def decode(data: memoryview) -> Frame | None:
    """The frame of type and body; None when the type is not known. Raises RemoteProtocolError."""
    decoder = _decoders.get(data[0])
    if decoder is None:
        return None
    try:
        return decoder(data[1:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"{TYPES[data[0]].__name__}: {error}") from error
