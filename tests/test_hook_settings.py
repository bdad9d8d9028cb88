"""[hook.NAME]: what may stand there, and what the error says where it is wrong."""

from pathlib import Path

import pytest

from msgd.amounts import Duration
from msgd.config import Hook, load
from msgd.errors import ConfigError


def hooks(tmp_path: Path, text: str) -> dict[str, Hook]:
    file = tmp_path / "msgd.toml"
    file.write_text(text)
    return load(str(file), {}, 0).hook


def test_a_hook_needs_no_more_than_its_command(tmp_path: Path) -> None:
    """The rest has defaults: every peer, msgd's own user, a minute, tried for ever, from the oldest on."""
    found = hooks(tmp_path, '[hook.print]\ncommand = ["/usr/bin/lpr", "-P", "lp 1"]\n')
    minute = Duration("60s", 60_000_000_000)
    expected = Hook(
        command=("/usr/bin/lpr", "-P", "lp 1"),
        peer=None,
        kind=None,
        user=None,
        timeout=minute,
        max_attempts=None,
        start="oldest",
    )
    assert {"print": expected} == found


def test_everything_about_a_hook_may_be_said(tmp_path: Path) -> None:
    """Each key arrives."""
    (hook,) = hooks(
        tmp_path,
        '[hook.a-1]\ncommand = ["/bin/true"]\npeer = "node3"\nkind = "ring"\nuser = "eva"\n'
        'timeout = "2h"\nmax_attempts = 3\nstart = "now"\n',
    ).values()
    assert ("node3", "ring", "eva", 3, "now") == (
        hook.peer,
        hook.kind,
        hook.user,
        hook.max_attempts,
        hook.start,
    )
    assert hook.timeout.ns == 7200 * 10**9


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", r"hook\.x\.command is \[\]; expected a program by its whole path"),
        ('command = "/bin/true -x"', r"hook\.x\.command is .* expected a list"),
        ('command = ["true"]', r'hook\.x\.command is \["true"\]; expected a program by its whole path'),
        ('command = ["/bin/echo", "a\\u0000b"]', r"hook\.x\.command is .*; expected a program"),
        ('command = ["/bin/true"]\npeer = "No Name"', r"hook\.x\.peer is .* expected the name of a peer"),
        ('command = ["/bin/true"]\nkind = "control"', r'hook\.x\.kind is "control"; expected "text"'),
        ('command = ["/bin/true"]\nuser = ""', r'hook\.x\.user is ""; expected a user'),
        ('command = ["/bin/true"]\ntimeout = "soon"', r"hook\.x\.timeout is .* expected how long one run"),
        ('command = ["/bin/true"]\nmax_attempts = 0', r"hook\.x\.max_attempts is 0; expected a whole number"),
        (
            'command = ["/bin/true"]\nstart = "later"',
            r'hook\.x\.start is "later"; expected "oldest" or "now"',
        ),
        ('command = ["/bin/true"]\nusr = "eva"', r"unknown key hook\.x\.usr; did you mean hook\.x\.user"),
    ],
)
def test_a_wrong_hook_is_told_with_its_key(tmp_path: Path, lines: str, said: str) -> None:
    """File, key, what was read, what was expected."""
    with pytest.raises(ConfigError, match=said):
        hooks(tmp_path, f"[hook.x]\n{lines}\n")


def test_a_hook_has_a_name_that_a_consumer_can_have(tmp_path: Path) -> None:
    """hook-NAME is the name of its consumer."""
    assert hooks(tmp_path, f'[hook.{"a" * 58}]\ncommand = ["/bin/true"]\n')
    with pytest.raises(ConfigError, match="is no name; expected 1 to 58 of a-z"):
        hooks(tmp_path, f'[hook.{"a" * 59}]\ncommand = ["/bin/true"]\n')
