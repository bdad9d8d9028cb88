"""The way from a command line to an exit code.

`verbs` has the whole grammar. `HANDLERS` says who does the work, imported only then: starting is most of what
a plain `send` costs. Every error ends here as one sentence and an exit code (`msgd.errors`); no traceback
reaches a user.
"""

import os
import sys
from _collections_abc import Callable

from msgctl.client import Client
from msgctl.grammar import Args, read
from msgctl.output import BrokenOutput, Screen, complain
from msgctl.places import control_socket
from msgctl.verbs import EVERYWHERE, VERBS
from msgd.errors import UNEXPECTED, MsgdError, UsageError
from msgd.wire.varlink import dump_text

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
Handler = Callable[[Args, Screen, Client, str], int]


def _send(args: Args, screen: Screen, client: Client, form: str) -> int:
    if args.has("reply_to"):
        from msgctl import replying

        replying.put_headers(args, client, args.get("reply_to") or "")
    if args.words[0].startswith("@"):
        from msgctl import groupsend

        return groupsend.run(args, screen, client, form)
    if args.has("quorum"):
        raise UsageError("--quorum counts the members of a group", "msgctl send @GROUP --quorum N TEXT")
    if args.has("lines"):
        from msgctl import lines

        return lines.run(args, screen, client, form)
    from msgctl import send

    return send.run(args, screen, client, form)


def _reply(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import replying

    replying.address(args, client)
    return _send(args, screen, client, form)


def _log(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import log

    return log.run(args, screen, client, form)


def _chat(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import chat

    return chat.run(args, screen, client, form)


def _groups(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import groups

    return groups.HANDLERS[args.path](args, screen, client, form)


def _asking(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import asking

    return asking.HANDLERS[args.path](args, screen, client, form)


def _changing(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import changing

    return changing.HANDLERS[args.path](args, screen, client, form)


def _pairing(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import pairing

    return pairing.HANDLERS[args.path](args, screen, client, form)


def _inviting(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import inviting

    return inviting.HANDLERS[args.path](args, screen, client, form)


def _verify(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import verify

    return verify.run(args, screen, client, form)


def _recover(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import recover

    return recover.run(args, screen, client, form)


def _carrying(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import carrying

    return carrying.HANDLERS[args.path](args, screen, client, form)


def _recv(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import recv

    return recv.run(args, screen, client, form)


def _consumers(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import consumers

    return consumers.HANDLERS[args.path](args, screen, client, form)


def _file(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import file

    return file.HANDLERS[args.path](args, screen, client, form)


def _casts(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import filecast

    return filecast.HANDLERS[args.path](args, screen, client, form)


def _usage(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import usage

    return usage.run(args, screen, client, form)


def _vacuum(args: Args, screen: Screen, client: Client, form: str) -> int:
    from msgctl import vacuum

    return vacuum.run(args, screen, client, form)


HANDLERS: dict[str, Handler] = {
    "send": _send,
    "reply": _reply,
    "log": _log,
    "chat": _chat,
    "show": _asking,
    "why": _asking,
    "queue": _asking,
    "status": _asking,
    "peer ls": _asking,
    "recv": _recv,
    "consumer ls": _consumers,
    "consumer retry": _consumers,
    "consumer rm": _consumers,
    "cancel": _changing,
    "retry": _changing,
    "reload": _changing,
    "peer add": _changing,
    "peer rm": _changing,
    "peer rename": _changing,
    "peer block": _changing,
    "peer unblock": _changing,
    "peer rekey": _pairing,
    "pair ls": _pairing,
    "pair ask": _pairing,
    "pair accept": _pairing,
    "pair reject": _pairing,
    "pair invite": _inviting,
    "pair join": _inviting,
    "group ls": _groups,
    "identity show": _changing,
    "identity rotate": _changing,
    "verify": _verify,
    "recover": _recover,
    "export": _carrying,
    "import": _carrying,
    "vacuum": _vacuum,
    "file ls": _file,
    "file put": _file,
    "file get": _file,
    "file dup": _file,
    "file rm": _file,
    "file cast": _casts,
    "file casts": _casts,
    "file cancel": _casts,
    "disk-usage": _usage,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command line; the exit code."""
    words = sys.argv[1:] if argv is None else argv
    args = Args()
    _occupy_closed()
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


def _occupy_closed() -> None:
    """Of standard input, output and error let what is closed fail when used, and never be our socket."""
    for fd, wrong_way in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, wrong_way)  # the lowest that is free, which is this one


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
