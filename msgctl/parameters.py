"""The options of `msgctl log` as parameters of one call, with journalctl's defaults.

| options | messages |
|---|---|
| `-n N` | the newest N |
| `-n N` behind a cursor | the first N behind it, so that a script that goes on by cursor file skips none |
| `-f` | the last 10, where nothing else says where to begin, and what comes |
| `-e` | the newest 1000: a pager holds all that it is given |
"""

import os
import time

from msgctl.grammar import Args
from msgctl.messages import HUMAN
from msgctl.send import plain
from msgctl.timespec import time_ns
from msgd import model
from msgd.errors import UsageError
from msgd.wire.varlink import Json

FOLLOWED_LINES = 10
PAGER_END_LINES = 1000
FILTERS = ("peer", "direction", "state", "kind", "id", "thread", "user")
CHOICES = {
    "direction": tuple(model.DIRECTIONS.values()),
    "state": (*model.STATES, model.HANDLED),
    "kind": model.MESSAGE_KINDS,
}
WITHOUT_CHANGES = ("cat", "export")  # formats in which the same message would only stand twice
BEGINNINGS = ("cursor", "after_cursor", "cursor_file")
YES, NO = ("", "yes", "y", "true", "t", "on", "1"), ("no", "n", "false", "f", "off", "0")


def parameters(args: Args, form: str) -> tuple[Json, int | None]:
    """What to ask msgd for, and how many messages to print of that, None: all. Raises UsageError."""
    _check(args)
    now_ns = time.time_ns()
    since, until = (_time_ns(args.get(name), now_ns) for name in ("since", "until"))
    if since is not None and until is not None and since > until:
        raise UsageError("--since is later than --until", "a stretch of time is `-S -2h -U -1h`, say")
    follow, reverse, after = args.has("follow"), args.has("reverse"), _after(args)
    lines = _lines(args, is_resumed=after is not None)
    is_first = after is not None and not reverse
    changes = follow and not args.has("cursor_file") and form not in WITHOUT_CHANGES
    asked = {
        **{name: _plain(args.get(name)) for name in FILTERS},
        "since_ns": since,
        "until_ns": until,
        "lines": None if is_first else lines,
        "reverse": reverse or None,
        "follow": follow or None,
        "after_cursor": after,
        "grep": _pattern(args),
        "search": _plain(args.get("search")),
        "changes": changes or None,
        "steps": (form in HUMAN and not args.has("quiet")) or None,
    }
    return asked, lines if is_first else None


def _check(args: Args) -> None:
    if args.has("follow") and args.has("reverse"):
        raise UsageError("--follow goes forward: it cannot be had with --reverse")
    for name, choices in CHOICES.items():
        value = args.get(name)
        if value is not None and value not in choices:
            raise UsageError(f"--{name}={value}: expected {', '.join(choices)}")


def _time_ns(text: str | None, now_ns: int) -> int | None:
    return None if text is None else time_ns(text, now_ns)


def _plain(text: str | None) -> str | None:
    return None if text is None else plain(text)


def _lines(args: Args, *, is_resumed: bool) -> int | None:
    """The number of -n, or what stands for it; None: all."""
    given, follow = args.get("lines"), args.has("follow")
    if follow and (args.has("no_tail") or is_resumed):
        given = "all"
    if given is None and follow:
        has_begin = any(args.has(name) for name in (*BEGINNINGS, "since"))
        return None if has_begin else FOLLOWED_LINES
    if given is None:
        return PAGER_END_LINES if args.has("pager_end") else None
    if given == "all":
        return None
    if not given.isdecimal() or len(given) > 12:
        raise UsageError(f"-n {given}: expected a number of lines, or all")
    return int(given)


def _after(args: Args) -> str | None:
    """The cursor behind which to begin."""
    given = [name for name in BEGINNINGS if args.has(name)]
    if len(given) > 1:
        first, second = (f"--{name.replace('_', '-')}" for name in given[:2])
        raise UsageError(f"{first} and {second} are two ways to say one thing")
    if args.has("cursor"):
        return _right_before(plain(args.get("cursor") or ""))
    file = args.get("cursor_file")
    return _plain(args.get("after_cursor")) if file is None else _read_cursor(file)


def _right_before(cursor: str) -> str:
    """A cursor behind which the message of `cursor` comes first: `l=<log>;o=<offset>;i=<index>;m=<id>`."""
    log, _, place = cursor.partition(";o=")
    offset, _, rest = place.partition(";i=")
    index = rest.partition(";")[0]
    if not index.isdecimal() or not offset.strip("0") or offset.strip("0123456789abcdef"):
        return cursor  # msgd says what is wrong with it
    if int(index):
        return f"{log};o={offset};i={int(index) - 1}"
    return f"{log};o={int(offset, 16) - 1:x};i=0"


def _read_cursor(file: str) -> str | None:
    """What a run before has left in the cursor file; None: there was none.

    Raises UsageError also where it could not be written later, when the messages were printed already.
    """
    if not os.path.isdir(os.path.dirname(file) or "."):
        raise UsageError(f"--cursor-file={file}: there is no such directory")
    if not os.path.basename(file):
        raise UsageError(f"--cursor-file={file}: expected the name of a file")
    try:
        with open(file, encoding="ascii") as reader:
            return reader.read(4096).strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        why = getattr(exc, "strerror", None) or "there is no cursor in it"
        raise UsageError(f"cannot read the cursor file {file}: {why}") from exc


def _pattern(args: Args) -> str | None:
    """As journalctl: a pattern in small letters finds capitals, too; --case-sensitive overrules it."""
    text, sensitive = args.get("grep"), args.get("case_sensitive")
    if sensitive is not None and sensitive not in YES + NO:
        raise UsageError(f"--case-sensitive={sensitive}: expected yes or no")
    if text is None:
        return None
    is_sensitive = text != text.lower() if sensitive is None else sensitive in YES
    return plain(text) if is_sensitive else f"(?i){plain(text)}"
