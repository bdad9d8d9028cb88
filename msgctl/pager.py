"""A pager between msgctl and a terminal, as journalctl has it.

`$MSGCTL_PAGER`, else `$PAGER`, else less or more; none where that is empty or `cat`, or the terminal is a
dumb one. less gets journalctl's options FRSXMK: it ends by itself where all fits on the screen, cuts long
lines (arrow keys move sideways), shows colours. A pager that is left early is no error.

Under sudo, pkexec and doas only less is taken, without its commands that run programs or write files: whoever
may read the history as another user may not for that become that user.
"""

import os
import signal
from _collections_abc import Callable, Mapping

from msgctl.output import BrokenOutput

LESS_OPTIONS = "FRSXMK"
DEFAULTS = ("less", "more")
ELEVATED = ("SUDO_UID", "PKEXEC_UID", "DOAS_USER")


def through(env: Mapping[str, str], at_end: bool, work: Callable[[], int]) -> int:
    """Do `work` with standard output going into a pager, and wait for both; what `work` returned.

    `at_end`: less shows the end first. Without a pager it is done as it is.
    """
    process = _start(env, at_end)
    if process is None:
        return work()
    pid, screen = process
    try:
        return work()
    except BrokenOutput:
        return 0
    finally:
        before = signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C is the pager's now, which has the terminal
        os.dup2(screen, 1)  # its input ends with this
        os.close(screen)
        os.waitpid(pid, 0)
        signal.signal(signal.SIGINT, before)


def _start(env: Mapping[str, str], at_end: bool) -> tuple[int, int] | None:
    """The pager's process, whose input is fd 1 then, and what fd 1 was before."""
    for command in _commands(env):
        source, target = os.pipe()
        try:
            pid = os.posix_spawnp(
                command[0],
                command,
                _environment(env, at_end),
                file_actions=[(os.POSIX_SPAWN_DUP2, source, 0)],
                setsigdef=[signal.SIGPIPE],  # Python ignores it, which a program would inherit
            )
        except OSError:
            os.close(target)
            continue
        finally:
            os.close(source)
        screen = os.dup(1)
        os.dup2(target, 1)
        os.close(target)
        return pid, screen
    return None


def _commands(env: Mapping[str, str]) -> list[list[str]]:
    """What to try, in order; nothing: no pager."""
    if env.get("TERM", "dumb") == "dumb":
        return []
    if any(env.get(name) for name in ELEVATED):
        return [["less"]]
    given = env.get("MSGCTL_PAGER", env.get("PAGER"))
    if given is not None:
        words = given.split()
        return [] if not words or words == ["cat"] else [words]
    return [[name] for name in DEFAULTS]


def _environment(env: Mapping[str, str], at_end: bool) -> dict[str, str]:
    options = LESS_OPTIONS + (" +G" if at_end else "")
    secure = {"LESSSECURE": "1"} if any(env.get(name) for name in ELEVATED) else {}
    return {"LESSCHARSET": "utf-8", **env, "LESS": options, **secure}
