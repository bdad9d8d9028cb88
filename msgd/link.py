"""Body of a link worker: one TLS connection to one peer, both directions.

It is told by the log process what to send and reads it from the log itself; what arrives it hands to the
log process, and a receipt leaves only after that has committed. It keeps nothing that cannot be lost: when
it dies, both ends compare where they stand and the rest is sent again.
"""

import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from msgd import children, journal, meeting, reconciling
from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.meeting import MeetingFailed, Node, Wire, WrongKey
from msgd.model import MAX_APPEND_BYTES
from msgd.peer.connection import Event
from msgd.peer.errors import ProtocolError
from msgd.peer.frames import Batch, Goodbye, Hello, Ping, Pong, Receipt, Refuse, clock_sample
from msgd.wire import ledger
from msgd.wire.codec import decode_payload
from msgd.wire.ledger import TABLE, Cut, Denied, DialFailed, Frame, Granted, KnownPeer, MayDial, Opened, Taken
from msgd.wire.pipe import Pipe

GOODBYE_S = 1.0  # for the last bytes, when a link ends orderly
RETRY_FULL_S = 1.0  # a batch that found the disk full is offered again
JOIN_BYTES = 16 << 10  # small frames leave in one TLS record


class LinkEnded(Exception):
    """The link is over, for this reason."""


class Ledger:
    """A link worker's way to the log process: requests with an answer, and frames that come by themselves."""

    def __init__(self, channel: socket.socket) -> None:
        self.pipe = Pipe(channel, TABLE)
        self.unheard: list[tuple[Any, memoryview]] = []  # what came while we waited for an answer

    def ask(self, frame: Any) -> Frame:
        """Send a request and wait for its answer. Raises LinkEnded when the log process is gone or cuts."""
        self.pipe.send(frame)
        poll = select.poll()
        poll.register(self.pipe.sock, select.POLLIN)
        while True:
            poll.poll()
            frames = self.pipe.receive()
            if frames is None:
                raise LinkEnded("the log process is gone")
            answer = None
            for heard, payload in frames:
                if getattr(heard, "token", None) == frame.token:
                    answer = heard
                elif isinstance(heard, Cut):
                    raise LinkEnded(heard.reason)
                else:
                    self.unheard.append((heard, payload))
            if answer is not None:
                return answer  # type: ignore[return-value]  # a pipe hands out only frames


def accept(node: Node, sock: socket.socket, address: str, channel: socket.socket, reader: Reader) -> int:
    """Body of the worker of a connection that came in."""
    ledger_end = Ledger(channel)
    deadline_s = time.monotonic() + node.handshake_s
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        wire, hello = meeting.accept(node, sock, deadline_s)
        taken = _take(ledger_end, wire, hello, address, deadline_s)
        meeting.welcome(node, wire, taken, deadline_s)
    except (MeetingFailed, OSError, LinkEnded) as error:
        quiet = isinstance(error, OSError | LinkEnded) or error.is_quiet
        journal.event("link.refused", level="debug" if quiet else "info", peer=address, reason=str(error))
        return 0
    return _serve(node, wire, ledger_end, reader, taken, address)


def dial(node: Node, peer: KnownPeer, connect_s: float, channel: socket.socket, reader: Reader) -> int:
    """Body of a worker that dials."""
    ledger_end = Ledger(channel)
    journal.event("link.dialled", peer=peer.name, address=peer.address)

    def ask() -> Granted:
        answer = ledger_end.ask(MayDial(1, peer.number))
        if not isinstance(answer, Granted):
            raise MeetingFailed("another link with it stands")
        return answer

    try:
        sock = meeting.connect(node, peer.address, connect_s)
        wire, welcome = meeting.dial(node, sock, peer.identity, ask, time.monotonic() + node.handshake_s)
        taken = ledger_end.ask(Opened(2, peer.number, welcome.instance))
        if not isinstance(taken, Taken):
            raise MeetingFailed("another link with it stands")
    except (MeetingFailed, OSError, LinkEnded) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        retry_s = error.retry_s if isinstance(error, MeetingFailed) else 0.0
        if isinstance(error, WrongKey):
            journal.event("peer.changed", peer=peer.name, address=peer.address)
        journal.event("link.failed", level="debug", peer=peer.name, address=peer.address, reason=reason)
        _say_last(ledger_end, DialFailed(peer.number, reason, retry_s))
        return 0
    return _serve(node, wire, ledger_end, reader, taken, peer.address)


def _say_last(ledger_end: Ledger, frame: Frame) -> bool:
    """Tell the log process; False when it is gone."""
    try:
        ledger_end.pipe.send(frame)
    except OSError:
        return False
    return True


