"""Who comes in: connections of control clients and of peers, each to a worker of its own.

A peer's connection waits in the lobby until its first bytes look like TLS; only then a process is forked
for it. What it does wrong before it has said who it is counts against its source. The doors are closed while
there is no log process: clients wait in the kernel's queue.
"""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from msgd import control, journal, penalties, worker
from msgd.access import credentials
from msgd.children import Child, Children, Ended, Kind
from msgd.listening import Listener
from msgd.lobby import TLS_HANDSHAKE, Guest, Lobby, plain_host, source_of
from msgd.wire.ledger import KnownPeer

Body = Callable[[socket.socket], int | None]  # of a child, given its channel to the log process
Spawn = Callable[[Kind, str, Body, list[int], object], Child | None]

ENDED_BY_US = (signal.SIGTERM, signal.SIGKILL)


class Doors:
    """The listeners, while they are open, and the lobby. `place` tells what a worker knows of its node."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        children: Children,
        lobby: Lobby,
        spawn: Spawn,
        place: Callable[[], control.Place],
    ) -> None:
        self.listeners: list[Listener] = []
        self.lobby = lobby
        self.is_open = False
        self._selector = selector
        self._children = children
        self._spawn = spawn
        self._place = place

    def open(self) -> None:
        """Accept from now on."""
        self.is_open = True
        for name, sock in self.listeners:
            accept = self._accept_control if name == "control" else self._accept_peer
            self._selector.register(sock, selectors.EVENT_READ, lambda sock=sock, accept=accept: accept(sock))

    def close(self) -> None:
        """Accept nobody; who waits goes on waiting."""
        if self.is_open:
            self.is_open = False
            for _, sock in self.listeners:
                self._selector.unregister(sock)

    def turn_out(self, guest: Guest) -> None:
        """The guest has lost its place."""
        if guest.sock is not None:
            self._selector.unregister(guest.sock)
            guest.sock.close()
        elif guest.pid in self._children.by_pid:
            os.kill(guest.pid, signal.SIGTERM)

    def turn_out_all(self) -> None:
        """Nobody waits any longer."""
        for guest in list(self.lobby.all()):
            self.turn_out(guest)

    def turn_out_seated(self, want: str) -> None:
        """Those who have stayed for this."""
        for guest in self.lobby.seated[want]:
            self.turn_out(guest)

    def learn(self, peer: KnownPeer) -> None:
        """A link with a peer came or went: its connection is no guest any more, its source is a known one."""
        guest = self.lobby.by_pid(peer.link_pid) if peer.link_pid else None
        if peer.removed or not peer.want:
            self.lobby.peer_gone(peer.number)
        elif guest is not None:
            self.lobby.peer_seen(peer.number, guest.source)
            self.lobby.leave(guest)
        elif peer.linked:
            with suppress(ValueError):  # dialled by the name of a host
                self.lobby.peer_seen(peer.number, source_of(peer.address.rpartition(":")[0].strip("[]")))

    def turn_out_late(self, now_s: float) -> None:
        """Those that took too long lose their places."""
        for guest in self.lobby.late(now_s):
            self.turn_out(guest)
            if not guest.is_admitted:
                self._blame(guest, penalties.UNFINISHED)

    def admitted(self, pid: int, want: str, now_s: float) -> None:
        """The guest of this worker has shown who it is: it takes no stranger's place any more."""
        guest = self.lobby.by_pid(pid)
        if guest is not None:
            for other in self.lobby.seat(guest, want, now_s):
                self.turn_out(other)

    def worker_ended(self, ended: Ended) -> None:
        """A worker of a connection that came in has ended; its exit code says what it met."""
        guest = self.lobby.by_pid(ended.child.pid)
        if guest is None:
            return
        self.lobby.leave(guest)
        if ended.code in penalties.EXITS:
            self._blame(guest, ended.code)
        elif ended.code != 0 and ended.signal not in ENDED_BY_US:
            self._blame(guest, penalties.CRASH)

    def _blame(self, guest: Guest, misdeed: int) -> None:
        now_s = time.monotonic()
        if self.lobby.blame(guest.source, misdeed, now_s):
            seconds = round(self.lobby.closed_s(guest.source, now_s))
            reason = penalties.MISDEEDS[misdeed].reason
            journal.event("source.penalised", source=guest.source, seconds=seconds, reason=reason)

    # --- control clients --------------------------------------------------------------------------------

    def _accept_control(self, listener: socket.socket) -> None:
        sock = _accept(listener)
        if sock is None:
            return
        with sock:
            place = self._place()
            uid = credentials(sock).uid
            same = [c for c in self._children.of(Kind.CONTROL) if c.data == uid]
            if len(same) >= place.config.limits.control_per_uid:
                journal.event("control.refused", uid=uid, reason=f"{len(same)} connections already")
                control.refuse_crowd(sock, len(same))
                return
            self._spawn(
                Kind.CONTROL,
                f"uid {uid}",
                lambda channel: control.run(sock, channel, place),
                [sock.fileno()],
                uid,
            )

    # --- peers ------------------------------------------------------------------------------------------

    def _accept_peer(self, listener: socket.socket) -> None:
        sock = _accept(listener)
        if sock is None:
            return
        address, now_s = _address_of(sock), time.monotonic()
        if self.lobby.closed_s(source_of(address[0]), now_s):
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(TLS_HANDSHAKE))  # one byte wakes nobody
        guest, leaving = self.lobby.enter(sock, address, now_s)
        for other in leaving:
            self.turn_out(other)
            if other.source == guest.source:
                self._blame(other, penalties.UNFINISHED)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._first_bytes(guest))

    def _first_bytes(self, guest: Guest) -> None:
        """The guest has said something: a worker for what looks like TLS, the door for all else."""
        assert guest.sock is not None
        try:
            first = guest.sock.recv(2, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            first = b""
        guest.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._selector.unregister(guest.sock)
        sock, guest.sock = guest.sock, None
        with sock:
            if first == TLS_HANDSHAKE and self.is_open and self._begin_link(guest, sock):
                return
        self.lobby.leave(guest)
        if first != TLS_HANDSHAKE:
            self._blame(guest, penalties.NOT_TLS if first else penalties.UNFINISHED)
        if first and first != TLS_HANDSHAKE:
            journal.event("connection.refused", address=guest.address, reason="it does not speak TLS")

    def _begin_link(self, guest: Guest, sock: socket.socket) -> bool:
        place = self._place()
        child = self._spawn(
            Kind.PEER,
            guest.address,
            lambda channel: worker.accept(
                place.node, sock, guest.address, channel, place.reader, place.config
            ),
            [sock.fileno()],
            None,
        )
        if child is not None:
            guest.pid = child.pid
        return child is not None


def _accept(listener: socket.socket) -> socket.socket | None:
    """A new connection, or None: it has gone again, or there is no descriptor for it now."""
    try:
        return listener.accept()[0]
    except BlockingIOError:
        return None
    except OSError as error:
        journal.event("connection.refused", address=str(listener.getsockname()), reason=error.strerror)
        return None


def _address_of(sock: socket.socket) -> tuple[str, int]:
    try:
        name = sock.getpeername()
    except OSError:
        return "0.0.0.0", 0  # gone already; the first read tells
    return plain_host(name[0]), name[1]
