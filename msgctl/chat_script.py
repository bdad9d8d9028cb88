"""A chat without a terminal: lines in are messages, messages come out in a format of `msgctl log`.

Input and output are waited for with poll(2), which takes files, too, and neither waits for the other: while
nobody reads the output, at most a piece of it is kept and the log is followed no further, but lines go on
being sent. The input ends the chat, and so does a line that says goodbye.

Standard error has sentences; where the format is JSON it has one object at most, of the error that ended it.
"""

import asyncio
import os
import selectors

from msgctl import messages
from msgctl.chat_flow import Flow
from msgctl.chat_show import is_report, steps, unkept
from msgctl.chat_talk import FAREWELLS, REFUSED, Talk
from msgctl.held import tell
from msgctl.output import Screen, complain, counted
from msgctl.receipts import exit_code
from msgctl.send import check_size
from msgd import errors, model
from msgd.wire.varlink import Json

READ_BYTES = 1 << 16
WRITE_BYTES = 4096  # PIPE_BUF: a pipe that poll(2) calls writable takes so many without waiting
MAX_OUTPUT = 1 << 20  # bytes that are kept for a reader
MAX_UNKEPT = 2000  # lines that msgd has not answered; no more is read then
LOOK_S = 0.05  # between looks whether there are fewer
LONGEST_ENDING = max(len(word.encode()) for word in FAREWELLS)
WAITS = "on this disk, not stored there yet"
RANK = (errors.OK, errors.STILL_QUEUED, errors.NOT_TRUSTED, errors.FAILED)


def run(screen: Screen, path: str, talk: Talk, peer: str, form: str, history: int, leave_s: float) -> int:
    """Talk until the input ends; the exit code. `leave_s`: how long to wait then for what is on its way."""

    async def script() -> int:
        return await Script(screen, path, talk, peer, form, history, leave_s).run()

    def loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(selectors.PollSelector())

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(script())


