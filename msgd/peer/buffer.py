"""Bytes waiting to be understood.

Bytes are read straight into a buffer that is written once and then left to the views of it, so a payload
is handed on without a copy, and nobody has to say when he has done with it: a buffer lives as long as a
view does. A new one is taken where the old one ends; what moves is the beginning of one frame, at most.

`space` always offers room for one whole TLS record. So a read that fills less has emptied the TLS library
as well, and a loop that waits for the socket misses nothing (`SSLSocket.pending` stays 0).
"""

import struct

from msgd.peer.errors import RemoteProtocolError

TLS_RECORD = 16 << 10
FIRST_BYTES = TLS_RECORD + (8 << 10) + 4  # before the welcome: a stranger costs no more than this
NEXT_BYTES = 64 << 10

_length = struct.Struct(">I")


class ReceiveBuffer:
    """Takes bytes in any pieces, gives whole frames."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(FIRST_BYTES))
        self._start = 0  # of the first frame not given yet
        self._end = 0  # of what has arrived
        self._stop = 0  # of that frame, where known

    def space(self) -> memoryview:
        """Where to read to: at least a TLS record."""
        need = max(self._stop, self._end) + TLS_RECORD
        if need > len(self._view):
            self._renew(need - self._start)
        return self._view[self._end :]

    def filled(self, count: int) -> None:
        """`count` bytes were read into `space`."""
        if count > len(self._view) - self._end:
            raise ValueError("more bytes than there was space for")
        self._end += count

    def frame(self, limit: int) -> memoryview | None:
        """The next frame, type and body, once it is whole.

        Raises RemoteProtocolError for a length of 0 or above `limit`, as soon as it can be read.
        """
        if self._end - self._start < 4:
            return None
        (length,) = _length.unpack_from(self._view, self._start)
        if not 1 <= length <= limit:
            raise RemoteProtocolError(f"a frame of {length} bytes, expected 1 to {limit}")
        self._stop = self._start + 4 + length
        if self._stop > self._end:
            return None
        found = self._view[self._start + 4 : self._stop]
        self._start, self._stop = self._stop, 0
        return found

    def rest(self) -> bytes:
        """What has arrived behind the last frame given, and forget it."""
        found = bytes(self._view[self._start : self._end])
        self.drop()
        return found

    def drop(self) -> None:
        """Forget what has arrived."""
        self._start = self._end
        self._stop = 0

    def _renew(self, need: int) -> None:
        view = memoryview(bytearray(max(NEXT_BYTES, need)))
        kept = self._end - self._start
        view[:kept] = self._view[self._start : self._end]
        if self._stop:
            self._stop -= self._start
        self._view, self._start, self._end = view, 0, kept
