"""The log process: the only writer. Hears all requests, commits them in groups, then answers.

One loop: read one portion from every channel that has something, handle it, commit all of it with one
write and one fdatasync, keep the promises; then release what may be released. So the busier it is the
larger the groups, and nobody waits for a timer. What a request means stands in `outgoing`, `linking` and
`peering`; this file is who says what, and when it is over.

It ends with 74 when a sync failed, with 78 when the state cannot be used, and when its supervisor is gone.
"""

import fcntl
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from msgd import errors, journal
from msgd.books import Books, Channel, refused_damage, refused_full, tell_damage
from msgd.config import Config
from msgd.delivery import Delivery
from msgd.errors import ConfigError
from msgd.linking import Linking
from msgd.log.clock import Clock
from msgd.log.errors import AppendFull, Damaged, StorageFull, SyncFailed
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.log.record import Kind, Record
from msgd.log.store import Store
from msgd.outgoing import Outgoing
from msgd.peering import Peering
from msgd.recent import RecentIds
from msgd.standing import ClockStep, Peer
from msgd.wire.codec import decode_ids
from msgd.wire.ledger import (
    Batch,
    Cancel,
    Clocks,
    DialFailed,
    DialNow,
    Done,
    FirstUnreceipted,
    HeadAt,
    Indexed,
    Introduce,
    KnownPeer,
    MayDial,
    Nudge,
    Opened,
    OpenEpoch,
    Peers,
    PeerState,
    Ping,
    Plan,
    Pong,
    Proven,
    PutPeer,
    Ready,
    Receipt,
    Refused,
    Reload,
    ReloadAsked,
    Reloaded,
    Settings,
    Snapshot,
    State,
    Stop,
    Submit,
    TakeHello,
    Tell,
    Watch,
)

LOCK_WITHIN_S = 2.0  # a state directory that is in use for longer is in use
DISK_HINT = "Check the disk, then start msgd again."
EXPIRE_AGAIN_NS = 1_000_000_000
STOP_S = 3.0  # links get this long to say goodbye before the log process ends without them
_encode = msgspec.msgpack.Encoder().encode


