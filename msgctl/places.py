"""Where control sockets are: the system's, the user's, a lab node's.

| asked for | path |
|---|---|
| `--socket PATH` | that one |
| `--node NAME` | `$MSGD_LAB_DIR/NAME/control.sock` |
| `MSGD_SOCKET` in the environment | that one |
| nothing | `$XDG_RUNTIME_DIR/msgd/control.sock` where it is and we are not root |
| | else `/run/msgd/control.sock` |
"""

import os
from _collections_abc import Mapping

from msgd.errors import UsageError
from msgd.model import is_name

SYSTEM_SOCKET = "/run/msgd/control.sock"


def control_socket(socket: str | None, node: str | None, env: Mapping[str, str]) -> str:
    """The control socket to use. Raises UsageError for a lab node that is not there."""
    if socket and node:
        raise UsageError("--socket and --node are two ways to say one thing")
    if socket:
        return socket
    if node:
        return lab_socket(node, env)
    if env.get("MSGD_SOCKET"):
        return env["MSGD_SOCKET"]
    mine = os.path.join(env.get("XDG_RUNTIME_DIR") or "/nonexistent", "msgd", "control.sock")
    return mine if os.geteuid() != 0 and os.path.exists(mine) else SYSTEM_SOCKET


def lab_dir(env: Mapping[str, str]) -> str:
    """The directory of the lab's nodes: `MSGD_LAB_DIR`, or `msgd-lab` where this user's state lies."""
    home = env.get("XDG_STATE_HOME") or os.path.join(env.get("HOME") or "~", ".local", "state")
    return os.path.abspath(os.path.expanduser(env.get("MSGD_LAB_DIR") or os.path.join(home, "msgd-lab")))


def lab_socket(node: str, env: Mapping[str, str]) -> str:
    """The control socket of a lab node."""
    lab = lab_dir(env)
    path = os.path.join(lab, node, "control.sock")
    if is_name(node) and os.path.exists(os.path.join(lab, node, "msgd.toml")):
        return path
    nodes = lab_nodes(lab)
    listed = ", ".join(nodes) if nodes else "none"
    hint = (
        f"nodes in {lab}: {listed}" if nodes else f"there is none in {lab}: start some with `msgctl lab up 2`"
    )
    raise UsageError(f"there is no lab node {node!r}", hint)


def lab_nodes(lab: str) -> list[str]:
    """The names of the nodes in a lab's directory, by number; other files there are not ours."""
    try:
        names = os.listdir(lab)
    except OSError:
        return []
    numbers = [int(name[4:]) for name in names if name[:4] == "node" and name[4:].isdigit()]
    return [f"node{k}" for k in sorted(numbers) if os.path.exists(os.path.join(lab, f"node{k}", "msgd.toml"))]
