"""Names of files: which stand in a store for which local ones, whole trees included."""

import os
import stat
from _collections_abc import Iterator

from msgd.errors import MsgdError, UsageError

MAX_NAME_BYTES = 255  # of one part, on every file system of ours
PART_SUFFIX = ".msgd-part"
MAX_DEPTH = 512  # a part and its / take two bytes at least
CONTROLS = frozenset(map(chr, (*range(32), 127)))


def text(name: str) -> str:
    """A local name as it may stand in a store. Raises UsageError."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{os.fsencode(name)!r} is not UTF-8: a store takes no such name") from None
    return name


def last_part(local: str) -> str:
    """What a local file or directory is called; empty for the root."""
    base = os.path.basename(os.path.normpath(local))
    return base if base.strip(".") else os.path.basename(os.path.realpath(local))


def joined(directory: str, name: str) -> str:
    """A name below a directory of the store; empty: the top."""
    directory = directory.strip("/")
    return f"{directory}/{name}" if directory else name


def tree(local: str, name: str, skipped: list[str]) -> Iterator[tuple[str, str, int]]:
    """(local name, name in the store, size) of every regular file below a directory, by name; and of every
    directory with nothing in it, its name in the store with a "/" at the end.

    What is neither file nor directory is `skipped`, symbolic links among it. Raises MsgdError for a directory
    that cannot be read, or lies too deep.
    """
    if name.count("/") > MAX_DEPTH:
        raise MsgdError(f"{local} lies too deep: a name in a store has at most 1024 bytes")
    try:
        with os.scandir(local) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise MsgdError(f"cannot read {local}: {error.strerror}") from error
    has_any = not name
    for entry in found:
        below = f"{name}/{entry.name}" if name else entry.name
        if entry.is_dir(follow_symlinks=False):
            has_any = True
            yield from tree(entry.path, below, skipped)
        elif entry.is_file(follow_symlinks=False):
            has_any = True
            yield entry.path, below, _size(entry)
        else:
            skipped.append(entry.path)
    if not has_any:
        yield local, f"{name}/", 0


def _size(entry: "os.DirEntry[str]") -> int:
    """Of one that cannot be looked at nothing is known: opening it says why."""
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def below(directory: str, top: str, name: str) -> str:
    """The local name for one that a store lists below `top`. Raises MsgdError where it lies elsewhere."""
    rest = name[len(top) + 1 :] if top else name
    parts = rest.split("/")
    is_below = not top or name.startswith(top + "/")
    if not is_below or any(part in ("", ".", "..") or not CONTROLS.isdisjoint(part) for part in parts):
        raise MsgdError(f"the store lists {name!r} below {top!r}: that is no name for a file here")
    return os.path.join(directory, *parts)


def part_path(local: str, mark: str = "") -> str:
    """Where a file is kept while it is got: beside its place, so that it can be renamed."""
    directory, base = os.path.split(local)
    raw = os.fsencode(base)
    if len(raw) + len(PART_SUFFIX) + len(mark) + 1 > MAX_NAME_BYTES:
        from hashlib import sha256

        raw = sha256(raw).hexdigest().encode()
    return os.path.join(directory, f".{os.fsdecode(raw)}{PART_SUFFIX}{mark}")


def is_stream(local: str) -> bool:
    """Whether this is written to as it is: a pipe, a device, the name of an open file (/dev/stdout)."""
    try:
        mode = os.stat(local).st_mode
    except OSError:
        return False
    return not stat.S_ISDIR(mode) and (not stat.S_ISREG(mode) or _is_descriptor(local))


def _is_descriptor(local: str) -> bool:
    """Whether it leads to a link below /proc/PID/fd."""
    while True:  # ends: stat(2) has followed the same links
        directory = os.path.realpath(os.path.dirname(local) or ".")
        if directory.startswith("/proc/") and directory.endswith("/fd"):
            return True
        if not os.path.islink(local):
            return False
        local = os.path.join(directory, os.readlink(local))
