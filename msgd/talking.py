"""A service connection as its two ends use it: say a frame, hear a frame, one after another.

Both block, but never for longer than QUIET_S without a byte going through: who does not read stops the other
one's writing, and who does not answer is given up. Small frames are gathered and leave together.
"""

import select
import ssl
import time

from msgd.peer.buffer import ReceiveBuffer
from msgd.peer.errors import RemoteProtocolError
from msgd.peer.service import LIMIT_BYTES, Frame, decode, encode

QUIET_S = 60.0
GATHER_BYTES = 64 << 10
SKIPPED = 1000  # frames of unknown types in a row: nobody waits for ever behind what means nothing to him


class TalkEnded(OSError):
    """The other end is gone, or silent for too long."""


class Talk:
    """One end. `rest` is what has arrived behind the welcome.

    Methods raise TalkEnded and RemoteProtocolError.
    """

    def __init__(self, session: ssl.SSLSocket, rest: bytes, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.session = session
        self._limit_bytes = limit_bytes  # of a frame from the other end
        self._buffer = ReceiveBuffer()
        self._outgoing = bytearray()
        self._take(rest)

    def say(self, frame: Frame) -> None:
        """Queue a frame; it leaves with the next `flush`, or when enough has been gathered."""
        self._outgoing += encode(frame)
        if len(self._outgoing) >= GATHER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was said, as fast as the other end reads."""
        data = memoryview(bytes(self._outgoing))
        self._outgoing.clear()
        while data:
            try:
                data = data[self.session.send(data) :]
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)
            except OSError as error:
                raise TalkEnded(f"it has gone: {error.strerror or error}") from error

    def hear(self, quiet_s: float = QUIET_S) -> Frame | None:
        """The next frame of a known type; None when the other end has closed in between frames."""
        self.flush()
        skipped = 0
        while True:
            while (data := self._buffer.frame(self._limit_bytes)) is not None:
                frame = decode(data)
                if frame is not None:
                    return frame
                skipped += 1
                if skipped > SKIPPED:
                    raise RemoteProtocolError(f"more than {SKIPPED} frames of unknown types")
            if not self._read(quiet_s):
                return None

    def close(self) -> None:
        """Close the connection."""
        self.session.close()

    def _read(self, quiet_s: float) -> bool:
        """Wait for bytes; False when the other end has closed."""
        while True:
            try:
                count = self.session.recv_into(self._buffer.space())
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, quiet_s)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, quiet_s)
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return False
            except OSError as error:
                raise TalkEnded(f"it has gone: {error.strerror or error}") from error
            else:
                self._buffer.filled(count)
                return count > 0

    def _take(self, data: bytes) -> None:
        while data:
            space = self._buffer.space()
            count = min(len(space), len(data))
            space[:count] = data[:count]
            self._buffer.filled(count)
            data = data[count:]

    def _wait(self, mask: int, quiet_s: float = QUIET_S) -> None:
        poll = select.poll()
        poll.register(self.session, mask)
        if not poll.poll(quiet_s * 1000):
            raise TalkEnded(f"nothing went through for {quiet_s:g} s")


class Ticker:
    """Says when a second has passed. CLOCK_MONOTONIC."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._due_s = time.monotonic() + every_s

    def is_due(self) -> bool:
        """Whether the time has come; then the next one begins."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self._every_s
        return True
