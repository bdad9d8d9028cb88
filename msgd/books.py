"""The log process's books: the store, where everybody stands, and the promises that a commit makes true.

Whoever handles a request adds records and promises answers; `commit` writes all that was added with one
write and one fdatasync and only then sends what was promised: commit, then speak. When the disk is full
nothing of the group was kept, so every promise becomes a refusal, and the standing is read back from the log.
When fdatasync fails nobody can tell what was kept: every promise becomes "unknown whether kept" and the
process ends for good (`Fatal`).
"""

from collections.abc import Callable
from typing import Any

import msgspec

from msgd import journal
from msgd.channel import Channel
from msgd.delivery import Delivery
from msgd.errors import Fatal
from msgd.log.clock import Clock
from msgd.log.errors import AppendFull, Damaged, StorageFull, SyncFailed
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.log.record import FLAG_REPORTS, OVERHEAD_BYTES, ZERO_HEAD, Header, Kind
from msgd.log.store import Store
from msgd.recent import RecentIds
from msgd.standing import Peer, PeerChange
from msgd.wire.frame import Frame
from msgd.wire.ledger import Refused, Wake, Watch
from msgd.wire.trust import TrustChanged

CLOCK_STEP_NS = 500_000_000  # NTP slews below this; more in one go is somebody setting the clock

FULL_MESSAGE = "The log cannot take the message: no space is left on its disk. Nothing was kept."
FULL_HINT = "Free some space; msgd goes on by itself."
LOST_MESSAGE = "Unknown whether the message was kept: the disk failed while it was written."
LOST_HINT = "msgd has stopped. Look at `journalctl -u msgd`, check the disk, then start it again."

_encode = msgspec.msgpack.Encoder().encode


