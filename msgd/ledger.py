"""The log process: the only writer. Hears all requests, commits them in groups, then answers.

One loop: read one portion from every channel that has something, handle it, commit all of it with one
write and one fdatasync, keep the promises; then release what may be released. So the busier it is the
larger the groups, and nobody waits for a timer. Who answers what stands in `desk`; this file is who
speaks, when it is committed, and when it is over.

A request that fails unexpectedly is refused when it has put nothing into the append. Else the process ends:
its successor finds in the log what is true.

It ends with 74 when a sync failed, with 78 when the state cannot be used, and when its supervisor is gone.
"""

import os
import select
import socket
import traceback
from collections.abc import Callable
from typing import Any

from msgd import desk, errors, journal
from msgd.books import Books, refused_damage, refused_full, tell_damage
from msgd.channel import Channel
from msgd.config import Config
from msgd.linking import KEY_ROTATED
from msgd.log.errors import AppendFull, Damaged, StorageFull, SyncFailed
from msgd.log.page import SharedPage
from msgd.opening import lock_state, open_books
from msgd.wire.ledger import Cut, Introduce, Refused, Stop

FAILED_HINT = "`journalctl -u msgd` says more. If it comes again, report it."
EXPIRE_AGAIN_NS = 1_000_000_000
STOP_S = 3.0  # links get this long to say goodbye before the log process ends without them


