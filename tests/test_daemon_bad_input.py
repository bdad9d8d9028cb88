"""Bad input at every door of a real daemon: one sentence with the next step, the right exit code, no harm."""

import itertools
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from msgd.config import load
from msgd.errors import EX_CONFIG, OK, UNEXPECTED, UNREACHABLE
from msgd.log.clock import Clock
from msgd.log.store import Store
from msgd.meeting import dial
from msgd.node import Node as Self
from msgd.node import node_of
from msgd.peer.connection import Connection
from msgd.peer.frames import Hello, Limits, Link, Position
from msgd.peer.state import DIALLER
from msgd.session import Wire
from msgd.trust import tls
from msgd.trust.identity import NodeKey, identity_text, parse_identity
from msgd.wire.frame import DirectionState
from msgd.wire.ledger import Granted
from tests.faults import fails_to_start, sentence
from tests.nodes import PORT, Node, Nodes, command_line, is_running, wait_for
from tests.require import REPOSITORY, require

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SOON_S = 10
DEBUG = 'log_level = "debug"\n'
_sources = itertools.cycle(range(1, 255))
BUSY = "127.62.0.1"  # of the sockets that stand where a daemon wants to listen
NOWHERE = DirectionState(bytes(16), 0, bytes(32))


def msgd(*words: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; what a person sees never holds a traceback."""
    command = [sys.executable, "-m", "msgd", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr + done.stdout
    return done


def refused(*words: str) -> str:
    """The same where it cannot start: its sentence and its hint."""
    done = msgd(*words)
    assert done.returncode == EX_CONFIG, done
    lines = done.stderr.splitlines()
    assert lines[0].startswith("msgd: "), done.stderr
    return done.stderr


# --- configuration ------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "unknown key": (
        b'nmae = "a"\n',
        (
            "nmae",
            "name",
        ),
    ),
    "wrong type": (
        b"name = 7\n",
        (
            "name",
            "7",
        ),
    ),
    "wrong name": (
        b'name = "Node One"\n',
        (
            "Node One",
            "node-one",
        ),
    ),
    "wrong port": (
        b'listen = "127.0.0.1:99999"\n',
        (
            "listen",
            "99999",
        ),
    ),
    "below a limit": (
        b"[limits]\nsegment_bytes = 5\n",
        (
            "limits.segment_bytes",
            "5",
        ),
    ),
    "not TOML": (b"name = \n", ("line 1",)),
    "not UTF-8": (b'name = "\xff"\n', ("UTF-8",)),
    "long socket": (
        b'socket = "/' + b"x" * 120 + b'"\n',
        (
            "socket",
            "107",
        ),
    ),
    "relative state": (
        b'state = "var"\n',
        (
            "state",
            "absolute path",
        ),
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_setting_is_named(tmp_path: Path, kind: str) -> None:
    """File, key, what was read and what was expected; the same from --check-config."""
    file = tmp_path / "msgd.toml"
    content, words = WRONG[kind]
    file.write_bytes(content)
    for options in (["--check-config"], []):
        told = refused("--config", str(file), *options)
        for word in (str(file), *words):
            assert word in told
    assert [path.name for path in tmp_path.iterdir()] == ["msgd.toml"]


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Absent, or a directory."""
    assert str(tmp_path / "absent.toml") in refused("--config", str(tmp_path / "absent.toml"))
    assert str(tmp_path) in refused("--config", str(tmp_path))


def test_check_config_says_that_it_is_good(tmp_path: Path) -> None:
    """And changes nothing."""
    file = tmp_path / "msgd.toml"
    file.write_text(f'state = "{tmp_path}/state"\nsocket = "{tmp_path}/socket"\n')
    done = msgd("--config", str(file), "--check-config")
    assert (done.returncode, done.stderr) == (OK, "")
    assert "good" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["msgd.toml"]


# --- state and key ------------------------------------------------------------------------------------------


def stopped(nodes: Nodes) -> Node:
    """A node that has run once."""
    node = nodes.start("a")
    assert node.stop() == OK
    return node


def test_a_key_that_others_can_read_is_refused(nodes: Nodes) -> None:
    """And left as it is."""
    node = stopped(nodes)
    key = node.state / "node.key"
    content = key.read_bytes()
    key.chmod(0o644)
    told = sentence(fails_to_start(node))
    assert all(word in told for word in (str(key), "0644", "0600", "chmod 600"))
    assert key.read_bytes() == content


def test_a_key_of_another_owner_is_refused(nodes: Nodes) -> None:
    """Its owner is named."""
    require("root")
    node = stopped(nodes)
    os.chown(node.state / "node.key", 12345, -1)
    told = sentence(fails_to_start(node))
    assert str(node.state / "node.key") in told
    assert "uid 12345" in told


def ec_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "content", [b"", b"garbage", bytes(100_000), ec_key()], ids=["empty", "text", "long", "other"]
)
def test_a_file_that_is_no_key_of_ours_is_refused(nodes: Nodes, content: bytes) -> None:
    """Never replaced: that would make the node another one."""
    node = stopped(nodes)
    key = node.state / "node.key"
    key.write_bytes(content)
    told = sentence(fails_to_start(node))
    assert str(key) in told
    assert "restore it" in told
    assert key.read_bytes() == content


