"""`msgctl send`: one message from the arguments, a file or standard input; its receipt as one line.

The body is what was given, byte for byte: nothing is stripped, nothing is re-encoded. Input that is not
UTF-8 travels as data. Many lines (`--lines`) have their own file, `lines`.
"""

import os

from msgctl import receipts
from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import BrokenOutput, Screen
from msgctl.timespec import duration_ms
from msgd import model
from msgd.errors import UsageError
from msgd.wire.varlink import Json

DEFAULT_WAIT_S = 3.0
CHUNK_BYTES = 1 << 18
LEVELS = (model.QUEUED, model.STORED, model.HANDLED)


class Order:
    """What a send's options say, checked. `wanted`: the level asked for with --wait, or None."""

    def __init__(self, args: Args) -> None:
        self.peer = plain(args.words[0])
        self.quiet = args.has("quiet")
        self.wanted = args.get("wait")
        if self.wanted not in (None, *LEVELS):
            raise UsageError(f"--wait={self.wanted}: expected queued, stored or handled")
        timeout = args.get("timeout")
        self.timeout_s = DEFAULT_WAIT_S if timeout is None else duration_ms(timeout) / 1000
        ttl = args.get("ttl")
        self.ttl_ms = None if ttl is None else duration_ms(ttl)
        if self.ttl_ms == 0:
            raise UsageError("a time to live of 0 is over at once", "leave --ttl out for no limit")
        self.key = args.get("id")
        if self.key is not None and not plain(self.key):
            raise UsageError("--id needs a key that is not empty")
        self.hold = False if args.has("no_hold") else None
        self.headers = dict(_header(pair) for pair in args.lists.get("header", ()))
        self.level = self.wanted or model.STORED  # to wait for, one way or the other
        if self.wanted == model.HANDLED and self.headers.setdefault(model.REPORT, self.wanted) != self.wanted:
            raise UsageError(
                f"-H {model.REPORT}={self.headers[model.REPORT]} does not go with --wait=handled"
            )


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Send what was asked for; the exit code."""
    order = Order(args)
    body = read_body(args)
    check_size(len(body) + header_bytes(order.headers), "the message")
    try:
        receipt = client.send(
            order.peer,
            body,
            wait=order.level,
            timeout_s=order.timeout_s,
            headers=order.headers,
            ttl_ms=order.ttl_ms,
            key=order.key,
            hold=order.hold,
            early=True,
        )
    except KeyboardInterrupt as exc:
        known = getattr(exc, "receipt", None)
        if known is not None:
            show(screen, form, order, known)
        raise
    show(screen, form, order, receipt)
    if receipt.get("pairing") and form != "json" and not order.quiet:
        from msgctl import held

        receipt = held.settle(order, body, screen, client, receipt)
    return receipts.exit_code(receipts.reached(receipt), order.wanted)


def show(screen: Screen, form: str, order: Order, receipt: Json) -> None:
    """The line of a receipt, or its object."""
    if order.quiet:
        return
    try:
        if form == "json":
            screen.json(receipts.as_json(receipt))
        else:
            screen.write(f"{receipt['id']} {receipts.line(screen, receipt, order.wanted)}\n")
    except BrokenOutput:
        pass  # the message is kept all the same, and so is its exit code


def read_body(args: Args) -> bytes:
    """The body, from wherever the arguments say."""
    text, file = args.word(1), args.get("file")
    if file is not None and text is not None:
        raise UsageError("the body comes either from TEXT or from --file")
    if file is not None and file != "-":
        return _read_file(file)
    if text is None and file is None and os.isatty(0):
        raise UsageError("nothing to send", "give TEXT, or - for standard input, or --file FILE")
    if text is None or text == "-":
        return _read_all(0, "standard input")
    return os.fsencode(text)


def open_file(path: str) -> int:
    """A descriptor of a file that the user named."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from exc


def _read_file(path: str) -> bytes:
    fd = open_file(path)
    try:
        return _read_all(fd, path)
    finally:
        os.close(fd)


def _read_all(fd: int, name: str) -> bytes:
    """All of a file, or a UsageError as soon as it cannot fit into a message."""
    parts, size = [], 0
    try:
        while data := os.read(fd, CHUNK_BYTES):
            parts.append(data)
            size += len(data)
            if size > model.MAX_MESSAGE_BYTES:
                check_size(max(size, os.fstat(fd).st_size), name, more=os.fstat(fd).st_size < size)
    except OSError as exc:
        raise UsageError(f"cannot read {name}: {exc.strerror}") from exc
    return b"".join(parts)


def check_size(size: int, name: str, *, more: bool = False) -> None:
    """Refuse what no message can hold; the daemon, which knows the exact size, judges what is close to it."""
    if size > model.MAX_MESSAGE_BYTES:
        raise UsageError(
            f"{name} has {'more than ' if more else ''}{size} bytes; a message has at most "
            f"{model.MAX_MESSAGE_BYTES}, headers included",
            "a message is for words: what is bigger is sent as a file, or in several messages",
        )


def plain(text: str) -> str:
    """An argument that has to be text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{os.fsencode(text)!r} is not UTF-8") from None
    return text


def _header(pair: str) -> tuple[str, str]:
    name, equals, value = plain(pair).partition("=")
    if not name or not equals:
        raise UsageError(f"-H {pair!r}: expected NAME=VALUE")
    return name, value


def header_bytes(headers: dict[str, str]) -> int:
    """What headers add to the size of a message."""
    return sum(len(name.encode()) + len(value.encode()) for name, value in headers.items())
