"""Whether a hook can be run: by this process, and by the service as systemd knows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msgd import capabilities, checking, runnable, unit
from msgd.config import Config, Hook
from msgd.errors import ConfigError
from msgd.permitting import forbidden
from msgd.unit import Unit
from tests.forked import in_child
from tests.require import REPOSITORY, require

SHIPPED = Unit("msgd", ("/opt/msgd", "/usr/lib"), ("/",), frozenset())
PERMITTED = Unit("msgd", ("/opt/msgd", "/usr"), ("/",), frozenset(("cap_setuid", "cap_setgid", "cap_kill")))


def why(command: str, user: str | None = None) -> str:
    found = runnable.refusal(Hook(command=(command,), user=user))
    return "" if found is None else found.message


def test_what_can_be_run_is_not_refused() -> None:
    assert "" == why("/bin/true")


def test_what_cannot_be_run_is_told_with_its_reason(tmp_path: Path) -> None:
    """Not there, no file, not executable; of a script also its interpreter."""
    script = tmp_path / "script"
    assert f"its command {script} is not there" == why(str(script))
    assert f"its command {tmp_path} is no file" == why(str(tmp_path))
    script.write_text("#! /nonexistent/python -u\n")
    assert f"its command {script} is not executable for msgd's user" == why(str(script))
    script.chmod(0o755)
    assert "its command /nonexistent/python is not there" == why(str(script))
    assert "there is no user 'nobody-at-all'" == why("/bin/true", "nobody-at-all")


def test_another_user_needs_rights() -> None:
    """Root has them; who is not root is told what is missing."""
    require("root")
    assert "" == why("/bin/true", "nobody")

    def as_nobody() -> str:
        os.setuid(65534)
        return why("/bin/true", "daemon") + "; " + why("/bin/true", "nobody")

    needed = "cap_setuid, cap_setgid, cap_kill"
    expected = f"msgd may not run a command as daemon: that needs root, or {needed}; "
    assert expected == in_child(as_nobody)


@pytest.mark.parametrize(
    ("unit", "command", "user", "expected"),
    [
        (SHIPPED, "/bin/sh", None, "may not execute /bin/sh (NoExecPaths= of its unit)"),
        (SHIPPED, "/usr/lib/x/y", None, ""),
        (SHIPPED, "/usr/library", None, "may not execute /usr/library"),
        (PERMITTED, "/bin/sh", None, ""),
        (PERMITTED, "/bin/sh", "msgd", ""),
        (PERMITTED, "/bin/sh", "nobody", ""),
        (PERMITTED, "/var/lib/msgd/x", None, "may not execute /var/lib/msgd/x"),
        (
            PERMITTED._replace(capabilities=frozenset()),
            "/bin/sh",
            "nobody",
            "gives no cap_kill, cap_setgid, cap_",
        ),
        (Unit("", (), (), frozenset()), "/bin/sh", None, ""),
        (Unit("", (), (), frozenset()), "/bin/sh", "root", ""),
    ],
)
def test_the_unit_decides_by_its_paths_and_capabilities(
    unit: Unit, command: str, user: str | None, expected: str
) -> None:
    """The longest path of both lists counts, behind symbolic links."""
    found = forbidden(unit, Hook(command=(command,), user=user))
    assert expected in (found.message if found else "")
    assert bool(expected) == bool(found)


def test_check_config_names_the_hook_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of the unit only where the service's own configuration is checked."""
    hooks = {"print": Hook(command=("/bin/sh",))}
    config = Config(name="a", state="/s", socket="/c", hook=hooks)
    monkeypatch.setattr(unit, "installed", lambda: SHIPPED)
    checking.check(config, is_service=False)
    with pytest.raises(
        ConfigError, match=r"Hook print would not run: msgd.service may not execute"
    ) as caught:
        checking.check(config, is_service=True)
    assert "msgd-exec.conf" in caught.value.hint


@pytest.mark.parametrize(
    ("more", "writable"),
    [
        ({}, ("/",)),
        ({"ProtectSystem": "full"}, ("/",)),
        ({"ProtectSystem": "strict", "StateDirectory": "msgd other"}, ("/var/lib/msgd", "/var/lib/other")),
        (
            {"ProtectSystem": "strict", "StateDirectory": "msgd", "ReadWritePaths": "-/srv/x /mnt"},
            ("/var/lib/msgd", "/srv/x", "/mnt"),
        ),
    ],
)
def test_the_unit_says_where_it_may_write(more: dict[str, str], writable: tuple[str, ...]) -> None:
    """As `systemctl show` tells it."""
    assert writable == unit.parse({"User": "msgd", **more}).writable


def test_check_config_tries_the_store(tmp_path: Path) -> None:
    """Where the unit lets it write, to whom it belongs, whether it is or can be made."""
    require("root")
    service = SHIPPED._replace(user="daemon", writable=(str(tmp_path / "may"),))

    def fault(name: str, unit: Unit | None = service) -> str:
        try:
            checking.check_store(str(tmp_path / name), unit)
        except ConfigError as error:
            assert error.hint
            return error.message.removeprefix(f"[files] store {tmp_path}/{name}")
        return ""

    for name in ("may/roots", "may/own", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "may/file").write_text("")
    shutil.chown(tmp_path / "may/own", "daemon")
    assert " is no directory." == fault("may/file") == fault("may/file", None)
    assert "" == fault("elsewhere", None)
    no_right = ": msgd.service may not write there (ProtectSystem=strict of its unit)."
    assert no_right == fault("elsewhere") == fault("may/../elsewhere")
    assert " is not daemon's own." == fault("may/roots")
    assert " is not there." == fault("may/roots/new/er")
    assert "" == fault("may/own") == fault("may/own/new/er")


@pytest.mark.slow
def test_the_daemon_checks_hooks_before_it_runs(tmp_path: Path) -> None:
    """`msgd --check-config`: exit code 78 and a sentence."""
    file = tmp_path / "msgd.toml"
    file.write_text('[hook.x]\ncommand = ["/nonexistent"]\n')
    command = [sys.executable, "-m", "msgd", "--check-config", "--config", str(file)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (78, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("msgd: Hook x would not run: its command /nonexistent is not there.\n")


def test_capabilities_can_be_given_up() -> None:
    """All of them, for good; root keeps its own."""
    require("root")

    def body() -> tuple[bool, bool]:
        capabilities.give_up()
        kept = capabilities.SETUID in capabilities.effective()
        keep_over_setuid()
        os.setresuid(65534, 65534, 65534)
        before = bool(capabilities.effective())
        capabilities.give_up()
        return kept and before, bool(capabilities.effective())

    assert (True, False) == in_child(body)


def keep_over_setuid() -> None:
    """As a unit with AmbientCapabilities= would have it."""
    import ctypes

    libc = ctypes.CDLL(None)
    set_securebits, no_setuid_fixup = 28, 1 << 2  # linux/prctl.h, linux/securebits.h
    assert libc.prctl(set_securebits, no_setuid_fixup, 0, 0, 0) == 0