def test_a_state_directory_of_another_owner_is_refused(nodes: Nodes) -> None:
    """Both owners are named."""
    require("root")
    node = stopped(nodes)
    os.chown(node.state, 12345, -1)
    told = sentence(fails_to_start(node))
    assert all(word in told for word in (str(node.state), "uid 12345", "uid 0"))


@pytest.mark.parametrize("name", ["state", "state/log"])
def test_a_file_in_place_of_a_directory_is_refused(nodes: Nodes, name: str) -> None:
    """As it stands it stays."""
    node = nodes.make("a")
    path = node.directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert str(path) in sentence(fails_to_start(node))
    assert path.read_text() == "mine"


def test_a_log_that_means_nothing_ends_the_first_start(nodes: Nodes) -> None:
    """Sound records with a checkpoint of no msgd: exit 1 and a sentence, not a row of log processes."""
    node = nodes.make("a")
    (node.state / "log").mkdir(parents=True)
    store = Store(str(node.state / "log"), Clock())
    store.recover(lambda record: None, lambda: [b"no checkpoint of ours"])
    store.close()
    node.start(wait=False)
    assert node.wait_exit() == UNEXPECTED
    assert "could not begin" in node.said().splitlines()[-2]
    assert [event["event"] for event in node.events()].count("child.started") == 1


# --- what is taken already ----------------------------------------------------------------------------------


def test_a_port_in_use_is_named(nodes: Nodes) -> None:
    """With the address."""
    node = nodes.make("a")
    node.address = f"{BUSY}:{PORT}"
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((BUSY, PORT))
        other.listen()
        told = sentence(fails_to_start(node))
    assert f"{BUSY}:{PORT}" in told
    assert "Is another msgd running?" in told


def test_a_second_daemon_on_the_same_state_is_refused(nodes: Nodes) -> None:
    """The first one goes on."""
    first, second = nodes.start("a"), nodes.make("b")
    second.state = first.state
    told = sentence(fails_to_start(second))
    assert str(first.state) in told
    assert "Another msgd is running" in told
    assert first.ctl("status").returncode == OK


def test_a_control_socket_that_answers_is_not_taken_over(nodes: Nodes) -> None:
    """It belongs to another program; a file that is no socket is not removed, either."""
    node = nodes.make("a")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(node.socket))
        other.listen()
        assert str(node.socket) in sentence(fails_to_start(node))
        assert node.socket.is_socket()
    node.socket.unlink()
    node.socket.write_text("mine")
    assert str(node.socket) in sentence(fails_to_start(node))
    assert node.socket.read_text() == "mine"


