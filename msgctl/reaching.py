"""How a control socket is reached, with the sentence to say where it is not.

On msgctl's fast path, so `_socket`, the C part of `socket`: the rest would import selectors and enum (7 ms).
"""

import _socket
import os

from msgd import errors

CONNECT_TIMEOUT_S = 10.0
MAX_PATH_BYTES = 107  # sockaddr_un.sun_path less its NUL


def connected(path: str) -> _socket.socket:
    """A connection to the control socket at `path`. Raises Unreachable, UsageError."""
    raw = os.fsencode(path)
    if len(raw) > MAX_PATH_BYTES:
        raise errors.UsageError(
            f"the path of the control socket has {len(raw)} bytes, but at most {MAX_PATH_BYTES} fit: {path}"
        )
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.settimeout(CONNECT_TIMEOUT_S)
    try:
        sock.connect(raw)
    except OSError as exc:
        sock.close()
        raise _unreachable(path, exc) from exc
    return sock


def _unreachable(path: str, exc: OSError) -> errors.MsgdError:
    if isinstance(exc, PermissionError):
        return errors.Unreachable(
            f"you may not open the control socket {path}", "ask an administrator to add you to the group msgd"
        )
    if isinstance(exc, TimeoutError | BlockingIOError):
        return errors.Unreachable(f"msgd does not take the connection to {path}", where_it_says(path))
    what = "there is no such socket" if isinstance(exc, FileNotFoundError) else os.strerror(exc.errno or 0)
    fix = "`msgctl lab up`" if _is_lab(path) else "`systemctl start msgd` or `msgctl lab up`"
    return errors.Unreachable(f"msgd is not running: {path}: {what}", f"start it with {fix}")


def where_it_says(path: str) -> str:
    """Where the msgd of this socket says what happened."""
    return f"see {_output(path)}" if _is_lab(path) else "see `journalctl -u msgd`"


def _is_lab(path: str) -> bool:
    return os.path.exists(_output(path))


def _output(path: str) -> str:
    """A lab node's output, beside its socket."""
    return os.path.join(os.path.dirname(path), "msgd.out")
