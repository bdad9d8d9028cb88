"""How far a message has come: one line `ID STATE PEER WHEN DETAIL`, one JSON object, one exit code.

| state | code | |
|---|---|---|
| stored | 0 | WHEN is the receiver's clock |
| handled | 0 | a mark beside stored: a consumer there has handled it. WHEN is its clock |
| queued | 0, or 5 where `--wait` asked for more, as stored | DETAIL says why, and when it is tried next |
| held | 4 | not paired, or the key changed |
| rejected expired cancelled | 6 | DETAIL is the reason |
"""

from msgctl.output import Screen, field, rfc3339, span
from msgd import errors, model
from msgd.wire.varlink import Json

MARK = ("handled_at_ns", "handled_by")  # told only where there is one
COLOUR = {
    model.STORED: "green",
    model.HANDLED: "green",
    model.QUEUED: "yellow",
    model.HELD: "yellow",
}  # the others: red


def line(screen: Screen, receipt: Json, wanted: str | None = None) -> str:
    """The line of a receipt, without the id and without a line end. `wanted`: the level asked for."""
    state = reached(receipt)
    shown = screen.paint(COLOUR.get(state, "red"), field(state))
    parts = [shown, field(receipt.get("peer") or "")]
    when_ns = receipt.get("handled_at_ns") or receipt.get("receipt_at_ns") or receipt.get("stored_at_ns")
    if state in (model.STORED, model.HANDLED) and when_ns:
        parts.append(screen.clock(when_ns) + f".{when_ns // 1_000_000 % 1000:03d}")
    found = details(state, receipt)
    if state == model.STORED and wanted == model.HANDLED:
        found.insert(0, "not handled yet")
    detail = ", ".join(found)
    if detail:
        parts.append(f"({detail})")
    return " ".join(parts)


def details(state: str, receipt: Json) -> list[str]:
    """What is worth telling beside state and time."""
    found = []
    if receipt.get("reason"):
        found.append(field(receipt["reason"]))
    if state == model.HANDLED and receipt.get("handled_by"):
        found.append(f"by {field(receipt['handled_by'])}")
    if state in (model.STORED, model.HANDLED) and receipt.get("elapsed_ms"):
        found.append(span(receipt["elapsed_ms"] / 1000))
    if receipt.get("duplicate"):
        found.append("sent before")
    if state in (model.QUEUED, model.HELD) and receipt.get("next_try_s") is not None:
        wait_s = receipt["next_try_s"]
        found.append("next try now" if wait_s < 0.5 else f"next try in {span(round(wait_s))}")
    return found


def as_json(receipt: Json) -> Json:
    """A receipt for scripts: as the control socket gives it, its times also as RFC 3339."""
    shown = {name: value for name, value in receipt.items() if name not in MARK or value is not None}
    for name in ("queued_at", "stored_at", "receipt_at", "handled_at"):
        if name + "_ns" in shown:
            shown[name] = rfc3339(receipt[name + "_ns"])
    return shown


def reached(receipt: Json) -> str:
    """How far the message has come: its state, or that it was handled."""
    return str(receipt["state"]) if receipt.get("handled_at_ns") is None else model.HANDLED


def exit_code(state: str, wanted: str | None) -> int:
    """What a script hears. `state` as `reached` says; `wanted`: the level asked for with --wait, or None."""
    if state == model.HANDLED or (state == model.STORED and wanted != model.HANDLED):
        return errors.OK
    if state == model.STORED:
        return errors.STILL_QUEUED
    if state == model.HELD:
        return errors.NOT_TRUSTED
    if state in model.FINAL_STATES:
        return errors.FAILED
    return errors.STILL_QUEUED if wanted in (model.STORED, model.HANDLED) else errors.OK
