"""A TLS connection between two nodes with the protocol's connection on it: non-blocking, one deadline."""

import select
import ssl
import time

from msgd.peer.buffer import TLS_RECORD
from msgd.peer.connection import Connection, Event
from msgd.peer.errors import RemoteProtocolError
from msgd.peer.frames import Frame, Hello, Refuse
from msgd.peer.state import ACCEPTOR
from msgd.penalties import GARBAGE, UNFINISHED, WRONG_PROOF

REFUSE_S = 1.0  # for the last word to who broke the protocol

# What a peer's fault is called in the worker's exit code, by the code of the refusal that it gets.
MISDEEDS = {"proof": WRONG_PROOF, "version": 0, "self": 0, "": GARBAGE}


class MeetingFailed(Exception):
    """Nothing comes of it.

    `retry_s`: 0 ordinary backoff, below 0 only when a person asks, else the time to wait. `is_quiet`: it
    belongs to the ordinary course, as when both ends dial at once. `code` and `detail` are the peer's, where
    it refused. `exit_code` says what an acceptor has met (`penalties`).
    """

    def __init__(
        self,
        reason: str,
        retry_s: float = 0.0,
        *,
        is_quiet: bool = False,
        code: str = "",
        detail: str = "",
        exit_code: int = 0,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_s = retry_s
        self.is_quiet = is_quiet
        self.code = code
        self.detail = detail
        self.exit_code = exit_code


class Wire:
    """A TLS socket with the protocol's connection on it."""

    def __init__(self, session: ssl.SSLSocket, connection: Connection) -> None:
        self.session = session
        self.connection = connection

    def receive(self, most: int = 1 << 62) -> list[Event] | None:
        """What has arrived, without waiting; None when the other end is gone.

        Raises RemoteProtocolError and OSError.
        """
        events: list[Event] = []
        taken = 0
        while taken < most:
            try:
                count = self.session.recv_into(self.connection.receive_buffer())
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return events
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return events or None
            if not count:
                return events or None
            events += self.connection.received(count)
            taken += count
            if count < TLS_RECORD and not self.session.pending():
                return events  # poll tells when there is more; asking now would cost a system call
        return events

    def wait_event(self, deadline_s: float) -> Event:
        """The next event before the link stands; what came behind it stays for later.

        Raises MeetingFailed.
        """
        try:
            count = 0
            while True:
                event = next(iter(self.connection.received(count)), None)
                if event is not None:
                    return event
                count = self._read()
                if not count:
                    wait(self.session, select.POLLIN, deadline_s)
        except RemoteProtocolError as error:
            self.refuse(error)
            reason = f"the peer broke the protocol: {error}"
            raise MeetingFailed(reason, exit_code=MISDEEDS.get(error.code, GARBAGE)) from error

    def _read(self) -> int:
        """Bytes read into the connection's buffer, 0 when there are none yet. Raises MeetingFailed."""
        try:
            count = self.session.recv_into(self.connection.receive_buffer())
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            count = 0
        if not count:
            raise MeetingFailed("the peer closed the connection", is_quiet=True, exit_code=UNFINISHED)
        return count

    def say(self, frame: Frame | Hello, deadline_s: float) -> None:
        """Write one frame before the link stands. Raises MeetingFailed."""
        data = b"".join(self.connection.send(frame))
        while data:
            try:
                data = data[self.session.send(data) :]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                wait(self.session, select.POLLOUT, deadline_s)

    def refuse(self, error: RemoteProtocolError) -> None:
        """An acceptor says why, where the protocol has a word for it."""
        if error.code and self.connection.role == ACCEPTOR:
            self.say(Refuse(code=error.code, detail=str(error)[:200]), time.monotonic() + REFUSE_S)


def handshake(session: ssl.SSLSocket, deadline_s: float) -> ssl.SSLSocket:
    """The TLS handshake, as either end. Raises MeetingFailed, OSError."""
    session.setblocking(False)
    while True:
        try:
            session.do_handshake()
            return session
        except ssl.SSLWantReadError:
            wait(session, select.POLLIN, deadline_s)
        except ssl.SSLWantWriteError:
            wait(session, select.POLLOUT, deadline_s)
        except ssl.SSLError as error:
            reason = f"no TLS 1.3 handshake: {error.reason or error}"
            raise MeetingFailed(reason, exit_code=UNFINISHED) from error


def wait(session: ssl.SSLSocket, mask: int, deadline_s: float) -> None:
    """Wait for the socket until the one deadline. Raises MeetingFailed."""
    left_s = deadline_s - time.monotonic()
    poll = select.poll()
    poll.register(session, mask)
    if left_s <= 0 or not poll.poll(left_s * 1000):
        raise MeetingFailed("the peer did not finish its hello in time", exit_code=UNFINISHED)
