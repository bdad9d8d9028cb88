"""Messages in the journal export format (systemd.io/JOURNAL_EXPORT_FORMATS).

`systemd-journal-remote -o FILE.journal -` makes a journal file of it, which journalctl reads. An entry is
lines `FIELD=value` and an empty line. A value that is no plain text stands behind `FIELD` and a line end as
its length (64 bits, little-endian), its bytes, and a line end.

| | |
|---|---|
| `__CURSOR` | the place in the log, for `--after-cursor` |
| `__REALTIME_TIMESTAMP` | when this node stored it, in microseconds |
| `MESSAGE` | the body, byte for byte |
| `HEADER` | one for each header, as `name=value` |
| `MSG_ID PEER DIRECTION SEQ KIND STATE …` | the fields of JSON; those without a value are left out |
| `_HOSTNAME SYSLOG_IDENTIFIER` | the sending node, and msgd: what journalctl puts before the text |
"""

from msgctl.messages import FIELDS, MARK, body
from msgd.wire.varlink import Json

IDENTIFIER = b"SYSLOG_IDENTIFIER=msgd\n"
NAMES = {name: name.upper() for name in (*FIELDS, *MARK)} | {
    "id": "MSG_ID"
}  # MESSAGE_ID means something else there


def entry(message: Json, fields: "tuple[str, ...] | None" = None) -> bytes:
    """One message. `fields`: only these, by their names in JSON; None: all."""
    realtime_us = message["stored_at_ns"] // 1000
    parts = [_field("__CURSOR", message.get("cursor")), b"__REALTIME_TIMESTAMP=%d\n" % realtime_us]
    if fields is None:
        parts += [_field("_HOSTNAME", message["from"]), IDENTIFIER]
        parts += [_field(label, message.get(name)) for name, label in NAMES.items()]
        fields = ("headers", "text")
    for name in fields:
        if name in ("text", "data"):
            parts.append(_bytes_field("MESSAGE", body(message)))
        elif name == "headers":
            parts += [_field("HEADER", f"{key}={value}") for key, value in (message.get(name) or {}).items()]
        elif name in NAMES:  # the cursor is there already
            parts.append(_field(NAMES[name], message.get(name)))
    return b"".join(parts) + b"\n"


def _field(name: str, value: object) -> bytes:
    if value is None or value == "":
        return b""
    text = str(value)
    if text.isprintable():  # quick, and true of nearly all
        return f"{name}={text}\n".encode()
    return _bytes_field(name, text.encode("utf-8", "surrogatepass"))


def _bytes_field(name: str, value: bytes) -> bytes:
    try:
        is_plain = value.decode().replace("\t", "").isprintable()
    except UnicodeDecodeError:
        is_plain = False
    if is_plain:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
