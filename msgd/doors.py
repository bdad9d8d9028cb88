"""Who comes in: connections of control clients and of peers, each to a worker of its own.

A peer's connection waits in the lobby until its first bytes look like TLS; only then a process is forked
for it. The doors are closed while there is no log process: clients wait in the kernel's queue.
"""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable

from msgd import control, journal, link
from msgd.children import Child, Children, Kind
from msgd.listening import Listener
from msgd.lobby import TLS_HANDSHAKE, Guest, Lobby

Body = Callable[[socket.socket], int | None]  # of a child, given its channel to the log process
Spawn = Callable[[Kind, str, Body, list[int], object], Child | None]


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

    # --- control clients --------------------------------------------------------------------------------

    def _accept_control(self, listener: socket.socket) -> None:
        sock = _accept(listener)
        if sock is None:
            return
        with sock:
            place = self._place()
            uid = control.credentials(sock).uid
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
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(TLS_HANDSHAKE))  # one byte wakes nobody
        guest, leaving = self.lobby.enter(sock, _address_of(sock), time.monotonic())
        for other in leaving:
            self.turn_out(other)
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
        if first and first != TLS_HANDSHAKE:
            journal.event("connection.refused", address=guest.address, reason="it does not speak TLS")

    def _begin_link(self, guest: Guest, sock: socket.socket) -> bool:
        place = self._place()
        child = self._spawn(
            Kind.PEER,
            guest.address,
            lambda channel: link.accept(place.node, sock, guest.address, channel, place.reader),
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
    return name[0], name[1]
