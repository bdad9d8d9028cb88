"""`FilePut` and `FileGet`: content between a store and the descriptors that a client hands over.

A call carries at most 64 files. Calls of one client that lie ready one behind the other are one run of the
engine, so that small files flow without a pause; each is answered by itself, in its turn. What is durable is
told the peer by messages (`noting`), many in one commit, before the client hears of it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from msgd.errors import MsgdError, StorageRefused, UsageError
from msgd.files.goods import source_of
from msgd.files.names import is_directory
from msgd.filing import forget, result, store_of, whose
from msgd.handed import MAX_FDS, close_all
from msgd.noting import Note, submit_notes
from msgd.shipping import Outcome, Source, Target
from msgd.syncing import sync_all

if TYPE_CHECKING:
    from msgd.control import Control
    from msgd.filecalls import FerryCall, GivenFile

PROGRESS_S = 0.1  # between two replies that say how far it is
OLDEST_S = 0.2  # by then a client hears of what is durable, though others of its call are not
PUT, GET = "put", "get"
METHODS = {PUT: "FilePut", GET: "FileGet"}


class Load:
    """One call: its files, and what has come of them."""

    def __init__(self, op: str, call: FerryCall, fds: list[int]) -> None:
        """Raises UsageError, after which the descriptors are still the caller's to close."""
        if len(call.files) != len(fds) or not fds:
            text = f"{len(call.files)} files with {len(fds)} descriptors, expected 1 to {MAX_FDS} of each."
            raise UsageError(text, "Hand the descriptors over with the call, by one sendmsg(2) of its own.")
        self.call = call
        self.fds = fds
        self.items: list[Source | Target] = [
            _ITEMS[op](file, fd) for file, fd in zip(call.files, fds, strict=True)
        ]
        self.outcomes: list[Outcome] = []
        self.told = 0  # of them, the client has heard

    @property
    def is_done(self) -> bool:
        return len(self.outcomes) == len(self.fds)


def put(control: Control, call: FerryCall, more: bool) -> None:
    """Files from descriptors into a store."""
    _ferry(control, call, more, PUT)


def get(control: Control, call: FerryCall, more: bool) -> None:
    """Files from a store into descriptors; they are synced before they are told."""
    _ferry(control, call, more, GET)


def _ferry(control: Control, call: FerryCall, more: bool, op: str) -> None:
    run = Run(control, Load(op, call, control.fds), more, op)
    control.fds = []  # the run closes them
    try:
        run.run()
    finally:
        run.close()


