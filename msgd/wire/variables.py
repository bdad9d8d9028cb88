"""The environment of a command that handles a message: what it finds as `MSGD_*`. Pure.

| variable | |
|---|---|
| `MSGD_ID` `MSGD_PEER` `MSGD_KIND` `MSGD_USER` `MSGD_SEQ` `MSGD_FROM` `MSGD_TO` | as in `log -o json` |
| `MSGD_SENT_AT` `MSGD_STORED_AT` | by the sender's clock and by this node's, RFC 3339 in UTC |
| `MSGD_CONSUMER` `MSGD_ATTEMPT` | for whom it runs, and which try for this message it is, from 1 |
| `MSGD_HEADERS` | all headers, one JSON object |
| `MSGD_HEADER_<NAME>` | one header: its name in capitals, whatever is no letter or digit as `_` |

A name always begins with MSGD_, so nobody at the other end can set another variable. What does not fit an
environment is left out: values with a NUL, values above `LARGEST` bytes, headers beyond `MOST_HEADERS`.
"""

from msgd.wire.varlink import Json, dump_text

PLAIN = ("id", "peer", "kind", "user", "seq", "from", "to", "sent_at", "stored_at")
LARGEST = 32 << 10  # bytes of a name with its value; execve(2) takes 128 KiB
MOST_HEADERS = 64 << 10  # bytes of all MSGD_HEADER_*; execve(2) takes 2 MiB of everything with an 8 MiB stack


def variables(message: Json, consumer: str, attempt: int) -> dict[str, str]:
    """The variables for one run; `message` is as the control socket tells it."""
    headers = message.get("headers") or {}
    found = {f"MSGD_{name.upper()}": _text(message.get(name)) for name in PLAIN}
    found |= {"MSGD_CONSUMER": consumer, "MSGD_ATTEMPT": str(attempt), "MSGD_HEADERS": dump_text(headers)}
    room = MOST_HEADERS
    for name, value in headers.items():
        variable = f"MSGD_HEADER_{_capitals(name)}"
        room -= len(variable) + len(value.encode())
        if room >= 0:
            found.setdefault(variable, value)
    return {name: value for name, value in found.items() if _fits(name, value)}


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _capitals(name: str) -> str:
    return "".join([c if c.isascii() and c.isalnum() else "_" for c in name]).upper()


def _fits(name: str, value: str) -> bool:
    return "\0" not in value and len(name) + len(value.encode()) <= LARGEST
