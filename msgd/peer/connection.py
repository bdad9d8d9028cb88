"""One end of a connection between two nodes: bytes in, events out; frames in, bytes out.

    connection = Connection(DIALLER, sign=...)
    count = sock.recv_into(connection.receive_buffer())
    for event in connection.received(count): ...
    for piece in connection.send(Ping(...)): sock.sendall(piece)

What is handed out are the frames themselves, and for a SignedHello the Hello inside, once its form, version
and proof are good and it is not our own. The frames that reconcile two logs are judged as well:
`conclusion(OUT)` and `conclusion(IN)` say at any time where a direction stands (`reconcile`). Once one flows,
its Outbox or Inbox begins at the receiver's position, `positions(...)[1]`. A frame that may not be said is
refused by the two tables of `state`, in both ways.

After RemoteProtocolError the connection is of no more use; an acceptor may still send the Refuse with the
error's code, where it has one. Clocks, timeouts, pins and the choice among links are for who owns the
connection. Not spoken here yet: the frames of pairing (5 to 9).
"""

from collections.abc import Callable, Iterator
from hashlib import sha256

from msgd.model import IN, OUT
from msgd.peer.buffer import ReceiveBuffer
from msgd.peer.codec import decode, decode_hello, encode, encode_batch, encode_hello
from msgd.peer.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from msgd.peer.flow import Flow
from msgd.peer.frames import (
    BINDING,
    HANDSHAKE_BYTES,
    LINK_BYTES,
    NO_BINDING,
    VERSION,
    Batch,
    Epoch,
    EpochDone,
    Frame,
    Greet,
    Hello,
    Limits,
    LinkFrame,
    Position,
    Receipt,
    Refuse,
    SignedHello,
    State,
    Welcome,
    other,
)
from msgd.peer.reconcile import RECEIVER, SENDER, Conclusion
from msgd.peer.state import ACCEPTOR, CLOSED, CONNECTION, DIALLER, GREET_DUE, Role, advance

Event = Greet | Hello | Welcome | Refuse | LinkFrame
Buffer = bytes | memoryview

# (greet body, content, binding's value) -> signature
Sign = Callable[[bytes, bytes, bytes], bytes]
# (SPKI, greet body, content, binding's value, signature) -> whether it is good
Verify = Callable[[bytes, bytes, bytes, bytes, bytes], bool]

# Up to one TLS record a batch goes in one piece: one more copy costs less than one more write.
JOIN_BYTES = 16 << 10


