"""The sockets on which msgd is reached: those that systemd passed, else as the configuration says."""

import os
import socket
import stat

from msgd import journal
from msgd.config import Config
from msgd.errors import ConfigError

BACKLOG = 512
Listener = tuple[str, socket.socket]


def listeners(config: Config, passed: list[Listener]) -> list[Listener]:
    """All listeners, named `control` or `peer`. What systemd passed of one kind wins over the settings.

    Raises ConfigError for an address or path that cannot be used.
    """
    found = list(passed)
    names = {name for name, _ in passed}
    if "peer" not in names:
        found += [("peer", _listen_peer(a.host, a.port)) for a in config.listen]
    if "control" not in names:
        found.append(("control", _listen_control(config.socket)))
    for _, sock in found:
        journal.event("listener.opened", address=_text(sock.getsockname()))
    return found


def port_of(found: list[Listener]) -> int:
    """The port on which peers reach this node, 0 for none."""
    return next((sock.getsockname()[1] for name, sock in found if name == "peer"), 0)


def _listen_peer(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {_text((host, port))}: {error.strerror}.",
            "Is another msgd running? Else correct `listen` in the configuration.",
        ) from error
    sock.listen(BACKLOG)
    return sock


def _listen_control(path: str) -> socket.socket:
    """Bind the control socket; one that nobody answers on any more is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        if os.path.lexists(path):
            _remove_dead(path)
        mask = os.umask(0o111)  # 0666: who may do what is decided per connection, by the kernel's credentials
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
    except OSError as error:
        raise ConfigError(
            f"Cannot make the control socket {path}: {error.strerror or error}.",
            "Correct `socket` in the configuration (at most 107 bytes, in a directory that msgd may write).",
        ) from error
    sock.listen(BACKLOG)
    return sock


def _remove_dead(path: str) -> None:
    """Remove a socket that an earlier msgd left. Raises ConfigError for one that answers and for a file."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ConfigError(
            f"The control socket {path} cannot be made: a file of that name is there.",
            "Move it away, or give this msgd another `socket`.",
        )
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise ConfigError(
        f"Another program answers on the control socket {path}.",
        "Stop it first, or give this msgd another `socket`.",
    )


def _text(name: object) -> str:
    if isinstance(name, tuple):
        host, port = name[0], name[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(name)
