"""One message as a query tells it, what may be asked for, and the text of a cursor.

A cursor names a place in the history: `l=<log id>;o=<offset>;i=<index>;m=<message id>`, all but the index
in hexadecimal. The id is there because a start of msgd writes the last append anew in another place
(`log.recovery`); a cursor without it is taken as it is.
"""

import re
from typing import NamedTuple

import msgspec

from msgd import model
from msgd.errors import UsageError
from msgd.log.index import Location
from msgd.log.terms import Terms

CURSOR = re.compile(r"l=([0-9a-f]{16});o=([0-9a-f]{1,16});i=([0-9]{1,10})(?:;m=([0-9a-f]{32}))?")
CURSOR_HINT = (
    "Take the cursor from `msgctl log --show-cursor`, or leave it out to begin with the oldest message."
)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What a query asks for; None: whatever it is. `check` tells what cannot be asked."""

    peer: int | None = None  # its local number
    direction: int | None = None  # model.OUT or model.IN
    state: str | None = None  # one of model.STATES, as it is now, or model.HANDLED
    kind: int | None = None  # place in model.MESSAGE_KINDS
    user: str | None = None  # the sending user, on the sender's machine
    id: str | None = None  # digits that the id begins with, as model.id_prefix makes them
    since_ns: int | None = None  # of the time when this node stored it, CLOCK_REALTIME; this and later
    until_ns: int | None = None  # this and earlier
    grep: str | None = None  # a regular expression, found anywhere in the body read as UTF-8
    search: str | None = None  # words that the body has to contain, as log.terms reads them
    thread: str | None = None  # only the messages of this thread, by the id of its first as people see it
    lines: int | None = None  # only the last so many
    reverse: bool = False  # the newest first
    after: str | None = None  # a cursor: only what stands behind it

    def check(self) -> None:
        """Raises UsageError."""
        if self.state is not None and self.state not in (*model.STATES, model.HANDLED):
            known = ", ".join((*model.STATES, model.HANDLED))
            raise UsageError(f"There is no state {self.state!r}.", f"Known: {known}.")
        if self.id is not None and model.id_prefix(self.id) != self.id:
            raise UsageError(
                f"{self.id!r} is not the beginning of an id.", "Give at least 4 hexadecimal digits."
            )
        if self.lines is not None and self.lines < 0:
            raise UsageError(f"The number of messages is {self.lines}.", "Give 0 or more.")
        if self.search is not None:
            Terms(self.search)
        try:
            re.compile(self.grep or "")
        except (re.error, RecursionError, OverflowError) as error:
            text = f"{self.grep!r} is not a regular expression: {error}."
            raise UsageError(
                text, "Python's syntax; put a backslash before a sign that means itself."
            ) from error


class Row(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One message."""

    id: bytes
    peer: str
    direction: str  # "out" or "in"
    seq: int | None  # None: it has none, or a new epoch made it void
    kind: str
    state: str
    reason: str | None
    from_: str
    to: str
    user: str
    sent_at_ns: int  # the sender's clock
    stored_at_ns: int  # this node's
    receipt_at_ns: int | None  # the receiver's, of an outgoing message that is stored there
    body: bytes
    headers: dict[str, str]
    cursor: str
    peer_number: int
    location: Location
    handled_at_ns: int | None = None  # of one that a consumer has handled: by the clock there
    handled_by: str | None = None  # the consumer's name


class Cursor(NamedTuple):
    """A place in the history of one log."""

    log_id: bytes
    location: Location
    id: bytes | None

    @property
    def text(self) -> str:
        return cursor_text(self.log_id.hex(), self.location, self.id)


def cursor_text(log: str, location: Location, message_id: bytes | None) -> str:
    """The text of a cursor; `log` in hexadecimal."""
    message = "" if message_id is None else f";m={message_id.hex()}"
    return f"l={log};o={location[0]:x};i={location[1]}{message}"


def kind_name(kind: int) -> str:
    """A message's kind in words; a newer version's as its number."""
    return model.MESSAGE_KINDS[kind] if kind < len(model.MESSAGE_KINDS) else str(kind)


def parse_cursor(text: str, log_id: bytes) -> Cursor:
    """A cursor of this log. Raises UsageError."""
    found = CURSOR.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not a cursor.", CURSOR_HINT)
    log, offset, index, message = found.groups()
    if log != log_id.hex():
        raise UsageError("The cursor belongs to another log than this node's.", CURSOR_HINT)
    raw = None if message is None else bytes.fromhex(message)
    return Cursor(log_id, (int(offset, 16), int(index)), raw)
