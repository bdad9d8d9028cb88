"""Is the log process at work? The supervisor asks, tells systemd, and feeds the watchdog only then.

A disk that hangs is no reason to kill a log process that waits for it: while the shared page says that a
sync runs, the watchdog is fed for up to `watchdog_stall_s`, with an event and STATUS=.
"""

import time
from collections.abc import Callable

from msgd import journal, systemd
from msgd.log.page import SharedPage
from msgd.wire.ledger import Ping, Pong

PING_S = 5.0  # how often the log process is asked when no watchdog asks for more
STALL_TOLD_S = 5.0  # a sync that takes longer is an event


class Pulse:
    """Questions to the log process and what its answers mean. `ask` offers it a frame, if it reads."""

    def __init__(
        self, page: SharedPage, notifier: systemd.Notifier, ask: Callable[[Ping], bool], stall_s: float
    ) -> None:
        self.due_s = 0.0  # CLOCK_MONOTONIC of the next question
        self.stall_s = stall_s
        self._page = page
        self._notifier = notifier
        self._ask = ask
        watchdog_s = systemd.watchdog_s()
        self._every_s = min(PING_S, watchdog_s / 3) if watchdog_s else PING_S
        self._asked = 0
        self._answered = 0
        self._stall_told = False
        self._pong = Pong(0, 0, 0, 0)  # the last one
        self._told_status = ""

    def begin(self) -> None:
        """A new log process starts: what the last one owed is forgotten."""
        self._answered = self._asked
        self.due_s = time.monotonic() + self._every_s

    def heard(self, pong: Pong, peers: int) -> None:
        """The log process answers; `peers`: how many are known."""
        self._answered = max(self._answered, pong.token)
        self._pong = pong
        text = self.status(peers)
        if text != self._told_status:
            self._told_status = text
            self._notifier.status(text)

    def beat(self, now_s: float) -> None:
        """Feed the watchdog if that is right, and ask again."""
        self.due_s = now_s + self._every_s
        journal.tell_dropped()
        stalled_s = self._stalled_s()
        if self._answered == self._asked or 0 < stalled_s < self.stall_s:
            self._notifier.watchdog()
        else:
            journal.event("watchdog.withheld", reason="the log process does not answer")
        self._tell_stall(stalled_s)
        if self._answered == self._asked and self._ask(Ping(self._asked + 1)):
            self._asked += 1

    def status(self, peers: int) -> str:
        """The line for `systemctl status`."""
        pong = self._pong
        text = f"{pong.connected} of {peers} peers connected, {pong.queued} messages queued"
        text += f", {pong.held} held" if pong.held else ""
        return text + (f", {pong.index}" if pong.index else "")

    def _stalled_s(self) -> float:
        since_ns = self._page.syncing_since_ns
        return (time.monotonic_ns() - since_ns) / 1e9 if since_ns else 0.0

    def _tell_stall(self, stalled_s: float) -> None:
        if stalled_s > STALL_TOLD_S and not self._stall_told:
            self._stall_told = True
            journal.event("sync.stalled", seconds=round(stalled_s, 1))
            self._notifier.status(f"waiting for the disk since {stalled_s:.0f} s")
        elif self._stall_told and not stalled_s:
            self._stall_told = False
            journal.event("sync.resumed")