def test_a_dead_control_socket_is_replaced(nodes: Nodes) -> None:
    """What a killed daemon leaves behind stops no start."""
    node = nodes.start("a")
    node.kill9()
    assert node.socket.is_socket()
    node.start()
    assert node.ctl("status").returncode == OK


def test_an_absent_daemon_is_told_with_the_fix(tmp_path: Path) -> None:
    """Exit 3."""
    command = [sys.executable, "-m", "msgctl", "--socket", str(tmp_path / "none.sock"), "status"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == UNREACHABLE
    assert "systemctl start msgd" in done.stderr
    assert "Traceback" not in done.stderr


# --- the peer port ------------------------------------------------------------------------------------------


def connect(node: Node) -> socket.socket:
    """From a source of its own: one that misbehaves is shut out for a while."""
    sock = socket.create_connection((node.host, PORT), SOON_S, (f"127.62.1.{next(_sources)}", 0))
    sock.settimeout(SOON_S)
    return sock


def secured(node: Node, alpn: list[str]) -> ssl.SSLSocket:
    """A TLS session with the peer port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    return context.wrap_socket(connect(node))


def ended(sock: socket.socket) -> bytes:
    """What the daemon still says before it closes the connection."""
    found = b""
    try:
        while data := sock.recv(65536):
            found += data
    except (ConnectionError, ssl.SSLError):
        pass
    return found


def hello_of(key: NodeKey, wire: Connection) -> Hello:
    return Hello(
        spki=key.spki,
        want="link",
        version=wire.version,
        binding=wire.binding,  # type: ignore[arg-type]
        instance=bytes(16),
        dial=1,
        name="stranger",
        chain=[],
        limits=Limits(window_bytes=1 << 20, window_batches=10, message_bytes=1000, keepalive_s=5),
        link=Link(out=Position(bytes(16), 0, bytes(32)), in_=Position(bytes(16), 0, bytes(32))),
    )


def say_hello(node: Node, sign: Callable[[NodeKey, bytes, bytes, bytes], bytes]) -> bytes:
    """A whole meeting with a key that nobody knows, up to the daemon's last word."""
    key = NodeKey(serialization.load_pem_private_key(new_key(), None))  # type: ignore[arg-type]
    with secured(node, [tls.ALPN]) as session:
        connection = Connection(
            DIALLER, sign=lambda *parts: sign(key, *parts), binding=tls.channel_binding(session)
        )
        wire = Wire(session, connection)
        while not list(connection.received(session.recv_into(connection.receive_buffer()))):
            pass
        session.sendall(b"".join(wire.connection.send(hello_of(key, connection))))
        return ended(session)


def new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return NodeKey(Ed25519PrivateKey.generate()).pem()


def garbage(node: Node) -> bytes:
    with connect(node) as sock:
        sock.sendall(random.Random(1).randbytes(5000))
        return ended(sock)


def http(node: Node) -> bytes:
    with connect(node) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return ended(sock)


def half_a_client_hello(node: Node) -> bytes:
    with connect(node) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40))
        sock.shutdown(socket.SHUT_WR)
        return ended(sock)


def garbage_that_looks_like_tls(node: Node) -> bytes:
    with connect(node) as sock:
        sock.sendall(b"\x16\x03\x03" + random.Random(2).randbytes(5000))
        return ended(sock)


def no_alpn(node: Node) -> bytes:
    with secured(node, []) as session:
        return ended(session)


def other_alpn(node: Node) -> bytes:
    with secured(node, ["http/1.1"]) as session:
        return ended(session)


def tls_then_garbage(node: Node) -> bytes:
    with secured(node, [tls.ALPN]) as session:
        session.sendall(random.Random(3).randbytes(5000))
        return ended(session)


def oversized_frame(node: Node) -> bytes:
    with secured(node, [tls.ALPN]) as session:
        session.sendall(b"\xff\xff\xff\xff\x02" + bytes(5000))
        return ended(session)


def wrong_signature(node: Node) -> bytes:
    return say_hello(node, lambda *_: bytes(64))


