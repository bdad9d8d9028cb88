"""`msgctl recv`: messages for a named consumer, each until it was handled.

A message is handled when it is printed, or when the command for it has ended with 0. Then, and only then, the
daemon notes it in its log and hands out the next one; whatever dies before, the message comes again.
"""

import os
import time

from msgctl import messages
from msgctl.client import Client
from msgctl.consuming import Consumer
from msgctl.grammar import Args
from msgctl.output import Screen, complain, span
from msgctl.running import Command, Stops, describe
from msgctl.send import plain
from msgctl.timespec import duration_ms
from msgd import model
from msgd.errors import STILL_QUEUED, UsageError
from msgd.wire.variables import variables
from msgd.wire.varlink import Json

NOTHING_CAME = STILL_QUEUED
SPENT = "its last attempt had no end"
STARTS = ("oldest", "now")
FIRST_S, CAP_S = (
    1.0,
    60.0,
)  # between two tries of one message; doubles
MOST_DOUBLINGS = 10


class Order:
    """What the options say, checked."""

    def __init__(self, args: Args) -> None:
        name = args.get("as")
        if name is None:
            hint = "one name for each job that must see every message: --as backup"
            raise UsageError("recv needs --as NAME, the consumer that remembers what was handled", hint)
        self.name = plain(name)
        self.peer = _plain(args.get("peer"))
        self.kind = args.get("kind")
        if self.kind is not None and self.kind not in model.MESSAGE_KINDS:
            raise UsageError(f"--kind={self.kind}: expected {', '.join(model.MESSAGE_KINDS)}")
        self.start = args.get("from")
        if self.start is not None and self.start not in STARTS:
            raise UsageError(f"--from={self.start}: expected oldest or now")
        self.count = _number(args.get("count"), "-n")
        self.most_attempts = _number(args.get("max_attempts"), "--max-attempts")
        timeout = args.get("timeout")
        self.timeout_s = None if timeout is None else duration_ms(timeout) / 1000
        self.quiet = args.has("quiet")
        if args.has_end and not args.words:
            raise UsageError("no command stands behind --", "to print the messages, leave -- out")
        if self.most_attempts is not None and not args.words:
            raise UsageError("--max-attempts is for a command", "what is printed has no second attempt")


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Receive what was asked for; the exit code."""
    order = Order(args)
    command = Command(args.words) if args.words else None
    consumer = Consumer(client, order.name, tell=not order.quiet)
    try:
        consumer.begin(order.peer, order.kind, order.start)
        if command is None:
            handled = _print(order, consumer, screen, form)
        else:
            handled = _Running(order, consumer, command).all()
    finally:
        consumer.close()
    return 0 if handled else NOTHING_CAME


def _print(order: Order, consumer: Consumer, screen: Screen, form: str) -> int:
    """Print each; how many. One commit a message: to settle it goes with asking for the next."""
    write = messages.writer(screen, form)
    settled: list[Json] = []
    handled = 0
    while handled != order.count:
        answer = consumer.next(settled, _deadline(order))
        if not answer.get("message"):
            return handled
        write([answer["message"]])
        settled = [_settled(answer, "done")]
        handled += 1
    consumer.settle(settled)
    return handled


class _Running:
    """Runs the command for one message after the other."""

    def __init__(self, order: Order, consumer: Consumer, command: Command) -> None:
        self._order = order
        self._consumer = consumer
        self._command = command
        self._handled = 0

    def all(self) -> int:
        """As many as are wanted; how many were handled."""
        while self._handled != self._order.count:
            answer = self._consumer.next([], _deadline(self._order))
            if not answer.get("message"):
                break
            wait_s = self._handle(answer)
            if wait_s:
                time.sleep(wait_s)  # a signal ends it: what was handed out goes back then
        return self._handled

    def _handle(self, answer: Json) -> float:
        """Run the command; the seconds until this message may be tried again, 0: it needs not."""
        most = self._order.most_attempts
        if most is not None and answer["attempt"] > most:  # whoever ran the last one died of it
            self._tell(answer, SPENT, self._set_aside())
            self._consumer.settle([_settled(answer, "aside", SPENT)])
            return 0.0
        with Stops() as stops:
            self._consumer.sleep = stops.wait
            try:
                code = self._run(answer, stops)
                outcome, wait_s = self._outcome(answer, code, stops)
                why = "" if code == 0 else self._ended(code)
                self._consumer.settle([_settled(answer, outcome, why)])
                self._handled += outcome == "done"
            finally:
                self._consumer.sleep = time.sleep
        return wait_s

    def _run(self, answer: Json, stops: Stops) -> int:
        message = answer["message"]
        given = variables(message, self._order.name, answer["attempt"])
        try:
            return self._command.run(messages.body(message), given, stops)
        except UsageError:
            self._consumer.settle([_settled(answer, "release")])
            raise

    def _outcome(self, answer: Json, code: int, stops: Stops) -> tuple[str, float]:
        """What to tell the daemon, and how long to wait."""
        if code == 0:
            return "done", 0.0
        if stops.seen is not None:
            return "release", 0.0  # it may have ended by our signal: no failure of its own
        attempt, most = answer["attempt"], self._order.most_attempts
        if most is not None and attempt >= most:
            self._tell(answer, self._ended(code), self._set_aside())
            return "aside", 0.0
        wait_s = pause_s(attempt)
        self._tell(answer, self._ended(code), f"again in {span(wait_s)}")
        return "failed", wait_s

    def _ended(self, code: int) -> str:
        return f"{self._command.name} {describe(code)}"

    def _set_aside(self) -> str:
        return f"set aside, see `msgctl queue --as {self._order.name}`"

    def _tell(self, answer: Json, what: str, then: str) -> None:
        if not self._order.quiet:
            which = f"{answer['message']['id']}, attempt {answer['attempt']}"
            complain(f"msgctl: {what} ({which}): {then}\n")


def pause_s(attempt: int) -> float:
    """How long to wait behind the attempt with this number."""
    whole_s = min(CAP_S, FIRST_S * (1 << min(attempt - 1, MOST_DOUBLINGS)))
    return whole_s * (0.5 + os.urandom(1)[0] / 512)


def _settled(answer: Json, outcome: str, why: str = "") -> Json:
    told = {"id": answer["message"]["id"], "outcome": outcome, "attempt": answer["attempt"]}
    return {**told, "why": why} if why else told


def _deadline(order: Order) -> float | None:
    return None if order.timeout_s is None else time.monotonic() + order.timeout_s


def _number(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 9 or not int(text):
        raise UsageError(f"{option} {text}: expected a number above 0")
    return int(text)


def _plain(text: str | None) -> str | None:
    return None if text is None else plain(text)
