"""The peer port of a real daemon among those who mean it no good: crowds, penalties, sizes, TLS, clocks."""

import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from msgd.errors import OK
from msgd.penalties import ENFORCED_ABOVE_S, MISDEEDS, NOT_TLS
from msgd.trust import tls
from tests.fuzz.live import client_hello, rest
from tests.nodes import PORT, Node, Nodes, wait_for
from tests.require import require
from tests.speaker import Speaker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SOON_S = 10
HONEST_S = 1.0  # within which an honest peer has its link, whoever else stands at the door
CROWD = 200
FOUR_GIB = b"\xff\xff\xff\xff\x10"


def connect(node: Node, source: str) -> socket.socket:
    sock = socket.create_connection((node.host, PORT), SOON_S, (source, 0))
    sock.settimeout(SOON_S)
    return sock


def foreign(number: int) -> str:
    """An address of its own for each."""
    return f"127.82.{number // 250}.{number % 250 + 1}"


# --- crowds -------------------------------------------------------------------------------------------------


@contextmanager
def crowd(node: Node) -> Iterator[list[socket.socket]]:
    """Half-open connections, garbage and handshakes that stop half-way, each from a source of its own."""
    pieces = [*[b""] * CROWD, *[Random(n).randbytes(300) for n in range(CROWD)], *[client_hello()[:40]] * 40]
    socks: list[socket.socket] = []
    try:
        for number, piece in enumerate(pieces):
            socks.append(connect(node, foreign(number)))
            socks[-1].sendall(piece)
        yield socks
    finally:
        for sock in socks:
            sock.close()


def resident_kib(pid: int) -> int:
    """Of a process: what is in memory now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


def test_an_honest_peer_gets_in_past_the_crowd(
    nodes: Nodes, record_property: Callable[[str, object], None]
) -> None:
    """200 half-open, 200 garbage, 40 stalled connections stand, 15 more come: a link within a second."""
    node = nodes.start("a")
    identity = node.identity
    took_s = []
    with crowd(node):
        for number in range(5):
            more = [connect(node, foreign(1000 + 15 * number + n)) for n in range(15)]
            speaker = Speaker(f"p{number}", source=f"127.83.0.{number + 1}")
            speaker.pin_at(node)
            begun_s = time.monotonic()
            speaker.dial(node, identity)
            took_s.append(time.monotonic() - begun_s)
            for sock in more:
                sock.close()
    record_property("slowest_s", round(max(took_s), 3))
    assert max(took_s) <= HONEST_S, took_s
    wait_for(lambda: "?" not in node.pids(), SOON_S, "the workers to be reaped")
    assert "Traceback" not in node.said()


def test_a_crowd_leaves_no_memory_behind(nodes: Nodes) -> None:
    """Neither in the supervisor nor in the log process, and no process either."""
    node = nodes.start("a")
    with crowd(node):
        pass
    before = [resident_kib(pid) for pid in (node.pid, *node.pids()["log"])]
    for _ in range(3):
        with crowd(node):
            pass
    after = [resident_kib(pid) for pid in (node.pid, *node.pids()["log"])]
    assert all(now - then < 2048 for now, then in zip(after, before, strict=True)), (before, after)
    wait_for(lambda: not [role for role in node.pids() if role.startswith("peer")], SOON_S, "workers to end")


# --- penalties ----------------------------------------------------------------------------------------------


def is_shut(node: Node, source: str) -> bool:
    """Whether the daemon closes before it has read a byte."""
    with connect(node, source) as sock:
        sock.settimeout(0.3)
        try:
            return sock.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True


def misbehave(node: Node, source: str) -> None:
    """Once more than a source may."""
    for _ in range(int(ENFORCED_ABOVE_S / MISDEEDS[NOT_TLS].seconds) + 1):
        with connect(node, source) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            rest(sock)


def test_a_source_of_garbage_is_shut_out_and_nobody_else(nodes: Nodes) -> None:
    """It is closed at accept, which is told once; from another address an honest peer has its link."""
    node = nodes.start("a")
    guilty, neighbour = "127.84.0.1", "127.84.0.2"
    misbehave(node, guilty)
    assert is_shut(node, guilty)
    assert not is_shut(node, neighbour)
    speaker = Speaker("p", source=neighbour)
    speaker.pin_at(node)
    speaker.dial(node)
    told = [event for event in node.events() if event["event"] == "source.penalised"]
    assert [guilty] == [event["source"] for event in told]
    assert told[0]["reason"] == MISDEEDS[NOT_TLS].reason


def test_a_peer_is_not_shut_out_of_where_it_was_last_seen(nodes: Nodes) -> None:
    """Garbage from its own address costs a paired peer nothing."""
    node = nodes.start("a")
    speaker = Speaker("p", source="127.84.1.1")
    speaker.pin_at(node)
    speaker.dial(node)
    misbehave(node, speaker.source)
    speaker.close()
    assert not is_shut(node, speaker.source)
    speaker.dial(node)


@pytest.mark.long
def test_a_penalty_ends_by_itself(nodes: Nodes) -> None:
    """After its seconds the same source may come in again."""
    node = nodes.start("a")
    misbehave(node, "127.84.2.1")
    assert is_shut(node, "127.84.2.1")
    wait_for(lambda: not is_shut(node, "127.84.2.1"), 40, "the penalty to end")


# --- sizes --------------------------------------------------------------------------------------------------


def test_a_frame_of_four_gib_is_refused_at_its_header(nodes: Nodes) -> None:
    """From a stranger and from a peer: closed at once, with no memory taken for it."""
    node = nodes.start("a")
    speaker = Speaker("p", source="127.85.0.1")
    speaker.pin_at(node)
    speaker.dial(node)
    assert speaker.session is not None
    (worker,) = node.pids()["peer p"]
    before = resident_kib(worker)
    speaker.session.setblocking(True)
    speaker.session.settimeout(SOON_S)
    speaker.session.sendall((1 << 20).to_bytes(4, "big") + b"\x10")  # as much as a frame may have
    assert resident_kib(worker) - before < 4096
    speaker.session.sendall(bytes(1 << 20)[1:] + FOUR_GIB)
    rest(speaker.session)
    wait_for(lambda: "peer p" not in node.pids(), SOON_S, "the link to end")

    stranger = tls.dialler_context().wrap_socket(connect(node, "127.85.0.2"))
    with stranger:
        begun_s = time.monotonic()
        stranger.sendall(FOUR_GIB)
        rest(stranger)
        assert time.monotonic() - begun_s < 1
    assert "Traceback" not in node.said()


# --- TLS, as a foreign scanner sees it ----------------------------------------------------------------------


def scanned(node: Node, *options: str) -> str:
    """What `openssl s_client` says about the peer port."""
    require("openssl")
    command = ["openssl", "s_client", "-connect", f"{node.host}:{PORT}", *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")  # it prints our bytes, too


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_2"])
def test_no_older_tls_is_spoken(nodes: Nodes, version: str) -> None:
    """Also with all of OpenSSL's own doubts about it switched off."""
    said = scanned(nodes.start("a"), version, "-cipher", "ALL:@SECLEVEL=0", "-alpn", tls.ALPN)
    assert re.search("alert protocol version|unsupported protocol|no protocols available", said), said
    assert "Cipher is (NONE)" in said


