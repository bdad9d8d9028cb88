"""A daemon for tests of `msgctl chat`: the control server, with a log that is followed and told to."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgd.wire.varlink import Call
from tests.control_server import PEER, Connection, ControlServer
from tests.nodes import wait_for

WITHIN_S = 20.0


class ChatServer(ControlServer):
    """What it keeps is `stored` at once and told to whoever follows; `says` is a message of the peer."""

    def __init__(self, path: Path) -> None:
        self.followers: list[Connection] = []
        self.peer = {**PEER, "state": "connected", "reason": None, "clock_offset_ms": 0.0, "pinned": True}
        super().__init__(path)

    def identity(self, connection: Connection, call: Call) -> None:
        connection.reply({"name": "node1", "identity": "AAAA", "former_identities": []})

    def peers(self, connection: Connection, call: Call) -> None:
        connection.reply({"peers": [self.peer]})

    def log(self, connection: Connection, call: Call) -> None:
        given = call.parameters
        if given.get("follow"):
            self.followers.append(connection)
            places = [m["cursor"] for m in self.kept.values()]
            after = given.get("after_cursor")
            lines = given.get("lines") or 0
            found = list(self.kept.values())[places.index(after) + 1 if after in places else -lines :]
            if found:
                connection.reply({"messages": found}, continues=True)
        else:
            connection.reply({"messages": list(self.kept.values())[-given["lines"] :]})

    def sendmany(self, connection: Connection, call: Call) -> None:
        known = set(self.kept)
        super().sendmany(connection, call)
        for id in [id for id in self.kept if id not in known]:
            self.tell(self.kept[id])

    def says(self, text: str, **more: Any) -> None:
        """A message of the peer, to all who follow."""
        wait_for(lambda: self.followers, WITHIN_S, "somebody who follows")
        message = self.says_before(text)
        message.update(more)
        self.tell(message)

    def says_before(self, text: str) -> dict[str, Any]:
        """A message of the peer from before the chat."""
        message = self.keep("node3", {"text": text}, "received")
        message.update({"direction": "in", "from": "node3"})
        return message

    def tell(self, message: dict[str, Any]) -> None:
        for connection in self.followers:
            with contextlib.suppress(OSError):
                connection.reply({"messages": [message], "cursor": message["cursor"]}, continues=True)

    def wait_looks(self, count: int) -> None:
        """Until the chat has looked so many times more how the peer stands."""
        before = len(self.called("Peers"))
        wait_for(lambda: len(self.called("Peers")) >= before + count, WITHIN_S, "looks")

    def texts(self) -> list[str]:
        """What was sent here, in order."""
        return [m["text"] for m in self.kept.values() if m["direction"] == "out"]


@contextlib.contextmanager
def chat_server(directory: Path) -> Iterator[ChatServer]:
    """A server for the time of a test."""
    server = ChatServer(directory / "control.sock")
    try:
        yield server
    finally:
        server.close()
