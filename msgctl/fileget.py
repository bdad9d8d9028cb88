"""`msgctl file get`: files and trees out of a store.

A file is written beside its place, under `.NAME.msgd-part`, which stays when the command is broken off: the
next one goes on there. It takes its name once it is whole, verified and synced.
"""

import codecs
import os
import tempfile
import time
from contextlib import suppress

from msgctl import filenames
from msgctl.client import Client, new_id
from msgctl.ferry import Ferry, Item, Result, Watch, error_json, persisting
from msgctl.fileparts import copy_standing, make_directory, open_part, sync, umask
from msgctl.filetell import Telling
from msgctl.grammar import Args
from msgctl.output import Screen
from msgctl.send import plain
from msgd.errors import OK, UnknownFile, UsageError
from msgd.wire.varlink import Json

STDOUT = "-"
COPY_BYTES = 1 << 20
READ_ALL, EXECUTE_SHIFT = 0o444, 2  # who may read may execute
GLOB = frozenset("*?[")


class Wanted(Item):
    """A file that is got into `local`. `unsynced`: directories with entries that are not synced yet.

    `mtime_ns`, as the store has told it: what stands there with the same is only compared.
    """

    def __init__(self, name: str, local: str, size: int, unsynced: set[str], mtime_ns: int = -1) -> None:
        super().__init__(name, local, size)
        self._part = ""
        self._mtime_ns = mtime_ns
        self._copied = 0  # bytes of the part that are from what stands there
        self._unsynced = unsynced

    def open(self) -> Json:
        """Raises OSError."""
        if self.fd < 0:
            self._unsynced |= make_directory(os.path.dirname(self.local) or ".")
            self._part, self.fd = open_part(self.local)
            if not os.fstat(self.fd).st_size:
                self._copied = copy_standing(self.local, self.fd, self.size, self._mtime_ns)
        return {"name": self.name, "have": os.fstat(self.fd).st_size}

    def place(self, result: Json) -> None:
        """Give it its mode, time and name. Raises OSError."""
        mode = 0o666 & ~umask()
        if result["executable"]:
            mode |= (mode & READ_ALL) >> EXECUTE_SHIFT
        os.fchmod(self.fd, mode)
        os.utime(self.fd, ns=(time.time_ns(), result["mtime_ns"]))
        os.rename(self._part, self.local)
        self._unsynced.add(os.path.dirname(self.local) or ".")

    def give_up(self) -> None:
        """It is not got: of its part only what is worth going on with stays. Raises OSError."""
        if self.fd >= 0 and os.fstat(self.fd).st_size in (0, self._copied):
            os.unlink(self._part)


class Streamed(Item):
    """A file that goes into a pipe, once it is whole and verified."""

    def open(self) -> Json:
        """Raises OSError."""
        if self.fd < 0:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        return {"name": self.name, "have": os.fstat(self.fd).st_size}


class Placing(Watch):
    """Puts what was got at its place, with one sync for each directory, before it is told."""

    def __init__(self, telling: Telling, screen: Screen, unsynced: set[str]) -> None:
        self._telling = telling
        self._unsynced = unsynced
        self._screen = screen

    def make(self, directories: list[str]) -> None:
        """Directories in which there is nothing."""
        for directory in directories:
            try:
                self._unsynced |= make_directory(directory)
            except OSError as error:
                self._telling.fail(error_json(error, f"cannot make the directory {directory}"), directory)
        self._sync()

    def ended(self, results: list[Result]) -> None:
        """Files that are whole, or have failed."""
        told = [(item, self._placed(item, result)) for item, result in results]
        self._sync()
        self._telling.ended(told)

    def _sync(self) -> None:
        for directory in self._unsynced:
            sync(directory)
        self._unsynced.clear()

    def moved(self, name: str, done: int) -> None:
        """As `Telling`."""
        self._telling.moved(name, done)

    def stands(self, sentence: str) -> None:
        """As `Telling`."""
        self._telling.stands(sentence)

    def _placed(self, item: Item, result: Json) -> Json:
        is_whole = not result.get("error")
        try:
            if isinstance(item, Streamed) and is_whole:
                self._write(item)
            elif isinstance(item, Wanted) and is_whole:
                item.place(result)
            elif isinstance(item, Wanted):
                item.give_up()
        except OSError as error:
            return {"error": error_json(error, f"{item.local} cannot be written")} if is_whole else result
        return result

    def _write(self, item: Item) -> None:
        if item.local != STDOUT:
            _copy_into(item)
            return
        at, decode = 0, codecs.getincrementaldecoder("utf-8")("replace").decode
        while data := os.pread(item.fd, COPY_BYTES, at):
            at += len(data)
            if self._screen.terminal:
                self._screen.write(self._screen.body(decode(data)))
            else:
                self._screen.write_bytes(data)


