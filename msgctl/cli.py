"""msgctl's grammar as data, and the way from a command line to an exit code.

`VERBS` is the whole grammar: what `grammar` reads by, what `help` prints. `HANDLERS` says who does the work,
imported only then: starting is most of what a plain `send` costs. Every error ends here as one sentence
and an exit code (`msgd.errors`); no traceback reaches a user.
"""

import os
import sys
from _collections_abc import Callable

from msgctl.client import Client
from msgctl.grammar import FLAG, Args, Option, Verb, read
from msgctl.output import BrokenOutput, Screen, complain
from msgctl.places import control_socket
from msgd.errors import UNEXPECTED, MsgdError, UsageError
from msgd.wire.varlink import dump_text

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
HISTORY_FORMATS = ("short", "short-iso", "verbose", "json", "json-pretty", "cat")
LINE_FORMATS = ("short", "json")

EVERYWHERE = (
    Option("", "socket", "PATH", "talk to the msgd behind this control socket"),
    Option("", "node", "NAME", "talk to this node of the lab, such as node1"),
    Option("o", "output", "FORMAT", "how to print: {formats}"),
    Option("h", "help", FLAG, "print this and end"),
    Option("", "version", FLAG, "print the version and end"),
)

SEND = (
    Option("l", "lines", FLAG, "send every line of the input as a message of its own"),
    Option("f", "file", "FILE", "take the body (with -l: the lines) from FILE"),
    Option(
        "",
        "wait",
        "LEVEL",
        "succeed only at this level: queued or stored; --wait alone: stored",
        bare="stored",
    ),
    Option("", "timeout", "TIME", "how long to wait for stored (3s)"),
    Option("", "ttl", "TIME", "let the message expire when it cannot go out within this time"),
    Option("", "id", "KEY", "send once: a message of yours to this peer with this KEY is never sent again"),
    Option("H", "header", "NAME=VALUE", "add a header; may be given more than once", many=True),
    Option("q", "quiet", FLAG, "print nothing but errors"),
)
LOG = (
    Option("S", "since", "TIME", "only what was stored here at TIME or later"),
    Option("U", "until", "TIME", "only what was stored here before TIME"),
    Option("f", "follow", FLAG, "go on with what comes; begins with the last 10 where nothing else is said"),
    Option("n", "lines", "N", "only the newest N, or all; -n alone: 10", bare="10", loose=True),
    Option("r", "reverse", FLAG, "newest first"),
    Option(
        "g", "grep", "PATTERN", "only texts with this regular expression; small letters find capitals, too"
    ),
    Option("", "after-cursor", "CURSOR", "only what lies behind this place in the log"),
    Option("", "cursor-file", "FILE", "go on after the place kept in FILE, and keep the new one there"),
    Option("", "show-cursor", FLAG, "print the place of the last message at the end"),
    Option("", "utc", FLAG, "times in UTC"),
    Option("", "peer", "PEER", "only messages to and from this peer"),
    Option("", "direction", "in|out", "only one direction"),
    Option("", "state", "STATE", "only messages in this state"),
    Option("", "kind", "KIND", "only messages of this kind"),
    Option("", "id", "ID", "only the message with this id, or whose id begins so"),
    Option("", "user", "USER", "only messages sent by this user"),
)
UTC = (Option("", "utc", FLAG, "times in UTC"),)
KEY = (Option("", "key", "IDENTITY", "the identity of the peer's key, as `msgctl status` prints it there"),)
KEEP = (Option("", "keep", FLAG, "keep the nodes' directories, with keys and logs, for the next `lab up`"),)

VERBS = (
    Verb("send", "send a message", words=("PEER", "[TEXT]"), options=SEND, formats=LINE_FORMATS),
    Verb("log", "print messages", options=LOG, formats=HISTORY_FORMATS),
    Verb("show", "print one message", words=("ID",), options=UTC, formats=("verbose", *HISTORY_FORMATS)),
    Verb("why", "what happened to a message", words=("ID",), options=UTC, formats=LINE_FORMATS),
    Verb("queue", "what waits, and why", words=("[PEER]",), options=UTC, formats=LINE_FORMATS),
    Verb("cancel", "end a message that did not go out yet", words=("ID",), formats=LINE_FORMATS),
    Verb("retry", "try to reach a peer now", words=("PEER",), formats=LINE_FORMATS),
    Verb(
        "peer",
        "the nodes that this one talks to",
        default="ls",
        subverbs=(
            Verb("ls", "list the peers", options=UTC, formats=LINE_FORMATS),
            Verb(
                "add",
                "pair with a node whose identity is known",
                words=("NAME", "[ADDRESS]"),
                options=KEY,
                formats=LINE_FORMATS,
            ),
            Verb("rm", "give up a peer", words=("PEER",), formats=LINE_FORMATS),
            Verb("rename", "give a peer another name", words=("PEER", "NAME"), formats=LINE_FORMATS),
        ),
    ),
    Verb("status", "this node and its peers", options=UTC, formats=LINE_FORMATS),
    Verb("reload", "read the configuration again", formats=LINE_FORMATS),
    Verb(
        "lab",
        "nodes on this machine, to try things",
        default="ls",
        subverbs=(
            Verb("up", "start nodes and pair them", words=("N",), formats=LINE_FORMATS),
            Verb("ls", "list the nodes", formats=LINE_FORMATS),
            Verb("down", "stop the nodes and remove them", options=KEEP, formats=LINE_FORMATS),
        ),
    ),
)

