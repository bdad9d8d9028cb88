"""The sends of one client that are under way: from the call to the level that it asked for.

Each call becomes one `Submit`. The log process answers when it is on disk; how it goes on is learned from
the records that follow (`Wake`): a receipt, a release, an end. Replies leave in the order of the calls, so a
call that is done waits for those before it.

A message to an address that was never paired is kept under that address (`PutPeer` hold), and the call waits
until it is known who answers there and with which words, or that nobody does (`TrustChanged`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from msgd import advising, errors, finding, model, showing
from msgd.errors import MsgdError, NotTrusted
from msgd.gathering import Gathering
from msgd.log.record import Kind, decode_ranges
from msgd.pending import Pending
from msgd.rows import Row
from msgd.sending import SendCall, build, key_id, payload_of
from msgd.wire.codec import decode_payload, encode
from msgd.wire.groups import Placed
from msgd.wire.ledger import Duplicates, PeerState, Refused, Submit, Submitted, Wake, Watch
from msgd.wire.reports import reports_of

if TYPE_CHECKING:
    from msgd.control import Control

MAX_PENDING = 64  # calls under way; more wait in the socket
MOST_TRIES = 3  # of a call that meets a change: of who is a peer, of what is kept
NEEDS_A_PERSON = (advising.KEY_CHANGED, advising.FORGOTTEN, advising.BLOCKED)

_ended = msgspec.msgpack.Decoder(tuple[str, str, list[tuple[int, int]]]).decode


class Submitting:
    """The calls under way, oldest first."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.pending: deque[Pending | Gathering] = deque()
        self._gatherings: deque[Gathering] = deque()  # those of them
        self._by_token: dict[int, Any] = {}
        self._watched: set[int] = set()
        self._receipts: dict[int, tuple[int, int, int]] = {}  # peer -> seq, their clock, offset: the newest

    def is_full(self) -> bool:
        return len(self.pending) >= MAX_PENDING

    # --- calls ------------------------------------------------------------------------------------------

    def begin(self, call: SendCall, more: bool) -> None:
        """Take a call: its messages go to the log process. Raises MsgdError for what is wrong with it."""
        messages = call.check()
        peer = self._peer_of(call)
        built = build(messages, self.control.user, self._key_id(call, peer))
        pending = Pending(call, peer, [m.id for m in built], payload_of(built), more)
        pending.oneway = self.control.is_oneway
        pending.has_reports = self.control.check_reports(built)
        self.pending.append(pending)
        try:
            self._submit(pending)
        except MsgdError as error:
            self.refuse(pending, error)
            self._send_replies()

    def gather(self, gathering: Gathering) -> None:
        """Take a call to many peers. Raises MsgdError for what is wrong with it."""
        self.pending.append(gathering)
        self._gatherings.append(gathering)
        try:
            gathering.begin(self)
        except MsgdError as error:
            self.refuse(gathering, error)
            self._send_replies()

    def in_turn(self, reply: bytes) -> None:
        """Send a reply behind those of the calls before it."""
        self.pending.append(Pending.answered(reply))
        self._send_replies()

    def _peer_of(self, call: SendCall) -> PeerState:
        """Whom it goes to: a peer, or an address for which it is held. Raises MsgdError."""
        may_hold = call.hold is not False
        try:
            peer = self.control.lookup(call.peer)
        except NotTrusted:
            if not may_hold or self.control.is_known_only:
                raise
            address = finding.parse_address(call.peer)
            return self.control.put_peer("hold", address=address)
        if peer.pinned and may_hold:
            return peer
        if not peer.pinned and self.control.is_known_only:
            raise NotTrusted(
                f"{call.peer} is not paired with this node: nothing was sent to it, nothing is kept.",
                'pairing.trust is "known-only": use `msgctl peer add` or `msgctl pair join`.',
            )
        if not may_hold:
            self._refuse_hold(peer)
        return peer

    def _refuse_hold(self, peer: PeerState) -> None:
        """Nothing may be held for it. Raises NotTrusted where it would be."""
        now = self.control.peer_state(peer.number)
        if now.hold or not now.pinned:
            steps = advising.pairing(now, self.control.request_of(now.number), self.control.own_name)
            raise NotTrusted(
                f"Nothing was sent, nothing is kept: {steps['detail']}", steps["next"] or steps["there"] or ""
            )

    def _key_id(self, call: SendCall, peer: PeerState) -> bytes | None:
        if call.key is None:
            return None
        names = [peer.identity, *peer.retired] if peer.pinned else []
        if not peer.pinned or peer.aliases or peer.how in ("words", "first-use"):
            names += [a.encode() for a in self.control.addresses_of(peer)]
        return key_id(self.control.user, names, call.key, self.control.is_kept)

    def _submit(self, pending: Pending, gone: Sequence[bytes] = (), gone_upto: int = 0) -> None:
        call, number = pending.call, pending.peer.number
        if pending.wants_stored:
            self.watch(number)
        token = self.expect(pending)
        ttl_ns = (call.ttl_ms or 0) * 1_000_000
        generation = self.control.state(fresh=False).generation
        ids, user = b"".join(pending.ids), self.control.user
        has = pending.has_reports
        frame = Submit(token, number, pending.count, ids, ttl_ns, generation, user, [*gone], gone_upto, has)
        self.control.tell(frame, pending.payload)

    def expect(self, asking: Any) -> int:
        """A token for a request of this call, to which the answer will be handed."""
        token = self.control.next_token()
        self._by_token[token] = asking
        return token

    def watch(self, number: int) -> None:
        """Hear of the records of this peer."""
        if number not in self._watched:
            self._watched.add(number)
            self.control.tell(Watch(number))

    # --- the log process answers ------------------------------------------------------------------------

    def answered(self, frame: Any) -> bool:
        """Whether the frame is the answer to one of the calls; then it is taken in."""
        pending = self._by_token.pop(frame.token, None)
        if pending is None:
            return False
        match frame:
            case Submitted():
                self._queued(pending, frame)
            case Placed():
                pending.placed(frame)
            case Refused() if isinstance(pending, Gathering):
                pending.refused(frame)
            case Duplicates():
                try:
                    self._repeated(pending, frame.ids)
                except MsgdError as error:
                    self.refuse(pending, error)
            case Refused(name="Stale") if pending.tries < MOST_TRIES:
                self._again(pending)
            case Refused():
                self._fail(pending, frame)
        self._send_replies()
        return True

    def _queued(self, pending: Pending, frame: Submitted) -> None:
        self.note(pending, frame)
        self.go_on(pending)

    def note(self, pending: Pending, frame: Submitted) -> None:
        """It is on this disk."""
        pending.state = model.QUEUED
        pending.offset, pending.queued_ns = frame.offset, frame.wall_ns
        pending.payload = b""
        if frame.first_seq:
            pending.first_seq, pending.numbered = frame.first_seq, pending.count
            pending.last_seq = frame.first_seq + pending.count - 1
            self._check_receipt(pending)

    def go_on(self, pending: Pending) -> None:
        """What follows once it is known that it is on this disk, and how it stands."""
        if pending.done:
            return
        if pending.is_over:
            self.finish(pending)
            return
        if pending.is_waiting:
            self._consider(pending)
        self._tell_more(pending)

    def _tell_more(self, pending: Pending) -> None:
        """A reply before the last one, for a client that wants them."""
        if pending.more and not pending.done and self.pending[0] is pending:
            self._refresh(pending)
            if not pending.done:  # the last reply may have gone out while the log process was asked
                self.control.reply(pending.answer(), continues=True)

    def _again(self, pending: Pending) -> None:
        """Who is a peer has changed since we looked: look again."""
        pending.tries += 1
        try:
            self.control.state()
            pending.peer = self._peer_of(pending.call)
            self._submit(pending)
        except MsgdError as error:
            self.refuse(pending, error)

    def _repeated(self, pending: Pending, known: list[bytes]) -> None:
        """Some ids are in the log already: the others are sent, those are answered as they stand.

        Raises MsgdError when that cannot be done.
        """
        upto = self.control.place.reader.committed
        gone = [raw for raw in known if not self.control.is_kept(raw)]
        if gone and pending.tries < MOST_TRIES and not self.control.damage:
            pending.tries += 1
            self._submit(pending, gone, upto)
            return
        seen = set(known)
        messages = decode_payload(pending.payload, pending.count)
        fresh = [m for m in messages if m.id not in seen]
        self.control.check_same([m for m in messages if m.id in seen], pending.peer.number)
        pending.duplicate = True
        for raw in known if not pending.is_handled else ():
            self._take_mark(pending, self.control.row_of(raw))
        if fresh:
            pending.payload = b"".join(encode(m) for m in fresh)
            pending.ids = [m.id for m in fresh]
            pending.count = len(fresh)
            self._submit(pending)
            return
        self.take_row(pending, self.control.row_of(pending.ids[-1]))
        self.go_on(pending)

    def take_row(self, pending: Pending, row: Row) -> None:
        """How it stands, by the log itself."""
        pending.offset, pending.queued_ns = row.location[0], row.stored_at_ns
        pending.state, pending.reason = row.state, row.reason
        pending.receipt_ns = row.receipt_at_ns or 0
        pending.first_seq = pending.last_seq = row.seq or 0
        pending.numbered = pending.count if row.seq else 0
        self._take_mark(pending, row)
        self._check_receipt(pending)  # it may have come while we looked

    @staticmethod
    def _take_mark(pending: Pending, row: Row) -> None:
        if row.handled_at_ns is not None and row.handled_by is not None:
            pending.handled.setdefault(row.id, (row.handled_at_ns, row.handled_by))

    def _fail(self, pending: Pending, frame: Refused) -> None:
        self.refuse(pending, errors.BY_NAME.get(frame.name, MsgdError)(frame.message, frame.hint))

    def refuse(self, pending: Any, error: MsgdError) -> None:
        """Answer a call with an error."""
        pending.reply, pending.done = self.control.encode_error(error), True

    def lose(self, error: MsgdError) -> None:
        """The log process is gone: what was not answered is uncertain, what is on disk stays queued."""
        for pending in list(self._parts()):
            if pending.done:
                continue
            if pending.state:
                pending.reason = model.RESTARTING
                self.finish(pending)
            else:
                self.refuse(pending.whole or pending, error)
        self._send_replies()

    # --- what happens later -----------------------------------------------------------------------------

    def wake(self, wake: Wake) -> None:
        """A record of a peer that we watch."""
        match wake.kind:
            case Kind.RECEIPT:
                if wake.offset < self._receipts.get(wake.peer, (0, 0, 0))[2]:
                    return  # `_refresh` has heard a newer one in between
                self._receipts[wake.peer] = (wake.first_seq, wake.aux, wake.offset)
                for pending in self._open(wake.peer):
                    self._check_receipt(pending)
            case Kind.RELEASED:
                self._released(wake)
            case Kind.ENDED:
                self._ended(wake)
            case Kind.EPOCH if wake.direction == model.OUT:
                for pending in self._open(wake.peer):  # seqs without a receipt are void
                    if pending.state != model.STORED:
                        pending.numbered = pending.first_seq = pending.last_seq = 0
        if wake.has_reports and wake.direction == model.IN:
            self._reported(wake)
        self._send_replies()

    def _reported(self, wake: Wake) -> None:
        """The peer says what was handled there."""
        waiting = [pending for pending in self._open(wake.peer) if not pending.is_handled]
        if not waiting:
            return
        record = self.control.place.reader.record(wake.offset)
        for report in reports_of(decode_payload(record.payload, record.count)):
            for pending in waiting:
                if report.id in pending.asked:
                    pending.handled.setdefault(report.id, (report.at_ns, report.consumer))
        for pending in waiting:
            if pending.is_over:
                self.finish(pending)

    def trust_changed(self, number: int) -> None:
        """Something new about who this peer is, or whether it may get anything."""
        for pending in self._open(number):
            if pending.wants_stored and pending.is_waiting:
                before = pending.pairing
                self._consider(pending)
                if pending.pairing != before:
                    self._tell_more(pending)
        self._send_replies()

    def _parts(self) -> Iterable[Any]:
        """All that is waited for, a message to one peer each."""
        if not self._gatherings:
            return self.pending
        return [part for call in self.pending for part in call.parts]

    def _open(self, number: int) -> list[Pending]:
        return [p for p in self._parts() if not p.done and p.peer.number == number]

    def _consider(self, pending: Pending) -> None:
        """Answer where waiting longer tells nothing new: a person has to act first."""
        before = pending.peer.number
        try:
            self._refresh(pending)
            if pending.peer.number != before:  # the address became a peer's, which we did not watch
                self.watch(pending.peer.number)
                self.take_row(pending, self.control.row_of(pending.ids[-1]))
        except MsgdError:
            return  # it stays as it is: `lose` answers when the log process has gone
        if pending.is_waiting and pending.state == model.HELD and _is_settled(pending):
            self.finish(pending)

    def _check_receipt(self, pending: Pending) -> None:
        seq, their_ns, offset = self._receipts.get(pending.peer.number, (0, 0, 0))
        if (
            pending.numbered
            and pending.numbered + len(pending.ends) >= pending.count
            and pending.last_seq <= seq
            and offset > pending.offset
        ):
            is_new = pending.state != model.STORED
            pending.state, pending.reason, pending.receipt_ns = model.STORED, None, their_ns
            if pending.is_handled:
                self.finish(pending)
            elif is_new:
                self._tell_more(pending)

    def _released(self, wake: Wake) -> None:
        seq = wake.first_seq
        waiting = {p.offset: p for p in self._parts() if not p.done and p.offset}
        if not waiting:
            return
        record = self.control.place.reader.record(wake.offset)
        moved = []
        for source, _, _, count in decode_ranges(record.payload):
            pending = waiting.get(source)
            if pending is not None:
                if pending.peer.number != wake.peer:
                    moved.append(pending)
                pending.state, pending.reason = model.QUEUED, None
                pending.first_seq = pending.first_seq or seq
                pending.numbered += count
                pending.last_seq = seq + count - 1
            seq += count
        for pending in moved:
            self._move(pending, wake.peer)

    def _move(self, pending: Pending, number: int) -> None:
        """The address became a peer's, and the message was released as one for that peer."""
        self.watch(number)
        try:
            pending.peer = self.control.peer_state(number)
        except MsgdError:
            return  # `lose` answers when the log process has gone
        self._check_receipt(pending)

    def _ended(self, wake: Wake) -> None:
        waiting = {p.offset: p for p in self._parts() if not p.done and p.offset}
        if not waiting:
            return
        state, reason, places = _ended(self.control.place.reader.record(wake.offset).payload)
        for offset, index in places:
            pending = waiting.get(offset)
            if pending is None or pending.done:
                continue
            pending.ends[pending.ids[index]] = state
            pending.reason = reason
            if len(pending.ends) == pending.count:
                pending.state = state
                self.finish(pending)
            else:
                self._check_receipt(pending)

    # --- replies ----------------------------------------------------------------------------------------

    def timeout_ms(self) -> float | None:
        """Until the next deadline of a call that `expire` may answer."""
        due_s = min((p.deadline_s for p in self._parts() if not p.done and p.state), default=None)
        return None if due_s is None else max(0.0, (due_s - time.monotonic()) * 1000 + 1)

    def expire(self) -> None:
        """Answer those whose time is over, with the state that they have now."""
        now_s = time.monotonic()
        for pending in list(self._parts()):
            if not pending.done and pending.state and pending.deadline_s <= now_s:
                self.finish(pending)
        self._send_replies()

    def finish(self, pending: Pending) -> None:
        """Nothing more is waited for: answer it as it stands."""
        if pending.done:
            return
        try:
            self._refresh(pending)
        except errors.Uncertain:  # the log process has just died: what is on disk is queued all the same
            pending.reason = model.RESTARTING
        except MsgdError as error:
            pending.reason = error.message
        if not pending.done:  # by what was heard meanwhile
            if pending.whole is None:
                pending.reply = self.control.encode_reply(pending.answer())
            pending.done = True

    def _refresh(self, pending: Pending) -> None:
        """Why it waits, where it waits: whether it is held, and what can be done. Raises Uncertain."""
        if not pending.is_waiting:
            return
        peer = self.control.peer_state(pending.peer.number)
        asked = self.control.request_of(peer.number) if peer.hold else None
        if pending.done or not pending.is_waiting:
            return  # it went on while we asked
        pending.peer = peer
        pending.reason, pending.next_try_s = showing.waiting_reason(peer)
        pending.state = model.HELD if peer.hold else model.QUEUED
        pending.pairing = advising.pairing(peer, asked, self.control.own_name) if peer.hold else None

    def _send_replies(self) -> None:
        for gathering in list(self._gatherings):
            gathering.look()
        ready = []
        while self.pending and self.pending[0].done:
            done = self.pending.popleft()
            ready.append(b"" if done.oneway else done.reply)
            if self._gatherings and done is self._gatherings[0]:
                self._gatherings.popleft()
        if ready:
            self.control.send(b"".join(ready))


def _is_settled(pending: Pending) -> bool:
    """Whether a held message waits for a person here, or for nobody.

    At an address nothing is settled before a try has ended that began after the call: in words to compare, or
    in a failure. An earlier one may have failed before the other side was there.
    """
    peer, steps = pending.peer, pending.pairing or {}
    if peer.hold in NEEDS_A_PERSON or steps.get("theirs") == "rejected":
        return True
    if steps.get("words"):
        return not steps["accepted"]
    return not peer.pinned and peer.has_failed_since(pending.began_s)
