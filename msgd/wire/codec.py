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
records is a payload again. A newer version may put more places at the end of the array: they are kept as
they are, and may hold anything that is nested at most NESTED deep. What is deeper is refused at the door:
each reader would meet the end of its stack somewhere else.
"""

from typing import Any

import msgspec

from msgd.model import MESSAGE_KINDS

ID_BYTES = 16
NESTED = 32
MOST_KIND = 255
MOST_NS = (1 << 64) - 1
CONTROL = MESSAGE_KINDS.index("control")  # of a node's own records, as `log --kind control` shows them


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message; fields as in the table above."""

    id: bytes
    kind: int
    sent_ns: int
    user: str
    headers: dict[str, str]
    body: bytes


class _Known(Message, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A message without more places than these."""


class _Id(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The first place of a message: the decoder skips the others."""

    id: bytes


_encoder = msgspec.msgpack.Encoder()
_decode_ids = msgspec.msgpack.Decoder(list[_Id]).decode
_decode_list = msgspec.msgpack.Decoder(list[Message]).decode
_decode_known = msgspec.msgpack.Decoder(list[_Known]).decode
_decode_any = msgspec.msgpack.Decoder(list[Any]).decode

encode = _encoder.encode


def check_payload(payload: bytes | memoryview, count: int) -> list[Message]:
    """The `count` messages that this payload of somebody else is, which every reader will be able to read.

    Raises `msgspec.MsgspecError` or ValueError.
    """
    listed = b"\xdd" + count.to_bytes(4, "big") + payload
    try:
        messages: list[Any] = _decode_known(listed)
    except msgspec.ValidationError:
        messages = _decode_newer(listed)
    for message in messages:
        if len(message.id) != ID_BYTES:
            raise ValueError(f"a message with an id of {len(message.id)} bytes, expected {ID_BYTES}")
        if not 0 <= message.kind <= MOST_KIND or message.kind == CONTROL:
            raise ValueError(f"a message of kind {message.kind}, which nobody sends")
        if not 0 <= message.sent_ns <= MOST_NS:
            raise ValueError(f"a message that was sent at {message.sent_ns}")
    return messages


def decode_payload(payload: bytes | memoryview, count: int) -> list[Message]:
    """The `count` messages of a payload, in one call of the decoder.

    Raises `msgspec.MsgspecError` when the payload is anything else.
    """
    return _decode_list(b"\xdd" + count.to_bytes(4, "big") + payload)


def decode_ids(payload: bytes | memoryview, count: int) -> list[bytes]:
    """The ids alone of the `count` messages of a payload, at a third of the price."""
    return [m.id for m in _decode_ids(b"\xdd" + count.to_bytes(4, "big") + payload)]


def _decode_newer(listed: bytes) -> list[Message]:
    """Messages that may have more places. Raises MsgspecError, ValueError."""
    try:
        messages, values = _decode_list(listed), _decode_any(listed)
    except RecursionError as error:
        raise ValueError("a message that is nested without end") from error
    level: list[Any] = [values]
    for _ in range(NESTED):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return messages
    raise ValueError(f"a message that is nested more than {NESTED} deep")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple) else []
