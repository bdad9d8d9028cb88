"""The verbs that look after consumers: `consumer ls`, `consumer rm`, `consumer retry`, `queue --as`."""

from msgctl import tables
from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen, counted, field, rfc3339
from msgctl.send import plain
from msgd.wire.varlink import Json

HEADS = ("CONSUMER", "PEER", "KIND", "BEHIND", "OPEN", "ASIDE", "LAST")
QUEUE_HEADS = ("ID", "PEER", "STATE", "ATTEMPTS", "SINCE", "REASON")


def ls(args: Args, screen: Screen, client: Client, form: str) -> int:
    """All consumers."""
    consumers = client.call("Consumers")["consumers"]
    if form == "json":
        for one in consumers:
            times = {"created_at": rfc3339(one["created_at_ns"]), "last_at": rfc3339(one["last_ns"])}
            screen.json({**one, **times})
    elif consumers:
        tables.show(screen, HEADS, [_consumer(screen, one) for one in consumers])
    else:
        screen.write("no consumers\n")
    return 0


def _consumer(screen: Screen, one: Json) -> list[str]:
    return [
        field(one["name"]),
        field(one.get("peer") or "-"),
        field(one.get("kind") or "-"),
        "many" if one.get("behind") is None else str(one["behind"]),
        str(one["open"]),
        str(one["aside"]),
        tables.when(screen, one["last_ns"]),
    ]


def queue(args: Args, screen: Screen, client: Client, form: str) -> int:
    """What a consumer has in work, and what was set aside for it."""
    waiting = client.call("ConsumerQueue", name=plain(args.get("as") or ""))["waiting"]
    if form == "json":
        for one in waiting:
            screen.json(one)
    elif waiting:
        tables.show(screen, QUEUE_HEADS, [_unsettled(screen, one) for one in waiting])
    else:
        screen.write("nothing is in work or set aside\n")
    return 0


def _unsettled(screen: Screen, one: Json) -> list[str]:
    return [
        field(one["id"]),
        field(one["peer"]),
        field(one["state"]),
        str(one["attempts"]),
        tables.when(screen, one["since_ns"]),
        field(one.get("why") or ""),
    ]


def retry(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Have what was set aside come again."""
    name, id = plain(args.words[0]), args.word(1)
    answer = client.call("ConsumerRetry", name=name, id=None if id is None else plain(id))
    if form == "json":
        screen.json({"consumer": name, "count": answer["count"]})
    else:
        screen.write(f"{counted(answer['count'], 'message')} for {field(name)} will come again\n")
    return 0


def rm(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Forget a consumer."""
    name = plain(args.words[0])
    client.call("ConsumerRemove", name=name)
    if form == "json":
        screen.json({"consumer": name, "removed": True})
    else:
        screen.write(f"{field(name)} is forgotten; the messages stay\n")
    return 0


HANDLERS = {
    "consumer ls": ls,
    "consumer retry": retry,
    "consumer rm": rm,
}
