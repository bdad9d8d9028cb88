"""Body of the worker that answers a peer out of this node's log: what both hold of each other, no more.

It serves a peer that this node has accepted, and only the messages between the two. It reads the log as far
as is committed when a question comes, and keeps nothing.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from msgd import children, journal
from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.peer.errors import ProtocolError
from msgd.peer.service import (
    ASK_BYTES,
    BATCHES_OF,
    ENTRIES,
    FETCH,
    MARKS,
    MARKS_OF,
    MESSAGES_OF,
    OUTLINE,
    Ask,
    Batches,
    Broken,
    End,
    Mark,
    Marks,
    Messages,
    Piece,
    Progress,
)
from msgd.talking import Talk, TalkEnded, Ticker
from msgd.tracks import Pair, digests

if TYPE_CHECKING:
    from msgd.node import Node
    from msgd.session import Wire
    from msgd.wire.ledger import Taken

IDLE_S = 600.0  # between two questions: the asker may be waiting for its disk

Answer = Callable[["Serving", Ask], None]


def serve(node: Node, wire: Wire, reader: Reader, taken: Taken, channel: socket.socket) -> int:
    """Answer until the peer leaves, or the log process says anything: that it is to end, or is gone."""
    children.set_title("serve", taken.name)
    journal.event("service.opened", peer=taken.name)
    talk = Talk(wire.session, wire.connection.rest(), limit_bytes=ASK_BYTES)
    reason = "it has left"
    try:
        Serving(talk, reader, taken.peer, channel).run()
    except (TalkEnded, ProtocolError, LookupError) as error:
        reason = str(error)
    finally:
        talk.close()
    journal.event("service.closed", peer=taken.name, reason=reason)
    return 0


class Serving:
    """The answers to one peer."""

    def __init__(self, talk: Talk, reader: Reader, number: int, channel: socket.socket) -> None:
        self.talk = talk
        self._channel = channel
        self.pair = Pair(reader, number)
        self._ticker = Ticker()
        self._told = 0  # of the damaged places

    def run(self) -> None:
        """Answer questions, one after another. Raises TalkEnded, ProtocolError."""
        while (ask := self.talk.hear(IDLE_S)) is not None:
            if isinstance(ask, Ask):
                self._check_leave()
                self._answer(ask)

    def _answer(self, ask: Ask) -> None:
        answer = ANSWERS.get(ask.what)
        if answer is None:
            self.talk.say(End(ask.number, "unknown", f"no answer to {ask.what!r} in this version"))
            return
        code, detail = "", ""
        try:
            self.pair.advance(self._tick)
            answer(self, ask)
        except Damaged as damaged:
            self.pair.note(damaged)
            code, detail = "damaged", damaged.why[:200]
        except msgspec.MsgspecError as error:
            code, detail = "damaged", f"a record is not what its kind says: {error}"[:200]
        except LookupError as error:  # it went just now
            code, detail = "gone", str(error)[:200]
        self._tell_damage()
        self.talk.say(End(ask.number, code, detail))

    def _tick(self, seq: int = 0) -> None:
        """A sign of life."""
        if self._ticker.is_due():
            self._check_leave()
            self.talk.say(Progress(seq))
            self.talk.flush()

    def _check_leave(self) -> None:
        if select.select([self._channel], [], [], 0)[0]:
            raise TalkEnded("it is not to be served any more")

    def _tell_damage(self) -> None:
        for damaged in self.pair.damage[self._told :]:
            first, last = self.pair.seqs_at(damaged.offset)
            name = os.path.basename(damaged.segment)
            self.talk.say(Broken(name, damaged.offset, damaged.why[:200], first, last))
        self._told = len(self.pair.damage)

    # --- answers ----------------------------------------------------------------------------------------

    def outline(self, ask: Ask) -> None:
        """What is here."""
        self.talk.say(self.pair.tracks[ask.direction].outline())

    def marks(self, ask: Ask) -> None:
        """The digests of all windows."""
        some: list[Mark] = []
        for mark in self.pair.marks(ask.direction, ask.first, self._tick):
            some.append(mark)
            if len(some) == MARKS:
                self.talk.say(Marks(some))
                some = []
        self.talk.say(Marks(some))

    def batches(self, ask: Ask) -> None:
        """The digests of some batches."""
        entries = list(self.pair.entries(ask.direction, ask.first, min(ask.last, ask.first + ENTRIES - 1)))
        self.talk.say(Batches(entries))

    def messages(self, ask: Ask) -> None:
        """The digests of one batch's messages."""
        for header in self.pair.headers(ask.direction, ask.first, ask.first):
            entries = digests(self.pair, header)
            for at in range(0, len(entries), ENTRIES):
                self.talk.say(Messages(ask.first + at, entries[at : at + ENTRIES]))

    def fetch(self, ask: Ask) -> None:
        """Batches with their messages; those that cannot be read are told and passed over."""
        before, follows = b"", 0
        for header in self.pair.headers(ask.direction, ask.first, ask.last):
            begun = self.pair.tracks[ask.direction].begun_at(header.first_seq)
            if begun or follows != header.first_seq:
                before = begun or self.pair.head_before(ask.direction, header.first_seq)
            try:
                payload = memoryview(self.pair.payload(header))
            except Damaged as damaged:
                self.pair.note(damaged)
            except LookupError:  # it went just now
                continue
            else:
                piece = (header.first_seq, header.count, before, header.head, header.wall_ns, payload)
                self.talk.say(Piece(*piece))
            before, follows = header.head, header.first_seq + header.count
            self._tick(follows)


ANSWERS: dict[str, Answer] = {
    OUTLINE: Serving.outline,
    MARKS_OF: Serving.marks,
    BATCHES_OF: Serving.batches,
    MESSAGES_OF: Serving.messages,
    FETCH: Serving.fetch,
}
