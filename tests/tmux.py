"""A terminal whose screen can be read: a command runs in tmux, is typed to, and seen as a person sees it."""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.nodes import is_running, wait_for
from tests.require import REPOSITORY
from tests.terminal import MSGCTL

WITHIN_S = 20.0


class Tmux:
    """`with Tmux(tmp_path / "t", "--socket", path, "chat", "b") as t: t.press("hola", "Enter")`"""

    def __init__(
        self,
        socket: Path,
        *words: str,
        command: Sequence[str] = MSGCTL,
        columns: int = 90,
        rows: int = 24,
        env: dict[str, str] | None = None,
    ) -> None:
        self._socket = os.fspath(socket)
        given = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **(env or {})}
        given.pop("TMUX", None)
        line = shlex.join([*command, *words])
        self._code = Path(f"{self._socket}.code")
        code = shlex.quote(os.fspath(self._code))
        self._env = given
        self._tmux(
            "new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", os.fspath(REPOSITORY),
            f"{line}; echo $? > {code}-; mv {code}- {code}", ";",
            "set", "-g", "remain-on-exit", "on", ";", "set", "-g", "status", "off",
        )  # fmt: skip
        self._pid = int(self._asked("pid"))

    def press(self, *keys: str) -> None:
        """Keys by tmux's names (`Enter`, `C-d`), anything else as it is."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self) -> list[str]:
        """The rows that are visible, without empty ones at the end."""
        return self._tmux("capture-pane", "-p").rstrip().split("\n")

    def see(self, text: str, within_s: float = WITHIN_S) -> list[str]:
        """Wait until a visible row contains `text`; the screen as it is then."""
        return self.until(lambda rows: any(text in row for row in rows), f"{text!r}", within_s)

    def until(self, holds: Callable[[list[str]], object], what: str, within_s: float = WITHIN_S) -> list[str]:
        """Wait until the screen is so; the screen as it is then."""
        deadline_s = time.monotonic() + within_s
        while not holds(rows := self.screen()):
            assert time.monotonic() < deadline_s, f"no {what} in:\n" + "\n".join(rows)
            time.sleep(0.02)
        return rows

    def end(self, within_s: float = WITHIN_S) -> int:
        """Wait for the end of the command; its exit code. The shell tells it: tmux may miss a child's end."""
        wait_for(self._code.exists, within_s, "its end")
        return int(self._code.read_text())

    def _asked(self, what: str) -> str:
        return self._tmux("display-message", "-p", f"#{{{what}}}").strip()

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-S", self._socket, "-f", os.devnull, *words]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")
        wait_for(lambda: not is_running(self._pid), WITHIN_S, "the end of tmux")
