"""Events: one line each for the operator, to the journal, the terminal or JSON lines. Never waits.

`event("link.opened", peer="node3", address="192.168.1.5:6743")` looks the name up in `msgd.events` (an
unknown name is a programming error: KeyError), leaves at once when its level is not shown, and otherwise
goes through a few steps (`processors`, in structlog's form) to one of three sinks, chosen once by `setup`:

| stderr is | sink | form |
|---|---|---|
| the journal, by $JOURNAL_STREAM | journald's own socket | fields: `journalctl PEER=node3` finds them |
| a terminal | that terminal | structlog's console, imported only here; control characters escaped |
| anything else | stderr | one JSON object per line |

Rules kept: no sink may hold msgd up. With journald stopped, 278 datagrams fit and a blocking sender then
hangs, and with it the watchdog; a full pipe does the same. So every write is non-blocking; what does not
fit is dropped, counted, and told (`events.dropped`) as soon as something fits again. The wait for a file
on a stalled disk cannot be avoided this way: under systemd stderr is no file.

Safe after fork: no lock, no thread, no buffer; a child that closes descriptors keeps `fds()` open. The
count of drops is per process. Not safe for use from several threads.
"""

import json
import os
import select
import socket
import stat
import sys
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

from logging_journald import JournaldTransport  # type: ignore[import-untyped]  # it ships no marker

from msgd.events import DEBUG, ERROR, EVENTS, INFO, WARNING

JOURNAL_SOCKET = str(JournaldTransport.SOCKET_PATH)
IDENTIFIER = "msgd"
PRIORITY = {DEBUG: 7, INFO: 6, WARNING: 4, ERROR: 3}  # syslog(3)
JOURNAL_NAMES = {"id": "MSG_ID", "identity": "PEER_ID", "link": "LINK_ID", "worker": "WORKER_PID"}
MAPPED = "::ffff:"  # what a dual-stack socket calls an IPv4 address


class Sink:
    """Where rendered events go. `send` raises OSError for what cannot be taken now."""

    def __init__(self, send: Callable[[Any], None], fds: list[int]) -> None:
        self._send = send
        self.fds = fds
        self.dropped = 0

    def put(self, rendered: Any) -> None:
        try:
            self._send(rendered)
        except OSError:
            self.dropped += 1
        else:
            if self.dropped:
                tell_dropped()


class Lines:
    """Whole lines to a descriptor, without waiting and without changing how others see that descriptor.

    O_NONBLOCK belongs to the open file that a shell and its other children share, so a pipe or terminal
    is opened a second time, and a socket is asked per call. A line longer than PIPE_BUF may be torn by a
    full pipe: it counts as dropped, and the next line begins on a line of its own.
    """

    def __init__(self, fd: int) -> None:
        self.fds: list[int] = []  # beyond 0, 1 and 2
        self._torn = False
        self._write = self._writer(fd)

    def send(self, line: str) -> None:
        data = (b"\n" if self._torn else b"") + line.encode("utf-8", "backslashreplace") + b"\n"
        written = self._write(data)
        self._torn = written < len(data)
        if self._torn:
            raise BlockingIOError

    def _writer(self, fd: int) -> Callable[[bytes], int]:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            self._keep(fd)
            return lambda data: os.write(fd, data)
        if stat.S_ISSOCK(mode):
            sock = socket.socket(fileno=os.dup(fd))
            self._keep(sock.fileno())
            return lambda data: sock.send(data, socket.MSG_DONTWAIT)
        try:
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # another user's terminal, after su; a pipe that nobody reads any more
            self._keep(fd)
            return lambda data: _write_if_ready(fd, data)
        self._keep(own)
        return lambda data: os.write(own, data)

    def _keep(self, fd: int) -> None:
        if fd > 2:
            self.fds.append(fd)


