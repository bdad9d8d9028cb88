"""A log of messages and, beside it, what a plain list says about it: the model for the index and the history.

`World` makes records as the log process does, with the real store, and notes for each message what became
of it, by the rules of the design in their plainest form. `expected` then answers a query by going through
the whole list.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec

from msgd import model
from msgd.audit import CONTROL, Audit
from msgd.history import History
from msgd.indexer import Indexer
from msgd.log import vacuum
from msgd.log.clock import Clock
from msgd.log.errors import Damaged
from msgd.log.files import REAL_FILES
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.log.record import FLAG_REPORTS, Kind, Record, encode_ranges
from msgd.log.segment import list_bases
from msgd.log.store import Store
from msgd.rows import Filter, Row
from msgd.standing import ClockStep, EpochChange, Global, Outward, Peer, PeerChange, encode_checkpoint
from msgd.wire.codec import Message, encode
from msgd.wording import Wording

FIRST_NS = 1_800_000_000_000_000_000
TICK_NS = 1_000_000
OWN_NAME = "home"
USERS = ("alice", "bob")
BODIES = (
    b"",
    b"hello",
    b"\xff\x00 no text",
    b"Hola, se\xc3\xb1or",
    b"x" * 3000,
    b"Say hello, hello world: no 7-up",
    "HELLO sen\u0303or; \u00d1O\u00d1O".encode(),
)
# What is searched for, and what it means: words in a row, of which the last may go on.
SEARCHES = {
    "hello": [("hello", False)],
    "señor HOLA": [("senor", False), ("hola", False)],
    '"hola senor"': [("hola senor", False)],
    '"señor hola"': [("senor hola", False)],
    '"hello ': [("hello", False)],
    "no-text": [("no text", False)],
    "he* (no*": [("he", True), ("no", True)],
    '"world no"*': [("world no", True)],
    "x": [("x", False)],
    "x*": [("x", True)],
    "AND": [("and", False)],
    "7 -up": [("7", False), ("up", False)],
    'NOT OR "" hello': [("not", False), ("or", False), ("hello", False)],
    "this node": [("this", False), ("node", False)],
    "paired peer*": [("paired", False), ("peer", True)],
}
REASON = "because"
RESULT = model.MESSAGE_KINDS.index("result")


class SteppingClock(Clock):
    """A wall clock that a test can move; every record gets another time."""

    def __init__(self) -> None:
        self.now_ns = FIRST_NS
        self._boot_ns = 0
        self.wall_ns = self._tick
        self.boot_ns = self._boot
        self.mono_ns = self._boot
        self.start = b"boot-id-start-01"

    def _tick(self) -> int:
        self.now_ns += TICK_NS
        return self.now_ns

    def _boot(self) -> int:
        self._boot_ns += 1000
        return self._boot_ns


@dataclass(eq=False)
class Written:
    """A record of ours, wherever it lies now."""

    kind: int
    offset: int
    wall_ns: int
    peer: int


@dataclass(eq=False)
class Known:
    """A message, and all that is true of it."""

    message: Message
    record: Written
    index: int
    byte: int  # where it begins in the payload of its record
    size: int
    seq: int = 0
    state: str = model.QUEUED
    reason: str | None = None
    receipt_at_ns: int | None = None
    life: list[Written] = field(default_factory=list)
    direction: int = model.OUT  # 0: it tells what was done here
    tells_of: bytes = b""  # of a report: the id of the message

    @property
    def location(self) -> tuple[int, int]:
        return self.record.offset, self.index


@dataclass
class Line:
    """The direction to a peer."""

    last: int = 0
    receipt: int = 0
    waiting: list[Known] = field(default_factory=list)
    released: list[list[Known]] = field(default_factory=list)  # batches without receipt


class World:
    """A log in `directory`, its index beside it, and the list of its messages."""

    def __init__(self, directory: str, *, segment_bytes: int = 1 << 16) -> None:
        self.directory = directory
        self.index_path = os.path.join(directory, "index.sqlite")
        self.search_path = os.path.join(directory, "search.sqlite")
        self.log = os.path.join(directory, "log")
        self.clock = SteppingClock()
        self.page = SharedPage()
        self.known: list[Known] = []
        self.records: list[Written] = []
        self.lines: dict[int, Line] = {}
        self.inward: dict[int, int] = {}
        self.held_peers: set[int] = set()
        self.merged: dict[int, int] = {}  # addresses whose messages became a peer's
        self.deeds: list[tuple[Written, dict[str, Any]]] = []  # records that tell what was done here
        self.steps: list[tuple[Written, int]] = []  # of the clock, in ns
        self.events: list[tuple[str, dict[str, object]]] = []
        self.damage: list[Damaged] = []
        self._segment_bytes = segment_bytes
        self._reached: list[tuple[Written, int, int]] = []  # what a peer has as of a record
        self._readers: list[Reader] = []
        self._ids = 0
        self.store = self._start()

    # --- the log ----------------------------------------------------------------------------------------

    def _start(self) -> Store:
        applied: list[Record] = []
        moved: list[int] = []

        def checkpoint() -> list[bytes]:
            moved.append(len(applied))
            return self._checkpoint(applied[-1].offset if applied else 0)

        store = Store(self.log, self.clock, segment_bytes=self._segment_bytes, page=self.page)
        store.recover(applied.append, checkpoint)
        last = [record.offset for record in applied[moved[0] :]] if moved else []
        for written, offset in zip(self.records[len(self.records) - len(last) :], last, strict=True):
            written.offset = offset
        return store

    def restart(self) -> None:
        """The log process ends and starts: the last append gets another place."""
        self.commit()
        self.store.close()
        self.store = self._start()

    def commit(self) -> None:
        self.store.commit()
        if self.store.needs_roll:
            self.roll()

    def roll(self) -> None:
        self.store.commit()
        self.store.roll(self._checkpoint(self.store.committed))

    def vacuum(self, first: int, count: int) -> None:
        """So many segments go from this one on, but none that must stay: as the design says what may."""
        self.commit()
        bases = list_bases(REAL_FILES, self.log)
        stops = [*bases[1:], self.store.committed]
        extents = list(zip(bases, stops, strict=True))
        leaving = set(bases[:-1][first : first + count])
        while kept_back := {
            base
            for base, stop in extents
            if base in leaving and self._must_stay(base, stop, leaving, extents)
        }:
            leaving -= kept_back
        if leaving:
            vacuum.remove(REAL_FILES, self.log, sorted(leaving))
        gone = [extent for extent in extents if extent[0] in leaving]

        def is_gone(written: Written) -> bool:
            return any(base <= written.offset < stop for base, stop in gone)

        self.known = [m for m in self.known if not is_gone(m.record)]
        self.deeds = [(written, fields) for written, fields in self.deeds if not is_gone(written)]
        for message in self.known:
            if any(is_gone(w) and w.kind == Kind.RECEIPT for w in message.life):
                message.receipt_at_ns = None
            message.life = [w for w in message.life if not is_gone(w)]

    def _must_stay(self, base: int, stop: int, leaving: set[int], extents: list[tuple[int, int]]) -> bool:
        final = {*model.FINAL_STATES, model.RECEIVED}

        def is_here(written: Written) -> bool:
            return base <= written.offset < stop

        def stays(written: Written) -> bool:
            return not any(lo <= written.offset < hi for lo, hi in extents if lo in leaving)

        under_way = [m for line in self.lines.values() for batch in line.released for m in batch]
        if any(is_here(message.record) for message in under_way):
            return True
        for message in self.known:
            if is_here(message.record) and message.state not in final:
                return True
            named = [w for w in message.life[1:] if w.kind != Kind.RECEIPT and is_here(w)]
            if named and stays(message.record):
                return True
        for written, fields in self.deeds:
            if written.kind == Kind.EPOCH and is_here(written):
                older = [m for m in self.known if m.record.offset < base and stays(m.record)]
                if any(m.record.peer == written.peer and m.direction == fields["direction"] for m in older):
                    return True
        return False

    def _checkpoint(self, last: int) -> list[bytes]:
        """What a checkpoint says of the records up to the one at log offset `last`; of any length."""
        reached = {peer: seq for written, peer, seq in self._reached if written.offset <= last}
        peers = [
            Peer(number, bytes(32), peer_name(number), out=Outward(receipt=seq))
            for number, seq in reached.items()
        ]
        return encode_checkpoint(Global(1, 0, identity=bytes(len(self.records) % 7)), peers)

    def add(self, kind: int, **fields: int | bytes) -> Written:
        if self.store.pending > 600_000:
            self.commit()
        offset = self.store.add(kind, **fields)  # type: ignore[arg-type]
        peer = fields.get("peer", 0)
        assert isinstance(peer, int)
        written = Written(kind, offset, self.clock.now_ns, peer)
        self.records.append(written)
        return written

    # --- what happens -----------------------------------------------------------------------------------

    def line(self, peer: int) -> Line:
        return self.lines.setdefault(peer, Line())

    def send(self, peer: int, count: int, salt: int = 0) -> list[Known]:
        """Messages that get their seqs at once."""
        line = self.line(peer)
        known = self._write(Kind.OUT, peer, count, salt, model.OUT, line.last + 1)
        self._number(line, known)
        return known

    def hold(self, peer: int, count: int, salt: int = 0) -> list[Known]:
        known = self._write(Kind.HELD, peer, count, salt, model.OUT, 0)
        self.line(peer).waiting += known
        return known

    def receive(self, peer: int, count: int, salt: int = 0) -> list[Known]:
        seq = self.inward.get(peer, 0) + 1
        known = self._write(Kind.IN, peer, count, salt, model.IN, seq)
        self._receive(peer, known)
        return known

    def _receive(self, peer: int, known: list[Known]) -> None:
        for message in known:
            self.inward[peer] = message.seq = self.inward.get(peer, 0) + 1
            message.state = model.RECEIVED

    def release(self, peer: int, count: int) -> None:
        """The first `count` of those that wait get their seqs, if they are in committed records."""
        line = self.line(peer)
        taken, line.waiting = line.waiting[:count], line.waiting[count:]
        if not taken:
            return
        self.store.commit()
        ranges: list[tuple[int, int, int, int]] = []
        for message in taken:
            offset, start, length, number = ranges[-1] if ranges else (-1, 0, 0, 0)
            if offset == message.record.offset and start + length == message.byte:
                ranges[-1] = (offset, start, length + message.size, number + 1)
            else:
                ranges.append((message.record.offset, message.byte, message.size, 1))
        written = self.add(
            Kind.RELEASED,
            peer=peer,
            direction=model.OUT,
            count=len(taken),
            first_seq=line.last + 1,
            payload=encode_ranges(ranges),
        )
        for message in taken:
            message.life.append(written)
        self._number(line, taken)

    def receipt(self, peer: int, count: int) -> None:
        """The peer has the next `count` messages; a batch counts as unreceipted until it has the last one."""
        line = self.line(peer)
        line.receipt = min(line.receipt + count, line.last)
        taken = [m for batch in line.released for m in batch if m.seq <= line.receipt]
        line.released = [batch for batch in line.released if batch[-1].seq > line.receipt]
        at_ns = 1000 + line.receipt
        written = self.add(Kind.RECEIPT, peer=peer, direction=model.OUT, first_seq=line.receipt, aux=at_ns)
        self._reached.append((written, peer, line.receipt))
        for message in taken:
            if message.state == model.QUEUED:
                message.state, message.receipt_at_ns = model.STORED, at_ns
                message.life.append(written)

    def end(self, peer: int, messages: list[Known], state: str) -> None:
        """An `ended` record names these; what is final already stays what it is."""
        self.store.commit()
        places = [m.location for m in messages]
        payload = msgspec.msgpack.encode([state, REASON, places])
        written = self.add(Kind.ENDED, peer=peer, direction=model.OUT, payload=payload)
        line = self.line(peer)
        for message in messages:
            message.life.append(written)
            if message.state == model.QUEUED:
                message.state, message.reason = state, REASON
        line.waiting = [m for m in line.waiting if m not in messages]

    def epoch(self, peer: int, direction: int) -> None:
        """A new epoch: what had no receipt waits again."""
        line = self.line(peer)
        base = (line.last if direction == model.OUT else self.inward.get(peer, 0)) + 1
        change = EpochChange(bytes(16), base - 1, bytes(32), base - 1, bytes(32))
        payload = msgspec.msgpack.encode(change)
        fields = {"peer": peer, "direction": direction, "first_seq": base, "payload": payload}
        self.deeds.append((self.add(Kind.EPOCH, **fields), fields))
        if direction == model.OUT:
            again = [m for batch in line.released for m in batch]
            for message in again:
                if message.state != model.STORED and message.seq > line.receipt:
                    message.seq = 0
            line.released, line.receipt = [], base - 1
            self._reached.append((self.records[-1], peer, base - 1))
            unended = (model.QUEUED, model.STORED)  # a batch with a receipt for a part goes out whole
            line.waiting = [m for m in again if m.state in unended] + line.waiting

    def deed(self, peer: int, action: str, user: str = "", **fields: Any) -> None:
        """A `peer` record."""
        change = PeerChange(action, bytes(32), peer_name(peer), user=user, **fields)
        record = {"peer": peer, "direction": 0, "first_seq": 0, "payload": msgspec.msgpack.encode(change)}
        self.deeds.append((self.add(Kind.PEER, **record), record))

    def set_clock(self, step_ns: int) -> None:
        """Somebody sets the wall clock, and the log process notes it."""
        self.clock.now_ns += step_ns
        record = {
            "peer": 0,
            "direction": 0,
            "first_seq": 0,
            "payload": msgspec.msgpack.encode(ClockStep(step_ns)),
        }
        written = self.add(Kind.CLOCK_STEP, **record)
        self.deeds.append((written, record))
        self.steps.append((written, step_ns))

    def recover(self, peer: int, direction: int, count: int) -> list[Known]:
        """Messages with the next seqs, which this log had lost, and which the peer gave back."""
        line, is_in = self.line(peer), direction == model.IN
        seq = (self.inward.get(peer, 0) if is_in else line.last) + 1
        known = self._write(Kind.RECOVERED, peer, count, 0, direction, seq, aux=77)
        if is_in:
            self.inward[peer] = seq + count - 1
        else:
            line.last = seq + count - 1
        for at, message in enumerate(known):
            message.seq = seq + at
            message.state = model.RECEIVED if is_in else model.STORED
            message.receipt_at_ns = None if is_in else 77
        return known

    def report(self, peer: int, about: int, kind: int, has_more: bool) -> None:
        """Some message was handled, says this peer (`in`), or this node to it; alone or after another one."""
        if not self.known:
            return
        raw = self.known[about % len(self.known)].message.id
        more = [self._message(about)] if has_more else []
        headers = {"handled": model.id_text(raw), "consumer": f"c{about % 3}"}
        report = msgspec.structs.replace(self._message(0), kind=RESULT, headers=headers)
        messages, line = [*more, report], self.line(peer)
        fields = {Kind.IN: (model.IN, self.inward.get(peer, 0) + 1), Kind.HELD: (model.OUT, 0)}
        direction, seq = fields.get(kind, (model.OUT, line.last + 1))
        known = self._put(kind, peer, messages, direction, seq, flags=FLAG_REPORTS)
        known[-1].tells_of = raw
        if kind == Kind.IN:
            self._receive(peer, known)
        elif kind == Kind.HELD:
            line.waiting += known
        else:
            self._number(line, known)

    def report_of(self, m: Known) -> Known | None:
        """The first report, of its peer or of this node, that a message was handled, if it asked for one."""
        if m.message.headers.get("report") != "handled" or m.state not in (model.STORED, model.RECEIVED):
            return None
        for report in sorted(self.known, key=lambda known: known.location):
            is_about = report.tells_of == m.message.id and report.record.peer == self.owner(m)
            if is_about and report.direction not in (0, m.direction):
                return report
        return None

    def mark_of(self, m: Known) -> tuple[int, str] | None:
        """When a message was handled, and by whom."""
        report = self.report_of(m)
        if report is None:
            return None
        return report.message.sent_ns, report.message.headers["consumer"]

    def _number(self, line: Line, messages: list[Known]) -> None:
        for message in messages:
            line.last += 1
            if message.state != model.STORED:
                message.seq = line.last
        line.released.append(messages)

    def _write(
        self, kind: int, peer: int, count: int, salt: int, direction: int, seq: int, aux: int = 0
    ) -> list[Known]:
        messages = [self._message(salt + at) for at in range(count)]
        return self._put(kind, peer, messages, direction, seq, aux)

    def _put(
        self,
        kind: int,
        peer: int,
        messages: list[Message],
        direction: int,
        seq: int,
        aux: int = 0,
        flags: int = 0,
    ) -> list[Known]:
        pieces = [encode(message) for message in messages]
        written = self.add(
            kind,
            peer=peer,
            direction=direction,
            count=len(messages),
            first_seq=seq,
            aux=aux,
            flags=flags,
            payload=b"".join(pieces),
        )
        found, byte = [], 0
        for index, (message, piece) in enumerate(zip(messages, pieces, strict=True)):
            found.append(
                Known(message, written, index, byte, len(piece), life=[written], direction=direction)
            )
            byte += len(piece)
        self.known += found
        return found

    def _message(self, salt: int) -> Message:
        self._ids += 1
        number = self._ids.to_bytes(4, "big")
        if salt % 5 == 4:
            raw = model.uuid8(number[::-1] * 4)  # in no order, as those made from a key
        else:
            raw = model.uuid7(1_700_000_000_000 + self._ids // 3 * 70_000, bytes(6) + number)
        headers = {"n": str(salt)} if salt % 2 else {}
        if salt % 3 == 0:
            headers["report"] = "handled"
        if salt % 4 == 1 and self.known:
            headers["thread"] = thread_of(self.known[salt % len(self.known)].message)
        return Message(
            raw, salt % len(model.MESSAGE_KINDS), salt, USERS[salt % 2], headers, BODIES[salt % len(BODIES)]
        )

    # --- asking -----------------------------------------------------------------------------------------

    def reader(self) -> Reader:
        """A reader that is closed with the world."""
        self._readers.append(Reader(self.log, lambda: self.page.committed))
        return self._readers[-1]

    def indexer(self) -> Indexer:
        return Indexer(self.index_path, self.reader(), lambda: self.page.committed, self._event)

    def wording(self, upto: int) -> Wording:
        """What fills the file of words, as far as the index goes."""
        return Wording(
            self.search_path, self.reader(), lambda: self.page.committed, lambda: upto, self._event
        )

    def _event(self, name: str, /, **fields: object) -> None:
        self.events.append((name, fields))

    def index_all(self) -> Indexer:
        indexer = self.indexer()
        while indexer.step():
            pass
        return indexer

    def history(self) -> History:
        return History(
            self.reader(),
            lambda: self.page.committed,
            self.index_path,
            own_name=OWN_NAME,
            peer_name=peer_name,
            held_reason=lambda peer: "unpaired" if peer in self.held_peers else None,
            merged=self.merged,
            open_from=self.open_from,
            on_damage=self.damage.append,
        )

    def open_from(self, peer: int) -> int:
        """As the log process says it."""
        messages = [m for m in self.known if self.owner(m) == peer and m.state == model.QUEUED]
        return min((m.record.offset for m in messages), default=self.page.committed)

    def expected(self, wanted: Filter, after: Known | None = None) -> list[Known]:
        """What a query must find, by going through all there is."""
        told = self._told() if wanted.kind == CONTROL else []
        found = [m for m in sorted([*self.known, *told], key=lambda m: m.location) if self._fits(m, wanted)]
        if after is not None:
            found = [m for m in found if m.location > after.location]
        if wanted.lines is not None:
            found = found[max(0, len(found) - wanted.lines) :]
        return found[::-1] if wanted.reverse else found

    def _told(self) -> list[Known]:
        """What was done here, as rows."""
        audit = Audit(self.store.log_id, OWN_NAME, peer_name)
        found = []
        for written, fields in self.deeds:
            header = {"kind": written.kind, "offset": written.offset, "wall_ns": written.wall_ns}
            message = audit.message(SimpleNamespace(**header, **fields))  # type: ignore[arg-type]
            found.append(Known(message, written, 0, 0, 0, state="", direction=0))
        return found

    def owner(self, message: Known) -> int:
        return self.merged.get(message.record.peer, message.record.peer)

    def state_of(self, message: Known) -> tuple[str, str | None]:
        if message.state == model.QUEUED and not message.seq and self.owner(message) in self.held_peers:
            return model.HELD, "unpaired"
        return message.state, message.reason

    def _fits(self, m: Known, wanted: Filter) -> bool:
        body = m.message.body.decode("utf-8", "replace")
        return all(
            (
                wanted.peer in (None, self.owner(m)),
                wanted.direction in (None, m.direction),
                wanted.state in (None, self.state_of(m)[0], model.HANDLED),
                wanted.state != model.HANDLED or self.mark_of(m) is not None,
                wanted.thread in (None, m.message.headers.get("thread"), model.id_text(m.message.id)),
                wanted.kind in (None, m.message.kind),
                wanted.user in (None, m.message.user),
                wanted.id is None or m.message.id.hex().startswith(wanted.id),
                wanted.since_ns is None or wanted.since_ns <= m.record.wall_ns,
                wanted.until_ns is None or m.record.wall_ns <= wanted.until_ns,
                wanted.grep is None or re.search(wanted.grep, body) is not None,
                wanted.search is None or all(_has(body, *words) for words in SEARCHES[wanted.search]),
            )
        )

    def row_of(self, m: Known) -> dict[str, object]:
        """The row that tells this message, without its cursor."""
        is_in, name = m.direction == model.IN, peer_name(self.owner(m)) if m.record.peer else ""
        state, reason = self.state_of(m)
        handled_at_ns, handled_by = self.mark_of(m) or (None, None)
        return {
            "id": m.message.id,
            "peer": name,
            "direction": model.DIRECTIONS.get(m.direction, ""),
            "seq": m.seq or None,
            "kind": model.MESSAGE_KINDS[m.message.kind],
            "state": state,
            "reason": reason,
            "from_": name if is_in else OWN_NAME,
            "to": OWN_NAME if is_in else name,
            "user": m.message.user,
            "sent_at_ns": m.message.sent_ns,
            "stored_at_ns": m.record.wall_ns,
            "receipt_at_ns": m.receipt_at_ns,
            "body": m.message.body,
            "headers": m.message.headers,
            "peer_number": self.owner(m),
            "location": m.location,
            "handled_at_ns": handled_at_ns,
            "handled_by": handled_by,
        }

    def close(self) -> None:
        self.store.close()
        for reader in self._readers:
            reader.close()


def _has(text: str, words: str, is_prefix: bool) -> bool:
    """Whether these words stand in a row, whatever the capitals and accents."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c)).lower()
    row = " " + " ".join(re.findall(r"[^\W_]+", plain)) + " "
    return f" {words}" + ("" if is_prefix else " ") in row


def thread_of(message: Message) -> str:
    """The id of the first message of its thread."""
    return message.headers.get("thread") or model.id_text(message.id)


def peer_name(number: int) -> str:
    return f"peer{number}"


def told(row: Row) -> dict[str, object]:
    """What a row tells, without its cursor."""
    return {name: getattr(row, name) for name in Row.__struct_fields__ if name != "cursor"}


def rows(history: History, wanted: Filter) -> Iterator[Row]:
    for part in history.query(wanted):
        assert part
        yield from part
