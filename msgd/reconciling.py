"""How two ends that met again agree where each direction stands, before anything flows.

The conclusions are `peer.reconcile`'s; here they become acts: state a head, open an epoch on this disk and
then on the other, and tell the log process from where to send again. A batch that the log process has let
go of (the peer lost part of its log) is found in this node's log by the index, in this worker alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from msgd.asking import LinkEnded
from msgd.model import IN, OUT
from msgd.past import Past
from msgd.peer.frames import Batch, Epoch, EpochDone, State
from msgd.peer.reconcile import RECEIVER, SENDER, Agree, Ahead, NewEpoch, Resend
from msgd.wire import ledger
from msgd.wire.frame import EpochEnds, Frame

if TYPE_CHECKING:
    from msgd.link import Link

GONE_MEANWHILE = "what it lost is not kept here any more"  # the next link agrees on a new epoch


class LinkRefused(OSError):
    """The talk cannot go on for want of room on this disk."""


class Agreement:
    """The way of one link to two directions that flow."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.is_ready = False
        self._opened = {OUT: False, IN: False}  # an epoch was opened on this disk
        self._tokens = 100
        self._next_seq = 0
        self._old: Iterator[Batch] | None = None  # what is sent again from the log
        self._resent: deque[tuple[int, int]] = deque()  # of it without receipt: last seq, bytes
        self._resent_bytes = 0

    def advance(self) -> None:
        """Do whatever is ours to do now; once both directions agree, let them flow."""
        if self.is_ready:
            return
        connection = self.link.wire.connection
        out, inward = connection.conclusion(OUT), connection.conclusion(IN)
        if isinstance(out, Ahead) and out.who == SENDER:
            self.link.say(State(OUT, out.seq, self._head_to_send_from(out.seq)))
            out = connection.conclusion(OUT)
        if isinstance(inward, Ahead) and inward.who == RECEIVER:
            self.link.say(State(IN, inward.seq, self._head(IN, inward.seq)))
            inward = connection.conclusion(IN)
        if isinstance(out, NewEpoch) and not self._opened[OUT]:
            self._open_out(out)
        if isinstance(out, Agree | Resend) and isinstance(inward, Agree | Resend):
            self._make_ready(out.next_seq)

    def heard(self, event: Any) -> None:
        """A frame of this talk: a state, a new epoch, or that ours is taken."""
        if isinstance(event, Epoch):
            self._ask_epoch(
                IN,
                event.epoch,
                event.base,
                event.sender_last,
                event.sender_head,
                event.receiver_last,
                event.receiver_head,
            )
            self.link.say(EpochDone(event.epoch))
        self.advance()

    def _open_out(self, conclusion: NewEpoch) -> None:
        """We are the sender: the new epoch begins on our disk, then we propose it."""
        sender, receiver = self.link.wire.connection.positions(OUT)
        if conclusion.proven:
            self._ask(ledger.Proven(self._token(), conclusion.proven))
        base = max(sender.last, receiver.last) + 1
        ends = (base, sender.last, sender.head, receiver.last, receiver.head)
        opened = self._ask_epoch(OUT, b"", *ends, receiver.epoch)
        self._opened[OUT] = True
        self.link.say(Epoch(*msgspec.structs.astuple(opened)))

    def _ask_epoch(
        self,
        direction: int,
        epoch: bytes,
        base: int,
        sender_last: int,
        sender_head: bytes,
        receiver_last: int,
        receiver_head: bytes,
        receiver_epoch: bytes = b"",
    ) -> EpochEnds:
        """Begin an epoch on this disk; without one given, a new one or the present one again."""
        answer = self._ask(
            ledger.OpenEpoch(
                self._token(),
                direction,
                epoch,
                base,
                sender_last,
                sender_head,
                receiver_last,
                receiver_head,
                receiver_epoch,
            )
        )
        if not isinstance(answer, ledger.EpochOpened):
            raise LinkRefused("the log has no room for a new epoch")
        return answer.ends

    def _make_ready(self, next_seq: int) -> None:
        self.is_ready = True
        self._next_seq = next_seq
        if next_seq > 1:  # the hello counts as a receipt: the one for this may have been lost with a process
            self._ask(ledger.Proven(self._token(), next_seq - 1))
        answer = self._ask(ledger.FirstUnreceipted(self._token()))
        assert isinstance(answer, ledger.UnreceiptedFrom)
        self._old = self._old_batches(next_seq, answer.seq)
        self._resend()

    def _old_batches(self, first: int, stop: int) -> Iterator[Batch]:
        """What the peer once receipted and has lost, from this log: seqs from `first`, before `stop`."""
        if first >= stop:
            return
        past = self._past()
        try:
            for record in past.batches(first, stop):
                payload = memoryview(self.link.reader.batch(record))
                yield Batch(record.first_seq, record.count, record.head, payload)
                first = record.first_seq + record.count
        except LookupError as error:
            raise LinkEnded(f"{GONE_MEANWHILE}: {error}") from error
        finally:
            past.close()
        if first < stop:
            raise LinkEnded(GONE_MEANWHILE)

    def _resend(self) -> None:
        """Old batches as far as the peer's window goes; behind the last one the log process takes over."""
        window_bytes = self.link.wire.connection.peer_limits.window_bytes
        while self._old is not None and self._resent_bytes < window_bytes:
            batch = next(self._old, None)
            if batch is None:
                self._old = None
                self._let_flow()
            else:
                self.link.say(batch)
                self._resent.append((batch.first_seq + batch.count - 1, len(batch.payload)))
                self._resent_bytes += len(batch.payload)

    def receipted(self, seq: int) -> None:
        """The peer's receipt: room for more of what is sent again."""
        while self._resent and self._resent[0][0] <= seq:
            self._resent_bytes -= self._resent.popleft()[1]
        self._resend()

    def _let_flow(self) -> None:
        limits = self.link.wire.connection.peer_limits
        self.link.ledger.pipe.send(
            ledger.Ready(self._next_seq - 1, limits.window_bytes, limits.window_batches)
        )
        unheard, self.link.ledger.unheard = self.link.ledger.unheard, []
        self.link.hear_frames(unheard)

    def _head(self, direction: int, seq: int) -> bytes | None:
        """The head of a direction at `seq`; None where no batch of ours ends there."""
        answer = self._ask(ledger.HeadAt(self._token(), direction, seq))
        assert isinstance(answer, ledger.HeadIs)
        if answer.head:
            return answer.head
        past = self._past()
        try:
            return past.head_at(direction, seq)
        finally:
            past.close()

    def _head_to_send_from(self, seq: int) -> bytes | None:
        """The head at `seq` of what we send; None also where something behind it is not kept any more."""
        head = self._head(OUT, seq)
        answer = self._ask(ledger.FirstUnreceipted(self._token()))
        assert isinstance(answer, ledger.UnreceiptedFrom)
        if head is None or seq + 1 >= answer.seq:
            return head
        past = self._past()
        try:
            return head if past.can_send(seq + 1, answer.seq) else None
        finally:
            past.close()

    def _past(self) -> Past:
        return Past(self.link.reader, self.link.peer, self.link.keep_alive)

    def _ask(self, frame: Any) -> Frame:
        return self.link.ledger.ask(frame)

    def _token(self) -> int:
        self._tokens += 1
        return self._tokens
