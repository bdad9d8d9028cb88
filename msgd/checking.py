"""What `msgd --check-config` tries beyond the file itself: hooks and the store, here and as the service.

A daemon that runs meets the same later: a hook is then told and tried again, a store refuses what is asked.
"""

import os
import pwd

from msgd import unit
from msgd.config import Config
from msgd.errors import ConfigError
from msgd.permitting import forbidden
from msgd.runnable import refusal
from msgd.unit import Unit

DROP_IN = "/etc/systemd/system/msgd.service.d/store.conf"
OTHERS = 0o022  # who else may write, of a mode


def check(config: Config, is_service: bool) -> None:
    """Raises ConfigError for the first hook that cannot be run, and a store that cannot be used."""
    is_asked = is_service and (config.hook or config.files.store)
    installed = unit.installed() if is_asked else None
    for name, hook in config.hook.items():
        found = refusal(hook) or (installed and forbidden(installed, hook))
        if found:
            raise ConfigError(f"Hook {name} would not run: {found.message}.", found.hint)
    if config.files.store:
        check_store(config.files.store, installed)


def check_store(store: str, installed: Unit | None) -> None:
    """Raises ConfigError where msgd could not write there, as far as that can be seen from outside."""
    if os.path.lexists(store) and not os.path.isdir(store):
        hint = "Name a directory, or what is to be one."
        raise ConfigError(f"[files] store {store} is no directory.", hint)
    if installed is not None:
        _check_service(store, installed)


def _check_service(store: str, installed: Unit) -> None:
    user, real = installed.user or "root", os.path.realpath(store)
    make = f"`install -d -o {user} -m 0700 {store}`"
    if not unit.above(real, installed.writable):
        raise ConfigError(
            f"[files] store {store}: msgd.service may not write there (ProtectSystem=strict of its unit).",
            f'As root: {make}; "[Service]" and "ReadWritePaths={real}" as two lines in {DROP_IN};'
            " `systemctl daemon-reload`, `systemctl restart msgd`.",
        )
    try:
        uid = pwd.getpwnam(user).pw_uid
        if os.path.isdir(store):
            is_usable, why = os.stat(store).st_uid == uid, f"is not {user}'s own"
        else:
            above = os.stat(_nearest(store))
            is_usable, why = above.st_uid == uid or bool(above.st_mode & OTHERS), "is not there"
    except (OSError, KeyError):
        return  # it is hidden from us
    if uid and not is_usable:
        raise ConfigError(f"[files] store {store} {why}.", f"As root: {make}.")


def _nearest(path: str) -> str:
    """What there is of the way to it."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path
