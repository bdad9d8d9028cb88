"""An exchange of words, at both ends, and what the two persons then say to it (trust protocol, section 6a).

The acceptor binds itself to its nonce before it knows the dialler's, and files the request before it reveals:
no try at the words passes unseen. The dialler shows nothing before the commitment fits. Once both screens
show the words the connection stays for the verdicts, ten minutes at most. It may end at any time: what a
person decides later is seen at the next hello.
"""

import os
import select
import time
from collections.abc import Iterable
from typing import Any

from msgd import children, journal
from msgd.asking import Ledger, LinkEnded
from msgd.meeting import Found, refused
from msgd.node import Node
from msgd.peer.connection import Event
from msgd.peer.errors import ProtocolError
from msgd.peer.frames import Commit, Hello, Nonce, Refuse, Reveal, Verdict
from msgd.session import MeetingFailed, Wire
from msgd.trust.proof import transcript, transcript_hash
from msgd.trust.words import NONCE_BYTES, commit_of, is_commit, words_of
from msgd.wire.ledger import Cut, Denied, KnownPeer
from msgd.wire.trust import FileRequest, MayPair, OurVerdict, TheirVerdict

VERDICT_S = 600.0  # as long as a request waits for a person
LAST_S = 2.0  # for the other end to read our no and close
TITLE = "pair"
NEVER_S = -1.0  # an exchange that has begun is not repeated: only a person asks again
UNFIT = "the commitment does not fit what was revealed"


def accepted(
    node: Node, wire: Wire, ledger: Ledger, hello: Hello, may: MayPair, address: str, deadline_s: float
) -> None:
    """The acceptor's side, from its commit on. Raises MeetingFailed, OSError, LinkEnded."""
    children.set_title(TITLE, hello.name)
    connection = wire.connection
    theirs = connection.peer_identity
    t = transcript(node.key.identity, theirs, connection.greet_body, connection.content, connection.bound)
    mine = os.urandom(NONCE_BYTES)
    wire.say(Commit(node.name, commit_of(t, mine)), deadline_s)
    heard = wire.wait_event(deadline_s)
    assert isinstance(heard, Nonce)
    words = words_of(t, mine, heard.nonce)
    there = f"{address.rpartition(':')[0]}:{hello.port}"
    request = FileRequest(2, theirs, hello.name, there, words, transcript_hash(t), False, may.peer)
    answer = ledger.ask(request)
    if isinstance(answer, Denied):
        refuse = Refuse(answer.code, answer.retry_s or None, answer.detail)
        wire.say(refuse, deadline_s)
        raise MeetingFailed(f"refused: {answer.code}", is_quiet=True)
    wire.say(Reveal(mine), deadline_s)
    verdicts = Verdicts(wire, ledger, hello.name, address)
    if may.is_pinned:
        verdicts.say(True)
    verdicts.run()


def dialled(
    node: Node,
    wire: Wire,
    ledger: Ledger,
    peer: KnownPeer,
    found: Found,
    commit: Commit,
    address: str,
    deadline_s: float,
) -> None:
    """The dialler's side, from the acceptor's commit on. Raises MeetingFailed."""
    children.set_title(TITLE, commit.name)
    connection = wire.connection
    own = node.key.identity
    t = transcript(found.identity, own, connection.greet_body, connection.content, connection.bound)
    mine = os.urandom(NONCE_BYTES)
    try:
        words = words_of(t, _ask_nonce(wire, t, commit, mine, deadline_s), mine)
        answer = ledger.ask(
            FileRequest(2, found.identity, commit.name, address, words, transcript_hash(t), True, peer.number)
        )
    except (MeetingFailed, OSError, LinkEnded) as error:
        raise _for_good(error) from error
    if isinstance(answer, Denied):
        raise MeetingFailed(f"the request is not kept here: {answer.detail or answer.code}", NEVER_S)
    Verdicts(wire, ledger, commit.name, address).run()


def _ask_nonce(wire: Wire, t: bytes, commit: Commit, mine: bytes, deadline_s: float) -> bytes:
    """The acceptor's nonce, for ours: the one that it is bound to."""
    wire.say(Nonce(mine), deadline_s)
    heard = wire.wait_event(deadline_s)
    if isinstance(heard, Refuse):
        raise refused(heard)
    assert isinstance(heard, Reveal)
    if not is_commit(commit.commit, t, heard.nonce):
        wire.say(Refuse("proof", detail=UNFIT), deadline_s)
        raise Unfit(UNFIT)
    return heard.nonce


def _for_good(error: MeetingFailed | OSError | LinkEnded) -> MeetingFailed:
    """The same failure, of an exchange that is not repeated."""
    if isinstance(error, MeetingFailed):
        error.retry_s = NEVER_S
        return error
    return MeetingFailed((error.strerror if isinstance(error, OSError) else "") or str(error), NEVER_S)


class Unfit(MeetingFailed):
    """Somebody has tampered with the exchange, or the other end is faulty."""


class Verdicts:
    """The words are on both screens: what the person here says goes there, and the other way round."""

    def __init__(self, wire: Wire, ledger: Ledger, name: str, address: str) -> None:
        self.wire = wire
        self.ledger = ledger
        self.told = {"peer": name, "address": address}
        self.deadline_s = time.monotonic() + VERDICT_S
        self.has_said = self.has_heard = self.is_over = False

    def run(self) -> None:
        """Serve until both have decided, the time is over, or one end closes: then it is told why."""
        reason = "the verdicts are said, or nobody has decided in time"
        try:
            self._serve()
        except LinkEnded as error:
            reason = str(error)
        except (ProtocolError, MeetingFailed) as error:
            reason = f"broken protocol: {error}"
        except OSError as error:
            reason = f"{error.strerror or error}"
        journal.event("exchange.closed", reason=reason, **self.told)

    def say(self, accept: bool) -> None:
        """The verdict of the person here."""
        if self.has_said:
            return
        self.has_said = True
        self.wire.say(Verdict(accept), time.monotonic() + LAST_S)
        self.is_over = self.has_heard
        if not accept:
            self.deadline_s = time.monotonic() + LAST_S

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self.wire.session, select.POLLIN)
        poll.register(self.ledger.pipe.sock, select.POLLIN)
        ledger_fd = self.ledger.pipe.sock.fileno()
        unheard, self.ledger.unheard = self.ledger.unheard, []
        self._obey(unheard)
        self._hear(self.wire.connection.received(0))  # what came together with the reveal
        while not self.is_over:
            left_s = self.deadline_s - time.monotonic()
            if left_s <= 0:
                return
            for fd, _ in poll.poll(left_s * 1000):
                if fd == ledger_fd:
                    self._obey(self.ledger.hear())
                else:
                    self._hear_peer()

    def _hear_peer(self) -> None:
        events = self.wire.receive()
        if events is None:
            raise LinkEnded("the other end closed the connection")
        self._hear(events)

    def _hear(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Verdict):
                self._heard(event.accept)
            elif isinstance(event, Refuse):
                journal.event("pair.broken", reason=f"it says: {event.detail}", **self.told)
                self._heard(False)

    def _heard(self, accept: bool) -> None:
        self.has_heard = True
        self.ledger.tell(TheirVerdict(accept))
        self.is_over = self.has_said or not accept

    def _obey(self, frames: Iterable[tuple[Any, memoryview]]) -> None:
        for frame, _ in frames:
            match frame:
                case OurVerdict():
                    self.say(frame.accept)
                case Cut():
                    raise LinkEnded(frame.reason)