Handler = Callable[[Args, Screen, Client, str], int]


def _send(args: Args, screen: Screen, client: Client, form: str) -> int:
    if args.has("lines"):
        from msgctl import lines

        return lines.run(args, screen, client, form)
    from msgctl import send

    return send.run(args, screen, client, form)


def _log(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import log

    return log.run(args, screen, client, form)


def _asking(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import asking

    table: dict[str, Handler] = {
        "show": asking.show,
        "why": asking.why,
        "queue": asking.queue,
        "status": asking.status,
        "peer ls": asking.peer_ls,
    }
    return table[args.path](args, screen, client, form)


def _changing(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import changing

    table: dict[str, Handler] = {
        "cancel": changing.cancel,
        "retry": changing.retry,
        "reload": changing.reload,
        "peer add": changing.peer_add,
        "peer rm": changing.peer_rm,
        "peer rename": changing.peer_rename,
    }
    return table[args.path](args, screen, client, form)


HANDLERS: dict[str, Handler] = {
    "send": _send,
    "log": _log,
    "show": _asking,
    "why": _asking,
    "queue": _asking,
    "status": _asking,
    "peer ls": _asking,
    "cancel": _changing,
    "retry": _changing,
    "reload": _changing,
    "peer add": _changing,
    "peer rm": _changing,
    "peer rename": _changing,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command line; the exit code."""
    words = sys.argv[1:] if argv is None else argv
    args = Args()
    try:
        return _run(words, args)
    except BrokenOutput:
        return 0  # nobody reads any more: no failure of ours
    except MsgdError as exc:
        _tell(exc, words, args)
        return exc.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as exc:
        if os.environ.get("MSGD_DEBUG"):
            raise
        _tell(_unexpected(exc), words, args)
        return UNEXPECTED


def _run(words: list[str], args: Args) -> int:
    read(words, VERBS, EVERYWHERE, args)
    if args.has("version"):
        return _version()
    if args.has("help") or args.verb is None:
        return _help(args)
    form = _format(args)
    screen = Screen(os.environ, utc=args.has("utc"))
    if args.path.startswith("lab "):
        from msgctl import lab

        return lab.HANDLERS[args.path](args, screen, form)
    with Client(control_socket(args.get("socket"), args.get("node"), os.environ)) as client:
        return HANDLERS[args.path](args, screen, client, form)


def _format(args: Args) -> str:
    assert args.verb is not None
    formats = args.verb.formats
    form = args.get("output") or formats[0]
    if form not in formats:
        raise UsageError(f"{args.path} has no format {form!r}", f"it has {', '.join(dict.fromkeys(formats))}")
    return form


def _version() -> int:
    from msgd import __version__

    Screen(os.environ).write(f"msgctl {__version__}\n")
    return 0


def _help(args: Args) -> int:
    from msgctl import help

    text = help.text(args.path, args.verb, VERBS, EVERYWHERE)
    if args.has("help"):
        Screen(os.environ).write(text)
        return 0
    raise UsageError("say what to do", "`msgctl --help` lists the verbs")


def _unexpected(exc: Exception) -> MsgdError:
    return MsgdError(
        f"msgctl failed: {type(exc).__name__}: {exc}", "this is a mistake in msgctl; MSGD_DEBUG=1 shows where"
    )


def _tell(exc: MsgdError, words: list[str], args: Args) -> None:
    """An error as one sentence and its hint, or as one JSON object where JSON was asked for."""
    if _wants_json(words, args):
        complain(dump_text({"code": exc.code, "error": exc.message, "hint": exc.hint}) + "\n")
        return
    hint = f"\n  {exc.hint}" if exc.hint else ""
    complain(f"msgctl: {exc.message}{hint}\n")


def _wants_json(words: list[str], args: Args) -> bool:
    """Also where the words could not be read to their end."""
    if args.has("output"):
        return (args.get("output") or "").startswith("json")
    joined = "\0".join(words)
    return any(mark in joined for mark in ("-ojson", "-o\0json", "--output=json", "--output\0json"))
