"""`msgctl send @GROUP`: one message to every member; what becomes of it at each of them, and the exit code.

If msgd ends meanwhile the same call is made again, with the same id: nobody gets it twice.
"""

import time
from _collections_abc import Iterator

from msgctl import held, matrix, receipts, send
from msgctl.client import Client, Lost, body_fields, new_id, passes
from msgctl.grammar import Args
from msgctl.lines import RANK
from msgctl.output import BrokenOutput, Screen
from msgd import errors, model
from msgd.wire.varlink import Json

AGAIN_S = 0.2  # between two tries to connect again
TOLD = 3  # held members whose next step is told


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Send what was asked for; the exit code."""
    order = send.Order(args)
    quorum = _quorum(args, order)
    body = send.read_body(args)
    send.check_size(len(body) + send.header_bytes(order.headers), "the message")
    call = _Call(client, order, body, quorum)
    shown = matrix.Shown(screen, form, order.peer, order.level, is_quiet=order.quiet)
    try:
        for news in call.answers():
            shown.add(news, call.reached, call.wanted)
        shown.end()
    except KeyboardInterrupt:
        shown.end()
        raise
    except BrokenOutput:
        pass  # the message is kept all the same, and so is its exit code
    if form != "json" and not order.quiet:
        for receipt in [each for each in call.receipts.values() if each.get("pairing")][:TOLD]:
            held.tell(receipt["pairing"])
    return call.exit_code()


def _quorum(args: Args, order: send.Order) -> int | None:
    if args.has("lines"):
        raise errors.UsageError("--lines sends to one peer", "to a group, send the lines as one message")
    quorum = quorum_of(args)
    if quorum is None:
        return None
    if order.wanted is None:
        order.wanted = model.STORED
    if order.wanted == model.QUEUED:
        raise errors.UsageError("--quorum counts who has stored the message, not with --wait=queued")
    return quorum


def quorum_of(args: Args) -> int | None:
    """The value of --quorum. Raises UsageError."""
    text = args.get("quorum")
    if text is not None and not (text.isascii() and text.isdigit() and int(text)):
        raise errors.UsageError(f"--quorum {text}: expected a number of members from 1 on")
    return None if text is None else int(text)


def exit_code(states: list[str], level: str | None, reached: int, wanted: int) -> int:
    """By the quorum where `level` was asked for, else the worst of all members.

    `reached` of the `wanted` members have come so far. `states` are as `receipts.reached` says.
    """
    if level not in (model.STORED, model.HANDLED):
        return max([receipts.exit_code(state, level) for state in states], key=RANK.index, default=errors.OK)
    missing = wanted - reached
    if missing <= 0:
        return errors.OK
    missing -= states.count(model.QUEUED) + (level == model.HANDLED and states.count(model.STORED))
    if missing <= 0:
        return errors.STILL_QUEUED
    return errors.NOT_TRUSTED if missing <= states.count(model.HELD) else errors.FAILED


class _Call:
    """One SendGroup, made again where the connection breaks."""

    def __init__(self, client: Client, order: send.Order, body: bytes, quorum: int | None) -> None:
        self._client = client
        self._order = order
        message: Json = body_fields(body)
        if not order.key:
            message["id"] = new_id()
        if order.headers:
            message["headers"] = order.headers
        self._is_waiting = order.wanted != model.QUEUED
        self._parameters: Json = {
            "group": order.peer,
            "message": message,
            "ttl_ms": order.ttl_ms,
            "key": order.key,
            "wait": order.level,
            "quorum": quorum,
            "hold": order.hold,
        }
        self._deadline_s = time.monotonic() + order.timeout_s
        self.receipts: dict[str, Json] = {}  # by member
        self.reached = self.wanted = 0
        self._tries = 0  # to connect again

    def answers(self) -> Iterator[list[Json]]:
        """The receipts that are new or have changed, as they come."""
        client = self._client
        while True:
            why: errors.MsgdError = Lost("msgd has ended a process")
            try:
                yield from self._stream(client)
                if not self._is_open():
                    return
            except errors.MsgdError as exc:
                if not passes(exc):
                    raise
                why = exc
            again = self._connected(why)
            if again is None:
                return
            client = again

    def _is_open(self) -> bool:
        """Whether msgd answered before the time was over, since it lost a process."""
        is_early = self._deadline_s - time.monotonic() > AGAIN_S
        reasons = [receipt["reason"] for receipt in self.receipts.values()]
        return self._is_waiting and is_early and model.RESTARTING in reasons

    def _stream(self, client: Client) -> Iterator[list[Json]]:
        left_s = max(0.0, self._deadline_s - time.monotonic())
        if self._is_waiting:
            self._parameters["timeout_ms"] = round(left_s * 1000)
        timeout_s = left_s + client.timeout_s
        for answer in client.stream("SendGroup", timeout_s=timeout_s, **self._parameters):
            self.reached, self.wanted = answer["reached"], answer["wanted"]
            news = [{**receipt, "duplicate": self._is_duplicate(receipt)} for receipt in answer["receipts"]]
            self.receipts.update({receipt["peer"]: receipt for receipt in news})
            yield news

    def _is_duplicate(self, receipt: Json) -> bool:
        """Whether it was sent before this command, not by an earlier try of it."""
        return bool(receipt["duplicate"]) and (self._order.key is not None or not self._tries)

    def _connected(self, why: errors.MsgdError) -> Client | None:
        """A new connection, as long as there is time; None: what is known is all that will be.

        Raises `why`, or Uncertain where the connection broke.
        """
        self._tries += 1
        while time.monotonic() < self._deadline_s:
            time.sleep(AGAIN_S)
            try:
                return Client(self._client.path, timeout_s=self._client.timeout_s)
            except errors.Unreachable:
                continue
        if self.receipts:
            return None
        if not isinstance(why, Lost):
            raise why
        raise errors.Uncertain(
            f"{why.message} before it answered: unknown for whom the message was kept",
            f"ask later with `msgctl show {self._parameters['message'].get('id') or 'ID'}`; "
            "a send with --id KEY may be repeated at any time",
        ) from why

    def exit_code(self) -> int:
        """What a script hears."""
        states = [receipts.reached(receipt) for receipt in self.receipts.values()]
        return exit_code(states, self._order.wanted, self.reached, self.wanted)
