"""What a control worker and the log process say to each other about one message to many peers.

The frames are part of the one table in `wire.ledger`.
"""

from msgd.wire.frame import Frame


class Spread(Frame):
    """One message for each of these peers, a record each; its payload travels behind. Answered by Placed."""

    token: int
    peers: list[int]
    id: bytes
    ttl_ns: int  # 0: never expires
    generation: int  # of the peers that the sender knows
    user: str
    is_first: bool = True  # nobody should have a message with this id yet
    gone: list[int] = []  # of these peers those whose message Placed called known, and is not kept any more
    gone_upto: int = 0  # as far as this log offset


class Placed(Frame):
    """Durable here, for all of those peers.

    `places`: peer, log offset of the record, and its first seq, 0 while it waits without one. `known`: peers
    for whom it was in the log before. With `is_known` nothing was kept: the id is not new, as was asked for.
    """

    token: int
    wall_ns: int
    places: list[tuple[int, int, int]]
    known: list[int]
    is_known: bool = False


class CastsChanged(Frame):
    """There is a new cast on the disk: a control worker says so, and the log process passes it on."""
