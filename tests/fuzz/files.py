"""What a peer says that wants files: to the acceptor with its store, and to the dialler that puts and gets.

The frames before are those of any connection (`peer`). Whatever comes, nothing outside the store is touched,
and memory stays what it is.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from msgd import journal
from msgd.errors import MsgdError
from msgd.files import frames
from msgd.files.depot import Depot
from msgd.files.frames import Check, Close, Dup, Event, Get, List, Piece, Put, Remove, encode
from msgd.files.getting import Getting
from msgd.files.giving import Giving
from msgd.files.goods import Progress, Source, Target
from msgd.files.inflow import Inflow
from msgd.files.putting import Putting
from msgd.files.stream import CHUNK_BYTES, StreamEnded
from msgd.files.taking import Taking
from msgd.peer.errors import RemoteProtocolError
from tests.fuzz import engine
from tests.fuzz.mutate import frames_mutation, join, packed
from tests.fuzz.welcomed import sample_array

IDENTITY = bytes(32)
DIGEST = bytes.fromhex("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")  # of "hello"


class Said:
    """A stream to nobody: what is said is counted, what comes is the input."""

    def __init__(self, data: bytes = b"") -> None:
        self.events = understood(data)
        self.said = 0
        self._chunk = memoryview(bytearray(CHUNK_BYTES))

    def say(self, frame: frames.Frame) -> None:
        """Only counted; it must have bytes."""
        self.said += len(encode(frame))

    def say_content(self, data: bytes) -> None:
        self.said += len(data)

    def room(self) -> memoryview:
        return self._chunk

    def send_chunk(self, count: int) -> None:
        self.said += count

    def flush(self) -> None:
        pass

    def hear_now(self) -> Event | None:
        return next(self.events, None)

    def hear(self) -> Event | None:
        return next(self.events, None)


def understood(data: bytes) -> Iterator[Event]:
    """The events of an input, however it is cut into pieces: two ways, which must say the same."""
    whole, cut = Inflow(), Inflow()
    said = [list(fed(inflow, data, step)) for inflow, step in ((whole, 1 << 16), (cut, 7))]
    assert [merged(s) for s in said[:1]] == [merged(s) for s in said[1:]]
    inflow = Inflow()
    at = 0
    while True:
        while (event := inflow.next()) is not None:
            yield event
        if at >= len(data):
            return
        at += feed(inflow, data[at : at + 4096])


def fed(inflow: Inflow, data: bytes, step: int) -> Iterator[Any]:
    """Events, copied; what is wrong is the last one."""
    at = 0
    try:
        while True:
            while (event := inflow.next()) is not None:
                yield bytes(event.data) if isinstance(event, Piece) else event
            if at >= len(data):
                return
            at += feed(inflow, data[at : at + step])
    except RemoteProtocolError as error:
        yield str(error)


def feed(inflow: Inflow, data: bytes) -> int:
    space = inflow.space()
    count = min(len(space), len(data))
    space[:count] = data[:count]
    inflow.filled(count)
    return count


def merged(events: list[Any]) -> list[Any]:
    """Content that came in several pieces is one."""
    found: list[Any] = []
    for event in events:
        if found and isinstance(event, bytes) and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append(event)
    return found


# --- the acceptor -------------------------------------------------------------------------------------------


@cache
def place() -> Path:
    """In memory where there is such a place: thousands of files are synced there."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    journal.set_level("error")  # a line for each file that is taken is no finding
    made = tempfile.TemporaryDirectory(prefix="msgd-fuzz-", dir=base)
    place.keep = made  # type: ignore[attr-defined]  # as long as the process
    return Path(made.name)


class Host:
    """One peer that may write."""

    peer = "asker"
    identity = IDENTITY

    def __init__(self) -> None:
        self.stream: Any = Said()
        shutil.rmtree(place() / "store", ignore_errors=True)
        self._depot = Depot(str(place() / "store"), ":memory:", IDENTITY, 1 << 16, lambda why: None)
        (place() / "store" / "there").write_bytes(b"hello")

    def depot(self, right: str) -> Depot:
        return self._depot

    def tick(self, *_: int) -> None:
        pass

    tick_between = tick

    def close(self) -> None:
        self._depot.close()


def put(name: str, size: int, *, asks: bool = False) -> bytes:
    return encode(Put(1, name, size, 1 << 60, False, asks))


def content(data: bytes) -> bytes:
    return frames.HEAD.pack(len(data) + 1, frames.DATA) + data


