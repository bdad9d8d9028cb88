"""What a long command prints while the daemon works: progress on a terminal, findings, then the result."""

import os
import sys
from _collections_abc import Callable

from msgctl.client import Client
from msgctl.output import Screen, complain, field
from msgd.wire.varlink import Json


def work(
    screen: Screen,
    client: Client,
    form: str,
    line_of: Callable[[Json], str],
    method: str,
    parameters: Json,
) -> None:
    """Call a method that streams; print what it finds, then its result.

    Both are lines, the result as `line_of` has it; in JSON objects, a finding's with `finding`. Raises what
    the daemon ends with.
    """
    line = Line(sys.stderr.isatty() and form != "json")
    try:
        for told in client.stream(method, endless=True, **parameters):
            if told.get("progress"):
                line.show(_progress(told["progress"]))
                continue
            line.clear()
            if told.get("finding"):
                _find(screen, form, told["finding"])
            if told.get("result"):
                _end(screen, form, line_of, told["result"])
    finally:
        line.clear()


def _find(screen: Screen, form: str, finding: Json) -> None:
    if form == "json":
        screen.json({"finding": finding})
    else:
        screen.write(f"{finding['kind']}: {field(finding['text'])}\n")


def _end(screen: Screen, form: str, line_of: Callable[[Json], str], result: Json) -> None:
    if form == "json":
        screen.json(result)
    else:
        screen.write(line_of(result) + "\n")


def _progress(progress: Json) -> str:
    total = progress["total"]
    share = f" {min(100, progress['done'] * 100 // total)} %" if total else ""
    return f"{field(progress['what'])}:{share}"


class Line:
    """One line of a terminal that is written over."""

    def __init__(self, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._is_dirty = False

    def show(self, text: str) -> None:
        if self._is_shown:
            complain(f"\r\x1b[K{text[: os.get_terminal_size(2).columns - 1]}")
            self._is_dirty = True

    def clear(self) -> None:
        if self._is_dirty:
            complain("\r\x1b[K")
            self._is_dirty = False
