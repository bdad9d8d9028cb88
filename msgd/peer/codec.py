"""Frames to bytes and back; the table of the format stands in `frames`.

A batch's payload is never copied: decoded it is a view of what was read, encoded it stands beside its prefix.
A frame of the handshake is read back before it is sent, so our own mistakes stay at home. All that a
foreign body can do wrong becomes one exception.
"""

import struct

import msgspec

from msgd.peer.errors import LocalProtocolError, RemoteProtocolError
from msgd.peer.frames import CODES, HANDSHAKE_BYTES, LINK_BYTES, TYPES, Batch, Frame, Hello

_decoders = {code: msgspec.msgpack.Decoder(kind).decode for code, kind in TYPES.items()}
_decode_hello = msgspec.msgpack.Decoder(Hello).decode
_encode = msgspec.msgpack.Encoder().encode
_head = struct.Struct(">IB")

# A batch up to its payload, in msgpack's widest forms so that every place has its offset:
# length, type, array of 4, u64, u32, bin 8 of 32, bin 32.
_batch = struct.Struct(">IBB BQ BI BB32s BI")
_BATCH_BODY = _batch.size - 4


def encode(frame: Frame) -> bytes:
    """The bytes of any frame; a batch's payload is copied (see `encode_batch`).

    Raises LocalProtocolError when the other end would not take it.
    """
    if isinstance(frame, Batch):
        return b"".join(encode_batch(frame))
    body = _encode(frame)
    code = CODES[type(frame)]
    if code < 16:  # rare and worth a second look: what we would refuse ourselves is not sent
        _check_own(body, code)
    return _head.pack(len(body) + 1, code) + body


def encode_batch(batch: Batch) -> tuple[bytes, memoryview]:
    """A batch as its prefix and its payload, which is not copied."""
    payload = batch.payload
    size = len(payload)
    length = _BATCH_BODY + size
    if length > LINK_BYTES:
        raise LocalProtocolError(f"a batch of {size} bytes, more than {LINK_BYTES - _BATCH_BODY}")
    prefix = _batch.pack(
        length, 16, 0x94, 0xCF, batch.first_seq, 0xCE, batch.count, 0xC4, 32, batch.head, 0xC6, size
    )
    return prefix, payload


def encode_hello(hello: Hello) -> bytes:
    """The content that is signed and sent."""
    content = _encode(hello)
    try:
        decode_hello(content)
    except RemoteProtocolError as error:
        raise LocalProtocolError(str(error)) from error
    return content


def _check_own(body: bytes, code: int) -> None:
    """Raise LocalProtocolError unless the other end would take this frame of the handshake."""
    if len(body) + 1 > HANDSHAKE_BYTES:
        raise LocalProtocolError(
            f"a {TYPES[code].__name__} of {len(body)} bytes, more than {HANDSHAKE_BYTES}"
        )
    try:
        decode(code, body)
    except RemoteProtocolError as error:
        raise LocalProtocolError(str(error)) from error


def decode(code: int, body: bytes | memoryview) -> Frame | None:
    """The frame of this type and body; None when the type is unknown.

    Raises RemoteProtocolError.
    """
    decoder = _decoders.get(code)
    if decoder is None:
        return None
    try:
        return decoder(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # The latter two: bad UTF-8 and deep nesting, which msgspec does not wrap.
        raise RemoteProtocolError(f"{TYPES[code].__name__}: {error}") from error


def decode_hello(content: bytes) -> Hello:
    """The hello inside a SignedHello. Raises RemoteProtocolError."""
    try:
        return _decode_hello(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"Hello: {error}") from error
