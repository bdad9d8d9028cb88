"""The message as it lies in the log, on the wire and in the other node's log: one msgpack array each.

| place | field | type | |
|---|---|---|---|
| 0 | id | bin 16 | UUIDv7, or UUIDv8 when it was made from a key |
| 1 | kind | u8 | place in `model.MESSAGE_KINDS` |
| 2 | sent_ns | u64 | the sender's wall clock, Unix nanoseconds, set by the sender's daemon |
| 3 | user | str | the sending user on the sender's machine |
| 4 | headers | map str -> str | |
| 5 | body | bin | any bytes |

A payload is `count` messages one after another, nothing between them: what is put together from several
records is a payload again. A reader of a newer version may find more places at the end of the array.
"""

import msgspec


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message; fields as in the table above."""

    id: bytes
    kind: int
    sent_ns: int
    user: str
    headers: dict[str, str]
    body: bytes


class _Id(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The first place of a message: the decoder skips the others."""

    id: bytes


_encoder = msgspec.msgpack.Encoder()
_decode_ids = msgspec.msgpack.Decoder(list[_Id]).decode
_decode_list = msgspec.msgpack.Decoder(list[Message]).decode

encode = _encoder.encode


def decode_payload(payload: bytes | memoryview, count: int) -> list[Message]:
    """The `count` messages of a payload, in one call of the decoder.

    Raises `msgspec.MsgspecError` when the payload is anything else.
    """
    return _decode_list(b"\xdd" + count.to_bytes(4, "big") + payload)


def decode_ids(payload: bytes | memoryview, count: int) -> list[bytes]:
    """The ids alone of the `count` messages of a payload, at a third of the price."""
    return [m.id for m in _decode_ids(b"\xdd" + count.to_bytes(4, "big") + payload)]
