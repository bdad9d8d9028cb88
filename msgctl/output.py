"""What reaches the screen: bytes on fd 1 and 2, foreign text made harmless, times, JSON.

- Written straight to the fd: `sys.stdout` would encode by locale and complain of a broken pipe a second
  time at exit. A reader that went away ends the output quietly and changes no exit code.
- On a terminal, control characters of foreign text are shown as escapes, also inside names, headers and
  JSON (where the escape is JSON's own); in a pipe bodies pass as they are.
- JSON is one object a line, UTF-8, never localized. Colours only on a terminal, none with NO_COLOR.

The formats have their own files: `messages`, `receipts`, `tables`.
"""

import os
import time
from _collections_abc import Iterable, Mapping

from msgd.errors import MsgdError
from msgd.wire.varlink import Json, dump_text

NS_PER_S = 1_000_000_000
JOINERS = "\u200c\u200d"  # invisible, harmless, part of Persian words and of many emoji
COLOURS = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}


class BrokenOutput(Exception):  # not an error: nobody reads any more
    """Whoever read our output went away."""


class Screen:
    """The two outputs of the program, and how people want to read them."""

    def __init__(self, env: Mapping[str, str], *, utc: bool = False) -> None:
        self.terminal = os.isatty(1)
        self.colours = self.terminal and not env.get("NO_COLOR") and env.get("TERM", "dumb") != "dumb"
        self.utc = utc
        self.columns: int | None = None  # cut lines of messages to so many; None: not at all

    def write(self, text: str) -> None:
        """Write to standard output. Raises BrokenOutput, or MsgdError when it takes nothing more."""
        self.write_bytes(text.encode("utf-8", "backslashreplace"))

    def write_bytes(self, data: bytes) -> None:
        """As `write`, of bytes."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(1, view) :]
            except BrokenPipeError:
                raise BrokenOutput from None
            except OSError as exc:
                raise MsgdError(f"cannot write the output: {exc.strerror}") from exc

    def json(self, value: Json) -> None:
        """One object on a line of its own."""
        self.write(self.json_text(value) + "\n")

    def json_text(self, value: Json) -> str:
        """An object as JSON; on a terminal without anything that a terminal would obey."""
        text = dump_text(value)
        return text if not self.terminal or text.isprintable() else escaped(text, _json_escape, keep=" ")

    def pretty_text(self, value: Json) -> str:
        """An object as JSON on many lines."""
        import json

        return json.dumps(value, indent=4, ensure_ascii=self.terminal)

    def body(self, text: str) -> str:
        """A body, on a terminal with its control characters as escapes; lines and tabs stay."""
        return escaped(text, _escape, keep="\n\t") if self.terminal and not text.isprintable() else text

    def paint(self, colour: str, text: str) -> str:
        """`text` in a colour, where colours are wanted."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.colours and colour else text

    def clock(self, ns: int, form: str = "%H:%M:%S") -> str:
        """A point in time in the local zone or UTC, by strftime's letters."""
        moment = time.gmtime if self.utc else time.localtime
        return time.strftime(form, moment(ns // NS_PER_S))


def complain(text: str) -> None:
    """Write to standard error; nobody can be told when that fails."""
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def field(text: object) -> str:
    """A foreign word inside a line: no control characters, no line ends, wherever it goes."""
    shown = str(text)
    return shown if shown.isprintable() else escaped(shown, _escape, keep="")


def escaped(text: str, escape: "Escape", keep: str) -> str:
    """`text` with every character that a terminal may obey, or that hides, escaped."""
    return "".join([c if c.isprintable() or c in keep or _is_harmless(c) else escape(c) for c in text])


def _is_harmless(c: str) -> bool:
    wide_space = (
        c.isspace() and c >= "\u00a0" and c not in "\u2028\u2029"
    )  # spaces that str calls not printable
    return wide_space or c in JOINERS


def _escape(c: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(c) or (
        f"\\x{ord(c):02x}" if c <= "\xff" else f"\\u{ord(c):04x}" if c <= "\uffff" else f"\\U{ord(c):08x}"
    )


def _json_escape(c: str) -> str:
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in _pairs(c.encode("utf-16-be", "surrogatepass")))


def _pairs(data: bytes) -> Iterable[tuple[int, int]]:
    return zip(data[::2], data[1::2], strict=True)


def rfc3339(ns: int | None) -> str | None:
    """UTC with nine digits of fraction, as in the daemon's `*_at` fields."""
    if ns is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // NS_PER_S)) + f".{ns % NS_PER_S:09d}Z"


def counted(count: int, what: str) -> str:
    """A number of things: 1 message, 2 messages."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def span(seconds: float) -> str:
    """A duration for people: two units at most."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95 and round(seconds, 1) != round(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, part, below in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit} {rest} {part}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Escape = Callable[[str], str]
