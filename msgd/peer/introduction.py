"""How the two ends of a connection introduce themselves: versions, channel binding, hello and its proof.

| step | judged here |
|---|---|
| greet | a common version; whether the channel binding is offered |
| hello | form, version, binding, signature, in this order, before any look at who is known; not our own |

Whoever the hello's key belongs to has signed it for this acceptor and this connection; what follows from that
is for the owner. The keys stay with him as well: the proof is handed in as two functions.
"""

from collections.abc import Callable
from hashlib import sha256

from msgd.peer.codec import decode_hello, encode_hello
from msgd.peer.errors import LocalProtocolError, RemoteProtocolError
from msgd.peer.frames import BINDING, NO_BINDING, VERSION, Greet, Hello, SignedHello

# (greet body, content, binding's value) -> signature
Sign = Callable[[bytes, bytes, bytes], bytes]
# (SPKI, greet body, content, binding's value, signature) -> whether it is good
Verify = Callable[[bytes, bytes, bytes, bytes, bytes], bool]


class Introduction:
    """What one end knows of the other by greet and hello."""

    def __init__(
        self,
        *,
        sign: Sign | None = None,
        verify: Verify | None = None,
        identity: bytes = b"",
        binding: bytes = b"",  # the TLS session's channel binding; empty: none
        versions: tuple[int, ...] = (VERSION,),
    ) -> None:
        self.greet_body = b""  # both are what the proof is about
        self.content = b""
        self.version = 0  # once chosen
        self.peer_identity = b""  # acceptor: whose hello it was
        self.hello: Hello | None = None
        self._sign = sign
        self._verify = verify
        self._identity = identity
        self._binding = binding
        self._versions = versions
        self._offered = False  # the greet offers the channel binding

    @property
    def binding(self) -> str:
        """Dialler: the name of the binding for its hello: used whenever it is offered and there is one."""
        return BINDING if self._offered and self._binding else NO_BINDING

    @property
    def bound(self) -> bytes:
        """The binding's value in the proof of the hello, empty for none. Only once it was said."""
        assert self.hello is not None
        return self._value(self.hello)

    @property
    def bindings(self) -> list[str]:
        """Acceptor: what its greet offers."""
        return [BINDING] if self._binding else []

    # -- dialler

    def _heard_greet(self, greet: Greet, body: bytes) -> None:
        """Choose the version. Raises RemoteProtocolError."""
        self._greeted(greet, body)
        common = set(greet.versions).intersection(self._versions)
        if not common:
            raise RemoteProtocolError(
                f"versions {greet.versions}, expected one of {list(self._versions)}", "version"
            )
        self.version = max(common)

    def _signed(self, hello: Hello) -> SignedHello:
        """The hello with our proof. Raises LocalProtocolError."""
        assert self._sign is not None, "a dialler needs `sign`"
        if (hello.version, hello.binding) != (self.version, self.binding):
            raise LocalProtocolError(
                f"a hello with {hello.version}, {hello.binding}, expected {self.version}, {self.binding}"
            )
        content = encode_hello(hello)
        return SignedHello(content, self._sign(self.greet_body, content, self._value(hello)))

    # -- acceptor

    def _heard_hello(self, signed: SignedHello) -> Hello:
        """The hello, once it is good. Raises RemoteProtocolError."""
        hello = decode_hello(signed.content)
        if hello.version not in self._versions:
            raise RemoteProtocolError(
                f"version {hello.version}, expected one of {list(self._versions)}", "version"
            )
        self._check_proof(hello, signed)
        self.peer_identity = sha256(hello.spki).digest()
        if self.peer_identity == self._identity:
            raise RemoteProtocolError("a hello with our own identity", "self")
        self.version = hello.version
        return hello

    def _check_proof(self, hello: Hello, signed: SignedHello) -> None:
        assert self._verify is not None, "an acceptor needs `verify`"
        if hello.binding == BINDING and not self._offered:
            raise RemoteProtocolError("a channel binding that was not offered", "proof")
        binding = self._value(hello)
        if not self._verify(hello.spki, self.greet_body, signed.content, binding, signed.signature):
            raise RemoteProtocolError("a hello whose signature is not good", "proof")

    # -- both

    def _greeted(self, greet: Greet, body: bytes) -> None:
        self.greet_body = body
        self._offered = BINDING in greet.bindings

    def _value(self, hello: Hello) -> bytes:
        return self._binding if hello.binding == BINDING else b""
