"""Whether the installed msgd.service may run what a hook wants."""

import os

from msgd import capabilities
from msgd.config import Hook
from msgd.errors import ConfigError
from msgd.runnable import permit, programs
from msgd.unit import Unit, above


def forbidden(unit: Unit, hook: Hook) -> ConfigError | None:
    """Why the service may not run this hook; None: it may."""
    for path in programs(hook.command[0]):
        if not _may_execute(unit, path):
            return ConfigError(f"msgd.service may not execute {path} (NoExecPaths= of its unit)", permit())
    if hook.user in (None, unit.user or "root"):
        return None
    missing = {capabilities.NAMES[number] for number in capabilities.AS_USER} - unit.capabilities
    if missing:
        names = ", ".join(sorted(missing))
        return ConfigError(
            f"msgd.service may not run it as {hook.user} (its unit gives no {names})", permit()
        )
    return None


def _may_execute(unit: Unit, path: str) -> bool:
    """The longest path of both lists decides, as systemd mounts them over one another."""
    real = os.path.realpath(path)
    allowed, denied = (max(map(len, above(real, paths)), default=0) for paths in unit[1:3])
    return allowed >= denied
