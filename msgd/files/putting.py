"""The asker puts files, one after another, on one connection; what was not answered goes again on the next.

Small files flow without waiting. For a big one the store is asked first how much of it is there already; then
both ends compute the digest of that beginning, and only what is behind it flows.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator

from msgd.errors import BY_NAME, MsgdError
from msgd.files.copying import NO_CONTENT
from msgd.files.frames import Check, Close, End, Event, From, Put
from msgd.files.goods import Outcome, Progress, Source
from msgd.files.intake import changed, hash_range
from msgd.files.outflow import CHANGED, SMALL_BYTES, Outflow
from msgd.files.stream import Stream, StreamEnded
from msgd.peer.errors import RemoteProtocolError

AHEAD_FILES = 512  # groups of the store: one is synced, one comes in, two are on their way
AHEAD_BYTES = 4 << 20
LOOK_BYTES = 8 << 20  # of a big file between two looks whether the store still takes it
GONE = "the store has closed the connection"


class Waiting:
    """A file that was sent and not answered yet."""

    __slots__ = ("number", "outcome", "source")

    def __init__(self, number: int, source: Source) -> None:
        self.number = number
        self.source = source
        self.outcome: Outcome | None = None


class Putting:
    """All files of one call. After StreamEnded `run` goes on with another stream."""

    def __init__(self, sources: Iterable[Source], progress: Progress) -> None:
        self._sources = iter(sources)
        self._progress = progress
        self._again: deque[Source] = deque()
        self._waiting: deque[Waiting] = deque()
        self._numbered: dict[int, Waiting] = {}  # the same
        self._ahead_bytes = 0
        self._number = 0
        self._offset: int | None = None  # the store has so much of the file that it was asked about

    def run(self, stream: Stream) -> Iterator[Outcome]:
        """Until all are answered. Raises as Stream, and what the sources raise."""
        self._again.extendleft(w.source for w in reversed(self._waiting) if w.outcome is None)
        self._waiting = deque(w for w in self._waiting if w.outcome is not None)
        self._numbered = {w.number: w for w in self._waiting}
        self._ahead_bytes = 0
        while True:
            yield from self._answered()
            source = self._next() if self._has_room() else None
            if source is not None:
                self._send(stream, source)
                while (event := stream.hear_now()) is not None:
                    self._take(event)
            elif self._waiting:
                self._take(_hear(stream))
            elif self._has_room():
                return

    def _answered(self) -> Iterator[Outcome]:
        while self._waiting and (outcome := self._waiting[0].outcome) is not None:
            del self._numbered[self._waiting.popleft().number]
            yield outcome

    def _has_room(self) -> bool:
        return len(self._waiting) < AHEAD_FILES and self._ahead_bytes < AHEAD_BYTES

    def _next(self) -> Source | None:
        return self._again.popleft() if self._again else next(self._sources, None)

    # --- out --------------------------------------------------------------------------------------------

    def _send(self, stream: Stream, source: Source) -> None:
        self._number += 1
        waiting = Waiting(self._number, source)
        self._waiting.append(waiting)
        self._numbered[waiting.number] = waiting
        self._ahead_bytes += min(source.size, AHEAD_BYTES)
        if source.is_directory:
            stream.say(_put(waiting, asks=False))
            stream.say(Close(waiting.number, NO_CONTENT))
            return
        try:
            status = os.fstat(source.fd)
            if (status.st_size, status.st_mtime_ns) != (source.size, source.mtime_ns):
                self._end(waiting, changed(source.name, "it changed before it was read"))
                return
            outflow = Outflow(source.fd, status)
            if source.size <= SMALL_BYTES:
                self._send_small(stream, waiting, outflow)
            else:
                self._send_big(stream, waiting, outflow)
        except (StreamEnded, RemoteProtocolError):
            raise
        except OSError as error:
            self._end(waiting, MsgdError(f"{source.name} cannot be read: {error.strerror}."))

    def _send_small(self, stream: Stream, waiting: Waiting, outflow: Outflow) -> None:
        source = waiting.source
        data = outflow.read_all()
        why = outflow.fault()
        if why:
            self._end(waiting, changed(source.name, why))
            return
        stream.say(_put(waiting, asks=False))
        if data:
            stream.say_content(data)
        stream.say(Close(waiting.number, outflow.digest))
        self._progress.at(source.name, source.size, source.size)

    def _send_big(self, stream: Stream, waiting: Waiting, outflow: Outflow) -> None:
        name, size = waiting.source.name, waiting.source.size
        stream.say(_put(waiting, asks=True))
        offset = self._ask(stream, waiting)
        if offset:
            try:
                sha = hash_range(outflow.fd, min(offset, size), self._progress.alive)
            except EOFError:
                stream.say(Close(waiting.number, b"", CHANGED))
                return
            stream.say(Check(waiting.number, sha.digest()))
            offset = self._ask(stream, waiting)
            if offset:
                outflow.go_on(sha, offset)
        if waiting.outcome is not None:
            return
        look_at = outflow.at + LOOK_BYTES

        def sent(at: int) -> None:
            nonlocal look_at
            self._progress.at(name, at, size)
            if at >= look_at:
                look_at = at + LOOK_BYTES
                while (event := stream.hear_now()) is not None:
                    self._take(event)
                if waiting.outcome is not None:
                    raise _Refused

        try:
            outflow.send(stream, sent)
        except _Refused:
            stream.say(Close(waiting.number, b"", "it was refused"))
            return
        stream.say(Close(waiting.number, outflow.digest, outflow.fault()))

    def _ask(self, stream: Stream, waiting: Waiting) -> int:
        """How much of it is there; 0 as well where it is refused."""
        self._offset = None
        while self._offset is None and waiting.outcome is None:
            self._take(_hear(stream))
        return self._offset or 0

    # --- in ---------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if isinstance(event, From):
            self._offset = event.offset
        elif isinstance(event, End):
            waiting = self._numbered.get(event.number)
            if waiting is None:
                raise RemoteProtocolError(f"an answer to {event.number}, which was not asked")
            self._end(waiting, error_of(event), event.digest)

    def _end(self, waiting: Waiting, error: MsgdError | None, digest: bytes = b"") -> None:
        source = waiting.source
        if waiting.outcome is None:
            self._ahead_bytes -= min(source.size, AHEAD_BYTES)
            waiting.outcome = Outcome(
                source.name, source.size, digest.hex(), source.mtime_ns, source.executable, error
            )


class _Refused(Exception):
    """The store takes no more of this file."""


def error_of(end: End) -> MsgdError | None:
    """The error that an answer names."""
    return BY_NAME.get(end.code, MsgdError)(end.message, end.hint) if end.code else None


def _hear(stream: Stream) -> Event:
    event = stream.hear()
    if event is None:
        raise StreamEnded(GONE)
    return event


def _put(waiting: Waiting, *, asks: bool) -> Put:
    source = waiting.source
    return Put(waiting.number, source.name, source.size, source.mtime_ns, source.executable, asks)
