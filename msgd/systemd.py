"""What msgd and systemd say to each other: notifications, passed sockets, the watchdog's period.

Text goes through the package sdnotify, made non-blocking: a stuck service manager must not stop msgd. It
encodes latin-1 and loses what does not fit, so STATUS is kept ASCII here. Nothing in this file can fail
because systemd is absent or its socket is gone: a notification that does not arrive is not repeated, the
next one says the same or more. Only a socket of the wrong kind passed by a unit is an error, and final.

Only the supervisor speaks (NotifyAccess=main). Left out: FDSTORE (a TLS connection cannot be kept that
way) and BARRIER (msgd never hands its notify socket on).
"""

import os
import socket
import stat
import time
from collections.abc import MutableMapping
from contextlib import suppress

import sdnotify

from msgd.errors import ConfigError
from msgd.journal import event

FIRST_FD = 3  # sd_listen_fds(3)
SOCKET_FAMILIES = {  # FileDescriptorName= -> what it must be
    "control": (socket.AF_UNIX,),
    "peer": (socket.AF_INET, socket.AF_INET6),
}


class Notifier:
    """The way to the service manager. Every method returns at once and raises nothing."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        self.is_on = self._notifier.socket is not None
        if self.is_on:
            self._notifier.socket.setblocking(False)

    def notify(self, **fields: str | int) -> None:
        """One datagram of `NAME=value` lines, in the order given."""
        self._notifier.notify("\n".join(f"{name}={_ascii(value)}" for name, value in fields.items()))

    def ready(self, status: str) -> None:
        """Recovered and listening; also the end of a reload."""
        self.notify(READY=1, STATUS=status)

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self.notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def stopping(self, status: str) -> None:
        self.notify(STOPPING=1, STATUS=status)

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self.notify(STATUS=text)

    def watchdog(self) -> None:
        """Alive, and what we lead was found alive."""
        self.notify(WATCHDOG=1)

    def failed(self, status: str, errno: int = 0) -> None:
        """Why we are about to end; `errno` shows as StatusErrno."""
        self.notify(STATUS=status, **({"ERRNO": errno} if errno else {}))


def _ascii(value: str | int) -> str:
    return str(value).encode("ascii", "replace").decode().replace("\n", " ")


def listen_fds(env: MutableMapping[str, str] = os.environ) -> list[tuple[str, socket.socket]]:
    """The listening sockets that systemd passed, by name: `control`, `peer` (several of each may come).

    Takes LISTEN_* out of the environment, closes on exec, makes non-blocking. The order says nothing: it
    changes from start to start. A descriptor that is no socket is closed and told. Call before going to
    the background, since it is for this process id only. Raises ConfigError for a socket that msgd has no
    use for: closed in silence, its clients would wait for ever.
    """
    mine = env.get("LISTEN_PID") == str(os.getpid())
    count = int(env.get("LISTEN_FDS", "0")) if mine else 0
    names = env.get("LISTEN_FDNAMES", "").split(":")
    for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        env.pop(key, None)
    found = []
    for fd in range(FIRST_FD, FIRST_FD + count):
        name = names[fd - FIRST_FD] if fd - FIRST_FD < len(names) else ""
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            found.append((name, _listener(name, fd)))
        else:
            os.close(fd)
            event("socket.ignored", name=name, reason="it is no socket")
    return found


def _listener(name: str, fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    sock.setblocking(False)
    if name not in SOCKET_FAMILIES:
        raise _wrong(name, "that name is unknown", "FileDescriptorName=control or FileDescriptorName=peer")
    if sock.family not in SOCKET_FAMILIES[name] or sock.type != socket.SOCK_STREAM:
        kind = "a Unix" if name == "control" else "a TCP"
        raise _wrong(name, f"it is {sock.family.name} {sock.type.name}", f"{kind} socket in ListenStream=")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise _wrong(name, "it is a connection, not a listener", "Accept=no")
    return sock


def _wrong(name: str, found: str, expected: str) -> ConfigError:
    return ConfigError(
        f"systemd passed a socket named {name!r}, but {found}; expected {expected}",
        "Correct the .socket unit, then systemctl daemon-reload.",
    )


def watchdog_s(env: MutableMapping[str, str] = os.environ) -> float | None:
    """WatchdogSec= of the unit in seconds, None without one; feed it three times as often."""
    if env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with suppress(ValueError):
        return int(env.get("WATCHDOG_USEC", "")) / 1e6
    return None
