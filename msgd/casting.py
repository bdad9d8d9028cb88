"""Body of the process that casts: it brings the files of casts to their members, as these are in reach.

One member at a time, its files in their order. A file counts as brought once its message of kind `file` is in
this node's log; the id of that comes from the cast and the name. So whoever dies, the next process finds by
the log how far each member was, and nobody is told of a file twice. It ends when there is nothing to cast.
"""

import os
import random
import socket
import time
from collections import deque
from collections.abc import Iterator

from msgd import errors, executing, journal, showing
from msgd.backoff import Backoff
from msgd.errors import MsgdError, PeerAway
from msgd.files import jobs
from msgd.files.goods import source_of
from msgd.files.jobs import Job, Jobs, Stand, Standing
from msgd.hooking import Listening
from msgd.knowing import ClientGone, Place
from msgd.noting import Note, note_id, submit_notes
from msgd.sharing import lower_priority
from msgd.shipping import Outcome, Remote, Source
from msgd.wire.ledger import PeerState

LOOK_S = 0.5  # between two looks at who is there, and at what is to be cast
NOTE_S = 0.2  # between two notes of how far it is, while it moves
PATIENCE_S = 10.0  # for a member that does not move: the others wait
FIRST_S, CAP_S = 1.0, 60.0  # between two tries of one member; doubles
MOST_NOTES = 256  # told at once
GONE = "it is no peer any more"
FINAL = (jobs.STORED, jobs.CANCELLED)


class Ended(Exception):
    """The cast is there no more: somebody has cancelled it."""


def run(channel: socket.socket, place: Place, parent: int) -> int:
    """Cast until there is nothing to cast; the exit code. `parent`: it does not outlive that process."""
    executing.die_with(parent)
    lower_priority()
    listening = Listening(channel, place)
    known = Jobs(place.config.store)
    casts: dict[str, Cast] = {}
    try:
        known.sweep()
        while ids := known.open_ids():
            for id in ids:
                if id not in casts and (job := known.load(id)) is not None:
                    casts[id] = Cast(listening, known, job)
            casts = {id: cast for id, cast in casts.items() if id in ids}
            has_moved = [cast.step(_peers(listening)) for cast in casts.values()]
            if not any(has_moved):
                listening.wait(LOOK_S)
    except (ClientGone, errors.Uncertain):
        return 0  # the log process is gone: the next one goes on
    except OSError as error:
        journal.event("cast.failed", reason=error.strerror or str(error))
        return errors.UNEXPECTED
    return 0


def _peers(listening: Listening) -> dict[int, PeerState]:
    return {peer.number: peer for peer in listening.state().peers}


