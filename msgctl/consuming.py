"""A consumer's calls, over as many connections as it takes.

The daemon knows this program by its holder, 16 random bytes: where the connection breaks, a new one goes on
with what was handed out, and settles what was finished meanwhile. So a restart of msgd costs a wait, and so
does a disk that is full: what was handled is not handled again.
"""

import os
import time
from binascii import b2a_base64

from msgctl.client import Client
from msgctl.output import complain
from msgd.errors import MsgdError, StorageRefused, Unreachable
from msgd.wire.varlink import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

CALL_S = 60.0  # one call waits so long at most: who is gone without a word is noticed
FIRST_S, CAP_S = 0.05, 2.0  # between tries to reach a msgd that is away


class Consumer:
    """This program as a holder of the consumer `name`."""

    def __init__(self, client: Client, name: str, tell: bool) -> None:
        """`client` is the first connection; whoever made it closes it. `tell`: say on stderr what is odd."""
        self.name = name
        self.sleep: Callable[[float], object] = time.sleep  # may raise; returns true to give up
        self._client = client
        self._own: Client | None = None  # a connection that was made here
        self._holder = b2a_base64(os.urandom(16), newline=False).decode()
        self._tell = tell

    def begin(self, peer: str | None, kind: str | None, start: str | None) -> Json:
        """Make the consumer or go on with it. Raises UsageError, UnknownPeer."""
        given: Json = {"name": self.name, "peer": peer, "kind": kind, "from": start}
        return self._client.call("RecvBegin", holder=self._holder, **given)

    def next(self, settled: list[Json], deadline_s: float | None) -> Json:
        """Settle, then the next message: the answer of RecvNext, without `message` at the deadline.

        Raises Unreachable or StorageRefused where that is so at the deadline, but tries at least twice;
        without one it waits.
        """
        while True:
            left_s = CALL_S if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            wait_ms = round(min(left_s, CALL_S) * 1000)
            answer = self._call("RecvNext", deadline_s, wait_ms, settle=settled, timeout_ms=wait_ms)
            settled = []
            _tell_lost(answer)
            if answer.get("message") or (deadline_s is not None and time.monotonic() >= deadline_s):
                return answer

    def settle(self, settled: list[Json], deadline_s: float | None) -> None:
        """Say what became of messages; it is in the daemon's log then. Raises as `next` and `sleep` do."""
        if settled:
            self._call("RecvSettle", deadline_s, 0, settle=settled)

    def close(self) -> None:
        """What was not settled goes to the next who asks."""
        if self._own is not None:
            self._own.close()

    # --- connections ------------------------------------------------------------------------------------

    def _call(self, method: str, deadline_s: float | None, wait_ms: int, **parameters: "Any") -> Json:
        lost: MsgdError | None = None
        wait_s = FIRST_S
        while True:
            try:
                if isinstance(lost, Unreachable):
                    self._reach_again()
                return self._client.call(
                    method,
                    timeout_s=wait_ms / 1000 + self._client.timeout_s,
                    name=self.name,
                    holder=self._holder,
                    **parameters,
                )
            except (Unreachable, StorageRefused) as exc:
                self._tell_waiting(exc)
                is_first, lost = lost is None, exc
            left_s = CAP_S if deadline_s is None else deadline_s - time.monotonic()
            if is_first:
                left_s = max(left_s, FIRST_S)  # a connection that a restart broke ends nothing yet
            if left_s < 0 or self.sleep(min(wait_s, left_s)):
                _tell_not_noted(parameters.get("settle") or ())
                raise lost
            wait_s = min(2 * wait_s, CAP_S)

    def _reach_again(self) -> None:
        self.close()
        self._client = self._own = Client(self._client.path, timeout_s=self._client.timeout_s)

    def _tell_waiting(self, exc: MsgdError) -> None:
        if self._tell:
            complain(f"msgctl: {exc.message.removesuffix('.')}: waiting until it can go on\n")
            self._tell = False


def _tell_not_noted(settled: "Iterable[Json]") -> None:
    for each in settled:
        complain(f"msgctl: what became of {each['id']} could not be noted: it may come again\n")


def _tell_lost(answer: Json) -> None:
    """Messages that nobody can have any more."""
    if answer.get("lost"):
        complain(f"msgctl: {answer['lost']} messages of this consumer are not kept any more, passed over\n")
