"""Link workers in processes of their own, with the test as the log process behind each of them.

    with Ends() as ends:
        dialler, acceptor = ends.dial("pair"), ends.accept()
        grant(dialler)
        hello = acceptor.hear(TakeHello)

The workers run the daemon's own bodies over a real connection on loopback.
"""

import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, TypeVar

import msgspec

from msgd import worker
from msgd.config import load
from msgd.log.reader import Reader
from msgd.node import Node
from msgd.trust import tls
from msgd.trust.identity import NodeKey
from msgd.wire.frame import DirectionState
from msgd.wire.ledger import TABLE, Granted, KnownPeer, MayDial
from msgd.wire.pipe import Pipe
from tests import forked
from tests.peer_pair import LIMITS, A, D

SOON_S = 10.0
HANDSHAKE_S = 5.0
NOWHERE = DirectionState(bytes(16), 0, bytes(32))
HOST = "127.0.0.1"
CONFIG = load("/dev/null", {"HOME": "/"}, 1000)

F = TypeVar("F")


def node(key: NodeKey, name: str, **fields: Any) -> Node:
    """A node that is no daemon."""
    made = Node(
        key,
        name,
        os.urandom(16),
        LIMITS,
        tls.acceptor_context(key),
        tls.dialler_context(),
        "",
        HANDSHAKE_S,
        30.0,
        60.0,
    )
    return replace(made, **fields)


NODE_A = node(A, "node-a")
NODE_D = node(D, "node-d", port=7001)


class End:
    """One worker, seen by its log process."""

    def __init__(self, body: Callable[[socket.socket], int], sock: socket.socket | None = None) -> None:
        mine, theirs = socket.socketpair()
        keep_fds = {theirs.fileno(), *([sock.fileno()] if sock else [])}
        self.pid = forked.start(lambda: body(theirs), keep_fds)
        theirs.close()
        if sock is not None:
            sock.close()
        self.pipe = Pipe(mine, TABLE)
        self._heard: list[Any] = []
        self._code: int | None = None

    def say(self, frame: msgspec.Struct) -> None:
        self.pipe.send(frame)

    def hear(self, kind: type[F]) -> F:
        """The worker's next word, which must be of this kind."""
        frame = self.next()
        assert isinstance(frame, kind), f"heard {frame}, expected {kind.__name__}"
        return frame

    def next(self) -> Any:
        """The worker's next word, None when it has ended."""
        deadline_s = time.monotonic() + SOON_S
        while not self._heard:
            assert select.select([self.pipe], [], [], deadline_s - time.monotonic())[0], "it says nothing"
            frames = self.pipe.receive()
            if frames is None:
                return None
            self._heard += [frame for frame, _ in frames]
        return self._heard.pop(0)

    def is_silent(self) -> bool:
        """Whether it has nothing to say now."""
        return not self.says_within(0)

    def says_within(self, seconds: float) -> bool:
        """Whether it says something, or ends, in this time."""
        return bool(self._heard or select.select([self.pipe], [], [], seconds)[0])

    def code(self) -> int:
        """Its exit code; it must end without another word."""
        said = self.next()
        assert said is None, f"heard {said} before its end"
        return self.wait()

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


class Ends:
    """A listener, and the workers of both sides."""

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.listener.settimeout(SOON_S)
        self.address = f"{HOST}:{self.listener.getsockname()[1]}"
        self.made: list[End] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        for end in self.made:
            end.pipe.close()
        for end in self.made:
            end.wait()

    def dial(self, want: str = "pair", here: Node = NODE_D, **fields: Any) -> End:
        """A worker that dials the listener."""
        known = {"identity": A.identity if want != "pair" else b"", "address": self.address, **fields}
        peer = KnownPeer(
            number=7, name="there", linked=False, waiting=False, removed=False, link_pid=0, want=want, **known
        )
        reader = Reader("/nonexistent", lambda: 0)
        return self._made(End(lambda channel: worker.dial(here, peer, SOON_S, channel, reader)))

    def accept(self, here: Node = NODE_A) -> End:
        """A worker for the next connection that comes in."""
        sock = self.connection()
        reader = Reader("/nonexistent", lambda: 0)
        address = f"192.0.2.9:{sock.getpeername()[1]}"
        body = End(lambda channel: worker.accept(here, sock, address, channel, reader, CONFIG), sock)
        return self._made(body)

    def connection(self) -> socket.socket:
        """The next connection that comes in, for the test itself."""
        return self.listener.accept()[0]

    def connect(self) -> socket.socket:
        """A connection of the test's own to the listener."""
        return socket.create_connection((HOST, self.listener.getsockname()[1]), SOON_S)

    def _made(self, end: End) -> End:
        self.made.append(end)
        return end


def grant(dialler: End, **fields: Any) -> MayDial:
    """The dialler may say hello."""
    asked = dialler.hear(MayDial)
    dialler.say(Granted(asked.token, 1, NOWHERE, NOWHERE, **fields))
    return asked
