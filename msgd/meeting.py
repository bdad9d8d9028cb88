"""How two ends of a TCP connection come to know each other: TLS, greet, hello, answer. One deadline for all.

What comes out is a `Wire`, for whatever the hello wants. A stranger learns only what the trust protocol says;
a dialler says nothing before the key is the pinned one, or one that the pinned one has handed over to.
"""

import os
import socket
import ssl
import time
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from msgd import model
from msgd.node import Node, node_of_key
from msgd.peer.connection import Connection
from msgd.peer.frames import (
    VERSION,
    Commit,
    Greet,
    Hello,
    Joined,
    Link,
    Position,
    Refuse,
    Rotation,
    Want,
    Welcome,
)
from msgd.peer.refusals import reaction, sentence
from msgd.peer.state import ACCEPTOR, DIALLER
from msgd.penalties import GARBAGE
from msgd.session import MeetingFailed, Wire, handshake
from msgd.trust import tls
from msgd.trust.identity import NodeKey
from msgd.trust.invitation import join_proof
from msgd.trust.proof import identity_of, verify_hello
from msgd.trust.rotation import follow
from msgd.wire.frame import DirectionState
from msgd.wire.ledger import Granted, Taken

REHEARSAL_S = 10.0
WRONG_KEY_S = 30.0  # until an address with another key is dialled again

Answer = Welcome | Commit | Joined
NOWHERE = DirectionState(bytes(16), 0, bytes(32))


class WrongKey(MeetingFailed):
    """Who answers has another key than the pinned one: closed without a word."""

    def __init__(self, found: bytes) -> None:
        super().__init__("another key than the pinned one answers there: nothing was sent", WRONG_KEY_S)
        self.found = found


class Found(NamedTuple):
    """Who answered a dial. `chain`: how the pinned key handed over to it, empty where it is that one."""

    identity: bytes
    spki: bytes
    chain: list[Rotation]


# --- rehearsal ----------------------------------------------------------------------------------------------


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
        me,
        sock,
        other.key.identity,
        lambda _: Granted(0, 1, nowhere, nowhere),
        time.monotonic() + REHEARSAL_S,
    )


# --- acceptor -----------------------------------------------------------------------------------------------


def accept(node: Node, sock: socket.socket, deadline_s: float) -> tuple[Wire, Hello]:
    """TLS, our greet, the peer's checked hello. Raises MeetingFailed, OSError."""
    session = handshake(
        node.acceptor.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        ),
        deadline_s,
    )
    _check_session(session)
    own = node.key.identity

    def verify(spki: bytes, greet: bytes, content: bytes, binding: bytes, signature: bytes) -> bool:
        return verify_hello(own, spki, greet, content, binding, signature)

    connection = Connection(ACCEPTOR, verify=verify, identity=own, binding=tls.channel_binding(session))
    wire = Wire(session, connection)
    greet = Greet(
        versions=[VERSION], bindings=connection.bindings, nonce=os.urandom(32), chain=list(node.chain)
    )
    wire.say(greet, deadline_s)
    hello = wire.wait_event(deadline_s)
    assert isinstance(hello, Hello)
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
    node: Node,
    sock: socket.socket,
    identity: bytes,
    ask: Callable[[Found], Granted],
    deadline_s: float,
    want: Want = "link",
) -> tuple[Wire, Answer]:
    """TLS, the acceptor's key against the pinned one, its greet, our hello, its answer.

    `identity` is who must answer, empty: whoever does. `ask` gets the log process's leave to say hello.
    Raises MeetingFailed, OSError; the connection is closed then.
    """
    session = node.dialler.wrap_socket(sock, do_handshake_on_connect=False)
    try:
        handshake(session, deadline_s)
        _check_session(session)
        spki = tls.peer_spki(session)
        wire = Wire(session, _dialling(node, session, identity_of(spki)))
        greet = wire.wait_event(deadline_s)
        assert isinstance(greet, Greet)
        found = _found(spki, identity, greet, want)
        wire.say(_hello(node, wire, found, want, ask(found)), deadline_s)
        answer = wire.wait_event(deadline_s)
    except tls.SessionError as error:
        session.close()
        raise MeetingFailed(str(error)) from error
    except BaseException:
        session.close()
        raise
    if isinstance(answer, Refuse):
        session.close()
        raise refused(answer)
    assert isinstance(answer, Answer)
    return wire, answer


