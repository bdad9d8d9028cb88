"""`msgctl send --lines`: every line of the input is a message.

Input is read in big pieces and sent as it comes: whatever is there goes out at once, so a slow `tail -f`
is not held back and a fast file fills whole batches. Reading waits in the same poll as the connection
(see `pipeline`). A line keeps every byte but its line end; an empty line is an empty message.

After the first error nothing more is read; what was under way is still awaited, so that the sentence at
the end can say what became of everything. A line over the limit ends it the same way.
"""

import os
import time

from msgctl import receipts, send
from msgctl.client import Client, Lost
from msgctl.grammar import Args
from msgctl.output import BrokenOutput, Screen, complain, span
from msgctl.pipeline import BATCH_BYTES, BATCH_MESSAGES, Call, Pipeline, batches
from msgd import errors, model
from msgd.wire.varlink import Json

READ_BYTES = BATCH_BYTES // 2
RANK = (
    errors.OK,
    errors.STILL_QUEUED,
    errors.NOT_TRUSTED,
    errors.FAILED,
)  # the worst of all is the exit code


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Send every line; the exit code of the worst of them."""
    order = send.Order(args)
    if order.key is not None:
        raise errors.UsageError("--id names one message, --lines sends many")
    if args.word(1) not in (None, "-"):
        raise errors.UsageError("--lines reads standard input or --file, not TEXT")
    file = args.get("file")
    fd = 0 if file in (None, "-") else send.open_file(str(file))
    try:
        return _Lines(order, screen, client, form).run(_Input(fd, send.header_bytes(order.headers)))
    finally:
        if fd:
            os.close(fd)


class _Input:
    """Lines of a file, in batches."""

    def __init__(self, fd: int, overhead: int) -> None:
        self.fd: int | None = fd  # None: at its end
        self._overhead = overhead
        self._rest = b""
        self._line = 0  # read so far

    def read(self) -> "list[list[str] | list[bytes]]":
        """The whole lines of what there is to read now; at the end of the input also the last one."""
        assert self.fd is not None
        try:
            chunk = os.read(self.fd, READ_BYTES)
        except OSError as exc:
            raise errors.UsageError(f"cannot read the lines: {exc.strerror}") from exc
        data = self._rest + chunk
        if not chunk:
            self.fd, self._rest = None, b""
            return self._batches(data) if data else []
        end = data.rfind(b"\n")
        self._rest = data[end + 1 :]
        if len(self._rest) + self._overhead > model.MAX_MESSAGE_BYTES:
            self._refuse(self._line + data.count(b"\n") + 1, self._rest, more=True)
        return self._batches(data[:end]) if end >= 0 else []

    def _batches(self, data: bytes) -> "list[list[str] | list[bytes]]":
        found: list[list[str] | list[bytes]] = []
        if len(data) > BATCH_BYTES:
            raw = data.split(b"\n")
            for number, line in enumerate(raw, self._line + 1):
                if len(line) + self._overhead > model.MAX_MESSAGE_BYTES:
                    self._refuse(number, line)
            found += batches(raw)
        else:
            lines = _split(data)
            found += [lines[at : at + BATCH_MESSAGES] for at in range(0, len(lines), BATCH_MESSAGES)]
        self._line += data.count(b"\n") + 1
        return found

    def _refuse(self, number: int, line: bytes, *, more: bool = False) -> None:
        send.check_size(len(line) + self._overhead, f"line {number}", more=more)


def _split(data: bytes) -> "list[str] | list[bytes]":
    """Lines as text: one call of the decoder for all of them; as bytes where any is not UTF-8."""
    try:
        return data.decode().split("\n")
    except UnicodeDecodeError:
        return data.split(b"\n")


class _Lines:
    """The way of all lines: from the input to the daemon, from its answers to the screen."""

    def __init__(self, order: send.Order, screen: Screen, client: Client, form: str) -> None:
        self._order = order
        self._screen = screen
        self._form = form
        self._quiet = order.quiet
        self._pipeline = Pipeline(client)
        self._call = Call(
            order.peer,
            wait=order.wanted or model.QUEUED,
            timeout_s=order.timeout_s,
            headers=order.headers,
            ttl_ms=order.ttl_ms,
            hold=order.hold,
        )
        self._states: dict[str, int] = {}
        self._pairing: Json | None = None  # what those that are held wait for
        self._error: errors.MsgdError | None = None

    def run(self, source: _Input) -> int:
        began_s = time.monotonic()
        try:
            self._pump(source)
        except Lost as exc:
            raise self._uncertain(exc) from exc
        if self._error is not None:
            kept = sum(self._states.values())
            self._error.message += f" ({kept} lines were sent{self._listed()})"
            raise self._error
        if not self._quiet and os.isatty(2):
            self._summary(time.monotonic() - began_s)
        if self._pairing is not None and not self._quiet and self._form != "json":
            from msgctl import held

            held.tell(self._pairing)
        codes = [receipts.exit_code(state, self._order.wanted) for state in self._states]
        return max(codes, key=RANK.index, default=errors.OK)

    def _pump(self, source: _Input) -> None:
        ready: list[list[str] | list[bytes]] = []
        while True:
            while ready and not self._pipeline.full:
                self._pipeline.put(*self._call.frame(ready.pop(0)))
            for ids, answer in self._pipeline.answers():
                self._heard(ids, answer)
            if self._error is not None:
                ready, source.fd = [], None
            if source.fd is None and not ready and not self._pipeline.under_way:
                return
            if ready and not self._pipeline.full:
                continue  # the answers made room: there may be nothing else to wait for
            if self._pipeline.wait(None if ready else source.fd):
                try:
                    ready = source.read()
                except errors.MsgdError as exc:
                    self._error = exc

    def _heard(self, ids: list[str], answer: Json | errors.MsgdError) -> None:
        if isinstance(answer, errors.MsgdError):
            self._error = self._error or answer
            return
        state = str(answer["state"])
        self._pairing = (answer.get("pairing") if state == model.HELD else None) or self._pairing
        marks = answer.get("handled") or [None] * len(ids)
        for each, mark in zip(answer.get("states") or [state] * len(ids), marks, strict=True):
            reached = each if mark is None else model.HANDLED
            self._states[reached] = self._states.get(reached, 0) + 1
        # the peer is away, or nobody handles it there: waiting again for every batch helps nobody
        if state != model.STORED:
            self._call.wait = model.QUEUED
        elif self._call.wait == model.HANDLED and None in marks:
            self._call.wait = model.STORED
        if not self._quiet:
            try:
                for part, said in _by_state(ids, answer):
                    self._show(part, said)
            except BrokenOutput:
                self._quiet = True  # the lines are sent all the same

    def _show(self, ids: list[str], answer: Json) -> None:
        if self._form == "json":
            first = answer.get("first_seq")
            names = (
                "state",
                "reason",
                "stored_at_ns",
                "receipt_at_ns",
                "next_try_s",
                "pairing",
                *receipts.MARK,
            )
            common = {"peer": self._order.peer, **{name: answer.get(name) for name in names}}
            rest = self._screen.json_text(receipts.as_json(common))[1:]
            seqs = ["null"] * len(ids) if first is None else range(first, first + len(ids))
            rows = [f'{{"id":"{id}","seq":{seq},{rest}\n' for id, seq in zip(ids, seqs, strict=True)]
            self._screen.write("".join(rows))
        else:
            line = receipts.line(self._screen, {"peer": self._order.peer, **answer})
            self._screen.write("".join([f"{id} {line}\n" for id in ids]))

    def _listed(self) -> str:
        return "".join(f", {count} {state}" for state, count in sorted(self._states.items()))

    def _summary(self, seconds: float) -> None:
        count = sum(self._states.values())
        rate = f", {count / seconds:.0f}/s" if count > 1 and seconds > 0 else ""
        complain(f"{count} messages to {self._order.peer}{self._listed()}, {span(seconds)}{rate}\n")

    def _uncertain(self, exc: Lost) -> errors.Uncertain:
        kept, unknown = sum(self._states.values()), self._pipeline.under_way
        return errors.Uncertain(
            f"{exc.message}: {kept} lines were kept, of {unknown} more it is unknown",
            f"`msgctl log -r -n {unknown} --peer {self._order.peer} --direction out` shows the last ones",
        )


def _by_state(ids: list[str], answer: Json) -> "list[tuple[list[str], Json]]":
    """The messages of a call with an answer that is true of each: some may have ended before the others."""
    states, marks = answer.get("states"), answer.get("handled")
    if not states and not marks:
        return [(ids, answer)]
    states, marks = states or [answer["state"]] * len(ids), marks or [None] * len(ids)
    first = answer.get("first_seq")
    plain = {**answer, "first_seq": None} if first is None or len(set(states)) > 1 else answer
    found = []
    for number, (id, state, mark) in enumerate(zip(ids, states, marks, strict=True)):
        reason = answer.get("reason") if state != model.STORED else None
        seq = None if plain["first_seq"] is None else plain["first_seq"] + number
        told = {"state": state, "reason": reason, "first_seq": seq, "handled_at_ns": mark}
        found.append(([id], {**plain, **told}))
    return found
