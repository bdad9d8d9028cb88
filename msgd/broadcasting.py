"""Commands about casts: files for all members of a group, handed over once and kept until all have them.

What is handed over is a store of its own (`files.jobs`): checked, resumed and synced as anything that is put
into one. `FileCastBegin` makes a cast of it; `casting` does the rest, however long that takes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgd import grouping, journal, model
from msgd.errors import StorageRefused, TooLate, UnknownFile, UsageError
from msgd.ferrying import PUT, Load
from msgd.files import jobs
from msgd.files.jobs import ID, Addressee, Job, Jobs, Part, Standing
from msgd.filing import result, watching
from msgd.handed import close_all
from msgd.shipping import Entry, Local
from msgd.wire.groups import CastsChanged

if TYPE_CHECKING:
    from msgd.castcalls import BeginCall, CastCall, CastIdCall, CastsCall
    from msgd.control import Control

FINAL = (jobs.STORED, jobs.CANCELLED)
SEE = "See `msgctl file casts`."


def hand_over(control: Control, call: CastCall, more: bool) -> None:
    """Take files for a cast that is to begin. Raises UsageError, UnknownPeer, StorageRefused."""
    _check(call.transfer)
    grouping.members(control, grouping.plain(call.group))
    load, control.fds = Load(PUT, call, control.fds), []  # type: ignore[arg-type]  # what both calls have
    try:
        store = _staging(control, call.transfer)
        try:
            outcomes = list(store.put(load.items, watching(control, more)))  # type: ignore[arg-type]
        finally:
            store.close()
    finally:
        close_all(load.fds)
    control.reply({"results": [result(at, outcome, None) for at, outcome in enumerate(outcomes)]})


def begin(control: Control, call: BeginCall, more: bool) -> None:
    """Make a cast of what was handed over; the same cast, if that was done before."""
    _check(call.transfer)
    known = Jobs(control.place.config.store)
    group = grouping.plain(call.group)
    try:
        if known.standing(call.transfer) is None:
            job = _job(control, known, call.transfer, group)
            known.begin(job)
            members = len(job.members)
            journal.event("cast.begun", id=job.id, group=group, files=len(job.files), members=members)
            control.tell(CastsChanged())
        standing = known.standing(call.transfer)
    except OSError as error:
        raise _refused(control, error) from error
    assert standing is not None
    control.reply({"cast": shown(standing)})


def casts(control: Control, call: CastsCall, more: bool) -> None:
    """One cast, or all of them; those that have ended for a day."""
    known = Jobs(control.place.config.store)
    try:
        found = [*known.standings()] if call.id is None else [_find(known, call.id)]
    except OSError as error:
        raise _refused(control, error) from error
    control.reply({"casts": [shown(standing) for standing in found]})


def cancel(control: Control, call: CastIdCall, more: bool) -> None:
    """End a cast: who has not got all of it yet gets no more. Raises TooLate where all have.

    By its transfer also one that has not begun: what was handed over for it is removed.
    """
    known = Jobs(control.place.config.store)
    try:
        ended = None if _is_dropped(known, call.id) else _end(control, known, call.id)
    except OSError as error:
        raise _refused(control, error) from error
    control.reply({"cast": None if ended is None else shown(ended)})


def _is_dropped(known: Jobs, id: str) -> bool:
    return ID.fullmatch(id) is not None and known.standing(id) is None and known.drop(id)


def _end(control: Control, known: Jobs, id: str) -> Standing:
    standing = _find(known, id)
    left = [stand for stand in standing.members if stand.state not in FINAL]
    if not left or known.load(standing.job.id) is None:
        raise TooLate("The cast has ended already.", SEE)
    for stand in left:
        stand.state, stand.reason, stand.at_ns = jobs.CANCELLED, f"by {control.user}", time.time_ns()
    try:
        known.end(standing)
    except FileNotFoundError:
        raise TooLate("The cast has just ended.", SEE) from None
    journal.event("cast.cancelled", id=standing.job.id, user=control.user)
    return standing


def shown(standing: Standing) -> dict[str, Any]:
    """A cast as the control socket tells it."""
    job = standing.job
    return {
        "id": job.id,
        "group": job.group,
        "user": job.user,
        "made_at_ns": job.made_ns,
        "files": len(job.files),
        "size": job.size,
        "members": [
            {
                "peer": stand.peer,
                "state": stand.state,
                "reason": stand.reason,
                "files": stand.files,
                "size": stand.size,
                "at_ns": stand.at_ns,
            }
            for stand in standing.members
        ],
    }


def _staging(control: Control, id: str) -> Local:
    try:
        known = Jobs(control.place.config.store)
        if known.standing(id) is not None:
            raise UsageError(f"The cast {id} has begun.", "Use a new transfer for more files.")
        if not known.is_staged(id):
            known.sweep()
        return Local(*known.staging(id))
    except OSError as error:
        raise _refused(control, error) from error


def _job(control: Control, known: Jobs, id: str, group: str) -> Job:
    members = [Addressee(peer.number, peer.name) for peer in grouping.members(control, group)]
    store = Local(*known.staging(id)) if known.is_staged(id) else None
    try:
        parts = [] if store is None else [_part(each) for each in store.ls(recursive=True)]
    finally:
        if store is not None:
            store.close()
    if not parts:
        raise UsageError(f"No files were handed over for the cast {id}.", "Call FileCast first.")
    return Job(id, group, control.user, time.time_ns(), parts, members)


def _part(entry: Entry) -> Part:
    return Part(entry.name + "/" if entry.is_directory else entry.name, entry.size)


def _find(known: Jobs, text: str) -> Standing:
    """The cast whose id is or begins so. Raises UsageError, UnknownFile, OSError."""
    digits = model.id_prefix(text)
    if digits is None:
        raise UsageError(f"{text!r} is no id: expected 4 or more hexadecimal digits.", SEE)
    found = [each for each in known.standings() if each.job.id.replace("-", "").startswith(digits)]
    if len(found) != 1:
        what = "Several casts have" if found else "No cast has"
        raise UnknownFile(f"{what} an id that begins with {digits}.", SEE)
    return found[0]


def _check(id: str) -> None:
    if not ID.fullmatch(id):
        raise UsageError(f"transfer is {id!r}, expected a UUID, small letters, with dashes.")


def _refused(control: Control, error: OSError) -> StorageRefused:
    text = f"The store {control.place.config.store} cannot keep a cast: {error.strerror}."
    return StorageRefused(text, "See its disk and its rights.")