def _take(ledger_end: Ledger, wire: Wire, hello: Hello, address: str, deadline_s: float) -> Taken:
    """Ask the log process for the link; a refusal is said to the peer. Raises MeetingFailed."""
    link = hello.link
    assert link is not None, "a hello that wants a link has one"
    answer = ledger_end.ask(
        ledger.TakeHello(1, wire.connection.peer_identity, hello.instance, hello.dial, address)
    )
    if isinstance(answer, Taken):
        return answer
    assert isinstance(answer, Denied)
    if answer.code == "unpaired":
        journal.event("peer.unknown", address=address, peer_id=wire.connection.peer_identity)
    wire.say(Refuse(code=answer.code, detail=answer.detail), deadline_s)
    raise MeetingFailed(f"refused: {answer.code}", is_quiet=True)


def _serve(node: Node, wire: Wire, ledger_end: Ledger, reader: Reader, taken: Taken, address: str) -> int:
    """The link stands: agree, then flow, until one end is done."""
    children.set_title(children.Kind.PEER, taken.name)  # until here an accepted one had an address only
    link = Link(node, wire, ledger_end, reader, taken.peer)
    opened = {"address": address, "tls": wire.session.version() or ""}
    _say_last(ledger_end, ledger.Tell("link.opened", opened))
    try:
        link.run()
    except LinkEnded as error:
        reason = str(error)
        link.say_goodbye(reason)
    except (ProtocolError, Damaged, msgspec.MsgspecError, ValueError) as error:
        reason = f"broken protocol: {error}"
    except OSError as error:
        reason = f"{error.strerror or error}"
    closed = {"address": address, "reason": reason}
    if not _say_last(ledger_end, ledger.Tell("link.closed", closed)):
        journal.event("link.closed", peer=taken.name, link_id=taken.link, **closed)
    return 0


