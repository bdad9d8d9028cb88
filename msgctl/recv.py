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
LATE = "not again within --timeout, it goes back"
STARTS = ("oldest", "now")
KINDS = tuple(kind for kind in model.MESSAGE_KINDS if kind != "control")  # that is never handed out
MOST = 999_999_999  # of a number in an option
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
        if self.kind is not None and self.kind not in KINDS:
            raise UsageError(f"--kind={self.kind}: expected {', '.join(KINDS)}")
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
        if len(args.words) > args.behind:
            hint = f"msgctl recv --as {self.name} -- {_as_typed(args.words)}"
            raise UsageError(f"the command stands behind --, {args.words[0]!r} stands before it", hint)
        if self.most_attempts is not None and not args.words:
            raise UsageError("--max-attempts is for a command", "what is printed has no second attempt")
        for name, shown in (("output", "-o"), ("utc", "--utc")):
            if args.has(name) and args.words:
                raise UsageError(f"{shown} is for messages that are printed", "a command gets the body alone")


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
    consumer.settle(settled, _deadline(order))
    return handled


class _Running:
    """Runs the command for one message after the other."""

    def __init__(self, order: Order, consumer: Consumer, command: Command) -> None:
        self._order = order
        self._consumer = consumer
        self._command = command
        self._handled = 0
        self._deadline_s = _deadline(order)  # moves on with each message that is done or set aside

    def all(self) -> int:
        """As many as are wanted; how many were handled."""
        while self._handled != self._order.count:
            answer = self._consumer.next([], self._deadline_s)
            if not answer.get("message"):
                break
            again_s = self._handle(answer)
            if again_s is None:
                self._deadline_s = _deadline(self._order)
                continue
            is_over = self._is_over(again_s)
            until_s = self._deadline_s if is_over and self._deadline_s is not None else again_s
            time.sleep(max(0.0, until_s - time.monotonic()))  # a signal ends it
            if is_over:
                break  # what was handed out goes back then, and its attempts count
        return self._handled

    def _is_over(self, at_s: float) -> bool:
        """Whether the time of --timeout is over then."""
        return self._deadline_s is not None and at_s > self._deadline_s

    def _handle(self, answer: Json) -> float | None:
        """Run the command; when this message may be tried again (CLOCK_MONOTONIC), None: it needs not."""
        most = self._order.most_attempts
        if most is not None and answer["attempt"] > most:  # whoever ran the last one died of it
            made = {**answer, "attempt": answer["attempt"] - 1}  # the present one is not
            self._tell(made, SPENT, self._set_aside())
            self._settle(made, "aside", SPENT)
            return None
        with Stops() as stops:
            self._consumer.sleep = stops.wait
            try:
                code = self._run(answer, stops)
                outcome, again_s = self._outcome(answer, code, stops)
                self._settle(answer, outcome, "" if code == 0 else self._ended(code))
                self._handled += outcome == "done"
            finally:
                self._consumer.sleep = time.sleep
        return again_s

    def _settle(self, answer: Json, outcome: str, why: str = "") -> None:
        self._consumer.settle([_settled(answer, outcome, why)], _deadline(self._order))

    def _run(self, answer: Json, stops: Stops) -> int:
        message = answer["message"]
        given = variables(message, self._order.name, answer["attempt"])
        try:
            return self._command.run(messages.body(message), given, stops)
        except UsageError:
            self._settle(answer, "release")
            raise

    def _outcome(self, answer: Json, code: int, stops: Stops) -> tuple[str, float | None]:
        """What to tell the daemon, and when to try again."""
        if code == 0:
            return "done", None
        if stops.seen is not None:
            return "release", None  # it may have ended by our signal: no failure of its own
        attempt, most = answer["attempt"], self._order.most_attempts
        if most is not None and attempt >= most:
            self._tell(answer, self._ended(code), self._set_aside())
            return "aside", None
        wait_s = pause_s(attempt)
        again_s = time.monotonic() + wait_s
        then = LATE if self._is_over(again_s) else f"again in {span(wait_s)}"
        self._tell(answer, self._ended(code), then)
        return "failed", again_s

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
    if not text.isdecimal() or len(text) > len(str(MOST)) or not int(text):
        raise UsageError(f"{option} {text}: expected a number from 1 to {MOST}")
    return int(text)


def _as_typed(words: list[str]) -> str:
    import shlex  # a mistake may take its time

    return shlex.join(words)


def _plain(text: str | None) -> str | None:
    return None if text is None else plain(text)