def test_a_scanner_finds_tls_1_3_and_nothing_to_resume(nodes: Nodes) -> None:
    """Our ALPN, an Ed25519 certificate without end, no ticket, no question for the client's certificate."""
    node = nodes.start("a")
    said = scanned(node, "-alpn", tls.ALPN)
    for words in ("TLSv1.3", f"ALPN protocol: {tls.ALPN}", "CN = msgd", "Dec 31 23:59:59 9999 GMT"):
        assert words in said, said
    assert re.search("Peer signature type: (?i:ed25519)", said), said
    assert "New Session Ticket arrived" not in said
    assert "No client certificate CA names sent" in said
    assert "Compression: NONE" in said


def test_what_is_resumed_or_early_is_not_taken(nodes: Nodes) -> None:
    """A second connection of the same client is as new as the first."""
    node = nodes.start("a")
    context = tls.dialler_context()
    with context.wrap_socket(connect(node, "127.86.0.1")) as first:
        first.recv(1 << 14)  # the greet; a ticket would stand before it
        session = first.session
        assert session is None or not session.has_ticket
    try:
        second = context.wrap_socket(connect(node, "127.86.0.1"), session=session)
    except (ssl.SSLError, ValueError):
        return
    with second:
        assert not second.session_reused


# --- clocks -------------------------------------------------------------------------------------------------

SKEWED = """
import time

AHEAD_NS = {ahead_s} * 10**9
_time, _time_ns = time.time, time.time_ns
_get, _get_ns = time.clock_gettime, time.clock_gettime_ns
time.time = lambda: _time() + AHEAD_NS / 1e9
time.time_ns = lambda: _time_ns() + AHEAD_NS
time.clock_gettime = lambda clock: _get(clock) + (clock == time.CLOCK_REALTIME) * AHEAD_NS / 1e9
time.clock_gettime_ns = lambda clock: _get_ns(clock) + (clock == time.CLOCK_REALTIME) * AHEAD_NS
"""
YEAR_S = 365 * 86_400


def start_skewed(node: Node, years: int) -> Node:
    """Python gets another wall clock before msgd is imported; msgd itself is as shipped."""
    place = node.directory / "clock"
    place.mkdir()
    (place / "sitecustomize.py").write_text(SKEWED.format(ahead_s=years * YEAR_S))
    return node.start(environment={"PYTHONPATH": str(place)})


@pytest.mark.parametrize("years", [-40, 70])
def test_a_clock_that_is_wrong_by_decades_harms_nobody(nodes: Nodes, years: int) -> None:
    """Link and receipts work; what arrives shows both clocks."""
    right, wrong = nodes.start("a"), start_skewed(nodes.make("b"), years)
    right.trust(wrong)
    wrong.trust(right)
    right.ctl("retry", "b")
    for one, other in ((right, "b"), (wrong, "a")):
        done = one.ctl("send", other, "--wait=stored", "--timeout=20", "what time is it?")
        assert done.returncode == OK, done
    (message,) = right.query("log", "--direction", "in")
    ahead_s = (message["sent_at_ns"] - message["stored_at_ns"]) / 1e9
    assert ahead_s == pytest.approx(years * YEAR_S, abs=60)
