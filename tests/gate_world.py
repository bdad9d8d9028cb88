"""A log process's gate without processes: a real log, clocks that a test moves, channels that remember.

`Node.restart` is a kill: what was not committed is gone, and the log is read again.
"""

import itertools
from typing import Any

import msgspec
import pytest

from msgd import journal
from msgd.books import Books
from msgd.channel import Channel
from msgd.config import Config, ListenAddress, Pairing
from msgd.delivery import Delivery
from msgd.gate import HANDLERS, Gate
from msgd.linking import Linking
from msgd.log.clock import Clock
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.log.store import Store
from msgd.outgoing import Outgoing
from msgd.standing import Peer
from msgd.trust.identity import load_or_create
from msgd.wire.codec import Message, encode
from msgd.wire.frame import Frame
from msgd.wire.ledger import (
    Cut,
    Denied,
    KnownPeer,
    MayDial,
    Peers,
    PutPeer,
    Submit,
    TakeHello,
)
from msgd.wire.trust import Decide, FileRequest, RequestList, Requests, RequestState

S_NS = 1_000_000_000
BOOT = b"boot-one"
WORDS = ["receive", "action", "stone", "hire"]
T_HASH = b"t" * 32


def identity(letter: str) -> bytes:
    """A made-up identity; "a" is smaller than most keys, "z" bigger than few."""
    return letter.encode() * 32


class HandClock(Clock):
    """Clocks that stand still until a test moves them."""

    def __init__(self) -> None:
        self.boot = 5_000 * S_NS
        self.wall = 1_800_000_000 * S_NS
        self.wall_ns = lambda: self.wall
        self.boot_ns = lambda: self.boot
        self.mono_ns = lambda: self.boot
        self.start = BOOT + b"start--1"

    def pass_s(self, seconds: float) -> None:
        self.boot += int(seconds * S_NS)
        self.wall += int(seconds * S_NS)


class Worker(Channel):
    """The log process's end of a link worker's or a client's channel."""

    numbers = itertools.count(100)

    def __init__(self, kind: str = "link") -> None:
        self.fd = next(self.numbers)
        self.pid = 10_000 + self.fd
        self.kind = kind
        self.peer = 0
        self.identity = b""
        self.is_told = self.is_service = self.is_sharing = self.is_deaf = self.is_stale = self.broken = False
        self.watching = set()
        self.heard: list[Any] = []

    def say(self, frame: Frame, payload: bytes | memoryview = b"") -> None:
        self.heard.append(frame)

    def take(self) -> Any:
        """The only frame that came since the last look."""
        (frame,) = self.heard
        self.heard.clear()
        return frame

    def of(self, kind: type[Any]) -> list[Any]:
        """The frames of this kind that came."""
        return [frame for frame in self.heard if isinstance(frame, kind)]

    @property
    def is_cut(self) -> bool:
        return bool(self.of(Cut))


