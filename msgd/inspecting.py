"""Commands about what the log is worth: check it, compare it with a peer's, get back what it has lost."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from msgd import journal, model, spans
from msgd.comparing import THERE, Comparing, Difference, Known, Questions
from msgd.errors import LogsDiffer, MsgdError, NotTrusted, StorageRefused
from msgd.log.errors import Damaged
from msgd.model import DIRECTIONS, IN, OUT
from msgd.peer.service import Broken, Epoch
from msgd.recovering import NotTheSame, Recovering
from msgd.standing import EpochChange
from msgd.telling import Report
from msgd.tracks import Pair
from msgd.verifying import Check, Finding
from msgd.visiting import Visit
from msgd.wire.ledger import Nudge, PeerState, PutPeer
from msgd.wire.reports import has_reports_in
from msgd.wire.trust import PutRecovered

if TYPE_CHECKING:
    from msgd.control import Control

WHY_MISSING = {
    "lost": "has lost them",
    "gone": "does not keep them any more",
    "pending": "has not confirmed them yet",
}
LINK_S = 15.0  # for a link that has to stand first
PUT_BYTES = 4 << 20  # on its way to the log process without an answer
PUT_FRAMES = 256
DAMAGE_HINT = (
    "What is sound is served as before. Restore the segment from a copy, or `msgctl recover --from PEER`."
)

_pack = msgspec.msgpack.Encoder().encode


# --- verify -------------------------------------------------------------------------------------------------


def verify(control: Control, who: str | None, more: bool) -> None:
    """Check this log, or compare it with a peer's."""
    report = Report(control, more)
    if who is None:
        _verify_alone(control, report)
    else:
        _verify_with(control, control.lookup(who, removed=True), report)


def _verify_alone(control: Control, report: Report) -> None:
    names = {p.number: p.name for p in control.state().peers}
    reader = control.place.reader
    total = reader.committed
    check = Check(
        reader,
        lambda number: names.get(number, f"peer {number}"),
        lambda offset: report.progress("bytes", offset, total),
    )
    totals = check.run()
    if check.findings:
        _check_run(control)
    for finding in check.findings:
        _tell_damage(report, finding)
    found = len(check.findings)
    reason = f"{found} places are damaged" if found else f"{totals.records} records are sound"
    journal.event("log.verified", user=control.user, reason=reason)
    error = None
    if check.findings:
        error = StorageRefused(f"The log is damaged at {_places(found)}: {report.findings[0]}.", DAMAGE_HINT)
    for number, direction in check.gone:
        for first, last in check.gone[number, direction]:
            way = f"{'to' if direction == OUT else 'from'} {names.get(number, f'peer {number}')}"
            text = f"messages {first} to {last} {way} are not kept any more"
            _tell_seqs(report, "gone", text, "here", direction, (first, last))
    report.result({"state": "damaged" if found else "sound", **totals._asdict()}, error)


def _check_run(control: Control) -> None:
    """Before damage is told. Raises Uncertain where the log process has ended.

    The next one moves the last append (`log.recovery`): that looks like damage to who has read on meanwhile.
    """
    control.state()


def _tell_damage(report: Report, found: Finding) -> None:
    text = f"{found.segment}, log offset {found.offset}: {found.why} (it holds {found.holds})"
    report.find(
        "damage", text, where="here", segment=found.segment, offset=found.offset, holds=found.holds or None
    )
    journal.event("log.damage_found", segment=found.segment, offset=found.offset, reason=found.why)


def _places(count: int) -> str:
    return "one place" if count == 1 else f"{count} places, first"