class Cast:
    """One cast, and how far it is. Methods raise ClientGone, Uncertain, OSError."""

    def __init__(self, listening: Listening, known: Jobs, job: Job) -> None:
        self._listening = listening
        self._known = known
        self._job = job
        self._standing = Standing(job, [Stand(member.name) for member in job.members])
        self._backoffs = [Backoff(random.random, first_s=FIRST_S, cap_s=CAP_S) for _ in job.members]
        self._is_counted = [False] * len(job.members)  # what the log says of it is in its stand
        self._noted_s = 0.0

    def step(self, peers: dict[int, PeerState]) -> bool:
        """Serve one member, if one can be; whether anything was done. `peers`: as they now are."""
        try:
            served = any(self._serve(at, peers) for at in range(len(self._job.members)))
            if all(stand.state in FINAL for stand in self._standing.members):
                self._known.end(self._standing)
                journal.event("cast.ended", id=self._job.id, group=self._job.group)
            elif self._known.load(self._job.id) is not None:
                self._known.note(self._standing)
        except (Ended, FileNotFoundError):
            return False  # cancelled: it is not listed any more
        return served

    def _serve(self, at: int, peers: dict[int, PeerState]) -> bool:
        member, stand = self._job.members[at], self._standing.members[at]
        if stand.state in FINAL:
            return False
        peer = peers.get(member.number)
        if peer is None or peer.removed:
            self._change(stand, jobs.CANCELLED, GONE)
            return False
        if not self._is_counted[at]:
            self._count(stand, peer)
            self._is_counted[at] = True
        if stand.files == len(self._job.files):
            self._stored(stand)
            return False
        if not peer.connected or peer.hold:
            self._change(stand, jobs.QUEUED, showing.waiting_reason(peer)[0])
            return False
        backoff = self._backoffs[at]
        if backoff.wait_s(time.monotonic()):
            return False
        self._send(stand, peer, backoff)
        return True

    # --- one member -------------------------------------------------------------------------------------

    def _count(self, stand: Stand, peer: PeerState) -> None:
        """How many files it has been told of, which are the first ones."""
        low, high = 0, len(self._job.files)
        while low < high:
            middle = (low + high) // 2
            note = Note("cast", self._job.files[middle].name)
            if self._listening.is_kept(note_id(self._job.user, peer, self._job.id, note)):
                low = middle + 1
            else:
                high = middle
        self._brought(stand, low)

    def _brought(self, stand: Stand, count: int) -> None:
        stand.files = count
        stand.size = sum(part.size for part in self._job.files[:count])

    def _send(self, stand: Stand, peer: PeerState, backoff: Backoff) -> None:
        former = stand.reason
        self._change(stand, jobs.SENDING, None)
        try:
            self._bring(stand, peer)
        except (ClientGone, Ended, errors.Uncertain):
            raise
        except MsgdError as error:
            self._fail(stand, error, backoff, former)
            return
        backoff.reset(time.monotonic())
        self._stored(stand)

    def _fail(self, stand: Stand, error: MsgdError, backoff: Backoff, former: str | None) -> None:
        """`former`: the reason that stood there before, which is not told again."""
        backoff.failed(time.monotonic())
        reason = f"{error.message} {error.hint}".strip()
        if reason != former and not isinstance(error, PeerAway):
            journal.event("cast.delayed", id=self._job.id, peer=stand.peer, reason=reason)
        self._change(stand, jobs.QUEUED, reason)

    def _bring(self, stand: Stand, peer: PeerState) -> None:
        """What it has not got yet. Raises MsgdError; what was brought before that is noted."""
        before = stand.size
        opened: deque[int] = deque()
        done: list[Outcome] = []
        remote = Remote(self._listening, peer, PATIENCE_S)

        def on_progress(name: str, size: int, whole: int) -> None:
            self._look(stand, before + sum(o.size for o in done) + size)

        try:
            for outcome in remote.put(self._sources(stand.files, opened), on_progress):
                os.close(opened.popleft())
                if outcome.error is not None:
                    raise outcome.error
                done.append(outcome)
                if len(done) == MOST_NOTES or time.monotonic() - self._noted_s > NOTE_S:
                    before = self._tell(stand, peer, done)
        finally:
            remote.close()
            for fd in opened:
                os.close(fd)
            self._tell(stand, peer, done)

    def _sources(self, first: int, opened: deque[int]) -> Iterator[Source]:
        top, _ = self._known.files_of(self._job.id)
        for part in self._job.files[first:]:
            try:
                fd = os.open(os.path.join(top, part.name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError as error:
                raise Ended from error
            opened.append(fd)
            yield source_of(part.name, fd, os.fstat(fd))

    def _tell(self, stand: Stand, peer: PeerState, done: list[Outcome]) -> int:
        """Note in the log what was brought; how much that is in all."""
        if done:
            notes = [Note("cast", each.name, each.size, each.sha256) for each in done]
            self._listening.user = self._job.user
            submit_notes(self._listening, peer, self._job.id, notes)
            self._brought(stand, stand.files + len(done))
            done.clear()
        self._look(stand, stand.size)
        return stand.size

    # --- how far it is ----------------------------------------------------------------------------------

    def _look(self, stand: Stand, size: int) -> None:
        """Now and then: whether to go on, and the note of how far it is. Raises Ended, ClientGone."""
        now_s = time.monotonic()
        if now_s - self._noted_s < NOTE_S:
            return
        self._noted_s = now_s
        self._listening.wait(0)
        if self._known.load(self._job.id) is None:
            raise Ended
        counted, stand.size = stand.size, size
        try:
            self._known.note(self._standing)
        except FileNotFoundError as error:
            raise Ended from error
        finally:
            stand.size = counted

    def _stored(self, stand: Stand) -> None:
        self._change(stand, jobs.STORED, None)
        journal.event("cast.stored", id=self._job.id, peer=stand.peer, files=stand.files, size=stand.size)

    def _change(self, stand: Stand, state: str, reason: str | None) -> None:
        if (stand.state, stand.reason) != (state, reason):
            stand.state, stand.reason, stand.at_ns = state, reason, time.time_ns()
