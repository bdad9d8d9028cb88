"""The formats of a message: short, short-iso, verbose, json, json-pretty, cat, export.

| format | |
|---|---|
| short | one line: when this node stored it, from and to, its state where it is not stored, the text |
| short-iso | the same with ISO 8601 and the zone |
| verbose | every field on a line of its own, then the text |
| json | one object a line; exactly the fields below, in this order |
| json-pretty | the same on many lines |
| cat | the body alone, with a line end where it has none |
| export | the journal export format (`export`) |

A text of several lines is indented under its first one. A body that is not UTF-8 is named by its size;
`cat`, `export` and JSON (base64) give the bytes themselves. A message that is told again because its state
has changed carries the state before as `was`.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from msgctl.output import Screen, field, span
from msgd.errors import UsageError
from msgd.wire.varlink import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = (
    "id", "peer", "direction", "seq", "kind", "state", "reason", "from", "to", "user",
    "sent_at", "sent_at_ns", "stored_at", "stored_at_ns", "receipt_at", "receipt_at_ns",
)  # fmt: skip
MARK = ("handled_at", "handled_at_ns", "handled_by")  # there where a consumer has handled the message
CHOOSABLE = (*FIELDS, *MARK, "text", "data", "headers", "cursor")  # by --fields
CHOOSING = ("verbose", "json", "json-pretty", "cat", "export")  # formats that heed it
HUMAN = ("short", "short-iso", "verbose")  # formats with lines that are no messages
QUIET_STATES = ("stored", "received", "")  # as it should be: short does not mention them
INDENT = "    "


def writer(
    screen: Screen, form: str, fields: tuple[str, ...] | None = None
) -> "Callable[[list[Json]], None]":
    """The function that writes messages in this format; `fields`: only these."""
    if form == "json-pretty":
        return lambda messages: screen.write(
            "".join([screen.pretty_text(as_json(m, fields)) + "\n" for m in messages])
        )
    if form == "json":
        return lambda messages: screen.write(
            "".join([screen.json_text(as_json(m, fields)) + "\n" for m in messages])
        )
    if form == "cat":
        return lambda messages: screen.write_bytes(b"".join([_cat(screen, m, fields) for m in messages]))
    if form == "export":
        from msgctl.export import entry

        return lambda messages: screen.write_bytes(
            b"".join([_visible(screen, entry(m, fields)) for m in messages])
        )
    if form == "verbose":
        return lambda messages: screen.write("".join([verbose(screen, m, fields) for m in messages]))
    clock = "%Y-%m-%dT%H:%M:%S%z" if form == "short-iso" else "%b %d %H:%M:%S"
    return lambda messages: screen.write("".join([short(screen, m, clock) for m in messages]))


def choice(text: str | None, form: str) -> tuple[str, ...] | None:
    """The value of --fields as names; None: not given. Raises UsageError."""
    if text is None:
        return None
    if form not in CHOOSING:
        raise UsageError(f"--fields chooses nothing in the format {form}", f"it goes with {_or(CHOOSING)}")
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in CHOOSABLE]
    if unknown or not names:
        what = f"there is no field {unknown[0]!r}" if unknown else "--fields names no field"
        raise UsageError(what, f"there are {', '.join(CHOOSABLE)}")
    return names


def as_json(message: Json, fields: tuple[str, ...] | None = None) -> Json:
    """A message for scripts."""
    if fields is not None:
        return _chosen(message, fields)
    shown = {name: message.get(name) for name in FIELDS}
    shown[_body_name(message)] = message.get(_body_name(message)) or ""
    shown["headers"] = message.get("headers") or {}
    if message.get("was"):
        shown["was"] = message["was"]
    if message.get("handled_at_ns") is not None:
        shown.update({name: message.get(name) for name in MARK})
    return shown


def _chosen(message: Json, fields: tuple[str, ...]) -> Json:
    """Fields in the order asked for. `text` is `data` where the body is not UTF-8, `data` always base64."""
    shown: Json = {}
    for name in fields:
        if name == "text":
            shown[_body_name(message)] = message.get(_body_name(message)) or ""
        elif name == "data":
            shown[name] = b2a_base64(body(message), newline=False).decode()
        elif name == "headers":
            shown[name] = message.get(name) or {}
        else:
            shown[name] = message.get(name)
    return shown


def _body_name(message: Json) -> str:
    return "text" if message.get("data") is None else "data"


def body(message: Json) -> bytes:
    """The bytes of a message's body."""
    if message.get("data") is None:
        return str(message.get("text") or "").encode("utf-8", "surrogatepass")
    try:
        return a2b_base64(message["data"])
    except Base64Error:
        return b""


def short(screen: Screen, message: Json, clock: str = "%b %d %H:%M:%S") -> str:
    """One line, and more where the text has more."""
    when = screen.clock(message["stored_at_ns"], clock)
    way = f"{field(message['from'])} -> {field(message['to'])}"
    if not message["direction"]:  # what was done here: no message
        way = field(message["from"])
    kind = "" if message["kind"] == "text" else f" ({_kind(message)})"
    mark = _mark(message)
    text = _shown(screen, message)
    if screen.columns is not None:
        text = _fitting(text, screen.columns, f"{when} {way}{kind}{mark}: ")
    mark = screen.paint("yellow", mark) if mark else ""
    return f"{when} {screen.paint('bold', way)}{kind}{mark}: {text}\n"


