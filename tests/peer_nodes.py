"""Two simulated nodes with durable logs, and one connection between them that breaks at any byte.

A node's log survives everything but a restore from an older copy. `End` is a small link worker: it speaks
the real Connection and commits to the log at once. What is under way when a connection is cut is lost.
"""

import copy
from collections.abc import Iterator
from functools import partial
from hashlib import sha256

from msgd.model import IN, OUT
from msgd.peer.connection import Connection, Event
from msgd.peer.frames import (
    NOWHERE,
    Batch,
    Epoch,
    EpochDone,
    Frame,
    Greet,
    Hello,
    Limits,
    Link,
    Position,
    Receipt,
    State,
    Welcome,
)
from msgd.peer.heads import chain
from msgd.peer.inbox import Inbox
from msgd.peer.outbox import Outbox
from msgd.peer.reconcile import RECEIVER, SENDER, Agree, Ahead, NewEpoch, Resend, opened, proposal
from msgd.peer.state import ACCEPTOR, DIALLER, Role
from msgd.trust.identity import NodeKey
from msgd.trust.proof import verify_hello
from tests.peer_pair import A, D, greet

LIMITS = Limits(window_bytes=200, window_batches=3, message_bytes=100, keepalive_s=30)
BATCH_MESSAGES = 4
LENGTH = 8  # of a message: a number of 8 digits


class Log:
    """What a node has on disk about one peer."""

    def __init__(self) -> None:
        # out: all messages ever accepted, those without a seq, and the present epoch's record and batches
        self.accepted: list[bytes] = []
        self.waiting: list[bytes] = []
        self.out = NOWHERE
        self.recorded: Epoch | None = None
        self.released: list[Batch] = []
        self.receipted = 0
        # in: every batch of every epoch
        self.in_ = NOWHERE
        self.received: list[tuple[bytes, Batch]] = []

    def link(self) -> Link:
        return Link(out=self.out, in_=self.in_)

    def copy(self) -> "Log":
        """A backup; what the lists hold never changes."""
        other = copy.copy(self)
        other.accepted, other.waiting = self.accepted[:], self.waiting[:]
        other.released, other.received = self.released[:], self.received[:]
        return other

    # -- the sender's side

    def release(self) -> Batch:
        """Give seqs to the next messages that wait."""
        taken, self.waiting = self.waiting[:BATCH_MESSAGES], self.waiting[BATCH_MESSAGES:]
        batch = follow(self.out, taken)
        self.released.append(batch)
        self.out = Position(self.out.epoch, self.out.last + batch.count, batch.head)
        return batch

    def open_epoch(self, epoch: Epoch) -> None:
        """A new epoch; what has no receipt waits again."""
        again = [m for b in self.released if b.first_seq > self.receipted for m in messages(b)]
        self.waiting = again + self.waiting
        self.recorded, self.released = epoch, []
        self.out = opened(epoch)
        self.receipted = self.out.last

    def receipt(self, seq: int) -> None:
        self.receipted = max(self.receipted, seq)

    def out_head(self, seq: int) -> bytes | None:
        if self.recorded is not None and seq == self.recorded.base - 1:
            return opened(self.recorded).head
        return next((b.head for b in self.released if b.first_seq + b.count - 1 == seq), None)

    # -- the receiver's side

    def commit(self, batch: Batch) -> None:
        """A received batch; the head is computed here, as by the log process."""
        head = chain(self.in_.head, batch.first_seq, batch.count, batch.payload)
        assert head == batch.head
        assert self.in_.last + 1 == batch.first_seq
        kept = Batch(batch.first_seq, batch.count, head, memoryview(bytes(batch.payload)))
        self.received.append((self.in_.epoch, kept))
        self.in_ = Position(self.in_.epoch, self.in_.last + batch.count, head)

    def in_head(self, seq: int) -> bytes | None:
        mine = [b for epoch, b in self.received if epoch == self.in_.epoch]
        return next((b.head for b in mine if b.first_seq + b.count - 1 == seq), None)


def follow(position: Position, bodies: list[bytes]) -> Batch:
    payload = memoryview(b"".join(bodies))
    first = position.last + 1
    return Batch(first, len(bodies), chain(position.head, first, len(bodies), payload), payload)


def messages(batch: Batch) -> list[bytes]:
    raw = bytes(batch.payload)
    return [raw[at : at + LENGTH] for at in range(0, len(raw), LENGTH)]


