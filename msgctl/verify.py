"""`msgctl verify [PEER]`: is this log what was written, and what the peer's is?"""

from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen, counted, field, span
from msgctl.send import plain
from msgctl.usage import size
from msgctl.working import work
from msgd.wire.varlink import Json


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Ends with the daemon's error where something is damaged (8) or differs (9)."""
    peer = args.word(0)
    named: Json = {} if peer is None else {"peer": plain(peer)}
    work(screen, client, form, _line, "Verify", named)
    return 0


def _line(result: Json) -> str:
    took = span(result["seconds"])
    if result.get("peer") is None:
        what = f"{counted(result['records'], 'record')} with {counted(result['messages'], 'message')}"
        where = f"{size(result['bytes'])} in {counted(result['segments'], 'segment')}"
        sound = "sound" if result["state"] == "sound" else "damaged"
        return f"the log is {sound}: {what}, {where}, read in {took}"
    both = f"{counted(result['sent'], 'message')} sent and {result['received']} received"
    name = field(result["peer"])
    if result["state"] == "same":
        return f"both logs hold the same: {both} are on {name} as they are here, compared in {took}"
    return f"{both} are on {name} as they are here, compared in {took}; not all of it could be or is the same"
