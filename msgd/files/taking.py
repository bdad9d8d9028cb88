"""The acceptor's side of files that come in: announced, their content, and groups that land together."""

from typing import Protocol

from msgd import journal
from msgd.errors import MsgdError
from msgd.files.depot import Depot
from msgd.files.frames import Check, Close, End, From, Piece, Put
from msgd.files.intake import Incoming, Intake
from msgd.files.landing import Group, Syncing
from msgd.files.stream import Stream
from msgd.peer.errors import RemoteProtocolError

TOLD_FROM = 1 << 20  # smaller files are told at debug: there may be thousands
EARLY_FROM = 8 << 20  # a larger one that is refused while it comes is answered at once


class Host(Protocol):
    """Who has the connection."""

    peer: str
    identity: bytes
    stream: Stream

    def depot(self, right: str) -> Depot:
        """The store, for who has this right. Raises MsgdError."""

    def tick(self, *_: int) -> None:
        """A sign of life, where it is time for one."""

    def tick_between(self, *_: int) -> None:
        """Amid content: whether to go on."""


class Taking:
    """Methods raise OSError, RemoteProtocolError."""

    def __init__(self, host: Host) -> None:
        self._group = Group()
        self._syncing: tuple[list[tuple[int, Intake]], Syncing] | None = None  # the group before it
        self.totals = {"received": 0, "received_bytes": 0}  # the bytes: those that flowed
        self._host = host
        self._flowing: tuple[int, Intake] | None = None  # the file whose content comes now
        self._prefix = b""  # the digest of what was here of it
        self._is_answered = False  # it was refused while it came

    @property
    def is_flowing(self) -> bool:
        """Whether content of a file is due."""
        return self._flowing is not None

    def put(self, put: Put) -> None:
        """A file follows."""
        if self._flowing is not None:
            raise RemoteProtocolError("a file within another")
        what = Incoming(put.name, put.size, put.mtime_ns, put.executable)
        try:
            intake = self._host.depot("write").take(what, resumes=put.asks)
        except MsgdError as error:
            intake = Intake(what, None, resumes=False, refused=error)
        self._flowing, self._prefix, self._is_answered = (put.number, intake), b"", False
        if put.asks:
            self.land()
            if intake.error is None:
                self._say_from(put.number, intake)
            else:
                self._flowing = None
                self._answer(put.number, intake)

    def _say_from(self, number: int, intake: Intake) -> None:
        self._host.depot("write").reuse(intake, self._host.tick)
        self._host.stream.say(From(number, intake.at))
        self._host.stream.flush()
        if intake.at:
            self._prefix = intake.digest_of_part(self._host.tick)

    def check(self, check: Check) -> None:
        """Whether what is here is the beginning of what is there."""
        intake = self._current(check.number)
        if not self._prefix:
            raise RemoteProtocolError("a digest that was not asked for")
        if check.digest != self._prefix:
            intake.begin_anew()
        self._prefix = b""
        self._host.stream.say(From(check.number, intake.at))
        self._host.stream.flush()

    def piece(self, piece: Piece) -> None:
        """Some of its content."""
        if self._flowing is None or self._prefix:
            raise RemoteProtocolError("content of no file")
        number, intake = self._flowing
        self.totals["received_bytes"] += len(piece.data)
        intake.write(piece.data)
        self._host.tick_between()
        if intake.error is not None and not self._is_answered and intake.what.size > EARLY_FROM:
            self.land()
            self._answer(number, intake)
            self._is_answered = True
            self._host.stream.flush()

    def close_file(self, close: Close) -> None:
        """All of it has come."""
        intake = self._current(close.number)
        self._flowing = None
        if self._is_answered:
            return
        intake.finish(close.digest, close.error, self._host.identity)
        self._group.add(close.number, intake)
        if self._group.is_full:
            self._finish()
            self._begin()

    def _current(self, number: int) -> Intake:
        if self._flowing is None or self._flowing[0] != number:
            raise RemoteProtocolError(f"file {number} does not flow")
        return self._flowing[1]

    # --- what has come ----------------------------------------------------------------------------------

    @property
    def has_waiting(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._group) or self._syncing is not None

    def advance(self) -> None:
        """Nothing more has come: a step on the way of those that wait."""
        if self._syncing is not None:
            self._finish()
        else:
            self._begin()

    def land(self) -> None:
        """Answer all that wait, once they are durable."""
        while self.has_waiting:
            self.advance()

    def _begin(self) -> None:
        group = self._group.take()
        self._syncing = (group, Syncing([intake for _, intake in group]))

    def _finish(self) -> None:
        if self._syncing is None:
            return
        (group, syncing), self._syncing = self._syncing, None
        intakes = [intake for _, intake in group]
        if any(intake.error is None for intake in intakes):
            self._host.depot("write").landing.finish(intakes, syncing)
        for number, intake in group:
            self._answer(number, intake)
        self._host.stream.flush()

    def _answer(self, number: int, intake: Intake) -> None:
        self._host.stream.say(end_of(number, intake))
        intake.close()
        self._tell(intake)

    def _tell(self, intake: Intake) -> None:
        what, error = intake.what, intake.error
        level = "debug" if what.size < TOLD_FROM and error is None else "info"
        if error is not None:
            journal.event(
                "file.refused", peer=self._host.peer, level=level, file=what.name, reason=error.message
            )
            return
        self.totals["received"] += 1
        journal.event("file.received", peer=self._host.peer, level=level, file=what.name, size=what.size)

    def abandon(self) -> None:
        """Nobody waits any more."""
        group = self._group.take()
        if self._syncing is not None:
            group += self._syncing[0]
            self._syncing[1].wait()
        for _, intake in group:
            intake.abandon()
        if self._flowing is not None:
            self._flowing[1].abandon()
            self._flowing = None


def end_of(number: int, intake: Intake) -> End:
    """What came of a file."""
    error = intake.error
    if error is None:
        return End(number, digest=intake.digest, value=intake.what.size)
    return End(number, error.name, error.message, error.hint)
