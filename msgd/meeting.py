"""How two ends of a TCP connection come to know each other: TLS, greet, hello, welcome. One deadline for all.

What comes out is a `Wire`: the TLS socket, non-blocking from here on, and the protocol's connection on it.
A stranger learns only what the trust protocol says; a dialler says nothing before the key is the pinned one.
"""

import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from msgd import model
from msgd.config import Config
from msgd.model import MAX_MESSAGE_BYTES
from msgd.peer.buffer import TLS_RECORD
from msgd.peer.connection import Connection, Event
from msgd.peer.errors import RemoteProtocolError
from msgd.peer.frames import VERSION, Frame, Greet, Hello, Limits, Link, Position, Refuse, Welcome
from msgd.peer.refusals import reaction
from msgd.peer.state import ACCEPTOR, DIALLER
from msgd.trust import tls
from msgd.trust.identity import NodeKey
from msgd.trust.proof import verify_hello
from msgd.wire.ledger import DirectionState, Granted, Taken

REHEARSAL_S = 10.0


class MeetingFailed(Exception):
    """No link. `retry_s`: 0 ordinary backoff, below 0 only when a person asks, else the time to wait.

    `is_quiet`: it belongs to the ordinary course, as when both ends dial at once.
    """

    def __init__(self, reason: str, retry_s: float = 0.0, *, is_quiet: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_s = retry_s
        self.is_quiet = is_quiet


@dataclass(frozen=True, slots=True)
class Node:
    """Who this node is, for every link worker: made once in the supervisor, shared by fork."""

    key: NodeKey
    name: str
    instance: bytes  # 16 random bytes of this start
    limits: Limits
    acceptor: ssl.SSLContext
    dialler: ssl.SSLContext
    bind_host: str  # dial from this address; empty: let the kernel choose
    handshake_s: float
    keepalive_s: float
    link_dead_s: float


def node_of(config: Config, key: NodeKey) -> Node:
    """This start of this node."""
    acceptor, dialler = tls.acceptor_context(key), tls.dialler_context()
    hosts = {address.host for address in config.listen}
    concrete = hosts.pop() if len(hosts) == 1 else ""
    bind_host = "" if concrete in ("0.0.0.0", "::") else concrete
    limits = config.limits
    return Node(
        key,
        config.name,
        os.urandom(16),
        _limits(config),
        acceptor,
        dialler,
        bind_host,
        limits.handshake_s,
        limits.keepalive_s,
        limits.link_dead_s,
    )


def rehearse(node: Node, times: int = 8) -> None:
    """Meet ourselves, in both roles, before the first worker is forked.

    What a first meeting brings into memory (OpenSSL's tables, the resolver, codecs that Python imports late,
    code that the interpreter rewrites once it is warm) then belongs to the parent and is shared: an idle
    worker has less of its own. The other end is a fork that ends at once.
    """
    other = node_of_key(node, NodeKey(Ed25519PrivateKey.generate()))
    for _ in range(times):
        for here, there in ((_play_acceptor, _play_dialler), (_play_dialler, _play_acceptor)):
            mine, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                try:
                    mine.close()
                    there(other, node, theirs)
                finally:
                    os._exit(0)
            theirs.close()
            try:
                here(node, other, mine)
            finally:
                mine.close()
                os.waitpid(pid, 0)
    socket.getaddrinfo("127.0.0.1", model.DEFAULT_PORT)


def _play_acceptor(me: Node, _: Node, sock: socket.socket) -> None:
    nowhere = DirectionState(bytes(16), 0, bytes(32))
    deadline_s = time.monotonic() + REHEARSAL_S
    wire, _hello = accept(me, sock, deadline_s)
    welcome(me, wire, Taken(0, 0, 0, "", nowhere, nowhere), deadline_s)


def _play_dialler(me: Node, other: Node, sock: socket.socket) -> None:
    nowhere = DirectionState(bytes(16), 0, bytes(32))
    dial(
        me, sock, other.key.identity, lambda: Granted(0, 1, nowhere, nowhere), time.monotonic() + REHEARSAL_S
    )


def node_of_key(node: Node, key: NodeKey) -> Node:
    """The same node with another key."""
    return replace(node, key=key, acceptor=tls.acceptor_context(key))


def node_with(node: Node, config: Config) -> Node:
    """The same start with the limits of another configuration."""
    limits = config.limits
    return replace(
        node,
        limits=_limits(config),
        handshake_s=limits.handshake_s,
        keepalive_s=limits.keepalive_s,
        link_dead_s=limits.link_dead_s,
    )


def _limits(config: Config) -> Limits:
    limits = config.limits
    return Limits(
        window_bytes=limits.window_bytes,
        window_batches=limits.window_batches,
        message_bytes=MAX_MESSAGE_BYTES,
        keepalive_s=max(1, round(limits.keepalive_s)),
    )


class WrongKey(MeetingFailed):
    """Who answers has another key than the pinned one: closed without a word."""


class Wire:
    """A TLS socket with the protocol's connection on it."""

    def __init__(self, session: ssl.SSLSocket, connection: Connection) -> None:
        self.session = session
        self.connection = connection

    def receive(self, most: int = 1 << 62) -> list[Event] | None:
        """What has arrived, without waiting; None when the other end is gone.

        Raises RemoteProtocolError and OSError.
        """
        events: list[Event] = []
        taken = 0
        while taken < most:
            try:
                count = self.session.recv_into(self.connection.receive_buffer())
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return events
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return events or None
            if not count:
                return events or None
            events += self.connection.received(count)
            taken += count
            if count < TLS_RECORD and not self.session.pending():
                return events  # poll tells when there is more; asking now would cost a system call
        return events

    def wait_event(self, deadline_s: float) -> Event:
        """The next event before the link stands; what came behind it stays for later.

        Raises MeetingFailed.
        """
        try:
            while True:
                event = next(iter(self.connection.received(self._read())), None)
                if event is not None:
                    return event
                _wait(self.session, select.POLLIN, deadline_s)
        except RemoteProtocolError as error:
            self._refuse(error)
            raise MeetingFailed(f"the peer broke the protocol: {error}") from error

    def _read(self) -> int:
        """Bytes read into the connection's buffer, 0 when there are none yet. Raises MeetingFailed."""
        try:
            count = self.session.recv_into(self.connection.receive_buffer())
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            count = 0
        if not count:
            raise MeetingFailed("the peer closed the connection", is_quiet=True)
        return count

    def say(self, frame: Frame | Hello, deadline_s: float) -> None:
        """Write one frame before the link stands."""
        data = b"".join(self.connection.send(frame))
        while data:
            try:
                data = data[self.session.send(data) :]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                _wait(self.session, select.POLLOUT, deadline_s)

    def _refuse(self, error: RemoteProtocolError) -> None:
        """An acceptor says why, where the protocol has a word for it."""
        if error.code and self.connection.role == ACCEPTOR:
            self.say(Refuse(code=error.code, detail=str(error)[:200]), time.monotonic() + 1)


# --- acceptor -----------------------------------------------------------------------------------------------


def accept(node: Node, sock: socket.socket, deadline_s: float) -> tuple[Wire, Hello]:
    """TLS, our greet, the peer's checked hello. Raises MeetingFailed, OSError."""
    session = _handshake(
        node.acceptor.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        ),
        deadline_s,
    )
    _check(lambda: tls.check_session(session))
    own = node.key.identity

    def verify(spki: bytes, greet: bytes, content: bytes, binding: bytes, signature: bytes) -> bool:
        return verify_hello(own, spki, greet, content, binding, signature)

    connection = Connection(ACCEPTOR, verify=verify, identity=own, binding=tls.channel_binding(session))
    wire = Wire(session, connection)
    wire.say(
        Greet(versions=[VERSION], bindings=connection.bindings, nonce=os.urandom(32), chain=[]), deadline_s
    )
    hello = wire.wait_event(deadline_s)
    assert isinstance(hello, Hello)
    if hello.want != "link":
        wire.say(Refuse(code="off", retry_s=600, detail="pairing over the network is off"), deadline_s)
        raise MeetingFailed("it asks to pair, which is off here")
    return wire, hello


