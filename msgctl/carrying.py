"""`msgctl export PEER > FILE` and `msgctl import FILE|-`: parcels, which a person carries."""

import os
import stat
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator

from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import BrokenOutput, Screen, complain, counted, field
from msgctl.send import plain
from msgctl.working import work
from msgd.errors import MsgdError, UsageError
from msgd.wire.varlink import Json, dump_text

PART_BYTES = 768 << 10  # 1 MiB in base64, half of what one call may have
STDIN = 0


def export(args: Args, screen: Screen, client: Client, form: str) -> int:
    """The file is whole and on its disk when this ends with 0."""
    if screen.terminal:
        raise UsageError("a parcel is no text for a terminal", "msgctl export PEER > FILE")
    first = args.get("from")
    if first is not None and not first.isdecimal():
        raise UsageError(f"--from {first!r} is not the number of a message", "`msgctl import` there names it")
    result: Json | None = None
    named = plain(args.words[0])
    wanted = None if first is None else int(first)
    for reply in client.stream("Export", endless=True, peer=named, first_seq=wanted):
        if reply.get("data"):
            _write(screen, a2b_base64(reply["data"]))
        result = reply.get("result") or result
    assert result is not None, "the stream ended without its result"
    _sync()
    complain((dump_text(result) if form == "json" else _exported(result)) + "\n")  # stdout is the parcel's
    return 0


def _write(screen: Screen, data: bytes) -> None:
    """Who stops reading a history has seen enough; who stops reading a parcel has none."""
    try:
        screen.write_bytes(data)
    except BrokenOutput:
        raise MsgdError("the parcel is not whole: whoever read the output went away") from None


def _sync() -> None:
    """A stick is pulled as soon as the prompt is back."""
    if not stat.S_ISREG(os.fstat(1).st_mode):
        return
    try:
        os.fsync(1)
    except OSError as exc:
        raise MsgdError(f"cannot write the output: {exc.strerror}") from exc


def _exported(result: Json) -> str:
    name = field(result["peer"])
    return (
        f"{counted(result['messages'], 'message')} for {name}, {result['bytes']:,} bytes; confirms "
        f"{result['confirmed']} of {name}'s. Not encrypted: whoever has the file can read it."
    )


def import_(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Ends with the daemon's error where nothing of it is taken."""
    for part in _parts(args.words[0]):
        client.call("ImportPart", data=b2a_base64(part, newline=False).decode())
    work(screen, client, form, _imported, "Import", {})
    return 0


def _parts(path: str) -> Iterator[bytes]:
    """The bytes of a file, or of standard input. At least one part, so that an empty file is told as such."""
    try:
        fd = STDIN if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        part = _part(fd)
        while True:
            yield part
            part = _part(fd)
            if not part:
                return
    except OSError as exc:
        raise UsageError(f"cannot read {field(path)}: {exc.strerror}") from exc


def _part(fd: int) -> bytes:
    """Up to PART_BYTES; less at the end only."""
    pieces, size = [], 0
    while size < PART_BYTES and (piece := os.read(fd, PART_BYTES - size)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _imported(result: Json) -> str:
    name = field(result["peer"])
    known = f", {result['known']} passed over (here already, or void)" if result["known"] else ""
    more = f"{counted(result['confirmed'], 'message')} more" if result["confirmed"] else "nothing new"
    return f"from {name}: {counted(result['messages'], 'new message')}{known}; it confirms {more}"


HANDLERS = {"export": export, "import": import_}
