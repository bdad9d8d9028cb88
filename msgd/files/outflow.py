"""A file that goes out, at either end: read, hashed and sent in one pass; it is noticed if it changes."""

import hashlib
import os
from collections.abc import Callable, Iterator

from msgd.files.stream import CHUNK_BYTES, Stream

SMALL_BYTES = 64 << 10  # leaves together with others
CHANGED = "it changed while it was read"


class Outflow:
    """One file. `status` is what fstat said before anything was read."""

    def __init__(self, fd: int, status: os.stat_result) -> None:
        self.fd = fd
        self.size = status.st_size
        self._mark = _mark(status)
        self.sha = hashlib.sha256()
        self.at = 0

    @property
    def digest(self) -> bytes:
        """Of all that was read."""
        return self.sha.digest()

    def go_on(self, sha: "hashlib._Hash", at: int) -> None:
        """What is before `at` is there already; `sha` has it."""
        self.sha, self.at = sha, at

    def read_all(self) -> bytes:
        """All of a small file. Raises OSError."""
        data = os.pread(self.fd, self.size, 0)
        self.at = len(data)
        self.sha.update(data)
        return data

    def read(self, most: int) -> Iterator[memoryview]:
        """All of it, in pieces that are good until the next is asked for. Raises OSError."""
        view = memoryview(bytearray(min(most, self.size) or 1))
        while self.at < self.size:
            count = os.preadv(self.fd, [view[: self.size - self.at]], self.at)
            if not count:
                return  # `fault` tells
            self.sha.update(view[:count])
            self.at += count
            yield view[:count]

    def send(self, stream: Stream, on_sent: Callable[[int], None], *, is_known: bool = False) -> None:
        """Send the rest of it; `is_known`: its digest is. Raises OSError, and as `Stream` and `on_sent`."""
        room = stream.room()
        if self.size - self.at > CHUNK_BYTES:
            os.posix_fadvise(self.fd, self.at, 0, os.POSIX_FADV_SEQUENTIAL)
        while self.at < self.size:
            count = os.preadv(self.fd, [room[: min(CHUNK_BYTES, self.size - self.at)]], self.at)
            if not count:
                return  # `fault` tells
            if not is_known:
                self.sha.update(room[:count])
            stream.send_chunk(count)
            self.at += count
            on_sent(self.at)

    def fault(self) -> str:
        """Why what was sent is not the file; empty: it is."""
        if self.at < self.size or _mark(os.fstat(self.fd)) != self._mark:
            return CHANGED
        return ""


def _mark(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino
