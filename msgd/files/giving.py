"""The acceptor's side of what is asked of a store: lists, files, copies, removals."""

import os

from msgd import journal
from msgd.errors import MsgdError
from msgd.files.copying import copy_within
from msgd.files.depot import Depot, Outgoing
from msgd.files.frames import ENTRIES, Begin, Close, Dup, End, Entries, Get, Item, List, Remove
from msgd.files.intake import hash_range
from msgd.files.outflow import SMALL_BYTES, Outflow
from msgd.files.taking import TOLD_FROM, Host, end_of
from msgd.files.tree import refusal


class Giving:
    """Methods raise OSError, RemoteProtocolError."""

    def __init__(self, host: Host) -> None:
        self.totals = {"sent": 0, "sent_bytes": 0}  # the bytes: those that flowed
        self._host = host

    # --- a file -----------------------------------------------------------------------------------------

    def get(self, get: Get) -> None:
        """Send a file."""
        try:
            depot = self._host.depot("read")
            found = depot.open(get.name)
        except MsgdError as error:
            self._refuse(get.number, error)
            return
        try:
            self._give(get, depot, found)
        finally:
            os.close(found.fd)

    def _give(self, get: Get, depot: Depot, found: Outgoing) -> None:
        outflow = Outflow(found.fd, found.status)
        try:
            self._go_on(get, outflow)
        except (EOFError, MemoryError) as error:
            self._refuse(get.number, MsgdError(f"It cannot be read: {error}."))
            return
        status, stream, begun = found.status, self._host.stream, outflow.at
        executable = bool(status.st_mode & 0o100)
        stream.say(Begin(get.number, status.st_size, status.st_mtime_ns, executable, outflow.at))
        try:
            if 0 < status.st_size <= SMALL_BYTES and not outflow.at:
                stream.say_content(outflow.read_all())
            else:
                outflow.send(stream, self._host.tick_between, is_known=bool(found.digest))
            fault = outflow.fault()
        except OSError as error:
            if error.errno is None:
                raise
            fault = refusal(error, get.name).message
        self.totals["sent_bytes"] += outflow.at - begun
        digest = found.digest or outflow.digest
        stream.say(Close(get.number, digest, fault))
        self._sent(depot, found, digest, fault)

    def _go_on(self, get: Get, outflow: Outflow) -> None:
        """Skip what is there already."""
        if 0 < get.have <= outflow.size:
            sha = hash_range(outflow.fd, get.have, self._host.tick)
            if sha.digest() == get.digest:
                outflow.go_on(sha, get.have)

    def _sent(self, depot: Depot, found: Outgoing, digest: bytes, fault: str) -> None:
        size = found.status.st_size
        if fault:
            journal.event("file.refused", peer=self._host.peer, file=found.name, reason=fault)
            return
        if not found.digest:
            depot.learn(found, digest)
        self.totals["sent"] += 1
        level = "info" if size >= TOLD_FROM else "debug"
        journal.event("file.sent", peer=self._host.peer, level=level, file=found.name, size=size)

    # --- others -----------------------------------------------------------------------------------------

    def ls(self, ask: List) -> None:
        """What is there."""
        items: list[Item] = []
        try:
            for name, status, digest, is_directory in self._host.depot("read").ls(ask.pattern, ask.recursive):
                size = 0 if is_directory else status.st_size
                executable = not is_directory and bool(status.st_mode & 0o100)
                items.append(Item(name, size, status.st_mtime_ns, executable, digest, is_directory))
                if len(items) == ENTRIES:
                    self._host.stream.say(Entries(ask.number, items))
                    items = []
                self._host.tick()
        except MsgdError as error:
            self._refuse(ask.number, error)
            return
        if items:
            self._host.stream.say(Entries(ask.number, items))
        self._host.stream.say(End(ask.number))

    def dup(self, ask: Dup) -> None:
        """A copy."""
        try:
            depot = self._host.depot("write")
            intake = copy_within(depot, ask.name, ask.new, self._host.tick)
            depot.landing.land([intake])
        except MsgdError as error:
            self._refuse(ask.number, error)
            return
        self._host.stream.say(end_of(ask.number, intake))
        if intake.error is None:
            journal.event(
                "file.copied", peer=self._host.peer, file=ask.name, to=ask.new, size=intake.what.size
            )

    def rm(self, ask: Remove) -> None:
        """Remove a file or a tree."""
        try:
            count = self._host.depot("write").rm(ask.name, ask.recursive)
        except MsgdError as error:
            self._refuse(ask.number, error)
            return
        self._host.stream.say(End(ask.number, value=count))
        journal.event("file.removed", peer=self._host.peer, file=ask.name, count=count)

    def _refuse(self, number: int, error: MsgdError) -> None:
        self._host.stream.say(End(number, error.name, error.message, error.hint))
