"""One end of a connection between two nodes: bytes in, events out; frames in, bytes out.

    connection = Connection(DIALLER, sign=...)
    count = sock.recv_into(connection.receive_buffer())
    for event in connection.received(count): ...
    for piece in connection.send(Ping(...)): sock.sendall(piece)

What is handed out are the frames themselves, and for a SignedHello the Hello inside, once it is found good
(`introduction`). The frames that reconcile two logs are judged as well:
`conclusion(OUT)` and `conclusion(IN)` say at any time where a direction stands (`reconcile`). Once one flows,
its Outbox or Inbox begins at the receiver's position, `positions(...)[1]`. A frame that may not be said is
refused by the two tables of `state`, in both ways.

After RemoteProtocolError the connection is of no more use; an acceptor may still send the Refuse with the
error's code, where it has one. Clocks, timeouts, pins and the choice among links are for who owns the
connection; so are the commitment and the words of an exchange, for which `greet_body`, `content` and `bound`
are kept. A connection that wants a service speaks frames only up to the welcome: the bytes behind it are
`rest`.
"""

from collections.abc import Iterator

from msgd.model import IN, OUT
from msgd.peer.buffer import ReceiveBuffer
from msgd.peer.codec import decode, encode, encode_batch
from msgd.peer.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from msgd.peer.flow import Flow
from msgd.peer.frames import (
    HANDSHAKE_BYTES,
    LINK_BYTES,
    VERSION,
    Batch,
    Commit,
    Epoch,
    EpochDone,
    Frame,
    Greet,
    Hello,
    Joined,
    Limits,
    Link,
    LinkFrame,
    Nonce,
    Position,
    Receipt,
    Refuse,
    Reveal,
    SignedHello,
    State,
    Verdict,
    Welcome,
    other,
)
from msgd.peer.introduction import Introduction, Sign, Verify
from msgd.peer.reconcile import RECEIVER, SENDER, Conclusion
from msgd.peer.state import (
    ACCEPTOR,
    CLOSED,
    CONNECTION,
    DIALLER,
    GREET_DUE,
    LINKED,
    SERVING,
    WANTED,
    Role,
    advance,
)

Event = Greet | Hello | Welcome | Refuse | Commit | Nonce | Reveal | Verdict | Joined | LinkFrame
Buffer = bytes | memoryview

# Up to one TLS record a batch goes in one piece: one more copy costs less than one more write.
JOIN_BYTES = 16 << 10


class Connection(Introduction):
    """One end of one connection. Dialler: give `sign`. Acceptor: give `verify` and its own identity."""

    def __init__(
        self,
        role: Role,
        *,
        sign: Sign | None = None,
        verify: Verify | None = None,
        identity: bytes = b"",
        binding: bytes = b"",
        versions: tuple[int, ...] = (VERSION,),
    ) -> None:
        super().__init__(sign=sign, verify=verify, identity=identity, binding=binding, versions=versions)
        self.role = role
        self.peer_role: Role = ACCEPTOR if role == DIALLER else DIALLER
        self.state = GREET_DUE
        self.welcome: Welcome | None = None
        self._buffer = ReceiveBuffer()
        self._limit = HANDSHAKE_BYTES
        self._flows: dict[int, Flow] = {}

    # -- what the owner may ask

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

    def rest(self) -> bytes:
        """What has arrived behind the welcome of a service; from there on the owner reads by itself."""
        assert self.state == SERVING, self.state
        return self._buffer.rest()

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
        while self.state not in (CLOSED, SERVING):
            try:
                frame = self._buffer.frame(self._limit)
                if frame is None:
                    return
                event = self._hear(frame[0], frame[1:])
            except ProtocolError as error:
                raise self._broken(error) from error
            if event is not None:
                yield event
        if self.state == CLOSED:
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
        if isinstance(frame, Greet):
            self._heard_greet(frame, bytes(body))
        elif isinstance(frame, SignedHello):
            hello = self._heard_hello(frame)
            self._believe(hello, frame.content)
            return hello
        return frame

    def _believe(self, hello: Hello, content: bytes) -> None:
        """The hello was said, and is good: what it wants decides what follows."""
        self.hello, self.content = hello, content
        self.state = WANTED[hello.want]

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
            self._greeted(frame, data[5:])
        return [data]

    def _send_hello(self, hello: Hello) -> list[Buffer]:
        signed = self._signed(hello)
        data = encode(signed)
        self._advance(self.role, signed)
        self._believe(hello, signed.content)
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
                self._welcomed(frame)
                if state == LINKED:
                    self._open(frame.link)
        self.state = state

    def _welcomed(self, welcome: Welcome) -> None:
        if welcome.version != self.version:
            raise LocalProtocolError(f"a welcome in version {welcome.version}, expected {self.version}")
        self.welcome = welcome

    def _open(self, theirs: Link) -> None:
        """Hello and welcome are both known: compare the two logs, and open up for link frames."""
        assert self.hello is not None and self.hello.link is not None
        mine = self.hello.link
        if self.role == ACCEPTOR:
            mine, theirs = theirs, mine
        self._flows = {OUT: Flow(mine.out, theirs.in_), IN: Flow(theirs.out, mine.in_)}
        self._limit = LINK_BYTES


def _pieces(batch: Batch) -> list[Buffer]:
    prefix, payload = encode_batch(batch)
    if len(prefix) + len(payload) <= JOIN_BYTES:
        return [prefix + payload]
    return [prefix, payload]
