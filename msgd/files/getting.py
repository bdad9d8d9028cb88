"""The asker gets files, one after another, on one connection; after a break it goes on where it stopped.

Requests are sent ahead, so that small files flow without waiting; few enough that they fit into the socket,
since a store that sends does not read.
"""

import hashlib
import os
import select
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from msgd.errors import MsgdError, StorageRefused
from msgd.files.disk import FULL, Flusher, check_free
from msgd.files.frames import Begin, Close, End, Event, Get, Piece
from msgd.files.goods import Outcome, Progress, Target
from msgd.files.intake import changed, hash_range
from msgd.files.names import shown
from msgd.files.putting import GONE, error_of
from msgd.files.stream import Stream, StreamEnded
from msgd.peer.errors import RemoteProtocolError

AHEAD_FILES = 256
AHEAD_BYTES = 32 << 10  # of requests
HASHED_SHARE = 256  # so many bytes that must be read here before a file is asked for count as one of them
DRAINED_BYTES = 16 << 20  # of a file that cannot be written: more of it costs more than a new connection
PIPE_BYTES = 4096  # PIPE_BUF: what a pipe takes whole once it takes anything


class Sink:
    """Where one file goes: a regular file, or a pipe, of which nothing can be taken back."""

    def __init__(self, target: Target, tick: Callable[[], None]) -> None:
        self.target = target
        self.begin: Begin | None = None
        self.error: MsgdError | None = None
        self.at = 0  # bytes that are there, and in the digest
        self.sha = hashlib.sha256()
        self._tick = tick
        self._is_file = stat.S_ISREG(os.fstat(target.fd).st_mode)
        self._flusher = Flusher(target.fd)
        if target.have and self._is_file:
            have = min(target.have, os.fstat(target.fd).st_size)
            self.sha = hash_range(target.fd, have, tick)
            self.at = have

    def begins(self, begin: Begin) -> None:
        """The store says what comes."""
        self.begin = begin
        if self.error is not None:
            return
        if begin.offset not in (0, self.at):
            raise RemoteProtocolError(f"a file from {begin.offset} on, expected from {self.at}")
        try:
            if begin.offset != self.at:
                self._begin_anew()
            elif self._is_file:
                os.ftruncate(self.target.fd, self.at)
            if self._is_file:
                check_free(self.target.fd, begin.size - self.at, shown(self.target.name))
            self._flusher = Flusher(self.target.fd, self.at)
        except OSError as error:
            self._fail(error)
        except StorageRefused as error:
            self.error = error

    def _begin_anew(self) -> None:
        name = self.target.name
        if not self._is_file:
            self.error = changed(name, "the file there is another one since the connection broke")
            return
        os.ftruncate(self.target.fd, 0)
        self.at, self.sha = 0, hashlib.sha256()

    def write(self, data: memoryview) -> None:
        """The next bytes."""
        if self.error is not None:
            return
        self.sha.update(data)
        try:
            if self._is_file:
                self._write_file(data)
            else:
                self._write_pipe(data)
        except OSError as error:
            self._fail(error)

    def _write_file(self, data: memoryview) -> None:
        while data:
            count = os.pwrite(self.target.fd, data, self.at)
            self.at += count
            data = data[count:]
        self._flusher.grown(self.at)

    def _write_pipe(self, data: memoryview) -> None:
        poll = select.poll()
        poll.register(self.target.fd, select.POLLOUT)
        while data:
            while not poll.poll(1000):
                self._tick()
            count = os.write(self.target.fd, data[:PIPE_BYTES])
            self.at += count
            data = data[count:]

    def _fail(self, error: OSError) -> None:
        text = f"{shown(self.target.name)} cannot be written here: {error.strerror or error}."
        self.error = StorageRefused(text, "Make room here.") if error.errno in FULL else MsgdError(text)

    def closes(self, close: Close) -> Outcome:
        """The store says that this was all."""
        begin = self.begin
        assert begin is not None
        digest = self.sha.digest()
        if self.error is None:
            why = close.error
            if not why and (self.at != begin.size or digest != close.digest):
                why = "what came is not what the store has"
            if why:
                self.error = changed(self.target.name, why)
        return Outcome(
            self.target.name, begin.size, digest.hex(), begin.mtime_ns, begin.executable, self.error
        )


class Getting:
    """All files of one call. After StreamEnded `run` goes on with another stream."""

    def __init__(self, targets: Iterable[Target], progress: Progress) -> None:
        self._targets = iter(targets)
        self._progress = progress
        self._asked: deque[tuple[int, Sink]] = deque()
        self._ahead: deque[int] = deque()  # bytes of those requests, and a share of what was hashed
        self._unasked: deque[Sink] = deque()  # from before a break
        self._number = 0

    def run(self, stream: Stream) -> Iterator[Outcome]:
        """Until all are answered. Raises as Stream, and what the targets raise."""
        self._unasked.extendleft(sink for _, sink in reversed(self._asked))
        self._asked.clear()
        self._ahead.clear()
        while True:
            while len(self._asked) < AHEAD_FILES and sum(self._ahead) < AHEAD_BYTES:
                sink = self._next()
                if sink is None:
                    break
                self._ask(stream, sink)
            if not self._asked:
                return
            event = stream.hear()
            if event is None:
                raise StreamEnded(GONE)
            outcome = self._take(event)
            if outcome is not None:
                self._asked.popleft()
                self._ahead.popleft()
                yield outcome
                if isinstance(event, Piece):
                    raise StreamEnded("the rest of a file is not wanted")

    def _next(self) -> Sink | None:
        if self._unasked:
            return self._unasked.popleft()
        target = next(self._targets, None)
        return Sink(target, self._progress.alive) if target is not None else None

    def _ask(self, stream: Stream, sink: Sink) -> None:
        self._number += 1
        self._asked.append((self._number, sink))
        digest = sink.sha.digest() if sink.at else b""
        self._ahead.append(len(sink.target.name.encode(errors="replace")) + 64 + sink.at // HASHED_SHARE)
        stream.say(Get(self._number, sink.target.name, sink.at, digest))

    def _take(self, event: Event) -> Outcome | None:
        number, sink = self._asked[0]
        match event:
            case Piece(data):
                self._check(sink.begin is not None)
                assert sink.begin is not None
                if sink.error is None and sink.at + len(data) > sink.begin.size:
                    raise RemoteProtocolError("more content than was announced")
                sink.write(data)
                self._progress.at(sink.target.name, sink.at, sink.begin.size)
                if sink.error is not None and sink.begin.size - sink.at > DRAINED_BYTES:
                    return Outcome(sink.target.name, error=sink.error)
            case Begin():
                self._check(event.number == number)
                sink.begins(event)
            case Close():
                self._check(event.number == number and sink.begin is not None)
                return sink.closes(event)
            case End():
                self._check(event.number == number)
                return Outcome(sink.target.name, error=error_of(event))
        return None

    @staticmethod
    def _check(is_right: bool) -> None:
        if not is_right:
            raise RemoteProtocolError("an answer to what was not asked")