class Node:
    """The gate of one node, and what the supervisor and the journal hear of it."""

    def __init__(self, state: str, trust: str = "confirm") -> None:
        self.state = state
        self.trust = trust
        self.clock = HandClock()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.key = load_or_create(state)
        self.open()

    def open(self) -> None:
        page, delivery = SharedPage(), Delivery()
        log = f"{self.state}/log"
        store = Store(log, self.clock, page=page)
        store.recover(delivery.apply, lambda: delivery.checkpoint(0))
        page.committed = store.committed
        self.books = Books(store, Reader(log, lambda: page.committed), page, self.clock)
        self.books.delivery = delivery
        self.said: list[Any] = []  # to the supervisor
        self.dials: list[tuple[int, bool]] = []
        self.links = Linking(self.books, self.key.identity, lambda known: self.said.append(Peers([known])))
        self.links.wants_dial_now = lambda number, eager: self.dials.append((number, eager))
        outgoing = Outgoing(self.books, self.links, f"{self.state}/index.sqlite")
        self.outgoing = outgoing
        config = Config(
            name="here",
            listen=(ListenAddress("192.0.2.1"),),
            state=self.state,
            socket="/tmp/none",
            pairing=Pairing(trust=self.trust),  # type: ignore[arg-type]
        )
        self.gate = Gate(self.books, self.links, outgoing, config, self.said.append)
        self.gate.start()
        self.commit()

    def restart(self, *, boot: bytes = BOOT) -> None:
        """Killed and started again, after a start of the machine where `boot` says so."""
        self.books.store.close()
        self.key = load_or_create(self.state)
        count = int(self.clock.start[-1:]) + 1
        self.clock.start = boot + b"start--%d" % count
        self.open()

    def commit(self) -> bool:
        return self.books.commit()

    # --- who asks ---------------------------------------------------------------------------------------

    def worker(self) -> Worker:
        channel = Worker()
        self.links.channels[channel.fd] = channel
        return channel

    def ask(self, channel: Worker, frame: Frame) -> Any:
        """Say a frame to the gate, let it commit; the answer with the frame's token, None without one."""
        HANDLERS[type(frame)](self.gate, channel, frame)
        self.commit()
        token = getattr(frame, "token", None)
        answers = [f for f in channel.heard if token is not None and getattr(f, "token", None) == token]
        for answer in answers:
            channel.heard.remove(answer)
        return answers[0] if answers else None

    def person(self, frame: Frame) -> Any:
        """A control client's request."""
        return self.ask(Worker("control"), frame)

    def end(self, channel: Worker) -> None:
        """The worker has ended."""
        self.links.gone(channel)
        self.gate.pairing.gone(channel)
        self.commit()

    # --- steps that many tests take ---------------------------------------------------------------------

    def hold(self, address: str = "192.0.2.9:6743", *, send: bool = True) -> Peer:
        """A person sends to an address."""
        number = self.person(PutPeer(1, "hold", "eva", address=address)).value
        if send:
            raw = encode(Message(bytes(15) + bytes([number]), 0, 1, "eva", {}, b"hola"))
            submit = Submit(1, number, 1, bytes(15) + bytes([number]), 0, self.books.generation, "eva")
            self.outgoing.submit(Worker("control"), submit, memoryview(raw))
            self.commit()
        return self.peer(number)

    def add(self, letter: str, name: str, address: str = "192.0.2.7:6743") -> Peer:
        """A person adds a peer by its key."""
        put = PutPeer(1, "add", "eva", identity=identity(letter), name=name, address=address)
        return self.peer(self.person(put).value)

    def peer(self, number: int) -> Peer:
        return self.books.delivery.peers[number]

    def known(self, number: int) -> KnownPeer:
        """What the supervisor knows of a peer."""
        return self.links.known(self.peer(number))

    def hello(self, letter: str, want: str = "link", dial: int = 1, **fields: Any) -> tuple[Worker, Any]:
        """A good hello comes in; the worker and the answer."""
        channel = self.worker()
        given = {"name": f"node-{letter}", "port": 6743, "address": "198.51.100.1:40000", **fields}
        who = given.pop("identity", identity(letter))
        start = given.pop("instance", b"start of this one"[:16])
        frame = TakeHello(1, who, start, dial, given.pop("address"), want, **given)
        return channel, self.ask(channel, frame)

    def dial(self, number: int, letter: str, want: str = "pair", **fields: Any) -> tuple[Worker, Any]:
        """A worker of ours has found who answers; itself and the answer."""
        channel = self.worker()
        found = fields.pop("identity", identity(letter))
        return channel, self.ask(channel, MayDial(1, number, want, found, **fields))

    def file(self, channel: Worker, *, is_ours: bool, **fields: Any) -> Any:
        """The words of an exchange are known."""
        frame = FileRequest(
            2,
            channel.identity,
            fields.pop("name", f"node-{channel.identity[:1].decode()}"),
            fields.pop("address", "198.51.100.1:6743"),
            fields.pop("words", WORDS),
            T_HASH,
            is_ours,
            channel.peer,
        )
        return self.ask(channel, frame)

    def asked_by(self, letter: str, dial: int = 1, **fields: Any) -> Worker:
        """Somebody has begun an exchange, and its words are known here."""
        channel, _ = self.hello(letter, "pair", dial, **fields)
        self.file(channel, is_ours=False)
        return channel

    def requests(self) -> list[RequestState]:
        found: RequestList = self.person(Requests(1))
        return found.requests

    def decide(self, letter: str, accept: bool, **fields: Any) -> Any:
        """A person's yes or no."""
        words = fields.pop("words", " ".join(WORDS))
        return self.person(Decide(1, identity(letter), words, accept, "eva", **fields))

    def take_events(self, name: str) -> list[dict[str, Any]]:
        """The fields of the events of this name, which are forgotten."""
        found = [fields for event, fields in self.events if event == name]
        self.events[:] = [(event, fields) for event, fields in self.events if event != name]
        return found

    def records(self) -> list[str]:
        """The actions of all peer records, in order."""
        reader = self.books.reader
        kinds = (reader.record(h.offset) for h in reader.headers() if h.kind == 7)
        return [msgspec.msgpack.decode(r.payload)["action"] for r in kinds]


def code(answer: Any) -> str:
    """The code of a refusal, empty for a yes."""
    return answer.code if isinstance(answer, Denied) else ""


@pytest.fixture
def here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node of which nobody is a peer yet."""
    return new_node(str(tmp_path), monkeypatch)


def new_node(state: str, monkeypatch: pytest.MonkeyPatch, trust: str = "confirm") -> Node:
    """A node in this directory; its events are kept."""
    node = Node(state, trust)
    monkeypatch.setattr(journal, "is_shown", lambda name: True)
    monkeypatch.setattr(journal, "event", lambda name, **fields: node.events.append((name, fields)))
    return node
