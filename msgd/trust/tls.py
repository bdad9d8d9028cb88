"""TLS 1.3 around every link: both contexts, and what is checked once a handshake is done.

Only the acceptor shows a certificate, and only its key is looked at, by us: the library is told to check
nothing but that the acceptor holds it (a forged CertificateVerify fails there). Python finishes a handshake
with no or a foreign ALPN, so each side looks at it afterwards. Tickets and resumption are off; a session is
never passed, so early data does not exist. Groups and suites are as the library has them.

Nothing rests on the channel binding: no RFC defines `tls-unique` for TLS 1.3. It is taken into the proof
where both ends have it.
"""

import ssl

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from msgd.trust.identity import NodeKey
from msgd.trust.proof import identity_of

ALPN = "msgd/1"

Session = ssl.SSLSocket | ssl.SSLObject


class SessionError(Exception):
    """The TLS session is not one that we may speak on: close it without a word."""


class WrongKeyError(SessionError):
    """Who answers has another identity than the expected one."""

    def __init__(self, found: bytes, expected: bytes) -> None:
        super().__init__(f"the identity that answers is {found.hex()}, expected {expected.hex()}")
        self.found = found
        self.expected = expected


def acceptor_context(key: NodeKey) -> ssl.SSLContext:
    """For who accepts: shows our certificate, asks for none."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    key.load_into(context)
    return context


def dialler_context() -> ssl.SSLContext:
    """For who dials: wrap without server_hostname and session, then `check_acceptor`."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_session(session: Session) -> None:
    """Both ends, right after the handshake. Raises SessionError."""
    protocol = session.selected_alpn_protocol()
    if protocol != ALPN:
        raise SessionError(f"the peer speaks {protocol or 'no ALPN'}, expected {ALPN}")
    if session.session_reused:
        raise SessionError("a resumed TLS session, expected a new one")


def check_acceptor(session: Session, expected: bytes | None) -> bytes:
    """The dialler, before it sends anything: the acceptor's identity.

    `expected` is the pinned identity, None where a person dials an address to see who answers. Raises
    WrongKeyError or SessionError.
    """
    check_session(session)
    found = identity_of(peer_spki(session))
    if expected is not None and found != expected:
        raise WrongKeyError(found, expected)
    return found


def peer_spki(session: Session) -> bytes:
    """The SPKI in the acceptor's certificate. Raises SessionError unless it is an Ed25519 key."""
    certificate = session.getpeercert(True)
    if not certificate:
        raise SessionError("the acceptor showed no certificate")
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:  # the last is no ValueError
        raise SessionError(f"a certificate that cannot be read: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SessionError(f"a certificate with {type(key).__name__}, expected an Ed25519 key")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def channel_binding(session: Session) -> bytes:
    """The session's channel binding, b"" where there is none."""
    try:
        return session.get_channel_binding("tls-unique") or b""
    except Exception:
        # The library may stop offering it at any time and in any way; that must only mean "none".
        return b""


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols([ALPN])
    return context
