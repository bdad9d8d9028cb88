"""One node's store, for one owner at a time: a peer, or this node itself.

    depot = Depot(directory, catalogue_path, owner, quota_bytes, on_trouble)
    intake = depot.take(Incoming(...)); intake.write(...); intake.finish(...)
    depot.landing.land([intake, ...])

Errors for people are raised as MsgdError. Trouble with the catalogue is told once, and costs only digests.
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgd.errors import MsgdError, StorageRefused
from msgd.files.catalogue import Catalogue, Known, mark_of
from msgd.files.intake import OWNER, Incoming, Intake
from msgd.files.landing import Landing
from msgd.files.listing import listing
from msgd.files.names import parts_of, shown
from msgd.files.parts import Parts
from msgd.files.quota import Quota
from msgd.files.tree import DIRECTORY, Directories, open_file, refusal

FILLED = (errno.ENOTEMPTY, errno.EEXIST)  # what file systems say of a directory in which there is something
NO_QUOTA = "The quota is not known here, so nothing is taken: {}."


class Listed(NamedTuple):
    """A file or directory, with its digest where that is known."""

    name: str
    status: os.stat_result
    digest: bytes
    is_directory: bool


class Outgoing(NamedTuple):
    """A file, open for reading. `digest` is empty where it is not known."""

    name: str
    fd: int
    status: os.stat_result
    digest: bytes


class Depot:
    """Raises StorageRefused where there can be no store."""

    def __init__(
        self,
        directory: str,
        catalogue: str,
        owner: bytes,
        quota_bytes: int | None,
        on_trouble: Callable[[str], None],
    ) -> None:
        self.owner = owner
        self._on_trouble = on_trouble
        try:
            _make(directory)
            self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageRefused(
                f"The store {directory} cannot be used: {error.strerror}.", NO_STORE
            ) from error
        self._catalogue = self._open_catalogue(catalogue, directory)
        self._quota_bytes = quota_bytes
        self._parts: Parts | None = None
        self._quota: Quota | None = None
        self._landing: Landing | None = None

    def _open_catalogue(self, path: str, directory: str) -> Catalogue | None:
        try:
            return Catalogue(path, directory)
        except (sqlite3.Error, OSError) as error:
            self._trouble(error)
            return None

    def _trouble(self, error: Exception) -> None:
        self._on_trouble(str(error))

    # --- in ---------------------------------------------------------------------------------------------

    @property
    def landing(self) -> Landing:
        """Where what has come in becomes durable."""
        if self._landing is None:
            parts = self._open_parts()
            catalogue = self._catalogue
            if self._quota_bytes is not None and catalogue is not None:
                self._quota = Quota(self._quota_bytes, self.owner, catalogue, parts, self._complete)
            self._landing = Landing(self._root, self.owner, catalogue, self._quota, self._trouble)
        return self._landing

    def _open_parts(self) -> Parts:
        if self._parts is None:
            try:
                self._parts = Parts(self._root, self.owner)
                self._parts.sweep()
            except OSError as error:
                text = f"The store cannot be written: {error.strerror or error}."
                raise StorageRefused(text, NO_STORE) from error
        return self._parts

    def take(self, what: Incoming, *, resumes: bool) -> Intake:
        """Begin to take a file, with its errors; `resumes`: it goes on with what an earlier try has left."""
        parts = self._open_parts()
        assert self.landing is not None  # which makes the quota
        here = parts.bytes_of(what.name, what.size, what.mtime_ns) if resumes else 0
        return Intake(what, parts, resumes=resumes, refused=self._admit(what, here))

    def reuse(self, intake: Intake, tick: Callable[[], None]) -> None:
        """Nothing of it is here: have what stands at its place, with its size and time, as its beginning."""
        what = intake.what
        if intake.at or not what.size:
            return
        try:
            fd, status = open_file(self._root, intake.parts)
        except OSError:
            return
        try:
            if (status.st_size, status.st_mtime_ns) == (what.size, what.mtime_ns):
                intake.copy(fd, tick)
        finally:
            os.close(fd)

    def _admit(self, what: Incoming, here: int) -> MsgdError | None:
        if self._quota_bytes is None:
            return None
        try:
            if self._quota is None:
                return StorageRefused(NO_QUOTA.format("the catalogue cannot be opened"))
            self._quota.admit(what.name, what.size, here)
        except MsgdError as error:
            return error
        except (sqlite3.Error, OSError) as error:
            return StorageRefused(NO_QUOTA.format(error))
        return None

    def _complete(self) -> None:
        """After a loss of the catalogue: whose the files are. Raises sqlite3.Error."""
        assert self._catalogue is not None
        if not self._catalogue.is_complete:
            self._catalogue.complete(self._owned())

    def _owned(self) -> Iterator[Known]:
        for found in listing(self._root, "", True):
            if found.is_directory:
                continue
            try:
                fd, status = open_file(self._root, found.name.split("/"))
            except OSError:
                continue
            try:
                owner = os.getxattr(fd, OWNER)
                yield Known(found.name, *mark_of(status), b"", owner)
            except OSError:
                continue  # it has none
            finally:
                os.close(fd)

    # --- out --------------------------------------------------------------------------------------------

    def ls(self, pattern: str, recursive: bool) -> Iterator[Listed]:
        """What fits. Raises UnknownFile, UsageError."""
        for found in listing(self._root, pattern, recursive):
            digest = b"" if found.is_directory else self._digest(found.name, found.status)
            yield Listed(found.name, found.status, digest, found.is_directory)

    def open(self, name: str) -> Outgoing:
        """A file to read; the descriptor is the caller's to close. Raises UnknownFile, UsageError."""
        parts = parts_of(name)
        try:
            fd, status = open_file(self._root, parts)
        except OSError as error:
            raise refusal(error, name) from error
        return Outgoing(name, fd, status, self._digest(name, status))

    def learn(self, outgoing: Outgoing, digest: bytes) -> None:
        """It was read from end to end, and is the same as before."""
        try:
            if self._catalogue is not None:
                self._catalogue.learn(outgoing.name, outgoing.status, digest)
        except sqlite3.Error as error:
            self._trouble(error)

    def _digest(self, name: str, status: os.stat_result) -> bytes:
        try:
            known = self._catalogue.find(name) if self._catalogue is not None else None
        except sqlite3.Error as error:
            self._trouble(error)
            return b""
        return known.digest if known is not None and known.is_of(status) else b""

    # --- away -------------------------------------------------------------------------------------------

    def rm(self, name: str, recursive: bool) -> int:
        """Remove a file or a tree; how many files went. Raises UnknownFile, UsageError, StorageRefused."""
        parts = parts_of(name)
        removal = Removal(name)
        try:
            with Directories(self._root) as directories:
                parent = directories.open(parts[:-1])
                removal.remove(parent, parts[-1], name, recursive)
                os.fsync(parent)
        except OSError as error:
            raise removal.refusal(error, recursive) from error
        finally:
            self._forget(removal.gone)
        return len(removal.gone)

    def _forget(self, names: list[str]) -> None:
        try:
            if self._catalogue is not None and names:
                with self._catalogue.alone():
                    self._catalogue.forget(names)
        except sqlite3.Error as error:
            self._trouble(error)
        if self._quota is not None:
            self._quota.count_anew()

    def close(self) -> None:
        """No more of it."""
        if self._parts is not None:
            self._parts.close()
        if self._catalogue is not None:
            self._catalogue.close()
        os.close(self._root)


