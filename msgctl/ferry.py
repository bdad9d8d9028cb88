"""Files on their way between descriptors of ours and a store: calls of at most 64, several under way.

The files are opened here, with the caller's rights, and handed to msgd as descriptors. If msgd goes away, or
the worker that serves us, the connection is made anew and what has no result yet is asked for again, under
the same transfer: msgd goes on where it stopped, and tells the peer of each file once.
"""

import errno
import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from msgctl.client import Client, error_of, full_name
from msgctl.handing import hand_over, next_answer
from msgd import errors
from msgd.errors import MsgdError
from msgd.wire import varlink
from msgd.wire.varlink import Json

Answer = TypeVar("Answer")
FULL = (errno.ENOSPC, errno.EDQUOT)
CALL_FILES = 64
CALL_BYTES = 24 << 10  # of its names: what is under way has room in the socket
HAVE_SHARE = 2048  # so many bytes that a file has already, maybe as a copy of another, count as one of them
WINDOW_CALLS = 6  # more than the engine reads ahead, so that the next call always lies ready
SILENCE_S = 3.0  # nothing moved for so long: the person is told
LEAST_PAUSE_S, MOST_PAUSE_S = 0.1, 1.0  # before the connection is made anew


class Item(ABC):
    """One file of a command. `name` is the one in the store, `size` what is known of its bytes before."""

    def __init__(self, name: str, local: str, size: int) -> None:
        self.name = name
        self.local = local
        self.size = size
        self.fd = -1

    @abstractmethod
    def open(self) -> Json:
        """Open `fd`, unless it is; its member of the call's `files`. Raises OSError, MsgdError."""

    def close(self) -> None:
        """Close what is open."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


Result = tuple[Item, Json]


class Watch(ABC):
    """Who is told how it goes."""

    @abstractmethod
    def ended(self, results: list[Result]) -> None:
        """Files that are done, or have failed: those have `error`."""

    @abstractmethod
    def moved(self, name: str, done: int) -> None:
        """So many bytes of this file are there, of those with results all."""

    @abstractmethod
    def stands(self, sentence: str) -> None:
        """Nothing moves, and why, as far as it is known. Told once, until something moves again."""


class Ferry:
    """One command: `run` takes its files. `patience_s`: how long nothing may move while msgd is away."""

    def __init__(
        self, client: Client, method: str, peer: str | None, patience_s: float, transfer: str, watch: Watch
    ) -> None:
        self._client = client
        self._method = method
        self._asked: Json = {"peer": peer, "transfer": transfer, "timeout_ms": round(patience_s * 1000)}
        self._whom = peer or "msgd"
        self._patience_s = patience_s
        self._watch = watch
        self._calls: deque[list[Item]] = deque()  # under way, oldest first; an item that is done is closed
        self._items: Iterator[Item] = iter(())
        self._again: deque[Item] = deque()  # had no result when the connection broke
        self._moved_s = time.monotonic()
        self._most: dict[str, int] = {}  # by name: the bytes that were ever there, of files without results
        self._has_told = False

    def run(self, items: Iterable[Item]) -> None:
        """Returns when each has its result. Raises what ends all of it."""
        self._items = iter(items)
        try:
            while True:
                try:
                    self._connected()
                    return
                except (errors.Unreachable, errors.Uncertain) as error:
                    self._break(error)
        finally:
            for call in self._calls:
                _close(call)
            _close(self._again)

    def _connected(self) -> None:
        while True:
            while len(self._calls) < WINDOW_CALLS and (items := self._open_some()):
                self._call(items)
            if not self._calls:
                return
            self._hear()

    # --- calls ------------------------------------------------------------------------------------------

    def _open_some(self) -> dict[Item, Json]:
        """The files of the next call, open."""
        opened: dict[Item, Json] = {}
        failed: list[Result] = []
        left = CALL_BYTES
        while len(opened) < CALL_FILES and left > 0 and (item := self._next()) is not None:
            try:
                opened[item] = item.open()
                left -= len(item.name) + 32 + opened[item].get("have", 0) // HAVE_SHARE
            except (OSError, MsgdError) as error:
                failed.append((item, {"error": error_json(error, item.local)}))
        if failed:
            self._watch.ended(failed)
        return opened

    def _next(self) -> Item | None:
        return self._again.popleft() if self._again else next(self._items, None)

    def _call(self, opened: dict[Item, Json]) -> None:
        self._calls.append([*opened])
        parameters = {**self._asked, "files": [*opened.values()]}
        frame = varlink.call(full_name(self._method), parameters, more=True)
        hand_over(self._client, frame, [item.fd for item in opened])

    def _hear(self) -> None:
        """One reply, or the silence before it. Raises the error that it carries, and Lost."""
        deadline_s = time.monotonic() + self._client.timeout_s
        while (reply := self._client.next_reply()) is None:
            if not next_answer(self._client, SILENCE_S):
                if time.monotonic() > deadline_s:
                    raise self._client.lost(TimeoutError())
                self._stand(f"{self._whom} does not answer")
        if reply.error:
            raise error_of(reply)
        told = reply.parameters
        if told.get("progress"):
            self._take_progress(told["progress"])
        if told.get("results"):
            self._take_results(told["results"])
        if not reply.continues:
            self._calls.popleft()

    def _take_progress(self, progress: Json) -> None:
        name, done = progress["name"], progress["done"]
        if done > self._most.get(name, -1):  # the same bytes once more are no way forward
            self._most[name] = done
            self._has_moved()
        elif time.monotonic() - self._moved_s > SILENCE_S:
            self._stand(f"{self._whom} does not answer")
        self._watch.moved(name, done)

    def _take_results(self, results: list[Json]) -> None:
        items = self._calls[0]
        pairs = [(items[result["index"]], result) for result in results]
        for item, _ in pairs:
            self._most.pop(item.name, None)
        self._has_moved()
        try:
            self._watch.ended(pairs)
        finally:
            for item, _ in pairs:
                item.close()

    # --- what breaks ------------------------------------------------------------------------------------

    def _has_moved(self) -> None:
        self._moved_s = time.monotonic()
        self._has_told = False

    def _stand(self, sentence: str) -> None:
        if not self._has_told:
            self._has_told = True
            self._watch.stands(sentence)

    def _break(self, error: MsgdError) -> None:
        """Have what has no result asked for again, on a new connection. Raises `error` in the end."""
        self._client.close()
        open_ones = [item for call in self._calls for item in call if item.fd >= 0]
        self._again.extendleft(reversed(open_ones))
        self._calls.clear()
        pause_s = LEAST_PAUSE_S
        while True:
            self._stand(error.message)
            left_s = self._moved_s + self._patience_s - time.monotonic()
            if left_s <= 0:
                raise error
            time.sleep(min(pause_s, left_s))
            pause_s = min(MOST_PAUSE_S, pause_s * 2)
            try:
                self._client.reopen()
                return
            except errors.Unreachable as again:
                error = again


def persisting(client: Client, patience_s: float, ask: Callable[[Client], Answer]) -> Answer:
    """What `ask` answers; asked again, so maybe done twice, while msgd is away, for so long.

    The client is connected anew then. Raises MsgdError.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return ask(client)
        except (errors.Unreachable, errors.Uncertain):
            if time.monotonic() > deadline_s:
                raise
        _reopen(client, deadline_s)


def _reopen(client: Client, deadline_s: float) -> None:
    while True:
        time.sleep(LEAST_PAUSE_S)
        try:
            client.reopen()
            return
        except errors.Unreachable:
            if time.monotonic() > deadline_s:
                raise


def _close(items: Iterable[Item]) -> None:
    for item in items:
        item.close()


def error_json(error: OSError | MsgdError, local: str) -> Json:
    """An error of ours, as the daemon tells its own."""
    if isinstance(error, MsgdError):
        return {"name": error.name, "message": error.message, "hint": error.hint}
    kind = errors.StorageRefused if error.errno in FULL else errors.UsageError
    return {"name": kind.name, "message": f"{local}: {error.strerror}", "hint": ""}
