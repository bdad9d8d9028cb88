"""What one peer may still put: the bytes of its files and of its parts, against its quota.

Asked before content flows; and once more when files become visible, while nobody else may change the
catalogue, since several connections of one peer may put at once. What has no content is always admitted.
"""

from collections.abc import Callable

from msgd.errors import StorageRefused
from msgd.files.catalogue import Catalogue
from msgd.files.intake import Intake
from msgd.files.names import shown
from msgd.files.parts import Parts


class Quota:
    """That of one owner. `complete` fills the catalogue where it was lost. Raises sqlite3.Error, OSError."""

    def __init__(
        self,
        limit_bytes: int,
        owner: bytes,
        catalogue: Catalogue,
        parts: Parts,
        complete: Callable[[], None],
    ) -> None:
        self._limit_bytes = limit_bytes
        self._owner = owner
        self._catalogue = catalogue
        self._parts = parts
        self._complete = complete
        self._known: int | None = None  # used when it was last counted
        self._admitted = 0  # since then

    def admit(self, name: str, size: int, here: int = 0) -> None:
        """Before it flows; `here` bytes of it are in a part already. Raises StorageRefused."""
        if not size:
            return
        if here:
            self._known = None  # counted with the part as it is now
        if self._known is None:
            self._complete()
            self._known = self._catalogue.used(self._owner) + self._parts.bytes()
            self._admitted = 0
        used = self._known + self._admitted - here - self._replaced(name)
        if used + size > self._limit_bytes:
            raise self._refusal(name, size, used)
        self._admitted += size - here

    def admit_at_last(self, intake: Intake, landed: int) -> None:
        """When it becomes visible, behind others with `landed` bytes. Raises StorageRefused."""
        what = intake.what
        if not what.size:
            return
        used = self._catalogue.used(self._owner) + landed - self._replaced(what.name)
        if used + what.size > self._limit_bytes:
            raise self._refusal(what.name, what.size, used)

    def count_anew(self) -> None:
        """Something has landed, or went."""
        self._known = None

    def _replaced(self, name: str) -> int:
        known = self._catalogue.find(name)
        return known.size if known is not None and known.owner == self._owner else 0

    def _refusal(self, name: str, size: int, used: int) -> StorageRefused:
        left = max(0, self._limit_bytes - used)
        return StorageRefused(
            f"{shown(name)} has {size:,} bytes; {left:,} are left of a quota of {self._limit_bytes:,}.",
            "Remove something there (`msgctl file rm`), or ask for a larger quota.",
        )