def _verify_with(control: Control, peer: PeerState, report: Report) -> None:
    pair = Pair(control.place.reader, peer.number)
    state = {"last": 0}

    def progress(direction: int, seq: int) -> None:
        state["last"] = max(peer.sent + peer.unreceipted if direction == OUT else peer.received, seq)
        report.progress(_way(control, peer, direction), seq, state["last"])

    with Visit(control, peer) as talk:
        questions = Questions(talk, progress, control.check_client)
        comparing = Comparing(pair, questions, progress)
        comparing.run()
    if pair.damage or comparing.differences:
        _check_run(control)
    for damaged in pair.damage:
        _tell_damage(report, Finding(damaged.segment, damaged.offset, damaged.why, _held(pair, damaged)))
    for broken in questions.broken:
        _tell_broken(report, peer, broken)
    damages = len(report.findings)
    for difference in comparing.differences:
        _tell_difference(report, control, peer, difference)
    if comparing.differences:
        journal.event("verify.differed", peer=peer.name, reason=report.findings[-1], user=control.user)
    for known in comparing.reasons():
        _tell_known(report, control, peer, known)
    report.result(
        {
            "state": "damaged" if damages else "differ" if report.findings else "same",
            "peer": peer.name,
            "sent": comparing.compared[OUT],
            "received": comparing.compared[IN],
        },
        _compared_error(peer, report, damages),
    )


def _compared_error(peer: PeerState, report: Report, damages: int) -> MsgdError | None:
    if damages:
        return StorageRefused(f"A log is damaged: {report.findings[0]}.", DAMAGE_HINT)
    if report.findings:
        return LogsDiffer(
            f"This log and that of {peer.name} differ: {report.findings[0]}.",
            f"Compare it with `msgctl show ID` here and on {peer.name}; nothing was changed.",
        )
    return None


def _held(pair: Pair, damaged: Damaged) -> str:
    first, last = pair.seqs_at(damaged.offset)
    return f"messages {first} to {last}" if first else "records; `msgctl verify` says more"


def _tell_broken(report: Report, peer: PeerState, broken: Broken) -> None:
    text = f"on {peer.name}, {broken.segment}, log offset {broken.offset}: {broken.why}"
    holds = f"messages {broken.first} to {broken.last}" if broken.first else None
    report.find("damage", text, where=peer.name, segment=broken.segment, offset=broken.offset, holds=holds)


def _tell_difference(report: Report, control: Control, peer: PeerState, found: Difference) -> None:
    here = model.id_text(bytes.fromhex(found.ours)) if found.ours else None
    there = model.id_text(bytes.fromhex(found.theirs)) if found.theirs else None
    text = (
        f"message {found.seq} {_way(control, peer, found.direction)}: {found.why}"
        f" ({here or 'nothing'} here, {there or 'nothing'} on {peer.name})"
    )
    report.find(
        "difference",
        text,
        direction=DIRECTIONS[found.direction],
        first_seq=found.seq,
        last_seq=found.seq,
        id_here=here,
        id_there=there,
    )


def _tell_known(report: Report, control: Control, peer: PeerState, known: Known) -> None:
    where = peer.name if known.missing == THERE else control.own_name
    why = WHY_MISSING[known.why]
    side = "there" if known.missing == THERE else "here"
    for first, last in known.spans:
        text = f"messages {first} to {last} {_way(control, peer, known.direction)}: {where} {why}"
        _tell_seqs(report, known.why, text, side, known.direction, (first, last))


def _tell_seqs(report: Report, kind: str, text: str, where: str, direction: int, span: spans.Span) -> None:
    """Some messages of a direction are not there, on this side."""
    first, last = span
    report.find(kind, text, where=where, direction=DIRECTIONS[direction], first_seq=first, last_seq=last)


def _way(control: Control, peer: PeerState, direction: int) -> str:
    return f"{'to' if direction == OUT else 'from'} {peer.name}"


# --- recover ------------------------------------------------------------------------------------------------


