"""How far a message has come: one line `ID STATE PEER WHEN DETAIL`, one JSON object, one exit code.

| state | code | |
|---|---|---|
| stored | 0 | WHEN is the receiver's clock |
| queued | 0, or 5 where `--wait=stored` asked for more | DETAIL says why, and when it is tried next |
| held | 4 | not paired, or the key changed |
| rejected expired cancelled | 6 | DETAIL is the reason |
"""

from msgctl.output import Screen, field, rfc3339, span
from msgd import errors, model
from msgd.wire.varlink import Json

COLOUR = {model.STORED: "green", model.QUEUED: "yellow", model.HELD: "yellow"}  # the others: red


def line(screen: Screen, receipt: Json) -> str:
    """The line of a receipt, without the id and without a line end."""
    state = str(receipt["state"])
    shown = screen.paint(COLOUR.get(state, "red"), field(state))
    parts = [shown, field(receipt.get("peer") or "")]
    when_ns = receipt.get("receipt_at_ns") or receipt.get("stored_at_ns")
    if state == model.STORED and when_ns:
        parts.append(screen.clock(when_ns) + f".{when_ns // 1_000_000 % 1000:03d}")
    detail = ", ".join(_details(state, receipt))
    if detail:
        parts.append(f"({detail})")
    return " ".join(parts)


def _details(state: str, receipt: Json) -> list[str]:
    found = []
    if receipt.get("reason"):
        found.append(field(receipt["reason"]))
    if state == model.STORED and receipt.get("elapsed_ms"):
        found.append(span(receipt["elapsed_ms"] / 1000))
    if receipt.get("duplicate"):
        found.append("sent before")
    if state in (model.QUEUED, model.HELD) and receipt.get("next_try_s") is not None:
        wait_s = receipt["next_try_s"]
        found.append("next try now" if wait_s < 0.5 else f"next try in {span(round(wait_s))}")
    return found


def as_json(receipt: Json) -> Json:
    """A receipt for scripts: as the control socket gives it, its times also as RFC 3339."""
    shown = dict(receipt)
    for name in ("queued_at", "stored_at", "receipt_at"):
        if name + "_ns" in receipt:
            shown[name] = rfc3339(receipt[name + "_ns"])
    return shown


def exit_code(state: str, wanted: str | None) -> int:
    """What a script hears. `wanted`: the level that was asked for with --wait, or None."""
    if state == model.STORED:
        return errors.OK
    if state == model.HELD:
        return errors.NOT_TRUSTED
    if state in model.FINAL_STATES:
        return errors.FAILED
    return errors.STILL_QUEUED if wanted == model.STORED else errors.OK