def _kind(message: Json) -> str:
    """The kind; of one about a file, what was done with it, too."""
    op = (message.get("headers") or {}).get("op") if message["kind"] == "file" else None
    return field(f"{message['kind']} {op}" if op else message["kind"])


def _mark(message: Json) -> str:
    """The state in brackets, where it says something."""
    state, reason = _state(message), message.get("reason") or message.get("handled_by")
    if message.get("was"):
        state = f"{field(message['was'])} -> {state}"
    elif state in QUIET_STATES:
        return ""
    return f" [{state}: {field(reason)}]" if reason else f" [{state}]"


def _state(message: Json) -> str:
    """The state, or the mark that stands above it."""
    return field(message["state"]) if message.get("handled_at_ns") is None else "handled"


def _fitting(text: str, columns: int, before: str) -> str:
    """The first line of a text, as much of it as fits behind `before`."""
    from msgctl.columns import ELLIPSIS, cut, width

    first, _, more = text.expandtabs().partition("\n")
    room = max(1, columns - width(before))
    return cut(first + ELLIPSIS if more else first, room)


def verbose(screen: Screen, message: Json, fields: tuple[str, ...] | None = None) -> str:
    """Every field that has a value, then the text."""
    who = f"{message['from']} (user {message['user']})" if message.get("user") else message["from"]
    rows = [
        ("peer", "peer", message["peer"]),
        ("direction", "direction", message["direction"]),
        ("seq", "seq", message.get("seq")),
        ("kind", "kind", message["kind"]),
        ("state", "state", _state(message)),
        ("was", "state", message.get("was")),
        ("reason", "reason", message.get("reason")),
        ("from", "from user", who),
        ("to", "to", message["to"]),
        ("sent", "sent_at sent_at_ns", _moment(screen, message.get("sent_at_ns"))),
        ("stored", "stored_at stored_at_ns", _moment(screen, message.get("stored_at_ns"))),
        ("receipt", "receipt_at receipt_at_ns", _moment(screen, message.get("receipt_at_ns"))),
        ("handled", "handled_at handled_at_ns", _moment(screen, message.get("handled_at_ns"))),
        ("by", "handled_by", message.get("handled_by")),
        ("cursor", "cursor", message.get("cursor")),
    ]
    headers = (message.get("headers") or {}).items()
    rows += [("header", "headers", f"{name}={value}") for name, value in headers]
    chosen = set(CHOOSABLE if fields is None else fields)
    lines = [
        f"{INDENT}{label + ':':<11}{field(value)}\n"
        for label, names, value in rows
        if value not in (None, "") and not chosen.isdisjoint(names.split())
    ]
    if not chosen.isdisjoint(("text", "data")):
        lines.append(f"{INDENT}{'text:':<11}{_shown(screen, message)}\n")
    return f"{screen.paint('bold', field(message['id']))}\n{''.join(lines)}\n"


def clock_step(screen: Screen, step: Json) -> str:
    """The line that tells that this node's clock was set."""
    by_ns = step["clock_step_ns"]
    way = "back" if by_ns < 0 else "forward"
    then = screen.clock(step["at_ns"], "%b %d %H:%M:%S")
    text = f"-- The clock was set {way} by {span(abs(by_ns) / 1e9)}, to {then} --"
    return screen.paint("bold", text) + "\n"


def _moment(screen: Screen, ns: int | None) -> str | None:
    if not ns:
        return None
    return f"{screen.clock(ns, '%Y-%m-%d %H:%M:%S')}.{ns % 1_000_000_000:09d} {screen.clock(ns, '%z')}"


def _shown(screen: Screen, message: Json) -> str:
    """The body inside other text: without its last line end, further lines indented."""
    if message.get("data") is not None:
        return f"[{len(body(message))} bytes of data]"
    text = str(message.get("text") or "").removesuffix("\n")
    headers = message.get("headers") or {}
    if not text and headers.get("handled") and message["kind"] == "result":
        return f"{field(headers['handled'])} was handled by {field(headers.get('consumer', ''))}"
    return screen.body(text).replace("\n", "\n" + INDENT)


def _cat(screen: Screen, message: Json, fields: tuple[str, ...] | None) -> bytes:
    if fields is None:
        return _whole_lines(screen, body(message))
    return b"".join([_whole_lines(screen, raw) for name in fields for raw in _values(message, name)])


def _values(message: Json, name: str) -> list[bytes]:
    """The values of a field, each of which `cat` writes on lines of its own."""
    if name in ("text", "data"):
        return [body(message)]
    if name == "headers":
        return [f"{key}={value}".encode() for key, value in (message.get(name) or {}).items()]
    return [] if message.get(name) in (None, "") else [str(message[name]).encode()]


def _visible(screen: Screen, raw: bytes) -> bytes:
    """On a terminal as text that commands nothing; elsewhere as it is."""
    return screen.body(raw.decode("utf-8", "replace")).encode() if screen.terminal else raw


def _whole_lines(screen: Screen, raw: bytes) -> bytes:
    raw = _visible(screen, raw)
    return raw if raw.endswith(b"\n") else raw + b"\n"


def _or(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
