"""Files that are not whole yet: in `.msgd-parts/OWNER/` of the store, one directory for each peer.

A big one is found again by its key, a digest of who puts what: the next try goes on where it stopped. Who
writes it holds its lock, so two writers of one file do not mix: the second has a part of its own. That and a
small one are found by nobody again. What nobody has written to for AGE_S goes, by the change time, which
nobody can set.
"""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgd.files.tree import DIRECTORY

PARTS = ".msgd-parts"
AGE_S = 7 * 86400.0
LOST = "n"  # the names of those that no next try finds begin so; those of the others are hexadecimal
LOST_AGE_S = 60.0
RESERVED_BYTES = 1 << 20  # more room than content: it was reserved
PATIENCE_S = 2.0  # until who wrote it last has noticed that its connection is gone
LOOK_S = 0.02
CREATE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
TAKEN = (errno.EAGAIN, errno.EACCES)


class Part:
    """One of them, open and locked."""

    __slots__ = ("directory", "fd", "is_lasting", "name")

    def __init__(self, directory: int, name: str, fd: int, *, is_lasting: bool) -> None:
        self.directory = directory
        self.name = name
        self.fd = fd
        self.is_lasting = is_lasting  # the next try finds it by its name

    def move(self, directory: int, name: str) -> None:
        """It is whole: to its place. Raises OSError."""
        os.rename(self.name, name, src_dir_fd=self.directory, dst_dir_fd=directory)

    def remove(self) -> None:
        """It is of no use."""
        try:
            os.unlink(self.name, dir_fd=self.directory)
        except OSError:
            return  # it moved, or somebody has tidied up

    def close(self) -> None:
        """Leave it, and its lock."""
        os.close(self.fd)


class Parts:
    """The parts of one owner, in the store with this root. Raises OSError."""

    def __init__(self, root: int, owner: bytes) -> None:
        self._owner = owner
        self._all = _directory(root, PARTS)
        self._fd = _directory(self._all, owner.hex()[:32] or "local")
        self._count = 0
        self._mark = f"{os.getpid():x}-{time.monotonic_ns():x}"

    def resume(self, name: str, size: int, mtime_ns: int, mode: int) -> Part:
        """The part of this very file, new or as far as it has got; of its own if another one writes that."""
        key, until_s = self._key(name, size, mtime_ns), time.monotonic() + PATIENCE_S
        while (part := self._locked(key, mode)) is None and time.monotonic() < until_s:
            time.sleep(LOOK_S)
        return part or self.new(mode)

    def bytes_of(self, name: str, size: int, mtime_ns: int) -> int:
        """What an earlier try has left of this file."""
        try:
            return _taken(os.stat(self._key(name, size, mtime_ns), dir_fd=self._fd, follow_symlinks=False))
        except FileNotFoundError:
            return 0

    def _key(self, name: str, size: int, mtime_ns: int) -> str:
        named = f"{name}\0{size}\0{mtime_ns}".encode(errors="surrogatepass")
        return hashlib.sha256(self._owner + named).hexdigest()

    def new(self, mode: int) -> Part:
        """An empty part that nobody will find again."""
        self._count += 1
        name = f"{LOST}{self._mark}-{self._count:x}"
        fd = os.open(name, CREATE | os.O_EXCL, mode, dir_fd=self._fd)
        fcntl.flock(fd, fcntl.LOCK_EX)  # so that it is told from what a dead process has left
        return Part(self._fd, name, fd, is_lasting=False)

    def _locked(self, name: str, mode: int) -> Part | None:
        while True:
            fd = os.open(name, CREATE, mode, dir_fd=self._fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_named(fd, name, self._fd):
                    return Part(self._fd, name, fd, is_lasting=True)
            except OSError as error:
                os.close(fd)
                if error.errno in TAKEN:
                    return None
                raise
            os.close(fd)  # whoever held it has just moved or removed it

    def bytes(self) -> int:
        """What all parts of this owner take."""
        return sum(_taken(status) for _, status in _files(self._fd))

    def sweep(self) -> int:
        """Remove what is old or of use to nobody, of all owners; how many went."""
        now_s, count = time.time(), 0
        for owner in os.listdir(self._all):
            try:
                fd = os.open(owner, DIRECTORY, dir_fd=self._all)
            except OSError:
                continue
            for name, status in _files(fd):
                age_s = now_s - status.st_ctime
                if age_s > (LOST_AGE_S if name.startswith(LOST) else AGE_S):
                    count += _remove_unlocked(name, fd)
                elif age_s > LOST_AGE_S and _taken(status) > status.st_size + RESERVED_BYTES:
                    _give_back_unlocked(name, fd)
            os.close(fd)
        return count

    def close(self) -> None:
        """No more parts."""
        os.close(self._fd)
        os.close(self._all)


def _taken(status: os.stat_result) -> int:
    """Its content, as of a file that is whole; with the room that was reserved for more."""
    room = status.st_blocks * 512
    return room if room > status.st_size + RESERVED_BYTES else status.st_size


def _directory(parent: int, name: str) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        pass
    return os.open(name, DIRECTORY, dir_fd=parent)


def _is_named(fd: int, name: str, directory: int) -> bool:
    """Whether the name still means this file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _files(fd: int) -> Iterator[tuple[str, os.stat_result]]:
    for name in os.listdir(fd):
        try:
            yield name, os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue  # it has just become whole


def _remove_unlocked(name: str, directory: int) -> bool:
    """Remove a part unless somebody writes it."""
    try:
        with _unwritten(name, directory):
            os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    return True


def _give_back_unlocked(name: str, directory: int) -> None:
    """The room that was taken for the rest of it, by who was killed then."""
    try:
        with _unwritten(name, directory) as fd:
            os.ftruncate(fd, os.fstat(fd).st_size)
    except OSError:
        return  # somebody writes it


@contextmanager
def _unwritten(name: str, directory: int) -> Iterator[int]:
    """A part that nobody writes. Raises OSError where somebody does."""
    fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd
    finally:
        os.close(fd)
