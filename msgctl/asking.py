"""The verbs that ask: `show`, `why`, `queue`, `status`, `peer ls`. They change nothing."""

from msgctl import messages, tables
from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen, field
from msgctl.send import plain
from msgd.errors import UsageError
from msgd.wire.varlink import Json


def show(args: Args, screen: Screen, client: Client, form: str) -> int:
    """One message; with `-o cat` its body, byte for byte."""
    answer = client.call("Show", id=plain(args.words[0]))
    message = answer["message"]
    if form == "cat" and not screen.terminal:
        screen.write_bytes(messages.body(message))
    elif form == "cat":
        messages.writer(screen, form)([message])
    else:
        others = [_whole(message, each) for each in answer.get("others") or ()]
        messages.writer(screen, form)([message, *others])
    return 0


def _whole(first: Json, other: Json) -> Json:
    """The row of another member of a group, with the body that all of them have."""
    return {**other, **{name: first[name] for name in ("text", "data") if name in first}}


def why(args: Args, screen: Screen, client: Client, form: str) -> int:
    """The life of one message."""
    answer = client.call("Why", id=plain(args.words[0]))
    first = answer["message"]
    for each in (answer, *(answer.pop("others", None) or ())):
        _life(screen, form, {**each, "message": _whole(first, each["message"])})
    return 0


def _life(screen: Screen, form: str, answer: Json) -> None:
    if form == "json":
        screen.json({**answer, "message": messages.as_json(answer["message"])})
        return
    screen.write(messages.short(screen, answer["message"]))
    for event in answer["life"]:
        ns = event["at_ns"]
        when = f"{screen.clock(ns, '%b %d %H:%M:%S')}.{ns // 1_000_000 % 1000:03d}"
        screen.write(f"    {when}  {field(event['what']):<10} {field(event['detail'])}".rstrip() + "\n")
    screen.write(f"    {screen.paint('bold', 'next:')} {field(answer['next'])}\n")


def queue(args: Args, screen: Screen, client: Client, form: str) -> int:
    """What waits, in the order of sending; with --as what a consumer has in work."""
    peer = args.word(0)
    if args.has("as"):
        from msgctl import consumers

        if peer is not None:
            raise UsageError("queue takes either PEER or --as NAME", "the one is sent, the other received")
        return consumers.queue(args, screen, client, form)
    rows: list[Json] = []  # a table needs all of them before it knows how wide it is
    for answer in client.stream("Queue", peer=None if peer is None else plain(peer)):
        waiting = answer.get("messages") or []
        if form == "json":
            screen.write("".join([screen.json_text(one) + "\n" for one in waiting]))
        else:
            rows += waiting
    if rows:
        tables.queue(screen, rows)
    elif form != "json":
        screen.write("nothing waits\n")
    return 0


def status(args: Args, screen: Screen, client: Client, form: str) -> int:
    """This node and its peers."""
    answer = client.call("Status")
    if form == "json":
        for one in (answer["node"], *answer["peers"]):
            screen.json(one)
    else:
        tables.status(screen, answer["node"], answer["peers"])
    return 0


def peer_ls(args: Args, screen: Screen, client: Client, form: str) -> int:
    """All peers."""
    peers = client.call("Peers")["peers"]
    if form == "json":
        for one in peers:
            screen.json(one)
    elif peers:
        tables.peers(screen, peers)
    else:
        screen.write("no peers\n")
    return 0


HANDLERS = {
    "show": show,
    "why": why,
    "queue": queue,
    "status": status,
    "peer ls": peer_ls,
}
