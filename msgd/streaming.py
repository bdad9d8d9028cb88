"""The answers to one call of `Log`: what is there, and for who follows what comes.

A client that does not read stops its own worker, which keeps nothing but the answer that it writes. It goes
on where it was, however far the log has come: all that is remembered is a log offset.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Never

import msgspec

from msgd import showing
from msgd.history import History
from msgd.log.record import Kind
from msgd.parts import Part, Step, Steps
from msgd.rows import Cursor, Filter

if TYPE_CHECKING:
    from msgd.control import Control

PEERS_S = 1.0  # how old what is known of peers may be; what the log tells of them is known at once


class Stream:
    """Replies to the present call of `control`. Raises ClientGone, OSError and what queries raise."""

    def __init__(
        self, control: Control, history: History, wanted: Filter, *, as_lines: bool, steps: bool
    ) -> None:
        self._control = control
        self._history = history
        self._wanted = wanted
        self._as_lines = as_lines
        self._steps = Steps() if steps else None
        self._peers_s = time.monotonic()

    def tell(self, upto: int) -> None:
        """What stands before log offset `upto`."""
        self._reply(self._history.told(self._wanted, upto, as_lines=self._as_lines, steps=self._steps))

    def follow(self, upto: int, *, changes: bool) -> Never:
        """What comes behind it; with `changes` what becomes of the messages before. Ends with the client."""
        history, as_lines, control = self._history, self._as_lines, self._control
        steps = None if self._steps is None else Steps(follows=True)
        all_of_them = msgspec.structs.replace(self._wanted, lines=None, reverse=False)
        while True:
            control.follow(upto)
            since, upto = upto, control.place.page.committed
            flipped = self._look_at_peers(since, upto)
            if changes:
                self._reply(history.changes(all_of_them, since, upto, flipped=flipped, as_lines=as_lines))
            behind = Cursor(control.place.reader.log_id, (since - 1, 0), None).text
            new = msgspec.structs.replace(all_of_them, after=behind)
            self._reply(history.told(new, upto, as_lines=as_lines, steps=steps))

    def _look_at_peers(self, since: int, upto: int) -> dict[int, int]:
        """Ask how they are now, where that may have changed; those for whom `held` began or ended.

        With each the log offset before which all messages to it were final when it was asked before.
        """
        now_s = time.monotonic()
        headers = self._control.place.reader.headers(since, upto, on_damage=lambda _: None)
        if now_s - self._peers_s < PEERS_S and not any(header.kind == Kind.PEER for header in headers):
            return {}
        self._peers_s = now_s
        before, open_from = self._control.holds, self._control.open_from
        self._control.look_at_peers()
        after = self._control.holds
        flipped = [number for number, hold in after.items() if bool(hold) != bool(before.get(number))]
        return {number: open_from.get(number, 0) for number in flipped}

    def _reply(self, told: Iterable[Part | Step]) -> None:
        for part in told:
            match part:
                case Step():
                    step = {"clock_step_ns": part.clock_step_ns, "at_ns": part.at_ns}
                    self._control.reply({"messages": [], "steps": [step]}, continues=True)
                case Part(rows=[]):
                    end = f'\n],"cursor":"{part.cursor}"}}'.encode()
                    self._control.reply_encoded(b'{"messages":[\n', part.lines, end)
                case Part():
                    self._control.reply({"messages": _messages(part)}, continues=True)


def _messages(part: Part) -> list[dict[str, Any]]:
    more = {} if part.was is None else {"was": part.was}
    return [{**showing.message(row), **more} for row in part.rows]
