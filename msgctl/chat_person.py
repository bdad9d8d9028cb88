"""A chat with a person at the terminal: what was entered becomes lines and commands, what comes is shown."""

import asyncio
import signal
import time
from itertools import islice

from msgctl.chat_flow import Flow
from msgctl.chat_screen import Region
from msgctl.chat_show import Scrollback, open_line, status, steps, unkept
from msgctl.chat_talk import FAREWELLS, Talk
from msgctl.client import Client
from msgctl.output import Screen, complain, counted, field
from msgd import errors
from msgd.wire.varlink import Json

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HELP = """\
What is entered goes to {peer}, line by line. While {peer} is away
it waits here, and goes by itself.
  …                     on its way
  ✓                     on {peer}'s disk, at the time of its clock
  /quit, adios, Ctrl-D  end the chat, and tell {peer}
  /pair                 say yes to the words that were shown
  //word                send /word; a line of several words
                        that begins with / is sent as it is
  Up, Down              what was entered before
  Ctrl-C                throw away what is typed; where nothing
                        is typed, end the chat as Ctrl-D does
"""


class Person:
    """One chat on a terminal. `leave_s`: how long it waits at the end for the lines to be stored."""

    def __init__(
        self, screen: Screen, path: str, talk: Talk, peer: str, history: int, leave_s: float
    ) -> None:
        self._screen = screen
        self._path = path
        self._talk = talk
        self._leave_s = leave_s
        self._scrollback = Scrollback(screen, time.time_ns())
        self._flow = Flow(path, peer, talk, self, history=history)
        self._leaving = asyncio.Event()
        self._ending: asyncio.Future[None] | None = None
        self._is_hurried = False  # told to leave twice
        self._region = Region(
            lambda: field(self._flow.name),
            self._open_lines,
            lambda: len(self._talk.open),
            self._status,
            entered=self._entered,
            left=self.leave,
        )

    async def run(self) -> int:
        """Until the person leaves; the exit code. Raises MsgdError where there is nothing to talk to."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._told_to_end)
        region = asyncio.ensure_future(self._region.run())
        region.add_done_callback(lambda _: self._told_to_end())
        flow = asyncio.ensure_future(self._flow.run())
        self._ending = asyncio.ensure_future(self._end())
        try:
            await asyncio.wait((flow, self._ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._region.close()
            flow.cancel()
            self._ending.cancel()
            results = await asyncio.gather(region, flow, self._ending, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return self._tell_rest()

    # --- what the flow brings -----------------------------------------------------------------------------

    def show(self, messages: list[Json]) -> None:
        """Print messages."""
        self._region.print(self._scrollback.text(messages))

    def changed(self) -> None:
        """Draw the lines on their way, and the state, where they have changed."""
        self._region.changed()

    def notice(self, text: str) -> None:
        """Print a sentence."""
        self._region.print(self._scrollback.notice(text))

    def held(self, pairing: Json) -> None:
        """Print what to do, with the command of this chat in place of the one for a shell."""
        self.notice(steps(pairing, "Where the same are shown there, enter /pair."))

    async def ready(self) -> None:
        """A terminal takes what is written to it."""

    # --- what the person does -----------------------------------------------------------------------------

    def leave(self) -> None:
        """End the chat; the second time without waiting for more than msgd, then at once."""
        if self._leaving.is_set() and self._ending is not None:
            if self._is_hurried or not self._flow.is_up or not self._talk.unkept:
                self._ending.cancel()
            self._is_hurried = True
        self._leaving.set()
        self.changed()

    def _told_to_end(self) -> None:
        """The same by a signal, or as nobody has the terminal any more; more of that says nothing more."""
        if not self._leaving.is_set():
            self.leave()

    def _entered(self, text: str) -> None:
        """A line, which may be a command; of a pasted text every line is sent as it is."""
        word = text.strip().casefold()
        if self._leaving.is_set() or not text:
            return
        if "\n" in text:
            for line in text.removesuffix("\n").split("\n"):
                self._put(line)
        elif word in FAREWELLS:
            self.leave()
        elif text.startswith("/") and not text.startswith("//") and len(text.split()) == 1:
            self._command(text.strip())
        else:
            self._put(text.removeprefix("/") if text.startswith("//") else text)

    def _put(self, line: str) -> None:
        try:
            self._flow.put(line.encode("utf-8", "surrogateescape"))
        except errors.UsageError as exc:
            self.notice(f"{exc.message}: {exc.hint}")
        self.changed()

    def _command(self, word: str) -> None:
        match word.casefold():
            case "/help":
                self._region.print(HELP.replace("{peer}", field(self._flow.name)))
            case "/pair":
                asyncio.ensure_future(self._pair()).add_done_callback(_heed)
            case _:
                self.notice(f"There is no {word}: /help lists what there is; to send it, enter /{word}")

    async def _pair(self) -> None:
        """Say yes to the words that were shown."""
        pairing = self._flow.pairing
        if pairing is None or not pairing["words"]:
            self.notice("There are no words to compare.")
            return
        try:
            await asyncio.to_thread(_accept, self._path, pairing["identity"], pairing["words"])
        except errors.MsgdError as exc:
            self.notice(f"{exc.message} {exc.hint}".rstrip())

    # --- the end ------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Once the person leaves: tell the other side, and wait a little until it is there."""
        await self._leaving.wait()
        if self._may_tell():
            self._flow.leave()
            self.changed()
        open_lines = self._talk.open if self._flow.is_there else self._talk.unkept

        def is_over() -> bool:
            return not open_lines or (self._is_hurried and not self._talk.unkept)

        await self._flow.settled(self._leave_s, is_over)

    def _may_tell(self) -> bool:
        """To who is no peer, and was told nothing, nothing is told."""
        return bool((self._flow.peer or {}).get("pinned")) or self._talk.waiting > 0 or bool(self._talk.ended)

    def _tell_rest(self) -> int:
        """What did not get there, said when the region is gone; the exit code."""
        for line in self._talk.open.values():
            if line is not self._talk.farewell:
                self._screen.write(open_line(self._screen, line, self._flow, 1 << 20) + "\n")
        if self._talk.unkept:
            complain(f"msgctl: {unkept(self._talk)}\n")
            return errors.UNREACHABLE
        if self._talk.waiting:
            waiting = counted(self._talk.waiting, "line")
            name = field(self._flow.name)
            complain(f"{waiting} on this disk, to flow when that is possible: see `msgctl queue {name}`\n")
        return errors.OK

    # --- what the region says -----------------------------------------------------------------------------

    def _open_lines(self, columns: int, rows: int) -> list[str]:
        newest = [*islice(reversed(self._talk.open.values()), rows)][::-1]
        return [open_line(self._screen, line, self._flow, columns) for line in newest]

    def _status(self) -> str:
        flow = self._flow
        text = status(self._screen, flow, self._talk.waiting)
        return f"leaving · {text}" if self._leaving.is_set() else text


def _accept(path: str, identity: str, words: str) -> None:
    with Client(path) as client:
        client.call("PairAccept", node=identity, words=words)


def _heed(task: "asyncio.Future[None]") -> None:
    """A mistake of ours is not swallowed."""
    if not task.cancelled():
        task.result()
