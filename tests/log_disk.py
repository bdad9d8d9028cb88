"""A disk in memory that loses power: the log's calls to the kernel, with what each makes durable and when.

Every call is a step. At the step `crash_at` the call happens, as far as the running system sees it, and
then `PowerLoss` is raised by it and by every call after it. `after_power_loss` is then the disk that the
next start finds:

- of every write since the last sync of its file each sector is kept, dropped, or full of garbage (the three
  outcomes of SQLite's crash tests). A sector that was not written to is not touched: power-safe overwrite;
- sizes set by ftruncate or posix_fallocate since then are kept or dropped;
- of the births, renames and deaths since the last sync of their directory a first part is kept: journals
  keep their order.

`after_kill` is what the next process finds when only the process died: everything that was done.
`sync_errors` are steps at which a sync fails the way Linux fails it: the pages are clean from then on, so
that reading shows them and the next sync says yes, until the page cache is dropped.
"""

import errno
import os
import random
import stat
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from msgd.log.files import Files

SECTOR_BYTES = 512
Change = tuple[str, int, bytes]  # "write" at a byte; "truncate" or "grow" to a size


class PowerLoss(BaseException):
    """The machine is gone; nothing of the program runs on."""


@dataclass
class Inode:
    """A file: as it is seen, as it is on the disk, and the changes between the two, lost ones left out."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    dirty: list[Change] = field(default_factory=list)


@dataclass
class Directory:
    """Names: as they are seen, as they are on the disk, and the changes between the two."""

    seen: dict[str, Inode] = field(default_factory=dict)
    durable: dict[str, Inode] = field(default_factory=dict)
    dirty: list[tuple[str, str, Any]] = field(default_factory=list)  # link, unlink, rename


class Disk(Files):
    """See above. Paths are `/log/NAME`; the directory `/log` itself has to be made."""

    def __init__(self) -> None:
        self.inode = 0  # of every file, so that golden bytes have none
        self.steps = 0
        self.crash_at: int | None = None
        self.sync_errors: set[int] = set()
        self.trace: list[str] = []  # the calls, by name
        self._directory: Directory | None = None
        self._is_directory_durable = False
        self._fds: dict[int, Inode | str] = {}
        self._next_fd = 100
        self._has_power = True

    # ---- what a test looks at and does

    def files(self) -> dict[str, bytes]:
        """Names and bytes as they are seen."""
        return {name: bytes(inode.seen) for name, inode in self._names().seen.items()}

    def open_files(self) -> list[int]:
        """The file descriptors that are open."""
        return [fd for fd, what in self._fds.items() if isinstance(what, Inode)]

    def plant(self, name: str, data: bytes) -> None:
        """Give a file these bytes, durably, as a fault of the disk or a person would."""
        inode = self._names().seen.setdefault(name, Inode())
        self._names().durable[name] = inode
        inode.seen, inode.durable, inode.dirty = bytearray(data), bytearray(data), []

    def after_kill(self) -> "Disk":
        """The same machine, another process."""
        self._fds.clear()
        self._has_power, self.crash_at, self.steps, self.sync_errors, self.trace = True, None, 0, set(), []
        return self

    def after_power_loss(self, rng: random.Random) -> "Disk":
        """The disk of the next start of the machine; this one is left as it is."""
        disk = Disk()
        if self._directory is not None and (self._is_directory_durable or rng.random() < 0.5):
            disk._is_directory_durable = True
            disk._directory = Directory()
            for name, inode in _kept_names(self._directory, rng).items():
                disk.plant(name, bytes(_kept_bytes(inode, rng)))
        return disk

    # ---- the calls

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        if self._directory is not None:
            raise FileExistsError(errno.EEXIST, "exists", path)
        self._directory = Directory()
        self._step("mkdir")

    def listdir(self, path: str) -> list[str]:
        self._step("listdir")
        return list(self._names().seen)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECTORY:
            return self._opened(path)
        names, name = self._names(), os.path.basename(path)
        if name not in names.seen:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            names.seen[name] = Inode()
            names.dirty.append(("link", name, names.seen[name]))
        if flags & os.O_TRUNC:
            self._resize(names.seen[name], "truncate", 0)
        return self._opened(names.seen[name])

    def close(self, fd: int) -> None:
        self._step("close")
        del self._fds[fd]

    def pread(self, fd: int, size: int, at: int) -> bytes:
        self._step("pread")
        return bytes(self._inode(fd).seen[at : at + size])

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        return self.pwritev(fd, [data], at)

    def pwritev(self, fd: int, pieces: list[bytes], at: int) -> int:
        data, inode = b"".join(pieces), self._inode(fd)
        _put(inode.seen, at, data)
        inode.dirty.append(("write", at, data))
        self._step("pwritev")
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        self._resize(self._inode(fd), "truncate", size)
        self._step("ftruncate")

    def posix_fallocate(self, fd: int, at: int, size: int) -> None:
        self._resize(self._inode(fd), "grow", at + size)
        self._step("posix_fallocate")

    def posix_fadvise(self, fd: int, at: int, size: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        inode = self._inode(fd)
        inode.seen = bytearray(inode.durable)
        for change in inode.dirty:
            _apply(inode.seen, change)
        self._step("posix_fadvise")

    def fdatasync(self, fd: int) -> None:
        self._step("fdatasync")
        self._sync(self._inode(fd))

    def fsync(self, fd: int) -> None:
        self._step("fsync")
        what = self._fds[fd]
        if isinstance(what, Inode):
            self._sync(what)
        elif what == "/log":
            self._names().durable = dict(self._names().seen)
            self._names().dirty.clear()
        else:
            self._is_directory_durable = True

    def fstat(self, fd: int) -> Any:
        self._step("fstat")
        inode = self._inode(fd)
        names = sum(named is inode for named in self._names().seen.values())
        return SimpleNamespace(
            st_size=len(inode.seen), st_mode=stat.S_IFREG, st_ino=self.inode, st_nlink=names
        )

    def rename(self, old: str, new: str) -> None:
        names, old, new = self._names(), os.path.basename(old), os.path.basename(new)
        names.seen[new] = names.seen.pop(old)
        names.dirty.append(("rename", old, new))
        self._step("rename")

    def unlink(self, path: str) -> None:
        names, name = self._names(), os.path.basename(path)
        if name not in names.seen:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        del names.seen[name]
        names.dirty.append(("unlink", name, None))
        self._step("unlink")

    def urandom(self, size: int) -> bytes:
        return b"log-id-0"[:size]

    # ---- how

    def _step(self, name: str) -> None:
        """Count a call. What it changes is already seen, and not yet durable."""
        self.steps += 1
        self.trace.append(name)
        if not self._has_power or self.steps == self.crash_at:
            self._has_power = False
            raise PowerLoss(name)

    def _sync(self, inode: Inode) -> None:
        if self.steps in self.sync_errors:
            inode.dirty.clear()  # clean, and never written: fsync of Linux 4.13 and later
            raise OSError(errno.EIO, "Input/output error")
        for change in inode.dirty:
            _apply(inode.durable, change)
        inode.dirty.clear()

    def _names(self) -> Directory:
        if self._directory is None:
            raise FileNotFoundError(errno.ENOENT, "no such directory")
        return self._directory

    def _opened(self, what: Inode | str) -> int:
        self._next_fd += 1
        self._fds[self._next_fd] = what
        self._step("open")
        return self._next_fd

    def _inode(self, fd: int) -> Inode:
        inode = self._fds[fd]
        assert isinstance(inode, Inode)
        return inode

    def _resize(self, inode: Inode, how: str, size: int) -> None:
        _apply(inode.seen, (how, size, b""))
        inode.dirty.append((how, size, b""))


def _put(content: bytearray, at: int, data: bytes) -> None:
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


def _apply(content: bytearray, change: Change) -> None:
    how, number, data = change
    if how == "write":
        _put(content, number, data)
    elif how == "truncate":
        del content[number:]
        content.extend(bytes(number - len(content)))
    else:
        content.extend(bytes(max(0, number - len(content))))


def _kept_names(directory: Directory, rng: random.Random) -> dict[str, Inode]:
    names = dict(directory.durable)
    for how, name, what in directory.dirty[: rng.randint(0, len(directory.dirty))]:
        if how == "link":
            names[name] = what
        elif how == "rename":
            names[what] = names.pop(name)
        else:
            names.pop(name, None)
    return names


def _kept_bytes(inode: Inode, rng: random.Random) -> bytearray:
    content = bytearray(inode.durable)
    for change in inode.dirty:
        how, at, data = change
        if how != "write":
            if rng.random() < 0.5:
                _apply(content, change)
            continue
        outcomes = rng.choice([("kept",), ("dropped",), ("garbage",), ("kept", "dropped", "garbage")])
        stop = at + len(data)
        while at < stop:
            end = min(stop, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
            outcome, sector = rng.choice(outcomes), data[len(data) - (stop - at) :][: end - at]
            if outcome != "dropped":
                _put(content, at, sector if outcome == "kept" else rng.randbytes(len(sector)))
            at = end
    return content
