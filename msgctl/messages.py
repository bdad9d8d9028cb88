"""The formats of a message: short, short-iso, verbose, json, json-pretty, cat.

| format | |
|---|---|
| short | one line: when this node stored it, from and to, its state where it is not stored, the text |
| short-iso | the same with ISO 8601 and the zone |
| verbose | every field on a line of its own, then the text |
| json | one object a line; exactly the fields below, in this order |
| json-pretty | the same on many lines |
| cat | the body alone, with a line end where it has none |

A text of several lines is indented under its first one. A body that is not UTF-8 is named by its size;
`cat` and JSON (base64) give the bytes themselves.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64

from msgctl.output import Screen, field
from msgd.wire.varlink import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = (
    "id", "peer", "direction", "seq", "kind", "state", "reason", "from", "to", "user",
    "sent_at", "sent_at_ns", "stored_at", "stored_at_ns", "receipt_at", "receipt_at_ns",
)  # fmt: skip
QUIET_STATES = ("stored", "received", "")  # as it should be: short does not mention them
INDENT = "    "


def writer(screen: Screen, form: str) -> "Callable[[list[Json]], None]":
    """The function that writes messages in this format."""
    if form == "json-pretty":
        return lambda messages: screen.write(
            "".join([screen.pretty_text(as_json(m)) + "\n" for m in messages])
        )
    if form == "json":
        return lambda messages: screen.write("".join([screen.json_text(as_json(m)) + "\n" for m in messages]))
    if form == "cat":
        return lambda messages: screen.write_bytes(b"".join([_cat(screen, m) for m in messages]))
    if form == "verbose":
        return lambda messages: screen.write("".join([verbose(screen, m) for m in messages]))
    clock = "%Y-%m-%dT%H:%M:%S%z" if form == "short-iso" else "%b %d %H:%M:%S"
    return lambda messages: screen.write("".join([short(screen, m, clock) for m in messages]))


def as_json(message: Json) -> Json:
    """A message for scripts."""
    shown = {name: message.get(name) for name in FIELDS}
    body = "data" if message.get("data") is not None else "text"
    shown[body] = message.get(body) or ""
    shown["headers"] = message.get("headers") or {}
    return shown


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
    state = field(message["state"])
    if message.get("reason"):
        state = f"{state}: {field(message['reason'])}"
    when = screen.clock(message["stored_at_ns"], clock)
    way = f"{field(message['from'])} -> {field(message['to'])}"
    if not message["direction"]:  # what was done here: no message
        way = field(message["from"])
    mark = "" if message["state"] in QUIET_STATES else screen.paint("yellow", f" [{state}]")
    kind = "" if message["kind"] == "text" else f" ({field(message['kind'])})"
    return f"{when} {screen.paint('bold', way)}{kind}{mark}: {_shown(screen, message)}\n"


def verbose(screen: Screen, message: Json) -> str:
    """Every field that has a value, then the text."""
    rows = [
        ("peer", message["peer"]),
        ("direction", message["direction"]),
        ("seq", message.get("seq")),
        ("kind", message["kind"]),
        ("state", message["state"]),
        ("reason", message.get("reason")),
        ("from", f"{message['from']} (user {message['user']})" if message.get("user") else message["from"]),
        ("to", message["to"]),
        ("sent", _moment(screen, message.get("sent_at_ns"))),
        ("stored", _moment(screen, message.get("stored_at_ns"))),
        ("receipt", _moment(screen, message.get("receipt_at_ns"))),
        ("cursor", message.get("cursor")),
    ]
    rows += [("header", f"{name}={value}") for name, value in (message.get("headers") or {}).items()]
    lines = [f"{name + ':':<11}{field(value)}\n" for name, value in rows if value not in (None, "")]
    head = screen.paint("bold", field(message["id"]))
    return f"{head}\n{INDENT}{INDENT.join(lines)}{INDENT}{'text:':<11}{_shown(screen, message)}\n\n"


def _moment(screen: Screen, ns: int | None) -> str | None:
    if not ns:
        return None
    return f"{screen.clock(ns, '%Y-%m-%d %H:%M:%S')}.{ns % 1_000_000_000:09d} {screen.clock(ns, '%z')}"


def _shown(screen: Screen, message: Json) -> str:
    """The body inside other text: without its last line end, further lines indented."""
    if message.get("data") is not None:
        return f"[{len(body(message))} bytes of data]"
    text = str(message.get("text") or "").removesuffix("\n")
    return screen.body(text).replace("\n", "\n" + INDENT)


def _cat(screen: Screen, message: Json) -> bytes:
    raw = body(message)
    if screen.terminal:
        raw = screen.body(raw.decode("utf-8", "replace")).encode()
    return raw if raw.endswith(b"\n") else raw + b"\n"
