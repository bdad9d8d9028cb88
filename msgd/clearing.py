"""The command that removes old history: finds what may go, has it removed, and says what stays and why."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgd.errors import StorageRefused, UsageError
from msgd.log.clock import Clock
from msgd.log.errors import Damaged
from msgd.surveying import Survey, vacuum
from msgd.telling import Report
from msgd.vacuuming import BEGINS, DAMAGED, TELLS, WAITS, Plan, Staying, Wish
from msgd.wire.keeping import AskNeeded, Needed

if TYPE_CHECKING:
    from msgd.commands import VacuumCall
    from msgd.control import Control

MS_NS = 1_000_000
WHY = {
    DAMAGED: "with damage, of which `msgctl verify` tells more",
    WAITS: "with messages {of}that are not final",
    TELLS: "with what became of messages that stay",
    BEGINS: "with the beginning of an epoch of messages that stay",
}


def run(control: Control, call: VacuumCall, more: bool) -> None:
    """Remove what may go; with `dry_run` only say what that is."""
    wish = _wish(call)
    report = Report(control, more)
    reader = control.place.reader
    total = reader.committed
    survey = Survey(reader, Clock(), lambda offset: report.progress("bytes", offset, total))
    needed: Needed = control.ask(AskNeeded(control.next_token(), wish.older_ns or 0))
    try:
        plan = survey.plan(wish, needed)
    except Damaged as error:
        text = f"The log is damaged: {error.segment}, log offset {error.offset}: {error.why}."
        raise StorageRefused(text, "Nothing was removed. `msgctl verify` checks all of it.") from error
    request = vacuum(control.next_token(), plan.going, control.user, _reason(call))
    segments = len(request.bases)
    if plan.going and not call.dry_run:
        segments = control.ask(request).value
    _tell_staying(report, control, survey, plan, needed)
    left = sum(stop - base for base, stop in reader.extents())
    report.result(
        {
            "dry_run": bool(call.dry_run),
            "segments": segments,
            "messages": request.messages,
            "bytes": request.size,
            "left_bytes": left,
            "staying": len(plan.staying),
            "staying_bytes": sum(each.size for each in plan.staying),
        },
        None,
    )


def _wish(call: VacuumCall) -> Wish:
    if call.time_ms is None and call.size_bytes is None:
        raise UsageError("Vacuum needs `time_ms` or `size_bytes`.", "msgctl vacuum --time 90d")
    for name, value in (("time_ms", call.time_ms), ("size_bytes", call.size_bytes)):
        if value is not None and value < 0:
            raise UsageError(f"{name} is {value}; expected 0 or more.")
    return Wish(None if call.time_ms is None else max(1, call.time_ms * MS_NS), call.size_bytes)


def _reason(call: VacuumCall) -> str:
    """What was asked for, as the record of it says."""
    parts = []
    if call.time_ms is not None:
        parts.append(f"all older than {_span(call.time_ms)}")
    if call.size_bytes is not None:
        parts.append(f"all above {call.size_bytes} bytes")
    return ", ".join(parts)


def _span(ms: int) -> str:
    units = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000))
    unit, size = next((each for each in units if ms and ms % each[1] == 0), ("s", 1000))
    return f"{ms / size:g}{unit}"


def _tell_staying(report: Report, control: Control, survey: Survey, plan: Plan, needed: Needed) -> None:
    """What was wanted and stays, in as many sentences as there are reasons."""
    names = {peer.number: peer.name for peer in control.state().peers}
    groups: dict[str, list[Staying]] = defaultdict(list)
    for each in plan.staying:
        number = survey.peer_at(each.base, needed) if each.why == WAITS else 0
        of = f"to {names.get(number, f'peer {number}')} " if number else ""
        groups[WHY[each.why].format(of=of)].append(each)
    for why, some in groups.items():
        segments = "one segment stays" if len(some) == 1 else f"{len(some)} segments stay"
        report.find("stays", f"{segments}, {why}", holds=why)
