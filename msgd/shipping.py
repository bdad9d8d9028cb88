"""Files between this node and a store: a peer's (`Remote`) or its own (`Local`), with the same methods.

    store = Remote(control, peer)
    for outcome in store.put(sources, on_progress): ...
    store.close()

Descriptors belong to the caller and are never closed here; what is read or written goes through pread and
pwrite where they are files, so their position does not matter. One call at a time for each store.

What goes wrong with one file is its `Outcome.error`, and the others go on. What ends all of it is raised:
`PeerAway` (nothing moved for `patience_s`; what has got there stays, and the same call goes on there),
`NotTrusted`, and whatever `on_progress` raises. In between a connection that breaks is made anew.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from msgd.errors import MsgdError, NotTrusted, PeerAway
from msgd.files.catalogue import NAME
from msgd.files.copying import copy_within, take_directory, take_from
from msgd.files.depot import Depot
from msgd.files.frames import Begin, Close, Dup, End, Entries, Event, List, Remove
from msgd.files.getting import Getting, Sink
from msgd.files.goods import Entry, OnProgress, Outcome, Progress, Source, Target
from msgd.files.intake import READ_BYTES, Intake
from msgd.files.landing import Group
from msgd.files.outflow import Outflow
from msgd.files.putting import Putting, error_of
from msgd.files.stream import Stream, StreamEnded
from msgd.meeting import visit
from msgd.peer.errors import ProtocolError
from msgd.session import MeetingFailed
from msgd.visiting import addresses_of, is_refusal

if TYPE_CHECKING:
    from msgd.config import Config
    from msgd.knowing import Knowing
    from msgd.wire.ledger import PeerState

__all__ = ["Entry", "Local", "OnProgress", "Outcome", "Remote", "Source", "Store", "Target", "local_store"]

PATIENCE_S = 30.0
CONNECT_S = 5.0  # for one try at one address: nobody is asked meanwhile whether he still waits
PAUSE_S = (0.05, 2.0)  # between two tries: the first, and the longest


class Store(Protocol):
    """What both have."""

    def ls(self, pattern: str = "", recursive: bool = False) -> Iterator[Entry]:
        """What fits a glob, by name: `*`, `?` and `[…]` within a part of the name. Where brackets are all it
        has, and it is a name that is there, it means this name.

        Without one: what lies at the top. Of a directory that is named: what lies in it. `recursive`: the
        files of whole trees, no directories. Nothing fitting is no error where there is a glob; a plain name
        that is not there raises UnknownFile.
        """

    def put(self, sources: Iterable[Source], on_progress: OnProgress) -> Iterator[Outcome]:
        """Put files; an outcome for each, in their order, as soon as it is durable there.

        `sources` is read ahead of the outcomes, by at most 512 files or 4 MiB: it may be a generator, and the
        descriptor of a source must stay open until its outcome. Small files are many in one sync.
        """

    def get(self, targets: Iterable[Target], on_progress: OnProgress) -> Iterator[Outcome]:
        """Get files; an outcome for each, in their order. `targets` is read ahead by at most 256 files."""

    def dup(self, name: str, new: str, on_progress: OnProgress) -> Outcome:
        """A copy there under a new name; what had that name is replaced. Its error is in the outcome."""

    def rm(self, name: str, recursive: bool = False) -> int:
        """Remove a file, or with `recursive` a tree; how many files went. Raises UnknownFile, UsageError."""

    def close(self) -> None:
        """No more calls."""


class Remote:
    """The store of a peer: all of `Store`. Connects with the first call, and again whenever it must.

    `patience_s`: how long nothing may move, the way to the peer included. Raises NotTrusted where it is not
    paired, UsageError where it has no address.
    """

    def __init__(self, knowing: Knowing, peer: PeerState, patience_s: float = PATIENCE_S) -> None:
        self._node = knowing.place.node
        self._name = peer.name
        self._identity = peer.identity
        self._addresses = addresses_of(knowing, peer)
        self._patience_s = patience_s
        self._stream: Stream | None = None
        self._failed = 0  # tries to connect in a row, of which nothing came
        self._tried_s = 0.0  # when the last one began
        self._why = "it did not answer"  # the last connection ended, or none came

    # --- calls ------------------------------------------------------------------------------------------

    def put(self, sources: Iterable[Source], on_progress: OnProgress) -> Iterator[Outcome]:
        """As `Store`."""
        progress = Progress(on_progress)
        return self._through(Putting(sources, progress), progress)

    def get(self, targets: Iterable[Target], on_progress: OnProgress) -> Iterator[Outcome]:
        """As `Store`."""
        progress = Progress(on_progress)
        return self._through(Getting(targets, progress), progress)

    def ls(self, pattern: str = "", recursive: bool = False) -> Iterator[Entry]:
        """As `Store`."""
        for event in self._ask(List(1, pattern, recursive), _nobody, again=True):
            if isinstance(event, End):
                _raise(event)
            elif isinstance(event, Entries):
                for item in event.items:
                    name, size, mtime_ns, executable = item.name, item.size, item.mtime_ns, item.executable
                    yield Entry(name, size, mtime_ns, executable, item.digest.hex(), item.is_directory)

    def dup(self, name: str, new: str, on_progress: OnProgress) -> Outcome:
        """As `Store`."""
        end = self._end(self._ask(Dup(1, name, new), on_progress, again=True))
        return Outcome(new, end.value, end.digest.hex(), error=error_of(end))

    def rm(self, name: str, recursive: bool = False) -> int:
        """As `Store`. Not asked again after a break: the second time it would not be found."""
        end = self._end(self._ask(Remove(1, name, recursive), _nobody, again=False))
        _raise(end)
        return end.value

    def close(self) -> None:
        """As `Store`."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    # --- connections ------------------------------------------------------------------------------------

    def _through(self, work: Putting | Getting, progress: Progress) -> Iterator[Outcome]:
        """All outcomes, over as many connections as it takes."""
        while True:
            stream = self._connected(progress)
            try:
                for outcome in work.run(stream):
                    progress.ended(outcome.name)
                    yield outcome
                self._failed = 0
                return
            except StreamEnded as error:
                self._drop(error)
            except ProtocolError as error:
                raise self._broken(error) from error
            except BaseException:  # nobody hears the answers that are still to come
                self.close()
                raise

    def _ask(self, frame: List | Dup | Remove, on_progress: OnProgress, *, again: bool) -> Iterator[Event]:
        """The answer to one question, up to its End. Raises PeerAway, NotTrusted."""
        progress = Progress(on_progress)
        while True:
            stream = self._connected(progress)
            try:
                stream.say(frame)
                for event in _answer(stream):
                    again = False
                    yield event
                self._failed = 0
                return
            except StreamEnded as error:
                self._drop(error)
                if not again:
                    raise self._away(
                        "Whether it was done there is not known; `msgctl file ls` tells."
                    ) from error
            except ProtocolError as error:
                raise self._broken(error) from error
            except BaseException:
                self.close()
                raise

    @staticmethod
    def _end(answer: Iterator[Event]) -> End:
        """The last word of an answer."""
        *_, end = answer
        assert isinstance(end, End)
        return end

    def _connected(self, progress: Progress) -> Stream:
        """The connection, a new one if need be. Raises PeerAway, NotTrusted, and as `progress`."""
        while self._stream is None:
            deadline_s = progress.moved_s + self._patience_s
            if self._failed:
                self._wait_turn(progress, deadline_s)
            self._failed += 1
            self._stream = self._try(progress, deadline_s)
        self._stream.tick = progress.tick
        return self._stream

    def _wait_turn(self, progress: Progress, deadline_s: float) -> None:
        """A pause that grows as long as nothing comes of it."""
        if progress.moved_s > self._tried_s:
            self._failed = 1
        pause_s = min(PAUSE_S[0] * 2 ** (self._failed - 1), PAUSE_S[1])
        now_s = time.monotonic()
        if now_s >= deadline_s:
            raise self._away("It goes on where it stopped when it is repeated.")
        until_s = min(now_s + pause_s * random.uniform(0.5, 1.0), deadline_s)  # the last try is at its end
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.5))
            progress.tick()

    def _try(self, progress: Progress, deadline_s: float) -> Stream | None:
        """One try at each address."""
        self._tried_s = time.monotonic()
        for address in self._addresses:
            progress.tick()
            until_s = min(time.monotonic() + CONNECT_S, max(deadline_s, time.monotonic() + 0.1))
            try:
                session, rest = visit(self._node, address, self._identity, until_s, "files")
            except (MeetingFailed, OSError) as error:
                if is_refusal(error):
                    raise NotTrusted(
                        f"{self._name} gives nothing: {error}.", "See `msgctl peer ls`."
                    ) from error
                self._why = (error.strerror if isinstance(error, OSError) else "") or str(error)
                continue
            return Stream(session, rest, progress.tick)
        return None

    def _drop(self, error: StreamEnded) -> None:
        self._why = str(error)
        self.close()

    def _away(self, hint: str) -> PeerAway:
        return PeerAway(f"{self._name} cannot be reached: {self._why}.", hint)

    def _broken(self, error: ProtocolError) -> MsgdError:
        self.close()
        return MsgdError(f"{self._name} broke the protocol: {error}.", "Do both run the same version?")


