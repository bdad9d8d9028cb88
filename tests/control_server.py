"""A small control server for the tests of msgctl: real varlink over a real Unix socket, one thread a client.

Not a mock of the client's calls: what msgctl writes is split and parsed as the daemon does, and what it
hears are bytes from a socket. The messages it keeps live in memory. `script` replaces the answer to a
method by a function of (connection, call), which may also cut the connection.
"""

import base64
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgd.handed import Hearing, close_all
from msgd.wire import varlink

INTERFACE = "org.msgd.Control."
Script = Callable[["Connection", varlink.Call], None]


class Connection:
    """One client of the server."""

    def __init__(self, sock: socket.socket, fds: Sequence[int] = ()) -> None:
        self.sock = sock
        self.fds = fds  # handed over with the call

    def reply(self, parameters: dict[str, Any] | None = None, *, continues: bool = False) -> None:
        self.sock.sendall(varlink.reply(parameters, continues=continues))

    def error(self, name: str, message: str = "no", hint: str = "") -> None:
        full = name if "." in name else INTERFACE + name
        self.sock.sendall(varlink.error(full, {"message": message, "hint": hint}))

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class ControlServer:
    """Answers on `path`. `calls`: all that was heard; `kept`: messages by id, in order."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.calls: list[varlink.Call] = []
        self.kept: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.script: dict[str, Script] = {}
        self.state = "stored"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def called(self, method: str) -> list[dict[str, Any]]:
        """The parameters of every call of this method."""
        return [call.parameters for call in self.calls if call.method == INTERFACE + method]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads)
        os.unlink(self.path)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        hearing = Hearing(sock)
        with sock, contextlib.suppress(OSError):
            while (said := hearing.read()) is not None:
                for frame, fds in said:
                    try:
                        self._answer(Connection(sock, fds), varlink.parse_call(frame))
                    finally:
                        close_all(fds)

    def _answer(self, connection: Connection, call: varlink.Call) -> None:
        self.calls.append(call)
        name = call.method.removeprefix(INTERFACE)
        script = self.script.get(name)
        if script is not None:
            script(connection, call)
        else:
            getattr(self, name.lower())(connection, call)

    # --- the methods, as the daemon's clients see them ---------------------------------------------------

    def keep(self, peer: str, message: dict[str, Any], state: str = "") -> dict[str, Any]:
        """Put a message into the log."""
        now_ns = time.time_ns()
        stored = (state or self.state) == "stored"
        whole = {
            "id": message.get("id") or f"0193{len(self.kept):028x}",
            "peer": peer,
            "direction": "out",
            "seq": len(self.kept) + 1 if stored else None,
            "kind": message.get("kind") or "text",
            "state": state or self.state,
            "reason": None if stored else "offline",
            "from": "node1",
            "to": peer,
            "user": "ana",
            "sent_at": "2026-11-21T12:00:00.000000001Z",
            "sent_at_ns": now_ns,
            "stored_at": "2026-11-21T12:00:00.000000002Z",
            "stored_at_ns": now_ns,
            "receipt_at": "2026-11-21T12:00:00.000000003Z" if stored else None,
            "receipt_at_ns": now_ns if stored else None,
            "text": message.get("text"),
            "data": message.get("data"),
            "headers": message.get("headers") or {},
            "cursor": f"c{len(self.kept)}",
        }
        return self.kept.setdefault(whole["id"], whole)

    @staticmethod
    def receipt(message: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The receipt of a kept message."""
        same = {name: message[name] for name in ("id", "peer", "state", "reason", "seq")}
        times = {name: message[name] for name in ("stored_at_ns", "receipt_at_ns")}
        rest = {"queued_at_ns": message["stored_at_ns"], "elapsed_ms": 12.3, "duplicate": False}
        away = {"next_try_s": None if message["state"] == "stored" else 20.0}
        return {**same, **times, **rest, **away, **changes}

    def send(self, connection: Connection, call: varlink.Call) -> None:
        given = call.parameters
        message = self.keep(given["peer"], given["message"])
        if call.more and given.get("wait") == "stored":
            queued = {"state": "queued", "reason": None, "receipt_at_ns": None}
            connection.reply({"receipt": self.receipt(message, **queued)}, continues=True)
        connection.reply({"receipt": self.receipt(message)})

    def sendmany(self, connection: Connection, call: varlink.Call) -> None:
        given = call.parameters
        assert len(given["messages"]) <= 256
        size = sum(
            len(base64.b64decode(m["data"])) if "data" in m else len(m["text"].encode())
            for m in given["messages"]
        )
        assert size <= 256 << 10
        kept = [self.keep(given["peer"], message) for message in given["messages"]]
        last = kept[-1]
        answer = {name: last[name] for name in ("state", "reason", "stored_at_ns", "receipt_at_ns")}
        connection.reply({"count": len(kept), "first_seq": kept[0]["seq"], "next_try_s": None, **answer})

    def show(self, connection: Connection, call: varlink.Call) -> None:
        message = self.kept.get(call.parameters["id"])
        if message is None:
            connection.error("UnknownMessage", f"no message {call.parameters['id']}")
        else:
            connection.reply({"message": message})

    def log(self, connection: Connection, call: varlink.Call) -> None:
        messages = list(self.kept.values())
        half = len(messages) // 2
        connection.reply({"messages": messages[:half]}, continues=True)
        connection.reply({"messages": messages[half:]})

    def status(self, connection: Connection, call: varlink.Call) -> None:
        connection.reply({"node": NODE, "peers": [PEER]})

    def peers(self, connection: Connection, call: varlink.Call) -> None:
        connection.reply({"peers": [PEER]})

    def reload(self, connection: Connection, call: varlink.Call) -> None:
        connection.reply()


NODE: dict[str, Any] = {
    "name": "node1",
    "identity": "AAAA",
    "version": "0.1.0",
    "listen": ["127.77.0.1:6743"],
    "state_dir": "/var/lib/msgd",
    "uptime_s": 12.5,
    "peers_connected": 1,
    "peers_known": 1,
    "queued": 2,
    "held": 0,
    "notes": [],
    "index": {"state": "ready", "position": 4096, "behind_bytes": 0, "done": 1.0},
}
PEER: dict[str, Any] = {
    "name": "node3",
    "identity": "BBBB",
    "address": "127.77.0.3:6743",
    "state": "away",
    "reason": "refused \x1b[31m",
    "since_ns": 1795262400000000000,
    "queued": 2,
    "held": 0,
    "unreceipted": 1,
    "sent": 10,
    "received": 7,
    "last_seen_ns": None,
    "next_try_s": 20.0,
    "clock_offset_ms": -1.5,
    "round_trip_ms": 0.21,
}


@contextlib.contextmanager
def control_server(directory: Path) -> Iterator[ControlServer]:
    """A server for the time of a test."""
    server = ControlServer(directory / "control.sock")
    try:
        yield server
    finally:
        server.close()
