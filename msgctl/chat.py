"""`msgctl chat`: both sides write at any time.

On a terminal it is for a person (`chat_person`), elsewhere for scripts, lines in and lines out
(`chat_script`). The parts: `chat_wire` speaks to msgd, `chat_flow` keeps the traffic going, `chat_talk` knows
what became of each line, `chat_show` what a line looks like, `chat_screen` has the terminal. prompt_toolkit
and asyncio are imported only here and there.
"""

import os

from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen
from msgctl.send import plain
from msgctl.timespec import duration_ms
from msgd.errors import UsageError

HISTORY = 10  # messages at the start, for a person
MAX_HISTORY = 999_999
LEAVE_S = 3.0  # at the end, as a send
SCRIPT_LEAVE_S = 30.0


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Talk until one end leaves; the exit code."""
    import asyncio

    from msgctl.chat_talk import Talk

    peer, history = plain(args.words[0]), _history(args)
    timeout = args.get("timeout")
    timeout_s = None if timeout is None else duration_ms(timeout) / 1000
    is_person = screen.terminal and os.isatty(0) and not args.has("output") and _draws()
    talk = Talk(_user(), client.call("Identity")["name"], adopts=is_person)
    client.close()
    if is_person:
        from msgctl.chat_person import Person

        leave_s = LEAVE_S if timeout_s is None else timeout_s
        lines = HISTORY if history is None else history

        async def person() -> int:
            return await Person(screen, client.path, talk, peer, lines, leave_s).run()

        return asyncio.run(person())
    from msgctl import chat_script

    leave_s = SCRIPT_LEAVE_S if timeout_s is None else timeout_s
    return chat_script.run(screen, client.path, talk, peer, form, history or 0, leave_s)


def _history(args: Args) -> int | None:
    given = args.get("lines")
    if given is None:
        return None
    if not given.isdecimal():
        raise UsageError(f"-n {given}: expected a number of messages")
    digits = given.lstrip("0") or "0"
    if len(digits) > len(str(MAX_HISTORY)):
        raise UsageError(f"-n {given}: at most {MAX_HISTORY} messages", "`msgctl log` shows all of them")
    return int(digits)


def _draws() -> bool:
    """Whether the terminal can move its cursor."""
    return os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def _user() -> str:
    import pwd

    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