def _answer(stream: Stream) -> Iterator[Event]:
    while True:
        event = stream.hear()
        if event is None:
            raise StreamEnded("it has closed the connection")
        yield event
        if isinstance(event, End):
            return


def _raise(end: End) -> None:
    """Raises the error that an answer names."""
    error = error_of(end)
    if error is not None:
        raise error


def _nobody(name: str, done: int, size: int) -> None:
    """Who does not want to hear of progress."""


class Local:
    """This node's own store: all of `Store`. `catalogue` is the path of its database."""

    def __init__(
        self, directory: str, catalogue: str, on_trouble: Callable[[str], None] = lambda why: None
    ) -> None:
        self._depot = Depot(directory, catalogue, b"", None, on_trouble)

    def ls(self, pattern: str = "", recursive: bool = False) -> Iterator[Entry]:
        """As `Store`."""
        for name, status, digest, is_directory in self._depot.ls(pattern, recursive):
            size, executable = (0, False) if is_directory else (status.st_size, bool(status.st_mode & 0o100))
            yield Entry(name, size, status.st_mtime_ns, executable, digest.hex(), is_directory)

    def put(self, sources: Iterable[Source], on_progress: OnProgress) -> Iterator[Outcome]:
        """As `Store`."""
        progress, group = Progress(on_progress), Group()
        try:
            for source in sources:
                group.add(0, self._take(source, progress))
                if group.is_full:
                    yield from self._land(group, progress)
            yield from self._land(group, progress)
        finally:
            for _, intake in group.take():
                intake.abandon()

    def _take(self, source: Source, progress: Progress) -> Intake:
        def on_read(done: int, size: int) -> None:
            progress.at(source.name, done, size)

        if source.is_directory:
            return take_directory(self._depot, source.name, source.mtime_ns)
        return take_from(self._depot, source.fd, source.name, os.fstat(source.fd), on_read)

    def _land(self, group: Group, progress: Progress) -> Iterator[Outcome]:
        intakes = [intake for _, intake in group.take()]
        self._depot.landing.land(intakes)
        for intake in intakes:
            progress.ended(intake.what.name)
            yield _outcome(intake)

    def get(self, targets: Iterable[Target], on_progress: OnProgress) -> Iterator[Outcome]:
        """As `Store`."""
        progress = Progress(on_progress)
        for target in targets:
            try:
                outcome = self._get(target, progress)
            except MsgdError as error:
                outcome = Outcome(target.name, error=error)
            progress.ended(target.name)
            yield outcome

    def _get(self, target: Target, progress: Progress) -> Outcome:
        found = self._depot.open(target.name)
        try:
            outflow, status = Outflow(found.fd, found.status), found.status
            sink = Sink(target._replace(have=0), progress.alive)
            sink.begins(Begin(1, status.st_size, status.st_mtime_ns, bool(status.st_mode & 0o100), 0))
            for data in outflow.read(READ_BYTES):
                sink.write(data)
                progress.at(target.name, sink.at, status.st_size)
                if sink.error is not None:
                    break
            return sink.closes(Close(1, outflow.digest, outflow.fault()))
        finally:
            os.close(found.fd)

    def dup(self, name: str, new: str, on_progress: OnProgress) -> Outcome:
        """As `Store`."""
        progress = Progress(on_progress)
        try:
            intake = copy_within(self._depot, name, new, lambda done, size: progress.at(new, done, size))
        except MsgdError as error:
            return Outcome(new, error=error)
        self._depot.landing.land([intake])
        return _outcome(intake)

    def rm(self, name: str, recursive: bool = False) -> int:
        """As `Store`."""
        return self._depot.rm(name, recursive)

    def close(self) -> None:
        """As `Store`."""
        self._depot.close()


def local_store(config: Config, on_trouble: Callable[[str], None] = lambda why: None) -> Local:
    """The store of this node. Raises StorageRefused."""
    return Local(config.store, os.path.join(config.state, NAME), on_trouble)


def _outcome(intake: Intake) -> Outcome:
    what = intake.what
    return Outcome(what.name, what.size, intake.digest.hex(), what.mtime_ns, what.executable, intake.error)
