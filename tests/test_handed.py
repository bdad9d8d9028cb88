"""Descriptors on the control socket: each call has its own, and none stays open."""

import os
import socket
from collections.abc import Iterator

import pytest

from msgctl.client import Client
from msgctl.handing import hand_over
from msgd.handed import MAX_FDS, Hearing, Said, close_all
from msgd.wire import varlink
from tests.control_server import ControlServer

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def call(name: str, size: int = 0) -> bytes:
    return varlink.call(f"org.example.{name}", {"fill": "x" * size})


def files(*texts: str) -> list[int]:
    """Descriptors whose content says whose they are."""
    fds = []
    for text in texts:
        fds.append(os.memfd_create("handed"))
        os.pwrite(fds[-1], text.encode(), 0)
    return fds


def give(sock: socket.socket, frame: bytes, *texts: str) -> None:
    """A call with descriptors, by one sendmsg."""
    fds = files(*texts)
    assert len(frame) == socket.send_fds(sock, [frame], fds)
    close_all(fds)


def content(fds: list[int]) -> list[str]:
    found = [os.pread(fd, 100, 0).decode() for fd in fds]
    close_all(fds)
    return found


def read(hearing: Hearing, calls: int) -> list[tuple[str, list[str]]]:
    """So many calls, each by its name, with what its descriptors hold."""
    said: list[Said] = []
    while len(said) < calls:
        more = hearing.read()
        assert more is not None
        said += more
    return [(varlink.parse_call(frame).method.rpartition(".")[2], content(fds)) for frame, fds in said]


def test_descriptors_come_with_their_call(pair: Pair) -> None:
    ours, theirs = pair
    hearing = Hearing(theirs)
    ours.sendall(call("A") + call("B"))
    give(ours, call("C"), "c1", "c2")
    ours.sendall(call("D"))
    give(ours, call("E"), "e")
    give(ours, call("F"), "f")
    expected = [("A", []), ("B", []), ("C", ["c1", "c2"]), ("D", []), ("E", ["e"]), ("F", ["f"])]
    assert expected == read(hearing, 6)


def test_a_call_in_pieces_keeps_its_descriptors(pair: Pair) -> None:
    ours, theirs = pair
    hearing = Hearing(theirs)
    first, last = call("A", 1000), call("B")
    give(ours, first[:500], "a")
    assert [] == hearing.read()
    ours.sendall(first[500:] + last)
    give(ours, call("C"), "c")
    assert [("A", ["a"]), ("B", []), ("C", ["c"])] == read(hearing, 3)


def test_what_is_read_of_two_calls_at_once_goes_to_the_one_that_begins_last(pair: Pair) -> None:
    """The end of one call, and the beginning of the next with its descriptors, in one read."""
    ours, theirs = pair
    hearing = Hearing(theirs)
    first, second = call("A"), call("B", 300)
    ours.sendall(first[:10])
    assert [] == hearing.read()
    ours.sendall(first[10:])
    give(ours, second[:100], "b")
    assert [("A", [])] == read(hearing, 1)
    ours.sendall(second[100:])
    assert [("B", ["b"])] == read(hearing, 1)


def test_a_big_call_of_64_arrives_with_all(pair: Pair) -> None:
    ours, theirs = pair
    hearing = Hearing(theirs)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    names = [str(number) for number in range(MAX_FDS)]
    give(ours, call("A", 100_000), *names)
    assert [("A", names)] == read(hearing, 1)


def test_more_descriptors_than_a_call_may_have_end_the_connection(pair: Pair) -> None:
    ours, theirs = pair
    give(ours, call("A"), *["x"] * (MAX_FDS + 8))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(varlink.FrameError, match="more than 64"):
        Hearing(theirs).read()
    assert (
        before <= len(os.listdir("/proc/self/fd")) <= before + MAX_FDS + 1
    )  # what came ends with the process


def test_pieces_of_one_call_cannot_gather_descriptors(pair: Pair) -> None:
    ours, theirs = pair
    hearing = Hearing(theirs)
    frame = call("A", 1000)
    give(ours, frame[:100], *["x"] * 40)
    assert [] == hearing.read()
    give(ours, frame[100:200], *["x"] * 40)
    with pytest.raises(varlink.FrameError, match="more than 64"):
        hearing.read()


def test_the_client_writes_a_call_that_the_socket_does_not_take_at_once(server: ControlServer) -> None:
    """Meanwhile it reads what comes, so that both sides never wait for each other."""
    with Client(server.path) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        fds = files("x")
        server.script["Fill"] = lambda connection, heard: connection.reply(
            {"size": len(heard.parameters["x"])}
        )
        for size in (10, 500_000, 10):
            hand_over(client, varlink.call("org.msgd.Control.Fill", {"x": "y" * size}), fds)
        assert ["x"] == content(fds)  # still ours
        sizes = []
        while len(sizes) < 3:
            reply = client.next_reply()
            if reply is None:
                client.feed(client.sock.recv(1 << 16) if wait_readable(client) else b"")
            else:
                sizes.append(reply.parameters["size"])
        assert [10, 500_000, 10] == sizes


def wait_readable(client: Client) -> bool:
    import select

    return bool(select.select([client.sock], [], [], 10)[0])