class Ledger:
    """The log process's loop and its table of requests."""

    def __init__(self, supervisor: socket.socket, books: Books, identity: bytes, index_path: str) -> None:
        self.books = books
        self._care: set[Channel] = set()  # channels that need attention
        self.supervisor = Channel(supervisor, "supervisor", 0, self._care)
        self.channels: dict[int, Channel] = {self.supervisor.fd: self.supervisor}
        self.links = Linking(books, identity, self._tell_peer)
        self.outgoing = Outgoing(books, self.links, index_path)
        self.peering = Peering(books, self.links, self.outgoing, self._tell_peer)
        self.links.on_ready = self._on_ready
        self.links.wants_dial_now = lambda number, eager: self.supervisor.say(DialNow(number, eager))
        books.on_reread = self.links.reread
        self.indexed = 0
        self.stopping_until_s = 0.0
        self._expire_again_ns = 0  # not before, after a disk without room
        self._reloads: dict[int, tuple[Channel, int]] = {}
        self._epoll = select.epoll()
        self._epoll.register(self.supervisor.fd, select.EPOLLIN)

    # --- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the supervisor is gone or said stop. Raises Fatal."""
        self._tell_peers()
        while not self._is_over():
            timeout = 0.0 if self.outgoing.releasable else self._timeout_s()
            for fd, mask in self._epoll.poll(timeout):
                channel = self.channels.get(fd)
                if channel is None:
                    continue
                if mask & select.EPOLLOUT:
                    channel.flush()
                if mask & ~select.EPOLLOUT:
                    self._hear(channel)
            self._settle()

    def _settle(self) -> None:
        """Commit what was asked, then what that lets flow; roll the segment; drop who does not read."""
        books = self.books
        books.commit()
        self._expire()
        if self.outgoing.releasable and self.outgoing.release_some():
            books.commit()
        if books.store.needs_roll:
            self._roll()
        while self._care:
            self._attend(self._care.pop())

    def _attend(self, channel: Channel) -> None:
        """A channel is broken, or has something to write, or no longer."""
        if self.channels.get(channel.fd) is not channel:
            return
        if channel.broken:
            journal.event("reader.dropped", title=f"{channel.kind} process {channel.pid}")
            self._lost(channel)
        elif bool(channel.outbound) != channel.wants_out:
            channel.wants_out = not channel.wants_out
            self._epoll.modify(channel.fd, select.EPOLLIN | (select.EPOLLOUT if channel.wants_out else 0))

    def _hear(self, channel: Channel) -> None:
        """One portion of what a process says; its end is the end of what it asked for."""
        supervisor = channel is self.supervisor
        frames = channel.pipe.receive_with_fds() if supervisor else channel.pipe.receive()
        if frames is None:
            self._lost(channel)
            return
        for frame, payload in frames:
            try:
                HANDLERS[type(frame)](self, channel, frame, payload)
            except (StorageFull, Damaged) as error:
                if isinstance(error, Damaged):
                    tell_damage(error)
                token = getattr(frame, "token", None)
                if token is not None:
                    refused = (
                        refused_damage(token, error) if isinstance(error, Damaged) else refused_full(token)
                    )
                    channel.say(refused)

    def _lost(self, channel: Channel) -> None:
        self._epoll.unregister(channel.fd)
        del self.channels[channel.fd]
        self.books.watchers.discard(channel)
        if channel.kind == "link":
            self.links.gone(channel)
        channel.pipe.close()

    def _timeout_s(self) -> float:
        due_ns = self.books.delivery.next_expiry_ns()
        if self.stopping_until_s:
            return 0.05
        if not due_ns:
            return -1
        due_ns = max(due_ns, self._expire_again_ns)
        return min(max(0.0, (due_ns - self.books.steady_wall_ns()) / 1e9), 60.0)

    def _is_over(self) -> bool:
        if self.supervisor.fd not in self.channels:
            return True
        if not self.stopping_until_s:
            return False
        return not self.links.channels or self.books.clock.mono_ns() / 1e9 > self.stopping_until_s

    def _expire(self) -> None:
        now_ns = self.books.steady_wall_ns()
        due_ns = self.books.delivery.next_expiry_ns()
        if due_ns and max(due_ns, self._expire_again_ns) <= now_ns:
            try:
                self.outgoing.expire()
            except StorageFull:  # told as log.full already; the ends are written when there is room
                self._expire_again_ns = now_ns + EXPIRE_AGAIN_NS
            self.books.commit()

    def _roll(self) -> None:
        books = self.books
        try:
            books.store.roll(books.delivery.checkpoint(books.recent.newest_ms()))
        except (StorageFull, AppendFull, OSError):
            return  # the old segment goes on taking what it has room for
        books.page.committed = books.store.committed
        journal.event("log.rolled", segment=books.store.segment_base)

    # --- requests that are answered here ----------------------------------------------------------------

    def _introduce(self, _: Channel, frame: Introduce) -> None:
        sock = socket.socket(fileno=self.supervisor.pipe.fds.pop(0))
        channel = Channel(sock, frame.kind, frame.pid, self._care)
        self.channels[channel.fd] = channel
        if frame.kind == "link":
            self.links.channels[channel.fd] = channel
        self._epoll.register(channel.fd, select.EPOLLIN)

    def _ping(self, _: Channel, frame: Ping) -> None:
        queued = sum(p.out.queued_count for p in self._peers())
        self.supervisor.say(Pong(frame.token, self.links.connected(), queued, 0))
        self._note_clock()

    def _note_clock(self) -> None:
        step_ns = self.books.note_clock_step()
        if step_ns:
            self.books.add(Kind.CLOCK_STEP, payload=_encode(ClockStep(step_ns)))
            journal.event("clock.stepped", step_s=step_ns / 1e9)

    def _snapshot(self, channel: Channel, frame: Snapshot) -> None:
        peers = self.books.delivery.peers
        chosen = [peers[frame.peer]] if frame.peer in peers else peers.values()
        states = [self._state_of(peer) for peer in chosen]
        store = self.books.store
        channel.say(
            State(frame.token, store.log_id, self.books.generation, states, self.indexed, store.is_full)
        )

    def _state_of(self, peer: Peer) -> PeerState:
        out, status = peer.out, self.links.status(peer.number)
        return PeerState(
            number=peer.number,
            identity=peer.identity,
            name=peer.name,
            address=peer.address,
            removed=peer.removed,
            connected=self.links.is_connected(peer.number),
            since_ns=status.since_ns,
            reason=status.reason,
            next_mono_ns=status.next_mono_ns,
            queued=out.queued_count,
            unreceipted=sum(b.count for b in out.unreceipted),
            sent=out.receipt,
            received=peer.inward.last,
            seen_ns=peer.seen_ns,
            offset_ns=status.offset_ns,
            round_trip_ns=status.round_trip_ns,
        )

    def _nudge(self, channel: Channel, frame: Nudge) -> None:
        self.supervisor.say(DialNow(frame.peer, True))
        channel.say(Done(frame.token))

    def _reload(self, channel: Channel, frame: Reload) -> None:
        number = max(self._reloads, default=0) + 1
        self._reloads[number] = (channel, frame.token)
        self.supervisor.say(ReloadAsked(number))

    def _reloaded(self, _: Channel, frame: Reloaded) -> None:
        channel, token = self._reloads.pop(frame.token)
        channel.say(Reloaded(token, frame.error))

    def _settings(self, _: Channel, frame: Settings) -> None:
        journal.set_level(frame.log_level)
        self.links.window.bytes, self.links.window.batches = frame.window_bytes, frame.window_batches
        self._tell_peers()  # their addresses as the log has them: the configuration's may have gone

    def _indexed(self, _: Channel, frame: Indexed) -> None:
        self.indexed = frame.offset
        self.books.recent.indexed(frame.offset)

    def _receipt(self, channel: Channel, frame: Receipt) -> None:
        if self.links.receipt(channel, frame):
            self.outgoing.releasable.add(channel.peer)

    def _on_ready(self, peer: Peer) -> None:
        self.outgoing.releasable.add(peer.number)

    def _stop(self, _: Channel, __: Stop) -> None:
        self.links.cut_all("closing")
        self.stopping_until_s = self.books.clock.mono_ns() / 1e9 + STOP_S

    def _tell_peers(self) -> None:
        self.supervisor.say(Peers([self.links.known(p) for p in self.books.delivery.peers.values()]))

    def _tell_peer(self, known: KnownPeer) -> None:
        self.supervisor.say(Peers([known]))

    def _peers(self) -> list[Peer]:
        return [p for p in self.books.delivery.peers.values() if not p.removed]


