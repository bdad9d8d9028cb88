"""The log process's part in removing old segments: it says what is not final, and removes what others found.

Finding what may go takes reading, so that is done elsewhere (`surveying`): by the index process for what the
configuration wants, by a control worker for a person. Segments go one at a time, between appends, for each
takes some syncs of the directory; the record of who asked for what is on disk before the first one goes.
So a process that dies in between leaves the rest to its successor.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from operator import attrgetter

import msgspec

from msgd import journal
from msgd.amounts import Duration, Size
from msgd.books import Books, tell_damage
from msgd.channel import Channel
from msgd.config import History
from msgd.log import vacuum
from msgd.log.errors import Damaged, StorageFull
from msgd.log.files import REAL_FILES
from msgd.log.record import Kind
from msgd.log.segment import Extent
from msgd.standing import PeerChange
from msgd.wire.keeping import OFFSET, STRETCH, AskNeeded, Needed, Vacuum
from msgd.wire.ledger import Done, Refused

CHECK_NS = 3_600_000_000_000  # the configuration's wish is looked at this often, and at every new segment
PARTS = 8  # of keep_time: that old a segment is ended though it is not full, else what is in it went late
LEAST_NS = 1_000_000_000
OF_NODE = frozenset({Kind.CHECKPOINT, Kind.PEER})  # where they are about no peer

BUSY = "The history is being vacuumed already."
STALE = "Nothing was removed: some of it has gone meanwhile."
NOT_FINAL = "Nothing was removed: not all of that is final."
LATER_HINT = "Repeat the call in a moment."
FAILED_HINT = "What has gone is gone, the rest is as it was. `msgctl vacuum` again goes on."


_encode = msgspec.msgpack.Encoder().encode


class Tidying:
    """`ask` says something to the index process; False: it does not run."""

    def __init__(self, books: Books, keep: History, ask: Callable[[Needed], bool]) -> None:
        self._books = books
        self._ask = ask
        self._due_ns = 0  # CLOCK_BOOTTIME
        self._asked: tuple[Channel, Vacuum] | None = None  # None as well: what the process before left
        self._is_recorded = False
        self._leaving = deque(self._unfinished())
        self._asking: list[tuple[Channel, AskNeeded]] = []
        self.set(keep.keep_time, keep.keep_size)

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do at once."""
        return bool(self._leaving or self._asking)

    def set(self, keep_time: Duration | None, keep_size: Size | None) -> None:
        """What the configuration wants."""
        self._keep_time, self._keep_size = keep_time, keep_size
        self._every_ns = CHECK_NS
        if keep_time is not None:
            self._every_ns = max(LEAST_NS, min(CHECK_NS, keep_time.ns // PARTS))
        self.look_soon()

    # --- what the configuration wants -------------------------------------------------------------------

    def look_soon(self) -> None:
        """There is something new to look at."""
        self._due_ns = 0

    def next_ns(self) -> int | None:
        """When it is due next (CLOCK_BOOTTIME); None: nothing is to be removed by itself."""
        return None if self._keep_time is None and self._keep_size is None else self._due_ns

    def wants_roll(self) -> bool:
        """Whether the newest segment is to be ended now. Asked before `step`, with nothing pending."""
        limits = [frame.older_ns for _, frame in self._asking if frame.older_ns]
        if self._keep_time is not None and self.is_due():
            limits.append(max(LEAST_NS, self._keep_time.ns // PARTS))
        return bool(limits) and self._is_segment_old(min(limits))

    def step(self) -> None:
        """Do a small part of what is to be done. Raises SyncFailed."""
        for channel, frame in self._asking:
            self._books.promise_answer(channel, frame.token, Needed(frame.token, *self._places()))
        self._asking.clear()
        if self._leaving:
            self._remove_one()
        if self.is_due():
            self._look()

    def is_due(self) -> bool:
        """Whether it is time to look for what the configuration wants removed."""
        due_ns = self.next_ns()
        return due_ns is not None and due_ns <= self._books.clock.boot_ns()

    def _look(self) -> None:
        """Have the index process look for what may go."""
        now_ns = self._books.clock.boot_ns()
        needed = Needed(0, *self._places())
        needed.keep_ns, needed.keep_bytes, needed.reason = self._wish()
        is_asked = self._ask(needed)
        self._due_ns = now_ns + (self._every_ns if is_asked else LEAST_NS)

    def _wish(self) -> tuple[int, int, str]:
        keep_time, keep_size = self._keep_time, self._keep_size
        named = (("keep_time", keep_time), ("keep_size", keep_size))
        reason = ", ".join(f"{name} = {value}" for name, value in named if value is not None)
        return keep_time.ns if keep_time else 0, keep_size.bytes if keep_size else 0, reason

    def _is_segment_old(self, limit_ns: int) -> bool:
        """Whether the newest segment holds something, and the first of it is older than this.

        What was done to the node does not count: else the record of a removal would be cause for the next.
        """
        store = self._books.store
        try:
            headers = self._books.reader.headers(store.segment_base, store.committed)
            first = next((each for each in headers if each.kind not in OF_NODE or each.peer), None)
        except Damaged as damage:
            tell_damage(damage)
            return False
        return first is not None and self._books.age_ns(first) >= limit_ns

    # --- requests ---------------------------------------------------------------------------------------

    def needed(self, channel: Channel, frame: AskNeeded) -> None:
        """What is not final: answered in `step`."""
        self._asking.append((channel, frame))

    def vacuum(self, channel: Channel, frame: Vacuum) -> None:
        """Remove segments; the answer comes when they are gone."""
        leaving = self._kept_of(frame.bases)
        if self._leaving:
            channel.say(Refused(frame.token, "Unexpected", BUSY, LATER_HINT))
        elif len(leaving) < len(frame.bases):
            channel.say(Refused(frame.token, "Unexpected", STALE, LATER_HINT))
            self.look_soon()
        elif self._is_needed(leaving):
            channel.say(Refused(frame.token, "Unexpected", NOT_FINAL, LATER_HINT))
        else:
            self._leaving.extend(frame.bases)
            self._asked = (channel, frame)
            self._is_recorded = self._record(frame)

    def _unfinished(self) -> list[int]:
        """What was to be removed and is still there."""
        leaving = self._kept_of(self._books.delivery.leaving)
        return [] if self._is_needed(leaving) else [extent.base for extent in leaving]

    def _kept_of(self, bases: list[int]) -> list[Extent]:
        """Those of the segments that are kept; never the newest."""
        wanted = set(bases) - {self._books.store.segment_base}
        return [extent for extent in self._books.reader.extents() if extent.base in wanted]

    def _is_needed(self, leaving: list[Extent]) -> bool:
        """Whether something that is not final would go, by a mistake of ours or found before a new start."""
        records, waiting = self._places()
        stretches = [(offset, offset + 1) for (offset,) in OFFSET.iter_unpack(records)]
        for start, stop in (*stretches, *STRETCH.iter_unpack(waiting)):
            place = bisect_left(leaving, stop, key=attrgetter("base")) - 1
            if place >= 0 and start < leaving[place].stop:
                return True
        return False

    def _places(self) -> tuple[bytes, bytes]:
        """`records` and `waiting` of Needed."""
        records: list[int] = []
        waiting: list[tuple[int, int]] = []
        for peer in self._books.delivery.peers.values():
            records += [batch.offset for batch in peer.out.unreceipted]
            for kept in peer.out.waiting:
                if kept.kind != Kind.HELD:
                    records.append(kept.start)
                elif waiting and waiting[-1][1] == kept.start:
                    waiting[-1] = (waiting[-1][0], kept.stop)
                else:
                    waiting.append((kept.start, kept.stop))
        return b"".join(map(OFFSET.pack, records)), b"".join(STRETCH.pack(*each) for each in waiting)

    # --- removing ---------------------------------------------------------------------------------------

    def _remove_one(self) -> None:
        try:
            vacuum.remove(REAL_FILES, self._books.reader.directory, [self._leaving[0]])
        except (StorageFull, OSError) as error:
            self._fail(str(error))
            return
        self._leaving.popleft()
        if not self._leaving:
            self._done()

    def _done(self) -> None:
        """All has gone: now it is said."""
        asked, self._asked = self._asked, None
        if asked is not None:
            channel, frame = asked
            if not self._is_recorded:
                self._record(frame)
            self._books.promise(channel, Done(frame.token, True, len(frame.bases)))
            counts = {"segments": len(frame.bases), "messages": frame.messages, "bytes": frame.size}
            self._books.event("log.vacuumed", **counts, user=frame.user, reason=frame.reason)
        self._books.delivery.leaving = []
        self.look_soon()  # the index process finds some at a time

    def _fail(self, reason: str) -> None:
        left = len(self._leaving)
        self._leaving.clear()
        asked, self._asked = self._asked, None
        journal.event("vacuum.failed", reason=reason, segments=left)
        if asked is not None:
            channel, frame = asked
            text = f"{left} segments of the log could not be removed: {reason}."
            channel.say(Refused(frame.token, "StorageRefused", text, FAILED_HINT))

    def _record(self, frame: Vacuum) -> bool:
        """Put it into the log who removes what; False where there is no room, which is being made."""
        change = PeerChange("vacuumed", b"", "", user=frame.user, reason=frame.reason)
        change.segments, change.messages, change.size = len(frame.bases), frame.messages, frame.size
        change.bases = frame.bases
        payload = _encode(change)
        try:
            self._books.room(len(payload), essential=True)
            self._books.add(Kind.PEER, payload=payload)
        except StorageFull:
            return False
        self._books.delivery.leaving = frame.bases
        return True
