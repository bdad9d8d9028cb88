"""A real daemon under fuzzed input: its peer port as a stranger and as a peer, its control socket.

Whatever comes, nothing ends but the worker of that connection: supervisor and log process stay the same and
do not grow, no zombie is left, no traceback is printed, and a peer's message still arrives afterwards. Inputs
come from many source addresses, or the penalties would close the port after four of them.
"""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from zlib import crc32

from msgd.peer.buffer import ReceiveBuffer
from msgd.peer.errors import ProtocolError
from msgd.peer.frames import HANDSHAKE_BYTES, Batch, Position
from msgd.peer.heads import chain
from msgd.trust import tls
from msgd.trust.identity import identity_text, parse_identity
from tests.fuzz import local, peer, welcomed
from tests.fuzz.engine import PAGE, Finding, Report
from tests.fuzz.mutate import change_bytes, change_json, frames_mutation, join, packed, split
from tests.nodes import PORT, Node, Nodes, is_running, wait_for
from tests.peer_pair import D
from tests.speaker import Speaker, speakers_until

AT_ONCE = 4
VICTIMS = 50  # peers that calls may rename, block and remove
ANSWER_S = 0.1  # a call that is answered later (`follow`, a send that waits) is left alone
PATIENCE_S = 5.0
MOST_GROWN = 32 << 20  # bytes, of supervisor, log process and index
SENTINEL = b'{"method": "org.varlink.service.GetInfo"}\0'


@dataclass
class Subject:
    """The daemon, its peer, and how both were before."""

    node: Node
    other: Node
    pids: tuple[int, ...]  # supervisor, log process, index

    @property
    def resident(self) -> int:
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in self.pids)


def run(directory: Path, inputs: int, seed: int) -> Iterator[Report]:
    """Each of PARTS against one daemon."""
    nodes = Nodes(directory)
    try:
        node, other = nodes.pair(settings="[limits]\nhandshake_s = 2\n")
        with node.client() as client:
            client.call("PeerAdd", name="fuzz", key=identity_text(D.identity))
            for number in range(VICTIMS):
                identity = sha256(b"%d" % number).digest()
                client.call("PeerAdd", name=f"f{number}", key=identity_text(identity))
        subject = Subject(node, other, (node.pid, *node.pids()["log"], *node.pids()["index"]))
        for name in PARTS:
            yield one(subject, name, inputs, seed)
    finally:
        nodes.end()


def one(subject: Subject, name: str, inputs: int, seed: int) -> Report:
    """One part: its inputs are made from the seed first, then given to the daemon."""
    made, give, share = PARTS[name]
    rng, report = Random(f"{seed} live {name}"), Report(f"live {name}")
    begun_s, before = time.monotonic(), subject.resident
    work = list(made(rng, max(1, int(inputs * share))))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answered = list(pool.map(partial(give, subject.node), range(len(work)), work))
    report.inputs, report.accepted, report.digest = len(work), sum(answered), crc32(b"".join(work))
    report.seconds = time.monotonic() - begun_s
    report.grown_bytes = max(0, subject.resident - before)
    report.findings = [Finding(b"", text + "\n", text) for text in harm(subject, report.grown_bytes)]
    return report


def harm(subject: Subject, grown_bytes: int) -> Iterator[str]:
    """Sentences about what should not have happened."""
    node = subject.node
    if not all(is_running(pid) for pid in subject.pids):
        yield "supervisor, log process or index has ended"
        return
    if "Traceback" in node.said():
        yield node.said()[node.said().index("Traceback") :][:4000]
    if grown_bytes > MOST_GROWN:
        yield f"supervisor, log process and index grew by {grown_bytes >> 20} MiB"
    try:
        wait_for(lambda: "?" not in node.pids(), PATIENCE_S, "zombies to be reaped")
        done = subject.other.ctl("send", node.name, "--wait=stored", "--timeout=20", "still here")
        assert done.returncode == 0, f"the peer could not send any more: {done}"
        done = node.ctl("log", "-n", "all", "-o", "json")
        assert done.returncode == 0, f"the history cannot be read any more: {done.stderr}"
    except AssertionError as error:
        yield str(error)


# --- the peer port ------------------------------------------------------------------------------------------


def source(number: int) -> str:
    return f"127.81.{number // 250 % 250}.{number % 250 + 1}"


def connect(node: Node, number: int) -> socket.socket:
    sock = socket.create_connection((node.host, PORT), PATIENCE_S, (source(number), 0))
    sock.settimeout(PATIENCE_S)
    return sock


def secured(node: Node, number: int) -> ssl.SSLSocket:
    return tls.dialler_context().wrap_socket(connect(node, number))


def rest(sock: socket.socket) -> bytes:
    """What the daemon says until it closes."""
    found = b""
    try:
        while data := sock.recv(1 << 16):
            found += data
    except OSError:
        pass
    return found


def raw_inputs(rng: Random, count: int) -> Iterator[bytes]:
    """Bytes before TLS: garbage, and client hellos that are nearly right."""
    hello = client_hello()
    for _ in range(count):
        yield (
            rng.randbytes(rng.choice((1, 2, 100, 5000)))
            if rng.random() < 0.3
            else change_bytes(rng, hello, [hello])
        )


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = tls.dialler_context().wrap_bio(incoming, outgoing)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def give_raw(node: Node, number: int, data: bytes) -> bool:
    with connect(node, number) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return bool(rest(sock))


