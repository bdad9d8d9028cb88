"""`msgctl lab`: several nodes on loopback, to try things out.

`up` makes what is missing and starts what does not run, waits until every node answers, lets each pin the
others by `PeerAdd` (up to 8 nodes every pair, above that all with node1 only) and waits for the links. A node
that dials before the other side has pinned it is refused and would wait a minute: so both sides pin first,
and what is not connected soon after is tried again by `Retry`. Doing all that twice changes nothing.

One command at a time works on a lab: they lock its directory. $MSGD_LAB_DIR may hold other files.
`MSGD_LAB_NET` (default `127.0.0.`) is the beginning of the nodes' addresses.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgctl import tables
from msgctl.grammar import Args
from msgctl.labnode import LOOK_AGAIN_MS, Node, stop
from msgctl.output import Screen, complain
from msgctl.places import lab_dir, lab_nodes
from msgd.errors import MsgdError, UsageError
from msgd.wire.varlink import Json

MAX_NODES = 250  # the last part of an IPv4 address, with a few to spare
MESH_NODES = 8  # above this every pair would be too many links for one machine
AT_ONCE = 8  # nodes that are starting: more would only be slower together
STOP_TIMEOUT_S = 10.0
LINK_TIMEOUT_S = 30.0
RETRY_AFTER_S = 1.0


def up(args: Args, screen: Screen, form: str) -> int:
    """Start nodes, pair them, wait for their links."""
    nodes = [Node(_lab(), number, _net()) for number in range(1, _count(args.words[0]) + 1)]
    for node in nodes:
        node.check_path()
    try:
        os.makedirs(_lab(), exist_ok=True)
    except OSError as exc:
        raise UsageError(
            f"cannot make {_lab()}: {exc.strerror}", "set MSGD_LAB_DIR to another directory"
        ) from exc
    with _alone():
        said = _start(nodes)
        pairs = _pairs(nodes)
        for one, other in pairs:
            _pin(one, other, said)
            _pin(other, one, said)
        _wait_links(pairs)
    _show(screen, form, nodes)
    return 0


def ls(args: Args, screen: Screen, form: str) -> int:
    """The nodes there are."""
    nodes = _there()
    if not nodes and form != "json":
        screen.write(f"no nodes in {_lab()}; `msgctl lab up 2` starts two\n")
    else:
        _show(screen, form, nodes)
    return 0


def down(args: Args, screen: Screen, form: str) -> int:
    """Stop all nodes; remove what `up` made, unless it is to be kept."""
    if not _there():
        return ls(args, screen, form)
    with _alone():
        nodes = _there()
        ran, killed = stop(nodes, STOP_TIMEOUT_S)
        for node in killed:
            complain(f"msgctl: {node.name} did not end within {STOP_TIMEOUT_S:.0f} s and was killed\n")
        for node in nodes:
            if not args.has("keep") and not node.remove():
                complain(f"msgctl: {node.directory} holds files that the lab did not make; they stay\n")
    done = "stopped" if args.has("keep") else "stopped and removed"
    if form == "json":
        for node in nodes:
            screen.json({"name": node.name, "was_running": node in ran, "killed": node in killed})
    else:
        screen.write(f"{len(nodes)} nodes {done}\n")
    return 0


HANDLERS = {"lab up": up, "lab ls": ls, "lab down": down}


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= MAX_NODES:
        raise UsageError(f"lab up {text}: expected a number of nodes from 1 to {MAX_NODES}")
    return int(text)


def _lab() -> str:
    return lab_dir(os.environ)


def _net() -> str:
    net = (os.environ.get("MSGD_LAB_NET") or "127.0.0").removesuffix(".") + "."
    parts = net.split(".")
    if len(parts) != 4 or parts[3] or parts[0] != "127" or not all(part.isdecimal() for part in parts[:3]):
        raise UsageError(f"MSGD_LAB_NET={net!r}: expected three numbers of a loopback address, as '127.77.3'")
    return net


def _there() -> list[Node]:
    return [Node(_lab(), int(name[4:]), _net()) for name in lab_nodes(_lab())]


@contextmanager
def _alone() -> Iterator[None]:
    """One command at a time: a lock on the directory itself leaves no file behind."""
    fd = os.open(_lab(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _start(nodes: list[Node]) -> dict[str, Json]:
    """Start those that do not run, a few at a time; what every one says of itself."""
    starting: list[tuple[Node, int]] = []
    said: dict[str, Json] = {}
    for node in nodes:
        node.make()
        starting.append((node, node.pid() or node.start()))
        if len(starting) >= AT_ONCE:
            oldest, pid = starting.pop(0)
            said[oldest.name] = oldest.wait_answer(pid)
    said.update((node.name, node.wait_answer(pid)) for node, pid in starting)
    return said


def _pairs(nodes: list[Node]) -> list[tuple[Node, Node]]:
    if len(nodes) > MESH_NODES:
        return [(nodes[0], node) for node in nodes[1:]]
    return [(one, other) for at, one in enumerate(nodes) for other in nodes[at + 1 :]]


def _pin(one: Node, other: Node, said: dict[str, Json]) -> None:
    """Let `one` know `other`, where it does not yet."""
    there = said[other.name]["node"]
    known = [peer for peer in said[one.name]["peers"] if peer["identity"] == there["identity"]]
    if any(peer["name"] == other.name and peer["state"] != "removed" for peer in known):
        return
    with one.client() as client:
        client.call("PeerAdd", name=other.name, address=there["listen"][0], key=there["identity"])


def _wait_links(pairs: list[tuple[Node, Node]]) -> None:
    """Until both ends of every pair are connected. Raises MsgdError naming who is not."""
    left = [ends for one, other in pairs for ends in ((one, other), (other, one))]
    began_s = tried_s = time.monotonic()
    limit_s = LINK_TIMEOUT_S + len(pairs)
    while left := _unlinked(left):
        now_s = time.monotonic()
        if now_s - began_s > limit_s:
            one, other = left[0]
            raise MsgdError(
                f"{len(left)} links do not stand after {limit_s:.0f} s, as {one.name} to {other.name}",
                f"see `msgctl --node {one.name} status` and {one.path('msgd.out')}",
            )
        if now_s - tried_s > RETRY_AFTER_S:
            tried_s = now_s
            for one, other in left:
                with one.client() as client:
                    client.call("Retry", peer=other.name)
        time.sleep(
            LOOK_AGAIN_MS / 1000
        )  # Status is all there is to ask: the daemon tells nobody of its links


def _unlinked(ends: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    """The ends of pairs that are not connected yet; every node is asked once."""
    connected: dict[str, set[str]] = {}
    for one, _ in ends:
        if one.name not in connected:
            peers = one.status()["peers"]
            connected[one.name] = {peer["name"] for peer in peers if peer["state"] == "connected"}
    return [(one, other) for one, other in ends if other.name not in connected[one.name]]


def _show(screen: Screen, form: str, nodes: list[Node]) -> None:
    rows = []
    for node in nodes:
        pid = node.pid()
        state = "stopped" if pid is None else "running"
        rows.append(
            {"name": node.name, "address": node.address, "state": state, "pid": pid, "dir": node.directory}
        )
    if form == "json":
        for row in rows:
            screen.json(row)
        return
    heads = ("NODE", "ADDRESS", "STATE", "PID", "DIRECTORY")
    tables.show(
        screen, heads, [[str(cell) if cell is not None else "-" for cell in row.values()] for row in rows]
    )
