"""What a control client says: its calls, each with the descriptors that came with it (SCM_RIGHTS).

The kernel never joins what was sent with descriptors to what follows, so they belong to the last call that
has begun in what was read: a client that hands some over writes that call by one sendmsg of its own.
Whoever takes a call owns its descriptors.
"""

import os
import socket
from collections.abc import Iterable

from msgd.wire import varlink

READ_BYTES = 1 << 18
MAX_FDS = 64  # of one call

Said = tuple[bytes, list[int]]


class Hearing:
    """The receiving end of a control socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._calls = varlink.Splitter()
        self._early: list[int] = []  # descriptors of a call that is not whole yet

    def read(self) -> list[Said] | None:
        """The calls that are whole now; None: the client has gone. Raises FrameError, FrameTooLongError."""
        data, fds, flags, _ = socket.recv_fds(self._sock, READ_BYTES, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        self._calls.feed(data)
        frames = []
        while (frame := self._calls.next()) is not None:
            frames.append(frame)
        said: list[Said] = [(frame, []) for frame in frames]
        if said and self._early:
            said[0] = (said[0][0], self._early)
            self._early = []
        self._hand_over(said, fds, bool(flags & socket.MSG_CTRUNC))
        return said

    def _hand_over(self, said: list[Said], fds: list[int], is_cut: bool) -> None:
        if not fds:
            return
        own = self._early if self._calls.has_part else said[-1][1]
        own += fds
        if is_cut or len(own) > MAX_FDS:
            raise varlink.FrameError(f"a call with more than {MAX_FDS} descriptors")


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that were handed over."""
    for fd in fds:
        os.close(fd)