class Run:
    """Calls that are done as one. Raises UnknownPeer, NotTrusted."""

    def __init__(self, control: Control, first: Load, more: bool, op: str) -> None:
        self._control = control
        self._more = more
        self._op = op
        self._first = first.call
        self._peer = whose(control, first.call.peer)
        self._loads = deque([first])  # oldest first
        self._progress_s = self._flushed_s = time.monotonic()

    def run(self) -> None:
        """Until no call lies ready. What ends all of it is answered to every call. Raises ClientGone."""
        store = store_of(self._control, self._peer, self._first.timeout_ms)
        move: Any = store.put if self._op == PUT else store.get
        try:
            for outcome in move(self._items(), self._on_progress):
                self._take(outcome)
        except MsgdError as error:
            forget(self._control, self._peer)
            self._end(error)
        except BaseException:
            forget(self._control, self._peer)
            raise

    def _end(self, error: MsgdError) -> None:
        try:
            self._flush()  # what is durable stays so
        except MsgdError:
            pass  # most likely the same again
        for _ in self._loads:
            self._control.fail(error)

    def close(self) -> None:
        """Close what is still open of descriptors."""
        for load in self._loads:
            close_all(load.fds)

    def _items(self) -> Iterator[Source | Target]:
        """The files of the present call and of those that lie ready behind it."""
        load: Load | None = self._loads[0]
        while load is not None:
            yield from load.items
            load = self._next()

    def _next(self) -> Load | None:
        """The next call, if it is here and can be part of this run."""
        if self._control.is_oneway:
            return None
        load: Load | None = self._control.take_ready(METHODS[self._op], self._more, self._joining)
        if load is not None:
            self._loads.append(load)
        return load

    def _joining(self, call: FerryCall, fds: list[int]) -> Load | None:
        try:
            return Load(self._op, call, fds) if call.way == self._first.way else None
        except UsageError:
            return None  # answered in its turn

    # --- what comes out ---------------------------------------------------------------------------------

    def _take(self, outcome: Outcome) -> None:
        load = next(load for load in self._loads if not load.is_done)
        load.outcomes.append(outcome)
        if load.is_done or time.monotonic() - self._flushed_s > OLDEST_S:
            self._flush()

    def _on_progress(self, name: str, done: int, size: int) -> None:
        self._control.check_client()
        now_s = time.monotonic()
        if now_s - self._flushed_s > OLDEST_S:
            self._flush()
        if self._more and now_s - self._progress_s >= PROGRESS_S:
            self._progress_s = now_s
            progress = {"name": name, "done": done, "size": size}
            self._control.reply({"progress": progress}, continues=True)

    def _flush(self) -> None:
        """Tell the peer and the client what has come since. Raises MsgdError."""
        self._flushed_s = time.monotonic()
        while self._loads:
            load = self._loads[0]
            if self._more or load.is_done:
                self._answer(load)
            if not load.is_done:
                return
            close_all(self._loads.popleft().fds)

    def _answer(self, load: Load) -> None:
        begin, fresh = load.told, load.outcomes[load.told :]
        if not fresh:
            return
        if self._op == GET:
            fresh = _synced(fresh, load.fds[begin : begin + len(fresh)])
        told = iter(self._tell([o for o in fresh if o.error is None]))
        results = [
            result(at, o, None if o.error is not None or self._peer is None else next(told))
            for at, o in enumerate(fresh, begin)
        ]
        load.told = len(load.outcomes)
        self._control.reply({"results": results}, continues=not load.is_done)

    def _tell(self, done: list[Outcome]) -> list[str]:
        if self._peer is None or not done:
            return []
        notes = [Note(self._op, o.name, o.size, o.sha256) for o in done]
        return submit_notes(self._control, self._peer, self._first.transfer, notes)


# --- descriptors --------------------------------------------------------------------------------------------


def _source(file: GivenFile, fd: int) -> Source:
    """Raises UsageError for what cannot be read, or has no size."""
    found, flags = os.fstat(fd), fcntl.fcntl(fd, fcntl.F_GETFL)
    is_meant, kind = (
        (stat.S_ISDIR, "a directory") if is_directory(file.name) else (stat.S_ISREG, "a regular file")
    )
    if not is_meant(found.st_mode) or flags & os.O_PATH or flags & os.O_ACCMODE == os.O_WRONLY:
        raise UsageError(f"The descriptor for {file.name!r} is not {kind}, open for reading.")
    return source_of(file.name, fd, found)


def _target(file: GivenFile, fd: int) -> Target:
    """Raises UsageError for what cannot be written and read again."""
    found, flags = os.fstat(fd), fcntl.fcntl(fd, fcntl.F_GETFL)
    if not stat.S_ISREG(found.st_mode) or flags & os.O_PATH or flags & os.O_ACCMODE != os.O_RDWR:
        text = f"The descriptor for {file.name!r} is not a regular file, open for reading and writing."
        raise UsageError(text)
    return Target(file.name, fd, min(file.have or 0, found.st_size))


_ITEMS: dict[str, Callable[[GivenFile, int], Source | Target]] = {PUT: _source, GET: _target}


def _synced(outcomes: list[Outcome], fds: list[int]) -> list[Outcome]:
    """What was got is on its disk before anybody hears of it, or has an error."""
    whole = [at for at, outcome in enumerate(outcomes) if outcome.error is None]
    synced = list(outcomes)
    for at, error in zip(whole, sync_all([fds[at] for at in whole]), strict=True):
        if error is not None:
            text = f"{outcomes[at].name} could not be written: {error.strerror}."
            refused = StorageRefused(text, "See the disk that it is written to.")
            synced[at] = outcomes[at]._replace(error=refused)
    return synced