NO_STORE = "Correct `store` under [files] in the configuration there, or its rights."


def _make(directory: str) -> None:
    """Where there is no store yet, with what is above it. Raises OSError."""
    above = directory
    unsynced = []
    while not os.path.isdir(above):
        above = os.path.dirname(above)
        unsynced.append(above)
    os.makedirs(directory, 0o700, exist_ok=True)
    for each in unsynced:
        fd = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class Removal:
    """Of one file or tree: what is gone, and the name that it is at."""

    def __init__(self, name: str) -> None:
        self.gone: list[str] = []
        self._top = self._at = name

    def remove(self, parent: int, part: str, name: str, recursive: bool) -> None:
        """Links and whatever else lies in a tree go with it; nothing is followed. Raises OSError."""
        self._at = name
        status = os.stat(part, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(part, dir_fd=parent)
            self.gone.append(name)
            return
        if not recursive:
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        fd = os.open(part, DIRECTORY, dir_fd=parent)
        try:
            for each in os.listdir(fd):
                self.remove(fd, each, f"{name}/{each}", True)
        finally:
            os.close(fd)
        self._at = name
        os.rmdir(part, dir_fd=parent)

    def refusal(self, error: OSError, recursive: bool) -> MsgdError:
        """Why it has ended before its end, at which name, and how much was removed before."""
        if recursive and error.errno in FILLED:
            why = f"{shown(self._at)} cannot be removed: something is put into it meanwhile."
            refused = MsgdError(why, "Repeat the command.")
        else:
            refused = refusal(error, self._at)
        if not self.gone and self._at == self._top:
            return refused
        what = "1 file was" if len(self.gone) == 1 else f"{len(self.gone)} files were"
        return type(refused)(f"{refused.message} {what} removed before.", refused.hint)
