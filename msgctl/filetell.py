"""What is printed of files that were put or got: a line each, the errors, the bar meanwhile."""

import sys

from msgctl.ferry import Item, Result, Watch
from msgctl.filebar import Bar
from msgctl.output import BrokenOutput, Screen, complain, field
from msgctl.usage import size
from msgd import errors
from msgd.wire.varlink import Json, dump_text

NOBODY = "-" * 8  # in the place of an id: no message tells of it


class Telling(Watch):
    """Of one command, whose `items` are known. `code`: the exit code, that of the first file that failed."""

    def __init__(
        self, screen: Screen, form: str, op: str, peer: str | None, items: list[Item], *, quiet: bool
    ) -> None:
        self.code = errors.OK
        self._screen = screen
        self._form = form
        self._op = op
        self._peer = peer
        self._quiet = quiet
        self._files = 0
        self._bytes = 0
        is_shown = sys.stderr.isatty() and form != "json" and not quiet
        self._bar = Bar(len(items), sum(item.size for item in items), is_shown=is_shown)

    def ended(self, results: list[Result]) -> None:
        """Print them."""
        self._bar.clear()
        lines = [self._line(item, result) for item, result in results]
        self._files += len(results)
        self._bytes += sum(result.get("size") or 0 for _, result in results)
        self._print("".join(lines))
        if results:
            self._bar.show(results[-1][0].name, self._files, self._bytes)

    def moved(self, name: str, done: int) -> None:
        """Draw the bar."""
        self._bar.show(name, self._files, self._bytes + done)

    def stands(self, sentence: str) -> None:
        """Say so, on standard error."""
        self._bar.clear()
        if not self._quiet:
            complain(f"msgctl: {field(sentence)}; it goes on there when it can (Ctrl-C: next time)\n")

    def _print(self, text: str) -> None:
        """Whoever stops reading the lines does not stop the files."""
        if self._quiet:
            return
        try:
            self._screen.write(text)
        except BrokenOutput:
            self._quiet = True

    def clear(self) -> None:
        """Leave no bar behind."""
        self._bar.clear()

    def fail(self, error: Json, local: str) -> None:
        """One file could not be done, the others go on."""
        kind = errors.BY_NAME.get(error["name"], errors.MsgdError)
        self.code = self.code or kind.code
        self._bar.clear()
        if self._form == "json":
            told = {"code": kind.code, "error": error["message"], "hint": error["hint"], "file": local}
            complain(dump_text(told) + "\n")
            return
        hint = f"\n  {error['hint']}" if error["hint"] else ""
        complain(f"msgctl: {error['message']}{hint}\n")

    def _line(self, item: Item, result: Json) -> str:
        if result.get("error"):
            self.fail(result["error"], item.local)
            return ""
        if self._form == "json":
            known = {name: result.get(name) for name in ("name", "size", "sha256", "mtime_ns", "message")}
            told = {"op": self._op, "peer": self._peer, "local": item.local, **known}
            return self._screen.json_text(told) + "\n"
        id = result.get("message") or NOBODY
        where = f"{field(self._peer)} " if self._peer else ""
        return f"{id} {self._op} {where}{field(item.name)} ({size(result['size'])})\n"
