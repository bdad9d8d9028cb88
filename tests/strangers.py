"""Nodes that are no daemon and that nobody has accepted: they ask, answer, stand in between, write all down.

asker = Stranger("mallory", source="127.91.0.1")
asker.exchange(node)                      # asks, up to the words; returns them or the Refuse
with Middle(victim) as middle: ...        # listens where the victim is looked for
"""

import itertools
import os
import socket
import ssl
import threading
from hashlib import sha256
from types import TracebackType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from msgd.peer.connection import Connection
from msgd.peer.frames import Commit, Greet, Hello, Joined, Nonce, Refuse, Reveal, Verdict
from msgd.peer.state import ACCEPTOR, DIALLER
from msgd.trust import tls
from msgd.trust.identity import NodeKey, identity_text
from msgd.trust.invitation import Invitation, join_proof
from msgd.trust.proof import transcript, verify_hello
from msgd.trust.words import commit_of, words_of
from tests.nodes import PORT, Node, free_address

PATIENCE_S = 10.0

_dials = itertools.count(1)


class Side:
    """One end of one connection: frames in and out, blocking, all that is heard kept."""

    def __init__(self, session: ssl.SSLSocket, connection: Connection) -> None:
        self.session = session
        self.connection = connection
        self.heard: list[Any] = []
        self.raw = bytearray()  # as it came out of TLS

    def say(self, frame: Any) -> None:
        self.session.sendall(b"".join(self.connection.send(frame)))

    def hear(self) -> Any:
        """The next frame. Raises EOFError when the other end has closed."""
        count = 0
        while True:
            event = next(iter(self.connection.received(count)), None)
            if event is not None:
                self.heard.append(event)
                return event
            space = self.connection.receive_buffer()
            try:
                count = self.session.recv_into(space)
            except OSError as error:
                raise EOFError(str(error)) from error
            if not count:
                raise EOFError("closed")
            self.raw += space[:count]

    def close(self) -> None:
        """Also for a thread that is just reading."""
        try:
            socket.socket.shutdown(self.session, socket.SHUT_RDWR)
        except OSError:
            pass  # the other end was faster
        self.session.close()


class Stranger:
    """A key, a name, a place to come from."""

    def __init__(self, name: str, source: str = "") -> None:
        self.name = name
        self.source = source or free_address()
        self.key = NodeKey(Ed25519PrivateKey.generate())
        self.instance = os.urandom(16)
        self.sides: list[Side] = []

    @property
    def identity(self) -> str:
        return identity_text(self.key.identity)

    # --- dialling ---------------------------------------------------------------------------------------

    def dial(self, host: str) -> tuple[Side, bytes]:
        """TLS and the greet; the identity that answers."""
        sock = socket.create_connection((host, PORT), PATIENCE_S, (self.source, 0))
        session = tls.dialler_context().wrap_socket(sock)
        session.settimeout(PATIENCE_S)
        found = tls.check_acceptor(session, None)
        connection = Connection(DIALLER, sign=lambda *parts: self.key.sign_hello(found, *parts))
        side = Side(session, connection)
        self.sides.append(side)
        side.hear()
        return side, found

    def hello(self, side: Side, want: str, **more: Any) -> Hello:
        return Hello(
            spki=self.key.spki,
            want=want,  # type: ignore[arg-type]
            version=side.connection.version,
            binding="none",
            instance=self.instance,
            dial=next(_dials),
            name=self.name,
            chain=[],
            port=PORT,
            **more,
        )

    def exchange(self, node: Node) -> list[str] | Refuse:
        """Ask for words, as a dialler: the words, or why there are none. The connection stays open."""
        side, found = self.dial(node.host)
        side.say(self.hello(side, "pair"))
        answer = side.hear()
        if isinstance(answer, Refuse):
            return answer
        mine = os.urandom(32)
        side.say(Nonce(mine))
        revealed = side.hear()
        if isinstance(revealed, Refuse):
            return revealed
        assert isinstance(revealed, Reveal)
        connection = side.connection
        t = transcript(found, self.key.identity, connection.greet_body, connection.content, connection.bound)
        return words_of(t, revealed.nonce, mine)

    def join(self, node: Node, invitation: Invitation, secret: bytes) -> Joined | Refuse:
        """Redeem an invitation with this secret."""
        side, found = self.dial(node.host)
        greet_hash = sha256(side.connection.greet_body).digest()
        proof = join_proof(secret, found, self.key.identity, greet_hash)
        side.say(self.hello(side, "join", invitation=invitation.invitation, proof=proof))
        try:
            answer = side.hear()
        finally:
            side.close()
        assert isinstance(answer, Joined | Refuse)
        return answer

    def close(self) -> None:
        for side in self.sides:
            side.close()


