"""Commands about consumers: to receive as one, and to see and tend all of them."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from msgd import model, showing
from msgd.cursors import ASIDE, DONE, FAILED, RELEASE
from msgd.errors import UnknownConsumer, UnknownMessage, UsageError
from msgd.lookout import Lookout
from msgd.receiving import Receiver, Settled
from msgd.rows import cursor_text, kind_name
from msgd.wire.codec import ID_BYTES
from msgd.wire.consuming import (
    ConsumerState,
    ListConsumers,
    ListUnsettled,
    RemoveConsumer,
    RetryAside,
    Unsettled,
)

if TYPE_CHECKING:
    from msgd.control import Control

HOLDER_BYTES = 16
MOST_RECEIVERS = 64  # consumers of one connection
MOST_SETTLED = 1024  # in one call
COUNT_BYTES = 4 << 20  # of the log that one call looks through to count what is ahead of consumers
COUNT_AT_BEGIN_BYTES = 64 << 10  # a program may begin for each single message
OUTCOMES = (DONE, FAILED, ASIDE, RELEASE)
MOST_ATTEMPTS = (1 << 31) - 1
MOST_MS = (1 << 63) - 1


class BeginCall(msgspec.Struct, rename={"start": "from"}):
    """Who receives as whom, and what."""

    name: str
    holder: str
    peer: str | None = None
    kind: str | None = None
    start: str | None = None


class SettledCall(msgspec.Struct):
    """What became of one message."""

    id: str
    outcome: str
    why: str | None = None
    attempt: Annotated[int, msgspec.Meta(ge=0, le=MOST_ATTEMPTS)] | None = None


class NextCall(msgspec.Struct):
    """Settle, and take the next."""

    name: str
    holder: str
    settle: list[SettledCall] | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=MOST_MS)] | None = None


class SettleCall(msgspec.Struct):
    """Settle only."""

    name: str
    holder: str
    settle: list[SettledCall]


class ConsumerCall(msgspec.Struct):
    """A consumer."""

    name: str


class RetryCall(msgspec.Struct):
    """One message of a consumer, or all."""

    name: str
    id: str | None = None


# --- receiving --------------------------------------------------------------------------------------------


def begin(control: Control, call: BeginCall, more: bool) -> None:
    """Make the consumer, or go on with it."""
    receiver = _receiver(control, call.name, call.holder)
    with _counted_if_known(control, call.name):
        created = receiver.begin(call.peer, call.kind, call.start)
    control.look_at_peers()
    state = receiver.consumer
    shown = _shown(control, state, is_counted=_ahead(control, state) <= COUNT_AT_BEGIN_BYTES)
    control.reply({"consumer": shown, "created": created})


def take_next(control: Control, call: NextCall, more: bool) -> None:
    """Settle these, then the next message."""
    receiver = _receiver(control, call.name, call.holder)
    settled = [_settled(each) for each in call.settle or ()]
    deadline_s = None if call.timeout_ms is None else time.monotonic() + call.timeout_ms / 1000
    with _counted_if_known(control, call.name):
        taken = receiver.next(_bounded(settled), deadline_s)
    lost = receiver.take_lost()
    answer: dict[str, Any] = (
        {"message": None}
        if taken is None
        else {"message": showing.message(taken.row), "attempt": taken.attempt}
    )
    if lost:
        answer["lost"] = lost
    control.reply(answer)


def settle(control: Control, call: SettleCall, more: bool) -> None:
    """Settle these."""
    settled = [_settled(each) for each in call.settle]
    receiver = _receiver(control, call.name, call.holder)
    with _counted_if_known(control, call.name):
        receiver.settle(_bounded(settled))
    control.reply({})


def _receiver(control: Control, name: str, holder: str) -> Receiver:
    """This connection's receiver for the consumer. Another holder takes the place of the former."""
    try:
        raw = base64.b64decode(holder, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != HOLDER_BYTES:
        raise UsageError(f"{holder!r} is no holder.", f"Expected {HOLDER_BYTES} random bytes in base64.")
    known = control.receivers.get(name)
    if known is not None and known.holder == raw:
        return known
    if known is None and len(control.receivers) >= MOST_RECEIVERS:
        text = f"This connection receives for {MOST_RECEIVERS} consumers already."
        raise UsageError(text, "Open another one.")
    if known is not None:
        known.leave()
    receiver = control.receivers[name] = Receiver(control, name, raw)
    return receiver


@contextmanager
def _counted_if_known(control: Control, name: str) -> Iterator[None]:
    """A receiver without a consumer is none of this connection's MOST_RECEIVERS."""
    receiver = control.receivers[name]
    try:
        yield
    except UnknownConsumer:
        control.receivers.pop(name, None)
        raise
    finally:
        if not receiver.is_begun:
            control.receivers.pop(name, None)


def _settled(call: SettledCall) -> Settled:
    digits = model.id_prefix(call.id)
    if digits is None or len(digits) != 2 * ID_BYTES:
        raise UsageError(f"{call.id!r} is not the id of a message.", "Give the whole id.")
    if call.outcome not in OUTCOMES:
        raise UsageError(f"There is no outcome {call.outcome!r}.", f"Choose one of {', '.join(OUTCOMES)}.")
    return Settled(bytes.fromhex(digits), call.outcome, call.why or "", call.attempt or 0)


def _bounded(settled: list[Settled]) -> list[Settled]:
    if len(settled) > MOST_SETTLED:
        raise UsageError(f"{len(settled)} messages are settled at once.", f"At most {MOST_SETTLED}.")
    return settled


# --- all of them ------------------------------------------------------------------------------------------


def list_all(control: Control, call: Any, more: bool) -> None:
    """All consumers, by name."""
    found = control.ask(ListConsumers(control.next_token())).consumers
    control.look_at_peers()
    left, shown = COUNT_BYTES, []
    for state in found:
        ahead = _ahead(control, state)
        shown.append(_shown(control, state, is_counted=ahead <= left))
        left -= ahead if ahead <= left else 0
    control.reply({"consumers": shown})


def queue(control: Control, call: ConsumerCall, more: bool) -> None:
    """What one was given and is not done with."""
    unsettled = _unsettled(control, call.name)
    control.look_at_peers()
    waiting = [
        {
            "id": model.id_text(each.id),
            "peer": control.name_of(each.peer),
            "state": each.state,
            "attempts": each.attempts,
            "why": each.why or None,
            "since_ns": each.since_ns,
        }
        for each in unsettled
    ]
    control.reply({"waiting": waiting})


def retry(control: Control, call: RetryCall, more: bool) -> None:
    """Have what was set aside come again."""
    ids = [] if call.id is None else [_aside(control, call.name, call.id)]
    done = control.ask(RetryAside(control.next_token(), call.name, ids, control.user))
    control.reply({"count": done.value})


def remove(control: Control, call: ConsumerCall, more: bool) -> None:
    """Forget one."""
    control.ask(RemoveConsumer(control.next_token(), call.name, control.user))
    control.receivers.pop(call.name, None)
    control.reply({})


def _unsettled(control: Control, name: str) -> list[Unsettled]:
    found: list[Unsettled] = control.ask(ListUnsettled(control.next_token(), name)).unsettled
    return found


def _aside(control: Control, name: str, text: str) -> bytes:
    """The one message that was set aside whose id is or begins with `text`."""
    prefix = model.id_prefix(text)
    if prefix is None:
        raise UsageError(f"{text!r} is no id: expected 4 or more hexadecimal digits.")
    found = {e.id for e in _unsettled(control, name) if e.state == "aside" and e.id.hex().startswith(prefix)}
    if not found:
        raise UnknownMessage(
            f"{name} has set no message aside whose id begins with {text}.",
            f"See `msgctl queue --as {name}`.",
        )
    if len(found) > 1:
        raise UnknownMessage(f"Several messages have an id that begins with {text}.", "Give more of it.")
    return found.pop()


def _shown(control: Control, state: ConsumerState, *, is_counted: bool) -> dict[str, Any]:
    """A consumer as clients see it."""
    ahead = _count(control, state) if is_counted else None
    return {
        "name": state.name,
        "peer": control.name_of(state.peer) if state.peer else None,
        "kind": None if state.kind < 0 else kind_name(state.kind),
        "cursor": cursor_text(control.place.reader.log_id.hex(), (state.offset, state.index), None),
        "behind": None if ahead is None else ahead + state.taken + state.waiting,
        "open": state.taken + state.waiting,
        "aside": state.aside,
        "created_at_ns": state.created_ns,
        "last_ns": state.last_ns,
    }


def _ahead(control: Control, state: ConsumerState) -> int:
    """Bytes of the log from its position to the end."""
    reader = control.place.reader
    return reader.committed - max(state.offset, reader.first)


def _count(control: Control, state: ConsumerState) -> int:
    """The messages there that it wants."""
    at = state.offset, state.index
    lookout = Lookout(control.place.reader, state.peer, state.kind, at, control.note_damage)
    count = 0
    while (found := lookout.peek()) is not None:
        lookout.take((found.offset, found.index))
        count += 1
    return count
