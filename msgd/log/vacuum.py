"""Remove whole segments from the log so that its directory tells at every moment what is kept.

A segment with an older one before it leaves a mark (`segment`), durable before the segment goes: without
it the stretch would be taken for damage. One mark serves all that are removed in a row. The oldest
segments need none, and so no room on a full disk: they go one after another, the oldest first.

A removal that dies half-way leaves a log that is sound, and is finished by the next one.
"""

import os
from collections.abc import Sequence
from itertools import pairwise

from msgd.log.errors import write_error
from msgd.log.files import Files, let_go
from msgd.log.segment import gone_path, list_names, segment_path, sync, sync_names


def remove(files: Files, directory: str, bases: Sequence[int]) -> None:
    """Remove the segments that begin at these log offsets, durably; those that are gone are passed over.

    Costs two or three syncs of the directory, and one more for each segment at the beginning of the log.
    Raises ValueError for the newest segment; StorageFull, SyncFailed or OSError: repeat it to finish it.
    """
    finish(files, directory)
    logs, gone = list_names(files, directory)
    leaving = sorted(logs.intersection(bases))
    if not leaving:
        return
    if leaving[-1] == max(logs):
        raise ValueError(f"log offset {leaving[-1]} is where the newest segment begins")
    oldest = sorted(logs)
    while leaving and leaving[0] == oldest[0]:
        _unlink(files, directory, [oldest.pop(0)])
        leaving.pop(0)
    _mark(files, directory, set(leaving), logs, gone)
    _unlink(files, directory, leaving)
    finish(files, directory)


def finish(files: Files, directory: str) -> None:
    """Finish a removal that died: marked segments go, then marks that say nothing.

    Those are the ones before the first segment, behind another mark, and behind the newest segment.
    """
    logs, gone = list_names(files, directory)
    newest = max(logs, default=0)
    _unlink(files, directory, sorted(base for base in logs & gone if base != newest))
    is_kept, needed = False, set()  # of the name before
    for base in sorted(logs | gone):
        if is_kept and base in gone and base < newest:
            needed.add(base)
        is_kept = base in logs and (base not in gone or base == newest)
    for base in gone - needed:
        files.unlink(gone_path(directory, base))


def _mark(files: Files, directory: str, leaving: set[int], logs: set[int], gone: set[int]) -> None:
    """Mark the first of each row of segments that leave, unless the mark before it will do."""
    covered = leaving | gone
    first = [
        base for before, base in pairwise(sorted(logs | gone)) if base in leaving and before not in covered
    ]
    for base in first:
        path = gone_path(directory, base)
        try:
            fd = files.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise write_error(error, f"{path}: cannot be made") from error
        try:
            sync(files, fd, path)
        finally:
            let_go(files, fd)
    if first:
        sync_names(files, directory)


def _unlink(files: Files, directory: str, bases: Sequence[int]) -> None:
    """Unlink these segments, durably before any mark of theirs may go, and give their room back.

    Readers in other processes may keep a file open for as long as they are idle, so it is made empty once
    it has no name any more. One that a person gave another name, as `cp -l` does, stays as it is.
    """
    fds: list[int] = []
    try:
        for base in bases:
            path = segment_path(directory, base)
            fds.append(files.open(path, os.O_RDWR))
            files.unlink(path)
        if bases:
            sync_names(files, directory)
        for fd in fds:
            if files.fstat(fd).st_nlink == 0:
                files.ftruncate(fd, 0)
    finally:
        for fd in fds:
            let_go(files, fd)
