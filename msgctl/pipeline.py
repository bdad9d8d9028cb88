"""Many messages by one connection: calls go out before earlier ones are answered, up to a window.

- A batch is a `SendMany` of up to 256 messages or 256 KiB; a bigger message goes alone, as a `Send`.
- Replies come in the order of the calls, so a queue of what was asked is all the bookkeeping there is.
- Writing and reading wait in one poll(2), and nothing is read from the source while the window is full:
  neither side can fill both buffers and wait for the other.
- The calls are put together as text, one f-string a message: a dict for each would halve the rate.
"""

import select
import time
from _collections_abc import Iterable, Iterator, Sequence

from msgctl.client import Client, body_fields, error_of, full_name, new_ids
from msgd import errors
from msgd.wire import varlink
from msgd.wire.varlink import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    Answer = tuple[list[str], Json | errors.MsgdError]

BATCH_MESSAGES = 256
BATCH_BYTES = 256 << 10
WINDOW_CALLS = 64  # calls without an answer; at most 16 MiB of them are in memory
POLL_MS = 1000


class Batch:
    """One call under way: the ids and the sizes that were asked for."""

    __slots__ = ("ids", "single")

    def __init__(self, ids: list[str], single: bool) -> None:
        self.ids = ids
        self.single = single  # a `Send`, whose answer has another form


class Call:
    """What all batches have in common, as text around the messages."""

    def __init__(
        self,
        peer: str,
        *,
        wait: str = "queued",
        timeout_s: float = 3.0,
        headers: dict[str, str] | None = None,
        ttl_ms: int | None = None,
        hold: bool | None = None,
    ) -> None:
        self._hold = hold
        self._peer = peer
        self._timeout_s = timeout_s
        self._headers = headers
        self._ttl_ms = ttl_ms
        self.wait = wait

    def frame(self, bodies: Sequence[str | bytes]) -> tuple[bytes, Batch]:
        """The call that sends these bodies, and what to remember of it."""
        ids = new_ids(len(bodies))
        tail = f',"headers":{varlink.dump_text(self._headers)}}}' if self._headers else "}"
        texts = _texts(bodies)
        if texts is not None:
            quote = varlink.quote  # the usual way: no call for a line but this one
            messages = [f'{{"id":"{ids[at]}","text":{quote(text)}{tail}' for at, text in enumerate(texts)]
        else:
            messages = [f'{{"id":"{ids[at]}",{_fields(body)}{tail}' for at, body in enumerate(bodies)]
        single = len(bodies) == 1
        text = self._text(single, ",".join(messages) if single else f"[{','.join(messages)}]")
        return text.encode() + b"\0", Batch(ids, single)

    def _text(self, single: bool, messages: str) -> str:
        stored = self.wait != "queued"
        given = {
            "peer": self._peer,
            "wait": self.wait,
            "timeout_ms": round(self._timeout_s * 1000) if stored else None,
            "ttl_ms": self._ttl_ms,
            "hold": self._hold,
        }
        rest = varlink.dump_text({name: value for name, value in given.items() if value is not None})
        method, name = ("Send", "message") if single else ("SendMany", "messages")
        return f'{{"method":"{full_name(method)}","parameters":{{"{name}":{messages},{rest[1:]}}}'


def _texts(bodies: "Sequence[str | bytes]") -> "Sequence[str] | None":
    """The bodies as text, all or none: a batch of 256 KiB fits into a call however it is escaped."""
    if len(bodies[0]) > BATCH_BYTES:
        return None
    try:
        return [body if isinstance(body, str) else body.decode() for body in bodies]
    except UnicodeDecodeError:
        return None


def _fields(body: str | bytes) -> str:
    """A body's members of the message, as JSON without braces."""
    return varlink.dump_text(body_fields(body))[1:-1]


