"""What follows a message that is held: the next step told, or, on a terminal, the question whether to pair.

The message is on this disk already, so every way out of here is safe: Ctrl-C leaves it held, and it flows by
itself once both sides have said yes.
"""

from msgctl import receipts
from msgctl.client import Client, body_fields
from msgctl.output import Screen, complain, field
from msgctl.questions import can_ask, choose, paragraph
from msgd import errors, model
from msgd.wire.varlink import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from msgctl.send import Order

WORDS_S = 15.0  # for both ends to meet
DECISION_S = 600.0  # a request lasts that long
QUESTION = "  Same words on both screens?  [y] pair  [n] keep holding  [c] cancel the message: "


def settle(order: "Order", body: bytes, screen: Screen, client: Client, receipt: Json) -> Json:
    """The receipt after a person was asked, or as it was."""
    if not can_ask():
        tell(receipt["pairing"])
        return receipt
    waiting = _Waiting(order, body, client, receipt)
    try:
        return _ask(screen, client, waiting)
    except KeyboardInterrupt:
        last = waiting.receipt
        if last["state"] in (model.HELD, model.QUEUED):
            complain(f"\n  The message stays here as {last['state']}, and flows by itself when it can.\n")
            _tell_next(last.get("pairing") or {})
        raise


def _ask(screen: Screen, client: Client, waiting: "_Waiting") -> Json:
    steps = waiting.receipt["pairing"]
    if not steps["words"] and not steps["accepted"] and waiting.receipt["reason"] == "unpaired":
        complain(f"  Asking {field(steps['address'])} who it is...\n")
        receipt = waiting.until(WORDS_S)
        steps = receipt.get("pairing")
        if not steps:
            return _shown(screen, receipt)
    if not steps["words"] or steps["accepted"]:
        tell(steps)
        return waiting.receipt
    complain(paragraph(steps["detail"]))
    complain(f"  Run there:          {field(steps['there'] or 'msgctl pair')}\n")
    complain(f"  Compare the words:  {screen.paint('bold', field(steps['words']))}\n")
    match choose(QUESTION, "ync"):
        case "y":
            return _pair(screen, client, waiting, steps)
        case "c":
            receipt = client.call("Cancel", id=waiting.receipt["id"])["receipt"]
            return _shown(screen, receipt)
    complain("  The message stays held.\n")
    _tell_next(steps)
    return waiting.receipt


def _pair(screen: Screen, client: Client, waiting: "_Waiting", steps: Json) -> Json:
    """A person has said yes."""
    try:
        client.call("PairAccept", node=steps["identity"], words=steps["words"])
    except errors.Unreachable:
        raise
    except errors.MsgdError as exc:
        complain(paragraph(f"{exc.message} The message stays held."))
        complain(paragraph(exc.hint) if exc.hint else "")
        _tell_next(steps)
        return waiting.receipt
    complain("  Accepted. Waiting until the message is stored there; Ctrl-C leaves it here.\n")
    receipt = waiting.until(DECISION_S, tell_new=True)
    return _shown(screen, receipt)


def _shown(screen: Screen, receipt: Json) -> Json:
    screen.write(f"{receipt['id']} {receipts.line(screen, receipt)}\n")
    if receipt.get("pairing"):
        tell(receipt["pairing"])
    return receipt


class _Waiting:
    """A message that is on this disk, asked for again and again: the same call with the same id."""

    def __init__(self, order: "Order", body: bytes, client: Client, receipt: Json) -> None:
        self._order = order
        self._body = body
        self._client = client
        self.receipt = receipt  # the last one

    def until(self, seconds: float, *, tell_new: bool = False) -> Json:
        """The receipt when it has ended, when a person has to act, or when the time is over."""
        told = ""
        for answer in self._client.stream(
            "Send", timeout_s=seconds + self._client.timeout_s, **self._parameters(seconds)
        ):
            self.receipt = {**answer["receipt"], "duplicate": False}
            pairing = self.receipt.get("pairing")
            if pairing and tell_new and pairing["detail"] != told:
                told = pairing["detail"]
                complain(paragraph(told))
                _tell_next(pairing)
        return self.receipt

    def _parameters(self, seconds: float) -> Json:
        order = self._order
        message: Json = body_fields(self._body)
        if not order.key:
            message["id"] = self.receipt["id"]
        if order.headers:
            message["headers"] = order.headers
        return {
            "peer": order.peer,
            "message": message,
            "key": order.key,
            "wait": model.HANDLED if order.wanted == model.HANDLED else model.STORED,
            "timeout_ms": round(seconds * 1000),
        }


def tell(pairing: Json) -> None:
    """What a held message waits for, and what to do."""
    complain(paragraph(field(pairing["detail"])))
    if pairing["words"] and not pairing["accepted"]:
        complain(f"  words: {field(pairing['words'])}\n")
    _tell_next(pairing)


def _tell_next(pairing: Json) -> None:
    for where, command in (("here: ", pairing.get("next")), ("there:", pairing.get("there"))):
        if command:
            complain(f"  {where} {field(command)}\n")
