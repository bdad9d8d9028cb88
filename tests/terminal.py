"""A terminal for tests: msgctl runs on a pty as a person sees it, and is typed to."""

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.require import REPOSITORY

WITHIN_S = 20.0
ROWS, COLUMNS = 40, 100
MSGCTL = (sys.executable, "-m", "msgctl")


class Terminal:
    """`with Terminal("--socket", path, "pair") as t: t.see("words"); t.answer("y"); t.end()`"""

    def __init__(
        self, *words: str, command: Sequence[str] = MSGCTL, env: dict[str, str] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (ROWS, COLUMNS))
        self.shown = ""
        self._seen = 0  # of what was shown, already looked for
        try:
            self.process = subprocess.Popen(
                [*command, *words],
                cwd=REPOSITORY,
                env={**os.environ, "TERM": "dumb", **(env or {})},
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                preexec_fn=_own_terminal,
            )
        finally:
            os.close(slave)

    def see(self, text: str, within_s: float = WITHIN_S) -> None:
        """Wait until `text` is shown, behind what was looked for before."""
        deadline_s = time.monotonic() + within_s
        while text not in self.shown[self._seen :]:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0 and self._read(left_s), f"no {text!r} in:\n{self.shown}"
        self._seen = self.shown.index(text, self._seen) + len(text)

    def answer(self, line: str) -> None:
        """A line, and Enter."""
        os.write(self._master, line.encode() + b"\n")

    def press(self, keys: str) -> None:
        """Keys, without Enter."""
        os.write(self._master, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal; nothing can be read from it any more."""
        os.close(self._master)
        self._master = -1

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.write(self._master, b"\x03")

    def end(self, within_s: float = WITHIN_S) -> int:
        """Wait for the end; the exit code."""
        deadline_s = time.monotonic() + within_s
        while self._read(max(0.0, deadline_s - time.monotonic())):
            assert time.monotonic() < deadline_s, f"still running:\n{self.shown}"
        return self.process.wait(max(0.1, deadline_s - time.monotonic()))

    def _read(self, timeout_s: float) -> bool:
        """Whether something came; at the end of the process nothing does."""
        if not select.select([self._master], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:
            return False  # EIO: nobody has the other end any more
        self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._master >= 0:
            os.close(self._master)


def _own_terminal() -> None:
    """Standard input becomes the controlling terminal, so that Ctrl-C is a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
