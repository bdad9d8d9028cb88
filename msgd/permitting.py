"""Whether the installed msgd.service may run what hooks want: systemd is asked, for `msgd --check-config`."""

import os
import subprocess
from typing import NamedTuple

from msgd import capabilities
from msgd.config import Config, Hook
from msgd.errors import ConfigError
from msgd.runnable import permit, programs, refusal

ANSWER_S = 10.0
PROPERTIES = ("LoadState", "User", "ExecPaths", "NoExecPaths", "AmbientCapabilities", "CapabilityBoundingSet")


class Unit(NamedTuple):
    """What the service's unit says."""

    user: str  # empty: root
    permitted: tuple[str, ...]  # paths, ExecPaths=
    forbidden: tuple[str, ...]  # NoExecPaths=
    capabilities: frozenset[str]  # of its processes


def check(config: Config, is_service: bool) -> None:
    """Raises ConfigError for the first hook that cannot be run, here or by the service."""
    unit = installed() if is_service and config.hook else None
    for name, hook in config.hook.items():
        found = refusal(hook) or (unit and forbidden(unit, hook))
        if found:
            raise ConfigError(f"Hook {name} would not run: {found.message}.", found.hint)


def installed() -> Unit | None:
    """The unit as systemd knows it now; None where there is none, or no systemd."""
    command = ["systemctl", "show", "msgd.service", *(f"--property={name}" for name in PROPERTIES)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return _unit(found) if found.get("LoadState") == "loaded" else None


def _unit(found: dict[str, str]) -> Unit:
    user = found.get("User", "")
    has = "AmbientCapabilities" if user not in ("", "root") else "CapabilityBoundingSet"
    return Unit(
        user,
        _paths(found.get("ExecPaths", "")),
        _paths(found.get("NoExecPaths", "")),
        frozenset(found.get(has, "").lower().split()),
    )


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
    allowed, denied = (max(map(len, _above(real, paths)), default=0) for paths in unit[1:3])
    return allowed >= denied


def _above(path: str, places: tuple[str, ...]) -> list[str]:
    return [place for place in places if place == "/" or path == place or path.startswith(f"{place}/")]


def _paths(text: str) -> tuple[str, ...]:
    return tuple(os.path.realpath(word.lstrip("-+")) for word in text.split())