class Acceptor(Stranger):
    """Listens at a loopback address of its own, and answers each connection in a thread."""

    def __init__(self, name: str, host: str = "") -> None:
        super().__init__(name, host)
        self.failed: list[BaseException] = []
        self.connected = 0
        self._listener = socket.create_server((self.source, PORT))
        self._context = tls.acceptor_context(self.key)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._workers: list[threading.Thread] = []

    @property
    def address(self) -> str:
        return f"{self.source}:{PORT}"

    def __enter__(self) -> "Acceptor":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close()
        for thread in (self._thread, *self._workers):
            thread.join(PATIENCE_S)

    @property
    def raw(self) -> bytes:
        """All that was said to it inside TLS."""
        return b"".join(bytes(side.raw) for side in self.sides)

    def _accept(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            self.connected += 1
            self._workers.append(threading.Thread(target=self._answer, args=(sock,), daemon=True))
            self._workers[-1].start()

    def _answer(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(PATIENCE_S)
            session = self._context.wrap_socket(sock, server_side=True)
            own = self.key.identity
            connection = Connection(ACCEPTOR, verify=lambda *parts: verify_hello(own, *parts), identity=own)
            side = Side(session, connection)
            self.sides.append(side)
            side.say(Greet(versions=[1], bindings=[], nonce=os.urandom(32), chain=[]))
            hello = side.hear()
            if isinstance(hello, Hello) and hello.want == "pair":
                self.exchanged(side)
            else:
                side.say(Refuse("unpaired"))
        except (EOFError, OSError):
            return
        except BaseException as error:
            self.failed.append(error)

    def exchanged(self, side: Side) -> None:
        """Be an honest acceptor, and wait for a verdict."""
        mine = os.urandom(32)
        side.say(Commit(self.name, commit_of(self.t(side), mine)))
        side.hear()
        side.say(Reveal(mine))
        side.hear()

    def t(self, side: Side) -> bytes:
        connection = side.connection
        return transcript(
            self.key.identity, connection.peer_identity, connection.greet_body, connection.content, b""
        )


class Cheat(Acceptor):
    """Reveals another nonce than the one it is bound to, as who searches for words would have to."""

    def exchanged(self, side: Side) -> None:
        side.say(Commit(self.name, commit_of(self.t(side), os.urandom(32))))
        side.hear()
        side.say(Reveal(os.urandom(32)))
        side.hear()


class Middle(Acceptor):
    """Stands where `victim` is looked for, asks it with its own key, and passes on what it can."""

    def __init__(self, name: str, victim: Node) -> None:
        super().__init__(name)
        self.victim = victim
        self.onward = Stranger(name)

    def exchanged(self, side: Side) -> None:
        there, _ = self.onward.dial(self.victim.host)
        there.say(self.onward.hello(there, "pair"))
        commit = there.hear()
        mine = os.urandom(32)
        side.say(Commit(commit.name, commit_of(self.t(side), mine)))
        nonce = side.hear()
        there.say(Nonce(nonce.nonce))
        there.hear()
        side.say(Reveal(mine))
        verdict = side.hear()
        if isinstance(verdict, Verdict):
            there.say(verdict)

    def close(self) -> None:
        super().close()
        self.onward.close()


class Forwarder:
    """Another address of a node: passes bytes on, both ways, and understands none of them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.host = free_address()
        self._listener = socket.create_server((self.host, PORT))
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def address(self) -> str:
        return f"{self.host}:{PORT}"

    def __enter__(self) -> "Forwarder":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._socks):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was closed from the other end
            sock.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _accept(self) -> None:
        while True:
            try:
                here = self._listener.accept()[0]
            except OSError:
                return
            there = socket.create_connection((self.node.host, PORT), PATIENCE_S)
            there.settimeout(None)
            self._socks += [here, there]
            for one, other in ((here, there), (there, here)):
                self._threads.append(threading.Thread(target=_pump, args=(one, other), daemon=True))
                self._threads[-1].start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
