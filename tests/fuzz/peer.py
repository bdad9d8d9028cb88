"""What nodes say to each other before they know each other: frames alone, and as heard by both ends.

The answers of each end are those of a worker, without its log process: the connection goes as far as the
input leads it.
"""

from random import Random
from typing import Any

import msgspec

from msgd.peer.buffer import FIRST_BYTES, TLS_RECORD, ReceiveBuffer
from msgd.peer.codec import decode, decode_hello, encode, encode_hello
from msgd.peer.connection import Connection
from msgd.peer.errors import RemoteProtocolError
from msgd.peer.frames import (
    CODES,
    HANDSHAKE_BYTES,
    VERSION,
    Batch,
    Commit,
    Greet,
    Hello,
    Joined,
    Nonce,
    Refuse,
    Reveal,
    Rotation,
    Verdict,
)
from tests.fuzz.engine import Target
from tests.fuzz.mutate import frames_mutation, join, packed, split, unpacked
from tests.peer_pair import EVEN, LIMITS, SAMPLES, A, D, acceptor, dialler, greet, welcome

GREET = greet(bindings=["tls-unique"])
BINDING = b"the session's binding"
ROTATION = Rotation(A.spki, bytes(64), bytes(64))
WANTS = ("link", "pair", "join", "service", "files")
NAME = "node-a"


# --- frames alone -------------------------------------------------------------------------------------------


def frame_seeds() -> list[bytes]:
    return [encode(frame) for frame in SAMPLES.values()] + [
        join([(2, encode_hello(said))]) for said in hellos()
    ]


def run_frame(data: bytes) -> str:
    """A frame that is taken is written back as something that means the same."""
    if not data:
        return "empty"
    frames = split(data) or [(data[0], data[1:])]
    told = []
    for code, body in frames:
        frame = decode(code, memoryview(body))
        told.append(type(frame).__name__)
        if frame is not None and not isinstance(frame, Batch) and len(body) < HANDSHAKE_BYTES:
            again = encode(frame)
            assert frame == decode(again[4], again[5:]), (frame, again)
    return " ".join(told[:2])


def run_hello(data: bytes) -> str:
    """The same for what a dialler signs."""
    said = decode_hello(data)
    assert said == decode_hello(encode_hello(said))
    return said.want


