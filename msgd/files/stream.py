"""Frames over a TLS connection, both ways, for one process that waits for nothing longer than it must.

While it waits, `tick` is called every second: it may look whether anybody still wants this, and raises to end
it. Who does not move a byte for QUIET_S is given up.
"""

import select
import ssl
import time
from collections.abc import Callable

from msgd.files.frames import DATA, HEAD, Event, Frame, encode
from msgd.files.inflow import Inflow

QUIET_S = 60.0
TICK_MS = 1000.0
GATHER_BYTES = 64 << 10
CHUNK_BYTES = 256 << 10  # of content at a time: fits with its ciphertext into the cache of one core


class StreamEnded(OSError):
    """The other end is gone, or silent for too long."""


class Stream:
    """One end. `rest` is what has arrived behind the welcome.

    Methods raise StreamEnded, RemoteProtocolError, and what `tick` raises.
    """

    def __init__(self, session: ssl.SSLSocket, rest: bytes, tick: Callable[[], None]) -> None:
        self.session = session
        self.tick = tick
        self.is_closed = False  # by the other end, behind what has arrived
        self._inflow = Inflow(rest)
        self._outgoing = bytearray()
        self._chunk = bytearray(HEAD.size + CHUNK_BYTES)
        self._polls = {mask: _poll(session, mask) for mask in (select.POLLIN, select.POLLOUT)}

    # --- out --------------------------------------------------------------------------------------------

    def say(self, frame: Frame) -> None:
        """Queue a frame; it leaves with the next `flush`, or when enough has been gathered."""
        self._outgoing += encode(frame)
        if len(self._outgoing) >= GATHER_BYTES:
            self.flush()

    def say_content(self, data: bytes | memoryview) -> None:
        """Queue some content, as small frames are."""
        self._outgoing += HEAD.pack(len(data) + 1, DATA)
        self._outgoing += data
        if len(self._outgoing) >= GATHER_BYTES:
            self.flush()

    def room(self) -> memoryview:
        """Where to put up to CHUNK_BYTES of content for `send_chunk`."""
        return memoryview(self._chunk)[HEAD.size :]

    def send_chunk(self, count: int) -> None:
        """Send `count` bytes of content from `room`, behind what was said."""
        self.flush()
        HEAD.pack_into(self._chunk, 0, count + 1, DATA)
        self._write(memoryview(self._chunk)[: HEAD.size + count])

    def flush(self) -> None:
        """Write what was said, as fast as the other end reads."""
        if self._outgoing:
            data, self._outgoing = self._outgoing, bytearray()
            self._write(memoryview(data))

    def _write(self, data: memoryview) -> None:
        send = self.session.send
        while data:
            try:
                data = data[send(data) :]
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, QUIET_S)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, QUIET_S)
            except OSError as error:
                raise StreamEnded(f"it has gone: {error.strerror or error}") from error

    # --- in ---------------------------------------------------------------------------------------------

    def hear(self, quiet_s: float = QUIET_S) -> Event | None:
        """The next frame or piece; None when the other end has closed."""
        while (event := self.hear_now()) is None:
            self.flush()
            if self.is_closed:
                return None
            self._wait(select.POLLIN, quiet_s)
        return event

    def hear_now(self) -> Event | None:
        """The next frame or piece that is here already; None: nothing is."""
        while (event := self._inflow.next()) is None:
            if not self._read():
                return None
        return event

    def _read(self) -> bool:
        """Take in what has arrived, as much as there is room for; whether there was any."""
        receive, space, taken = self.session.recv_into, self._inflow.space(), 0
        try:
            while taken < len(space):
                count = receive(space[taken:])
                if not count:
                    self.is_closed = True
                    break
                taken += count
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            self.is_closed = True
        except OSError as error:
            raise StreamEnded(f"it has gone: {error.strerror or error}") from error
        self._inflow.filled(taken)
        return taken > 0

    # --- both -------------------------------------------------------------------------------------------

    def _wait(self, mask: int, quiet_s: float) -> None:
        until_s = time.monotonic() + quiet_s
        while not self._polls[mask].poll(TICK_MS):
            self.tick()
            if time.monotonic() >= until_s:
                raise StreamEnded(f"nothing went through for {quiet_s:g} s")

    def close(self) -> None:
        """Close the connection."""
        self.session.close()


def _poll(session: ssl.SSLSocket, mask: int) -> "select.poll":
    poll = select.poll()
    poll.register(session, mask)
    return poll
