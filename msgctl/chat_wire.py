"""The connections of a chat to msgd: varlink over asyncio, one call at a time on each."""

import asyncio
import socket
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from msgctl.client import ANSWER_TIMEOUT_S, Lost, error_of, full_name
from msgctl.reaching import connected, where_it_says
from msgd.errors import MsgdError
from msgd.wire import varlink
from msgd.wire.varlink import Json


class Wire:
    """One connection. Not safe in two loops; a call that was cancelled leaves it of no use."""

    def __init__(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._path = path
        self._reader = reader
        self._writer = writer
        self._splitter = varlink.Splitter(varlink.MAX_REPLY_BYTES)
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, path: str) -> Self:
        """Connect. Raises Unreachable."""
        plain = await asyncio.to_thread(connected, path)  # it blocks while msgd's backlog is full
        reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=plain.detach()))
        return cls(path, reader, writer)

    async def call(self, method: str, **parameters: Any) -> Json:
        """The answer to one call. Raises the error that the daemon gives, Lost."""
        async with self._turn:
            await self._write(varlink.call(full_name(method), parameters))
            return (await self._answer(ANSWER_TIMEOUT_S)).parameters

    async def stream(self, method: str, **parameters: Any) -> AsyncIterator[Json]:
        """The answers to one call with `more`, however long each takes. Raises as `call`."""
        async with self._turn:
            await self._write(varlink.call(full_name(method), parameters, more=True))
            while True:
                reply = await self._answer(None)
                yield reply.parameters
                if not reply.continues:
                    return

    async def _write(self, frame: bytes) -> None:
        self._writer.write(frame)
        try:
            await self._writer.drain()
        except ConnectionError:
            pass  # msgd may have said why before it closed: reading finds out

    async def _answer(self, timeout_s: float | None) -> varlink.Reply:
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._next()
        except TimeoutError as exc:
            raise Lost("msgd did not answer in time", where_it_says(self._path)) from exc
        if reply.error:
            raise error_of(reply)
        return reply

    async def _next(self) -> varlink.Reply:
        try:
            while (frame := self._splitter.next()) is None:
                self._splitter.feed(await self._read())
            return varlink.parse_reply(frame)
        except varlink.FrameError as exc:
            raise MsgdError(f"what answers is not msgd: {exc}") from exc

    async def _read(self) -> bytes:
        try:
            data = await self._reader.read(varlink.READ_BYTES)
        except OSError:
            data = b""
        if not data:
            raise Lost("msgd closed the connection", where_it_says(self._path))
        return data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
