"""What a chat knows of its lines: which of one's own are not with the peer yet, and which were shown.

Pure: told what msgd says, it answers which messages are to be shown now, each once. A message from the peer
is shown when it comes. One of this node is *open* until it has ended, that is as a rule until the peer's disk
has it; then it is shown, with its receipt. What the log tells and what a call answers may come in any order,
and twice.
"""

from msgd import model
from msgd.wire.varlink import Json

FAREWELL = "adios"
FAREWELLS = (FAREWELL, "adiós", "/quit")  # a line that is one of them ends the chat
LEFT = {model.CHAT: model.LEFT}  # the headers of the last line
MAX_ADOPTED = (
    1000  # open lines that were not typed here; more are shown at once, without waiting for their end
)
REFUSED = "refused"  # how a line ended that is not kept anywhere
REMEMBERED = 4096  # ids of lines that have ended: what is told once more of them is old


class Line:
    """A line of this node that is not with the peer yet."""

    __slots__ = ("body", "headers", "id", "is_mine", "message", "reason", "state")

    def __init__(
        self, id: str, body: bytes, headers: dict[str, str], message: Json, *, is_mine: bool
    ) -> None:
        self.id = id
        self.body = body  # what is sent; empty once it need not be sent again
        self.headers = headers
        self.message = message  # as `Log` tells it
        self.is_mine = is_mine  # typed here
        self.state = model.QUEUED
        self.reason = ""


class Talk:
    """The lines of one chat. `user`, `node`: who types; `adopts`: also the lines of others on this node."""

    def __init__(self, user: str, node: str, *, adopts: bool) -> None:
        self.user = user
        self.node = node
        self.adopts = adopts
        self.open: dict[str, Line] = {}  # by id, in the order of typing
        self.ended: dict[str, int] = {}  # lines typed here, by the state that they have ended in
        self.unkept: dict[str, Line] = {}  # of `open`: msgd has not said yet that it has them
        self.farewell: Line | None = None  # the last line, which nobody typed: it counts nowhere
        self._mine = 0  # of `open`
        self._seen: dict[str, None] = {}

    @property
    def waiting(self) -> int:
        """Lines typed here that have not ended."""
        return self._mine - self._has_farewell(self.open)

    @property
    def unsure(self) -> int:
        """Lines typed here of which msgd has not said yet that it has them."""
        return len(self.unkept) - self._has_farewell(self.unkept)

    def typed(self, id: str, body: bytes, headers: dict[str, str], now_ns: int) -> Line:
        """A new line."""
        message: Json = {
            "id": id, "direction": "out", "kind": "text", "from": self.node, "user": self.user,
            "sent_at_ns": now_ns, "headers": headers,
            "text": body.decode("utf-8", "replace") if self.adopts else "",
        }  # fmt: skip
        line = self.open[id] = self.unkept[id] = Line(id, body, headers, message, is_mine=True)
        self._mine += 1
        if headers == LEFT:
            self.farewell = line
        return line

    def drop(self, line: Line) -> None:
        """It was refused, and is not kept anywhere."""
        self._end(line, REFUSED)

    def heard(self, message: Json) -> Json | None:
        """What the log tells: the message, where it is to be shown now."""
        if message["direction"] == "in":
            return None if message.get("was") or self._is_seen(message["id"]) else message
        if message["direction"] != "out" or message["id"] in self._seen:
            return None
        line = self.open.get(message["id"])
        if line is None:
            return self._adopted(message)
        return self._moved(line, message)

    def answered(self, line: Line, receipt: Json) -> Json | None:
        """What a call says of a line: its message, where it is to be shown now."""
        if line.id not in self.open:
            return None
        return self._moved(line, receipt)

    def lost(self, line: Line) -> None:
        """msgd does not know it: it is to be sent again."""
        if line.is_mine and line.body:
            self.unkept[line.id] = line

    def _moved(self, line: Line, told: Json) -> Json | None:
        line.state, line.reason = str(told["state"]), str(told.get("reason") or "")
        self.unkept.pop(line.id, None)
        if not self.adopts and line.state != model.HELD:
            line.body = b""
        if line.state not in model.FINAL_STATES:
            return None
        self._end(line, line.state)
        told_of = ("state", "reason", "receipt_at_ns")
        sent_at_ns = told.get("sent_at_ns") or line.message["sent_at_ns"]
        return {**line.message, **{name: told.get(name) for name in told_of}, "sent_at_ns": sent_at_ns}

    def _end(self, line: Line, state: str) -> None:
        del self.open[line.id]
        self.unkept.pop(line.id, None)
        self._is_seen(line.id)
        if line.is_mine:
            self._mine -= 1
            line.state = state
            if line is not self.farewell:
                self.ended[state] = self.ended.get(state, 0) + 1

    def _has_farewell(self, lines: dict[str, Line]) -> bool:
        return self.farewell is not None and self.farewell.id in lines

    def _adopted(self, message: Json) -> Json | None:
        """A line of another terminal or program of this node, or of an earlier chat."""
        if not self.adopts or message.get("was", model.QUEUED) not in (model.HELD, model.QUEUED):
            return None
        if message["state"] in model.FINAL_STATES or len(self.open) - self._mine >= MAX_ADOPTED:
            self._is_seen(message["id"])
            return message
        line = Line(message["id"], b"", message.get("headers") or {}, message, is_mine=False)
        line.state, line.reason = message["state"], message.get("reason") or ""
        self.open[line.id] = line
        return None

    def _is_seen(self, id: str) -> bool:
        """Whether it was seen before; it is from now on."""
        if id in self._seen:
            return True
        self._seen[id] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return False
