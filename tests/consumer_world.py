"""Consumers without processes: a real log, the log process's part in them, and programs that receive.

`Program` is what a connected client is to the log process: a `Receiver` over a channel that a test may cut.
Nothing waits: where a program would, it hears that nothing came.
"""

import itertools
import time
from types import SimpleNamespace
from typing import Any

from msgd import consuming, model
from msgd.consuming import Consuming
from msgd.errors import MsgdError
from msgd.knowing import error_of
from msgd.log.errors import Damaged, StorageFull
from msgd.log.record import Kind
from msgd.model import uuid7
from msgd.peer.heads import chain
from msgd.receiving import DONE, Receiver, Settled, Taken
from msgd.wire.codec import Message, encode
from msgd.wire.consuming import Freed
from msgd.wire.frame import Frame
from msgd.wire.ledger import Refused, Watch
from tests.gate_world import Node, Worker

KINDS = {name: code for code, name in enumerate(model.MESSAGE_KINDS)}


class Crashed(Exception):
    """The daemon was killed in the middle of a request; `restart` comes next."""


class Station:
    """A node with its consumers, and peers b and c whose messages come in."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.b = node.add("b", "node-b", "192.0.2.7:6743")
        self.c = node.add("c", "node-c", "192.0.2.8:6743")
        self.numbers = itertools.count(1)
        self.programs: list[Program] = []
        self.crash: str | None = None  # at the next request: before the commit, or behind it
        self.open()

    def open(self) -> None:
        self.consuming = Consuming(self.node.books, self.node.outgoing)
        self.node.books.on_reread = self.consuming.miss_absent

    def restart(self) -> None:
        """The daemon is killed and started again; programs lose their connections."""
        self.programs.clear()
        self.node.books.reader.close()
        self.node.restart()
        self.b, self.c = self.node.peer(self.b.number), self.node.peer(self.c.number)
        self.open()

    def roll(self) -> None:
        """A new segment begins."""
        books = self.node.books
        books.store.roll(books.delivery.checkpoint(0))
        books.page.committed = books.store.committed

    def arrive(
        self, peer: Any = None, *, kind: str = "text", count: int = 1, headers: dict[str, str] | None = None
    ) -> list[bytes]:
        """One batch comes from a peer; the ids of its messages."""
        peer = self.node.peer((peer or self.b).number)
        ids = [uuid7(1_800_000_000_000 + next(self.numbers), bytes(10)) for _ in range(count)]
        payload = b"".join(encode(Message(raw, KINDS[kind], 1, "eva", headers or {}, b"hola")) for raw in ids)
        books, first = self.node.books, peer.inward.last + 1
        head = chain(peer.inward.head, first, count, payload)
        shape: dict[str, Any] = {"direction": model.IN, "count": count, "first_seq": first, "head": head}
        books.add(Kind.IN, peer=peer.number, payload=payload, **shape)
        books.delivery.received(peer, first + count - 1, head)
        books.commit()
        return ids

    def pass_s(self, seconds: float) -> None:
        """So much time goes by, and what is due then happens."""
        self.node.clock.pass_s(seconds)
        self.consuming.expire()
        self.node.commit()

    def program(self, name: str = "job", letter: str = "h", **wanted: Any) -> "Program":
        """A program that receives for a consumer. `letter` makes its holder."""
        program = Program(self, name, letter.encode() * 16)
        if wanted.pop("begins", True):
            program.receiver.begin(**wanted)
        return program

    def ask(self, channel: Worker, frame: Any) -> Any:
        """The answer to a frame, after its commit. Raises what it refuses."""
        crash, self.crash = self.crash, None
        before = self.node.books.mark()
        try:
            consuming.HANDLERS[type(frame)](self.consuming, channel, frame)
        except StorageFull:
            assert self.node.books.undo(before)
            raise
        if crash == "before the commit":
            raise Crashed
        self.node.commit()
        if crash is not None:
            raise Crashed
        answers = [f for f in channel.heard if getattr(f, "token", None) == getattr(frame, "token", -1)]
        for answer in answers:
            channel.heard.remove(answer)
        if answers and isinstance(answers[0], Refused):
            raise error_of(answers[0])
        return answers[0] if answers else None

    def reports(self) -> list[Message]:
        """The messages that this node sends by itself."""
        reader = self.node.books.reader
        kinds = (Kind.OUT, Kind.HELD)
        return [m for h in reader.headers() if h.kind in kinds for m in reader.messages(h)]


class Program:
    """A connected program; also the `Knowing` of its receiver."""

    def __init__(self, station: Station, name: str, holder: bytes) -> None:
        self.station = station
        self.channel = Worker("control")
        self.receiver = Receiver(self, name, holder)  # type: ignore[arg-type]
        self.freed: set[str] = set()
        self.damage: list[Damaged] = []
        self.user, self.own_name = "eva", "here"
        self.place = SimpleNamespace(reader=station.node.books.reader, page=station.node.books.page)
        self._tokens = itertools.count(1)
        station.programs.append(self)

    # --- what a test does -------------------------------------------------------------------------------

    def next(self, *settled: Settled) -> Taken | None:
        """What is handed out at once."""
        return self.receiver.next(settled, time.monotonic() - 1)

    def handle(self) -> bytes | None:
        """The id of the next message, which is then done."""
        taken = self.next()
        if taken is not None:
            self.receiver.settle([Settled(taken.row.id, DONE)])
        return None if taken is None else taken.row.id

    def all(self) -> list[bytes]:
        """Handle until nothing comes."""
        found = []
        while (raw := self.handle()) is not None:
            found.append(raw)
        return found

    def die(self) -> None:
        """Its control worker is killed: the connection is gone without a word."""
        self.station.consuming.gone(self.channel)
        self.station.node.commit()

    def close(self) -> None:
        """It ends, and its control worker sees that."""
        self.receiver.leave()
        self.die()

    # --- what its receiver asks -------------------------------------------------------------------------

    def next_token(self) -> int:
        return next(self._tokens)

    def tell(self, frame: Frame) -> None:
        if not isinstance(frame, Watch):
            self.station.ask(self.channel, frame)

    def ask(self, frame: Frame) -> Any:
        return self.station.ask(self.channel, frame)

    def wait(self, timeout_s: float | None) -> None:
        self.freed |= {frame.name for frame in self.channel.of(Freed)}

    def state(self, *, fresh: bool = True) -> Any:
        peers = self.station.node.books.delivery.peers.values()
        return SimpleNamespace(peers=[SimpleNamespace(number=p.number, into=p.into) for p in peers])

    def lookup(self, who: str) -> Any:
        peer = self.station.node.books.delivery.find(who)
        if peer is None:
            raise MsgdError(f"no peer {who}")
        return peer

    def look_at_peers(self) -> None:
        """Nothing is kept of them."""

    def name_of(self, number: int) -> str:
        return self.station.node.peer(number).name

    def note_damage(self, damaged: Damaged) -> None:
        self.damage.append(damaged)
