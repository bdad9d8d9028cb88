"""`msgctl file put`: local files, trees or standard input into a store."""

import os
import stat
import tempfile

from msgctl import filenames
from msgctl.client import Client, new_id
from msgctl.ferry import FULL, Ferry, Item
from msgctl.filetell import Telling
from msgctl.grammar import Args
from msgctl.output import Screen, complain, field
from msgctl.send import plain
from msgd.errors import MsgdError, StorageRefused, UsageError
from msgd.wire.varlink import Json

STDIN = "-"
COPY_BYTES = 1 << 20


class Given(Item):
    """A local file that is put, or a directory: its name in the store has a "/" at the end."""

    def open(self) -> Json:
        """Raises OSError, MsgdError."""
        if self.fd < 0:
            if self.name.endswith("/"):
                self.fd = os.open(self.local, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            else:
                self.fd = _readable(self.local)
        return {"name": self.name}


def run(args: Args, screen: Screen, client: Client, form: str, patience_s: float) -> int:
    """Everything is at its place and durable there when this ends with 0."""
    peer, words = plain(args.words[0]), args.words[1:]
    skipped: list[str] = []
    items = items_of(words, args.get("directory"), skipped)
    check_different(items)
    telling = Telling(screen, form, "put", peer, items, quiet=args.has("quiet"))
    for local in skipped:
        complain(f"msgctl: {field(local)} is passed over: neither a file nor a directory\n")
    try:
        Ferry(client, "FilePut", peer, patience_s, new_id(), telling).run(items)
    finally:
        telling.clear()
    return telling.code


def items_of(words: list[str], directory: str | None, skipped: list[str]) -> list[Item]:
    """The files that local words mean, with their names in the store. Raises UsageError, MsgdError."""
    if directory is not None:
        return [
            item
            for local in words
            for item in _below(local, filenames.joined(directory, _named(local)), skipped)
        ]
    if len(words) > 2:
        raise UsageError("several files are put into a directory", "msgctl file put PEER -d DIR LOCAL...")
    local = words[0]
    name = words[1] if len(words) == 2 else _named(local)
    if name.endswith("/"):
        name = filenames.joined(name, _named(local))
    return _below(local, name, skipped)


def _named(local: str) -> str:
    name = "" if local == STDIN else filenames.last_part(local)
    if not name:
        raise UsageError(f"{local} needs a name in the store", f"msgctl file put PEER {local} NAME")
    return name


def _below(local: str, name: str, skipped: list[str]) -> list[Item]:
    """The files of one word: itself, or the tree below it."""
    if local != STDIN and os.path.isdir(local):
        found = filenames.tree(local, name, skipped)
        return [Given(filenames.text(below), path, size) for path, below, size in found]
    try:
        size = 0 if local == STDIN else os.stat(local).st_size
    except OSError as error:
        raise UsageError(f"cannot read {field(local)}: {error.strerror}") from error
    return [Given(filenames.text(name), local, size)]


def check_different(items: list[Item]) -> None:
    """Raises UsageError where two would have one name."""
    seen: dict[str, str] = {}
    for item in items:
        other = seen.setdefault(item.name, item.local)
        if other != item.local:
            raise UsageError(f"{other} and {item.local} would both be {item.name}")


def _readable(local: str) -> int:
    """A descriptor of a regular file with this content. Raises OSError, MsgdError."""
    fd = os.dup(0) if local == STDIN else os.open(local, os.O_RDONLY | os.O_CLOEXEC)
    if local != STDIN and _tells_its_size(fd):
        return fd
    try:
        return _copied(fd)
    finally:
        os.close(fd)


def _tells_its_size(fd: int) -> bool:
    """Not so a pipe, nor what the kernel makes up while it is read (/proc)."""
    found = os.fstat(fd)
    return stat.S_ISREG(found.st_mode) and bool(found.st_size or not os.pread(fd, 1, 0))


def _copied(source: int) -> int:
    """What comes out of a pipe, whole, in a file without a name: only then its size is known."""
    with tempfile.TemporaryFile() as copy:
        try:
            while data := os.read(source, COPY_BYTES):
                copy.write(data)
            copy.flush()
        except OSError as error:
            kind = StorageRefused if error.errno in FULL else MsgdError
            raise kind(f"cannot keep the input in {tempfile.gettempdir()}: {error.strerror}") from error
        return os.dup(copy.fileno())
