"""Reports: messages that say that a consumer on the other node has handled a message.

A report is a message of kind `result` whose header `handled` is the id of the message that it is about, as
people see it, and whose header `consumer` is the consumer's name. It travels like every message. Whatever
else a peer writes into these headers is no report, and means nothing.

It marks a message only if that one asked for it (header `report: handled`), and if it went to the node that
the report comes from.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgd import model
from msgd.wire.codec import Message, decode_payload

RESULT = model.MESSAGE_KINDS.index("result")
ID_LETTERS = 36
NEEDLE = model.HANDLED.encode()  # stands in the bytes of every report, and of every message that asks for one


class Report(NamedTuple):
    """What one says: which message was handled, by whom, and when by that node's clock."""

    id: bytes
    consumer: str
    at_ns: int
    place: int  # of the report among the messages of its record


def has_reports(messages: Iterable[Message]) -> bool:
    """Whether there is one among these: then their record has FLAG_REPORTS."""
    return any(_read(m, 0) for m in messages if m.kind == RESULT)


def has_reports_in(payload: bytes | memoryview, count: int) -> bool:
    """The same of a payload with `count` messages. Raises `msgspec.MsgspecError`."""
    return NEEDLE in bytes(payload) and has_reports(decode_payload(payload, count))


def reports_of(messages: Iterable[Message]) -> Iterator[Report]:
    """The reports among the messages of a record, in order."""
    for index, message in enumerate(messages):
        if message.kind == RESULT:
            report = _read(message, index)
            if report is not None:
                yield report


def asks(message: Message) -> bool:
    """Whether the sender wants to hear when this message is handled."""
    return message.headers.get(model.REPORT) == model.HANDLED


def _read(message: Message, index: int) -> Report | None:
    headers = message.headers
    handled, consumer = headers.get(model.HANDLED, ""), headers.get(model.CONSUMER, "")
    if len(handled) != ID_LETTERS or not model.is_name(consumer):
        return None
    try:
        raw = bytes.fromhex(handled.replace("-", ""))
    except ValueError:
        return None
    return Report(raw, consumer, message.sent_ns, index) if model.id_text(raw) == handled else None
