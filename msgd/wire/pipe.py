"""Frames between our own processes: a fixed head, a msgpack body, bytes that nobody needs to decode.

| field | type | |
|---|---|---|
| length | u32 LE | of what follows the head |
| type | u8 | place in the sender's table of structs |
| body length | u32 LE | of the msgpack body; the rest is the payload, verbatim |

Both ends are the same program, so there is no version. A frame that does not parse is our own bug: it
ends the process that reads it.
"""

import functools
import mmap
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

HEAD = struct.Struct("<IBI")
READ_BYTES = 256 << 10
FDS_BYTES = socket.CMSG_SPACE(64 * struct.calcsize("i"))
FDS_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC  # socket.recv_fds of Python 3.11 ignores its flags

# One buffer for all pipes of a process: what was read is copied out at once, so that a short frame costs no
# large allocation (1 MiB from malloc is an mmap, a page fault and an munmap each time). Private: a fork
# gives each process its own pages.
_space = memoryview(mmap.mmap(-1, READ_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


_encode = msgspec.msgpack.Encoder().encode


@functools.cache
def _tools(
    types: tuple[type[msgspec.Struct], ...],
) -> tuple[dict[type[msgspec.Struct], int], list[Callable[[memoryview], Any]]]:
    """Codes and decoders of a table: made once, in the supervisor, and shared by all that it forks."""
    codes = {kind: code for code, kind in enumerate(types)}
    return codes, [msgspec.msgpack.Decoder(kind).decode for kind in types]


class Pipe:
    """One end of a socketpair between two of our processes. Non-blocking to read, bounded to write.

    `types` is the literal table of structs that may travel, the same at both ends. File descriptors that
    came along (`offer`) wait in `fds`, in the order of their frames.
    """

    def __init__(self, sock: socket.socket, types: Sequence[type[msgspec.Struct]]) -> None:
        self.sock = sock
        self.fds: list[int] = []
        self._codes, self._decoders = _tools(tuple(types))
        self._encode = _encode
        self._rest = b""

    def fileno(self) -> int:
        return self.sock.fileno()

    def frame(self, message: msgspec.Struct, payload: bytes | memoryview = b"") -> bytes:
        """The bytes of one frame."""
        body = self._encode(message)
        head = HEAD.pack(len(body) + len(payload), self._codes[type(message)], len(body))
        return b"".join((head, body, payload))

    def send(self, message: msgspec.Struct, payload: bytes | memoryview = b"") -> None:
        """Write one frame, waiting for the reader if need be. Raises OSError when the other end is gone."""
        self.send_bytes(self.frame(message, payload))

    def send_bytes(self, data: bytes) -> None:
        """Write whole frames made by `frame`."""
        self.sock.sendall(data)

    def offer(self, message: msgspec.Struct, fd: int | None = None) -> bool:
        """Write one short frame, and pass a file descriptor with it, without waiting; whether there was room.

        The kernel takes a frame of a few KiB whole or not at all. Raises OSError when the other end is gone.
        """
        data = self.frame(message)
        passed = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
        try:
            sent = self.sock.sendmsg([data], passed, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        assert sent == len(data), f"{sent} of {len(data)} bytes of a short frame"
        return True

    def receive_with_fds(self) -> Iterator[tuple[msgspec.Struct, memoryview]] | None:
        """As `receive`, and takes in passed file descriptors (close-on-exec)."""
        try:
            data, ancillary, _, _ = self.sock.recvmsg(1 << 16, FDS_BYTES, FDS_FLAGS)
        except BlockingIOError:
            return iter(())
        except ConnectionError:
            return None
        for _, _, raw in ancillary:  # SCM_RIGHTS: nothing else comes without being asked for
            self.fds += memoryview(raw).cast("i")
        return self._frames(self._rest + data) if data else None

    def receive(self) -> Iterator[tuple[msgspec.Struct, memoryview]] | None:
        """What has arrived, without waiting: whole frames; None when the other end is gone.

        The payload is a view of the receive buffer: valid as long as somebody holds it.
        """
        try:
            count = self.sock.recv_into(_space, READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return iter(())
        except ConnectionError:
            return None
        if not count:
            return None
        return self._frames(b"".join((self._rest, _space[:count])))

    def _frames(self, data: bytes) -> Iterator[tuple[msgspec.Struct, memoryview]]:
        view, at, end = memoryview(data), 0, len(data)
        found = []
        while end - at >= HEAD.size:
            length, code, body = HEAD.unpack_from(data, at)
            start = at + HEAD.size
            if end - start < length:
                break
            at = start + length
            found.append((self._decoders[code](view[start : start + body]), view[start + body : at]))
        self._rest = data[at:] if at < end else b""
        return iter(found)

    def close(self) -> None:
        self.sock.close()
