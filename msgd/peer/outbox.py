"""The sender's end of one direction on one link: what is on its way without a receipt.

receipted ≤ last. The window bounds bytes and batches between the two; the first batch always fits, or a
message bigger than the window would wait for ever. A receipt must name a boundary between batches that
are on their way, or repeat the last one, and carry the head that we have there.
"""

from collections import deque
from typing import NamedTuple

from msgd.peer.errors import LocalProtocolError, RemoteProtocolError
from msgd.peer.frames import Limits, Position


class Sent(NamedTuple):
    """A batch on its way, as its receipt will name it."""

    last_seq: int
    head: bytes
    size_bytes: int


class Outbox:
    """Counts what is released and unreceipted."""

    def __init__(self, position: Position, limits: Limits) -> None:
        self.last = position.last  # the last seq on its way
        self.receipted = position.last
        self.head = position.head  # at `receipted`
        self.size_bytes = 0  # on its way
        self._window_bytes = limits.window_bytes
        self._window_batches = limits.window_batches
        self._sent: deque[Sent] = deque()

    def __len__(self) -> int:
        """Batches on their way."""
        return len(self._sent)

    def room(self) -> int:
        """Bytes that the next batch may have. 0: wait for a receipt."""
        if not self._sent:
            return max(self._window_bytes, 1)
        if len(self._sent) >= self._window_batches:
            return 0
        return max(0, self._window_bytes - self.size_bytes)

    def fits(self, size_bytes: int) -> bool:
        """Whether a batch of this size may be sent now."""
        return not self._sent or 0 < size_bytes <= self.room()

    def send(self, first_seq: int, count: int, head: bytes, size_bytes: int) -> None:
        """This batch goes on its way."""
        if first_seq != self.last + 1 or count < 1:
            raise LocalProtocolError(f"{count} messages from seq {first_seq}, expected {self.last + 1}")
        if not self.fits(size_bytes):
            raise LocalProtocolError(f"a batch of {size_bytes} bytes, the window has {self.room()}")
        self.last += count
        self.size_bytes += size_bytes
        self._sent.append(Sent(self.last, head, size_bytes))

    def receipt(self, seq: int, head: bytes) -> int:
        """How many batches this receipt answers; 0 for a repeated one.

        Raises RemoteProtocolError unless it names one of our boundaries with its head.
        """
        if seq == self.receipted:
            self._check(seq, head, self.head)
            return 0
        if not self.receipted < seq <= self.last:
            raise RemoteProtocolError(f"a receipt for seq {seq}, expected {self.receipted} to {self.last}")
        answered = 0
        while self._sent[0].last_seq < seq:
            self._pop()
            answered += 1
        if self._sent[0].last_seq != seq:
            raise RemoteProtocolError(f"a receipt for seq {seq} inside a batch")
        self._check(seq, head, self._sent[0].head)
        self._pop()
        return answered + 1

    def _pop(self) -> None:
        sent = self._sent.popleft()
        self.size_bytes -= sent.size_bytes
        self.receipted, self.head = sent.last_seq, sent.head

    @staticmethod
    def _check(seq: int, stated: bytes, ours: bytes) -> None:
        if stated != ours:
            raise RemoteProtocolError(f"a receipt for seq {seq} with another head than ours")