def _write_if_ready(fd: int, data: bytes) -> int:
    """One write of what surely fits: a pipe that polls writable has room for PIPE_BUF."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(fd, data[: select.PIPE_BUF])


def _journal_sink(path: str) -> Sink:
    # connected=False: one socket for good, addressed at each send, so it survives a restart of journald;
    # a connected one would be replaced by the transport with a blocking one.
    transport = JournaldTransport(path, connected=False)
    transport.socket.setblocking(False)

    def send(pairs: list[tuple[str, Any]]) -> None:
        transport.send(pairs)

    return Sink(send, [transport.socket.fileno()])


def setup(
    level: str,
    *,
    stream: TextIO | None = None,
    env: Mapping[str, str] = os.environ,
    journal_socket: str = JOURNAL_SOCKET,
) -> None:
    """Choose the sink by what `stream` (default: stderr) is, and show events from `level` up.

    Once per daemon, before the first fork and after going to the background; again only to start over.
    """
    global _sink, _processors
    stream = stream or sys.stderr
    if is_journal(stream, env) and os.path.exists(journal_socket):
        _sink, _processors = _journal_sink(journal_socket), _JOURNAL
    else:
        lines = Lines(stream.fileno())
        _sink = Sink(lines.send, lines.fds)
        _processors = _console() if stream.isatty() else _JSON
    set_level(level)


def set_level(level: str) -> None:
    """Show events from `level` (debug, info, warning, error) up, in this process."""
    global _shown
    _shown = frozenset(name for name, priority in PRIORITY.items() if priority <= PRIORITY[level])


def bind(**fields: Any) -> None:
    """Add fields to every later event of this process: `bind(peer="node3", worker=os.getpid())`."""
    _bound.update(fields)


def event(name: str, /, *, level: str | None = None, **fields: Any) -> None:
    """Write one event; `level` overrides the table's. Never waits, raises nothing but KeyError.

    A field that is None is left out. 0.2 µs when the level is not shown.
    """
    level = level or EVENTS[name].level
    if level not in _shown:
        return
    if _sink is None:
        setup(INFO)
        assert _sink is not None
    given = {**_bound, **fields, "event": name}
    rendered: Any = {key: value for key, value in given.items() if value is not None}
    for process in _processors:
        rendered = process(None, level, rendered)
    _sink.put(rendered)


def is_shown(name: str) -> bool:
    """Whether `event(name)` would write: for callers to whom the fields themselves cost something."""
    return EVENTS[name].level in _shown


def fds() -> list[int]:
    """The descriptors that a child must keep to be able to write events (0, 1 and 2 apart)."""
    if _sink is None:
        setup(INFO)
    return list(_sink.fds) if _sink else []


def tell_dropped() -> None:
    """Tell how many events were dropped, if any were; they stay counted while even that finds no room."""
    if _sink is None or not _sink.dropped:
        return
    count, _sink.dropped = _sink.dropped, 0
    event("events.dropped", count=count)
    if _sink.dropped:
        _sink.dropped = count


def is_journal(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Whether systemd connected this stream to the journal: device and inode as $JOURNAL_STREAM says."""
    info = os.fstat(stream.fileno())
    return env.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"


# Processors: the steps from a dict of fields to what the sink takes, called as structlog calls them.

Fields = MutableMapping[str, Any]
Processor = Callable[[Any, str, Fields], Any]


def _plain(_log: Any, _level: str, fields: Fields) -> Fields:
    """Values that every sink can write: numbers, and text without IPv4-mapped addresses or surrogates."""
    for key, value in fields.items():
        if not isinstance(value, (bool, int, float)):
            text = value.hex() if isinstance(value, bytes) else str(value)
            if MAPPED in text and "." in text:
                text = text.replace(f"[{MAPPED}", "").replace(MAPPED, "").replace("]:", ":")
            fields[key] = text.encode("utf-8", "backslashreplace").decode()
    return fields


def _journal_fields(_log: Any, level: str, fields: Fields) -> list[tuple[str, Any]]:
    """The journal's fields, as pairs: `journalctl -o verbose` shows them, MESSAGE is the sentence."""
    name = fields.pop("event")
    kind = EVENTS[name]
    pairs: list[tuple[str, Any]] = [
        ("MESSAGE", kind.text.format_map(_Gaps(fields))),
        ("MESSAGE_ID", kind.message_id),
        ("PRIORITY", PRIORITY[level]),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        ("EVENT", name),
    ]
    pairs += [(JOURNAL_NAMES.get(key, key.upper()), value) for key, value in fields.items()]
    return pairs


class _Gaps(dict[str, Any]):
    """Fields for a sentence; one that is absent shows as '?'."""

    def __missing__(self, key: str) -> str:
        return "?"


def _json_line(_log: Any, level: str, fields: Fields) -> str:
    name = fields.pop("event")
    time = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return json.dumps({"time": time, "level": level, "event": name, **fields}, default=str)


def _escape(_log: Any, _level: str, fields: Fields) -> Fields:
    """Foreign text must not drive the terminal: control characters become escapes, tracebacks keep lines."""
    for key, value in fields.items():
        if isinstance(value, str) and not value.isprintable():
            keep = "\n\t" if key == "exception" else ""
            fields[key] = "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in value)
    return fields


def _console() -> list[Processor]:
    from structlog import dev, processors  # a fifth of a start: it brings rich and asyncio

    return [
        _plain,
        _escape,
        processors.add_log_level,
        processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
        dev.ConsoleRenderer(exception_formatter=dev.plain_traceback),
    ]


_JSON: list[Processor] = [_plain, _json_line]
_JOURNAL: list[Processor] = [_plain, _journal_fields]

_sink: Sink | None = None
_processors: list[Processor] = []
_bound: dict[str, Any] = {}
_shown: frozenset[str] = frozenset((INFO, WARNING, ERROR))
