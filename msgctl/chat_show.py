"""How the lines of a chat look: in the scrollback, and while they are on their way.

| | |
|---|---|
| from the peer | `12:00:00 ana@node3: hola`, by the sender's clock |
| one's own | `12:00:01 bob@node1: hola ✓ 12:00:01`, with the receiver's clock once it is on its disk |
| ended otherwise | `12:00:01 bob@node1: hola ✗ expired` |
| on its way | the same with `…` and the reason |
"""

from msgctl.chat_talk import Line, Talk
from msgctl.columns import cut, width
from msgctl.messages import INDENT, body
from msgctl.output import Screen, counted, field, span
from msgd import model
from msgd.wire.varlink import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from msgctl.chat_flow import Flow

BIG_OFFSET_MS = 2000.0  # between both clocks, from which on it is told
ON_ITS_WAY = "\u2026"
LEAST = 12  # columns for the text of a line on its way


class Scrollback:
    """Messages as lines for the terminal; says the day wherever it is another one than before."""

    def __init__(self, screen: Screen, today_ns: int) -> None:
        self._screen = screen
        self._day = self._day_of(today_ns)

    def text(self, messages: list[Json]) -> str:
        """The lines of these messages."""
        return "".join([self._one(message) for message in messages if not is_report(message)])

    def notice(self, text: str) -> str:
        """A sentence that is nobody's line."""
        return self._screen.paint("yellow", f"-- {field(text)} --") + "\n"

    def _one(self, message: Json) -> str:
        day = self._day_of(message["sent_at_ns"])
        before = "" if day == self._day else self._screen.paint("dim", f"-- {day} --") + "\n"
        self._day = day
        clock, who = self._screen.clock(message["sent_at_ns"]), writer(message)
        if (message.get("headers") or {}).get(model.CHAT) == model.LEFT:
            line = self._screen.paint("dim", f"{clock} -- {who} left --")
        else:
            line = f"{clock} {self._screen.paint('bold', who)}: {_content(self._screen, message)}"
        return f"{before}{line}{self._mark(message)}\n"

    def _mark(self, message: Json) -> str:
        """What became of a line of this node."""
        if message["direction"] == "in":
            return ""
        state = str(message["state"])
        if state == model.STORED:
            when = self._screen.clock(message["receipt_at_ns"]) if message.get("receipt_at_ns") else ""
            return " " + self._screen.paint("green", f"✓ {when}".rstrip())
        reason = f": {field(message['reason'])}" if message.get("reason") else ""
        if state in model.FINAL_STATES:
            return " " + self._screen.paint("red", f"✗ {state}{reason}")
        return " " + self._screen.paint("yellow", f"{ON_ITS_WAY} {state}{reason}")

    def _day_of(self, ns: int) -> str:
        return self._screen.clock(ns, "%a %Y-%m-%d")


def is_report(message: Json) -> bool:
    """Whether a message tells only that another one was handled."""
    return message["kind"] == "result" and model.HANDLED in (message.get("headers") or {})


def writer(message: Json) -> str:
    """Who wrote it, on which node."""
    return field(f"{message['user']}@{message['from']}" if message.get("user") else message["from"])


def _content(screen: Screen, message: Json) -> str:
    if message["kind"] == "file":
        headers = message.get("headers") or {}
        return f"[file {field(headers.get('op') or '')} {field(headers.get('file') or '')}]".replace(
            "  ", " "
        )
    if message.get("data") is not None:
        return f"[{len(body(message))} bytes of data]"
    kind = "" if message["kind"] == "text" else f"({field(message['kind'])}) "
    return kind + screen.body(str(message.get("text") or "").removesuffix("\n")).replace("\n", "\n" + INDENT)


def open_line(screen: Screen, line: Line, flow: "Flow", columns: int) -> str:
    """A line on its way, cut to one line of the terminal."""
    message = line.message
    left = (message.get("headers") or {}).get(model.CHAT) == model.LEFT
    text = field(_content(screen, message)) if not left else "(leaving)"
    mark = f" {ON_ITS_WAY} {why(line, flow)}".rstrip()
    head = f"{screen.clock(message['sent_at_ns'])} {writer(message)}: "
    if columns - width(head) - width(mark) < LEAST:
        head = ""  # on a narrow terminal, rather what was typed than who typed it
    return cut(head + cut(text, max(1, columns - width(head) - width(mark))) + mark, columns)


def why(line: Line, flow: "Flow") -> str:
    """Why a line is not there yet; empty: it takes the time that it takes."""
    if not flow.is_up:
        return "msgd is away"
    if line.state == model.HELD:
        return f"held: {field(line.reason)}" if line.reason else "held"
    if line.reason.startswith("offline"):  # so it was when the line was sent
        return "" if flow.is_there else "offline"
    return field(line.reason) or ("offline" if flow.has_looked and not flow.is_there else "")


def status(screen: Screen, flow: "Flow", waiting: int) -> str:
    """How the peer stands, in one line."""
    peer = flow.peer
    if not flow.is_up:
        parts = ["msgd on this machine does not answer"]
    elif not flow.has_looked:
        parts = []
    elif peer is None:
        parts = [f"{field(flow.name)} is not paired"]
    else:
        parts = [f"{field(flow.name)} {_standing(screen, peer)}"]
    if waiting:
        parts.append(f"{waiting} on the way")
    offset_ms = (peer or {}).get("clock_offset_ms")
    if offset_ms is not None and abs(offset_ms) >= BIG_OFFSET_MS:
        parts.append(
            f"its clock is {span(round(abs(offset_ms) / 1000))} {'ahead' if offset_ms > 0 else 'behind'}"
        )
    return " · ".join(parts)


def unkept(talk: Talk) -> str:
    """What is said at the end of lines that msgd did not take; of the goodbye where it is the only one."""
    what = counted(talk.unsure, "line") if talk.unsure else "the goodbye"
    return f"{what} could not be kept: msgd does not answer"


def steps(pairing: Json, instead: str = "") -> str:
    """What held lines wait for, and what to do. With words to compare, `instead` of a shell's command."""
    parts = [str(pairing["detail"])]
    has_words = pairing["words"] and not pairing["accepted"]
    if has_words:
        parts.append(f"Words: {pairing['words']}.")
    if has_words and instead:
        parts.append(instead)
    elif pairing.get("next"):
        parts.append(f"Here: {pairing['next']}.")
    if pairing.get("there"):
        parts.append(f"There: {pairing['there']}.")
    return " ".join(parts)


def _standing(screen: Screen, peer: Json) -> str:
    since = f" since {screen.clock(peer['since_ns'])}" if peer.get("since_ns") else ""
    reason = field(peer.get("reason") or "").removeprefix("offline: ")
    because = f" ({reason})" if reason and reason not in ("offline", peer["state"]) else ""
    return f"{field(peer['state'])}{since}{because}"