def stranger(node: Node) -> bytes:
    acceptor = parse_identity(node.identity)
    return say_hello(node, lambda key, *parts: key.sign_hello(acceptor, *parts))


ATTACKS = [
    garbage, http, half_a_client_hello, garbage_that_looks_like_tls, no_alpn, other_alpn,
    tls_then_garbage, oversized_frame, wrong_signature, stranger,
]  # fmt: skip


def unharmed(a: Node, b: Node, before: dict[str, list[int]]) -> None:
    """No process is left of what came, none has been replaced, and messages flow."""
    assert a.ctl("send", b.name, "--wait=stored", "still here").returncode == OK
    wait_for(lambda: same_processes(a.pids(), before), SOON_S, f"{a.name} to be as before")
    assert "Traceback" not in a.said()


def same_processes(now: dict[str, list[int]], before: dict[str, list[int]]) -> bool:
    """But for control workers, which come and go with their clients."""
    return {k: v for k, v in now.items() if k != "?" and "control" not in k} == before


def settled(a: Node) -> dict[str, list[int]]:
    return {role: pids for role, pids in a.pids().items() if role != "?" and "control" not in role}


def test_garbage_on_the_peer_port_costs_only_its_connection(nodes: Nodes) -> None:
    """Bytes, half handshakes, wrong protocols, frames and signatures, strangers: closed, told, no harm."""
    a, b = nodes.pair(settings=DEBUG)
    before = settled(a)
    for attack in ATTACKS:
        seen = len(a.events())
        attack(a)
        wait_for(partial(told_of_refusal, a, seen), SOON_S, f"an event about {attack.__name__}")
    unharmed(a, b, before)


def told_of_refusal(node: Node, since: int) -> bool:
    """An event that names the source and the reason."""
    refusals = ("connection.refused", "link.refused", "peer.unknown")
    return any(e["event"] in refusals and "127." in str(e) for e in node.events()[since:])


def test_a_stranger_is_told_that_it_is_not_paired(nodes: Nodes) -> None:
    """And a wrong signature is told apart from an unknown key."""
    a = nodes.start("a", DEBUG)
    assert b"unpaired" in stranger(a)
    assert b"unpaired" not in wrong_signature(a)


def test_silence_on_the_peer_port_ends_with_its_time(nodes: Nodes) -> None:
    """Who says nothing, or stops half-way, loses the connection after handshake_s."""
    a = nodes.start("a", "[limits]\nhandshake_s = 0.5\n")
    with connect(a) as silent, connect(a) as slow, secured(a, [tls.ALPN]) as waiting:
        slow.sendall(b"\x16\x03\x01")
        assert [ended(sock) for sock in (silent, slow)] == [b"", b""]
        ended(waiting)
    wait_for(lambda: not [r for r in a.pids() if r.startswith("peer")], SOON_S, "the workers to end")


def trusted(node: Node, directory: Path) -> tuple[Self, bytes]:
    """An identity that this node trusts, in the hands of the test."""
    directory.mkdir()
    (directory / "own.toml").write_text(
        f'name = "evil"\nlisten = []\nstate = "{directory}"\nsocket = "{directory}/s"\n'
    )
    key = NodeKey(serialization.load_pem_private_key(new_key(), None))  # type: ignore[arg-type]
    done = node.ctl("peer", "add", "evil", f"{BUSY}:1", "--key", identity_text(key.identity))
    assert done.returncode == OK, done
    config = load(str(directory / "own.toml"), {}, os.geteuid())
    return node_of(config, key), parse_identity(node.identity)


