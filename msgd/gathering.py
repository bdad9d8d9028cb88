"""A send to a group under way: one message, one id, and what has become of it at each member.

The log process takes the message for as many members at once as one append holds well (`Spread`). If the id
is in the log already, the call is a repetition: the log then says who has it, and only the others get it, as
the same bytes. Each member is a `Pending` of its own; the group's answer comes when all of them are done or,
with a quorum, when it is reached or cannot be reached any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from msgd import errors, grouping, model
from msgd.errors import MsgdError, UsageError
from msgd.log.record import OVERHEAD_BYTES
from msgd.pending import Pending
from msgd.rows import Filter, Row
from msgd.sending import MAX_TIME_MS, Outgoing, SendCall, build, check_repeated, key_id, payload_of
from msgd.wire.codec import Message
from msgd.wire.groups import Placed, Spread
from msgd.wire.ledger import PeerState, Refused, Submitted

if TYPE_CHECKING:
    from msgd.control import Control
    from msgd.submitting import Submitting

SPREAD_BYTES = 256 << 10  # of records that are asked for at once
MOST_TRIES = 3  # to meet a change: of who is a peer, of what is kept
HEADER = "group"


class SendGroupCall(msgspec.Struct):
    """Parameters of SendGroup."""

    group: str
    message: Outgoing
    ttl_ms: Annotated[int, msgspec.Meta(ge=1, le=MAX_TIME_MS)] | None = None
    key: str | None = None
    wait: str | None = None
    quorum: Annotated[int, msgspec.Meta(ge=1)] | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)] | None = None
    hold: bool | None = None

    def of(self, peer: PeerState) -> SendCall:
        """The same for one member."""
        return SendCall(peer.name, self.message, wait=self.wait, timeout_ms=self.timeout_ms)


class Gathering:
    """One call under way. To make it and to begin it raise MsgdError for what is wrong with it."""

    def __init__(self, control: Control, call: SendGroupCall, more: bool) -> None:
        self.control = control
        self.call = call
        self.group = grouping.plain(call.group)
        peers = self._members()
        self._check(len(peers))
        message = self._message()
        self.id = message.id
        self._fingerprint = (message.headers, (message.body, message.kind))
        self._payload = payload_of([message])
        self.parts = [self._part(peer) for peer in peers]
        self._left = [peer.number for peer in peers]  # for whom the log process was not asked yet
        self._gone: set[int] = set()  # for whom it was known, and is not kept any more
        self._gone_upto = 0  # as far as this log offset
        self._is_first = True
        self._tries = 0
        self._more = more
        self._is_whole = False  # it is on this disk for all of them
        self._is_ending = False
        self._told: dict[int, tuple[Any, ...]] = {}  # what was noted of each
        self._receipts: dict[int, dict[str, Any]] = {}
        self._news: dict[int, None] = {}  # of whom the client was not told yet
        self.done = False
        self.oneway = control.is_oneway
        self.reply = b""

    def begin(self, submitting: Submitting) -> None:
        """Hand it to the log process."""
        self._submitting = submitting
        if self._wants_stored:
            for part in self.parts:
                submitting.watch(part.peer.number)
        self._ask()

    # --- the call ---------------------------------------------------------------------------------------

    @property
    def _wants_stored(self) -> bool:
        return self.call.wait in (model.STORED, model.HANDLED)

    def _members(self) -> list[PeerState]:
        peers = grouping.members(self.control, self.group)
        if self.call.hold is False:
            grouping.check_held(self.control, peers)
        return peers

    def _check(self, members: int) -> None:
        call = self.call
        SendCall(self.group, call.message, wait=call.wait).check()
        if call.quorum is None:
            return
        if not self._wants_stored:
            raise UsageError("A quorum counts members that have it: `wait` has to be 'stored' or 'handled'.")
        if call.quorum > members:
            text = f"The quorum is {call.quorum}, but group @{self.group} has {members} members."
            raise UsageError(text, "This node does not count. `msgctl group ls` shows who does.")

    def _message(self) -> Message:
        call, control = self.call, self.control
        given = (call.message.headers or {}).get(HEADER, self.group)
        if given != self.group:
            raise UsageError(f"The header {HEADER} is {given!r}, but it goes to @{self.group}.")
        call.message.headers = {**(call.message.headers or {}), HEADER: self.group}
        raw = None
        if call.key is not None:
            name = grouping.MARK + self.group
            raw = key_id(control.user, [name.encode()], call.key, control.is_kept)
        built = build([call.message], control.user, raw)
        control.check_reports(built)
        return built[0]

    def _part(self, peer: PeerState) -> Pending:
        part = Pending(self.call.of(peer), peer, [self.id], b"", False)
        part.whole = self
        return part

    # --- the log process --------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Have it put into the log for the next of those that are left."""
        control = self.control
        count = max(1, SPREAD_BYTES // (len(self._payload) + OVERHEAD_BYTES))
        some = self._left[:count]
        frame = Spread(
            self._submitting.expect(self),
            some,
            self.id,
            (self.call.ttl_ms or 0) * 1_000_000,
            control.state(fresh=False).generation,
            control.user,
            self._is_first,
            [number for number in some if number in self._gone],
            self._gone_upto,
        )
        control.tell(frame, self._payload)

    def placed(self, frame: Placed) -> None:
        """The answer to that."""
        try:
            self._take(frame)
            if self._left:
                self._ask()
                return
        except MsgdError as error:
            self._submitting.refuse(self, error)
            return
        for part in self.parts:
            self._submitting.go_on(part)
        self._is_whole = True

    def _take(self, frame: Placed) -> None:
        self._is_first = False
        by_number = {part.peer.number: part for part in self.parts}
        for number, offset, first_seq in frame.places:
            submitted = Submitted(0, offset, first_seq, frame.wall_ns)
            self._submitting.note(by_number[number], submitted)
        if frame.is_known or frame.known:
            self._take_rows(by_number, set(frame.known))
        self._left = [part.peer.number for part in self.parts if not part.state]

    def _take_rows(self, by_number: dict[int, Pending], known: set[int]) -> None:
        """Who has it already, and as which bytes. Raises MsgdError where it is another message."""
        control = self.control
        upto = control.place.reader.committed
        rows = self._rows()
        for row in rows:
            self._check_same(row)
            part = by_number.get(row.peer_number)
            if part is not None and not part.state:
                part.duplicate = True
                self._submitting.take_row(part, row)
        if rows:
            self._payload = payload_of([self._sent(rows[0])])
        gone = known - {row.peer_number for row in rows}
        if gone:
            self._try_again(f"The message {self.id.hex()} is known, but cannot be found.")
            self._gone |= gone
            self._gone_upto = upto

    def _rows(self) -> list[Row]:
        wanted = Filter(id=self.id.hex(), direction=model.OUT)
        return [row for rows in self.control.history().query(wanted) for row in rows]

    def _check_same(self, row: Row) -> None:
        kind = model.MESSAGE_KINDS.index(row.kind)
        check_repeated(self.id, (row.headers, (row.body, kind)), self._fingerprint)

    def _sent(self, row: Row) -> Message:
        """The message as the first members got it."""
        kind = model.MESSAGE_KINDS.index(row.kind)
        return Message(self.id, kind, row.sent_at_ns, row.user, row.headers, row.body)

    def refused(self, frame: Refused) -> None:
        """Nothing was kept for those that were asked for."""
        try:
            if frame.name != "Stale":
                raise errors.BY_NAME.get(frame.name, MsgdError)(frame.message, frame.hint)
            self._try_again(frame.message)
            peers = {peer.number: peer for peer in self._members()}
            self.parts = [part for part in self.parts if part.state or part.peer.number in peers]
            self._left = [part.peer.number for part in self.parts if not part.state]
            self._ask()
        except MsgdError as error:
            self._submitting.refuse(self, self._in_part(error))

    def _try_again(self, text: str) -> None:
        self._tries += 1
        if self._tries > MOST_TRIES or self.control.damage:
            raise MsgdError(text, "Repeat the call; if it comes again, `msgctl verify` may say why.")

    def _in_part(self, error: MsgdError) -> MsgdError:
        """The error, with what was kept all the same."""
        kept = sum(bool(part.state) for part in self.parts)
        if kept:
            error.message += f" {kept} of {len(self.parts)} members of @{self.group} get it all the same."
            error.hint = error.hint or f"msgctl show {model.id_text(self.id)}"
        return error

    # --- the client -------------------------------------------------------------------------------------

    def look(self) -> None:
        """Something may have happened to a member: tell the client, or end."""
        if self.done or not self._is_whole or self._is_ending:
            return
        self._note()
        if self._is_over():
            self._end()
        elif self._more and self._news and self._submitting.pending[0] is self:
            self.control.reply(self._answer(), continues=True)

    def _note(self) -> None:
        for part in self.parts:
            stands = (part.state, part.reason, part.first_seq, part.pairing, len(part.handled))
            number = part.peer.number
            if self._told.get(number) != stands:
                self._told[number] = stands
                self._receipts[number] = part.answer()["receipt"]
                self._news[number] = None

    def _is_over(self) -> bool:
        is_open = sum(not part.done for part in self.parts)
        quorum = self.call.quorum
        if quorum is None:
            return not is_open
        reached = self._reached()
        return reached >= quorum or reached + is_open < quorum

    def _reached(self) -> int:
        """How many have it as was asked for."""
        if self.call.wait == model.HANDLED:
            return sum(bool(part.handled) for part in self.parts)
        levels = (model.STORED,) if self._wants_stored else (model.QUEUED, model.STORED)
        return sum(part.state in levels for part in self.parts)

    def _end(self) -> None:
        self._is_ending = True  # what is heard while the log process is asked counts, but ends nothing anew
        for part in self.parts:
            self._submitting.finish(part)
        self._note()
        self.reply, self.done = self.control.encode_reply(self._answer()), True

    def _answer(self) -> dict[str, Any]:
        told = self._news if self._more else self._receipts
        receipts = [self._receipts[number] for number in told]
        self._news = {}
        return {
            "receipts": receipts,
            "reached": self._reached(),
            "wanted": self.call.quorum or len(self.parts),
        }
