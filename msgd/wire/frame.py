"""What every frame on a channel to the log process is made of."""

import msgspec


class Frame(msgspec.Struct, array_like=True, gc=False):
    """Base of all: a short array on the pipe."""


class DirectionState(Frame):
    """Where one direction of a pair stands at one node: its epoch (16 bytes), last seq, head (32 bytes)."""

    epoch: bytes
    last: int
    head: bytes