def run(args: Args, screen: Screen, client: Client, form: str, patience_s: float) -> int:
    """Everything is at its place and durable when this ends with 0."""
    peer, words = plain(args.words[0]), [plain(word) for word in args.words[1:]]
    directory = args.get("directory")
    if directory is None and len(words) > 2:
        raise UsageError("several files are got into a directory", "msgctl file get PEER -d DIR NAME...")
    names = words if directory is not None else words[:1]
    items: list[Item] = []
    unsynced: set[str] = set()
    for name in names:
        found = _listed(client, peer, name, patience_s)
        items += _items(name.strip("/"), found, directory, None if len(words) < 2 else words[1], unsynced)
    mark = _mark(words[1], items) if directory is None and len(words) > 1 else None
    empty = [item.local for item in items if item.name.endswith("/")]
    items = _different([item for item in items if not item.name.endswith("/")])
    is_stream = any(isinstance(item, Streamed) for item in items)
    telling = Telling(screen, form, "get", peer, items, quiet=args.has("quiet") or is_stream)
    try:
        placing = Placing(telling, screen, unsynced)
        placing.make(empty)
        Ferry(client, "FileGet", peer, patience_s, new_id(), placing).run(items)
        if mark is not None and telling.code == OK:
            with suppress(FileNotFoundError):  # another command for the same tree was done before
                os.unlink(mark)
    finally:
        telling.clear()
    return telling.code


def _mark(local: str, items: list[Item]) -> str | None:
    """A mark in the directory that a tree makes: until all of it is there, that is its place, and not one to
    put it into; so the same command goes on there. None: nothing is to be marked. Raises UsageError."""
    if local.endswith("/") or not any(item.local.startswith(f"{local}/") for item in items):
        return None
    mark = filenames.part_path(f"{local}/")
    try:
        if not os.path.isdir(local):
            make_directory(local)
            open(mark, "xb").close()
    except OSError as error:
        raise UsageError(f"cannot make the directory {local}: {error.strerror}") from error
    return mark if os.path.exists(mark) else None


def _listed(client: Client, peer: str, name: str, patience_s: float) -> list[tuple[str, int, int]]:
    """Names, sizes, times of the files that are meant; directories with nothing in them have "/" at the end.

    Raises UnknownFile.
    """

    def ask(client: Client) -> list[tuple[str, int, int]]:
        asked: Json = {"peer": peer, "pattern": name.strip("/"), "recursive": True}
        pages = client.stream("FileList", endless=True, timeout_ms=round(patience_s * 1000), **asked)
        return [
            (e["name"] + "/" if e["directory"] else e["name"], e["size"], e["mtime_ns"])
            for page in pages
            for e in page["entries"]
        ]

    found = persisting(client, patience_s, ask)
    if not found and _is_glob(name):
        found = [(name, 0, 0)]  # it may be a name all the same
    if not found:
        raise UnknownFile(f"{name} holds no files at {peer}", f"see `msgctl file ls {peer}`")
    return found


def _is_glob(name: str) -> bool:
    return not GLOB.isdisjoint(name)


def _items(
    name: str,
    found: list[tuple[str, int, int]],
    directory: str | None,
    local: str | None,
    unsynced: set[str],
) -> list[Item]:
    """What one word of the command line means. `local`: where it goes, without a directory for all."""
    if [one for one, _, _ in found] == [name]:
        where = _place(name, directory, local)
        if directory is None and (where == STDOUT or filenames.is_stream(where)):
            return [Streamed(name, where, found[0][1])]
        return [Wanted(name, where, found[0][1], unsynced, found[0][2])]
    if directory is None and local == STDOUT:
        raise UsageError(f"{name} is not one file: standard output takes no tree")
    if _is_glob(name) and not all(f"{one}/".startswith(f"{name}/") for one, _, _ in found):
        top = name[: next(at for at, c in enumerate(name) if c in GLOB)].rpartition("/")[0]
        into = directory if directory is not None else local or "."
    else:
        is_begun = local is not None and os.path.exists(filenames.part_path(f"{local}/"))
        top, into = name, local if local and is_begun else _place(name, directory, local)
    return [Wanted(one, _below(into, top, one), size, unsynced, mtime) for one, size, mtime in found]


def _below(into: str, top: str, name: str) -> str:
    """The local name for a file or a directory of a tree. Raises MsgdError where it would lie elsewhere."""
    return into if name == f"{top}/" else filenames.below(into, top, name.removesuffix("/"))


def _different(items: list[Item]) -> list[Item]:
    """Each once. Raises UsageError where two would have one place."""
    seen: dict[str, Item] = {}
    for item in items:
        first = seen.setdefault(os.path.normpath(item.local), item)
        if first.name != item.name:
            text = f"{first.name} and {item.name} would both be {item.local}"
            raise UsageError(text, "get them into different directories")
    return [*seen.values()]


def _place(name: str, directory: str | None, local: str | None) -> str:
    """The local name for a name of the store. Raises MsgdError where it would lie elsewhere."""
    base = name.rpartition("/")[2]
    if directory is not None:
        return filenames.below(directory, "", base) if base else directory
    if local is None:
        return filenames.below("", "", base) if base else "."
    if base and local != STDOUT and (local.endswith("/") or os.path.isdir(local)):
        return filenames.below(local, "", base)
    return local


def _copy_into(item: Item) -> None:
    """Into a pipe or a device that has a name."""
    at = 0
    with open(item.local, "wb", buffering=0) as out:
        while data := os.pread(item.fd, COPY_BYTES, at):
            at += out.write(data)
