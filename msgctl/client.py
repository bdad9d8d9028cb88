"""The one way to the daemon: a varlink connection over its Unix socket, blocking, every wait bounded.

- One `Client` is one connection. `call` takes one answer, `stream` many; `pipeline.send_many` keeps several
  calls under way.
- Message ids are made here. If the connection breaks between a send and its answer, the client connects
  once more and asks for the id: found means kept. A send with a key is simply made again, since a key
  is kept once, ever. What stays unknown is told as `Uncertain`, never as a refusal.
- Errors are those of `msgd.errors`, by the names that the control socket carries.
"""

import os
import time
from _collections_abc import Iterator  # `collections.abc` would import all of `collections`
from binascii import b2a_base64
from io import BytesIO

from msgctl.reaching import connected, where_it_says
from msgd import errors, model
from msgd.wire import varlink
from msgd.wire.varlink import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

ANSWER_TIMEOUT_S = 130.0  # msgd bears a disk that stalls for 120 s
AGAIN_S = 0.2  # between two tries to connect again
LOOK_S = 1.0  # a signal that comes right before recv(2) is not seen by Python while that waits
ERROR_PREFIX = errors.INTERFACE + "."
LINES_HEAD, LINES_TAIL = b'{"parameters":{"messages":[\n', b"],"  # around lines in an answer
COMMA = b",\n"  # between two of them
KEPT_BYTES = 1 << 20  # glibc's M_TRIM_THRESHOLD becomes twice the largest block that was freed (mallopt(3))
VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))  # of a UUID: its two high bits are 10


class Lost(errors.Unreachable):
    """The connection broke, or no answer came in time, after a call was made."""


