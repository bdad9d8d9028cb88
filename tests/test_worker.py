"""Link workers up to what their hello wants: whom a dial meets, what a connection that came in ends with."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from msgd import meeting
from msgd.node import Node
from msgd.peer.frames import Rotation
from msgd.penalties import GARBAGE, UNFINISHED, UNWANTED, WRONG_INVITATION, WRONG_PROOF
from msgd.session import MeetingFailed
from msgd.trust import tls
from msgd.trust.identity import NodeKey
from msgd.trust.invitation import is_join_proof
from msgd.trust.rotation import make_rotation
from msgd.wire.ledger import Denied, DialFailed, Done, Granted, MayDial, TakeHello, Taken
from msgd.wire.trust import JoinDone, KeyFound, MayJoin
from tests.peer_pair import A, D
from tests.worker_ends import HOST, NODE_A, NODE_D, NOWHERE, SOON_S, End, Ends, grant, node

INVITATION, SECRET = bytes([6]) * 8, bytes([5]) * 16
OTHER = NodeKey(Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32))
ROTATED = (Rotation(*make_rotation(A, OTHER)),)
FORGED = (Rotation(A.spki, bytes(64), bytes(64)),)


@pytest.fixture
def ends() -> Iterator[Ends]:
    with Ends() as made:
        yield made


def closed_address() -> str:
    """An address where nobody listens."""
    with socket.create_server((HOST, 0)) as trial:
        return f"{HOST}:{trial.getsockname()[1]}"


# --- join ---------------------------------------------------------------------------------------------------


def test_a_join_proves_its_secret_to_this_connection_and_ends(ends: Ends) -> None:
    dialler, acceptor = ends.dial("join"), ends.accept()
    grant(dialler, invitation=INVITATION, secret=SECRET)
    hello = acceptor.hear(TakeHello)
    assert ("join", D.identity, INVITATION, 7001) == (
        hello.want,
        hello.identity,
        hello.invitation,
        hello.port,
    )
    assert is_join_proof(hello.proof, SECRET, A.identity, D.identity, hello.greet_hash)
    acceptor.say(MayJoin(hello.token, 3))
    done = dialler.hear(JoinDone)
    assert (7, "node-a") == (done.peer, done.name)
    dialler.say(Done(done.token))
    assert (0, 0) == (dialler.code(), acceptor.code())


def test_a_join_tries_all_addresses(ends: Ends) -> None:
    others = [closed_address(), ends.address]
    dialler, acceptor = ends.dial("join", address=closed_address(), others=others), ends.accept()
    grant(dialler, invitation=INVITATION, secret=SECRET)
    assert "join" == acceptor.hear(TakeHello).want


def test_a_join_goes_past_an_address_where_another_node_answers(ends: Ends) -> None:
    """As where an address of the inviter means another machine here; that is no changed key."""
    with Ends() as there:
        dialler = ends.dial("join", others=[there.address])
        ends.accept(node(OTHER, "other"))
        acceptor = there.accept()
        grant(dialler, invitation=INVITATION, secret=SECRET)
        assert "join" == acceptor.hear(TakeHello).want


@pytest.mark.parametrize(
    ("detail", "code"), [("unknown", WRONG_INVITATION), ("wrong", WRONG_INVITATION), ("expired", 0)]
)
def test_a_refused_join_is_final(ends: Ends, detail: str, code: int) -> None:
    dialler, acceptor = ends.dial("join", others=[closed_address()]), ends.accept()
    grant(dialler, invitation=INVITATION, secret=SECRET)
    hello = acceptor.hear(TakeHello)
    acceptor.say(Denied(hello.token, "invitation", detail))
    failed = dialler.hear(DialFailed)
    assert ("invitation", detail, -1.0) == (failed.code, failed.detail, failed.retry_s)
    assert (0, code) == (dialler.code(), acceptor.code())


# --- whom a dial meets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", [(), FORGED])
def test_another_key_than_the_pinned_one_is_told_and_hears_nothing(
    ends: Ends, chain: tuple[Rotation, ...]
) -> None:
    dialler, acceptor = ends.dial("link"), ends.accept(node(OTHER, "other", chain=chain))
    found = dialler.hear(KeyFound)
    assert (7, OTHER.identity) == (found.peer, found.identity)
    failed = dialler.hear(DialFailed)
    assert (meeting.WRONG_KEY_S, "") == (failed.retry_s, failed.code)
    assert (0, UNFINISHED) == (dialler.code(), acceptor.code())


@pytest.mark.parametrize("want", ["link", "pair"])
def test_a_key_that_the_pinned_one_has_signed_is_asked_about_with_its_chain(ends: Ends, want: str) -> None:
    dialler = ends.dial(want, identity=A.identity)
    ends.accept(node(OTHER, "other", chain=ROTATED))
    asked = dialler.hear(MayDial)
    rotation = ROTATED[0]
    assert (OTHER.identity, OTHER.spki) == (asked.identity, asked.spki)
    assert [(rotation.spki, rotation.by_old, rotation.by_new)] == asked.chain


def test_the_log_process_decides_with_whose_key_words_are_compared(ends: Ends) -> None:
    """A rekey compares words with another key than the pinned one; nothing else does."""
    dialler = ends.dial("pair", identity=A.identity)
    acceptor = ends.accept(node(OTHER, "other"))
    asked = dialler.hear(MayDial)
    assert (OTHER.identity, []) == (asked.identity, asked.chain)
    dialler.say(Denied(asked.token, "key-changed"))
    assert OTHER.identity == dialler.hear(KeyFound).identity
    assert meeting.WRONG_KEY_S == dialler.hear(DialFailed).retry_s
    assert (0, UNFINISHED) == (dialler.code(), acceptor.code())


@pytest.mark.parametrize(
    ("code", "retry_s"), [("duplicate", 0.0), ("self", -1.0), ("known", -1.0), ("blocked", -1.0)]
)
def test_without_leave_no_hello_is_said(ends: Ends, code: str, retry_s: float) -> None:
    dialler, acceptor = ends.dial("pair"), ends.accept()
    asked = dialler.hear(MayDial)
    dialler.say(Denied(asked.token, code))
    failed = dialler.hear(DialFailed)
    assert ("", retry_s) == (failed.code, failed.retry_s), "a code is the other side's"
    assert (0, UNFINISHED) == (dialler.code(), acceptor.code())


def test_after_a_hello_no_other_address_is_tried(ends: Ends) -> None:
    dialler, acceptor = ends.dial("join", others=[ends.address]), ends.accept()
    grant(dialler, invitation=INVITATION, secret=SECRET)
    acceptor.hear(TakeHello)
    acceptor.pipe.close()
    assert 0.0 == dialler.hear(DialFailed).retry_s
    assert 0 == dialler.code()


def test_our_own_rotations_are_in_every_greet_and_hello(ends: Ends) -> None:
    ours = (Rotation(*make_rotation(D, OTHER)),)
    dialler = ends.dial("pair", here=node(OTHER, "node-d", chain=ours))
    acceptor = ends.accept()
    grant(dialler)
    hello = acceptor.hear(TakeHello)
    assert [(ours[0].spki, ours[0].by_old, ours[0].by_new)] == hello.chain
    assert OTHER.spki == hello.spki


# --- who comes in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("unpaired", UNWANTED), ("blocked", UNWANTED), ("retired", UNWANTED), ("duplicate", 0), ("off", 0)],
)
def test_a_refusal_reaches_the_dialler_and_the_exit_code_says_what_it_was(
    ends: Ends, code: str, exit_code: int
) -> None:
    dialler, acceptor = ends.dial("link"), ends.accept()
    grant(dialler)
    hello = acceptor.hear(TakeHello)
    acceptor.say(Denied(hello.token, code, "because", 60))
    failed = dialler.hear(DialFailed)
    assert (code, "because") == (failed.code, failed.detail)
    assert (0, exit_code) == (dialler.code(), acceptor.code())


def garbage_instead_of_tls(sock: socket.socket) -> None:
    sock.sendall(b"\x16\x03\x01" + random.Random(1).randbytes(600))


def goes_away(sock: socket.socket) -> None:
    sock.close()


def no_alpn(sock: socket.socket) -> None:
    context = tls.dialler_context()
    context.set_alpn_protocols([])
    sock.settimeout(SOON_S)
    context.wrap_socket(sock).close()


def garbage_in_tls(sock: socket.socket) -> None:
    sock.settimeout(SOON_S)
    with tls.dialler_context().wrap_socket(sock) as session:
        session.sendall(bytes([0, 0, 0, 9, 2]) + b"\xc1" * 8)
        while session.recv(4096):
            pass


def wrong_proof(sock: socket.socket) -> None:
    liar = NodeKey(OTHER.private)
    liar.spki = D.spki
    granted = Granted(0, 1, NOWHERE, NOWHERE)
    with pytest.raises(MeetingFailed) as refused:
        meeting.dial(replace(node(OTHER, "liar"), key=liar), sock, A.identity, lambda _: granted, soon_s())
    assert "proof" == refused.value.code


MISDEEDS: dict[str, tuple[Callable[[socket.socket], None], int]] = {
    "garbage instead of TLS": (garbage_instead_of_tls, UNFINISHED),
    "it goes away": (goes_away, UNFINISHED),
    "no ALPN": (no_alpn, GARBAGE),
    "garbage inside TLS": (garbage_in_tls, GARBAGE),
    "a wrong proof": (wrong_proof, WRONG_PROOF),
}


def soon_s() -> float:
    return time.monotonic() + SOON_S


@pytest.mark.parametrize("what", MISDEEDS)
def test_the_exit_code_says_what_a_stranger_did(ends: Ends, what: str) -> None:
    act, exit_code = MISDEEDS[what]
    sock = ends.connect()
    acceptor = ends.accept()
    act(sock)
    assert exit_code == acceptor.code()
    sock.close()


# --- service ------------------------------------------------------------------------------------------------


def test_a_visit_ends_where_the_service_begins(ends: Ends) -> None:
    """What the service has said behind its welcome is handed over with the socket."""
    host = End(lambda _: serve_once(ends.connection(), b"first words"), ends.listener)
    session, rest = meeting.visit(NODE_D, ends.address, A.identity, soon_s())
    session.settimeout(SOON_S)
    while len(rest) < len(b"first words"):
        rest += session.recv(100)
    assert b"first words" == rest
    session.sendall(b"and back")
    assert b"AND BACK" == session.recv(100)
    session.close()
    assert 0 == host.wait()


def serve_once(sock: socket.socket, first: bytes) -> int:
    wire, hello = meeting.accept(NODE_A, sock, soon_s())
    assert "service" == hello.want
    meeting.welcome(NODE_A, wire, Taken(1, 2, 3, "node-d", NOWHERE, NOWHERE), soon_s())
    wire.session.settimeout(SOON_S)
    wire.session.sendall(first)
    wire.session.sendall(wire.session.recv(100).upper())
    return 0


@pytest.mark.parametrize("chain", [(), ROTATED])
def test_a_visit_goes_to_the_pinned_key_only(ends: Ends, chain: tuple[Rotation, ...]) -> None:
    here = node(OTHER, "other", chain=chain)
    host = End(lambda _: refuses_to_meet(here, ends.connection()), ends.listener)
    with pytest.raises(meeting.WrongKey):
        meeting.visit(NODE_D, ends.address, A.identity, soon_s())
    assert 0 == host.wait()


def refuses_to_meet(here: Node, sock: socket.socket) -> int:
    """0 when the dialler has left without a hello."""
    try:
        meeting.accept(here, sock, soon_s())
    except MeetingFailed as error:
        return 0 if error.exit_code == UNFINISHED else 1
    return 1
