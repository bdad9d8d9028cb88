"""What a client gives to be sent, and the messages that are made of it."""

import base64
import hashlib
import os
import time
from collections.abc import Callable
from typing import Annotated

import msgspec

from msgd import model
from msgd.errors import UsageError
from msgd.wire.codec import Message

MAX_MANY = 256
MAX_TIME_MS = 100 * 365 * 86_400_000  # a hundred years: every sum with a clock still fits into 64 bits
LEVELS = (model.QUEUED, model.STORED, model.HANDLED)  # that a sender may wait for
SENDABLE = {name: code for code, name in enumerate(model.MESSAGE_KINDS) if name != "control"}

_encode_list = msgspec.msgpack.Encoder().encode


class Outgoing(msgspec.Struct, gc=False):
    """A message as a client gives it; `data` is base64 in JSON."""

    id: str | None = None
    kind: str | None = None
    text: str | None = None
    data: str | None = None
    headers: dict[str, str] | None = None


class SendCall(msgspec.Struct):
    """Parameters of Send and SendMany (one of `message` and `messages`)."""

    peer: str
    message: Outgoing | None = None
    messages: list[Outgoing] | None = None
    ttl_ms: Annotated[int, msgspec.Meta(ge=1, le=MAX_TIME_MS)] | None = None
    key: str | None = None
    wait: str | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)] | None = None
    hold: bool | None = None

    def check(self) -> list[Outgoing]:
        """What is to be sent. Raises UsageError for what is wrong with the call."""
        messages = [self.message] if self.message is not None else self.messages
        if not messages or len(messages) > MAX_MANY:
            raise UsageError(f"{len(messages or [])} messages, expected 1 to {MAX_MANY}.")
        if self.wait not in (None, *LEVELS):
            raise UsageError(f"wait is {self.wait!r}, expected one of {', '.join(LEVELS)}.")
        if self.wait == model.HANDLED:
            for message in messages:
                message.headers = _asking(message.headers or {})
        return messages

    @property
    def has_gaps(self) -> bool:
        """Whether the daemon has to make ids for some of the messages."""
        return any(m.id is None for m in self.messages or ())


def build(given: list[Outgoing], user: str, keyed: bytes | None) -> list[Message]:
    """The messages as they will lie in both logs; one clock reading for all of a call.

    `keyed`: the id of a message that has a key. Raises UsageError.
    """
    sent_ns = time.time_ns()
    built = []
    for m in given:
        text = m.text
        if text is not None and m.data is not None:
            raise UsageError("A message has both text and data, expected one of them.")
        body = _base64(m.data or "") if text is None else text.encode("utf-8", "surrogatepass")
        raw = keyed or (_new_id(sent_ns) if m.id is None else _parse_id(m.id))
        built.append(Message(raw, _kind(m.kind), sent_ns, user, m.headers or {}, body))
    return built


def payload_of(messages: list[Message]) -> bytes:
    """The messages verbatim, one after the other. Raises UsageError where they are too many for an append."""
    ids = {m.id for m in messages}
    if len(ids) != len(messages):
        raise UsageError("One id stands for two messages of this call.")
    payload = _encode_list(messages)
    payload = payload[1 if len(messages) < 16 else 3 :]  # without the list's own head
    if len(payload) > model.MAX_MESSAGE_BYTES:
        raise _too_big(len(payload), len(messages))
    return payload


def key_id(user: str, names: list[bytes], key: str, is_known: Callable[[bytes], bool]) -> bytes:
    """The id of a message sent with a key: the same user, peer and key give the same id, for ever.

    `names`: what the peer is or was known by, its present identity first. An id that the log has already
    counts, so that a key stays the same when a peer gets its identity, or a new one. Raises UsageError.
    """
    if not 1 <= len(key.encode()) <= 256:
        raise UsageError(f"The key has {len(key.encode())} bytes, expected 1 to 256.")
    found = [_key_id(user, name, key) for name in names]
    return next((raw for raw in found if len(found) > 1 and is_known(raw)), found[0])


def _key_id(user: str, name: bytes, key: str) -> bytes:
    parts = (b"msgd/1 key\0", user.encode(), b"\0", name, key.encode())
    return model.uuid8(hashlib.sha256(b"".join(parts)).digest())


def _new_id(now_ns: int) -> bytes:
    return model.uuid7(now_ns // 1_000_000, os.urandom(10))


def _kind(name: str | None) -> int:
    if name is None:
        return 0
    if name not in SENDABLE:
        raise UsageError(f"kind is {name!r}, expected one of {', '.join(SENDABLE)}.")
    return SENDABLE[name]


def check_repeated(
    raw_id: bytes,
    known: tuple[dict[str, str], tuple[object, ...]],
    given: tuple[dict[str, str], tuple[object, ...]],
) -> None:
    """Headers and all else of a message that is known, and of one with its id. Raises UsageError.

    Who first wanted to hear that it is handled may ask for it again without that, not the other way round.
    """
    wishes = [headers.get(model.REPORT) for headers, _ in (known, given)]
    plain = [{**headers, model.REPORT: ""} for headers, _ in (known, given)]
    same = (plain[0], known[1]) == (plain[1], given[1])
    if same and (wishes[0] == wishes[1] or wishes[1] is None):
        return
    text = model.id_text(raw_id)
    if same and wishes[0] is None:
        raise UsageError(
            f"Message {text} was sent before, without asking whether it is handled: no report will come.",
            "Wait for stored, or use a new key for a message that is to be reported.",
        )
    raise UsageError(
        f"Id {text} or its key was used before, for another message.", "Use a new key for a new message."
    )


def _asking(headers: dict[str, str]) -> dict[str, str]:
    """The headers of a message whose sender wants to hear when it is handled."""
    given = headers.get(model.REPORT, model.HANDLED)
    if given != model.HANDLED:
        raise UsageError(f"The header {model.REPORT} is {given!r}, but wait is {model.HANDLED!r}.")
    return {**headers, model.REPORT: model.HANDLED}


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UsageError(f"data is not base64: {error}") from error


def _parse_id(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        raw = b""
    if len(raw) != 16 or raw[6] >> 4 != 7:
        raise UsageError(f"id is {text!r}, expected a UUIDv7.", "Leave it out, and msgd makes one.")
    return raw


def _too_big(size: int, count: int) -> UsageError:
    what = "The message has" if count == 1 else f"These {count} messages have"
    return UsageError(
        f"{what} {size} bytes with headers; the limit is {model.MAX_MESSAGE_BYTES}.",
        "Split it, or send it as a file.",
    )