def stranger_inputs(rng: Random, count: int) -> Iterator[bytes]:
    """What a dialler says after the greet; hellos are signed on the spot."""
    corpus, mutate = peer.acceptor_seeds(), frames_mutation()
    for _ in range(count):
        yield mutate(rng, rng.choice(corpus), corpus)


def give_stranger(node: Node, number: int, data: bytes) -> bool:
    try:
        with secured(node, number) as session:
            greet = greet_body(session)
            session.sendall(signed_anew(data, greet, parse_identity(identity_of(node))))
            session.settimeout(ANSWER_S)
            return bool(rest(session))
    except OSError:
        return False


def greet_body(session: ssl.SSLSocket) -> bytes:
    buffer = ReceiveBuffer()
    while (frame := buffer.frame(HANDSHAKE_BYTES)) is None:
        count = session.recv_into(buffer.space())
        if not count:
            raise OSError("closed before the greet")
        buffer.filled(count)
    return bytes(frame[1:])


def signed_anew(data: bytes, greet: bytes, acceptor: bytes) -> bytes:
    """The same frames, the first hello with a proof for this connection (without channel binding)."""
    frames = split(data)
    if not frames or frames[0][0] != 2:
        return data
    value = peer.unpacked(frames[0][1])
    if not isinstance(value, list) or not value or not isinstance(value[0], bytes):
        return data
    content = value[0].replace(b"\xaatls-unique", b"\xa4none")
    proof = D.sign_hello(acceptor, greet, content, b"")
    return join([(2, packed([content, proof])), *frames[1:]])


_identities: dict[str, str] = {}


def identity_of(node: Node) -> str:
    return _identities.setdefault(node.name, node.identity)


def peer_inputs(rng: Random, count: int) -> Iterator[bytes]:
    """What a peer says once it is welcomed."""
    corpus, mutate = welcomed.link_seeds(), frames_mutation()
    for _ in range(count):
        yield mutate(rng, rng.choice(corpus), corpus)


def give_peer(node: Node, number: int, data: bytes) -> bool:
    """As the pinned peer `fuzz`; its dials count up, so each one takes the link over from the last."""
    import msgspec

    said = msgspec.structs.replace(peer.hellos()[0], binding="none", dial=number + 1)
    hello = join([(2, packed([peer.encode_hello(said), bytes(64)]))])
    try:
        with secured(node, number) as session:
            greet = greet_body(session)
            session.sendall(signed_anew(hello, greet, parse_identity(identity_of(node))) + data)
            session.settimeout(ANSWER_S)
            return bool(rest(session))
    except OSError:
        return False


def payload_inputs(rng: Random, count: int) -> Iterator[bytes]:
    """Messages as a peer may put them into a batch; the first byte is their number."""
    corpus = welcomed.payload_seeds()
    for _ in range(count):
        yield welcomed.mutate_payload(rng, rng.choice(corpus), corpus)


class Author(Speaker):
    """A peer whose batches have right numbers and heads, whatever is in them."""

    def give(self, node: Node, payload: bytes, count: int) -> bool:
        """Whether the node has taken this batch; it closes the link otherwise."""
        identity = identity_of(node)
        if self.talk is None or not self.is_linked:
            self.dial(node, identity)
        assert self.talk is not None
        before = self.log.out
        first = before.last + 1
        head = chain(before.head, first, count, payload)
        batch = Batch(first, count, head, memoryview(payload))
        self.log.out = Position(before.epoch, before.last + count, head)
        self.log.released.append(batch)
        try:
            assert self.talk.outbox is not None
            self.talk.outbox.send(first, count, head, len(payload))
            self.talk.next_seq = first + count
            self.talk.say(batch)
            speakers_until([self], lambda: self.log.receipted >= first, PATIENCE_S, "a receipt")
        except (EOFError, ProtocolError):
            self.log.out = before
            self.log.released.pop()
            self.close()
            return False
        return True


_author = Author("author", source="127.87.0.1")
_authors = threading.Lock()


def give_payload(node: Node, number: int, data: bytes) -> bool:
    with _authors:
        if number == 0:
            _author.pin_at(node)
        return bool(data and data[0]) and _author.give(node, data[1:], data[0])


# --- the control socket -------------------------------------------------------------------------------------


def call_inputs(rng: Random, count: int) -> Iterator[bytes]:
    corpus = local.calls()
    for _ in range(count):
        changed = change_json(rng, rng.choice(corpus), corpus)
        yield changed.replace(b'"fuzz"', b'"f%d"' % rng.randrange(VICTIMS))


def give_call(node: Node, number: int, data: bytes) -> bool:
    """A call and one whose answer is known: whether both were answered."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_S)
        try:
            sock.connect(str(node.socket))
            sock.sendall(data.rstrip(b"\0") + b"\0" + SENTINEL)
            found = b""
            while b'"vendor"' not in found and (piece := sock.recv(1 << 16)):
                found += piece
        except OSError:
            return False
        return all(json.loads(reply) for reply in found.split(b"\0") if reply) and b'"vendor"' in found


Make = Callable[[Random, int], Iterator[bytes]]
Give = Callable[[Node, int, bytes], bool]
PARTS: dict[str, tuple[Make, Give, float]] = {
    "raw": (raw_inputs, give_raw, 0.1),
    "stranger": (stranger_inputs, give_stranger, 0.05),
    "peer": (peer_inputs, give_peer, 0.05),
    "messages": (payload_inputs, give_payload, 0.1),
    "control": (call_inputs, give_call, 1.0),
}