def welcome(node: Node, wire: Wire, taken: Taken, deadline_s: float) -> None:
    """The link is taken: say so, with where we stand."""
    wire.say(
        Welcome(
            version=wire.connection.version,
            name=node.name,
            instance=node.instance,
            limits=node.limits,
            link=link_of(taken.out, taken.inward),
        ),
        deadline_s,
    )


# --- dialler ------------------------------------------------------------------------------------------------


def connect(node: Node, address: str, connect_s: float) -> socket.socket:
    """A TCP connection to `host:port`. Raises OSError."""
    host, _, port = address.rpartition(":")
    source = (node.bind_host, 0) if node.bind_host else None
    sock = socket.create_connection((host.strip("[]"), int(port)), connect_s, source)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def dial(
    node: Node, sock: socket.socket, identity: bytes, ask: Callable[[], Granted], deadline_s: float
) -> tuple[Wire, Welcome]:
    """TLS, the acceptor's key against the pinned one, its greet, our hello, its welcome.

    `ask` gets the log process's leave to say hello. Raises MeetingFailed, OSError.
    """
    session = _handshake(node.dialler.wrap_socket(sock, do_handshake_on_connect=False), deadline_s)
    _check(lambda: tls.check_acceptor(session, identity))

    def sign(greet: bytes, content: bytes, binding: bytes) -> bytes:
        return node.key.sign_hello(identity, greet, content, binding)

    connection = Connection(DIALLER, sign=sign, binding=tls.channel_binding(session))
    wire = Wire(session, connection)
    wire.wait_event(deadline_s)  # the greet
    granted = ask()
    hello = Hello(
        spki=node.key.spki,
        want="link",
        version=connection.version,
        binding=connection.binding,  # type: ignore[arg-type]  # one of the two names it may have
        instance=node.instance,
        dial=granted.dial,
        name=node.name,
        chain=[],
        limits=node.limits,
        link=link_of(granted.out, granted.inward),
    )
    wire.say(hello, deadline_s)
    answer = wire.wait_event(deadline_s)
    if isinstance(answer, Refuse):
        raise _refused(answer)
    assert isinstance(answer, Welcome)
    return wire, answer


