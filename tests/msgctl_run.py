"""Runs msgctl's `main` inside the test: its real fds 0, 1 and 2 are files, its environment is given.

A process of its own would be truer and twenty times slower; `test_msgctl_start` runs real processes.
"""

import json
import os
import tempfile
from typing import Any

import pytest

from msgctl.cli import main


class Done:
    """What a run printed and how it ended."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.raw = out
        self.out = out.decode("utf-8", "surrogateescape")
        self.err = err.decode()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Runner:
    """`run("send", "node2", "hola", stdin=b"")` against the socket of a test."""

    def __init__(self, socket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.socket = socket
        self.monkeypatch = monkeypatch
        for name in ("MSGD_SOCKET", "MSGD_LAB_DIR", "MSGD_LAB_NET", "XDG_RUNTIME_DIR", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TZ", "UTC0")
        monkeypatch.setenv("MSGCTL_PAGER", "cat")  # none: `terminal` is pretended

    def __call__(self, *words: str, stdin: bytes | int = b"", terminal: bool = False) -> Done:
        if self.socket:
            words = ("--socket", self.socket, *words)
        if terminal:
            self.monkeypatch.setattr(os, "isatty", lambda fd: fd == 1)
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            tempfile.TemporaryFile() as source,
        ):
            if isinstance(stdin, bytes):
                source.write(stdin)
                source.seek(0)
                stdin = source.fileno()
            code = _with_fds((stdin, out.fileno(), err.fileno()), list(words))
            out.seek(0)
            err.seek(0)
            return Done(code, out.read(), err.read())


def _with_fds(fds: tuple[int, int, int], words: list[str]) -> int:
    saved = [os.dup(fd) for fd in (0, 1, 2)]
    try:
        for fd, source in enumerate(fds):
            os.dup2(source, fd)
        return main(words)
    finally:
        for fd, copy in enumerate(saved):
            os.dup2(copy, fd)
            os.close(copy)
