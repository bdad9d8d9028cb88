"""`msgctl pair ls|ask|accept|reject` and `peer rekey`: two persons compare words, each says yes.

On a terminal the words are shown and a question is asked; elsewhere the request is printed, and the command
that decides.
"""

from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen, complain, field, span
from msgctl.questions import can_ask, choose, line, paragraph
from msgctl.send import plain
from msgctl.tables import show
from msgctl.timespec import option_ms
from msgd import errors
from msgd.wire.varlink import Json

QUESTION = "  Same words on both screens?  [y] pair  [n] reject  [Enter] decide later: "
REKEY = "  Same words on both screens?  [y] take the new key  [n] reject  [Enter] decide later: "
ANSWER_MS = 20_000  # as long as the daemon's own ASK_MS


def ls(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Who asks, and who was asked; on a terminal each is decided."""
    requests = client.call("Pairs")["requests"]
    if form == "json":
        for one in requests:
            screen.json(one)
    elif not requests:
        screen.write("no requests\n")
        complain(
            "  To ask: msgctl pair ask ADDRESS, or simply send to it. Without questions: msgctl pair invite\n"
        )
    elif can_ask():
        for one in requests:
            _decide(screen, client, one)
    else:
        _table(screen, requests)
    return 0


def _table(screen: Screen, requests: list[Json]) -> None:
    rows = [
        [
            field(one["name"]),
            field(one["address"] or "-"),
            field(one["words"]),
            "we" if one["is_ours"] else "they",
            span(one["expires_in_s"]),
            _state(one),
        ]
        for one in requests
    ]
    show(screen, ("NODE", "ADDRESS", "WORDS", "ASKED BY", "ENDS IN", "STATE"), rows)


def _state(request: Json) -> str:
    if request["theirs"] == "rejected":
        return "rejected there, may be asked again in an hour"
    if request["accepted"]:
        return "waits for the yes there"
    if request["conflict"]:
        return f"its name is that of another peer: {field(request['conflict'])}"
    return "accepting replaces the key" if request["rekey"] else "waits for a yes here"


def _decide(screen: Screen, client: Client, request: Json, name: str | None = None) -> None:
    """Show one request, and do what is answered."""
    complain(_told(screen, request))
    if request["accepted"] or request["theirs"] == "rejected":
        complain(f"  {_state(request)}\n")
        return
    match choose(REKEY if request["rekey"] else QUESTION, "yn"):
        case "y":
            if request["conflict"] and not name:
                name = line("  Another name for this one: ") or None
            _accept(screen, client, request, name)
        case "n":
            client.call("PairReject", node=request["identity"])
            screen.write(f"{field(request['name'])} is rejected\n")
        case _:
            complain(f"  Later: msgctl pair accept {field(request['name'])}\n")


def _told(screen: Screen, request: Json) -> str:
    name, address = field(request["name"]), field(request["address"] or "?")
    what = f"This node has asked {name} at {address}" if request["is_ours"] else f"{name} at {address} asks"
    about = f"to replace the key of {field(request['peer'])}" if request["rekey"] else "to become peers"
    text = f"{what} {about}. The request ends in {span(request['expires_in_s'])}."
    if request["conflict"]:
        conflict = field(request["conflict"])
        text += (
            f" {conflict} is a peer already, with another key. If this is the same machine: "
            f"msgctl peer rekey {conflict}"
        )
    words = screen.paint("bold", field(request["words"]))
    return paragraph(text, indent="") + f"  Compare the words:  {words}\n"


def _accept(screen: Screen, client: Client, request: Json, name: str | None) -> None:
    answer = client.call("PairAccept", node=request["identity"], words=request["words"], name=name)
    screen.write(_accepted(answer) + "\n")


def _accepted(answer: Json) -> str:
    name = field(answer["peer"]["name"])
    if answer["complete"]:
        return f"{name} is a peer now"
    return f"{name} is accepted here; it waits for the yes there (msgctl pair)"


def ask(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Ask a node to compare words; 4 where none are known."""
    return _meet("PairAsk", args, screen, client, form)


def rekey(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Compare words with whoever answers in place of a peer."""
    return _meet("PeerRekey", args, screen, client, form)


def _meet(method: str, args: Args, screen: Screen, client: Client, form: str) -> int:
    ms, peer = answer_ms(args), plain(args.words[0])
    answer = client.call(method, timeout_s=ms / 1000 + client.timeout_s, peer=peer, timeout_ms=ms)
    request = answer.get("request")
    if form == "json":
        screen.json({**answer, "next": _next(request) if request else answer["peer"].get("next")})
    elif request is None:
        _no_words(screen, answer)
    elif can_ask():
        complain("  Run there:          msgctl pair\n")
        _decide(screen, client, request)
    else:
        screen.write(_told(screen, request) + f"  here:  {_next(request)}\n  there: msgctl pair\n")
    return errors.OK if request or not answer["peer"].get("hold") else errors.NOT_TRUSTED


def _no_words(screen: Screen, answer: Json) -> None:
    peer = answer["peer"]
    if not peer.get("hold"):
        screen.write(f"{field(answer['reason'])}\n")
        return
    screen.write(f"No words with {field(peer['name'])}: {field(answer['reason'])}\n")
    if peer.get("next"):
        complain(f"  here:  {field(peer['next'])}\n")


def answer_ms(args: Args) -> int:
    """How long to wait for the other side: --timeout."""
    given = option_ms(args.get("timeout"), "timeout", "0s", "1d")
    return ANSWER_MS if given is None else given


def _next(request: Json) -> str:
    return f"msgctl pair accept {field(request['name'])}"


def accept(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Say yes. On a terminal the words are shown first, unless they are given."""
    node, words, name = plain(args.words[0]), args.get("words"), args.get("name")
    if words is None and form != "json" and can_ask():
        meant = [one for one in client.call("Pairs")["requests"] if _is_meant(one, node)]
        if len(meant) == 1:
            _decide(screen, client, meant[0], name)
            return errors.OK
    answer = client.call("PairAccept", node=node, words=words, name=name)
    if form == "json":
        screen.json(answer)
    else:
        screen.write(f"{_accepted(answer)}; words: {field(answer['words'])}\n")
    return errors.OK


def _is_meant(request: Json, node: str) -> bool:
    address = request["address"] or ""
    return node in (
        request["name"],
        request["peer"],
        address,
        address.rpartition(":")[0],
        request["identity"],
    )


def reject(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Say no."""
    answer = client.call("PairReject", node=plain(args.words[0]))
    if form == "json":
        screen.json(answer)
    else:
        screen.write(f"{field(answer['name'])} is rejected; it may ask again in an hour\n")
    return errors.OK


HANDLERS = {
    "pair ls": ls,
    "pair ask": ask,
    "pair accept": accept,
    "pair reject": reject,
    "peer rekey": rekey,
}