BAD_FRAMES = {
    "oversized": b"\xff\xff\xff\xff\x10",
    "empty": bytes(4),
    "not msgpack": (101).to_bytes(4, "big") + b"\x10" + b"\xc1" * 100,
    "second hello": (3).to_bytes(4, "big") + b"\x02" + b"\x90\x90",
    "random": random.Random(4).randbytes(3000),
}


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_a_trusted_peer_that_talks_nonsense_loses_its_link(nodes: Nodes, tmp_path: Path, kind: str) -> None:
    """That link alone; what is stored stays, and the other peer notices nothing."""
    a, b = nodes.pair(settings=DEBUG)
    before = settled(a)
    self, identity = trusted(a, tmp_path / "evil")
    sock = connect(a)
    wire, _ = dial(self, sock, identity, lambda _: Granted(1, 1, NOWHERE, NOWHERE), time.monotonic() + SOON_S)
    wire.session.settimeout(SOON_S)
    wire.session.sendall(BAD_FRAMES[kind])
    ended(wire.session)
    wire.session.close()
    wait_for(
        lambda: [e for e in a.events() if e["event"] == "link.closed" and e.get("peer") == "evil"],
        SOON_S,
        "the end",
    )
    unharmed(a, b, before)


# --- the control socket -------------------------------------------------------------------------------------

CALLS = {
    "bytes": b"\xff\xfe\x00",
    "no object": b"7\0",
    "no method": b"{}\0",
    "not JSON": b"GET / HTTP/1.1\r\n\r\n\0",
    "method of another type": b'{"method": 7}\0',
    "nested without end": b'{"method": "a.b", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}\0",
}


@pytest.mark.parametrize("kind", CALLS)
def test_bytes_that_are_no_call_cost_the_connection(nodes: Nodes, kind: str) -> None:
    """After a sentence; others are served on."""
    a = nodes.start("a")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SOON_S)
        sock.connect(str(a.socket))
        sock.sendall(CALLS[kind])
        reply = json.loads(ended(sock).rstrip(b"\0"))
    assert reply["error"] == "org.msgd.Control.InvalidRequest"
    assert reply["parameters"]["message"]
    assert reply["parameters"]["hint"]
    assert a.ctl("status").returncode == OK
    assert "Traceback" not in a.said()


def test_a_call_without_end_costs_the_connection(nodes: Nodes) -> None:
    """Past 2 MiB nobody waits for its NUL."""
    a = nodes.start("a")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SOON_S)
        sock.connect(str(a.socket))
        try:
            for _ in range(64):
                sock.sendall(b" " * 65536)
        except ConnectionError:
            pass
        ended(sock)
    assert a.ctl("status").returncode == OK
    wait_for(lambda: not [r for r in a.pids() if r.startswith("control")], SOON_S, "the worker to end")


WRONG_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("Send", {}),
    ("Send", {"peer": "b"}),
    ("Send", {"peer": "b", "message": {"text": 7}}),
    ("Send", {"peer": "b", "message": {"text": "x"}, "wait": "never"}),
    ("Send", {"peer": "b", "message": {"text": "x", "id": "7"}}),
    ("Send", {"peer": "b", "message": {"data": "no base64!"}}),
    ("Send", {"peer": "b", "message": {"text": "x" * 1_100_000}}),
    ("SendMany", {"peer": "b", "messages": []}),
    ("SendMany", {"peer": "b", "messages": [{"text": "x"}] * 257}),
    ("Log", {"lines": "many"}),
    ("PeerAdd", {"name": "Not A Name", "key": "x"}),
    ("PeerAdd", {"name": "c", "key": "AAAA"}),
    ("Nonsense", {}),
    ("org.example.Other.Method", {}),
]


def test_a_wrong_call_gets_its_error_and_the_next_one_is_served(nodes: Nodes) -> None:
    """On the same connection, in the order of the calls."""
    a, b = nodes.pair()
    with a.client() as client:
        for method, parameters in WRONG_CALLS:
            with pytest.raises(Exception) as caught:
                client.call(method, **parameters)
            assert type(caught.value).__module__ == "msgd.errors", (method, caught.value)
            assert "Traceback" not in str(caught.value)
        assert client.send("b", "after all that", wait="stored", timeout_s=5)["state"] == "stored"
    assert "Traceback" not in a.said()
    assert len(b.query("log")) == 1