class Client:
    """One connection to msgd. Not safe to share between threads."""

    def __init__(self, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Connect. Raises Unreachable. `timeout_s`: how long to wait for an answer."""
        self.path = path
        self.timeout_s = timeout_s
        self._splitter = varlink.Splitter(varlink.MAX_REPLY_BYTES)
        self.sock = connected(path)

    def reopen(self) -> None:
        """Connect anew; what was asked on the former connection is not answered. Raises Unreachable."""
        self.sock.close()
        self._splitter = varlink.Splitter(varlink.MAX_REPLY_BYTES)
        self.sock = connected(self.path)

    def call(self, method: str, *, timeout_s: float | None = None, **parameters: "Any") -> Json:
        """The answer to one call. `method` without a dot is one of org.msgd.Control.

        Raises the error that the daemon gives, or Unreachable when it is lost.
        """
        self._write(varlink.call(full_name(method), parameters))
        return self._answer(self._deadline(timeout_s)).parameters

    def stream(
        self, method: str, *, timeout_s: float | None = None, endless: bool = False, **parameters: "Any"
    ) -> Iterator[Json]:
        """The answers to one call with `more`. `endless`: wait for the next one as long as it takes."""
        self._write(varlink.call(full_name(method), parameters, more=True))
        while True:
            reply = self._answer(None if endless else self._deadline(timeout_s))
            yield reply.parameters
            if not reply.continues:
                return

    def lines(
        self, method: str, *, timeout_s: float | None = None, endless: bool = False, **parameters: "Any"
    ) -> Iterator[tuple[bytes, Json]]:
        """As `stream` with `format` json: of each answer its lines as they came, and its other members."""
        bytes(KEPT_BYTES)  # from now on malloc keeps what is freed: no page faults for every answer
        self._write(varlink.call(full_name(method), {**parameters, "format": "json"}, more=True))
        is_last = False
        while not is_last:
            frame = self._frame(None if endless else self._deadline(timeout_s))
            if frame.startswith(LINES_HEAD):
                _, *rows, tail = BytesIO(frame).readlines()  # no other line ends in JSON
                if rows[1::2].count(COMMA) == len(rows) // 2:
                    lines = b"".join(rows[::2])
                else:  # of an older msgd that still runs: the comma begins the next line
                    lines = b"".join(rows).replace(b"\n,", b"\n")
                frame = b'{"parameters":{' + tail.removeprefix(LINES_TAIL)
            else:
                lines = b""
            reply = _checked(frame)
            is_last = not reply.continues
            yield lines, reply.parameters

    def send(
        self,
        peer: str,
        body: str | bytes,
        *,
        wait: str = "queued",
        timeout_s: float = 3.0,
        kind: str | None = None,
        headers: dict[str, str] | None = None,
        ttl_ms: int | None = None,
        key: str | None = None,
        id: str | None = None,
        hold: bool | None = None,
        early: bool = False,
    ) -> Json:
        """Send one message; its receipt as soon as it is queued or, with `wait="stored"` or `"handled"`, when
        that is reached, when it has ended otherwise, or `timeout_s` is over. `early`: have a first receipt
        sent as soon as it is queued, for who may lose patience. `hold=False`: keep nothing where it would be
        held.

        Raises Uncertain when the daemon is lost and it cannot be found out whether the message was kept.
        """
        if id is None and key is None:  # the id of a message with a key is made from the key, by the daemon
            id = new_id()
        message = {"id": id, "kind": kind, "headers": headers or None, **body_fields(body)}
        parameters: Json = {
            "peer": peer,
            "message": {name: value for name, value in message.items() if value is not None},
            "ttl_ms": ttl_ms,
            "key": key,
            "wait": wait,
            "timeout_ms": round(timeout_s * 1000) if wait != "queued" else None,
            "hold": hold,
        }
        began_s = time.monotonic()
        try:
            receipt = self._send(parameters, wait, timeout_s, early)
        except Lost as exc:
            receipt = _cut_off(self._find_out(parameters, exc), wait)
        return self._go_on(parameters, receipt, wait, began_s, timeout_s)

    def _send(self, parameters: Json, wait: str, timeout_s: float, early: bool = False) -> Json:
        """The last receipt that came. A connection that breaks after the first one takes nothing back."""
        more = early and wait != "queued"
        receipt: Json | None = None
        try:
            self._write(varlink.call(full_name("Send"), parameters, more=more))
            deadline_s = self._deadline(timeout_s + self.timeout_s if wait != "queued" else None)
            while True:
                reply = self._answer(deadline_s)
                receipt = reply.parameters["receipt"]
                if not reply.continues:
                    return receipt
        except Lost:
            if receipt is None:
                raise
            return _cut_off(receipt, wait)
        except KeyboardInterrupt as exc:
            exc.receipt = receipt  # type: ignore[attr-defined]  # what is known is still told
            raise

    def _go_on(self, parameters: Json, receipt: Json, wait: str, began_s: float, timeout_s: float) -> Json:
        """Where msgd, or a process of it, ended before the time was over: wait for the rest of it."""
        is_duplicate, deadline_s = receipt["duplicate"], began_s + timeout_s
        while receipt["reason"] == model.RESTARTING and deadline_s - time.monotonic() > AGAIN_S:
            try:
                time.sleep(AGAIN_S)
                with Client(self.path, timeout_s=self.timeout_s) as other:
                    left_s = max(0.0, deadline_s - time.monotonic())
                    asked = {**parameters, "timeout_ms": round(left_s * 1000)}
                    again = other._send(asked, wait, left_s)
            except errors.MsgdError as exc:
                if not passes(exc):
                    raise
                continue  # it is kept, so what is known of it stands
            except KeyboardInterrupt as exc:
                exc.receipt = receipt  # type: ignore[attr-defined]  # as in _send
                raise
            elapsed_ms = (time.monotonic() - began_s) * 1000
            receipt = {**again, "duplicate": is_duplicate, "elapsed_ms": elapsed_ms}
        return receipt

    def _find_out(self, parameters: Json, lost: Lost) -> Json:
        """Whether a message was kept whose send had no answer."""
        id, key = parameters["message"].get("id"), parameters["key"]
        try:
            with Client(self.path, timeout_s=self.timeout_s) as other:
                if key is not None:
                    return other._send({**parameters, "wait": "queued", "timeout_ms": None}, "queued", 0)
                return receipt_of(other.call("Show", id=id)["message"])
        except (errors.Unreachable, errors.UnknownMessage):
            again = f"send it again with --id {key}" if key else f"ask later with `msgctl show {id}`"
            raise errors.Uncertain(
                f"{lost.message} before it answered: unknown whether the message was kept",
                f"{again}; a send with --id KEY may be repeated at any time",
            ) from lost

    def close(self) -> None:
        """Close the connection; streams end with it."""
        self.sock.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()

    # --- bytes ------------------------------------------------------------------------------------------

    def _deadline(self, timeout_s: float | None) -> float:
        return time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)

    def _write(self, frame: bytes) -> None:
        self.sock.settimeout(self.timeout_s)
        try:
            self.sock.sendall(frame)
        except ConnectionError:
            pass  # msgd may have said why before it closed: reading finds out
        except OSError as exc:
            raise self.lost(exc) from exc

    def _answer(self, deadline_s: float | None) -> varlink.Reply:
        return _checked(self._frame(deadline_s))

    def _frame(self, deadline_s: float | None) -> bytes:
        while (frame := self._next_frame()) is None:
            left_s = LOOK_S if deadline_s is None else max(0.001, deadline_s - time.monotonic())
            self.sock.settimeout(min(LOOK_S, left_s))
            try:
                self.feed(self.sock.recv(varlink.READ_BYTES))
            except TimeoutError as exc:
                if left_s < LOOK_S:
                    raise self.lost(exc) from exc
            except OSError as exc:
                raise self.lost(exc) from exc
        return frame

    def feed(self, data: bytes) -> None:
        """Take what was read from the socket. Raises Lost at its end."""
        if not data:
            raise self.lost(None)
        self._splitter.feed(data)

    def lost(self, exc: OSError | None) -> Lost:
        """The error of a connection that ended, or that gives no answer."""
        what = "did not answer in time" if isinstance(exc, TimeoutError) else "closed the connection"
        return Lost(f"msgd {what}", where_it_says(self.path))

    def next_reply(self) -> varlink.Reply | None:
        """The next reply that has arrived whole, errors included; None: not enough yet."""
        frame = self._next_frame()
        return None if frame is None else _parsed(frame)

    def _next_frame(self) -> bytes | None:
        try:
            return self._splitter.next()
        except varlink.FrameError as exc:
            raise _no_msgd(exc) from exc


def passes(exc: errors.MsgdError) -> bool:
    """Whether it is an error of a msgd that starts again: the same call may be made once more."""
    return isinstance(exc, errors.Unreachable | errors.Uncertain) or type(exc) is errors.MsgdError


def _cut_off(receipt: Json, wait: str) -> Json:
    """What is known of a message when no more is heard of it."""
    return {**receipt, "reason": model.RESTARTING} if _is_open(receipt, wait) else receipt


def _is_open(receipt: Json, wait: str) -> bool:
    """Whether the message may still get as far as is waited for."""
    if wait == model.QUEUED or receipt.get("handled_at_ns") is not None:
        return False
    return receipt["state"] == model.QUEUED or (receipt["state"], wait) == (model.STORED, model.HANDLED)


def _checked(frame: bytes) -> varlink.Reply:
    """The answer in a frame. Raises the error that it carries."""
    reply = _parsed(frame)
    if reply.error:
        raise error_of(reply)
    return reply


def _parsed(frame: bytes) -> varlink.Reply:
    try:
        return varlink.parse_reply(frame)
    except varlink.FrameError as exc:
        raise _no_msgd(exc) from exc


def _no_msgd(exc: varlink.FrameError) -> errors.MsgdError:
    return errors.MsgdError(f"what answers is not msgd: {exc}")


def error_of(reply: varlink.Reply) -> errors.MsgdError:
    """The error that a reply carries, as the exception of that name."""
    known = errors.BY_NAME.get(reply.error.removeprefix(ERROR_PREFIX))
    given = reply.parameters
    if known is not None and reply.error.startswith(ERROR_PREFIX):
        return known(str(given.get("message") or reply.error), str(given.get("hint") or ""))
    if reply.error == varlink.SERVICE + ".InvalidParameter":
        return errors.UsageError(f"msgd does not take the parameter {given.get('parameter')!r}")
    if reply.error in (varlink.SERVICE + ".MethodNotFound", varlink.SERVICE + ".InterfaceNotFound"):
        return errors.MsgdError(
            f"this msgd does not know {given.get('method') or given.get('interface')}",
            "it may be older than msgctl",
        )
    return errors.MsgdError(f"{reply.error} {varlink.dump_text(given) if given else ''}".rstrip())


def full_name(method: str) -> str:
    """A method's name with its interface."""
    return method if "." in method else ERROR_PREFIX + method


def new_id() -> str:
    """A fresh message id."""
    return model.id_text(model.uuid7(time.time_ns() // 1_000_000, os.urandom(10)))


def new_ids(count: int) -> list[str]:
    """`count` fresh message ids: `new_id` in bulk, cut from one string of digits in half the time."""
    clock, d = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10 * count).hex()
    head = f"{clock[:8]}-{clock[8:]}-7"
    return [
        f"{head}{d[at : at + 3]}-{VARIANT[d[at + 3]]}{d[at + 4 : at + 7]}-{d[at + 7 : at + 19]}"
        for at in range(0, 20 * count, 20)
    ]


def body_fields(body: str | bytes) -> dict[str, str]:
    """A body as `text` where it is UTF-8, else as `data`; also where escapes would make it long."""
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogateescape")  # what Python made of bytes in an argument
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = None
    if text is None or (len(body) > 65536 and len(varlink.quote(text)) > 2 * len(body)):
        return {"data": b2a_base64(body, newline=False).decode()}
    return {"text": text}


def receipt_of(message: Json) -> Json:
    """A receipt of what the log says about a message that was sent before."""
    same = ("id", "peer", "state", "reason", "seq", "stored_at_ns", "receipt_at_ns")
    mark = ("handled_at_ns", "handled_by")
    queued_ns = message["stored_at_ns"]  # of an outgoing message: when this node had it on disk
    return {
        **{name: message.get(name) for name in (*same, *mark)},
        "queued_at_ns": queued_ns,
        "elapsed_ms": 0.0,
        "next_try_s": None,
        "duplicate": True,
    }