Handler = Callable[[Ledger, Channel, Any, memoryview], None]

HANDLERS: dict[type[Any], Handler] = {
    Introduce: lambda me, ch, frame, _: me._introduce(ch, frame),
    Ping: lambda me, ch, frame, _: me._ping(ch, frame),
    Plan: lambda me, _, frame, __: me.links.plan(frame),
    Settings: lambda me, ch, frame, _: me._settings(ch, frame),
    DialFailed: lambda me, _, frame, __: me.supervisor.say(frame),
    Reloaded: lambda me, ch, frame, _: me._reloaded(ch, frame),
    Stop: lambda me, ch, frame, _: me._stop(ch, frame),
    Submit: lambda me, ch, frame, payload: me.outgoing.submit(ch, frame, payload),
    Cancel: lambda me, ch, frame, _: me.outgoing.cancel(ch, frame),
    PutPeer: lambda me, ch, frame, _: me.peering.put(ch, frame),
    Watch: lambda me, ch, frame, _: me.books.watch(ch, frame),
    Nudge: lambda me, ch, frame, _: me._nudge(ch, frame),
    Snapshot: lambda me, ch, frame, _: me._snapshot(ch, frame),
    Reload: lambda me, ch, frame, _: me._reload(ch, frame),
    MayDial: lambda me, ch, frame, _: me.links.may_dial(ch, frame),
    TakeHello: lambda me, ch, frame, _: me.links.take_hello(ch, frame),
    Opened: lambda me, ch, frame, _: me.links.opened(ch, frame),
    HeadAt: lambda me, ch, frame, _: me.links.head_at(ch, frame),
    OpenEpoch: lambda me, ch, frame, _: me.links.open_epoch(ch, frame),
    Proven: lambda me, ch, frame, _: me.links.proven(ch, frame),
    FirstUnreceipted: lambda me, ch, frame, _: me.links.first_unreceipted(ch, frame),
    Ready: lambda me, ch, frame, _: me.links.make_ready(ch, frame),
    Batch: lambda me, ch, frame, payload: me.links.batch(ch, frame, payload),
    Receipt: lambda me, ch, frame, _: me._receipt(ch, frame),
    Tell: lambda me, ch, frame, _: me.links.tell(ch, frame),
    Clocks: lambda me, ch, frame, _: me.links.clocks(ch, frame),
    Indexed: lambda me, ch, frame, _: me._indexed(ch, frame),
}


