"""Frames between our own processes: whole under any chunking, with payloads and file descriptors in order."""

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd.wire.pipe import READ_BYTES, Pipe


class Word(msgspec.Struct, array_like=True):
    text: str


class Number(msgspec.Struct, array_like=True):
    value: int


TYPES = (Word, Number)


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe]]:
    one, other = socket.socketpair()
    with one, other:
        yield Pipe(one, TYPES), Pipe(other, TYPES)


def heard(pipe: Pipe) -> list[tuple[msgspec.Struct, bytes]]:
    """What has arrived; payloads copied."""
    frames = pipe.receive()
    assert frames is not None
    return [(frame, bytes(payload)) for frame, payload in frames]


def test_a_frame_arrives_with_its_payload(ends: tuple[Pipe, Pipe]) -> None:
    one, other = ends
    one.send(Word("hola"), b"\x00payload\xff")
    one.send(Number(7))
    assert [(Word("hola"), b"\x00payload\xff"), (Number(7), b"")] == heard(other)


def test_nothing_there_is_an_empty_list_and_the_end_is_none(ends: tuple[Pipe, Pipe]) -> None:
    one, other = ends
    assert [] == heard(other)
    frames = other.receive_with_fds()
    assert frames is not None
    assert [] == list(frames)
    one.send(Number(1))
    one.close()
    assert [(Number(1), b"")] == heard(other)
    assert other.receive() is None
    assert other.receive_with_fds() is None


def test_the_end_in_the_middle_of_a_frame_is_the_end(ends: tuple[Pipe, Pipe]) -> None:
    one, other = ends
    one.send_bytes(one.frame(Word("half"))[:-1])
    one.close()
    assert [] == heard(other)
    assert other.receive() is None


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=200)), min_size=1, max_size=8),
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_frames_are_whole_under_any_chunking(frames: list[tuple[str, bytes]], cuts: list[int]) -> None:
    a, b = socket.socketpair()
    with a, b:
        one, other = Pipe(a, TYPES), Pipe(b, TYPES)
        data = b"".join(one.frame(Word(text), payload) for text, payload in frames)
        got: list[tuple[msgspec.Struct, bytes]] = []
        at = place = 0
        while at < len(data):
            size = cuts[place % len(cuts)]
            a.sendall(data[at : at + size])
            at, place = at + size, place + 1
            got += heard(other)
        assert [(Word(text), payload) for text, payload in frames] == got


def test_a_payload_of_a_mebibyte_comes_through(ends: tuple[Pipe, Pipe]) -> None:
    """Longer than one read: it is put together, and what is behind it is not lost."""
    one, other = ends
    payload = os.urandom(4096) * 256
    data = one.frame(Number(1), payload) + one.frame(Number(2))
    got: list[tuple[msgspec.Struct, bytes]] = []
    one.sock.setblocking(False)
    while data:
        try:
            data = data[one.sock.send(data[:READ_BYTES]) :]
        except BlockingIOError:
            got += heard(other)
    while len(got) < 2:
        got += heard(other)
    assert [(Number(1), payload), (Number(2), b"")] == got


def test_a_payload_stays_as_it_was_while_more_arrives(ends: tuple[Pipe, Pipe]) -> None:
    """The view that is handed out is not of the buffer that the next read fills."""
    one, other = ends
    one.send(Number(1), b"first")
    frames = other.receive()
    assert frames is not None
    (_, view), *_ = frames
    one.send(Number(2), b"other bytes, longer than the first ones")
    heard(other)
    assert b"first" == bytes(view)


def test_file_descriptors_arrive_in_the_order_of_their_frames(ends: tuple[Pipe, Pipe]) -> None:
    """Each works, belongs to the receiver alone and is not inherited by programs that it starts."""
    one, other = ends
    pairs = [socket.socketpair() for _ in range(3)]
    for number, (mine, theirs) in enumerate(pairs):
        assert one.offer(Number(number), theirs.fileno())
        theirs.close()
        mine.sendall(b"%d" % number)
    numbers: list[int] = []
    while len(numbers) < 3:
        frames = other.receive_with_fds()
        assert frames is not None
        numbers += [frame.value for frame, _ in frames if isinstance(frame, Number)]
    assert [0, 1, 2] == numbers
    assert 3 == len(other.fds)
    for number, fd in enumerate(other.fds):
        assert not os.get_inheritable(fd)
        with socket.socket(fileno=fd) as sock:
            assert b"%d" % number == sock.recv(10)
    for mine, _ in pairs:
        mine.close()


def test_an_offer_to_a_reader_that_does_not_read_is_refused_whole(ends: tuple[Pipe, Pipe]) -> None:
    """It never waits, and what was taken before arrives undamaged."""
    one, other = ends
    taken = 0
    while one.offer(Number(taken), one.fileno() if taken % 2 else None):
        taken += 1
    got: list[msgspec.Struct] = []
    while len(got) < taken:
        frames = other.receive_with_fds()
        assert frames is not None
        got += [frame for frame, _ in frames]
    assert [Number(n) for n in range(taken)] == got
    assert taken // 2 == len(other.fds)
    for fd in other.fds:
        os.close(fd)
    assert one.offer(Number(0)), "there is room again"


def test_a_frame_that_does_not_parse_is_an_error(ends: tuple[Pipe, Pipe]) -> None:
    """Both ends are the same program: that is our own bug, and nothing is guessed."""
    one, other = ends
    good = one.frame(Number(1))
    one.send_bytes(good[:-1] + b"\xc1")  # a byte that msgpack never uses
    with pytest.raises(msgspec.DecodeError):
        heard(other)
    one.send_bytes(good[:4] + bytes([len(TYPES)]) + good[5:])
    with pytest.raises(IndexError):
        heard(other)
