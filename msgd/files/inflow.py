"""Bytes as they arrive, into frames and pieces of content. Pure; one buffer, written over and over.

    count = sock.recv_into(inflow.space())
    inflow.filled(count)
    while (event := inflow.next()) is not None: ...

Content is handed on where it lies in the buffer, as much of it as has arrived, so it is never copied. `space`
is good until `next` is asked again, a Piece until more is filled in.
"""

from msgd.files.frames import CONTROL_BYTES, DATA, DATA_BYTES, HEAD, Event, Piece, decode
from msgd.peer.errors import RemoteProtocolError

BUFFER_BYTES = 512 << 10  # as much as one write takes, where the other end is faster
SKIPPED = 1000  # frames of unknown types in a row


class Inflow:
    """What has arrived and is not understood yet."""

    def __init__(self, first: bytes = b"") -> None:
        self._view = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0
        self._content = 0  # bytes of the present Data that are not handed on yet
        self._skipped = 0
        self._view[: len(first)] = first
        self._end = len(first)

    def space(self) -> memoryview:
        """Where to read to; empty when what is here must be taken first."""
        if self._start == self._end:
            self._start = self._end = 0
        return self._view[self._end :]

    def filled(self, count: int) -> None:
        """`count` bytes were read into `space`."""
        self._end += count

    def next(self) -> Event | None:
        """The next frame or piece; None when more must arrive first. Raises RemoteProtocolError."""
        while True:
            if self._content:
                if self._start == self._end:
                    break
                return self._piece()
            if self._end - self._start < HEAD.size:
                break
            length, code = HEAD.unpack_from(self._view, self._start)
            if not 1 <= length <= (DATA_BYTES + 1 if code == DATA else CONTROL_BYTES):
                raise RemoteProtocolError(f"a frame of type {code} with {length} bytes")
            if code == DATA:
                self._start += HEAD.size
                self._content = length - 1
                continue
            stop = self._start + 4 + length
            if stop > self._end:
                break
            event = decode(code, self._view[self._start + HEAD.size : stop])
            self._start = stop
            if event is not None:
                self._skipped = 0
                return event
            self._skip()
        self._make_room()
        return None

    def _piece(self) -> Piece:
        count = min(self._content, self._end - self._start)
        self._start += count
        self._content -= count
        return Piece(self._view[self._start - count : self._start])

    def _make_room(self) -> None:
        """The beginning of a frame goes to the front, so that there is room for the rest."""
        kept = self._end - self._start
        if self._start and kept:
            self._view[:kept] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, kept

    def _skip(self) -> None:
        self._skipped += 1
        if self._skipped > SKIPPED:
            raise RemoteProtocolError(f"more than {SKIPPED} frames of unknown types")