def _refused(refuse: Refuse) -> MeetingFailed:
    """What a refusal means for the next try (trust protocol, section 4)."""
    known = reaction(refuse.code)
    text = f"it {known.meaning}" + (f" ({refuse.detail})" if refuse.detail else "")
    if not known.again:
        return MeetingFailed(text, -1.0)
    if known.retry_given and refuse.retry_s:
        return MeetingFailed(text, float(refuse.retry_s))
    return MeetingFailed(text, known.every_s or 0.0)


# --- helpers ------------------------------------------------------------------------------------------------


def link_of(out: DirectionState, inward: DirectionState) -> Link:
    """The link part of a hello or welcome."""
    return Link(
        out=Position(out.epoch, out.last, out.head), in_=Position(inward.epoch, inward.last, inward.head)
    )


def _handshake(session: ssl.SSLSocket, deadline_s: float) -> ssl.SSLSocket:
    session.setblocking(False)
    while True:
        try:
            session.do_handshake()
            return session
        except ssl.SSLWantReadError:
            _wait(session, select.POLLIN, deadline_s)
        except ssl.SSLWantWriteError:
            _wait(session, select.POLLOUT, deadline_s)
        except ssl.SSLError as error:
            raise MeetingFailed(f"no TLS 1.3 handshake: {error.reason or error}") from error


def _check(check: Callable[[], object]) -> None:
    try:
        check()
    except tls.WrongKeyError as error:
        raise WrongKey("another key than the pinned one answers there: nothing was sent", 30.0) from error
    except tls.SessionError as error:
        raise MeetingFailed(str(error)) from error


def _wait(session: ssl.SSLSocket, mask: int, deadline_s: float) -> None:
    """Wait for the socket until the one deadline. Raises MeetingFailed."""
    left_s = deadline_s - time.monotonic()
    poll = select.poll()
    poll.register(session, mask)
    if left_s <= 0 or not poll.poll(left_s * 1000):
        raise MeetingFailed("the peer did not finish its hello in time")