# --- start --------------------------------------------------------------------------------------------------


def run(supervisor: socket.socket, page: SharedPage, config: Config, identity: bytes) -> int:
    """Body of the log process: open the log, serve, and say with the exit code why it ended."""
    try:
        lock = lock_state(config.state)
        books = open_books(config, page)
    except errors.MsgdError as error:
        journal.event("log.refused", reason=error.message, hint=error.hint)
        Channel(supervisor, "supervisor", 0, set()).say(Refused(0, error.name, error.message, error.hint))
        return error.code
    ledger = Ledger(supervisor, books, identity, os.path.join(config.state, "index.sqlite"))
    ledger.links.window.bytes = config.limits.window_bytes
    ledger.links.window.batches = config.limits.window_batches
    try:
        ledger.run()
    except (errors.Fatal, SyncFailed) as error:  # SyncFailed: outside a commit, as when a segment is sealed
        journal.event("log.failed", reason=str(error))
        return errors.EX_IOERR
    os.close(lock)
    return errors.OK


def lock_state(state: str) -> int:
    """Take the state directory for this daemon: a file descriptor that holds the lock.

    The log process of a supervisor that was just killed may have to end its fdatasync first. Raises
    ConfigError when another msgd has it.
    """
    try:
        fd = os.open(os.path.join(state, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"Cannot use the state directory {state}: {error.strerror}.", "Is its disk full or read-only?"
        ) from error
    end_s = time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > end_s:
                raise ConfigError(
                    f"Another msgd is running on the state directory {state}.",
                    "Stop it first, or give this one a state directory of its own.",
                ) from None
            time.sleep(0.02)


def open_books(config: Config, page: SharedPage) -> Books:
    """Open and recover the log.

    Raises ConfigError for damage in the middle and for a disk that is full, Fatal for a failed sync.
    """
    directory = os.path.join(config.state, "log")
    clock = Clock()
    delivery, recent = Delivery(), RecentIds()

    first: list[int] = []

    def apply(record: Record) -> None:
        delivery.apply(record)
        if not first:
            first.append(record.offset)
        if record.kind in (Kind.OUT, Kind.HELD):
            recent.add(decode_ids(record.payload, record.count), record.end)

    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        store = Store(directory, clock, segment_bytes=config.limits.segment_bytes, page=page)
        recovery = store.recover(
            apply, lambda: delivery.checkpoint(max(recent.newest_ms(), delivery.id_horizon_ms))
        )
    except Damaged as error:
        text = f"The log is damaged in the middle: {error.segment}, log offset {error.offset}: {error.why}."
        raise ConfigError(
            text, "Nothing was changed. Put the segment aside or restore it, then start again."
        ) from error
    except StorageFull as error:
        raise ConfigError(
            f"No space for the log in {directory}.", "Free some space, then start msgd again."
        ) from error
    except SyncFailed as error:
        raise errors.Fatal(f"The disk failed while the log was opened: {error}.", DISK_HINT) from error
    except OSError as error:
        raise ConfigError(
            f"Cannot use the log in {directory}: {error.strerror}.", "See that msgd may write there."
        ) from error
    recent.horizon_ms = delivery.id_horizon_ms
    recent.start = first[0] if first else 0
    books = Books(store, Reader(directory, lambda: page.committed), page, clock)
    books.delivery, books.recent = delivery, recent
    page.committed = store.committed
    if recovery.created:
        journal.event("log.created", directory=directory)
    journal.event(
        "log.opened", records=recovery.records, seconds=round(recovery.seconds, 3), offset=store.committed
    )
    if recovery.cut_bytes:
        journal.event("log.repaired", cut_bytes=recovery.cut_bytes, kept_as=recovery.broken_path)
    return books