class Ledger:
    """The log process's loop."""

    def __init__(self, supervisor: socket.socket, books: Books, identity: bytes, config: Config) -> None:
        self.books = books
        self._care: set[Channel] = set()  # channels that need attention
        self.supervisor = Channel(supervisor, "supervisor", 0, self._care)
        self.channels: dict[int, Channel] = {self.supervisor.fd: self.supervisor}
        self.desk = desk.Desk(books, identity, config, self.supervisor.say)
        self.links, self.outgoing = self.desk.links, self.desk.outgoing
        self.stopping_until_s = 0.0
        self._expire_again_ns = 0  # not before, after a disk without room
        self._epoll = select.epoll()
        self._epoll.register(self.supervisor.fd, select.EPOLLIN)

    # --- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the supervisor is gone or said stop. Raises Fatal."""
        while not self._is_over():
            is_busy = self.outgoing.releasable or self.desk.tidying.is_busy
            timeout = 0.0 if is_busy else self._timeout_s()
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
        self.desk.consuming.expire()
        if self.outgoing.releasable and self.outgoing.release_some():
            books.commit()
        self._tidy()
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
            before = self.books.mark()
            try:
                HANDLERS[type(frame)](self, channel, frame, payload)
            except (StorageFull, Damaged) as error:
                self._refuse(channel, frame, error)
            except (errors.Fatal, SyncFailed):
                raise
            except Exception as error:
                if not self.books.undo(before):
                    raise
                self._fail(channel, frame, error)
                if self.channels.get(channel.fd) is not channel:
                    return

    def _fail(self, channel: Channel, frame: Any, error: Exception) -> None:
        """A request met a fault of ours. A link worker ends by it: its peer and we begin anew."""
        reason = f"{type(frame).__name__}: {type(error).__name__}: {error}"
        title = f"{channel.kind} process {channel.pid}"
        journal.event("request.failed", title=title, reason=reason, exception=traceback.format_exc())
        if channel.kind == "link":
            self._lost(channel)
        else:
            self._refuse(channel, frame, error)

    def _refuse(self, channel: Channel, frame: Any, error: Exception) -> None:
        """A request that waits for an answer gets one."""
        if isinstance(error, Damaged):
            tell_damage(error)
        token = getattr(frame, "token", None)
        if token is None:
            return
        match error:
            case Damaged():
                channel.say(refused_damage(token, error))
            case StorageFull():
                channel.say(refused_full(token))
            case _:
                text = "The daemon failed at this request; nothing of it was kept."
                channel.say(Refused(token, "Unexpected", text, FAILED_HINT))

    def _lost(self, channel: Channel) -> None:
        self._epoll.unregister(channel.fd)
        del self.channels[channel.fd]
        self.books.watchers.discard(channel)
        if channel.kind == "link":
            self.desk.gone(channel)
        self.desk.consuming.gone(channel)
        if channel is self.desk.index:
            self.desk.index = None
        channel.pipe.close()

    def _timeout_s(self) -> float:
        if self.stopping_until_s:
            return 0.05
        due_ns = self.books.delivery.next_expiry_ns()
        dues = self.desk.gate.next_expiry_s(), self.desk.consuming.holders.next_s()
        waits = [due_s for due_s in dues if due_s is not None]
        look_ns = self.desk.tidying.next_ns()
        if look_ns is not None:
            waits.append((look_ns - self.books.clock.boot_ns()) / 1e9)
        if due_ns:
            waits.append((max(due_ns, self._expire_again_ns) - self.books.steady_wall_ns()) / 1e9)
        return min(max(0.0, min(waits)), 60.0) if waits else -1

    def _is_over(self) -> bool:
        if self.supervisor.fd not in self.channels:
            return True
        if not self.stopping_until_s:
            return False
        return not self.links.channels or self.books.clock.mono_ns() / 1e9 > self.stopping_until_s

    def _expire(self) -> None:
        if self.desk.gate.expire():
            self.books.commit()
        now_ns = self.books.steady_wall_ns()
        due_ns = self.books.delivery.next_expiry_ns()
        if due_ns and max(due_ns, self._expire_again_ns) <= now_ns:
            try:
                self.outgoing.ending.expire()
            except StorageFull:  # told as log.full already; the ends are written when there is room
                self._expire_again_ns = now_ns + EXPIRE_AGAIN_NS
            self.books.commit()

    def _tidy(self) -> None:
        """What has to do with old segments, a little at a time."""
        tidying = self.desk.tidying
        if not tidying.is_busy and not tidying.is_due():
            return
        if tidying.wants_roll():
            self._roll()
        tidying.step()
        self.books.commit()

    def _roll(self) -> None:
        books = self.books
        try:
            books.store.roll(books.delivery.checkpoint(books.recent.newest_ms()))
        except (StorageFull, AppendFull, OSError):
            return  # the old segment goes on taking what it has room for
        books.page.committed = books.store.committed
        self.desk.tidying.look_soon()
        journal.event("log.rolled", segment=books.store.segment_base)

    # --- requests that are answered here ----------------------------------------------------------------

    def _introduce(self, _: Channel, frame: Introduce) -> None:
        sock = socket.socket(fileno=self.supervisor.pipe.fds.pop(0))
        channel = Channel(sock, frame.kind, frame.pid, self._care)
        self.channels[channel.fd] = channel
        if frame.kind == "link":
            self.links.channels[channel.fd] = channel
            if frame.identity != self.links.identity:  # forked before the supervisor had heard of the new key
                channel.say(Cut(KEY_ROTATED))
        if frame.kind == "index":
            self.desk.index = channel
            self.desk.tidying.look_soon()
        self._epoll.register(channel.fd, select.EPOLLIN)

    def _stop(self, _: Channel, __: Stop) -> None:
        self.links.cut_all("closing")
        self.stopping_until_s = self.books.clock.mono_ns() / 1e9 + STOP_S


Handler = Callable[[Ledger, Channel, Any, memoryview], None]


def _to_desk(handle: desk.Handler) -> Handler:
    return lambda me, channel, frame, payload: handle(me.desk, channel, frame, payload)


HANDLERS: dict[type[Any], Handler] = {
    Introduce: lambda me, ch, frame, _: me._introduce(ch, frame),
    Stop: lambda me, ch, frame, _: me._stop(ch, frame),
    **{kind: _to_desk(handle) for kind, handle in desk.HANDLERS.items()},
}


def run(supervisor: socket.socket, page: SharedPage, config: Config, identity: bytes) -> int:
    """Body of the log process: open the log, serve, and say with the exit code why it ended."""
    try:
        lock = lock_state(config.state)
        ledger = Ledger(supervisor, open_books(config, page), identity, config)
        ledger.desk.start()
    except errors.MsgdError as error:
        journal.event("log.refused", reason=error.message, hint=error.hint)
        Channel(supervisor, "supervisor", 0, set()).say(Refused(0, error.name, error.message, error.hint))
        return error.code
    try:
        ledger.run()
    except (errors.Fatal, SyncFailed) as error:  # SyncFailed: outside a commit, as when a segment is sealed
        journal.event("log.failed", reason=str(error))
        return errors.EX_IOERR
    os.close(lock)
    return errors.OK
