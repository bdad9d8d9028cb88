"""What a long command says while it works: progress, findings, its result."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgd.errors import MsgdError
from msgd.talking import Ticker

if TYPE_CHECKING:
    from msgd.control import Control


class Report:
    """To a client that called with `more`; to others only the result."""

    def __init__(self, control: Control, more: bool) -> None:
        self._control = control
        self._more = more
        self._ticker = Ticker(0.5)
        self._began_s = time.monotonic()
        self.findings: list[str] = []

    @property
    def seconds(self) -> float:
        """Since the command began."""
        return round(time.monotonic() - self._began_s, 3)

    def progress(self, what: str, done: int, total: int) -> None:
        """How far it is, at most twice a second. Raises ClientGone when nobody waits for it any more."""
        if not self._ticker.is_due():
            return
        self._control.check_client()
        if self._more:
            told = {"what": what, "done": done, "total": total}
            self._control.reply({"progress": told}, continues=True)

    def find(self, kind: str, text: str, **fields: Any) -> None:
        """Something worth telling."""
        if kind in ("damage", "difference"):
            self.findings.append(text)
        if self._more:
            self._control.reply({"finding": {"kind": kind, "text": text, **fields}}, continues=True)

    def result(self, result: dict[str, Any], error: MsgdError | None) -> None:
        """The end: the result alone, or in front of the error."""
        result = {**result, "seconds": self.seconds}
        if error is None:
            self._control.reply({"result": result})
            return
        if self._more:
            self._control.reply({"result": result}, continues=True)
        raise error