class Link:
    """One standing link: what waits to be written, what waits to be committed."""

    def __init__(self, node: Node, wire: Wire, ledger_end: Ledger, reader: Reader, peer: int) -> None:
        self.node = node
        self.wire = wire
        self.ledger = ledger_end
        self.reader = reader
        self.peer = peer
        self.outgoing: deque[bytes | memoryview] = deque()
        self.refused: deque[Batch] = deque()  # batches that found the disk full, in order
        self.uncommitted: deque[Batch] = deque()  # batches with the log process
        self.held_bytes = 0  # of both
        self.retry_at_s = 0.0
        self.heard_s = time.monotonic()
        self.ping_at_s = self.heard_s  # the first at once: the clocks are of interest
        self.agreement = reconciling.Agreement(self)

    def run(self) -> None:
        """Serve until the end. Raises LinkEnded, ProtocolError, OSError."""
        poll = select.poll()
        poll.register(self.wire.session, select.POLLIN)
        poll.register(self.ledger.pipe.sock, select.POLLIN)
        session_fd = self.wire.session.fileno()
        writing = False
        self.agreement.advance()
        self._act_on(list(self.wire.connection.received(0)))  # what came together with the welcome
        while True:
            self._flush()
            if bool(self.outgoing) != writing:
                writing = not writing
                poll.modify(self.wire.session, select.POLLIN | (select.POLLOUT if writing else 0))
            for fd, _ in poll.poll(self._timeout_ms()):
                if fd != session_fd:
                    self._hear_ledger()
                else:
                    self._hear_peer()
            self._do_timers()

    # --- the peer's side --------------------------------------------------------------------------------

    def say(self, frame: Any) -> None:
        """Queue a frame for the peer."""
        self.outgoing.extend(self.wire.connection.send(frame))

    def say_goodbye(self, reason: str) -> None:
        """The last word, as far as the peer still reads."""
        try:
            self.say(Goodbye(reason[:200], 0))
            deadline_s = time.monotonic() + GOODBYE_S
            while self.outgoing and time.monotonic() < deadline_s:
                self._flush()
                if self.outgoing:
                    select.select([], [self.wire.session], [], deadline_s - time.monotonic())
        except (ProtocolError, OSError):
            return  # it has gone before

    def _flush(self) -> None:
        """Write what waits, as far as the peer takes it."""
        outgoing = self.outgoing
        while outgoing:
            piece = outgoing.popleft()
            if len(outgoing) > 0 and len(piece) + len(outgoing[0]) <= JOIN_BYTES:
                outgoing[0] = bytes(piece) + outgoing[0]
                continue
            try:
                sent = self.wire.session.send(piece)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                outgoing.appendleft(piece)
                return
            if sent < len(piece):
                outgoing.appendleft(memoryview(piece)[sent:])

    def _hear_peer(self) -> None:
        events = self.wire.receive(MAX_APPEND_BYTES)
        if events is None:
            raise LinkEnded("the peer closed the connection")
        if events:
            self.heard_s = time.monotonic()
            self._act_on(events)

    def _act_on(self, events: list[Event]) -> None:
        receipt = None
        for event in events:
            match event:
                case Batch():
                    self._take_batch(event)
                case Receipt():
                    receipt = event  # cumulative: the last one says it all
                case Ping():
                    wall_ns = time.time_ns()
                    self.say(Pong(event.t1_wall_ns, event.t1_mono_ns, wall_ns, wall_ns))
                case Pong():
                    self._take_clocks(event)
                case Goodbye():
                    raise LinkEnded(f"the peer said goodbye: {event.reason}")
                case _:
                    self.agreement.heard(event)
        if receipt is not None:
            self.agreement.receipted(receipt.seq)
            self._to_ledger(ledger.Receipt(receipt.seq, receipt.head, receipt.wall_ns, receipt.boot_ns))

    def _take_batch(self, batch: Batch) -> None:
        """Hand a batch to the log process. What is not a list of messages never gets there."""
        for message in decode_payload(batch.payload, batch.count):
            if len(message.id) != 16:
                raise ValueError("a message with a wrong id")
        self.held_bytes += len(batch.payload)
        if self.held_bytes > 2 * self.node.limits.window_bytes:
            raise ValueError("more bytes under way than the window allows")
        if self.refused:
            self.refused.append(batch)
            return
        self._submit(batch)

    def _submit(self, batch: Batch) -> None:
        self.uncommitted.append(batch)
        self._to_ledger(ledger.Batch(batch.first_seq, batch.count, batch.head), batch.payload)

    def _take_clocks(self, pong: Pong) -> None:
        offset_ns, round_trip_ns = clock_sample(pong, time.monotonic_ns())
        self._to_ledger(ledger.Clocks(offset_ns, round_trip_ns))

    # --- the log process's side -------------------------------------------------------------------------

    def _to_ledger(self, frame: Frame, payload: bytes | memoryview = b"") -> None:
        try:
            self.ledger.pipe.send(frame, payload)
        except OSError as error:
            raise LinkEnded("the log process is gone") from error

    def _hear_ledger(self) -> None:
        frames = self.ledger.pipe.receive()
        if frames is None:
            raise LinkEnded("the log process is gone")
        self.hear_frames(frames)

    def hear_frames(self, frames: Iterable[tuple[Any, bytes | memoryview]]) -> None:
        """Act on what the log process says."""
        committed = None
        for frame, payload in frames:
            match frame:
                case ledger.Send():
                    self._send_batch(frame, payload)
                case ledger.Committed():
                    committed = frame
                case ledger.Full():
                    self._put_back(frame.first_seq)
                case Cut():
                    raise LinkEnded(frame.reason)
        if committed is not None:
            while self.uncommitted and self.uncommitted[0].first_seq <= committed.seq:
                self.held_bytes -= len(self.uncommitted.popleft().payload)
            self.say(Receipt(committed.seq, committed.head, committed.wall_ns, committed.boot_ns))

    def _send_batch(self, frame: ledger.Send, payload: bytes | memoryview) -> None:
        """Send a batch whose bytes came along, or lie in the log."""
        if not payload:
            payload = self.reader.batch(self.reader.record(frame.offset))
        self.say(Batch(frame.first_seq, frame.count, frame.head, memoryview(payload)))

    def _put_back(self, first_seq: int) -> None:
        """The disk is full there: this batch and those behind it are offered again in a moment."""
        self.refused.extendleft(
            reversed([batch for batch in self.uncommitted if batch.first_seq >= first_seq])
        )
        while self.uncommitted and self.uncommitted[-1].first_seq >= first_seq:
            self.uncommitted.pop()
        self.retry_at_s = time.monotonic() + RETRY_FULL_S

    # --- time -------------------------------------------------------------------------------------------

    def _timeout_ms(self) -> float:
        due_s = min(self.ping_at_s, self.heard_s + self.node.link_dead_s)
        if self.refused:
            due_s = min(due_s, self.retry_at_s)
        return max(0.0, (due_s - time.monotonic()) * 1000 + 1)

    def _do_timers(self) -> None:
        now_s = time.monotonic()
        if now_s >= self.ping_at_s:
            self.ping_at_s = now_s + self.node.keepalive_s
            self.say(Ping(time.time_ns(), time.monotonic_ns()))
        if now_s - self.heard_s >= self.node.link_dead_s:
            raise LinkEnded(f"nothing heard for {self.node.link_dead_s:g} s")
        if self.refused and now_s >= self.retry_at_s:
            waiting, self.refused = self.refused, deque()
            for batch in waiting:
                self._submit(batch)
