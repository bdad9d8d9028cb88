"""Many files become durable together: their contents are synced side by side, then each is renamed, then the
directories are synced, and only then anybody hears of it.
"""

import os
import sqlite3
from collections.abc import Callable

from msgd.errors import MsgdError, StorageRefused
from msgd.files.catalogue import Catalogue, Known, mark_of
from msgd.files.disk import begin_writing
from msgd.files.intake import Intake
from msgd.files.lanes import Lanes
from msgd.files.quota import Quota
from msgd.files.tree import Directories, refusal

FILES = 128  # in one group: while one is synced the next comes in
BYTES = 16 << 20


class Group:
    """Files that wait for one another, refused ones too, so that all are answered in their order."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Intake]] = []
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether it is time to land."""
        return len(self._waiting) >= FILES or self._bytes >= BYTES

    def add(self, number: int, intake: Intake) -> None:
        """This one has come."""
        self._waiting.append((number, intake))
        self._bytes += intake.at

    def take(self) -> list[tuple[int, Intake]]:
        """All of them; nobody waits any more."""
        group, self._waiting, self._bytes = self._waiting, [], 0
        return group


class Syncing:
    """The contents of a group on their way to the disk, side by side, while others come in."""

    def __init__(self, group: list[Intake]) -> None:
        whole = [intake for intake in group if intake.error is None and not intake.what.is_directory]
        _each(begin_writing, whole)
        self._lanes = Lanes(_sync, whole)

    def wait(self) -> None:
        """Until they are there, or have an error."""
        self._lanes.wait()


class Landing:
    """Where they become visible, for one owner."""

    def __init__(
        self,
        root: int,
        owner: bytes,
        catalogue: Catalogue | None,
        quota: Quota | None,
        on_trouble: Callable[[Exception], None],
    ) -> None:
        self._root = root
        self._owner = owner
        self._catalogue = catalogue
        self._quota = quota
        self._on_trouble = on_trouble

    def land(self, group: list[Intake]) -> None:
        """Make them durable, in their order, or note in them why not; they are closed."""
        self.finish(group, Syncing(group))

    def finish(self, group: list[Intake], syncing: Syncing) -> None:
        """The same, where the syncs have begun."""
        syncing.wait()
        if any(intake.error is None for intake in group):
            self._land(group)
        for intake in group:
            intake.close()
        if self._quota is not None:
            self._quota.count_anew()

    def _land(self, group: list[Intake]) -> None:
        landed: list[Known] = []
        touched: dict[int, list[Intake]] = {}
        with Directories(self._root) as directories:
            try:
                if self._quota is None:
                    self._move_all(group, directories, touched, landed)
                self._note(group, directories, touched, landed)
            except sqlite3.Error as error:  # what was moved is there all the same
                self._on_trouble(error)
                if self._quota is not None:
                    _refuse(_left(group, landed), StorageRefused(f"The quota is not known: {error}.", AGAIN))
            for fd in touched.keys() | directories.made:
                try:
                    os.fsync(fd)
                except OSError as error:
                    _refuse(touched.get(fd, group), refusal(error, "/".join(group[0].parts)))

    def _note(
        self,
        group: list[Intake],
        directories: Directories,
        touched: dict[int, list[Intake]],
        landed: list[Known],
    ) -> None:
        """Have them in the catalogue; where there is a quota, they are moved while it cannot change."""
        if self._catalogue is None:
            return
        with self._catalogue.alone():
            if self._quota is not None:
                self._move_all(group, directories, touched, landed)
            self._catalogue.put(landed)

    def _move_all(
        self,
        group: list[Intake],
        directories: Directories,
        touched: dict[int, list[Intake]],
        landed: list[Known],
    ) -> None:
        landed_bytes = 0
        for intake in group:
            if intake.error is not None:
                continue
            try:
                if intake.what.is_directory:
                    directories.open(intake.parts, create=True)
                    continue
                if self._quota is not None:
                    self._quota.admit_at_last(intake, landed_bytes)
                directory = directories.open(intake.parts[:-1], create=True)
                intake.move(directory)
            except OSError as error:
                intake.refuse(refusal(error, intake.what.name))
            except MsgdError as error:
                intake.refuse(error)
            else:
                touched.setdefault(directory, []).append(intake)
                landed.append(self._known(intake))
                landed_bytes += intake.what.size

    def _known(self, intake: Intake) -> Known:
        return Known(intake.what.name, *mark_of(os.fstat(intake.fd)), intake.digest, self._owner)


AGAIN = "Try it again; if it comes again, see the events there."


def _each(step: Callable[[int], None], group: list[Intake]) -> None:
    for intake in group:
        if intake.error is None:
            try:
                step(intake.fd)
            except OSError as error:
                intake.refuse(refusal(error, intake.what.name))


def _sync(intake: Intake) -> None:
    _each(os.fdatasync, [intake])


def _left(group: list[Intake], landed: list[Known]) -> list[Intake]:
    """Those that have not been moved yet."""
    names = {known.name for known in landed}
    return [intake for intake in group if intake.error is None and intake.what.name not in names]


def _refuse(group: list[Intake], error: MsgdError) -> None:
    for intake in group:
        intake.refuse(error)
