"""A link worker's way to the log process: requests with an answer, and frames that come by themselves."""

import select
import socket
from typing import Any

from msgd.wire.frame import Frame
from msgd.wire.ledger import TABLE, Cut
from msgd.wire.pipe import Pipe


class LinkEnded(Exception):
    """The connection is over, for this reason."""


class Ledger:
    """The worker's end of its channel."""

    def __init__(self, channel: socket.socket) -> None:
        self.pipe = Pipe(channel, TABLE)
        self.unheard: list[tuple[Any, memoryview]] = []  # what came while we waited for an answer

    def ask(self, frame: Any) -> Frame:
        """Send a request and wait for its answer. Raises LinkEnded when the log process is gone or cuts."""
        self.tell(frame)
        poll = select.poll()
        poll.register(self.pipe.sock, select.POLLIN)
        while True:
            poll.poll()
            answer: Frame | None = None
            for heard, payload in self.hear():
                if getattr(heard, "token", None) == frame.token:
                    answer = heard
                elif isinstance(heard, Cut):
                    raise LinkEnded(heard.reason)
                else:
                    self.unheard.append((heard, payload))
            if answer is not None:
                return answer

    def hear(self) -> list[tuple[Any, memoryview]]:
        """What it has said. Raises LinkEnded when it is gone."""
        frames = self.pipe.receive()
        if frames is None:
            raise LinkEnded("the log process is gone")
        return list(frames)

    def tell(self, frame: Any, payload: bytes | memoryview = b"") -> None:
        """Say something to it. Raises LinkEnded when it is gone."""
        try:
            self.pipe.send(frame, payload)
        except OSError as error:
            raise LinkEnded("the log process is gone") from error
