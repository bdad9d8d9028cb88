"""`msgctl pair invite` and `pair join`: one string makes two nodes peers, with no question on either side.

The string is a secret: whoever has it first becomes a peer. `join -` reads it from standard input, so that it
does not show in `ps`.
"""

import os

from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen, complain, field
from msgctl.pairing import answer_ms
from msgctl.send import plain
from msgctl.timespec import option_ms
from msgd import errors
from msgd.errors import UsageError

MAX_STRING = 8192


def invite(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Print an invitation: the string alone in a pipe, with a QR code on a terminal."""
    answer = client.call(
        "PairInvite",
        ttl_ms=option_ms(args.get("ttl"), "ttl", "1s", "366d"),
        addresses=[plain(each) for each in args.lists.get("address", [])] or None,
    )
    if form == "json":
        screen.json(answer)
        return errors.OK
    screen.write(answer["invitation"] + "\n")
    if screen.terminal:
        if not args.has("no_qr"):
            screen.write(_qr_code(answer["invitation"]))
        ends = screen.clock(answer["expires_at_ns"] - 1)
        complain("  On the other machine: msgctl pair join STRING\n")
        complain(f"  Good for one node, until {ends}. Keep it secret: who has it becomes a peer.\n")
    return errors.OK


def _qr_code(text: str) -> str:
    """In half blocks; empty where the terminal is too narrow. Capital letters take fewer modules."""
    import io

    import segno

    code = segno.make(text.upper(), error="l", micro=False)
    drawn = io.StringIO()
    code.terminal(drawn, border=2, compact=True)
    width = code.symbol_size(border=2)[0]
    return drawn.getvalue() if width <= os.get_terminal_size(1).columns else ""


def join(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Accept an invitation; 5 where the other side has not answered yet."""
    given = "".join("".join(plain(word).split()) for word in args.words)
    if given == "-":
        given = "".join(_standard_input().split())
    ms = answer_ms(args)
    answer = client.call(
        "PairJoin",
        timeout_s=ms / 1000 + client.timeout_s,
        invitation=given,
        name=args.get("name"),
        timeout_ms=ms,
    )
    name = field(answer["peer"]["name"])
    if form == "json":
        screen.json(answer)
    elif answer["joined"]:
        screen.write(f"{name} is a peer now\n")
    else:
        screen.write(f"{name} is accepted here, but has not answered yet ({field(answer['reason'])})\n")
        complain("  msgd goes on trying until the invitation expires; `msgctl peer` shows how it stands.\n")
    return errors.OK if answer["joined"] else errors.STILL_QUEUED


def _standard_input() -> str:
    data = b""
    while len(data) <= MAX_STRING and (more := os.read(0, MAX_STRING)):
        data += more
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise UsageError("standard input is no invitation") from None


HANDLERS = {
    "pair invite": invite,
    "pair join": join,
}
