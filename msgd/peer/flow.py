"""One direction of a link as both ends see it: from two positions to batches that flow.

Each frame that belongs to the direction, said or heard, comes by here: the table says whether it may be
said, `reconcile` what follows from it.
"""

from msgd.peer.errors import LocalProtocolError
from msgd.peer.frames import Epoch, EpochDone, LinkFrame, Position, State
from msgd.peer.reconcile import Agree, Ahead, Conclusion, adopt, compare, conclude
from msgd.peer.state import DIRECTION, advance, concluded


class Flow:
    """One direction of a link: both ends' positions and what follows from them."""

    def __init__(self, sender: Position, receiver: Position) -> None:
        self.sender = sender
        self.receiver = receiver
        self.conclusion: Conclusion = compare(sender, receiver)
        self.state = concluded(self.conclusion)
        self._opening: Position | None = None

    def said(self, role: str, frame: LinkFrame) -> None:
        """`role` says a frame that belongs to this direction. Raises ProtocolError when it may not."""
        state = advance(DIRECTION, role, self.state, type(frame))
        match frame:
            case State():
                self._stated(frame)
                return
            case Epoch():
                self._opening = adopt(self.receiver, frame)
            case EpochDone():
                self._done(frame)
        self.state = state

    def _stated(self, frame: State) -> None:
        assert isinstance(self.conclusion, Ahead)
        if frame.seq != self.conclusion.seq:
            raise LocalProtocolError(f"the state at seq {frame.seq}, expected {self.conclusion.seq}")
        self.conclusion = conclude(self.sender, self.receiver, frame.head)
        self.state = concluded(self.conclusion)

    def _done(self, frame: EpochDone) -> None:
        assert self._opening is not None
        if frame.epoch != self._opening.epoch:
            raise LocalProtocolError("done with another epoch than the one opened")
        self.sender = self.receiver = self._opening
        self.conclusion = Agree(self._opening.last + 1)
