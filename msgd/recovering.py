"""Get back from a peer what this node once sent to it and received from it, and has lost.

What is missing is found by comparing which seqs both logs hold; then the peer sends those batches. They are
checked as they come: each head is the digest of the batch and the head before it, an epoch's head that of
what it says, and where an epoch in this node's own log names the head at which the peer stood, that is what
must come out. So a stretch that was lost between two known points is proven to be what it was.

What is in the log already is not asked for again, so the whole may be broken off and begun anew at any point.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from msgd import spans
from msgd.comparing import OnProgress, Questions
from msgd.model import IN, OUT
from msgd.peer.heads import chain, epoch_head
from msgd.peer.service import FETCH, Epoch, Outline, Piece
from msgd.spans import Span
from msgd.tracks import Pair
from msgd.wire.codec import check_payload

# Puts a batch or the beginning of an epoch into the log: direction, first seq, count, head, clock, bytes.
Put = Callable[[int, int, int, bytes, int, bytes | memoryview], None]


class NotTheSame(Exception):
    """What the peer sends is not what was lost. Says where."""

    def __init__(self, direction: int, seq: int, why: str) -> None:
        super().__init__(why)
        self.direction = direction
        self.seq = seq


class Missing(NamedTuple):
    """What this node lacks of one direction."""

    direction: int
    epochs: list[Epoch]
    spans: list[Span]
    waiting: int  # messages above all that this node knows of: the link brings them, or names them as lost
    gone: list[Span]  # lost here, and no longer kept there


class Recovering:
    """One run. `pack_epoch` makes the bytes that an epoch's record has."""

    def __init__(
        self,
        pair: Pair,
        questions: Questions,
        put: Put,
        pack_epoch: Callable[[Epoch], bytes],
        on_progress: OnProgress,
    ) -> None:
        self.pair = pair
        self.questions = questions
        self.messages = {OUT: 0, IN: 0}  # got back
        self._put = put
        self._pack_epoch = pack_epoch
        self._on_progress = on_progress

    def missing(self) -> list[Missing]:
        """What is to be got back, of both directions. Raises as `Questions.ask`."""
        found = []
        for direction in (OUT, IN):
            theirs = self.questions.outline(direction)
            self.pair.advance()  # what has come in the ordinary way meanwhile is not missing
            found.append(self._missing(direction, theirs))
        return found

    def _missing(self, direction: int, theirs: Outline) -> Missing:
        track = self.pair.tracks[direction]
        lacking, gone = (self._lacking(direction, theirs, each) for each in (theirs.held, theirs.gone))
        above = [(track.last + 1, 1 << 62)]
        wanted = spans.less(lacking, above)
        epochs = [epoch for epoch in theirs.epochs if not track.knows_epoch(epoch)] if wanted else []
        waiting = spans.count(lacking) - spans.count(wanted)
        return Missing(direction, epochs, wanted, waiting, spans.less(gone, above))

    def _lacking(self, direction: int, theirs: Outline, there: list[Span]) -> list[Span]:
        """What of these seqs was here and was lost: not what a person here did not want to keep."""
        track = self.pair.tracks[direction]
        if direction == IN:  # what it sent and never saw receipted was never here, or comes again
            there = spans.less(spans.less(there, theirs.void), [(theirs.receipt + 1, 1 << 62)])
        return spans.less(spans.less(there, track.held), track.gone)

    def fetch(self, missing: Missing) -> None:
        """Get it, check it, put it. Raises NotTheSame, and as `Questions.ask`."""
        for epoch in missing.epochs:
            self._take_epoch(missing.direction, epoch)
        for first, last in missing.spans:
            self._fetch(missing.direction, first, last)

    def _fetch(self, direction: int, first: int, last: int) -> None:
        follows, head = first, self.pair.head_before(direction, first)
        for frame in self.questions.ask(FETCH, direction, first, last):
            if isinstance(frame, Piece):
                if frame.first < follows:
                    raise NotTheSame(direction, follows, f"a batch from {frame.first} on comes in its place")
                begun = self.pair.tracks[direction].begun_at(frame.first)
                before = begun or (head if frame.first == follows else b"") or frame.before
                self._take_piece(direction, frame, before, last)
                follows, head = frame.first + frame.count, frame.head
                self._on_progress(direction, follows - 1)

    def _take_epoch(self, direction: int, epoch: Epoch) -> None:
        if epoch_head(epoch.epoch, epoch.base, epoch.sender_head, epoch.receiver_head) != epoch.head:
            raise NotTheSame(direction, epoch.base, "an epoch's head is not the digest of what it says")
        self.pair.tracks[direction].know_epoch(epoch)
        self._put(direction, epoch.base, 0, epoch.head, 0, self._pack_epoch(epoch))

    def _take_piece(self, direction: int, piece: Piece, before: bytes, last: int) -> None:
        end = piece.first + piece.count - 1
        if not before or chain(before, piece.first, piece.count, piece.payload) != piece.head:
            raise NotTheSame(direction, piece.first, "a batch does not follow from what came before it")
        if not _are_messages(piece):
            raise NotTheSame(direction, piece.first, "a batch is no messages")
        if end > last:
            raise NotTheSame(direction, last + 1, "a batch goes on into messages that this log holds")
        known = self._known_head(direction, end)
        if known and known != piece.head:
            raise NotTheSame(direction, end, "the head is not the one that the peer had at the last meeting")
        self._put(direction, piece.first, piece.count, piece.head, piece.wall_ns, piece.payload)
        self.messages[direction] += piece.count

    def _known_head(self, direction: int, seq: int) -> bytes:
        """The head at which the peer stood with `seq`, as the next epoch in this log says."""
        for epoch in self.pair.tracks[direction].epochs:
            if epoch.base > seq:
                if direction == OUT:
                    return epoch.receiver_head if epoch.receiver_last == seq else b""
                return epoch.sender_head if epoch.sender_last == seq else b""
        return b""


def _are_messages(piece: Piece) -> bool:
    try:
        check_payload(piece.payload, piece.count)
    except (msgspec.MsgspecError, ValueError):
        return False
    return True