def visit(
    node: Node, address: str, identity: bytes, deadline_s: float, want: Want = "service"
) -> tuple[ssl.SSLSocket, bytes]:
    """A connection for a service of the peer with this pinned identity, and what it has said there already.

    The socket is non-blocking. Raises MeetingFailed, OSError.
    """
    sock = connect(node, address, max(0.1, deadline_s - time.monotonic()))
    nothing = Granted(0, 0, NOWHERE, NOWHERE)
    wire, _ = dial(node, sock, identity, lambda _: nothing, deadline_s, want)
    return wire.session, wire.connection.rest()


def refused(refuse: Refuse) -> MeetingFailed:
    """What a refusal means for the next try (trust protocol, section 4)."""
    known = reaction(refuse.code)
    text = f"it {sentence(refuse.code, refuse.detail)}"
    retry_s = known.every_s or 0.0
    if not known.again:
        retry_s = -1.0
    elif known.retry_given and refuse.retry_s:
        retry_s = float(refuse.retry_s)
    return MeetingFailed(text, retry_s, code=refuse.code, detail=refuse.detail)


def _dialling(node: Node, session: ssl.SSLSocket, found: bytes) -> Connection:
    def sign(greet: bytes, content: bytes, binding: bytes) -> bytes:
        return node.key.sign_hello(found, greet, content, binding)

    return Connection(DIALLER, sign=sign, binding=tls.channel_binding(session))


def _found(spki: bytes, expected: bytes, greet: Greet, want: Want) -> Found:
    """Who answers, if it is who must; words may be compared with whom the log process allows.

    Raises WrongKey. Nothing has been said by then.
    """
    identity = identity_of(spki)
    if not expected or identity == expected:
        return Found(identity, spki, [])
    rotations = [(r.spki, r.by_old, r.by_new) for r in greet.chain]
    if want in ("link", "pair") and follow(rotations, spki, {expected}, {}).pinned == expected:
        return Found(identity, spki, greet.chain)
    if want == "pair":
        return Found(identity, spki, [])
    raise WrongKey(identity)


def _hello(node: Node, wire: Wire, found: Found, want: Want, granted: Granted) -> Hello:
    connection = wire.connection
    is_join, is_pairing = want == "join", want in ("pair", "join")
    greet_hash = sha256(connection.greet_body).digest()
    return Hello(
        spki=node.key.spki,
        want=want,
        version=connection.version,
        binding=connection.binding,  # type: ignore[arg-type]  # one of the two names it may have
        instance=node.instance,
        dial=granted.dial,
        name=node.name,
        chain=list(node.chain),
        limits=None if is_pairing else node.limits,
        link=link_of(granted.out, granted.inward) if want == "link" else None,
        port=node.port if is_pairing else None,
        invitation=granted.invitation if is_join else None,
        proof=join_proof(granted.secret, found.identity, node.key.identity, greet_hash) if is_join else None,
    )


# --- helpers ------------------------------------------------------------------------------------------------


def link_of(out: DirectionState, inward: DirectionState) -> Link:
    """The link part of a hello or welcome."""
    return Link(
        out=Position(out.epoch, out.last, out.head), in_=Position(inward.epoch, inward.last, inward.head)
    )


def _check_session(session: ssl.SSLSocket) -> None:
    try:
        tls.check_session(session)
    except tls.SessionError as error:
        raise MeetingFailed(str(error), exit_code=GARBAGE) from error
