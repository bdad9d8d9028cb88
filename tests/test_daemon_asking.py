"""What a person hears from real daemons: of tries that began after the call, of wrong input, of a no."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from msgd.errors import NOT_TRUSTED, OK, USAGE
from tests.nodes import PORT, REPOSITORY, Node, Nodes, free_address
from tests.pairs import accept, held, peer_of, request_of, texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    one = Node("a", free_address(), tmp_path_factory.mktemp("asking")).start()
    yield one
    one.stop()


@contextmanager
def stale_try(a: Node, b: Node) -> Iterator[socket.socket]:
    """A dial of `a` at the address of `b`, before `b` is there, that nobody answers."""
    door = socket.create_server((b.host, PORT))
    held(a, b.address, "first", "--timeout", "0.2")
    conn, _ = door.accept()
    door.close()
    with conn:
        yield conn


def begin(node: Node, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "msgctl", "--socket", str(node.socket), "-o", "json", *words],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("words", [("send", "{}", "second", "--timeout", "15"), ("pair", "ask", "{}")])
def test_the_end_of_an_earlier_try_answers_no_later_call(nodes: Nodes, words: tuple[str, ...]) -> None:
    """A dial that began before the other side was there fails during the call, which waits for the next."""
    a, b = nodes.start("a"), nodes.make("b")
    with stale_try(a, b) as conn:
        b.start()
        call = begin(a, *(word.format(b.address) for word in words))
        time.sleep(0.5)  # until the call waits; a later one would hear of the new try alone, and pass
        conn.close()
        told = json.loads(call.communicate(timeout=30)[0])
    pairing = told.get("pairing") or told["request"]
    assert pairing, told
    assert request_of(b, "a")["words"] == pairing["words"]


def test_a_try_that_fails_answers_the_call_at_once(nodes: Nodes) -> None:
    """Nobody listens there: no need to wait for the end of the time."""
    a, b = nodes.start("a"), nodes.make("b")
    for _ in range(2):
        began_s = time.monotonic()
        assert "Connection refused" in held(a, b.address, "hola", "--timeout", "20")["pairing"]["detail"]
        done = a.ctl("-o", "json", "pair", "ask", b.address)
        assert (NOT_TRUSTED, "Connection refused") == (done.returncode, json.loads(done.stdout)["reason"])
        assert time.monotonic() - began_s < 15


def test_a_block_that_ended_is_no_difference_of_the_logs(nodes: Nodes) -> None:
    """The numbers begin anew above both logs, which are the same: nobody is told that they differ."""
    a, b = nodes.pair()
    assert OK == a.ctl("send", "b", "before", "--wait").returncode
    assert [True, False] == [a.query("peer", "block", "b")[0]["changed"] for _ in range(2)]
    assert OK == a.ctl("peer", "unblock", "b").returncode
    assert OK == a.ctl("send", "b", "after", "--wait", "--timeout", "15").returncode
    assert [[], []] == [peer_of(a, "b")["breaks"], peer_of(b, "a")["breaks"]]
    assert ["before", "after"] == texts(b)


def test_two_requests_of_one_name_are_told_apart(nodes: Nodes) -> None:
    """The name alone asks which; an address or an identity says it."""
    a, b = nodes.start("a"), nodes.start("b")
    other = Node("b", free_address(), nodes.directory / "other").start()
    nodes.made.append(other)
    for node in (b, other):
        assert OK == node.ctl("pair", "ask", a.address).returncode
    for verb in ("accept", "reject"):
        done = a.ctl("pair", verb, "b")
        assert USAGE == done.returncode
        assert "2 nodes call themselves b" in done.stderr
    assert b.identity == accept(a, b.host)["peer"]["identity"]
    assert OK == a.ctl("pair", "reject", other.identity).returncode


def test_who_is_not_trusted_there_cannot_be_verified_or_recovered(nodes: Nodes) -> None:
    """Exit 4, as for a message to it."""
    a, b = nodes.start("a"), nodes.start("b")
    a.trust(b)
    held(a, "b")
    assert [NOT_TRUSTED] * 2 == [a.ctl(*v).returncode for v in (("verify", "b"), ("recover", "--from", "b"))]
    done = a.ctl("peer", "rekey", "b", "--timeout", "2s")
    assert NOT_TRUSTED == done.returncode
    assert "No words with b: " in done.stdout
    assert "msgctl pair ask b" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pair", "join", "-"), "This is no invitation: it is empty."),
        (("pair", "join", "hola"), "This is no invitation: it begins with 'hola', expected 'msgd1'."),
        (("pair", "invite", "--ttl", "0"), "--ttl 0 is out of range\n  expected 1s to 366d"),
        (("pair", "invite", "--address", "a b"), "'a b' is not an address"),
        (("pair", "ask", "10.0.0.1", "--timeout", "2d"), "--timeout 2d is out of range\n  expected 0s to 1d"),
        (("peer", "add", "x", "--key", "abc"), "These are 3 of 56 letters of an identity."),
    ],
)
def test_wrong_input_is_answered_in_words_of_the_command(
    node: Node, words: tuple[str, ...], said: str
) -> None:
    """A sentence and the way out, never a parameter of the control socket."""
    done = node.ctl(*words, stdin="")
    assert (USAGE, True) == (done.returncode, said in done.stderr), done.stderr
