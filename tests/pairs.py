"""What persons do at two nodes to pair them, headless: each step as msgctl prints it in JSON."""

import json
from typing import Any

from msgd.errors import NOT_TRUSTED, OK
from tests.nodes import Node, wait_for

SOON_S = 15


def held(node: Node, to: str, text: str = "hola", *options: str) -> dict[str, Any]:
    """Send to somebody who is not trusted: exit 4, and the receipt with what to do."""
    done = node.ctl("-o", "json", "send", to, text, *options)
    assert done.returncode == NOT_TRUSTED, (done.returncode, done.stdout, done.stderr)
    receipt: dict[str, Any] = json.loads(done.stdout)
    assert receipt["state"] == "held"
    return receipt


def requests(node: Node) -> list[dict[str, Any]]:
    return node.query("pair", "ls")


def request_of(node: Node, name: str) -> dict[str, Any]:
    """The request of this name, once it is there."""
    wait_for(lambda: name in [one["name"] for one in requests(node)], SOON_S, f"{name} to ask {node.name}")
    (found,) = [one for one in requests(node) if one["name"] == name]
    return found


def accept(node: Node, other: str, *options: str) -> dict[str, Any]:
    (answer,) = node.query("pair", "accept", other, *options)
    return answer


def peer_of(node: Node, name: str) -> dict[str, Any]:
    """A peer as `peer ls` shows it; empty when it is not there."""
    return next((peer for peer in node.query("peer", "ls") if peer["name"] == name), {})


def is_stored(node: Node, message: dict[str, Any]) -> bool:
    return node.query("show", message["id"])[0]["state"] == "stored"


def wait_stored(node: Node, message: dict[str, Any], within_s: float = SOON_S) -> None:
    wait_for(lambda: is_stored(node, message), within_s, f"{message['id']} of {node.name} to be stored")


def compare(a: Node, b: Node) -> str:
    """`a` asks `b`, both say yes; the words."""
    done = a.ctl("-o", "json", "pair", "ask", b.address)
    assert done.returncode == OK, done
    words = str(request_of(b, a.name)["words"])
    assert words == request_of(a, b.name)["words"]
    accept(b, a.name)
    accept(a, b.name)
    wait_linked(a, b)
    return words


def wait_linked(a: Node, b: Node, within_s: float = SOON_S) -> None:
    wait_for(lambda: peer_of(a, b.name).get("state") == "connected", within_s, f"{a.name} to reach {b.name}")
    wait_for(lambda: peer_of(b, a.name).get("state") == "connected", within_s, f"{b.name} to reach {a.name}")


def events(node: Node, name: str) -> list[dict[str, Any]]:
    return [event for event in node.events() if event["event"] == name]


def texts(node: Node, direction: str = "in") -> list[str]:
    """What the history shows of one direction."""
    return [message["text"] for message in node.query("log", "--direction", direction, "--kind", "text")]


def hold_of(node: Node, name: str) -> str | None:
    hold: str | None = peer_of(node, name).get("hold")
    return hold
