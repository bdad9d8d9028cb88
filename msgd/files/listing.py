"""What of a store fits a glob, in the order of names: regular files and directories, nothing else.

Names may have brackets: a pattern that has those alone, and is a name there, means this name.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import NamedTuple

from msgd.errors import UsageError
from msgd.files.names import HINT, OURS, is_good, parts_of, shown
from msgd.files.tree import DIRECTORY, IN_THE_WAY, Directories, refusal

MAGIC = frozenset("*?[")
ANY = frozenset("*?")
DEEPEST = 128  # directories within one another: each costs a descriptor while it is looked at


class Found(NamedTuple):
    """A file or directory."""

    name: str
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def listing(root: int, pattern: str, recursive: bool) -> Iterator[Found]:
    """`recursive`: the files of whole trees, and of directories only those in which there is nothing.

    Raises UnknownFile, UsageError, StorageRefused.
    """
    parts = _parts(pattern)
    if not _is_name(root, pattern.rstrip("/")):
        yield from _matching(root, "", parts, recursive)
        return
    with Directories(root) as directories:
        try:
            found = _named(directories, parts)
            fd = directories.open(parts) if found is None or found.is_directory else root
        except OSError as error:
            raise refusal(error, "/".join(parts)) from error
        if found is None:
            yield from _inside(fd, "", recursive)
        elif not found.is_directory:
            yield found
        elif recursive:
            yield from _tree(fd, found)
        else:
            yield from _inside(fd, f"{found.name}/", recursive)


def _parts(pattern: str) -> list[str]:
    pattern = pattern.rstrip("/")
    if MAGIC.isdisjoint(pattern):
        return parts_of(pattern) if pattern else []
    parts = pattern.split("/")
    if {"", ".", ".."}.intersection(parts):
        raise UsageError(f"{shown(pattern)} is no pattern for files in a store.", HINT)
    return parts


def _is_name(root: int, pattern: str) -> bool:
    """Whether it is a name, be it there or not, and no glob."""
    if MAGIC.isdisjoint(pattern):
        return True
    if not ANY.isdisjoint(pattern):
        return False
    try:
        with Directories(root) as directories:
            _named(directories, parts_of(pattern))
    except (OSError, UsageError):
        return False
    return True


def _named(directories: Directories, parts: list[str]) -> Found | None:
    """The file or directory of this name; None: it is the root. Raises OSError."""
    if not parts:
        return None
    status = os.stat(parts[-1], dir_fd=directories.open(parts[:-1]), follow_symlinks=False)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise FileNotFoundError(2, "no regular file")
    return Found("/".join(parts), status)


def _matching(fd: int, prefix: str, parts: list[str], recursive: bool) -> Iterator[Found]:
    for found in _entries(fd, prefix):
        if not fnmatchcase(found.name[len(prefix) :], parts[0]):
            continue
        if len(parts) == 1 and not (recursive and found.is_directory):
            yield found
        elif found.is_directory:
            with _opened(fd, found.name[len(prefix) :]) as below:
                if len(parts) > 1:
                    yield from _matching(below, f"{found.name}/", parts[1:], recursive)
                else:
                    yield from _tree(below, found)


def _tree(fd: int, top: Found) -> Iterator[Found]:
    """What lies in it; else itself. Nothing of what went away meanwhile, or is not ours to read."""
    if fd < 0:
        return
    is_empty = True
    for found in _inside(fd, f"{top.name}/", True):
        is_empty = False
        yield found
    if is_empty:
        yield top


def _inside(fd: int, prefix: str, recursive: bool) -> Iterator[Found]:
    for found in _entries(fd, prefix):
        if not (recursive and found.is_directory):
            yield found
        elif prefix.count("/") < DEEPEST:
            with _opened(fd, found.name[len(prefix) :]) as below:
                yield from _tree(below, found)


def _entries(fd: int, prefix: str) -> Iterator[Found]:
    """One directory. What goes away meanwhile is left out, and what has a name that nobody could ask for."""
    try:
        names = sorted(os.listdir(fd))
    except OSError as error:
        raise refusal(error, prefix.rstrip("/")) from error
    for name in names:
        if not is_good(name) or (not prefix and name.startswith(OURS)):
            continue
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            yield Found(prefix + name, status)


@contextmanager
def _opened(parent: int, name: str) -> Iterator[int]:
    """A directory below another; an invalid descriptor where it went away meanwhile, or is not ours to read.

    Raises StorageRefused for anything else: a list that lacks something would be taken for all there is.
    """
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except (FileNotFoundError, PermissionError):
        yield -1
        return
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise refusal(error, name) from error
        yield -1
        return
    try:
        yield fd
    finally:
        os.close(fd)