def acceptor_seeds() -> list[bytes]:
    """Each thing that may be asked, once as it should be, and one of each frame."""
    whole = [
        put("a/b", 5) + content(b"hello") + encode(Close(1, DIGEST)),
        put("big", 5, asks=True) + content(b"hel") + content(b"lo") + encode(Close(1, DIGEST)),
        put("gone", 5) + encode(Close(1, b"", "it changed")),
        put("part", 5, asks=True) + encode(Check(1, DIGEST)),
        encode(Get(1, "there")) + encode(Get(2, "there", 5, DIGEST)) + encode(Get(3, "none")),
        encode(List(1, "*", True)) + encode(List(2, "", False)),
        encode(Dup(1, "there", "copy")) + encode(Remove(2, "there", False)) + encode(Remove(3, "a", True)),
    ]
    return whole + [join([(code, packed(sample_array(kind)))]) for code, kind in frames.TYPES.items()]


def run_acceptor(data: bytes) -> str:
    """A peer that may write says anything."""
    before = sorted(os.listdir(place()))
    host = Host()
    taking, giving = Taking(host), Giving(host)
    answers: dict[type[Any], Any] = {
        Put: taking.put, Check: taking.check, Close: taking.close_file, Piece: taking.piece,
        Get: giving.get, List: giving.ls, Dup: giving.dup, Remove: giving.rm,
    }  # fmt: skip
    told = []
    try:
        for event in understood(data):
            answer = answers.get(type(event))
            if answer is None:
                raise RemoteProtocolError(f"a {type(event).__name__} of who asks")
            told.append(type(event).__name__)
            answer(event)
        taking.land()
    finally:
        taking.abandon()
        host.close()
        assert set(os.listdir(place())) - {"store"} <= set(before)
    return " ".join(told[:5])


# --- the dialler --------------------------------------------------------------------------------------------


def dialler_seeds() -> list[bytes]:
    """What a store answers to two puts, and to two gets; the first byte says which."""
    ends = encode(frames.End(1, "", "", "", DIGEST, 5)) + encode(frames.End(2, "UnknownFile", "no", "hint"))
    began = encode(frames.Begin(1, 5, 0, True, 0)) + content(b"hello") + encode(Close(1, DIGEST))
    return [
        b"p" + ends,
        b"p" + encode(frames.From(2, 0)) + ends,
        b"p" + encode(frames.From(2, 3)) + encode(frames.From(2, 3)) + ends,
        b"g" + began + encode(frames.End(2, "UnknownFile", "no", "hint")),
        b"g" + began + encode(frames.Begin(2, 9, 0, False, 5)) + content(b"more") + encode(Close(2, DIGEST)),
        b"g" + encode(frames.Alive()) + began,
    ]


def run_dialler(data: bytes) -> str:
    """A store answers anything."""
    stream: Any = Said(data[1:])
    progress = Progress(lambda name, done, size: None)
    fds = [os.memfd_create("fuzz") for _ in range(2)]
    for fd, text in zip(fds, (b"hello", b"x" * 100_000), strict=True):
        os.write(fd, text)
    try:
        run: Any
        if data[:1] == b"p":
            stats = [os.fstat(fd) for fd in fds]
            run = Putting(
                [Source("n", fd, s.st_size, s.st_mtime_ns, False) for fd, s in zip(fds, stats, strict=True)],
                progress,
            )
        else:
            run = Getting([Target("n", fds[0]), Target("m", fds[1], 5)], progress)
        outcomes = list(run.run(stream))
        assert 2 == len(outcomes)
        return " ".join(str(o.error and type(o.error).__name__) for o in outcomes)
    finally:
        for fd in fds:
            assert os.fstat(fd).st_size <= 1 << 20
            os.close(fd)


MUTATED = frames_mutation()


def mutate_dialler(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """The same call, mostly, and other answers."""
    call = data[:1] if rng.random() < 0.95 else rng.choice((b"p", b"g"))
    return call + MUTATED(rng, data[1:], [other[1:] for other in corpus])


REFUSED = (RemoteProtocolError, StreamEnded, MsgdError)
TARGETS = [
    engine.Target("files-store", acceptor_seeds, run_acceptor, MUTATED, REFUSED, weight=0.05),
    engine.Target("files-asker", dialler_seeds, run_dialler, mutate_dialler, REFUSED, weight=0.1),
]
