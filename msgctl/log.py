"""`msgctl log`: messages of the log, by journalctl's letters.

The daemon filters; here the options become the parameters of one call and the answers lines. A cursor is the
place of the last message that was printed; the cursor file is replaced, never half written, and while
following it is written after every answer, so that whoever is stopped goes on where he was.
"""

import os
import time

from msgctl import messages
from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import BrokenOutput, Screen
from msgctl.send import plain
from msgctl.timespec import time_ns
from msgd import model
from msgd.errors import UsageError
from msgd.wire.varlink import Json

DEFAULT_LINES = 10  # of -f without -n, as journalctl
CHOICES = {
    "direction": tuple(model.DIRECTIONS.values()),
    "state": model.STATES,
    "kind": model.MESSAGE_KINDS,
}


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Print what was asked for; the exit code."""
    write = messages.writer(screen, form)
    follow, file = args.has("follow"), args.get("cursor_file")
    cursor = ""
    try:
        for answer in client.stream("Log", endless=follow, **parameters(args)):
            found = answer.get("messages") or []
            if not found:
                continue
            write(found)
            cursor = found[-1].get("cursor") or cursor
            if follow and file:
                write_cursor(file, cursor)
        if args.has("show_cursor") and cursor:
            screen.write(f"-- cursor: {cursor}\n")
    except BrokenOutput:
        return 0  # `msgctl log | head` is no failure, under `set -o pipefail` neither
    if file and cursor:
        write_cursor(file, cursor)
    return 0


def parameters(args: Args) -> Json:
    """The options as parameters of the call. Raises UsageError."""
    if args.has("follow") and args.has("reverse"):
        raise UsageError("--follow goes forward: it cannot be had with --reverse")
    for name, choices in CHOICES.items():
        value = args.get(name)
        if value is not None and value not in choices:
            raise UsageError(f"--{name}={value}: expected {', '.join(choices)}")
    now_ns = time.time_ns()
    since, until = args.get("since"), args.get("until")
    return {
        **{name: _plain(args.get(name)) for name in ("peer", "direction", "state", "kind", "id", "user")},
        "since_ns": None if since is None else time_ns(since, now_ns),
        "until_ns": None if until is None else time_ns(until, now_ns),
        "lines": _lines(args),
        "reverse": True if args.has("reverse") else None,
        "follow": True if args.has("follow") else None,
        "after_cursor": _after(args),
        "grep": _pattern(args.get("grep")),
    }


def _plain(text: str | None) -> str | None:
    return None if text is None else plain(text)


def _lines(args: Args) -> int | None:
    given = args.get("lines")
    if given is None:
        resumed = args.has("after_cursor") or args.has("cursor_file") or args.has("since")
        return DEFAULT_LINES if args.has("follow") and not resumed else None
    if given == "all":
        return None
    if not given.isdecimal() or len(given) > 12:
        raise UsageError(f"-n {given}: expected a number of lines, or all")
    return int(given)


def _after(args: Args) -> str | None:
    file, given = args.get("cursor_file"), args.get("after_cursor")
    if given is not None and file is not None:
        raise UsageError("--after-cursor and --cursor-file are two ways to say one thing")
    if file is None:
        return _plain(given)
    try:
        with open(file, encoding="ascii") as reader:
            return reader.read(4096).strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read the cursor file {file}: {exc}") from exc


def _pattern(text: str | None) -> str | None:
    """As journalctl: a pattern in small letters finds capitals, too."""
    if text is None:
        return None
    return f"(?i){plain(text)}" if text == text.lower() else plain(text)


def write_cursor(path: str, cursor: str) -> None:
    """Replace the cursor file."""
    new = f"{path}.{os.getpid()}.new"
    try:
        with open(new, "w", encoding="ascii") as writer:
            writer.write(cursor + "\n")
        os.replace(new, path)
    except (OSError, UnicodeEncodeError) as exc:
        raise UsageError(f"cannot write the cursor file {path}: {exc}") from exc