class Pipeline:
    """Calls under way on one connection, which is non-blocking from now on."""

    def __init__(self, client: Client, window_calls: int = WINDOW_CALLS) -> None:
        self._client = client
        self._sock = client.sock
        self._sock.setblocking(False)
        self._window = window_calls
        self._unsent = b""
        self._asked: list[Batch] = []  # oldest first
        self._heard_s = time.monotonic()

    @property
    def full(self) -> bool:
        """Whether the window is used up; bytes that did not go out yet use it up, too."""
        return len(self._asked) >= self._window or bool(self._unsent)

    @property
    def under_way(self) -> int:
        """Messages without an answer."""
        return sum(len(batch.ids) for batch in self._asked)

    def put(self, frame: bytes, batch: Batch) -> None:
        """Make a call; only while the window is not full."""
        if not self._asked:
            self._heard_s = time.monotonic()
        self._asked.append(batch)
        self._unsent += frame
        self._write()

    def wait(self, source: int | None = None) -> bool:
        """Wait until bytes can go out, answers come, or `source` (an fd) can be read; whether that is so.

        Raises Lost when nothing is heard for the client's timeout.
        """
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if source is not None:
            poll.register(source, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(POLL_MS)]
        if self._unsent:
            self._write()
        if self._asked and time.monotonic() - self._heard_s > self._client.timeout_s:
            raise self._client.lost(TimeoutError())
        return source in ready

    def answers(self) -> Iterator["Answer"]:
        """What has arrived, without waiting: the ids of a call, and its answer or its error."""
        try:
            data = self._sock.recv(varlink.READ_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            raise self._client.lost(exc) from exc
        self._client.feed(data)
        while (reply := self._client.next_reply()) is not None:
            self._heard_s = time.monotonic()
            if not self._asked:
                raise errors.MsgdError("msgd answered more than it was asked")
            batch = self._asked.pop(0)
            if reply.error:
                yield batch.ids, error_of(reply)
            else:
                yield batch.ids, _one_form(reply.parameters) if batch.single else reply.parameters

    def _write(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, ConnectionError):
            return  # a connection that is gone may still hold answers: reading tells
        self._unsent = self._unsent[sent:]


def _one_form(parameters: Json) -> Json:
    """The answer of a `Send` in the form of `SendMany`'s."""
    receipt: Json = parameters["receipt"]
    handled_ns = receipt.get("handled_at_ns")
    return {
        **receipt,
        "count": 1,
        "first_seq": receipt.get("seq"),
        "handled": None if handled_ns is None else [handled_ns],
    }


def send_many(
    client: Client,
    peer: str,
    bodies: Iterable[str | bytes],
    *,
    wait: str = "queued",
    timeout_s: float = 3.0,
    headers: dict[str, str] | None = None,
    ttl_ms: int | None = None,
    window_calls: int = WINDOW_CALLS,
) -> Iterator[tuple[list[str], Json]]:
    """Send every body as a message, in order; for each batch its ids and how far it has come.

    The client serves for nothing else meanwhile. Raises the first error of a call; what was sent
    after it has no answer.
    """
    call = Call(peer, wait=wait, timeout_s=timeout_s, headers=headers, ttl_ms=ttl_ms)
    pipeline = Pipeline(client, window_calls)
    for batch in batches(bodies):
        while pipeline.full:
            pipeline.wait()
            yield from _sound(pipeline.answers())
        pipeline.put(*call.frame(batch))
        yield from _sound(pipeline.answers())
    while pipeline.under_way:
        pipeline.wait()
        yield from _sound(pipeline.answers())


def _sound(answers: Iterator["Answer"]) -> Iterator[tuple[list[str], Json]]:
    for ids, answer in answers:
        if isinstance(answer, errors.MsgdError):
            raise answer
        yield ids, answer


def batches(bodies: Iterable[str | bytes]) -> Iterator[list[bytes]]:
    """Bodies in lists of up to 256 or 256 KiB; a bigger one alone."""
    batch: list[bytes] = []
    size = 0
    for body in bodies:
        raw = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
        if batch and (len(batch) >= BATCH_MESSAGES or size + len(raw) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(raw)
        size += len(raw)
    if batch:
        yield batch
