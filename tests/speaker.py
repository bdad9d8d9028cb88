"""A peer that is no daemon: the test process dials a real msgd and speaks the real protocol over TLS.

    speaker = Speaker("p1", source="127.61.0.1")
    speaker.pin_at(node)
    speaker.dial(node)
    speakers_until([speaker], lambda: speaker.messages, 5, "a message")

It keeps a log in memory (`tests.peer_nodes.Log`), and may hold its receipts back. It reads only when asked.
"""

import itertools
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from msgd.peer.frames import Batch, Hello, Limits, Ping, Pong, Receipt, Refuse
from msgd.peer.state import DIALLER
from msgd.trust import tls
from msgd.trust.identity import NodeKey, identity_text, parse_identity
from msgd.wire.codec import Message, decode_payload
from tests.nodes import PORT, Node
from tests.peer_nodes import End, Log

SOON_S = 10.0
LIMITS = Limits(window_bytes=8 << 20, window_batches=1024, message_bytes=1 << 20, keepalive_s=30)


class Talk(End):
    """`End` with names, limits and dials of a speaker; may keep its receipts to itself."""

    def __init__(self, speaker: "Speaker", node_identity: bytes) -> None:
        self.speaker = speaker
        self.refused: Refuse | None = None
        peer = NodeKey(speaker.key.private)
        peer.identity = node_identity  # all that a dialler needs of it
        super().__init__(DIALLER, speaker.key, peer, speaker.log, speaker.fresh)

    def hello(self) -> Hello:
        self.speaker.dials += 1
        return Hello(
            spki=self.key.spki,
            want="link",
            version=self.connection.version,
            binding="none",
            instance=self.speaker.instance,
            dial=self.speaker.dials,
            name=self.speaker.name,
            chain=[],
            limits=LIMITS,
            link=self.log.link(),
        )

    def on(self, event: object) -> None:
        if isinstance(event, Refuse):
            self.refused = event
            return
        if isinstance(event, Ping):
            now_ns = time.time_ns()
            self.say(Pong(event.t1_wall_ns, event.t1_mono_ns, now_ns, now_ns))
            return
        super().on(event)  # type: ignore[arg-type]

    def on_batch(self, batch: Batch) -> None:
        assert self.inbox is not None
        if self.inbox.take(batch):
            self.log.commit(batch)
            self.inbox.commit(self.log.in_.last, self.log.in_.head)
        due = self.inbox.receipt()
        if due is not None and not self.speaker.holds_receipts:
            self.say(Receipt(*due, time.time_ns(), time.monotonic_ns()))


class Speaker:
    """One peer: a key, a log, at most one connection."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.key = NodeKey(Ed25519PrivateKey.generate())
        self.instance = os.urandom(16)
        self.dials = 0
        self.log = Log()
        self.fresh = (sha256(self.key.spki + b"%d" % n).digest()[:16] for n in itertools.count())
        self.holds_receipts = False
        self.talk: Talk | None = None
        self.session: ssl.SSLSocket | None = None

    @property
    def identity(self) -> str:
        return identity_text(self.key.identity)

    @property
    def messages(self) -> list[Message]:
        """All that has arrived, in order."""
        return [m for _, batch in self.log.received for m in decode_payload(batch.payload, batch.count)]

    @property
    def is_linked(self) -> bool:
        """Whether both directions flow."""
        return self.talk is not None and self.talk.outbox is not None and self.talk.inbox is not None

    def pin_at(self, node: Node) -> None:
        """Make the node know us; without an address, so that it does not dial."""
        with node.client() as client:
            client.call("PeerAdd", name=self.name, key=self.identity)

    def dial(self, node: Node, identity: str = "") -> "Speaker":
        """Connect and speak until both directions flow."""
        self.connect(node, identity)
        speakers_until([self], lambda: self.is_linked, SOON_S, f"the link of {self.name}")
        return self

    def connect(self, node: Node, identity: str = "") -> None:
        """TCP and TLS; what comes next is for `speakers_until`."""
        sock = socket.create_connection((node.host, PORT), SOON_S, (self.source, 0))
        self.session = tls.dialler_context().wrap_socket(sock)
        tls.check_session(self.session)
        self.session.setblocking(False)
        self.talk = Talk(self, parse_identity(identity or node.identity))

    def step(self) -> None:
        """Read and write what can be done now. Raises EOFError when the node has closed."""
        assert self.session is not None and self.talk is not None
        try:
            while data := self.session.recv(1 << 16):
                self.talk.hear(data)
            raise EOFError(f"the node closed the link of {self.name}")
        except ssl.SSLWantReadError:
            pass
        except (OSError, ssl.SSLEOFError) as error:
            raise EOFError(f"the node closed the link of {self.name}: {error}") from error
        self.flush()

    def flush(self) -> None:
        assert self.session is not None and self.talk is not None
        while self.talk.sent:
            try:
                del self.talk.sent[: self.session.send(bytes(self.talk.sent))]
            except ssl.SSLWantWriteError:
                return

    def close(self) -> None:
        """The connection ends without a word."""
        if self.session is not None:
            self.session.close()
        self.session = self.talk = None


def speakers_until(
    speakers: Sequence[Speaker], condition: Callable[[], object], within_s: float, what: str
) -> None:
    """Let these speak until `condition` holds; fails naming `what` when it does not in time."""
    by_fd = {s.session.fileno(): s for s in speakers if s.session is not None}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    deadline_s = time.monotonic() + within_s
    try:
        for speaker in by_fd.values():
            speaker.step()
        while not condition():
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"waited {within_s:g} s for {what}"
            for fd, _ in poll.poll(min(left_s, 0.05)):
                by_fd[fd].step()
    finally:
        poll.close()
