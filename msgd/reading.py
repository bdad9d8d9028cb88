"""Commands that read the history: messages, their lives, and what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from msgd import advising, model, showing
from msgd.errors import StorageRefused, UsageError
from msgd.finding import owner
from msgd.history import History
from msgd.rows import Filter, Row
from msgd.streaming import Stream
from msgd.wire.ledger import PeerState

if TYPE_CHECKING:
    from msgd.control import Control

DIRECTIONS = {name: code for code, name in model.DIRECTIONS.items()}
KINDS = {name: code for code, name in enumerate(model.MESSAGE_KINDS)}
SEARCH_HINT = "Set it below [history] and `msgctl reload`, or look through all of it with `msgctl log -g`."
FORMATS = {"json": 1}  # beside messages as objects
ALONE_BYTES = 2 << 20  # of an answer without `more`: as JSON at most six times that, below a reply's limit
ROW_BYTES = 1000  # of a message as JSON, beside its body


class LogCall(msgspec.Struct):
    """What to show."""

    peer: str | None = None
    direction: str | None = None
    state: str | None = None
    kind: str | None = None
    id: str | None = None
    user: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    lines: int | None = None
    reverse: bool | None = None
    follow: bool | None = None
    after_cursor: str | None = None
    grep: str | None = None
    format: str | None = None
    changes: bool | None = None
    steps: bool | None = None
    search: str | None = None
    thread: str | None = None


class IdCall(msgspec.Struct):
    """A message."""

    id: str


class QueueCall(msgspec.Struct):
    """A peer, or all."""

    peer: str | None = None


def log(control: Control, call: LogCall, more: bool) -> None:
    """Stream what fits; with `follow` what comes later, too, until the client leaves."""
    wanted = _filter(control, call)
    history = control.history()
    upto = control.place.page.committed
    as_lines = _one_of(FORMATS, call.format, "format") is not None
    if not more:
        control.reply(_all_at_once(history, wanted, upto))
        return
    stream = Stream(control, history, wanted, as_lines=as_lines, steps=bool(call.steps))
    stream.tell(upto)
    if call.follow:
        stream.follow(upto, changes=bool(call.changes))
    if control.damage:
        raise StorageRefused(
            f"Part of the log could not be read: {control.damage[0]}.", "The rest was shown."
        )
    control.reply({"messages": []})


def _all_at_once(history: History, wanted: Filter, upto: int) -> dict[str, Any]:
    rows: list[Row] = []
    size = 0
    for part in history.query(wanted, upto):
        rows += part
        size += sum(len(row.body) for row in part) + ROW_BYTES * len(part)
        if size > ALONE_BYTES:
            raise UsageError("More messages fit than one reply can hold.", "Call `Log` with `more`.")
    return {"messages": [showing.message(row) for row in rows]}


def _filter(control: Control, call: LogCall) -> Filter:
    prefix = None
    if call.id is not None:
        prefix = model.id_prefix(call.id)
        if prefix is None:
            raise UsageError(
                f"{call.id!r} is not the beginning of an id: expected 4 or more hexadecimal digits."
            )
    if call.search is not None and not control.place.config.history.search:
        raise UsageError("No index of words is kept on this node: history.search is false.", SEARCH_HINT)
    return Filter(
        peer=None if call.peer is None else control.lookup(call.peer, removed=True).number,
        direction=_one_of(DIRECTIONS, call.direction, "direction"),
        state=call.state,
        kind=_one_of(KINDS, call.kind, "kind"),
        id=prefix,
        user=call.user,
        since_ns=call.since_ns,
        until_ns=call.until_ns,
        lines=call.lines,
        reverse=bool(call.reverse),
        after=call.after_cursor,
        grep=call.grep,
        search=call.search,
        thread=None if call.thread is None else _thread_of(control, call.thread),
    )


def _thread_of(control: Control, text: str) -> str:
    """The id of the first message of the thread to which a message belongs. Raises UnknownMessage."""
    row = control.rows_of(text)[0]
    if not row.direction:
        raise UsageError("That tells what was done or befell this node: it is no message of a thread.")
    return row.headers.get(model.THREAD) or model.id_text(row.id)


def _one_of(choices: dict[str, int], text: str | None, what: str) -> int | None:
    if text is not None and text not in choices:
        raise UsageError(f"There is no {what} {text!r}.", f"Choose one of {', '.join(choices)}.")
    return None if text is None else choices[text]


def show(control: Control, call: IdCall, more: bool) -> None:
    """One message: of anybody to who may read the history, else only an own one."""
    rows = control.rows_of(call.id)
    _check_reader(control, rows[0])
    first, *others = [showing.message(row) for row in rows]
    control.reply({"message": first, "others": [_without_body(each) for each in others] or None})


def why(control: Control, call: IdCall, more: bool) -> None:
    """One message, its life, and what comes next; to whom `show` shows it."""
    rows = control.rows_of(call.id)
    _check_reader(control, rows[0])
    first, *others = [_life(control, row) for row in rows]
    for other in others:
        other["message"] = _without_body(other["message"])
    control.reply({**first, "others": others or None})


def _life(control: Control, row: Row) -> dict[str, Any]:
    if not row.direction:
        text = "Nothing: it tells what was done or befell this node."
        return {"message": showing.message(row), "life": [], "next": text}
    history = control.history()
    peer = control.peer_state(row.peer_number)
    asked = control.request_of(peer.number) if peer.hold else None
    return {
        "message": showing.message(row),
        "life": showing.life(control.place.reader, row, history.life(row.location)),
        "next": showing.next_step(row, peer, asked, control.own_name),
    }


def _without_body(message: dict[str, Any]) -> dict[str, Any]:
    """It is the same for all members of a group."""
    return {name: value for name, value in message.items() if name not in ("text", "data")}


def _check_reader(control: Control, row: Row) -> None:
    if row.direction != "out" or row.user != control.user:
        control.check_access("history")


def queue(control: Control, call: QueueCall, more: bool) -> None:
    """What waits, peer by peer; under an address that became a peer's as that peer's."""
    peers = control.state().peers
    number = None if call.peer is None else control.lookup(call.peer).number
    asked = control.asked_by_peer()
    for peer in peers:
        if not peer.removed and (peer.queued or peer.held) and number in (None, owner(peers, peer).number):
            step = advising.next_here(peer, asked.get(peer.number), control.own_name)
            _queue_of(control, peer, step)
    control.reply({"messages": []})


def _queue_of(control: Control, peer: PeerState, next_command: str | None) -> None:
    """Stream what waits for one peer; a record with many messages is looked at once."""
    reason, next_try_s = showing.waiting_reason(peer)
    history = control.history()
    offset, expires_ns = -1, 0
    for wanted in (model.QUEUED, model.HELD):
        for part in history.query(Filter(peer=peer.number, direction=model.OUT, state=wanted)):
            waiting = []
            for row in part:
                if row.location[0] != offset:
                    offset = row.location[0]
                    expires_ns = showing.expiry_ns(control.place.reader, offset, peer)
                waiting.append(showing.waiting(row, peer, reason, next_try_s, expires_ns, next_command))
            control.reply({"messages": waiting}, continues=True)
