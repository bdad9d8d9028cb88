"""One file that comes in: its bytes go into a part, its digest is computed as they flow.

What has the name of a directory has no bytes, and no part: it is made when its group lands.
"""

import errno
import hashlib
import os
from collections.abc import Callable

from msgd.errors import MsgdError, UsageError
from msgd.files.disk import Flusher, check_room, reserve
from msgd.files.names import HINT, is_directory, parts_of, shown
from msgd.files.parts import Part, Parts
from msgd.files.tree import refusal
from msgd.pieces import copy_piece

RESERVED_FROM = 1 << 20  # smaller files are written sooner than their room is taken
READ_BYTES = 1 << 20
OWNER = "user.msgd.owner"  # an extended attribute: what the catalogue is made of when it is lost


class Incoming:
    """What is to come."""

    __slots__ = ("executable", "mtime_ns", "name", "size")

    def __init__(self, name: str, size: int, mtime_ns: int, executable: bool) -> None:
        self.name = name
        self.size = size
        self.mtime_ns = mtime_ns
        self.executable = executable

    @property
    def is_directory(self) -> bool:
        return is_directory(self.name)

    @property
    def mode(self) -> int:
        """Before the umask."""
        return 0o777 if self.executable else 0o666


class Intake:
    """Takes one file. Whatever goes wrong is kept in `error`, and what still comes is thrown away."""

    def __init__(
        self, what: Incoming, parts: Parts | None, *, resumes: bool, refused: MsgdError | None = None
    ) -> None:
        self.what = what
        self.error = refused
        self.digest = b""  # once it is whole
        self.parts: list[str] = []  # of its name
        self.at = 0  # bytes of it that are here
        self._sha = hashlib.sha256()
        self._part: Part | None = None
        self._resumes = resumes
        if parts is None or refused is not None:
            return
        try:
            self.parts = parts_of(what.name[:-1] if what.is_directory else what.name)
            if not what.is_directory:
                self._begin(parts)
            elif what.size:
                self.refuse(UsageError(f"{shown(what.name)} is a directory, which has no content.", HINT))
        except MsgdError as error:
            self.refuse(error)
        except OSError as error:
            self.refuse(refusal(error, what.name))

    def _begin(self, parts: Parts) -> None:
        what = self.what
        if not self._resumes:
            self._part = parts.new(what.mode)
        else:
            self._part = parts.resume(what.name, what.size, what.mtime_ns, what.mode)
            self.at = os.fstat(self._part.fd).st_size
            if self.at > what.size:
                self.begin_anew()
        taken = os.fstat(self._part.fd).st_blocks * 512 if self._part.is_lasting else 0
        check_room(self._part.fd, max(0, what.size - taken))
        if what.size >= RESERVED_FROM:
            reserve(self._part.fd, self.at, what.size)
        self._flusher = Flusher(self._part.fd, self.at)

    @property
    def fd(self) -> int:
        """Of its part, while there is no error; a directory has none."""
        assert self._part is not None
        return self._part.fd

    def refuse(self, error: MsgdError) -> None:
        """It is not taken; the first reason counts. What is not to be gone on with is removed."""
        if self.error is None:
            self.error = error
        if self._part is not None and not self._resumes:
            self._part.remove()

    # --- an earlier try ---------------------------------------------------------------------------------

    def copy(self, fd: int, tick: Callable[[], None]) -> None:
        """Begin with all of a file that may be the same; an error costs only that. Raises as `tick`."""
        at = 0
        while at < self.what.size:
            try:
                at += copy_piece(fd, self.fd, at, self.what.size)
                self._flusher.grown(at)
            except OSError:
                self.begin_anew()
                return
            tick()
        self.at = at

    def digest_of_part(self, tick: Callable[[], None]) -> bytes:
        """That of the bytes that are here. Raises OSError."""
        self._sha = hash_range(self.fd, self.at, tick)
        return self._sha.digest()

    def begin_anew(self) -> None:
        """What is here is not the beginning of what comes. Raises OSError."""
        os.ftruncate(self.fd, 0)
        self.at = 0
        self._sha = hashlib.sha256()
        self._flusher = Flusher(self.fd)

    # --- content ----------------------------------------------------------------------------------------

    def write(self, data: memoryview) -> None:
        """The next bytes of it."""
        if self.error is not None or not data:
            return
        if self.at + len(data) > self.what.size:
            self._resumes = False
            self.refuse(changed(self.what.name, "more of it came than was announced"))
            return
        self._sha.update(data)
        try:
            while data:
                count = os.pwrite(self.fd, data, self.at)
                self.at += count
                data = data[count:]
            self._flusher.grown(self.at)
        except OSError as error:
            self.refuse(refusal(error, self.what.name))

    def finish(self, digest: bytes, why: str, owner: bytes) -> None:
        """The sender says that this is all, and its digest, or `why` it is not."""
        if self.error is not None:
            return
        fault = why
        if not fault and self.at != self.what.size:
            fault = f"{self.at:,} bytes of {self.what.size:,} came"
        if not fault and self._sha.digest() != digest:
            fault = "what came has another digest than what was read there"
        if fault:
            self._resumes = False
            self.refuse(changed(self.what.name, fault))
            return
        if self.what.is_directory:
            return
        self.digest = digest
        try:
            self._dress(owner)
        except OSError as error:
            self.refuse(refusal(error, self.what.name))

    def _dress(self, owner: bytes) -> None:
        """The times and rights that it had, and whose it is."""
        fd, what = self.fd, self.what
        if self._resumes:
            mode = os.fstat(fd).st_mode & 0o777
            os.fchmod(fd, mode | (mode & 0o444) >> 2 if what.executable else mode & ~0o111)
        os.utime(fd, ns=(what.mtime_ns, what.mtime_ns))
        if owner:
            try:
                os.setxattr(fd, OWNER, owner)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise

    def move(self, directory: int) -> None:
        """To its place. Raises OSError."""
        assert self._part is not None
        self._part.move(directory, self.parts[-1])

    def close(self) -> None:
        """It is there, or was refused."""
        if self._part is not None and self.error is not None:
            self._leave(self._part)
        elif self._part is not None:
            self._part.close()
        self._part = None

    def abandon(self) -> None:
        """Nobody sends it any more."""
        if self._part is not None:
            self._leave(self._part)
            self._part = None

    def _leave(self, part: Part) -> None:
        """A big one waits for the next try, without the room that was taken for its rest."""
        try:
            if self._resumes and self.at and part.is_lasting:
                os.ftruncate(part.fd, self.at)
            else:
                part.remove()
        except OSError:
            part.remove()
        part.close()


def hash_range(fd: int, size: int, tick: Callable[[], None]) -> "hashlib._Hash":
    """The SHA-256 of the first `size` bytes. Raises OSError, and EOFError where there are not so many."""
    sha, buffer, at = hashlib.sha256(), bytearray(READ_BYTES), 0
    view = memoryview(buffer)
    while at < size:
        count = os.preadv(fd, [view[: min(READ_BYTES, size - at)]], at)
        if not count:
            raise EOFError(f"{at:,} bytes of {size:,}")
        sha.update(view[:count])
        at += count
        tick()
    return sha


def changed(name: str, why: str) -> MsgdError:
    return MsgdError(
        f"{shown(name)} was not taken: {why}.",
        "It changed while it was sent. Put it again once it is at rest.",
    )
