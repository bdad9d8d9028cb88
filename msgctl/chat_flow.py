"""The traffic of a chat: follows the log, sends what was typed, and comes back when msgd was away.

Two connections stand as long as msgd does: one follows the log, on the other lines are sent and the peer's
state is asked for. When they break, both are opened again: the log is followed from the last message on, what
msgd has not confirmed is sent again with the same ids, so that it is kept once, and what it had is asked for.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from msgctl.chat_talk import FAREWELL, LEFT, Line, Talk
from msgctl.chat_wire import Wire
from msgctl.client import body_fields, new_id
from msgctl.output import counted
from msgctl.pipeline import BATCH_BYTES, BATCH_MESSAGES
from msgctl.send import check_size, header_bytes
from msgd import errors, model
from msgd.wire.varlink import Json

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0  # between tries to reach msgd
FULL_WAIT_S = 2.0  # msgd is normal again within 5 s after space is back
LOOK_S = 1.0  # between looks at the peer's state
LOOK_SHARE = 20  # and at least so many times as long as a look takes: Peers tells all of them


class View(Protocol):
    """Who shows what the flow brings."""

    def show(self, messages: list[Json]) -> None:
        """Messages to be shown, in order."""

    def changed(self) -> None:
        """The open lines, or how the peer stands, may have changed."""

    def notice(self, text: str) -> None:
        """A sentence for the person."""

    def held(self, pairing: Json) -> None:
        """What held lines wait for has changed."""

    async def ready(self) -> None:
        """Return when more may be shown."""


class Flow:
    """The traffic of one chat. `history`: so many messages at the start. Lives in one event loop."""

    def __init__(self, path: str, peer: str, talk: Talk, view: View, *, history: int) -> None:
        self.talk = talk
        self.is_up = True  # msgd answers
        self.peer: Json | None = None  # how it stands, as `Peers` tells it
        self.has_looked = False  # whether it is known how the peer stands
        self.pairing: Json | None = None  # what held lines wait for
        self._path = path
        self._who = peer  # as it was given
        self._name = peer  # as messages have it
        self._view = view
        self._history = history
        self._cursor = ""
        self._is_full = False  # msgd has no space for more
        self.has_left = False  # the log has told the last line, and so all that stands before it
        self.error: errors.MsgdError | None = None  # why a line was refused
        self._placed = asyncio.Event()  # it is known where to begin
        if history and talk.adopts:  # the log then tells what becomes of open lines of the past, too
            self._placed.set()
        self._stale: deque[Line] = deque()  # open lines from before this connection, oldest first
        self._asking = asyncio.Lock()
        self._typed = asyncio.Event()
        self._sent = asyncio.Event()
        self._moved = asyncio.Event()

    @property
    def name(self) -> str:
        """What the peer is called."""
        return self._name

    @property
    def is_there(self) -> bool:
        """Whether the peer is connected."""
        return self.peer is not None and self.peer["state"] == "connected"

    def put(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a line. Raises UsageError where it is too long."""
        check_size(len(body) + header_bytes(headers or {}), "the line")
        self.talk.typed(new_id(), body, headers or {}, time.time_ns())
        self._typed.set()

    def leave(self) -> None:
        """Send the last line."""
        self.put(FAREWELL.encode(), LEFT)

    async def run(self) -> None:
        """Until it is cancelled. Raises the error that waiting does not mend."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                async with await Wire.open(self._path) as log, await Wire.open(self._path) as ask:
                    self._is_back()
                    wait_s = FIRST_WAIT_S
                    unkept = self.talk.unkept
                    self._stale = deque(line for line in self.talk.open.values() if line.id not in unkept)
                    await together(self._follow(log, ask), self._send(ask), self._watch(ask))
            except (errors.Unreachable, errors.Uncertain) as exc:
                self._is_away(exc)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def settled(self, timeout_s: float, is_done: Callable[[], bool]) -> None:
        """Return when `is_done`, or when this time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_done():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            pass

    @property
    def needs_person(self) -> bool:
        """Whether all that is open is held, and it is known what somebody has to do about it."""
        lines = self.talk.open.values()
        return bool(self.pairing and self.pairing["words"]) and all(
            line.state == model.HELD for line in lines
        )

    # --- following ----------------------------------------------------------------------------------------

    async def _follow(self, log: Wire, ask: Wire) -> None:
        while True:
            try:
                await self._place(log)
                async for answer in log.stream("Log", **self._asked()):
                    await self._ask_for_stale(ask)  # so that lines are shown in their order
                    self._take(answer.get("messages") or [])
                    await self._view.ready()
            except errors.NotTrusted:  # an address to which nothing was sent yet: all will be new
                self._placed.set()
                await self._sent.wait()
                await asyncio.sleep(FIRST_WAIT_S)
            except errors.UsageError:
                if not self._cursor:
                    raise
                self._cursor = ""  # that place is not kept any more
                self._placed.clear()
                self._stale = deque(self.talk.open.values())

    async def _ask_for_stale(self, ask: Wire) -> None:
        """What became of the lines from before this connection: of what is before a cursor the log tells no
        changes. Lines end in their order, so the first that has not ended answers for those behind it."""
        async with self._asking:
            while self._stale:
                line = self._stale[0]
                if line.id in self.talk.open and line.id not in self.talk.unkept:
                    await self._ask_for(ask, line)
                    if line.id in self.talk.open and line.id not in self.talk.unkept:
                        return
                self._stale.popleft()

    async def _ask_for(self, ask: Wire, line: Line) -> None:
        try:
            self._take([(await ask.call("Show", id=line.id))["message"] | {"was": model.QUEUED}])
        except errors.UnknownMessage:
            self.talk.lost(line)
            self._typed.set()

    async def _place(self, log: Wire) -> None:
        """Find the end of the past and show what is wanted of it, before anything is sent behind it."""
        if not self._placed.is_set():
            async for answer in log.stream("Log", peer=self._who, lines=self._history or 1):
                if self._history:
                    self._take(answer["messages"])
                for message in answer["messages"]:
                    self._cursor = message["cursor"]
            self._placed.set()

    def _asked(self) -> Json:
        place: Json = {"after_cursor": self._cursor} if self._cursor else {"lines": self._history or None}
        return {"peer": self._who, "follow": True, "changes": True, **place}

    def _take(self, messages: list[Json]) -> None:
        shown = []
        farewell = self.talk.farewell
        for message in messages:
            if not message.get("was"):
                self._cursor = message["cursor"]
                self.has_left |= farewell is not None and message["id"] == farewell.id
            shown.append(self.talk.heard(message))
        if messages and messages[-1]["peer"]:
            self._name = messages[-1]["peer"]
        self._show(shown)

    def _show(self, messages: "list[Json | None]") -> None:
        shown = [message for message in messages if message is not None]
        if shown:
            self._view.show(shown)
        self._moved.set()
        self._view.changed()

    # --- sending ------------------------------------------------------------------------------------------

    async def _send(self, ask: Wire) -> None:
        await self._placed.wait()
        while True:
            self._typed.clear()
            while self.talk.unkept:
                await self._send_batch(ask, _batch(self.talk.unkept))
            await self._typed.wait()

    async def _send_batch(self, ask: Wire, batch: list[Line]) -> None:
        """Have these lines kept. What cannot be kept is told."""
        try:
            answer = await ask.call("SendMany", peer=self._who, messages=_messages(batch), wait=model.QUEUED)
        except errors.StorageRefused as exc:
            if not self._is_full:
                self._is_full = True
                self._view.notice(f"{exc.message} What is typed waits in this chat; it is tried again.")
            await asyncio.sleep(FULL_WAIT_S)
            return
        except (errors.Unreachable, errors.Uncertain):
            raise
        except errors.MsgdError as exc:
            self._refused(batch, exc)
            return
        self._is_full = False
        states = answer.get("states") or [answer["state"]] * len(batch)
        told = zip(batch, states, strict=True)
        self._show([self.talk.answered(line, {**answer, "state": state}) for line, state in told])
        self._held_by(answer.get("pairing"))
        self._sent.set()

    def _refused(self, batch: list[Line], exc: errors.MsgdError) -> None:
        is_new = self.error is None or self.error.message != exc.message
        self.error = exc
        for line in batch:
            self.talk.drop(line)
        typed = [line for line in batch if line is not self.talk.farewell]
        if typed or is_new:
            not_sent = f" Not sent: {_quoted(typed)}" if typed else ""
            self._view.notice(f"{exc.message} {exc.hint}".rstrip() + not_sent)
        self._moved.set()
        self._view.changed()

    # --- watching -----------------------------------------------------------------------------------------

    async def _watch(self, ask: Wire) -> None:
        while True:
            began_s = time.monotonic()
            await self._look(ask)
            took_s = time.monotonic() - began_s
            await asyncio.sleep(max(LOOK_S, LOOK_SHARE * took_s))

    async def _look(self, ask: Wire) -> None:
        """How the peer stands, and what held lines wait for."""
        found = next((peer for peer in (await ask.call("Peers"))["peers"] if self._is_meant(peer)), None)
        if found != self.peer or not self.has_looked:
            self.peer, self.has_looked = found, True
            self._view.changed()
        await self._ask_for_stale(ask)
        held = next((line for line in self.talk.open.values() if _is_held(line)), None)
        if held is not None:  # the same id again changes nothing; its answer has the words
            again = await ask.call("Send", peer=self._who, message=_messages([held])[0], wait=model.QUEUED)
            self._held_by(again["receipt"].get("pairing"))

    def _is_meant(self, peer: Json) -> bool:
        """Whether this is the peer of this chat."""
        address = str(peer.get("address") or "")
        host = address.rpartition(":")[0].strip("[]")
        names = (peer["name"], peer["identity"], address, host)
        return self._name in names or self._who in (*names, *(peer.get("former_identities") or []))

    def _held_by(self, pairing: Json | None) -> None:
        if pairing is not None and pairing != self.pairing:
            self.pairing = pairing
            self._view.held(pairing)
            self._moved.set()

    def _is_back(self) -> None:
        if not self.is_up:
            self.is_up = True
            self._view.notice("msgd is back.")

    def _is_away(self, exc: errors.MsgdError) -> None:
        if self.is_up:
            self.is_up, self.peer, self.has_looked = False, None, False
            self._view.notice(f"{exc.message}: what is typed waits in this chat until msgd is back.")
            self._view.changed()


def _batch(lines: dict[str, Line]) -> list[Line]:
    """The first of them, as many as fit into one call; one does in any case."""
    batch: list[Line] = []
    size = 0
    for line in lines.values():
        size += len(line.body)
        if batch and (len(batch) == BATCH_MESSAGES or size > BATCH_BYTES):
            break
        batch.append(line)
    return batch


def _messages(lines: list[Line]) -> list[Json]:
    """Lines as `Send` takes them."""
    return [{"id": line.id, "headers": line.headers or None, **body_fields(line.body)} for line in lines]


def _is_held(line: Line) -> bool:
    return line.is_mine and line.state == model.HELD


def _quoted(lines: list[Line]) -> str:
    more = f" and {counted(len(lines) - 1, 'more line')}" if len(lines) > 1 else ""
    return f"{lines[0].body[:60].decode('utf-8', 'replace')!r}{more}"


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all of them until one ends or raises; then the others are cancelled, and its error is raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