class End:
    """A link worker: one end of one connection."""

    def __init__(self, role: Role, key: NodeKey, peer: NodeKey, log: Log, fresh: Iterator[bytes]) -> None:
        self.log = log
        self.fresh = fresh
        self.key = key
        self.sent = bytearray()  # under way to the other end
        self.ready = False
        self.outbox: Outbox | None = None
        self.inbox: Inbox | None = None
        self.next_seq = 0
        self.connection = Connection(
            role,
            sign=partial(key.sign_hello, peer.identity),
            verify=partial(verify_hello, key.identity),
            identity=key.identity,
        )
        if role == ACCEPTOR:
            self.say(greet())

    def say(self, frame: Frame | Hello) -> None:
        self.sent += b"".join(self.connection.send(frame))

    def hear(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            self.on(event)

    def on(self, event: Event) -> None:
        match event:
            case Greet():
                self.say(self.hello())
            case Hello():
                instance, link = sha256(self.key.spki).digest()[:16], self.log.link()
                self.say(Welcome(version=1, name="a", instance=instance, limits=LIMITS, link=link))
                self.linked()
            case Welcome():
                self.linked()
            case State(direction=direction):
                self.settle_in() if direction == OUT else self.settle_out()
            case Epoch():
                self.log.in_ = opened(event)
                self.say(EpochDone(event.epoch))
                self.settle_in()
            case EpochDone():
                self.settle_out()
            case Batch():
                self.on_batch(event)
            case Receipt(seq=seq, head=head):
                assert self.outbox is not None
                self.outbox.receipt(seq, head)
                self.log.receipt(seq)
                self.flow()

    def hello(self) -> Hello:
        connection = self.connection
        return Hello(
            spki=self.key.spki,
            want="link",
            version=connection.version,
            binding="none",
            instance=bytes(16),
            dial=1,
            name="d",
            chain=[],
            limits=LIMITS,
            link=self.log.link(),
        )

    def linked(self) -> None:
        self.ready = True
        self.settle_out()
        self.settle_in()

    def settle_out(self) -> None:
        """Act on what follows for the direction in which we send."""
        match self.connection.conclusion(OUT):
            case Agree(next_seq=seq) | Resend(next_seq=seq):
                self.log.receipt(seq - 1)
                self.outbox = Outbox(self.connection.positions(OUT)[1], self.connection.peer_limits)
                self.next_seq = seq
                self.flow()
            case Ahead(who=who, seq=seq):
                if who == SENDER:
                    self.say(State(OUT, seq, self.log.out_head(seq)))
                    self.settle_out()
            case NewEpoch(proven=proven):
                self.log.receipt(proven)
                sender, receiver = self.connection.positions(OUT)
                epoch = proposal(sender, receiver, self.log.recorded, next(self.fresh))
                if epoch is not self.log.recorded:
                    self.log.open_epoch(epoch)
                self.say(epoch)

    def settle_in(self) -> None:
        """Act on what follows for the direction in which we receive."""
        match self.connection.conclusion(IN):
            case Agree() | Resend():
                self.inbox = Inbox(self.connection.positions(IN)[1])
            case Ahead(who=who, seq=seq):
                if who == RECEIVER:
                    self.say(State(IN, seq, self.log.in_head(seq)))

    def on_batch(self, batch: Batch) -> None:
        assert self.inbox is not None
        if self.inbox.take(batch):
            self.log.commit(batch)
            self.inbox.commit(self.log.in_.last, self.log.in_.head)
        due = self.inbox.receipt()
        if due is not None:
            self.say(Receipt(*due, 1, 1))

    def flow(self) -> None:
        """Send again what the other does not have, then what waits, as far as the window goes."""
        if self.outbox is None:
            return
        while True:
            batch = next((b for b in self.log.released if b.first_seq == self.next_seq), None)
            if batch is None and not self.log.waiting:
                return
            size = len(batch.payload) if batch else LENGTH * min(BATCH_MESSAGES, len(self.log.waiting))
            if not self.outbox.fits(size):
                return
            batch = batch or self.log.release()
            self.outbox.send(batch.first_seq, batch.count, batch.head, size)
            self.next_seq += batch.count
            self.say(batch)


class Two:
    """Both nodes, and the connection between them, if any."""

    def __init__(self) -> None:
        self.logs = [Log(), Log()]
        self.copies: list[list[Log]] = []
        self.ends: list[End] = []
        self._number = 0
        self._fresh = (sha256(b"%d" % n).digest()[:16] for n in range(1, 1 << 30))

    def accept(self, node: int, count: int) -> None:
        """`count` messages are accepted at a node: committed, and sent if there is a link."""
        for _ in range(count):
            self._number += 1
            body = b"%08d" % self._number
            self.logs[node].accepted.append(body)
            self.logs[node].waiting.append(body)
        if self.ends:
            self.ends[node].flow()

    def connect(self, dialling: int) -> None:
        """A new connection; an old one is lost."""
        keys = (A, D)
        roles: list[Role] = [ACCEPTOR, ACCEPTOR]
        roles[dialling] = DIALLER
        self.ends = [End(roles[n], keys[n], keys[1 - n], self.logs[n], self._fresh) for n in (0, 1)]

    def carry(self, node: int, count: int) -> None:
        """Some bytes that a node has sent arrive at the other."""
        if self.ends:
            sent = self.ends[node].sent
            data = bytes(sent[:count])
            del sent[:count]
            self.ends[1 - node].hear(data)

    def settle(self) -> None:
        """Everything arrives, until nobody says anything more."""
        while any(end.sent for end in self.ends):
            for node in (0, 1):
                self.carry(node, len(self.ends[node].sent))

    def back_up(self) -> None:
        """A copy of both logs, whatever is under way between them."""
        self.copies.append([log.copy() for log in self.logs])

    def restore(self, node: int, which: int) -> None:
        """An older copy, if there is one, replaces a node's log; the node starts anew."""
        if self.copies:
            self.logs[node] = self.copies[which % len(self.copies)][node].copy()
            self.ends = []
