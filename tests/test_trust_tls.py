"""TLS between two nodes, with real contexts: over memory, and the whole way to a link over a socketpair."""

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from msgd.peer.connection import Connection, Event
from msgd.peer.errors import RemoteProtocolError
from msgd.peer.frames import Batch, Frame, Greet, Hello, Welcome
from msgd.peer.state import ACCEPTOR, DIALLER, LINKED
from msgd.trust import tls
from msgd.trust.identity import NodeKey
from msgd.trust.proof import verify_hello
from tests.peer_pair import HEAD, A, D, greet, hello, welcome

M = NodeKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32))  # who stands in the middle


def handshake(dialler: ssl.SSLContext, acceptor: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory."""
    to_acceptor, to_dialler = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        dialler.wrap_bio(to_dialler, to_acceptor),
        acceptor.wrap_bio(to_acceptor, to_dialler, server_side=True),
    )
    done = [False, False]
    for _ in range(10):
        for place, end in enumerate(ends):
            try:
                end.do_handshake()
                done[place] = True
            except ssl.SSLWantReadError:
                continue
    assert done == [True, True]
    return ends


# -- sessions


def test_a_session_is_tls_1_3_with_our_protocol() -> None:
    """And the dialler learns whom it reached."""
    ends = handshake(tls.dialler_context(), tls.acceptor_context(A))
    for end in ends:
        assert end.version() == "TLSv1.3"
        assert end.compression() is None
        tls.check_session(end)
    assert tls.check_acceptor(ends[0], A.identity) == A.identity
    assert tls.check_acceptor(ends[0], None) == A.identity
    assert tls.peer_spki(ends[0]) == A.spki


def test_the_acceptor_asks_for_no_certificate_and_gives_no_ticket() -> None:
    """So nothing can be resumed, and no client is turned away for a certificate."""
    acceptor = tls.acceptor_context(A)
    dialler_end, acceptor_end = handshake(tls.dialler_context(), acceptor)
    assert acceptor_end.getpeercert(True) is None
    assert acceptor.num_tickets == 0
    acceptor_end.write(b"x")
    assert dialler_end.read(1) == b"x"
    assert dialler_end.session is None or not dialler_end.session.has_ticket


def test_another_key_is_refused_and_named() -> None:
    """Who answers is somebody else: both identities are in the error, for the event."""
    dialler_end, _ = handshake(tls.dialler_context(), tls.acceptor_context(M))
    with pytest.raises(tls.WrongKeyError) as caught:
        tls.check_acceptor(dialler_end, A.identity)
    assert (caught.value.found, caught.value.expected) == (M.identity, A.identity)


@pytest.mark.parametrize("protocols", [[], ["h2"], ["msgd/2", "http/1.1"]])
def test_a_foreign_alpn_is_refused_by_both(protocols: list[str]) -> None:
    """The library finishes such a handshake; we close it."""
    for ours, theirs in ((0, 1), (1, 0)):
        contexts = [tls.dialler_context(), tls.acceptor_context(A)]
        foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if theirs == 0 else ssl.PROTOCOL_TLS_SERVER)
        if theirs == 0:
            foreign.check_hostname, foreign.verify_mode = False, ssl.CERT_NONE
        else:
            A.load_into(foreign)
        if protocols:
            foreign.set_alpn_protocols(protocols)
        contexts[theirs] = foreign
        end = handshake(*contexts)[ours]
        with pytest.raises(tls.SessionError, match="the peer speaks no ALPN, expected msgd/1"):
            tls.check_session(end)


def test_an_older_tls_is_refused() -> None:
    """By both ends, in the handshake itself."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        handshake(old, tls.acceptor_context(A))
    with pytest.raises(ssl.SSLError):
        handshake(tls.dialler_context(), foreign_acceptor(A.private, maximum=ssl.TLSVersion.TLSv1_2))


PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def foreign_acceptor(
    key: PrivateKey, *, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, shown: bytes | None = None
) -> ssl.SSLContext:
    """An acceptor that is not msgd, with a certificate of its own; `shown`: with that file instead."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = maximum
    context.set_alpn_protocols([tls.ALPN])
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    try:
        os.write(fd, private + (shown or certificate(key)))
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return context


def certificate(key: PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "msgd")])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 7, datetime(2000, 1, 1), datetime(2001, 1, 1)
    )
    algorithm = hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def test_only_an_ed25519_key_is_an_identity() -> None:
    """Another kind of key has no identity here, pinned or not."""
    context = foreign_acceptor(ec.generate_private_key(ec.SECP256R1()))
    dialler_end, _ = handshake(tls.dialler_context(), context)
    with pytest.raises(tls.SessionError, match="expected an Ed25519 key"):
        tls.check_acceptor(dialler_end, None)


def test_only_the_key_of_a_certificate_counts() -> None:
    """Dates long past, another serial: the identity is the same."""
    dialler_end, _ = handshake(tls.dialler_context(), foreign_acceptor(A.private))
    assert tls.check_acceptor(dialler_end, A.identity) == A.identity


def test_a_certificate_without_its_key_is_not_even_loaded() -> None:
    """The library itself refuses to show A's certificate with M's key."""
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        foreign_acceptor(M.private, shown=A.certificate())


def test_a_session_without_a_certificate_has_no_identity() -> None:
    """As the acceptor sees its dialler, always."""
    _, acceptor_end = handshake(tls.dialler_context(), tls.acceptor_context(A))
    with pytest.raises(tls.SessionError, match="no certificate"):
        tls.peer_spki(acceptor_end)


def test_the_channel_binding_is_the_same_at_both_ends_and_fresh() -> None:
    """Each connection has its own."""
    contexts = tls.dialler_context(), tls.acceptor_context(A)
    first, second = handshake(*contexts), handshake(*contexts)
    assert tls.channel_binding(first[0]) == tls.channel_binding(first[1]) != b""
    assert tls.channel_binding(first[0]) != tls.channel_binding(second[0])


class Unbinding(ssl.SSLObject):
    """A session of a library that has stopped offering the binding."""

    answer: Callable[[], bytes | None]

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        return self.answer()


def raising() -> bytes:
    raise ValueError("tls-unique channel binding type not implemented")


@pytest.mark.parametrize("answer", [raising, lambda: None, lambda: b""], ids=["raises", "none", "empty"])
def test_no_channel_binding_is_none_whatever_the_library_does(answer: Callable[[], bytes | None]) -> None:
    """Nothing rests on it, so nothing fails with it."""
    context = tls.dialler_context()
    context.sslobject_class = Unbinding
    session = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    assert isinstance(session, Unbinding)
    session.answer = answer
    assert tls.channel_binding(session) == b""


# -- the whole way, over sockets


class Party(threading.Thread):
    """One end in a thread of its own, over a real socket, until it ends or fails."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error


class Wire:
    """A TLS socket with a connection on it; every wait has a deadline."""

    def __init__(self, session: ssl.SSLSocket, connection: Connection) -> None:
        self.session = session
        self.connection = connection

    def say(self, frame: Frame | Hello) -> None:
        for piece in self.connection.send(frame):
            self.session.sendall(piece)

    def hear(self) -> Event:
        """The next event. EOFError when the other end closed."""
        count = 0
        while True:
            for event in self.connection.received(count):
                return event
            count = self.session.recv_into(self.connection.receive_buffer())
            if count == 0:
                raise EOFError


@contextmanager
def closed_on_error(session: ssl.SSLSocket) -> Iterator[ssl.SSLSocket]:
    try:
        yield session
    except BaseException:
        session.close()
        raise


def accept_link(raw: socket.socket, key: NodeKey) -> Wire:
    with closed_on_error(tls.acceptor_context(key).wrap_socket(raw, server_side=True)) as session:
        tls.check_session(session)
        verify = partial(verify_hello, key.identity)
        binding = tls.channel_binding(session)
        wire = Wire(session, Connection(ACCEPTOR, verify=verify, identity=key.identity, binding=binding))
        wire.say(greet(bindings=wire.connection.bindings))
        wire.hear()
        wire.say(welcome())
        return wire


def dial_link(raw: socket.socket, key: NodeKey, expected: bytes | None) -> Wire:
    with closed_on_error(tls.dialler_context().wrap_socket(raw)) as session:
        sign = partial(key.sign_hello, tls.check_acceptor(session, expected))
        wire = Wire(session, Connection(DIALLER, sign=sign, binding=tls.channel_binding(session)))
        assert isinstance(wire.hear(), Greet)
        wire.say(hello(key=key, binding=wire.connection.binding))
        assert isinstance(wire.hear(), Welcome)
        return wire


@contextmanager
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        theirs.settimeout(5)
        yield ours, theirs


def test_two_nodes_come_to_a_link_over_tls() -> None:
    """Handshake, pin, proof with the channel binding, and a batch that fills many TLS records."""
    payload = bytes(range(256)) * 4000
    heard: list[bytes] = []
    with sockets() as (ours, theirs):

        def accepting() -> None:
            wire = accept_link(theirs, A)
            assert wire.connection.hello is not None
            assert wire.connection.hello.binding == "tls-unique"
            assert wire.connection.peer_identity == D.identity
            batch = wire.hear()
            assert isinstance(batch, Batch)
            heard.append(bytes(batch.payload))

        party = Party(accepting)
        party.start()
        wire = dial_link(ours, D, A.identity)
        assert wire.connection.state == LINKED
        wire.say(Batch(1, 3, HEAD, memoryview(payload)))
        party.join(5)
        assert party.error is None
        assert heard == [payload]


def test_nothing_is_left_behind_in_the_tls_library() -> None:
    """The buffer always takes a whole TLS record, so a loop may wait for the socket alone."""
    with sockets() as (ours, theirs):
        pending: list[int] = []

        def accepting() -> None:
            wire = accept_link(theirs, A)
            size = 0
            while size < 1_000_000:
                size += wire.session.recv_into(wire.connection.receive_buffer())
                pending.append(wire.session.pending())

        party = Party(accepting)
        party.start()
        dial_link(ours, D, A.identity).session.sendall(bytes(1_000_000))
        party.join(5)
        assert party.error is None
        assert set(pending) == {0}


def test_a_wrong_key_at_the_pinned_address_is_sent_nothing() -> None:
    """The dialler closes before a single byte of its own: the stranger does not learn who called."""
    got: list[bytes] = []
    with sockets() as (ours, theirs):

        def accepting() -> None:
            session = tls.acceptor_context(M).wrap_socket(theirs, server_side=True)
            got.append(session.recv(1000))

        party = Party(accepting)
        party.start()
        with pytest.raises(tls.WrongKeyError):
            dial_link(ours, D, A.identity)
        party.join(5)
    assert got == [b""]


def test_a_hello_relayed_over_another_tls_connection_is_refused() -> None:
    """M accepts D's dial as itself, and shows D's hello to A as its own connection's: A finds no proof."""
    with sockets() as (d_side, m_left), sockets() as (m_right, a_side):

        def accepting() -> None:
            accept_link(a_side, A)

        def between() -> None:
            to_dialler = tls.acceptor_context(M).wrap_socket(m_left, server_side=True)
            to_acceptor = tls.dialler_context().wrap_socket(m_right)
            to_dialler.sendall(to_acceptor.recv(1 << 16))  # A's greet, as it is
            to_acceptor.sendall(to_dialler.recv(1 << 16))  # D's hello, as it is
            with closed_on_error(to_dialler):
                assert to_acceptor.recv(1)

        acceptor, middle = Party(accepting), Party(between)
        acceptor.start()
        middle.start()
        with pytest.raises((EOFError, OSError)):
            # a person typed M's address: D expects nobody in particular, and signs for who answered
            dial_link(d_side, D, None)
        acceptor.join(5)
        middle.join(5)
        assert isinstance(acceptor.error, RemoteProtocolError)
        assert acceptor.error.code == "proof"


def test_a_node_that_dials_itself_is_told_so() -> None:
    """Its own address among its peers'."""
    with sockets() as (ours, theirs):
        codes: list[str] = []

        def accepting() -> None:
            try:
                accept_link(theirs, A)
            except RemoteProtocolError as error:
                codes.append(error.code)

        party = Party(accepting)
        party.start()
        with pytest.raises((EOFError, OSError)):
            dial_link(ours, A, A.identity)
        party.join(5)
        assert codes == ["self"]


def test_garbage_instead_of_a_greet_closes() -> None:
    """A TLS server with our ALPN that speaks something else."""
    with sockets() as (ours, theirs):

        def accepting() -> None:
            session = tls.acceptor_context(A).wrap_socket(theirs, server_side=True)
            session.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        party = Party(accepting)
        party.start()
        with pytest.raises(RemoteProtocolError, match="a frame of 1213486160 bytes"):
            dial_link(ours, D, A.identity)
        party.join(5)
        assert party.error is None


def test_openssl_reads_our_key_file(tmp_path: Path) -> None:
    """The file serves `ssl` as it is, beside the certificate."""
    (tmp_path / "both.pem").write_bytes(A.certificate() + A.pem())
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "both.pem")