def mutate_hello(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """A hello's content, as the body of one frame."""
    wrapped = [join([(2, one)]) for one in (data, *rng.sample(corpus, min(3, len(corpus))))]
    frames = split(frames_mutation()(rng, wrapped[0], wrapped))
    return frames[0][1] if frames else b""


def run_buffer(data: bytes) -> str:
    """However the bytes arrive, the same frames; never more room than a handshake needs."""
    rng, whole, buffer = Random(len(data)), [], ReceiveBuffer()
    at = 0
    try:
        while at < len(data):
            space = buffer.space()
            assert TLS_RECORD <= len(space) <= FIRST_BYTES + (64 << 10), len(space)
            count = min(len(space), len(data) - at, rng.choice((1, 3, 100, TLS_RECORD)))
            space[:count] = data[at : at + count]
            buffer.filled(count)
            at += count
            while (frame := buffer.frame(HANDSHAKE_BYTES)) is not None:
                whole.append((frame[0], bytes(frame[1:])))
    finally:
        assert whole == split(data)[: len(whole)]
    assert whole == split(data)
    return f"{min(len(whole), 3)} frames"


# --- before they know each other ----------------------------------------------------------------------------


def hellos() -> list[Hello]:
    """One hello of each kind, and one with all that it may have."""
    common: dict[str, Any] = {
        "spki": D.spki, "version": VERSION, "binding": "tls-unique", "instance": bytes(16), "dial": 1,
        "name": "node-d",
    }  # fmt: skip
    return [
        Hello(**common, want="link", chain=[], limits=LIMITS, link=EVEN),
        Hello(**common, want="pair", chain=[], port=6743),
        Hello(**common, want="join", chain=[], port=6743, invitation=bytes(8), proof=bytes(32)),
        Hello(**common, want="service", chain=[ROTATION] * 8, limits=LIMITS),
        Hello(**common, want="files", chain=[], limits=LIMITS),
    ]


def sign(greet_body: bytes, content: bytes) -> bytes:
    return D.sign_hello(A.identity, greet_body, content, BINDING if b"tls-unique" in content else b"")


def signed(said: Hello) -> tuple[int, bytes]:
    content = encode_hello(said)
    return 2, packed([content, sign(encode(GREET)[5:], content)])


def reseal(rng: Random, frames: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The first hello signed anew, mostly: else nothing would be seen behind the signature."""
    if not frames or frames[0][0] != 2 or rng.random() < 0.1:
        return frames
    value = unpacked(frames[0][1])
    if not isinstance(value, list) or not value or not isinstance(value[0], bytes):
        return frames
    return [(2, packed([value[0], sign(encode(GREET)[5:], value[0])])), *frames[1:]]


def acceptor_seeds() -> list[bytes]:
    exchange = [(CODES[Nonce], packed({"nonce": bytes(32)})), (CODES[Verdict], packed({"accept": True}))]
    link = split(b"".join(encode(SAMPLES[name]) for name in ("ping", "pong", "goodbye")))
    behind: dict[str, list[tuple[int, bytes]]] = {"pair": exchange, "link": link, "service": link}
    return [join([signed(said), *behind.get(said.want, [])]) for said in hellos()]


def run_acceptor(data: bytes) -> str:
    """A stranger dials us."""
    end = acceptor(binding=BINDING)
    end.send(GREET)
    told = []
    for event in fed(end, data):
        told.append(type(event).__name__)
        answer_as_acceptor(end, event)
    return f"{end.state} {' '.join(told[:6])}"


def answer_as_acceptor(end: Connection, event: object) -> None:
    match event:
        case Hello(want="link"):
            end.send(welcome())
        case Hello(want="pair"):
            end.send(Commit(NAME, bytes(32)))
        case Hello(want="join"):
            end.send(Joined(NAME))
        case Hello():
            end.send(Refuse("off", 600))
        case Nonce():
            end.send(Reveal(bytes(32)))


def dialler_seeds() -> list[bytes]:
    """The first byte says what the dialler wants."""
    chained = Greet(versions=[1, 2], bindings=["tls-unique"], nonce=bytes(32), chain=[ROTATION] * 8)
    answers = {
        "link": [encode(welcome()), encode(SAMPLES["ping"]), encode(SAMPLES["goodbye"])],
        "pair": [encode(Commit(NAME, bytes(32))), encode(Reveal(bytes(32))), encode(Verdict(True))],
        "join": [encode(Joined(NAME))],
        "service": [encode(Refuse("limit", 5, "later"))],
        "files": [encode(Refuse("limit", 1))],
    }
    return [
        bytes([WANTS.index(want)]) + b"".join((encode(first), *answers[want]))
        for want in WANTS
        for first in (GREET, chained)
    ]


def mutate_dialler(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    want = data[:1] if rng.random() < 0.95 else rng.randbytes(1)
    return want + frames_mutation()(
        rng, data[1:], [one[1:] for one in rng.sample(corpus, min(4, len(corpus)))]
    )


def run_dialler(data: bytes) -> str:
    """We dial somebody: whatever answers at an address that a person typed."""
    want = WANTS[data[0] % len(WANTS)] if data else "link"
    end = dialler(binding=BINDING)
    told = []
    for event in fed(end, data[1:]):
        told.append(type(event).__name__)
        answer_as_dialler(end, event, want)
    return f"{want} {end.state} {' '.join(told[:6])}"


def answer_as_dialler(end: Connection, event: object, want: str) -> None:
    match event:
        case Greet():
            said = next(said for said in hellos() if said.want == want)
            end.send(hello_with(said, end))
        case Commit():
            end.send(Nonce(bytes(32)))


def hello_with(said: Hello, end: Connection) -> Hello:
    return msgspec.structs.replace(said, version=end.version, binding=end.binding)


def fed(end: Connection, data: bytes) -> Any:
    """What the bytes say, until the connection breaks; its memory stays within the first buffer's."""
    at = 0
    while at < len(data):
        space = end.receive_buffer()
        if end.state not in ("LINKED", "DIALLER_LEFT", "ACCEPTOR_LEFT"):
            assert len(space) <= FIRST_BYTES + (64 << 10), len(space)
        count = min(len(space), len(data) - at)
        space[:count] = data[at : at + count]
        at += count
        yield from end.received(count)


REFUSED = (RemoteProtocolError,)
TARGETS = [
    Target("buffer", frame_seeds, run_buffer, frames_mutation(), REFUSED),
    Target("frame", frame_seeds, run_frame, frames_mutation(), REFUSED, weight=4),
    Target(
        "hello", lambda: [encode_hello(said) for said in hellos()], run_hello, mutate_hello, REFUSED, weight=2
    ),
    Target("acceptor", acceptor_seeds, run_acceptor, frames_mutation(reseal), REFUSED),
    Target("dialler", dialler_seeds, run_dialler, mutate_dialler, REFUSED),
]
