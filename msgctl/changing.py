"""The verbs that change something at once: `cancel retry reload`, `peer add|rm|rename|block`, `identity`."""

from msgctl import receipts
from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen, counted, field, span
from msgctl.send import plain
from msgd.errors import UsageError
from msgd.wire.varlink import Json


def cancel(args: Args, screen: Screen, client: Client, form: str) -> int:
    """End a message that is not released yet. A refusal is an error of the daemon (TooLate, 6)."""
    answer = client.call("Cancel", id=plain(args.words[0]))
    for receipt in (answer["receipt"], *(answer.get("others") or ())):
        text = f"{receipt['id']} {receipts.line(screen, receipt)}"
        _say(screen, form, receipts.as_json(receipt), text)
    return 0


def retry(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Try to reach a peer now."""
    peer = plain(args.words[0])
    wait_s = client.call("Retry", peer=peer)["next_try_s"]
    when = "now" if wait_s < 0.5 else f"in {span(round(wait_s))}"
    return _say(screen, form, {"peer": peer, "next_try_s": wait_s}, f"{field(peer)}: next try {when}")


def reload(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Read the configuration again; back when it is in force."""
    client.call("Reload")
    return 0


def peer_add(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Pair with a known identity."""
    key = args.get("key")
    if key is None:
        raise UsageError(
            "peer add needs --key IDENTITY",
            "`msgctl identity` there shows it; to get to know each other otherwise: `msgctl pair invite`",
        )
    address = args.word(1)
    answer = client.call(
        "PeerAdd",
        name=plain(args.words[0]),
        address=None if address is None else plain(address),
        key=plain(key),
    )
    peer = answer["peer"]
    what = "is a peer now" if answer["changed"] else "was a peer already"
    return _say(screen, form, {**peer, "changed": answer["changed"]}, f"{field(peer['name'])} {what}")


def peer_rm(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Give up a peer."""
    name = plain(args.words[0])
    count = client.call("PeerRemove", peer=name)["cancelled"]
    text = f"{field(name)} is no peer any more{_cancelled(count)}"
    return _say(screen, form, {"peer": name, "cancelled": count}, text)


def peer_rename(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Another name for a peer."""
    old, new = plain(args.words[0]), plain(args.words[1])
    peer = client.call("PeerRename", peer=old, name=new)["peer"]
    return _say(screen, form, peer, f"{field(old)} is called {field(peer['name'])} now")


def peer_block(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Take nothing from a peer and give it nothing."""
    name = plain(args.words[0])
    answer = client.call("PeerBlock", peer=name)
    what = "is blocked" if answer["changed"] else "was blocked already"
    return _say(screen, form, answer, f"{field(name)} {what}{_cancelled(answer['cancelled'])}")


def peer_unblock(args: Args, screen: Screen, client: Client, form: str) -> int:
    """End a block."""
    name = plain(args.words[0])
    answer = client.call("PeerUnblock", peer=name)
    text = "is not blocked any more" if answer["changed"] else "was not blocked"
    return _say(screen, form, answer, f"{field(name)} {text}")


def identity_show(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Who this node is."""
    answer = client.call("Identity")
    former = "".join(f"\nformerly {each}" for each in answer["former_identities"])
    return _say(screen, form, answer, answer["identity"] + former)


def identity_rotate(args: Args, screen: Screen, client: Client, form: str) -> int:
    """A new key, signed by the old one."""
    answer = client.call("IdentityRotate")
    text = f"{answer['identity']}\nPeers take it by themselves; open invitations and requests have ended."
    return _say(screen, form, answer, text)


def _cancelled(count: int) -> str:
    """What became of the messages that waited for a peer."""
    return f"; {counted(count, 'message')} to it cancelled" if count else ""


def _say(screen: Screen, form: str, value: Json, text: str) -> int:
    if form == "json":
        screen.json(value)
    else:
        screen.write(text + "\n")
    return 0


HANDLERS = {
    "cancel": cancel,
    "retry": retry,
    "reload": reload,
    "peer add": peer_add,
    "peer rm": peer_rm,
    "peer rename": peer_rename,
    "peer block": peer_block,
    "peer unblock": peer_unblock,
    "identity show": identity_show,
    "identity rotate": identity_rotate,
}
