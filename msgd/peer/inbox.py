"""The receiver's end of one direction on one link: order, repeats, and what is to be receipted.

taken ≥ committed ≥ receipted. A batch is taken when its first seq is the next one; one that is here
already is dropped and receipted again; anything else is a gap or an overlap, which no honest sender makes.
Receipts are cumulative: one receipt answers all batches committed since the last one.
"""

from msgd.peer.errors import LocalProtocolError, RemoteProtocolError
from msgd.peer.frames import Batch, Position


class Inbox:
    """Judges batches by their seqs. Heads are computed and compared by who commits."""

    def __init__(self, position: Position) -> None:
        self.taken = position.last  # handed on to be committed
        self.committed = position.last
        self.head = position.head  # at `committed`
        self._receipt_due = False

    def take(self, batch: Batch) -> bool:
        """True: the next batch, to be committed. False: here already, drop it.

        Raises RemoteProtocolError for a gap, an overlap, or other bytes under the last seq.
        """
        last = batch.first_seq + batch.count - 1
        if batch.first_seq == self.taken + 1:
            self.taken = last
            return True
        if last > self.taken:
            raise RemoteProtocolError(
                f"a batch of seq {batch.first_seq} to {last}, expected one from {self.taken + 1}"
            )
        if last == self.committed and batch.head != self.head:
            raise RemoteProtocolError(f"another head at seq {last} than the one receipted")
        self._receipt_due = True
        return False

    def commit(self, seq: int, head: bytes) -> None:
        """Everything up to seq is on disk, with this head."""
        if not self.committed < seq <= self.taken:
            raise LocalProtocolError(f"committed {seq}, expected {self.committed + 1} to {self.taken}")
        self.committed, self.head = seq, head
        self._receipt_due = True

    def receipt(self) -> tuple[int, bytes] | None:
        """(seq, head) of the receipt to send now; None when nothing is new. Counts as sent."""
        if not self._receipt_due:
            return None
        self._receipt_due = False
        return self.committed, self.head
