"""What may be under way to a peer on its link, and what is released and has yet to go on its way."""

from collections import deque

from msgd.standing import Batch, Outward


class Window:
    """How much the peer lets us have under way. Made when a link stands."""

    __slots__ = ("batches", "bytes", "unsent", "unsent_bytes")

    def __init__(self, size: int, batches: int) -> None:
        self.bytes = size
        self.batches = batches
        self.unsent: deque[Batch] = deque()  # the last ones without a receipt
        self.unsent_bytes = 0

    def put(self, batch: Batch) -> None:
        """This batch is to be sent once there is room."""
        self.unsent.append(batch)
        self.unsent_bytes += batch.size

    def take(self, out: Outward) -> Batch | None:
        """The next batch that may go on its way now, if there is one."""
        while self.unsent and self.unsent[0].last_seq <= out.receipt:  # it went another way
            self._pop()
        sent_bytes = out.unreceipted_size - self.unsent_bytes
        sent = len(out.unreceipted) - len(self.unsent)
        if self.unsent and sent_bytes < self.bytes and sent < self.batches:
            return self._pop()
        return None

    def _pop(self) -> Batch:
        batch = self.unsent.popleft()
        self.unsent_bytes -= batch.size
        return batch
