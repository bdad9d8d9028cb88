"""What this node keeps on the disk: how much, what for, and how far back."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from msgd.log.reader import Reader
from msgd.log.record import Header, Kind

if TYPE_CHECKING:
    from msgd.control import Control
    from msgd.trusting import Nothing

LOG_DIRECTORY = "log"
BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's is
BODIES = (Kind.OUT, Kind.IN, Kind.HELD, Kind.RECOVERED)  # records with messages in them

# What files are for, by how their path in the state directory begins or ends; the first that fits counts.
SORTS = (
    ("files", "files" + os.sep, ""),  # the store, unless the configuration has it elsewhere
    ("set aside", "", ".broken"),
    ("log", LOG_DIRECTORY + os.sep, ""),
    ("index", "index.sqlite", ""),
    ("search", "search.sqlite", ""),
    ("other", "", ""),
)


class Use(NamedTuple):
    """What the files of one sort take."""

    what: str
    bytes: int  # on the disk: allocated ahead counts, holes do not
    files: int


def disk_usage(control: Control, call: Nothing, more: bool) -> None:
    """Answer DiskUsage."""
    state, reader = control.place.config.state, control.place.reader
    used = uses(state)
    room = os.statvfs(state)
    extents = reader.extents()
    oldest = oldest_message(reader)
    control.reply(
        {
            "uses": [use._asdict() for use in used],
            "total_bytes": sum(use.bytes for use in used),
            "available_bytes": room.f_bavail * room.f_frsize,
            "segments": len(extents),
            "sealed_bytes": sum(stop - base for base, stop in extents[:-1]),
            "oldest_ns": oldest.wall_ns if oldest else None,
        }
    )


def uses(state: str) -> list[Use]:
    """What the files below the state directory take, those of each sort together, in the order of `SORTS`."""
    sizes, files = Counter[str](), Counter[str]()
    for directory, _, names in os.walk(state):
        for name in names:
            path = os.path.join(directory, name)
            try:
                size = os.lstat(path).st_blocks * BLOCK_BYTES
            except FileNotFoundError:
                continue  # files come and go meanwhile
            what = _sort(os.path.relpath(path, state))
            sizes[what] += size
            files[what] += 1
    return [Use(what, sizes[what], files[what]) for what, _, _ in SORTS if files[what]]


def oldest_message(reader: Reader) -> Header | None:
    """The first record with messages that is kept. What is damaged is passed over: `verify` tells it."""
    headers = reader.headers(on_damage=lambda damaged: None)
    return next((header for header in headers if header.kind in BODIES and header.count), None)


def _sort(path: str) -> str:
    return next(what for what, start, end in SORTS if path.startswith(start) and path.endswith(end))
