"""The sends of one client that are under way: from the call to the level that it asked for.

Each call becomes one `Submit`. The log process answers when it is on disk; how it goes on is learned from
the records that follow (`Wake`): a receipt, a release, an end. Replies leave in the order of the calls, so a
call that is done waits for those before it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from msgd import errors, model
from msgd.errors import MsgdError, UsageError
from msgd.log.record import Kind, decode_ranges
from msgd.wire.codec import Message, decode_payload, encode
from msgd.wire.ledger import Duplicates, PeerState, Refused, Submit, Submitted, Wake, Watch

if TYPE_CHECKING:
    from msgd.control import Control

MAX_PENDING = 64  # calls under way; more wait in the socket
MAX_MANY = 256
MAX_TIME_MS = 100 * 365 * 86_400_000  # a hundred years: every sum with a clock still fits into 64 bits
DEFAULT_TIMEOUT_MS = 3_600_000
SENDABLE = {name: code for code, name in enumerate(model.MESSAGE_KINDS) if name != "control"}

_encode_list = msgspec.msgpack.Encoder().encode
_ended = msgspec.msgpack.Decoder(tuple[str, str, list[tuple[int, int]]]).decode


class Outgoing(msgspec.Struct, gc=False):
    """A message as a client gives it; `data` is base64 in JSON."""

    id: str | None = None
    kind: str | None = None
    text: str | None = None
    data: str | None = None
    headers: dict[str, str] | None = None


class SendCall(msgspec.Struct):
    """Parameters of Send and SendMany (one of `message` and `messages`)."""

    peer: str
    message: Outgoing | None = None
    messages: list[Outgoing] | None = None
    ttl_ms: Annotated[int, msgspec.Meta(ge=1, le=MAX_TIME_MS)] | None = None
    key: str | None = None
    wait: str | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)] | None = None


class Pending:
    """One call under way."""

    __slots__ = (
        "asked",
        "began_s",
        "call",
        "count",
        "deadline_s",
        "done",
        "duplicate",
        "ends",
        "first_seq",
        "ids",
        "last_seq",
        "more",
        "numbered",
        "offset",
        "oneway",
        "payload",
        "peer",
        "queued_ns",
        "reason",
        "receipt_ns",
        "reply",
        "state",
        "tries",
    )

    def __init__(self, call: SendCall, peer: PeerState, ids: list[bytes], payload: bytes, more: bool) -> None:
        self.call = call
        self.peer = peer
        self.ids = ids  # in the order of the record
        self.asked = ids  # of the whole call
        self.payload = payload
        self.count = len(ids)
        self.more = more
        self.began_s = time.monotonic()
        timeout_ms = DEFAULT_TIMEOUT_MS if call.timeout_ms is None else call.timeout_ms
        self.deadline_s = self.began_s + timeout_ms / 1000
        self.state = ""  # not on this disk yet
        self.reason: str | None = None
        self.offset = 0
        self.first_seq = 0
        self.last_seq = 0
        self.numbered = 0  # how many have their seqs
        self.ends: dict[bytes, str] = {}  # those that ended otherwise than by a receipt: their state
        self.queued_ns = self.receipt_ns = 0
        self.duplicate = False
        self.done = False
        self.oneway = False  # nobody wants the reply
        self.reply = b""
        self.tries = 0

    @classmethod
    def answered(cls, reply: bytes) -> Pending:
        """A call that was refused at once: its reply waits for its turn, nothing else of it is asked for."""
        pending = cls.__new__(cls)
        pending.done, pending.oneway, pending.reply = True, False, reply
        return pending


class Submitting:
    """The calls under way, oldest first."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.pending: deque[Pending] = deque()
        self._by_token: dict[int, Pending] = {}
        self._watched: set[int] = set()
        self._receipts: dict[int, tuple[int, int, int]] = {}  # peer -> seq, their clock, offset: the newest

    def is_full(self) -> bool:
        return len(self.pending) >= MAX_PENDING

    # --- calls ------------------------------------------------------------------------------------------

    def begin(self, call: SendCall, more: bool) -> None:
        """Take a call: its messages go to the log process. Raises MsgdError for what is wrong with it."""
        messages = [call.message] if call.message is not None else call.messages
        if not messages or len(messages) > MAX_MANY:
            raise UsageError(f"{len(messages or [])} messages, expected 1 to {MAX_MANY}.")
        if call.wait not in (None, "queued", "stored"):
            raise UsageError(f"wait is {call.wait!r}, expected 'queued' or 'stored'.")
        peer = self.control.lookup(call.peer)
        built = self._build(messages, call, peer)
        ids = [m.id for m in built]
        if len(set(ids)) != len(ids):
            raise UsageError("One id stands for two messages of this call.")
        payload = _encode_list(built)
        payload = payload[1 if len(built) < 16 else 3 :]  # without the list's own head
        if len(payload) > model.MAX_MESSAGE_BYTES:
            raise _too_big(len(payload), len(built))
        pending = Pending(call, peer, ids, payload, more)
        pending.oneway = self.control.is_oneway
        self.pending.append(pending)
        try:
            self._submit(pending)
        except MsgdError as error:
            self._refuse(pending, error)
            self._send_replies()

    def in_turn(self, reply: bytes) -> None:
        """Send a reply behind those of the calls before it."""
        self.pending.append(Pending.answered(reply))
        self._send_replies()

    def _build(self, given: list[Outgoing], call: SendCall, peer: PeerState) -> list[Message]:
        """The messages as they will lie in both logs; one clock reading for all of a call."""
        user, sent_ns = self.control.user, time.time_ns()
        keyed = None if call.key is None else _key_id(user, peer.identity, call.key)
        built = []
        for m in given:
            text = m.text
            if text is not None and m.data is not None:
                raise UsageError("A message has both text and data, expected one of them.")
            body = _base64(m.data or "") if text is None else text.encode("utf-8", "surrogatepass")
            raw = keyed or (_new_id(sent_ns) if m.id is None else _parse_id(m.id))
            built.append(Message(raw, _kind(m.kind), sent_ns, user, m.headers or {}, body))
        return built

    def _submit(self, pending: Pending) -> None:
        call, number = pending.call, pending.peer.number
        if call.wait == "stored" and number not in self._watched:
            self._watched.add(number)
            self.control.tell(Watch(number))
        token = self.control.next_token()
        self._by_token[token] = pending
        ttl_ns = (call.ttl_ms or 0) * 1_000_000
        generation = self.control.state(fresh=False).generation
        frame = Submit(token, number, pending.count, b"".join(pending.ids), ttl_ns, generation)
        self.control.tell(frame, pending.payload)

    # --- the log process answers ------------------------------------------------------------------------

    def answered(self, frame: Any) -> bool:
        """Whether the frame is the answer to one of the calls; then it is taken in."""
        pending = self._by_token.pop(frame.token, None)
        if pending is None:
            return False
        match frame:
            case Submitted():
                self._queued(pending, frame)
            case Duplicates():
                try:
                    self._repeated(pending, frame.ids)
                except MsgdError as error:
                    self._refuse(pending, error)
            case Refused(name="Stale") if pending.tries < 3:
                self._again(pending)
            case Refused():
                self._fail(pending, frame)
        self._send_replies()
        return True

    def _queued(self, pending: Pending, frame: Submitted) -> None:
        pending.state = model.QUEUED
        pending.offset, pending.queued_ns = frame.offset, frame.wall_ns
        pending.payload = b""
        if frame.first_seq:
            pending.first_seq, pending.numbered = frame.first_seq, pending.count
            pending.last_seq = frame.first_seq + pending.count - 1
            self._check_receipt(pending)
        if pending.call.wait != "stored":
            self._finish(pending)
        elif pending.more and not pending.done and self.pending[0] is pending:
            answer = self._answer(pending)
            if not pending.done:  # the last reply may have gone out while the log process was asked
                self.control.reply(answer, continues=True)

    def _again(self, pending: Pending) -> None:
        """Who is a peer has changed since we looked: look again."""
        pending.tries += 1
        try:
            self.control.state()
            pending.peer = self.control.lookup(pending.call.peer)
            self._submit(pending)
        except MsgdError as error:
            self._refuse(pending, error)

    def _repeated(self, pending: Pending, known: list[bytes]) -> None:
        """Some ids are in the log already: the others are sent, those are answered as they stand.

        Raises MsgdError when that cannot be done.
        """
        seen = set(known)
        messages = decode_payload(pending.payload, pending.count)
        fresh = [m for m in messages if m.id not in seen]
        self.control.check_same([m for m in messages if m.id in seen], pending.peer.number)
        pending.duplicate = True
        if fresh:
            pending.payload = b"".join(encode(m) for m in fresh)
            pending.ids = [m.id for m in fresh]
            pending.count = len(fresh)
            self._submit(pending)
            return
        row = self.control.row_of(pending.ids[-1])
        pending.offset, pending.queued_ns = row.location[0], row.stored_at_ns
        pending.state, pending.reason = row.state, row.reason
        pending.receipt_ns = row.receipt_at_ns or 0
        pending.first_seq = pending.last_seq = row.seq or 0
        pending.numbered = pending.count if row.seq else 0
        self._check_receipt(pending)  # it may have come while we looked
        if pending.state != model.QUEUED or pending.call.wait != "stored":
            self._finish(pending)

    def _fail(self, pending: Pending, frame: Refused) -> None:
        self._refuse(pending, errors.BY_NAME.get(frame.name, MsgdError)(frame.message, frame.hint))

    def _refuse(self, pending: Pending, error: MsgdError) -> None:
        pending.reply, pending.done = self.control.encode_error(error), True

    def lose(self, error: MsgdError) -> None:
        """The log process is gone: what was not answered is uncertain, what is on disk stays queued."""
        for pending in list(self.pending):
            if pending.done:
                continue
            if pending.state:
                self._finish(pending)
            else:
                self._refuse(pending, error)
        self._send_replies()

    # --- what happens later -----------------------------------------------------------------------------

    def wake(self, wake: Wake) -> None:
        """A record of a peer that we watch."""
        match wake.kind:
            case Kind.RECEIPT:
                if wake.offset < self._receipts.get(wake.peer, (0, 0, 0))[2]:
                    return  # `why_waiting` has heard a newer one in between
                self._receipts[wake.peer] = (wake.first_seq, wake.aux, wake.offset)
                for pending in self.pending:
                    if not pending.done and pending.peer.number == wake.peer:
                        self._check_receipt(pending)
            case Kind.RELEASED:
                self._released(wake)
            case Kind.ENDED:
                self._ended(wake)
            case Kind.EPOCH if wake.direction == model.OUT:
                for pending in self.pending:  # seqs without a receipt are void
                    if not pending.done and pending.peer.number == wake.peer:
                        pending.numbered = pending.first_seq = pending.last_seq = 0
        self._send_replies()

    def _check_receipt(self, pending: Pending) -> None:
        seq, their_ns, offset = self._receipts.get(pending.peer.number, (0, 0, 0))
        if (
            pending.numbered
            and pending.numbered + len(pending.ends) >= pending.count
            and pending.last_seq <= seq
            and offset > pending.offset
        ):
            pending.state, pending.receipt_ns = model.STORED, their_ns
            self._finish(pending)

    def _released(self, wake: Wake) -> None:
        seq = wake.first_seq
        waiting = {p.offset: p for p in self.pending if not p.done and p.offset}
        if not waiting:
            return
        record = self.control.place.reader.record(wake.offset)
        for source, _, _, count in decode_ranges(record.payload):
            pending = waiting.get(source)
            if pending is not None:
                pending.first_seq = pending.first_seq or seq
                pending.numbered += count
                pending.last_seq = seq + count - 1
            seq += count

    def _ended(self, wake: Wake) -> None:
        waiting = {p.offset: p for p in self.pending if not p.done and p.offset}
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
                self._finish(pending)
            else:
                self._check_receipt(pending)

    # --- replies ----------------------------------------------------------------------------------------

    def timeout_ms(self) -> float | None:
        """Until the next deadline of a call that `expire` may answer."""
        due_s = min((p.deadline_s for p in self.pending if not p.done and p.state), default=None)
        return None if due_s is None else max(0.0, (due_s - time.monotonic()) * 1000 + 1)

    def expire(self) -> None:
        """Answer those whose time is over, with the state that they have now."""
        now_s = time.monotonic()
        for pending in list(self.pending):
            if not pending.done and pending.state and pending.deadline_s <= now_s:
                self._finish(pending)
        self._send_replies()

    def _finish(self, pending: Pending) -> None:
        if not pending.done:
            pending.reply = self.control.encode_reply(self._answer(pending))
            pending.done = True

    def _send_replies(self) -> None:
        ready = []
        while self.pending and self.pending[0].done:
            done = self.pending.popleft()
            ready.append(b"" if done.oneway else done.reply)
        if ready:
            self.control.send(b"".join(ready))

    def _answer(self, pending: Pending) -> dict[str, Any]:
        reason, next_try_s = pending.reason, None
        if pending.state in (model.QUEUED, model.HELD) and not pending.first_seq:
            try:
                reason, next_try_s = self.control.why_waiting(pending.peer.number)
            except errors.Uncertain:  # the log process has just died: what is on disk is queued all the same
                reason = "msgd is starting again"
        common = {
            "state": pending.state,
            "reason": reason,
            "stored_at_ns": pending.queued_ns or None,
            "receipt_at_ns": pending.receipt_ns or None,
            "next_try_s": next_try_s,
        }
        if pending.call.messages is not None:
            states = [pending.ends.get(i, pending.state) for i in pending.asked] if pending.ends else None
            if states is not None:
                common["state"] = next(iter(pending.ends.values()))  # the least that was reached
            return {
                "count": len(pending.asked),
                "first_seq": pending.first_seq or None,
                "ids": [model.id_text(i) for i in pending.asked] if _has_gaps(pending.call) else None,
                "states": states,
                **common,
            }
        return {
            "receipt": {
                "id": model.id_text(pending.ids[-1]),
                "peer": pending.peer.name,
                "seq": pending.first_seq or None,
                "queued_at_ns": pending.queued_ns,
                "elapsed_ms": round((time.monotonic() - pending.began_s) * 1000, 3),
                "duplicate": pending.duplicate,
                **common,
            }
        }