class Books:
    """Store, standing and promises of one log process."""

    def __init__(self, store: Store, reader: Reader, page: SharedPage, clock: Clock) -> None:
        self.store = store
        self.reader = reader
        self.page = page
        self.clock = clock
        self.delivery = Delivery()
        self.recent = RecentIds()
        self.generation = clock.mono_ns()  # changes whenever it changes who is a peer; new at each start
        self._wall_less_boot_ns = clock.wall_ns() - clock.boot_ns()
        self._seen_wall_less_boot_ns = self._wall_less_boot_ns
        self.watchers: set[Channel] = set()
        self.on_reread: Callable[[], None] = lambda: None
        self._full_told = False
        self._promises: list[tuple[Channel, Frame, Frame | None, bytes | memoryview]] = []
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._touched: list[Wake] = []  # what was added
        self._ids: list[bytes] = []  # of the messages that were added

    def room(self, size: int, *, essential: bool = False) -> None:
        """Raises StorageFull unless a record with this payload can surely be written."""
        try:
            self.store.room(size + OVERHEAD_BYTES, essential=essential)
        except StorageFull as error:
            if not self._full_told:
                journal.event("log.full", reason=str(error))
            self._full_told = True
            raise
        if self._full_told and not self.store.is_full:
            self._full_told = False
            journal.event("log.recovered")

    def add(
        self,
        kind: int,
        *,
        peer: int = 0,
        direction: int = 0,
        count: int = 0,
        first_seq: int = 0,
        head: bytes = ZERO_HEAD,
        aux: int = 0,
        flags: int = 0,
        payload: bytes | memoryview = b"",
    ) -> int:
        """Put a record into the next append, committing what is there when it would pass 1 MiB: its offset.

        Raises StorageFull when that commit is refused.
        """
        for _ in range(2):
            try:
                offset = self.store.add(
                    kind,
                    peer=peer,
                    direction=direction,
                    count=count,
                    first_seq=first_seq,
                    head=head,
                    aux=aux,
                    flags=flags,
                    payload=payload,
                )
                break
            except AppendFull:
                if not self.commit():  # what the caller knows of the standing is void now
                    raise StorageFull(FULL_MESSAGE) from None
        else:
            raise AssertionError(f"a payload of {len(payload)} bytes does not fit into one append")
        self._touched.append(Wake(offset, kind, peer, direction, first_seq, aux, bool(flags & FLAG_REPORTS)))
        return offset

    def change_peer(self, number: int, change: PeerChange) -> Peer:
        """Put what changes about a peer into the log, and into the standing. Raises StorageFull."""
        self._add_change(number, change)
        return self.delivery.peer_changed(number, change, self.clock.wall_ns())

    def change_node(self, change: PeerChange) -> None:
        """The same for what is about this node and no peer."""
        self._add_change(0, change)
        self.delivery.node_changed(change, self.clock.start)

    def _add_change(self, number: int, change: PeerChange) -> None:
        payload = _encode(change)
        self.room(len(payload), essential=True)
        self.generation += 1
        self.add(Kind.PEER, peer=number, payload=payload)

    def promise(
        self,
        channel: Channel,
        frame: Frame,
        otherwise: Frame | None = None,
        payload: bytes | memoryview = b"",
    ) -> None:
        """Say this to the channel after the commit; `otherwise` if the commit is refused."""
        self._promises.append((channel, frame, otherwise, payload))

    def event(self, name: str, **fields: Any) -> None:
        """Write this event after the commit, and not at all if the commit is refused."""
        if journal.is_shown(name):
            self._events.append((name, fields))

    def promise_answer(self, channel: Channel, token: int, frame: Frame) -> None:
        """Promise the answer to a request; a refused commit answers it with StorageRefused."""
        self.promise(channel, frame, refused_full(token))

    def steady_wall_ns(self) -> int:
        """The wall clock as it would be now had nobody moved it since this start."""
        return self._wall_less_boot_ns + self.clock.boot_ns()

    def age_ns(self, header: Header) -> int:
        """How old a record is: by CLOCK_BOOTTIME within one boot, across boots by the wall clock."""
        if header.start[:8] == self.clock.start[:8]:
            return self.clock.boot_ns() - header.boot_ns
        return max(0, self.clock.wall_ns() - header.wall_ns)

    def note_clock_step(self) -> int:
        """How far the wall clock was moved since the last call, in ns; small drift is no step."""
        less = self.clock.wall_ns() - self.clock.boot_ns()
        step, self._seen_wall_less_boot_ns = less - self._seen_wall_less_boot_ns, less
        return step if abs(step) >= CLOCK_STEP_NS else 0

    def remember(self, ids: list[bytes]) -> None:
        """These ids are in the record that was added last."""
        self.recent.add(ids, self.store.end)
        self._ids += ids

    def mark(self) -> tuple[int, int, int]:
        """Where the append ends now, for `undo`."""
        return self.store.end, len(self._promises), len(self._events)

    def undo(self, mark: tuple[int, int, int]) -> bool:
        """Take back promises and events since `mark`. False: records were added, so this cannot be done."""
        end, promises, events = mark
        if self.store.end != end:
            return False
        del self._promises[promises:], self._events[events:]
        return True

    def commit(self) -> bool:
        """Make all that was added durable, then keep every promise; False when the disk has no room for it.

        Raises Fatal for a failed fdatasync.
        """
        promises, self._promises = self._promises, []
        touched, self._touched = self._touched, []
        ids, self._ids = self._ids, []
        events, self._events = self._events, []
        if self.store.pending:
            try:
                self.page.committed = self.store.commit()
            except StorageFull:
                self.recent.forget(ids)
                self._reread()
                for channel, _, otherwise, _ in promises:
                    if otherwise is not None:
                        channel.say(otherwise)
                return False
            except SyncFailed as error:
                for channel, _, otherwise, _ in promises:
                    if isinstance(otherwise, Refused):
                        channel.say(Refused(otherwise.token, "Uncertain", LOST_MESSAGE, LOST_HINT))
                raise Fatal(str(error), LOST_HINT) from error
        for channel, frame, _, payload in promises:
            channel.say(frame, payload)
        if touched:
            self._wake(touched)
        for name, fields in events:
            journal.event(name, **fields)
        return True

    def _wake(self, touched: list[Wake]) -> None:
        for channel in list(self.watchers):
            for wake in touched:
                if wake.peer in channel.watching and wake.peer:
                    channel.say(wake)
            if 0 in channel.watching:
                channel.watching.discard(0)
                channel.say(Wake(self.page.committed))

    def watch(self, channel: Channel, frame: Watch) -> None:
        """From now on this channel is told of what it watches."""
        if frame.peer == 0 and frame.since < self.page.committed:
            channel.say(Wake(self.page.committed))
            return
        channel.watching.add(frame.peer)
        self.watchers.add(channel)

    def tell_watchers(self, number: int) -> None:
        """After the commit: something about this peer is new that no record of messages tells."""
        for channel in self.watchers:
            if number in channel.watching:
                self.promise(channel, TrustChanged(number))

    def watch_too(self, number: int, more: int) -> None:
        """Whoever watches peer `number` from now on watches `more`, too."""
        for channel in self.watchers:
            if number in channel.watching:
                channel.watching.add(more)

    def _reread(self) -> None:
        """Take the standing back from the log: what was added last was not kept."""
        self.load()
        self.on_reread()

    def load(self) -> None:
        """Build the standing from the newest segment."""
        self.delivery = Delivery()
        for header in self.reader.headers(self.store.segment_base, self.store.committed):
            self.delivery.apply(self.reader.record(header.offset))


def refused_full(token: int) -> Refused:
    """The answer to a request that the disk has no room for."""
    return Refused(token, "StorageRefused", FULL_MESSAGE, FULL_HINT)


def refused_damage(token: int, damage: Damaged) -> Refused:
    """The answer to a request that met a record which is not what was written."""
    text = f"The log is damaged: {damage.segment}, log offset {damage.offset}: {damage.why}."
    return Refused(token, "StorageRefused", text, "The rest of it is sound. Restore the segment from a copy.")


def tell_damage(damage: Damaged) -> None:
    """The event."""
    journal.event("log.damage_found", segment=damage.segment, offset=damage.offset, reason=damage.why)
