"""What two ends that met again conclude about one direction. Pure: both ends get the same answer.

Each end names its position (epoch, last seq, head) in hello and welcome. Then, per direction:

| sender, receiver | conclusion of both |
|---|---|
| no epoch on either side, or different epochs | new epoch |
| same epoch, same last, same head | agree |
| same epoch, same last, other head | new epoch |
| same epoch, sender ahead | the sender states its head at the receiver's last seq |
| … and it is the same | resend from there |
| … and it is another, or it has none | new epoch |
| same epoch, receiver ahead | the receiver states its head at the sender's last seq |
| … and it is the same | new epoch; all that the sender has is proven to have arrived |
| … and it is another, or it has none | new epoch |

A new epoch begins at base = higher last seq + 1: a seq is never used twice. It is the sender that opens it:
commit, `Epoch`, commit at the receiver, `EpochDone`, batches. The first contact is a new epoch with base 1.
A crash between the two commits leaves the sender in an epoch that the receiver has not heard of: the
sender proposes it again (`proposal`) instead of opening one more.

With Agree and Resend the receiver's position is as good as a receipt: all before next_seq is on its disk.
What is not decided here: what becomes of messages without a receipt when an epoch ends (`NewEpoch.proven`
says which of them have arrived).
"""

from dataclasses import dataclass

from msgd.peer.errors import RemoteProtocolError
from msgd.peer.frames import NOWHERE, Epoch, Position
from msgd.peer.heads import epoch_head as epoch_head

SENDER = "sender"
RECEIVER = "receiver"


@dataclass(frozen=True, slots=True)
class Agree:
    """Nothing is missing; the next batch begins at next_seq."""

    next_seq: int


@dataclass(frozen=True, slots=True)
class Resend:
    """The sender goes on at next_seq, which it has in its log."""

    next_seq: int


@dataclass(frozen=True, slots=True)
class Ahead:
    """`who` has to state its head at `seq`."""

    who: str
    seq: int


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """The sender has to open a new epoch at base.

    `proven`: the sender's messages up to this seq are on the receiver's disk as they are on the sender's;
    0: the positions prove nothing (receipts of before stay what they are).
    """

    base: int
    proven: int = 0


Conclusion = Agree | Resend | Ahead | NewEpoch


def compare(sender: Position, receiver: Position) -> Conclusion:
    """What follows from the two positions alone."""
    base = max(sender.last, receiver.last) + 1
    if sender.epoch != receiver.epoch or sender.epoch == NOWHERE.epoch:
        return NewEpoch(base)
    if sender.last > receiver.last:
        return Ahead(SENDER, receiver.last)
    if sender.last < receiver.last:
        return Ahead(RECEIVER, sender.last)
    if sender.head == receiver.head:
        return Agree(base)
    return NewEpoch(base)


def conclude(sender: Position, receiver: Position, stated: bytes | None) -> Resend | NewEpoch:
    """What follows once the side ahead has stated its head at the other's last seq (None: it has none)."""
    if sender.last > receiver.last:
        if stated == receiver.head:
            return Resend(receiver.last + 1)
        return NewEpoch(sender.last + 1)
    proven = sender.last if stated == sender.head else 0
    return NewEpoch(receiver.last + 1, proven)


def proposal(sender: Position, receiver: Position, recorded: Epoch | None, fresh: bytes) -> Epoch:
    """The epoch that the sender proposes after NewEpoch; to be committed first unless it is `recorded`.

    `recorded` is the sender's latest epoch record, as long as all batches since are still in its log;
    `fresh` is 16 random bytes.
    """
    if recorded is not None and may_repeat(sender, receiver, recorded):
        return recorded
    base = max(sender.last, receiver.last) + 1
    return Epoch(fresh, base, sender.last, sender.head, receiver.last, receiver.head)


def may_repeat(sender: Position, receiver: Position, recorded: Epoch) -> bool:
    """Whether the receiver can still take the epoch in which the sender is."""
    return recorded.epoch == sender.epoch != receiver.epoch and recorded.base > receiver.last


def opened(epoch: Epoch) -> Position:
    """Where both ends stand at the beginning of this epoch."""
    head = epoch_head(epoch.epoch, epoch.base, epoch.sender_head, epoch.receiver_head)
    return Position(epoch.epoch, epoch.base - 1, head)


def adopt(receiver: Position, epoch: Epoch) -> Position:
    """Where the receiver stands once it has committed the sender's new epoch.

    Raises RemoteProtocolError when a seq would be used twice. That `epoch` names another position of the
    receiver than its present one is legal: the epoch was proposed before, and the receiver has lost
    something since (`epoch.receiver_last` against `receiver.last` says what).
    """
    if epoch.epoch == receiver.epoch:
        raise RemoteProtocolError("a new epoch that is the present one")
    if epoch.base <= receiver.last:
        raise RemoteProtocolError(f"an epoch from seq {epoch.base}, but {receiver.last} is here already")
    return opened(epoch)