def recover(control: Control, who: str, more: bool) -> None:
    """Get back from a peer what this log has lost of both directions."""
    report = Report(control, more)
    peer = _linked(control, control.lookup(who))
    puts = _Puts(control, peer.number)
    with Visit(control, peer) as talk:
        total = {OUT: 0, IN: 0}

        def progress(direction: int, seq: int) -> None:
            report.progress(_way(control, peer, direction), recovering.messages[direction], total[direction])

        questions = Questions(talk, progress, control.check_client)
        pair = Pair(control.place.reader, peer.number)
        recovering = Recovering(pair, questions, puts.put, _pack_epoch, progress)
        missing = recovering.missing()
        total = {found.direction: spans.count(found.spans) for found in missing}
        try:
            for found in missing:
                recovering.fetch(found)
        except NotTheSame as other:
            raise LogsDiffer(
                f"Not recovered from message {other.seq} {_way(control, peer, other.direction)} on: {other}.",
                f"See `msgctl verify {peer.name}`.",
            ) from other
        finally:
            puts.settle()
    sent, received = recovering.messages[OUT], recovering.messages[IN]
    if sent or received:
        detail = f"{sent} messages sent, {received} received"
        control.ask(
            PutPeer(control.next_token(), "recovered", control.user, number=peer.number, detail=detail)
        )
    waiting = sum(found.waiting for found in missing)
    gone = sum(spans.count(found.gone) for found in missing)
    for found in missing:
        for first, last in found.gone:
            what = f"messages {first} to {last} {_way(control, peer, found.direction)} are lost here, and"
            text = f"{what} {peer.name} does not keep them any more"
            _tell_seqs(report, "gone", text, "there", found.direction, (first, last))
    for broken in questions.broken:
        _tell_broken(report, peer, broken)
    error = None
    if questions.broken:
        error = StorageRefused(f"The log of {peer.name} is damaged: {report.findings[0]}.", DAMAGE_HINT)
    report.result(
        {"peer": peer.name, "sent": sent, "received": received, "waiting": waiting, "gone": gone}, error
    )


def _linked(control: Control, peer: PeerState) -> PeerState:
    """The peer once a link stands: only at its beginning both ends agree what is lost. Raises MsgdError."""
    deadline_s = time.monotonic() + LINK_S
    if not peer.connected and peer.address:
        control.ask(Nudge(control.next_token(), peer.number))
    while not peer.connected:
        if time.monotonic() > deadline_s:
            raise _no_link(peer)
        time.sleep(0.05)
        peer = control.peer_state(peer.number)
    return peer


def _no_link(peer: PeerState) -> MsgdError:
    hint = f"Try again once `msgctl peer ls` shows {peer.name} connected."
    if peer.hold:
        return NotTrusted(f"recover needs a link with {peer.name}: {peer.hold_detail}", hint)
    reason = f"offline: {peer.reason}" if peer.reason else "offline"
    return MsgdError(f"recover needs a link with {peer.name}, which is {reason}.", hint)


def _pack_epoch(epoch: Epoch) -> bytes:
    ends = (epoch.sender_last, epoch.sender_head, epoch.receiver_last, epoch.receiver_head)
    return _pack(EpochChange(epoch.epoch, *ends))


class _Puts:
    """Batches on their way into the log, some at a time."""

    def __init__(self, control: Control, number: int) -> None:
        self._control = control
        self._number = number
        self._waiting: deque[tuple[int, int]] = deque()  # token, bytes
        self._bytes = 0

    def put(
        self, direction: int, first: int, count: int, head: bytes, wall_ns: int, payload: bytes | memoryview
    ) -> None:
        """Hand one over; waits while there are too many. Raises what the log process refuses with."""
        stored_ns = wall_ns if direction == OUT else 0
        token = self._control.next_token()
        reports = count > 0 and has_reports_in(payload, count)
        frame = PutRecovered(token, self._number, direction, first, count, head, stored_ns, reports)
        self._control.tell(frame, payload)
        self._waiting.append((token, len(payload)))
        self._bytes += len(payload)
        while self._bytes > PUT_BYTES or len(self._waiting) > PUT_FRAMES:
            self._hear()

    def settle(self) -> None:
        """Until all is on disk. Raises as `put`."""
        while self._waiting:
            self._hear()

    def _hear(self) -> None:
        token, size = self._waiting.popleft()
        self._bytes -= size
        self._control.answer(token)
