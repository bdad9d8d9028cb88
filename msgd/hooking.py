"""Body of a hook's process: receives as the consumer hook-NAME, and runs the hook's command for each message.

One message at a time, in order. What the command's end means is noted (`note`) before the log process is
told, so that whoever dies, the next process for this hook tells it. SIGTERM ends this process: at once
between two messages, else behind the one that it has in hand; `executing.END_NOW` ends the command, too.
"""

import os
import random
import select
import signal
import socket
import time
from hashlib import sha256
from typing import Any

from msgd import errors, executing, journal, showing
from msgd.access import Credentials
from msgd.backoff import Backoff
from msgd.children import HOOK_REFUSED
from msgd.config import Hook
from msgd.errors import MsgdError
from msgd.executing import CannotRunError, Ended, Program
from msgd.knowing import ClientGone, Knowing, Place
from msgd.model import id_text
from msgd.note import Note
from msgd.receiving import ASIDE, DONE, FAILED, RELEASE, Receiver, Settled, Taken
from msgd.rows import Row
from msgd.signals import Signals
from msgd.wire.ledger import Wake
from msgd.wire.trust import TrustChanged
from msgd.wire.variables import variables

ENDING = (signal.SIGTERM, executing.END_NOW)
FULL_S = 5.0  # the log process cannot take it: asked again after this
FIRST_S, CAP_S = 1.0, 60.0  # between two tries of one message; doubles
TOLD = {DONE: "hook.done", FAILED: "hook.failed", ASIDE: "hook.failed", RELEASE: "hook.interrupted"}


def consumer_name(hook: str) -> str:
    """For whom a hook receives."""
    return f"hook-{hook}"


def holder(hook: str) -> bytes:
    """Always the same: a hook has one process, so what the last one had is the next one's."""
    return sha256(b"hook " + hook.encode()).digest()[:16]


def run(channel: socket.socket, place: Place, name: str, hook: Hook, note: Note, parent: int) -> int:
    """Handle messages until told to end; the exit code. `parent`: it does not outlive that process."""
    executing.die_with(parent)
    listening = Listening(channel, place)
    receiver = Receiver(listening, consumer_name(name), holder(name))
    try:
        receiver.begin(hook.peer, hook.kind, hook.start)
        if group := note.group_left():
            executing.kill_left(group)
        receiver.settle(note.left())
        note.clear()
        journal.event("hook.begun", hook=name, command=hook.command[0])
        return _Work(listening, receiver, name, hook, note).run()
    except (ClientGone, errors.Uncertain):
        return 0  # the log process is gone: the next one goes on
    except errors.UnknownConsumer:
        return 0  # somebody had it forgotten: the next process begins it anew
    except MsgdError as error:
        if note.is_news(error.message):
            journal.event("hook.refused", hook=name, reason=error.message, hint=error.hint or None)
        return HOOK_REFUSED


class Listening(Knowing):
    """What a hook's process knows; nobody but the log process speaks to it."""

    def __init__(self, channel: socket.socket, place: Place) -> None:
        who = Credentials(os.getpid(), os.geteuid(), frozenset(os.getgroups()))
        super().__init__(channel, place, who)

    def wait(self, seconds: float | None, also: int | None = None) -> None:
        """Until the log process says something, `also` is readable, or for so long. Raises ClientGone."""
        channel = self.pipe.sock.fileno()
        poll = select.poll()
        for fd in (channel, also):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        ready = poll.poll(None if seconds is None else seconds * 1000)
        if channel in dict(ready):
            self.hear_ledger()

    def take_in(self, frame: Any) -> bool:
        """News of this and that wake it; nothing else is done about them."""
        return isinstance(frame, Wake | TrustChanged)

    def ledger_gone(self) -> None:
        """`hear_ledger` says it."""


