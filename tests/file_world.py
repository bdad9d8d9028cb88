"""A store and who asks it, joined by real TLS over a socket pair: the acceptor's worker runs in a thread.

world = FileWorld(tmp_path, monkeypatch)
store = world.remote()
list(store.put([world.source("a", b"hola")], nobody))
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from msgd import sharing, shipping
from msgd.config import Config, load
from msgd.files.goods import source_of
from msgd.session import MeetingFailed
from msgd.shipping import Outcome, Remote, Source, Target
from msgd.trust import tls
from msgd.trust.identity import NodeKey

KEY = NodeKey(Ed25519PrivateKey.generate())
PEER = "asker"
IDENTITY = bytes(range(32))
MTIME_NS = 1_700_000_000_123_456_789


def nobody(name: str, done: int, size: int) -> None:
    """Who does not want to hear of progress."""


class FileWorld:
    """One store, in `directory`/store, and as many connections to it as the test makes."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, settings: str = "") -> None:
        self.directory = directory
        self.store = directory / "store"
        self.tries = 0  # to connect
        self.most_tries = 1000  # after which nobody answers any more
        self.refusals: list[MeetingFailed] = []  # of the next tries
        self.cuts: list[int] = []  # after so many bytes from either side the next connections break
        self.ended: list[str] = []  # reasons why workers have ended
        self._stores: list[Remote] = []
        self._threads: list[threading.Thread] = []
        self._fds: list[int] = []
        self.set(settings or '[files]\npeers = "write"\n')
        monkeypatch.setattr(shipping, "visit", self._visit)
        monkeypatch.setattr(shipping, "PAUSE_S", (0.001, 0.01))
        monkeypatch.setattr("msgd.files.goods.PROGRESS_S", 0.0)

    def set(self, settings: str) -> None:
        """The configuration for the next connections."""
        file = self.directory / "msgd.toml"
        head = f'name = "giver"\nstate = "{self.directory}"\nsocket = "{self.directory}/s"\n'
        table = f'store = "{self.store}"\n'
        file.write_text(head + settings.replace("[files]\n", "[files]\n" + table))
        self.config: Config = load(str(file), {}, os.geteuid())

    def close(self) -> None:
        """Every connection ends, and with it its worker."""
        for store in self._stores:
            store.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for fd in self._fds:
            os.close(fd)

    def wait_ended(self) -> None:
        """Until the workers of connections that broke have noticed."""
        for thread in self._threads:
            thread.join(10)

    # --- who asks ---------------------------------------------------------------------------------------

    def remote(self, patience_s: float = 10.0) -> Remote:
        """The store as a peer sees it."""
        place = SimpleNamespace(node=None, config=self.config)
        knowing: Any = SimpleNamespace(place=place, addresses_of=lambda peer: ["here"])
        peer: Any = SimpleNamespace(name="giver", identity=b"", pinned=True, removed=False)
        store = Remote(knowing, peer, patience_s)
        self._stores.append(store)
        return store

    def source(self, name: str, content: bytes, *, executable: bool = False) -> Source:
        """A file of who asks."""
        path = self.directory / f"source-{len(self._fds)}"
        path.write_bytes(content)
        os.utime(path, ns=(MTIME_NS, MTIME_NS))
        return self.source_of(name, path, executable=executable)

    def source_of(self, name: str, path: Path, *, executable: bool = False) -> Source:
        """A file that is there already."""
        fd = self._kept(os.open(path, os.O_RDONLY))
        return source_of(name, fd, os.fstat(fd))._replace(executable=executable)

    def target(self, name: str, content: bytes = b"") -> Target:
        """Where to get a file to; `content` is there from an earlier try."""
        path = self.directory / f"target-{len(self._fds)}"
        path.write_bytes(content)
        return Target(name, self._kept(os.open(path, os.O_RDWR)), len(content))

    def _kept(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    # --- connections ------------------------------------------------------------------------------------

    def _visit(self, *_: object) -> tuple[ssl.SSLSocket, bytes]:
        self.tries += 1
        if self.tries > self.most_tries:
            raise ConnectionRefusedError(111, "connection refused")
        if self.refusals:
            raise self.refusals.pop(0)
        near, far = socket.socketpair()
        if self.cuts:
            near, far = self._between(near, far, self.cuts.pop(0))
        thread = threading.Thread(target=self._serve, args=(far,), daemon=True)
        thread.start()
        self._threads.append(thread)
        session = tls.dialler_context().wrap_socket(near)
        session.setblocking(False)
        return session, b""

    def _serve(self, sock: socket.socket) -> None:
        mine, theirs = socket.socketpair()
        with mine, theirs:
            try:
                session = tls.acceptor_context(KEY).wrap_socket(sock, server_side=True)
            except OSError as error:
                self.ended.append(str(error))
                return
            session.setblocking(False)
            connection = SimpleNamespace(peer_identity=IDENTITY, rest=lambda: b"")
            wire: Any = SimpleNamespace(session=session, connection=connection)
            node: Any = SimpleNamespace(name="giver")
            worker = sharing.Sharing(node, wire, self.config, PEER, mine)
            self.ended.append(sharing.run(worker))

    def _between(
        self, near: socket.socket, far: socket.socket, most: int
    ) -> tuple[socket.socket, socket.socket]:
        """Ends of a connection that breaks once so many bytes went through it."""
        inner_near, inner_far = socket.socketpair()
        carrier = threading.Thread(target=_carry, args=(far, inner_near, most), daemon=True)
        carrier.start()
        self._threads.append(carrier)
        return near, inner_far


def _carry(one: socket.socket, other: socket.socket, most: int) -> None:
    import select

    with one, other:
        while most > 0:
            for sock in select.select([one, other], [], [])[0]:
                try:
                    data = sock.recv(min(65536, max(1, most)))
                    (other if sock is one else one).sendall(data)
                except OSError:
                    return
                if not data:
                    return
                most -= len(data)


def only(outcomes: list[Outcome]) -> Outcome:
    """The one outcome."""
    assert 1 == len(outcomes), outcomes
    return outcomes[0]
