"""`msgctl log`: messages of the log, by journalctl's letters.

The daemon filters; `parameters` makes the options one call, here the answers become lines. JSON that nobody
has to look at (no terminal, no --fields) passes through as the daemon wrote it. A cursor is the place of the
last message that was printed; the cursor file is replaced, never half written, and while following it is
written after every answer, so that whoever is stopped goes on where he was.
"""

import os
from _collections_abc import Iterator

from msgctl import messages
from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import BrokenOutput, Screen
from msgctl.parameters import parameters
from msgd.errors import UsageError
from msgd.wire.varlink import Json


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Print what was asked for; the exit code."""
    log = _Log(args, screen, client, form)
    if not screen.terminal or args.has("follow") or args.has("no_pager"):
        return log.print()
    from msgctl import pager

    return pager.through(os.environ, args.has("pager_end"), log.print)


class _Log:
    """One run: what to ask for, and how to show what comes."""

    def __init__(self, args: Args, screen: Screen, client: Client, form: str) -> None:
        """Raises UsageError."""
        self._args = args
        self._screen = screen
        self._client = client
        self._is_human = form in messages.HUMAN
        self._asked, self._first = parameters(args, form)
        fields = messages.choice(args.get("fields"), form)
        self._write = messages.writer(screen, form, fields)
        self._is_raw = form == "json" and fields is None and self._first is None and not screen.terminal
        if args.has("no_full"):
            from msgctl.columns import available

            screen.columns = available(os.environ)

    def print(self) -> int:
        """Everything, to its end; the exit code."""
        file = self._args.get("cursor_file")
        try:
            cursor = self._print_messages()
            if self._args.has("show_cursor") and cursor:
                self._screen.write(f"-- cursor: {cursor}\n")
        except BrokenOutput:
            return 0  # `msgctl log | head` is no failure, under `set -o pipefail` neither
        if file and cursor:
            write_cursor(file, cursor)
        return 0

    def _print_messages(self) -> str:
        """The cursor of the last one, empty where there was none."""
        cursor, file, follow = "", self._args.get("cursor_file"), self._args.has("follow")
        for lines, answer in self._answers():
            self._screen.write_bytes(lines)
            found = self._take(answer.get("messages") or [])
            if found:
                self._write(found)
            for step in answer.get("steps") or []:
                self._screen.write(messages.clock_step(self._screen, step))
            cursor = (found[-1] if found else answer).get("cursor") or cursor
            if follow and file and cursor:
                write_cursor(file, cursor)
            if self._first == 0:
                break
        if not cursor and self._screen.terminal and self._is_human and not self._args.has("quiet"):
            self._screen.write("-- No entries --\n")
        return cursor

    def _answers(self) -> Iterator[tuple[bytes, Json]]:
        """What comes: lines that are ready, and the rest of the answer."""
        follow = self._args.has("follow")
        if self._is_raw:
            yield from self._client.lines("Log", endless=follow, **self._asked)
        else:
            for answer in self._client.stream("Log", endless=follow, **self._asked):
                yield b"", answer

    def _take(self, found: list[Json]) -> list[Json]:
        """As many of them as are still wanted."""
        if self._first is not None:
            found = found[: self._first]
            self._first -= len(found)
        return found


def write_cursor(path: str, cursor: str) -> None:
    """Replace the cursor file."""
    new = f"{path}.{os.getpid()}.new"
    try:
        with open(new, "w", encoding="ascii", errors="backslashreplace") as writer:
            writer.write(cursor + "\n")
        os.replace(new, path)
    except OSError as exc:
        raise UsageError(f"cannot write the cursor file {path}: {exc.strerror}") from exc
