"""Two ends of a connection joined in memory, with real keys and real proofs; samples of every frame."""

from collections.abc import Iterable
from functools import partial

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from msgd.peer.connection import Connection, Event
from msgd.peer.frames import (
    NOWHERE,
    VERSION,
    Batch,
    Commit,
    Epoch,
    EpochDone,
    Frame,
    Goodbye,
    Greet,
    Hello,
    Joined,
    Limits,
    Link,
    Nonce,
    Ping,
    Pong,
    Position,
    Receipt,
    Refuse,
    Reveal,
    Rotation,
    SignedHello,
    State,
    Verdict,
    Want,
    Welcome,
)
from msgd.peer.state import ACCEPTOR, DIALLER, Role
from msgd.trust.identity import NodeKey
from msgd.trust.proof import verify_hello

# The keys of the trust protocol's check values.
A = NodeKey(Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
D = NodeKey(Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32))

LIMITS = Limits(window_bytes=4 << 20, window_batches=64, message_bytes=1 << 20, keepalive_s=30)
EPOCH = bytes([0xE1]) * 16
HEAD = bytes([0xAA]) * 32
OTHER_HEAD = bytes([0xBB]) * 32

UNLINKED = Link(out=NOWHERE, in_=NOWHERE)
EVEN = Link(out=Position(EPOCH, 0, HEAD), in_=Position(EPOCH, 0, HEAD))


def greet(*, versions: Iterable[int] = (VERSION,), bindings: Iterable[str] = ()) -> Greet:
    return Greet(versions=list(versions), bindings=list(bindings), nonce=bytes([7]) * 32, chain=[])


def hello(
    *, key: NodeKey = D, version: int = VERSION, binding: str = "none", link: Link = EVEN, dial: int = 1
) -> Hello:
    return Hello(
        spki=key.spki,
        want="link",
        version=version,
        binding="tls-unique" if binding == "tls-unique" else "none",
        instance=bytes([8]) * 16,
        dial=dial,
        name="node-d",
        chain=[],
        limits=LIMITS,
        link=link,
    )


def wanting(want: Want, said: Hello | None = None) -> Hello:
    """A hello that asks for something, with just the keys of that."""
    keys: dict[str, object] = {
        "link": {"limits": LIMITS, "link": EVEN},
        "pair": {"port": 6743},
        "join": {"port": 6743, "invitation": bytes([6]) * 8, "proof": bytes([5]) * 32},
        "service": {"limits": LIMITS},
        "files": {"limits": LIMITS},
    }[want]
    bare = msgspec.structs.replace(said or hello(), limits=None, link=None, want="pair", port=1)
    return msgspec.structs.replace(bare, want=want, **{"port": None, **keys})


def welcome(*, version: int = VERSION, link: Link = EVEN) -> Welcome:
    return Welcome(version=version, name="node-a", instance=bytes([9]) * 16, limits=LIMITS, link=link)


def dialler(
    *, key: NodeKey = D, to: NodeKey = A, binding: bytes = b"", versions: tuple[int, ...] = (1,)
) -> Connection:
    sign = partial(key.sign_hello, to.identity)
    return Connection(DIALLER, sign=sign, binding=binding, versions=versions)


def acceptor(*, key: NodeKey = A, binding: bytes = b"", versions: tuple[int, ...] = (1,)) -> Connection:
    verify = partial(verify_hello, key.identity)
    return Connection(ACCEPTOR, verify=verify, identity=key.identity, binding=binding, versions=versions)


class LinkPair:
    """A dialler and an acceptor; what one sends the other hears at once."""

    def __init__(self, dialler_end: Connection | None = None, acceptor_end: Connection | None = None) -> None:
        self.dialler = dialler_end or dialler()
        self.acceptor = acceptor_end or acceptor()

    def send(self, role: Role, frame: Frame | Hello) -> list[Event]:
        """What the other end hears when `role` says this."""
        speaker, listener = (
            (self.dialler, self.acceptor) if role == DIALLER else (self.acceptor, self.dialler)
        )
        return list(listener.receive_data(b"".join(speaker.send(frame))))

    def greeted(self, want: Want) -> "LinkPair":
        """Greet and hello: whatever it wants is due."""
        self.send(ACCEPTOR, greet(bindings=self.acceptor.bindings))
        said = hello(binding=self.dialler.binding, version=self.dialler.version)
        self.send(DIALLER, wanting(want, said))
        return self

    def link(self, ours: Link = EVEN, theirs: Link = EVEN) -> "LinkPair":
        """Greet, hello, welcome: `ours` is the dialler's."""
        self.send(ACCEPTOR, greet(bindings=self.acceptor.bindings))
        said = hello(link=ours, binding=self.dialler.binding, version=self.dialler.version)
        self.send(DIALLER, said)
        self.send(ACCEPTOR, welcome(link=theirs, version=self.acceptor.version))
        return self


# One of each frame, as it lies in tests/golden/peer_frames.txt.
SAMPLES: dict[str, Frame] = {
    "greet": Greet(
        versions=[1, 2],
        bindings=["tls-unique"],
        nonce=bytes(range(32)),
        chain=[Rotation(bytes(range(44)), bytes([1]) * 64, bytes([2]) * 64)],
    ),
    "hello": SignedHello(b"content", bytes([3]) * 64),
    "welcome": Welcome(
        version=1,
        name="node3",
        instance=bytes(range(16)),
        limits=LIMITS,
        link=Link(out=Position(EPOCH, 300, HEAD), in_=NOWHERE),
    ),
    "refuse": Refuse("unpaired", 60, "no pin"),
    "refuse-bare": Refuse("duplicate"),
    "commit": Commit("node3", HEAD),
    "nonce": Nonce(bytes(range(32))),
    "reveal": Reveal(OTHER_HEAD),
    "verdict-yes": Verdict(True),
    "verdict-no": Verdict(False),
    "joined": Joined("node3"),
    "batch": Batch(5, 2, HEAD, memoryview(b"\x01\x02messages")),
    "receipt": Receipt(6, HEAD, 1_700_000_000_000_000_000, 12_345),
    "ping": Ping(1_700_000_000_000_000_000, 99),
    "pong": Pong(1_700_000_000_000_000_000, 99, 1_700_000_000_100_000_000, 1_700_000_000_100_000_500),
    "state": State(2, 300, HEAD),
    "state-none": State(1, 300, None),
    "epoch": Epoch(EPOCH, 301, 300, HEAD, 299, OTHER_HEAD),
    "epoch-done": EpochDone(EPOCH),
    "goodbye": Goodbye("closing", 5),
}
