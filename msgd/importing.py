"""`ImportPart` and `Import`: a parcel of a peer, handed over in parts, then taken.

The parts go into a file without a name beside the log: what is checked is what is taken, whatever becomes of
the client's file, and nothing of it is left when this process ends. It is read twice. Nothing is put into the
log before all of it was read once, its signature checked, and found to follow what is here.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from msgd.errors import LogsDiffer, MsgdError, NotTrusted, StorageRefused, UsageError
from msgd.model import IN
from msgd.parcel.frames import Head
from msgd.parcel.judge import Differs, Ended, Gap, Take, judge_in
from msgd.parcel.reader import BrokenParcel, NoParcel, Parcel, WrongSeal
from msgd.past import Past
from msgd.peer.frames import Position
from msgd.telling import Report
from msgd.trust.identity import identity_text
from msgd.trust.proof import identity_of
from msgd.wire.frame import DirectionState, EpochEnds
from msgd.wire.ledger import PutPeer
from msgd.wire.parcel import BeginEpoch, Moved, OpenParcel, ParcelOpened, PutCarried, PutPosition
from msgd.wire.reports import has_reports_in

if TYPE_CHECKING:
    from msgd.control import Control

PUT_BYTES = 4 << 20  # on their way to the log process without an answer
TRIES = 5  # when messages come another way meanwhile
NOTHING_TAKEN = "Nothing of it was taken."


class Kept:
    """What this log knows of the messages from one peer."""

    def __init__(self, past: Past) -> None:
        self._past = past

    def head_at(self, seq: int) -> bytes | None:
        """As `judge.Kept`."""
        try:
            head = self._past.head_at(IN, seq)
        except LookupError:  # it went just now
            return None
        return head if head is not None else b"" if self._past.holds(IN, seq) else None

    def epochs(self) -> Iterator[Ended]:
        """As `judge.Kept`."""
        for change in self._past.epochs(IN):
            yield Ended(change.epoch, change.sender_last, change.sender_head)


class Taken(NamedTuple):
    """What an import did."""

    messages: int  # that were not here
    known: int  # that were
    confirmed: int  # of ours


def add_part(control: Control, data: bytes) -> None:
    """Keep the next bytes of a parcel. Raises StorageRefused."""
    if control.parcel is None:
        control.parcel = tempfile.TemporaryFile(dir=control.place.config.state)  # noqa: SIM115  # for later calls
    try:
        control.parcel.write(data)
        control.parcel.flush()
    except OSError as error:
        control.parcel = None
        raise StorageRefused(
            f"The parcel cannot be kept while it is checked: {error.strerror}.",
            f"Free some space in {control.place.config.state}, then repeat it. {NOTHING_TAKEN}",
        ) from error
    control.reply({"bytes": control.parcel.tell()})


def take(control: Control, more: bool) -> None:
    """Check what was handed over, and take it. Raises MsgdError."""
    report = Report(control, more)
    file, control.parcel = control.parcel, None
    if file is None:
        raise UsageError("No parcel was handed over.", "Call `ImportPart` first.")
    with file:
        total = file.tell()
        try:
            parcel = Parcel(file)
            parcel.check(lambda at: report.progress("checking", at, total))
        except NoParcel as error:
            raise UsageError(f"This is no parcel that can be read: {error}.", NOTHING_TAKEN) from error
        except BrokenParcel as error:
            raise StorageRefused(
                f"The parcel is damaged at byte {error.at}: {error}.", f"Copy it once more. {NOTHING_TAKEN}"
            ) from error
        except WrongSeal as error:
            raise NotTrusted(f"The parcel is forged: {error}.", NOTHING_TAKEN) from error
        opened, taken = _take(control, parcel, report)
    report.result(
        {
            "peer": opened.name,
            "messages": taken.messages,
            "known": taken.known,
            "confirmed": taken.confirmed,
            "confirmed_upto": parcel.head.link.in_.last,
        },
        None,
    )


def _take(control: Control, parcel: Parcel, report: Report) -> tuple[ParcelOpened, Taken]:
    """Take it; from the beginning once more where messages come another way meanwhile."""
    messages = 0
    for _ in range(TRIES):
        opened = _open(control, parcel.head)
        wanted = _judge(control, parcel, opened)
        count, is_whole = _put(control, parcel, opened, wanted, report)
        messages += count
        if is_whole:
            break
    else:
        raise MsgdError(f"Messages of {opened.name} come another way all the time.", "Repeat the command.")
    theirs = _state(parcel.head.link.in_)
    position = PutPosition(control.next_token(), opened.peer, theirs, parcel.head.made_ns)
    taken = Taken(messages, parcel.head.count - messages, control.ask(position).value)
    if taken.messages or taken.confirmed:
        detail = f"{taken.messages} new to this node, {taken.confirmed} of its own confirmed"
        control.ask(
            PutPeer(control.next_token(), "imported", control.user, number=opened.peer, detail=detail)
        )
    return opened, taken


def _open(control: Control, head: Head) -> ParcelOpened:
    """Whose it is, if it may be taken at all. Raises MsgdError."""
    chain = [msgspec.structs.astuple(entry) for entry in head.chain]
    identity, theirs = identity_of(head.spki), _state(head.link.in_)
    frame = OpenParcel(control.next_token(), identity, head.spki, chain, head.to, theirs)
    try:
        opened: ParcelOpened = control.ask(frame)
    except NotTrusted as error:
        named = f"The parcel is signed by {identity_text(identity)}, which calls itself {head.name}. "
        raise NotTrusted(named + error.message, f"{error.hint} {NOTHING_TAKEN}") from error
    return opened


def _judge(control: Control, parcel: Parcel, opened: ParcelOpened) -> Take:
    """What of it to take. Raises LogsDiffer."""
    here = Position(opened.inward.epoch, opened.inward.last, opened.inward.head)
    past = Past(control.place.reader, opened.peer)
    name, own = opened.name, control.own_name
    try:
        return judge_in(parcel.head, here, parcel.boundary, Kept(past))
    except Gap as gap:
        raise LogsDiffer(
            f"The parcel does not follow what is here: {gap}, which this node once confirmed and has lost. "
            f"{NOTHING_TAKEN}",
            f"On {name}: `msgctl export {own} --from {gap.first}`. A link brings them by itself.",
        ) from gap
    except Differs as differs:
        raise LogsDiffer(
            f"The parcel does not follow what is here: {differs}. {NOTHING_TAKEN}",
            f"Carry a parcel from here to {name} (`msgctl export {name}`, there `msgctl import`), then a new "
            "one back. A link settles it by itself.",
        ) from differs
    finally:
        past.close()


def _put(
    control: Control, parcel: Parcel, opened: ParcelOpened, wanted: Take, report: Report
) -> tuple[int, bool]:
    """Put it into the log: how many messages were new; False when messages came another way."""
    if wanted.epoch is not None:
        ends = EpochEnds(*msgspec.structs.astuple(wanted.epoch))
        if isinstance(control.ask(BeginEpoch(control.next_token(), opened.peer, ends)), Moved):
            return 0, False
    puts = _Puts(control, opened.peer, parcel.head.link.out.epoch)
    try:
        for batch in parcel.batches(wanted.after):
            report.progress("messages", batch.first_seq - parcel.head.first, parcel.head.count)
            puts.put(batch.first_seq, batch.count, batch.head, batch.payload)
            if puts.has_moved:
                break
        puts.settle()
    except StorageRefused as error:
        if not puts.new:
            raise
        raise StorageRefused(
            f"The log's disk is full: {puts.new} of {parcel.head.count} messages were taken.",
            "Free some space, then import it once more: what is here is passed over.",
        ) from error
    return puts.new, not puts.has_moved


class _Puts:
    """Batches on their way into the log, some at a time."""

    def __init__(self, control: Control, number: int, epoch: bytes) -> None:
        self._control = control
        self._number = number
        self._epoch = epoch
        self._waiting: deque[tuple[int, int, int]] = deque()  # token, messages, bytes
        self._bytes = 0
        self.new = 0
        self.has_moved = False

    def put(self, first: int, count: int, head: bytes, payload: memoryview) -> None:
        """Hand one over; waits while there are too many. Raises what the log process refuses with."""
        token = self._control.next_token()
        reports = has_reports_in(payload, count)
        frame = PutCarried(token, self._number, self._epoch, first, count, head, reports)
        self._control.tell(frame, payload)
        self._waiting.append((token, count, len(payload)))
        self._bytes += len(payload)
        while self._bytes > PUT_BYTES:
            self._hear()

    def settle(self) -> None:
        """Until all is on disk. Raises as `put`."""
        while self._waiting:
            self._hear()

    def _hear(self) -> None:
        token, count, size = self._waiting.popleft()
        self._bytes -= size
        answer = self._control.answer(token)
        if isinstance(answer, Moved):
            self.has_moved = True
        elif answer.changed:
            self.new += count


def _state(position: Position) -> DirectionState:
    return DirectionState(position.epoch, position.last, position.head)