def test_the_error_of_a_later_call_waits_for_the_answers_before_it(nodes: Nodes) -> None:
    """Pipelined: a send that waits for its receipt, then a wrong one; the replies keep the order."""
    a, b = nodes.pair()
    b.stop()
    first = {"peer": "b", "message": {"text": "waits"}, "wait": "stored", "timeout_ms": 500}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SOON_S)
        sock.connect(str(a.socket))
        for parameters in (first, {"peer": "nobody", "message": {"text": "x"}}):
            sock.sendall(
                json.dumps({"method": "org.msgd.Control.Send", "parameters": parameters}).encode() + b"\0"
            )
        replies = b""
        while replies.count(b"\0") < 2:
            replies += sock.recv(65536)
    one, two = (json.loads(reply) for reply in replies.split(b"\0")[:2])
    assert one["parameters"]["receipt"]["state"] == "queued"
    assert two["error"] == "org.msgd.Control.UnknownPeer"


def test_a_client_that_vanishes_changes_nothing(nodes: Nodes) -> None:
    """In the middle of a call, with an answer unread, and killed."""
    a, b = nodes.pair()
    call = json.dumps(
        {"method": "org.msgd.Control.Send", "parameters": {"peer": "b", "message": {"text": "kept"}}}
    )
    for sent in (call.encode()[:20], call.encode() + b"\0"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(a.socket))
            sock.sendall(sent)
    wait_for(lambda: [m["text"] for m in b.query("log")] == ["kept"], SOON_S, "the whole call to be done")
    wait_for(lambda: not [r for r in a.pids() if r.startswith("control")], SOON_S, "the workers to end")
    assert "Traceback" not in a.said()


# --- in the background --------------------------------------------------------------------------------------


class InBackground:
    """`msgd --daemon` with a configuration of its own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.pid_file = node.state / "msgd.pid"
        node.config.write_text(
            f'name = "{node.name}"\nlisten = "{node.address}"\n'
            f'state = "{node.state}"\nsocket = "{node.socket}"\n'
        )

    def start(self, *options: str) -> subprocess.CompletedProcess[str]:
        return msgd("--config", str(self.node.config), "--daemon", *options)

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())


def is_absent(path: Path) -> bool:
    return not path.exists()


def test_daemon_starts_answers_and_ends(nodes: Nodes) -> None:
    """The command returns when it answers; its pid file names it; a second is refused; SIGTERM ends it."""
    daemon = InBackground(nodes.make("a"))
    done = daemon.start()
    assert (done.returncode, done.stdout, done.stderr) == (OK, "", "")
    pid = daemon.pid
    try:
        assert command_line(pid) == "msgd"
        assert daemon.node.ctl("status").returncode == OK
        second = daemon.start()
        assert second.returncode == EX_CONFIG
        assert second.stderr.startswith(f"msgd: msgd is already running as process {pid}")
        assert daemon.node.ctl("status").returncode == OK
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not is_running(pid), SOON_S, "the daemon to end")
    assert not daemon.pid_file.exists()
    assert not daemon.node.socket.exists()
    said = (daemon.node.state / "msgd.out").read_text()
    assert "daemon.stopped" in said
    assert "Traceback" not in said


def test_daemon_tells_on_the_terminal_why_it_cannot_start(nodes: Nodes) -> None:
    """Also what only the log process or the listeners find: exit 78, the sentence, no pid file left."""
    first = nodes.start("a")
    cases = {
        "Another msgd is running on the state": first.state,
        "Cannot listen on": nodes.directory / "other",
    }
    for words, state in cases.items():
        node = nodes.make("b")
        node.state, node.address = state, first.address
        daemon = InBackground(node)
        done = daemon.start()
        assert done.returncode == EX_CONFIG, done
        assert done.stderr.startswith(f"msgd: {words}"), done.stderr
        assert len(done.stderr.splitlines()) == 2
        wait_for(partial(is_absent, daemon.pid_file), SOON_S, "the pid file to be gone")
    assert first.ctl("status").returncode == OK
