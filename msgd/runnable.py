"""Whether this process can run a hook's command, and if not, why.

What depends on the rights of another user (`user`) is found out when the command is run.
"""

import os
import pwd
import sys

from msgd import capabilities
from msgd.config import Hook
from msgd.errors import ConfigError

DROP_IN = "msgd-exec.conf"
READ_BYTES = 256  # of a script's first line, as execve(2) reads it


def refusal(hook: Hook) -> ConfigError | None:
    """Why it cannot be run, and what to do; None: nothing is known against it."""
    as_other = hook.user is not None and hook.user != own_name()
    for path in programs(hook.command[0]):
        why = _why_not(path, as_other)
        if why:
            return ConfigError(f"its command {path} {why[0]}", why[1])
    return _user_refusal(hook.user) if hook.user is not None and as_other else None


def programs(path: str) -> list[str]:
    """What is executed with this program: itself and, of a script, its interpreter."""
    try:
        with open(path, "rb") as stream:
            first = stream.readline(READ_BYTES)
    except OSError:
        return [path]
    words = first[2:].split() if first.startswith(b"#!") else []
    return [path, os.fsdecode(words[0])] if words else [path]


def own_name() -> str | None:
    """The name of this process's user."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def drop_in() -> str:
    """Where the drop-in lies that permits hooks to the service."""
    installed = os.path.join(sys.prefix, "share", DROP_IN)
    return installed if os.path.exists(installed) else f"packaging/{DROP_IN}"


def permit() -> str:
    """What a person does about a unit that forbids it."""
    to = f"/etc/systemd/system/msgd.service.d/{DROP_IN}"
    copy = f"install -D -m 0644 {drop_in()} {to}"
    return f"As root: `{copy}`, `systemctl daemon-reload`, `systemctl restart msgd`."


def _why_not(path: str, as_other: bool) -> tuple[str, str] | None:
    """What is wrong with a program, and what to do."""
    try:
        is_file = os.path.isfile(path)
        if not is_file and not os.path.lexists(path):
            return "is not there", "Correct `command`, or install it."
        if os.statvfs(path).f_flag & os.ST_NOEXEC:
            return "may not be executed by this service", permit()
        if not is_file:
            return "is no file", "Name the program itself in `command`."
        if not as_other and not os.access(path, os.X_OK):
            return "is not executable for msgd's user", f"`chmod a+x {path}`, or have another `command`."
    except OSError as error:
        return f"cannot be looked at: {error.strerror}", "Make its directories readable for msgd's user."
    return None


def _user_refusal(user: str) -> ConfigError | None:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return ConfigError(f"there is no user {user!r}", "Correct `user`, or make that user.")
    if os.geteuid() == 0 or capabilities.effective().issuperset(capabilities.AS_USER):
        return None
    needed = ", ".join(capabilities.NAMES[number] for number in capabilities.AS_USER)
    text = f"msgd may not run a command as {user}: that needs root, or {needed}"
    hint = permit() if os.environ.get("INVOCATION_ID") else "Leave `user` out, or start msgd as root."
    return ConfigError(text, hint)
