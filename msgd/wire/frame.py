"""What every frame on a channel to the log process is made of."""

import msgspec


class Frame(msgspec.Struct, array_like=True, gc=False):
    """Base of all: a short array on the pipe."""


class DirectionState(Frame):
    """Where one direction of a pair stands at one node: its epoch (16 bytes), last seq, head (32 bytes)."""

    epoch: bytes
    last: int
    head: bytes


class EpochEnds(Frame):
    """How an epoch began: where both ends were. `base` is its first seq."""

    epoch: bytes
    base: int
    sender_last: int
    sender_head: bytes
    receiver_last: int
    receiver_head: bytes
