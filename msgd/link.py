"""A standing link: one TLS connection to one peer, both directions.

It is told by the log process what to send and reads it from the log itself; what arrives it hands to the
log process, and a receipt leaves only after that has committed. It keeps nothing that cannot be lost: when
it dies, both ends compare where they stand and the rest is sent again.
"""

import select
import ssl
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from msgd import children, journal, reconciling
from msgd.asking import Ledger, LinkEnded
from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.model import MAX_APPEND_BYTES
from msgd.node import Node
from msgd.peer.connection import Event
from msgd.peer.errors import ProtocolError
from msgd.peer.frames import Batch, Goodbye, Ping, Pong, Receipt, clock_sample
from msgd.session import Wire
from msgd.wire import ledger
from msgd.wire.codec import check_payload
from msgd.wire.ledger import Cut, Taken
from msgd.wire.reports import has_reports

GOODBYE_S = 1.0  # for the last bytes, when a link ends orderly
RETRY_FULL_S = 1.0  # a batch that found the disk full is offered again
JOIN_BYTES = 16 << 10  # small frames leave in one TLS record


def serve(node: Node, wire: Wire, ledger_end: Ledger, reader: Reader, taken: Taken, address: str) -> int:
    """The link stands: agree, then flow, until one end is done. Returns the worker's exit code."""
    children.set_title(children.Kind.PEER, taken.name)  # until here an accepted one had an address only
    link = Link(node, wire, ledger_end, reader, taken.peer)
    opened = {"address": address, "tls": wire.session.version() or ""}
    try:
        ledger_end.tell(ledger.Tell("link.opened", opened))
        link.run()
    except LinkEnded as error:
        reason = str(error)
        link.say_goodbye(reason)
    except (ProtocolError, Damaged, msgspec.MsgspecError, ValueError) as error:
        reason = f"broken protocol: {error}"
    except OSError as error:
        reason = f"{error.strerror or error}"
    closed = {"address": address, "reason": reason}
    try:
        ledger_end.tell(ledger.Tell("link.closed", closed))
    except LinkEnded:
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

    def keep_alive(self) -> None:
        """A sign of life amid something long; that the peer is not heard meanwhile is not its silence."""
        self.heard_s = time.monotonic()
        self._ping_when_due(self.heard_s)
        self._flush()

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
            self.ledger.tell(ledger.Receipt(receipt.seq, receipt.head, receipt.wall_ns, receipt.boot_ns))

    def _take_batch(self, batch: Batch) -> None:
        """Hand a batch to the log process."""
        self.held_bytes += len(batch.payload)
        if self.held_bytes > 2 * self.node.limits.window_bytes:
            raise ValueError("more bytes under way than the window allows")
        if self.refused:
            self.refused.append(batch)
            return
        self._submit(batch)

    def _submit(self, batch: Batch) -> None:
        """What is not a list of messages never gets to the log process."""
        reports = has_reports(check_payload(batch.payload, batch.count))
        self.uncommitted.append(batch)
        self.ledger.tell(ledger.Batch(batch.first_seq, batch.count, batch.head, reports), batch.payload)

    def _take_clocks(self, pong: Pong) -> None:
        offset_ns, round_trip_ns = clock_sample(pong, time.monotonic_ns())
        self.ledger.tell(ledger.Clocks(offset_ns, round_trip_ns))

    # --- the log process's side -------------------------------------------------------------------------

    def _hear_ledger(self) -> None:
        self.hear_frames(self.ledger.hear())

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
        self._ping_when_due(now_s)
        if now_s - self.heard_s >= self.node.link_dead_s:
            raise LinkEnded(f"nothing heard for {self.node.link_dead_s:g} s")
        if self.refused and now_s >= self.retry_at_s:
            waiting, self.refused = self.refused, deque()
            for batch in waiting:
                self._submit(batch)

    def _ping_when_due(self, now_s: float) -> None:
        if now_s >= self.ping_at_s:
            self.ping_at_s = now_s + self.node.keepalive_s
            self.say(Ping(time.time_ns(), time.monotonic_ns()))