def _has_gaps(call: SendCall) -> bool:
    """Whether the daemon has made ids for some of the messages."""
    return any(m.id is None for m in call.messages or ())


def _new_id(now_ns: int) -> bytes:
    return model.uuid7(now_ns // 1_000_000, os.urandom(10))


def _kind(name: str | None) -> int:
    if name is None:
        return 0
    if name not in SENDABLE:
        raise UsageError(f"kind is {name!r}, expected one of {', '.join(SENDABLE)}.")
    return SENDABLE[name]


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UsageError(f"data is not base64: {error}") from error


def _parse_id(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        raw = b""
    if len(raw) != 16 or raw[6] >> 4 != 7:
        raise UsageError(f"id is {text!r}, expected a UUIDv7.", "Leave it out, and msgd makes one.")
    return raw


def _key_id(user: str, identity: bytes, key: str) -> bytes:
    """The id of a message sent with a key: the same user, peer and key give the same id, for ever."""
    if not 1 <= len(key.encode()) <= 256:
        raise UsageError(f"The key has {len(key.encode())} bytes, expected 1 to 256.")
    parts = (b"msgd/1 key\0", user.encode(), b"\0", identity, key.encode())
    return model.uuid8(hashlib.sha256(b"".join(parts)).digest())


def _too_big(size: int, count: int) -> UsageError:
    what = "The message has" if count == 1 else f"These {count} messages have"
    return UsageError(
        f"{what} {size} bytes with headers; the limit is {model.MAX_MESSAGE_BYTES}.",
        "Split it, or send it as a file.",
    )
