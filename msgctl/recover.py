"""`msgctl recover --from PEER`: get back from a peer what this node's log has lost."""

from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen, counted, field, span
from msgctl.send import plain
from msgctl.working import work
from msgd.errors import UsageError
from msgd.wire.varlink import Json


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Ends with the daemon's error where what comes back is not what was lost (9)."""
    peer = args.get("from")
    if peer is None:
        raise UsageError("recover needs --from PEER", "`msgctl peer ls` lists the peers")
    work(screen, client, form, _line, "Recover", {"peer": plain(peer)})
    return 0


def _line(result: Json) -> str:
    name = field(result["peer"])
    more = f"; {result['waiting']} more come by the link" if result["waiting"] else ""
    more += f"; {result['gone']} are lost, for {name} does not keep them any more" if result["gone"] else ""
    if not result["sent"] and not result["received"]:
        return f"nothing is missing here that {name} holds{more}"
    got = f"{counted(result['sent'], 'message')} sent to it, {result['received']} received from it"
    return f"recovered from {name} in {span(result['seconds'])}: {got}{more}"
