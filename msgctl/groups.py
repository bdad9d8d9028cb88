"""`msgctl group ls`: the groups, their members, and who of them is connected."""

from msgctl import tables
from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen, field

HEADS = ("GROUP", "MEMBER", "STATE", "QUEUED", "REASON")


def ls(args: Args, screen: Screen, client: Client, form: str) -> int:
    """A line for each member; in JSON an object for each group."""
    groups = client.call("Groups")["groups"]
    if form == "json":
        for group in groups:
            screen.json(group)
        return 0
    rows = []
    for group in groups:
        name = "@" + field(group["name"])
        for member in group["members"] or [{"peer": "-", "state": "nobody"}]:
            queued, reason = str(member.get("queued", 0)), field(member.get("reason") or "")
            rows.append((name, field(member["peer"]), field(member["state"]), queued, reason))
    tables.show(screen, HEADS, rows)
    return 0


HANDLERS = {"group ls": ls}
