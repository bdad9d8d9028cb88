"""Files that are to go to many peers, kept beside the store until all of them have them: casts, on the disk.

| below STORE/.msgd-casts/ | |
|---|---|
| ID.new/ | files that are still handed over: `files/`, with a catalogue of their own; for a day |
| ID/job.json | what, from whom, to whom; there from the rename on, with which the cast begins |
| ID/files/ | the content, under the names that it gets |
| ID/standing.json | how far it is, for people: never the truth, which is in the log |
| ID.done | how it has ended, for a day |

Whoever ends one renames ID to ID.old before it is removed, so that no half of one is ever taken for a whole.
"""

import os
import re
import time
from collections.abc import Iterator
from typing import TypeVar

import msgspec

DIRECTORY = ".msgd-casts"
NEW, OLD, DONE = ".new", ".old", ".done"
FORGOTTEN_S = {NEW: 86400.0, OLD: 0.0, DONE: 86400.0}  # after this they are removed
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

QUEUED, SENDING, STORED, CANCELLED = "queued", "sending", "stored", "cancelled"

Form = TypeVar("Form", bound=msgspec.Struct)


class Part(msgspec.Struct, frozen=True):
    """One file, or a directory in which there is nothing: its name has a "/" at the end."""

    name: str
    size: int


class Addressee(msgspec.Struct, frozen=True):
    """A peer that is to get it: its number in the log, and its name then."""

    number: int
    name: str


class Job(msgspec.Struct, frozen=True):
    """One cast."""

    id: str
    group: str
    user: str
    made_ns: int  # CLOCK_REALTIME
    files: list[Part]
    members: list[Addressee]

    @property
    def size(self) -> int:
        """Bytes, for each member."""
        return sum(part.size for part in self.files)


class Stand(msgspec.Struct):
    """How far it is with one member. `files` and `size` are there, of those that belong to it."""

    peer: str
    state: str = QUEUED
    reason: str | None = None
    files: int = 0
    size: int = 0
    at_ns: int | None = None  # CLOCK_REALTIME when the last change was noted


class Standing(msgspec.Struct):
    """The same for all, and the job that it is about."""

    job: Job
    members: list[Stand]


_encode = msgspec.json.Encoder().encode


class Jobs:
    """The casts of one store. Methods raise OSError."""

    def __init__(self, store: str) -> None:
        self._top = os.path.join(store, DIRECTORY)

    # --- making -----------------------------------------------------------------------------------------

    def staging(self, id: str) -> tuple[str, str]:
        """Where files are handed over: the directory, and the path of its catalogue."""
        here = self._path(id, NEW)
        if not os.path.isdir(self._top):
            os.makedirs(self._top, 0o700, exist_ok=True)
            _sync(os.path.dirname(self._top))
        os.makedirs(os.path.join(here, "files"), 0o700, exist_ok=True)
        return os.path.join(here, "files"), os.path.join(here, "files.sqlite")

    def is_staged(self, id: str) -> bool:
        """Whether files were handed over for it, and it has not begun."""
        return os.path.isdir(self._path(id, NEW))

    def begin(self, job: Job) -> None:
        """From now on it is kept until all have it, whatever dies."""
        here = self._path(job.id, NEW)
        _put(here, "job.json", _encode(job))
        _sync(here)
        os.rename(here, self._path(job.id))
        _sync(self._top)

    def drop(self, id: str) -> bool:
        """No cast is to come of what was handed over; whether there was anything."""
        _remove(self._path(id, OLD))
        try:
            os.rename(self._path(id, NEW), self._path(id, OLD))
        except FileNotFoundError:
            return False
        _remove(self._path(id, OLD))
        return True

    # --- asking -----------------------------------------------------------------------------------------

    def open_ids(self) -> list[str]:
        """Those that have not ended, oldest first."""
        return sorted(name for name in self._names() if ID.fullmatch(name))

    def load(self, id: str) -> Job | None:
        """One that has not ended."""
        return _read(os.path.join(self._path(id), "job.json"), Job)

    def files_of(self, id: str) -> tuple[str, str]:
        """As `staging`, of one that has begun."""
        return os.path.join(self._path(id), "files"), os.path.join(self._path(id), "files.sqlite")

    def standing(self, id: str) -> Standing | None:
        """How far one is; for a day also of one that has ended."""
        job = self.load(id)
        if job is None:
            return _read(self._path(id, DONE), Standing)
        kept = _read(os.path.join(self._path(id), "standing.json"), Standing)
        return kept or Standing(job, [Stand(member.name) for member in job.members])

    def standings(self) -> Iterator[Standing]:
        """The same of all, those that have ended too, oldest first."""
        for id in sorted({name.removesuffix(DONE) for name in self._names()}):
            found = self.standing(id) if ID.fullmatch(id) else None
            if found is not None:
                yield found

    # --- ending -----------------------------------------------------------------------------------------

    def note(self, standing: Standing) -> None:
        """For people; lost with a loss of power."""
        here = self._path(standing.job.id)
        temporary = os.path.join(here, "standing.tmp")
        with open(temporary, "wb") as file:
            file.write(_encode(standing))
        os.rename(temporary, os.path.join(here, "standing.json"))

    def end(self, standing: Standing) -> None:
        """All have it, or nobody else is to get it."""
        id = standing.job.id
        _put(self._top, id + DONE, _encode(standing))
        os.rename(self._path(id), self._path(id, OLD))
        _sync(self._top)
        _remove(self._path(id, OLD))

    def sweep(self) -> None:
        """Remove what nobody asks for any more."""
        for name in self._names():
            path = os.path.join(self._top, name)
            forgotten_s = FORGOTTEN_S.get(os.path.splitext(name)[1])
            try:
                if forgotten_s is None or os.stat(path).st_mtime > time.time() - forgotten_s:
                    continue
                if os.path.isdir(path):
                    _remove(path)
                else:
                    os.unlink(path)
            except OSError:
                continue  # somebody else was here first, or it cannot be removed

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._top)
        except FileNotFoundError:
            return []

    def _path(self, id: str, suffix: str = "") -> str:
        assert ID.fullmatch(id), id
        return os.path.join(self._top, id + suffix)


def _read(path: str, form: type[Form]) -> Form | None:
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=form)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _put(directory: str, name: str, data: bytes) -> None:
    """A small file, whole and durable."""
    path = os.path.join(directory, name)
    fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)  # a full disk may take some of it, and say so only then
        file.flush()
        os.fsync(fd)
    os.rename(path + ".tmp", path)


def _remove(directory: str) -> None:
    from shutil import rmtree  # the supervisor, which never needs it, would carry its libraries, too

    rmtree(directory, ignore_errors=True)


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