class Connection:
    """One end of one connection. Dialler: give `sign`. Acceptor: give `verify` and its own identity."""

    def __init__(
        self,
        role: Role,
        *,
        sign: Sign | None = None,
        verify: Verify | None = None,
        identity: bytes = b"",
        binding: bytes = b"",  # the TLS session's channel binding; empty: none
        versions: tuple[int, ...] = (VERSION,),
    ) -> None:
        self.role = role
        self.peer_role: Role = ACCEPTOR if role == DIALLER else DIALLER
        self.state = GREET_DUE
        self.greet_body = b""  # both are what the proof is about
        self.content = b""
        self.version = 0  # once chosen
        self.peer_identity = b""  # acceptor: whose hello it was
        self.hello: Hello | None = None
        self.welcome: Welcome | None = None
        self._sign = sign
        self._verify = verify
        self._identity = identity
        self._binding = binding
        self._versions = versions
        self._offered = False  # the greet offers the channel binding
        self._buffer = ReceiveBuffer()
        self._limit = HANDSHAKE_BYTES
        self._flows: dict[int, Flow] = {}

    # -- what the owner may ask

    @property
    def binding(self) -> str:
        """Dialler: the name of the binding for its hello: used whenever it is offered and there is one."""
        return BINDING if self._offered and self._binding else NO_BINDING

    @property
    def bindings(self) -> list[str]:
        """Acceptor: what its greet offers."""
        return [BINDING] if self._binding else []

    @property
    def peer_limits(self) -> Limits:
        """What the peer takes. Only of a link that stands."""
        assert self.hello is not None and self.hello.limits is not None and self.welcome is not None
        return self.hello.limits if self.role == ACCEPTOR else self.welcome.limits

    def conclusion(self, direction: int) -> Conclusion:
        """Where our direction OUT or IN stands. Only of a link that was welcomed."""
        return self._flows[direction].conclusion

    def positions(self, direction: int) -> tuple[Position, Position]:
        """(sender's, receiver's) position as named in hello and welcome, or by the epoch opened since."""
        flow = self._flows[direction]
        return flow.sender, flow.receiver

    # -- in

    def receive_buffer(self) -> memoryview:
        """Where to read bytes to; never empty. Valid until `received`."""
        return self._buffer.space()

    def received(self, count: int) -> Iterator[Event]:
        """`count` bytes were read into `receive_buffer`: what they say. Raises RemoteProtocolError.

        Each frame is judged when it is asked for, so that what the owner answers to one event counts before
        the next. Whoever stops early finds the rest here the next time.
        """
        self._buffer.filled(count)
        return self._events()

    def receive_data(self, data: Buffer) -> Iterator[Event]:
        """As `received`, with bytes that lie elsewhere; copies them. To be read to the end."""
        view = memoryview(data)
        while view:
            space = self.receive_buffer()
            count = min(len(space), len(view))
            space[:count] = view[:count]
            view = view[count:]
            yield from self.received(count)

    def _events(self) -> Iterator[Event]:
        while self.state != CLOSED:
            try:
                frame = self._buffer.frame(self._limit)
                if frame is None:
                    return
                event = self._hear(frame[0], frame[1:])
            except ProtocolError as error:
                raise self._broken(error) from error
            if event is not None:
                yield event
        self._buffer.drop()

    def _broken(self, error: ProtocolError) -> RemoteProtocolError:
        """The error for the owner. Without a code nothing more may be said."""
        self._buffer.drop()
        remote = error if isinstance(error, RemoteProtocolError) else RemoteProtocolError(str(error))
        if not (remote.code and self.role == ACCEPTOR):
            self.state = CLOSED
        return remote

    def _hear(self, code: int, body: memoryview) -> Event | None:
        """The event of one frame; None for a type that we do not know (yet)."""
        frame = decode(code, body)
        if frame is None:
            if self._flows:
                return None
            raise RemoteProtocolError(f"a frame of type {code} before the link stands")
        self._advance(self.peer_role, frame)
        match frame:
            case Greet():
                return self._heard_greet(frame, bytes(body))
            case SignedHello():
                return self._heard_hello(frame)
        return frame

    def _heard_greet(self, greet: Greet, body: bytes) -> Greet:
        self.greet_body = body
        self._offered = BINDING in greet.bindings
        common = set(greet.versions).intersection(self._versions)
        if not common:
            raise RemoteProtocolError(
                f"versions {greet.versions}, expected one of {list(self._versions)}", "version"
            )
        self.version = max(common)
        return greet

    def _heard_hello(self, signed: SignedHello) -> Hello:
        """The hello, once its form, version and proof are good, in this order (before any look at pins)."""
        hello = decode_hello(signed.content)
        if hello.version not in self._versions:
            raise RemoteProtocolError(
                f"version {hello.version}, expected one of {list(self._versions)}", "version"
            )
        self._check_proof(hello, signed)
        self.peer_identity = sha256(hello.spki).digest()
        if self.peer_identity == self._identity:
            raise RemoteProtocolError("a hello with our own identity", "self")
        self.hello, self.content, self.version = hello, signed.content, hello.version
        return hello

    def _check_proof(self, hello: Hello, signed: SignedHello) -> None:
        assert self._verify is not None, "an acceptor needs `verify`"
        if hello.binding == BINDING and not self._offered:
            raise RemoteProtocolError("a channel binding that was not offered", "proof")
        binding = self._binding if hello.binding == BINDING else b""
        if not self._verify(hello.spki, self.greet_body, signed.content, binding, signed.signature):
            raise RemoteProtocolError("a hello whose signature is not good", "proof")

    # -- out

    def send(self, frame: Frame | Hello) -> list[Buffer]:
        """The bytes of a frame, in pieces to be written one after another; a big payload is not copied.

        Raises LocalProtocolError when it may not be said now.
        """
        if isinstance(frame, Batch):
            pieces = _pieces(frame)
            self._advance(self.role, frame)
            return pieces
        if isinstance(frame, Hello):
            return self._send_hello(frame)
        data = encode(frame)
        self._advance(self.role, frame)
        if isinstance(frame, Greet):
            self.greet_body = data[5:]
            self._offered = BINDING in frame.bindings
        return [data]

    def _send_hello(self, hello: Hello) -> list[Buffer]:
        assert self._sign is not None, "a dialler needs `sign`"
        if (hello.version, hello.binding) != (self.version, self.binding):
            raise LocalProtocolError(
                f"a hello with {hello.version}, {hello.binding}, expected {self.version}, {self.binding}"
            )
        content = encode_hello(hello)
        binding = self._binding if hello.binding == BINDING else b""
        signed = SignedHello(content, self._sign(self.greet_body, content, binding))
        data = encode(signed)
        self._advance(self.role, signed)
        self.hello, self.content = hello, content
        return [data]

    # -- both ways

    def _advance(self, speaker: Role, frame: Frame) -> None:
        """`speaker` says this frame, in the connection and in the direction that it belongs to."""
        state = advance(CONNECTION, speaker, self.state, type(frame))
        mine = speaker == self.role
        match frame:
            case Batch() | Epoch():
                self._flows[OUT if mine else IN].said(SENDER, frame)
            case Receipt() | EpochDone():
                self._flows[IN if mine else OUT].said(RECEIVER, frame)
            case State(direction=direction):
                role = SENDER if direction == OUT else RECEIVER
                self._flows[direction if mine else other(direction)].said(role, frame)
            case Welcome():
                self._open(frame)
        self.state = state

    def _open(self, welcome: Welcome) -> None:
        """Hello and welcome are both known: compare the two logs, and open up for link frames."""
        if self.hello is None or self.hello.link is None:
            raise LocalProtocolError("a welcome to a hello that does not want a link")
        if welcome.version != self.version:
            raise LocalProtocolError(f"a welcome in version {welcome.version}, expected {self.version}")
        self.welcome = welcome
        mine, theirs = self.hello.link, welcome.link
        if self.role == ACCEPTOR:
            mine, theirs = theirs, mine
        self._flows = {OUT: Flow(mine.out, theirs.in_), IN: Flow(theirs.out, mine.in_)}
        self._limit = LINK_BYTES


def _pieces(batch: Batch) -> list[Buffer]:
    prefix, payload = encode_batch(batch)
    if len(prefix) + len(payload) <= JOIN_BYTES:
        return [prefix + payload]
    return [prefix, payload]
