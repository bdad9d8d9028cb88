"""Body of the worker that serves this node's store to one peer: what it may read, and what it may put there.

One connection, one process: it reads what has come, writes it down, and answers a group of files once all of
them are durable, which is whenever nothing more has come. It works at a lower priority than what carries
messages.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgd import children, journal
from msgd.errors import MsgdError, NotTrusted
from msgd.files.catalogue import NAME
from msgd.files.depot import Depot
from msgd.files.frames import (
    Alive,
    Check,
    Close,
    Dup,
    Event,
    Frame,
    Get,
    List,
    Piece,
    Put,
    Remove,
)
from msgd.files.giving import Giving
from msgd.files.stream import QUIET_S, Stream
from msgd.files.taking import Taking
from msgd.peer.errors import ProtocolError, RemoteProtocolError
from msgd.talking import Ticker

if TYPE_CHECKING:
    from msgd.config import Config
    from msgd.node import Node
    from msgd.session import Wire
    from msgd.wire.ledger import Taken

IDLE_S = 3600.0  # between two questions: a person may be typing
NICENESS = 10

RIGHTS: dict[str, tuple[str, ...]] = {"none": (), "read": ("read",), "write": ("read", "write")}
OF_A_PUT = (Put, Check, Close)
VERBS = {"read": "read", "write": "write to"}
HINT = 'There: files = "{}" under [peer.{}] in the configuration, then `msgctl reload`.'


class Left(OSError):
    """It is not to be served any more."""


def serve(node: Node, wire: Wire, config: Config, taken: Taken, channel: socket.socket) -> int:
    """Answer until the peer leaves, or the log process says anything: that it is to end, or is gone."""
    children.set_title("files", taken.name)
    lower_priority()
    journal.event("files.opened", peer=taken.name)
    run(Sharing(node, wire, config, taken.name, channel))
    return 0


def run(sharing: Sharing) -> str:
    """To the end; why it came."""
    reason = "it has left"
    try:
        sharing.run()
    except (OSError, ProtocolError, MsgdError) as error:
        reason = str(error)
    finally:
        sharing.close(reason)
    return reason


def lower_priority() -> None:
    """Messages first; a sandbox that forbids it costs only that."""
    try:
        os.nice(NICENESS)
    except OSError:
        return


class Sharing:
    """The answers to one peer."""

    def __init__(self, node: Node, wire: Wire, config: Config, name: str, channel: socket.socket) -> None:
        self.identity = wire.connection.peer_identity
        self.stream = Stream(wire.session, wire.connection.rest(), self._check_leave)
        self.peer = name
        self._own_name = node.name
        self._config = config
        self._rights = RIGHTS[config.files_right(name)]
        self._channel = channel
        self._ticker = Ticker()
        self._depot: Depot | None = None
        self._taking = Taking(self)
        self._giving = Giving(self)
        self._answers: dict[type[Frame], Callable[[Any], None]] = {
            Put: self._taking.put,
            Check: self._taking.check,
            Close: self._taking.close_file,
            Get: self._giving.get,
            List: self._giving.ls,
            Dup: self._giving.dup,
            Remove: self._giving.rm,
        }

    # --- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Answer until it leaves. Raises OSError, ProtocolError, MsgdError."""
        while True:
            event = self.stream.hear_now()
            if event is None and self._taking.has_waiting:
                self._taking.advance()
                continue
            if event is None and (event := self._wait()) is None:
                return
            if isinstance(event, Piece):
                self._taking.piece(event)
            else:
                self._answer(event)

    def _answer(self, frame: Frame) -> None:
        answer = self._answers.get(type(frame))
        if answer is None:
            raise RemoteProtocolError(f"a {type(frame).__name__} of who asks")
        if not isinstance(frame, OF_A_PUT):
            self._taking.land()  # answers come in the order of what was asked
        answer(frame)

    def _wait(self) -> Event | None:
        """The next event; None when it has left."""
        self.stream.flush()
        poll = select.poll()
        poll.register(self.stream.session, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        quiet_s = QUIET_S if self._taking.is_flowing else IDLE_S
        until_s = time.monotonic() + quiet_s
        while (event := self.stream.hear_now()) is None and not self.stream.is_closed:
            if not poll.poll(max(0.0, until_s - time.monotonic()) * 1000):
                raise Left(f"it was silent for {quiet_s:g} s")
            self._check_leave()
        return event

    def _check_leave(self) -> None:
        if select.select([self._channel], [], [], 0)[0]:
            raise Left("it is not to be served any more")

    # --- for what takes and gives -----------------------------------------------------------------------

    def tick(self, *_: int) -> None:
        """Asked again and again during what takes time: a sign of life, once a second."""
        if self._ticker.is_due():
            self._check_leave()
            self.stream.say(Alive())
            self.stream.flush()

    def tick_between(self, *_: int) -> None:
        """The same amid the content of a file, where nothing else may be said."""
        if self._ticker.is_due():
            self._check_leave()

    def depot(self, right: str) -> Depot:
        """The store, for who has this right. Raises NotTrusted, StorageRefused."""
        if right not in self._rights:
            text = f"{self._own_name} does not let {self.peer} {VERBS[right]} its store."
            raise NotTrusted(text, HINT.format(right, self.peer))
        if self._depot is None:
            self._depot = Depot(
                self._config.store,
                os.path.join(self._config.state, NAME),
                self.identity,
                self._config.files_quota(self.peer),
                lambda why: journal.event("files.uncatalogued", reason=why),
            )
        return self._depot

    def close(self, reason: str) -> None:
        """Give up what has not landed, and tell what was done."""
        self._taking.abandon()
        if self._depot is not None:
            self._depot.close()
        self.stream.close()
        done: dict[str, Any] = {**self._taking.totals, **self._giving.totals}
        journal.event("files.closed", peer=self.peer, reason=reason, **done)
