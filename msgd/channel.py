"""The log process's end of a channel: it never waits for whoever reads slowly."""

import socket

from msgd.wire.frame import Frame
from msgd.wire.ledger import TABLE
from msgd.wire.pipe import Pipe

OUTBOUND_BYTES = 4 << 20  # a reader that is this far behind is dropped: it costs a resend, not our memory


class Channel:
    """The log process's end of one process's channel. It puts itself into `care` when it needs attention."""

    def __init__(self, sock: socket.socket, kind: str, pid: int, care: "set[Channel]") -> None:
        self.pipe = Pipe(sock, TABLE)
        self._care = care
        self.fd = sock.fileno()
        self.kind = kind
        self.pid = pid
        self.peer = 0  # of a link that was taken or may dial
        self.identity = b""  # of who is at the other end of that link
        self.is_told = False  # of a link: the journal knows that it is open
        self.is_service = False  # it answers the peer out of the log, beside the link
        self.is_sharing = False  # it serves files to the peer, beside the link
        self.watching: set[int] = set()  # peers' numbers; 0: whatever is committed next
        self.outbound = bytearray()
        self.broken = False  # too far behind
        self.is_deaf = False  # its end is closed; what it said before is still to be read, then comes EOF
        self.wants_out = False  # the loop watches for room
        self.is_stale = False  # a link's positions are not those any more: what it says is not heard
        self.refused_seq = 0  # of the batch that found no room: those behind it come again behind it

    def say(self, frame: Frame, payload: bytes | memoryview = b"") -> None:
        """Queue a frame; it leaves now if the reader keeps up. A reader that does not read is dropped."""
        if self.is_deaf:
            return
        data = self.pipe.frame(frame, payload)
        if not self.outbound:
            try:
                sent = self.pipe.sock.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.is_deaf = True
                return
            if sent == len(data):
                return
            data = data[sent:]
        self.outbound += data
        self.broken = len(self.outbound) > OUTBOUND_BYTES
        self._care.add(self)

    def flush(self) -> None:
        """Write what is queued, as far as the reader takes it."""
        self._care.add(self)
        try:
            sent = self.pipe.sock.send(self.outbound, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.is_deaf = True
            sent = len(self.outbound)
        del self.outbound[:sent]
