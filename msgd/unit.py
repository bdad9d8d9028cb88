"""The unit msgd.service as it is installed: systemd is asked, for `msgd --check-config`."""

import os
import subprocess
from typing import NamedTuple

ANSWER_S = 10.0
STRICT = "strict"  # of ProtectSystem=: nothing may be written that no other setting names
STATE = "/var/lib/"  # of StateDirectory=
PROPERTIES = (
    "LoadState", "User", "ExecPaths", "NoExecPaths", "AmbientCapabilities", "CapabilityBoundingSet",
    "ProtectSystem", "ReadWritePaths", "StateDirectory",
)  # fmt: skip


class Unit(NamedTuple):
    """What the service's unit says, of systemd.exec(5). Paths are real ones."""

    user: str  # empty: root
    permitted: tuple[str, ...]  # ExecPaths=
    forbidden: tuple[str, ...]  # NoExecPaths=
    capabilities: frozenset[str]  # of its processes
    writable: tuple[str, ...] = ("/",)  # where it may write, as far as the unit decides that


def installed() -> Unit | None:
    """The unit as systemd knows it now; None where there is none, or no systemd."""
    command = ["systemctl", "show", "msgd.service", *(f"--property={name}" for name in PROPERTIES)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return parse(found) if found.get("LoadState") == "loaded" else None


def parse(found: dict[str, str]) -> Unit:
    """The unit with these properties, as `systemctl show` tells them."""
    user = found.get("User", "")
    has = "AmbientCapabilities" if user not in ("", "root") else "CapabilityBoundingSet"
    state = " ".join(STATE + name for name in found.get("StateDirectory", "").split())
    is_strict = found.get("ProtectSystem") == STRICT
    return Unit(
        user,
        _paths(found.get("ExecPaths", "")),
        _paths(found.get("NoExecPaths", "")),
        frozenset(found.get(has, "").lower().split()),
        _paths(f"{state} {found.get('ReadWritePaths', '')}") if is_strict else ("/",),
    )


def above(path: str, places: tuple[str, ...]) -> list[str]:
    """Those of the places in which this path lies."""
    return [place for place in places if place == "/" or path == place or path.startswith(f"{place}/")]


def _paths(text: str) -> tuple[str, ...]:
    return tuple(os.path.realpath(word.lstrip("-+")) for word in text.split())