class Script:
    """One chat between two programs."""

    def __init__(
        self, screen: Screen, path: str, talk: Talk, peer: str, form: str, history: int, leave_s: float
    ) -> None:
        self._talk = talk
        self._leave_s = leave_s
        self._flow = Flow(path, peer, talk, self, history=history)
        self._output = _Output()
        self._unread: errors.UsageError | None = None  # why the input was read no further
        self._is_json = form.startswith("json")
        self._write = messages.writer(_Caught(screen, self._output), form)

    async def run(self) -> int:
        """Until the end of the input. Raises MsgdError where there is nothing to talk to."""
        flow = asyncio.ensure_future(self._flow.run())
        talking = asyncio.ensure_future(self._talk_to_end())
        try:
            await asyncio.wait((flow, talking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (flow, talking):
                task.cancel()
            results = await asyncio.gather(flow, talking, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return self._code()

    # --- what the flow brings -----------------------------------------------------------------------------

    def show(self, messages: list[Json]) -> None:
        """Write what came from the peer."""
        self._write([m for m in messages if m["direction"] == "in" and not is_report(m)])

    def changed(self) -> None:
        """Nobody looks."""

    def notice(self, text: str) -> None:
        """A sentence on standard error."""
        if not self._is_json:
            complain(f"msgctl: {text}\n")

    def held(self, pairing: Json) -> None:
        """As `send` tells it."""
        if not self._is_json:
            tell(pairing)

    async def ready(self) -> None:
        """Return when little waits to be written."""
        await self._output.drained(MAX_OUTPUT)

    # --- the input ----------------------------------------------------------------------------------------

    async def _talk_to_end(self) -> None:
        source = _Input()
        try:
            while (lines := await source.lines()) is not None and self._put(lines):
                while len(self._talk.unkept) > MAX_UNKEPT:
                    await asyncio.sleep(LOOK_S)
        except errors.UsageError as exc:
            self._unread = exc  # what was put before is still sent
        self._flow.leave()
        await self._flow.settled(self._leave_s, self._is_over)
        await self._output.drained(0)

    def _is_over(self) -> bool:
        """Whether nothing more will come of the lines, and what stands before the last one was shown."""
        if self._talk.open:
            return self._flow.needs_person
        return self._flow.has_left or self._flow.error is not None

    def _put(self, lines: list[bytes]) -> bool:
        """Whether the chat goes on after these lines. Raises UsageError."""
        for line in lines:
            if _is_ending(line):
                return False
            self._flow.put(line)
        return True

    # --- the end ------------------------------------------------------------------------------------------

    def _code(self) -> int:
        """The exit code, that of the first failure. Sentences tell all, JSON the first."""
        failures = self._failures()
        if failures and self._is_json:
            raise failures[0]
        for exc in failures:
            if exc is not self._flow.error:  # of which a notice has told
                complain(f"msgctl: {exc.message}\n" + (f"  {exc.hint}\n" if exc.hint else ""))
        return failures[0].code if failures else errors.OK

    def _failures(self) -> list[errors.MsgdError]:
        """What went wrong, the worst first."""
        lost = errors.Unreachable(unkept(self._talk)) if self._talk.unkept else None
        found = (lost, self._unread, self._flow.error, self._output.error)
        failures = [exc for exc in found if exc is not None]
        if not self._talk.unkept:
            failures += self._not_stored()
        return failures

    def _not_stored(self) -> list[errors.MsgdError]:
        """What became of lines that are not stored there; of the goodbye where it is the only one."""
        talk = self._talk
        last = [talk.farewell.state] if talk.farewell else []
        states = {*talk.ended, *(line.state for line in talk.open.values()), *last} - {REFUSED}
        code = max([exit_code(state, model.STORED) for state in states], key=RANK.index, default=errors.OK)
        if code == errors.OK:
            return []
        told = [
            f"{counted(count, 'line')} {state}"
            for state, count in talk.ended.items()
            if state not in (model.STORED, REFUSED)
        ]
        if talk.waiting:
            told.append(f"{counted(talk.waiting, 'line')} {WAITS}")
        if not told:
            told.append(f"the goodbye {WAITS if talk.open else last[0]}")
        exc = errors.MsgdError("; ".join(told), self._hint(code))
        exc.code = code
        return [exc]

    def _hint(self, code: int) -> str:
        pairing = self._flow.pairing
        if self._is_json and code == errors.NOT_TRUSTED and pairing:
            return steps(pairing)
        return "nothing is lost: see `msgctl queue`" if self._talk.open else ""


class _Input:
    """Whole lines of standard input, as they come."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_over = False

    async def lines(self) -> list[bytes] | None:
        """The next ones; None: there are no more. Raises UsageError."""
        check_size(len(self._rest), "the line", more=True)  # before the rest of it fills the memory
        if self._is_over:
            return None
        await _ready(0, asyncio.get_running_loop().add_reader, asyncio.get_running_loop().remove_reader)
        try:
            data = os.read(0, READ_BYTES)
        except OSError as exc:
            raise errors.UsageError(f"cannot read the lines: {exc.strerror}") from exc
        if not data:
            self._is_over, last, self._rest = True, self._rest, b""
            return [last] if last else None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines


class _Output:
    """Standard output, written when it can be. Whoever read it may go: the lines are sent all the same.

    `error`: why nothing more is written, unless it is only that nobody reads.
    """

    def __init__(self) -> None:
        self.error: errors.MsgdError | None = None
        self._waiting = bytearray()
        self._is_gone = False
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    def put(self, data: bytes) -> None:
        if self._is_gone or not data:
            return
        self._waiting += data
        if self._task is None:
            self._task = asyncio.ensure_future(self._pump())

    async def drained(self, limit: int) -> None:
        """Return when at most so many bytes wait."""
        while len(self._waiting) > limit:
            self._moved.clear()
            await self._moved.wait()

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await _ready(1, loop.add_writer, loop.remove_writer)
            try:
                del self._waiting[: os.write(1, self._waiting[:WRITE_BYTES])]
            except BrokenPipeError:
                self._give_up(None)
            except BlockingIOError:
                continue  # another writer was faster
            except OSError as exc:
                self._give_up(errors.MsgdError(f"cannot write the output: {exc.strerror}"))
            self._moved.set()
        self._task = None

    def _give_up(self, error: errors.MsgdError | None) -> None:
        self.error = error
        self._is_gone = True
        self._waiting.clear()


class _Caught(Screen):
    """A screen whose bytes go to an output that can wait."""

    def __init__(self, screen: Screen, output: _Output) -> None:
        super().__init__(os.environ, utc=screen.utc)
        self._output = output

    def write_bytes(self, data: bytes) -> None:
        """As `Screen.write_bytes`, without waiting."""
        self._output.put(bytes(data))


def _is_ending(line: bytes) -> bool:
    word = line.strip()
    return len(word) <= LONGEST_ENDING and word.decode("utf-8", "replace").casefold() in FAREWELLS


async def _ready(fd: int, add: "Add", remove: "Remove") -> None:
    """Return when `fd` can be read or written."""
    can = asyncio.get_running_loop().create_future()
    add(fd, _set, can)
    try:
        await can
    finally:
        remove(fd)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Add = Callable[..., Any]
    Remove = Callable[[int], bool]