class _Work:
    """The loop over messages."""

    def __init__(self, listening: Listening, receiver: Receiver, name: str, hook: Hook, note: Note) -> None:
        self._listening = listening
        self._receiver = receiver
        self._name = name
        self._hook = hook
        self._note = note
        self._program = Program(hook.command, hook.user, hook.timeout.ns / 1e9)
        self._is_over = False
        self._pauses = Backoff(random.random, first_s=FIRST_S, cap_s=CAP_S)

    def run(self) -> int:
        """Until told to end; the exit code. Raises what the log process answers, ClientGone, MsgdError."""
        while not self._is_over:
            taken = self._next()
            signals = Signals(ENDING)
            settled = self._handle(taken, signals)
            self._settle(settled, signals)
            if settled.outcome == FAILED:
                self._pause(self._pauses.failed(0.0), signals)
            self._heed(signals)
        return 0

    def _next(self) -> Taken:
        while True:
            try:
                taken = self._receiver.next()
            except errors.StorageRefused:
                self._listening.wait(FULL_S)
            else:
                assert taken is not None  # there was no deadline
                return taken

    def _heed(self, signals: Signals) -> None:
        """From here on a signal ends this process at once; none is lost in between."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        self._is_over |= bool(signals.take())
        signals.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _handle(self, taken: Taken, signals: Signals) -> Settled:
        """Run the command, and note what its end means. Raises MsgdError where it cannot be run."""
        row, attempt = taken
        most = self._hook.max_attempts
        if most is not None and attempt > most:  # the process that made the last one died of it
            spent, made = Ended("its last attempt had no end", 0.0, frozenset()), Taken(row, attempt - 1)
            settled = self._judge(made, spent)
            self._tell(made, settled, spent)
            return settled
        self._note.begin(row.id, attempt)
        given = variables(showing.message(row), consumer_name(self._name), attempt)
        given["MSGD_SOCKET"] = self._listening.place.config.socket
        try:
            ended = executing.run(
                *(self._program, row.body, given, signals),
                say=lambda text: self._say(row, text),
                started=self._note.started,
            )
        except CannotRunError as error:
            self._note.end(RELEASE)
            self._settle(Settled(row.id, RELEASE, "", attempt), signals)
            hint = "It is tried again in a while; `msgd --check-config` says more."
            raise MsgdError(f"{self._hook.command[0]} cannot be run: {error}", hint) from error
        self._is_over = bool(ended.asked)
        settled = self._judge(taken, ended)
        self._note.end(settled.outcome)
        self._note.forget_refusal()
        self._tell(taken, settled, ended)
        return settled

    def _judge(self, taken: Taken, ended: Ended) -> Settled:
        """What is told to the log process."""
        most = self._hook.max_attempts
        if not ended.why:
            self._pauses.reset(0.0)
            outcome = DONE
        elif executing.END_NOW in ended.asked:
            outcome = RELEASE  # it was ended by us: no failure of its own
        elif most is not None and taken.attempt >= most:
            outcome = ASIDE
        else:
            outcome = FAILED
        return Settled(taken.row.id, outcome, ended.why, taken.attempt)

    def _settle(self, settled: Settled, signals: Signals) -> None:
        """Raises ClientGone, Uncertain: the note stays, and the next process tells it."""
        while True:
            try:
                self._receiver.settle([settled])
            except errors.StorageRefused:
                self._pause(FULL_S, signals)
                if self._is_over:
                    return
            else:
                self._note.clear()
                return

    def _pause(self, seconds: float, signals: Signals) -> None:
        """Wait, unless told to end. Raises ClientGone."""
        end_s = time.monotonic() + seconds
        while not self._is_over and (left_s := end_s - time.monotonic()) > 0:
            self._listening.wait(left_s, signals.fileno())
            self._is_over |= bool(signals.take())

    # --- events -----------------------------------------------------------------------------------------

    def _say(self, row: Row, text: str) -> None:
        journal.event("hook.said", hook=self._name, peer=row.peer, id=id_text(row.id), text=text)

    def _tell(self, taken: Taken, settled: Settled, ended: Ended) -> None:
        row = taken.row
        journal.event(
            TOLD[settled.outcome],
            hook=self._name,
            peer=row.peer,
            id=id_text(row.id),
            attempt=taken.attempt,
            seconds=round(ended.seconds, 3),
            reason=ended.why or None,
        )
