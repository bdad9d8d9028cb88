"""msgctl's letters are journalctl's: both print the same of one history.

The history of a real node goes through `-o export` into a journal file, made by systemd-journal-remote; then
`journalctl --file` and `msgctl log` are asked alike. Where the letters differ on purpose:

- `-n` with `-S` or `-U`, or with `-g`: the newest N that fit, oldest first, as journalctl documents `-n`.
  Version 252 itself prints the first N from `-S` on, nothing with `-U`, and turns the order with `-g`.
- `-r` behind a cursor stays behind it; journalctl goes back from it.
- The cursor behind `-U` is that of the last message shown; in 252 it is the next one's, which is then lost.
- Nothing found is 0 here, also with `-g`, and no line in a pipe.
- `-e` and `-f` imply `-b` in journalctl, which files like this one have not: their defaults are tested by the
  parameters that they become (`test_msgctl_log`).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import Node, Nodes, wait_for
from tests.require import JOURNAL_REMOTE, REPOSITORY, require
from tests.test_msgctl_formats import entries

BODIES = (
    b"alpha one", b"Beta two", b"gamma\nline two", b"alpha three", b"\x1b[31mred", "é wide 日本".encode(),
    b"\xff\x00binary", b"Alpha last but one", b"tab\tand = sign", b"the end of alpha",
)  # fmt: skip


class Both:
    """One history, asked by msgctl and by journalctl."""

    def __init__(self, node: Node, directory: Path) -> None:
        self.node = node
        self.directory = directory
        self.file = directory / "history.journal"
        self.stored_us = [one["stored_at_ns"] // 1000 for one in node.query("log")]

    def msgctl(self, *words: str) -> bytes:
        return msgctl(self.node, "log", "-o", "cat", *words)  # the last -o counts

    def journalctl(self, *words: str) -> bytes:
        command = ["journalctl", f"--file={self.file}", "--no-pager", "-o", "cat", *words]
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
        return done.stdout.replace(b"-- No entries --\n", b"")

    def same(self, *words: str) -> bytes:
        """What both print."""
        expected = self.journalctl(*words)
        assert expected == self.msgctl(*words), words
        return expected

    def before(self, place: int) -> str:
        """A point in time right before a message."""
        us = self.stored_us[place] - 1
        return f"@{us // 1_000_000}.{us % 1_000_000:06d}"


def msgctl(node: Node, *words: str, stdin: bytes = b"") -> bytes:
    """What msgctl prints, in bytes."""
    command = [sys.executable, "-m", "msgctl", "--socket", os.fspath(node.socket), *words]
    done = subprocess.run(command, cwd=REPOSITORY, input=stdin, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    require("journal files")
    directory = tmp_path_factory.mktemp("journal")
    made = Nodes(directory)
    try:
        a, b = made.pair("a", "b")
        for place, body in enumerate(BODIES):
            one, other = (a, "b") if place % 3 else (b, "a")
            header = ("-H", "subject=two\nlines") if place == 1 else ()
            msgctl(one, "send", other, "--wait=stored", *header, "-", stdin=body)
        wait_for(lambda: len(a.query("log")) == len(BODIES), 10, "every message in the log of a")
        make_journal(msgctl(a, "log", "-o", "export"), directory / "history.journal")
        yield Both(a, directory)
    finally:
        made.end()


def make_journal(exported: bytes, file: Path) -> None:
    """A journal file of an export, by systemd's own reader of that format."""
    command = [JOURNAL_REMOTE, "-o", os.fspath(file), "-"]
    done = subprocess.run(command, input=exported, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0 and f"after writing {len(BODIES)} entries" in done.stderr.decode()


@pytest.mark.slow
def test_journal_holds_every_field_of_the_export(both: Both) -> None:
    """Read by systemd and exported again: the same fields with the same bytes, in the same order."""
    ours = entries(msgctl(both.node, "log", "-o", "export"))
    command = ["journalctl", f"--file={both.file}", "--no-pager", "-o", "export"]
    theirs = entries(subprocess.run(command, capture_output=True, timeout=30, check=True).stdout)
    added = ("__CURSOR", "__MONOTONIC_TIMESTAMP", "_BOOT_ID")
    for mine, their in zip(ours, theirs, strict=True):
        assert {one for one in mine if one[0] not in added} == {one for one in their if one[0] not in added}
    assert [dict(one)["MESSAGE"] for one in ours] == list(BODIES)
    assert ("HEADER", b"subject=two\nlines") in ours[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("", 10),
        ("-n 3", 3),
        ("-n", 10),
        ("-n1", 1),
        ("-n 0", 0),
        ("-n all", 10),
        ("--lines=2", 2),
        ("-r", 10),
        ("-r -n 2", 2),
        ("-q", 10),
        ("--utc", 10),
        ("-g alpha", 4),
        ("-g Alpha", 1),
        ("-g al.*one", 2),
        ("-g ^line", None),
        ("-g nosuch", 0),
        ("-q -g nosuch", 0),
        ("-r -g alpha", 4),
        ("-r -n 2 -g alpha", 2),
        ("-g ALPHA --case-sensitive=no", 4),
        ("-g alpha --case-sensitive", 3),
        ("-g alpha --case-sensitive=yes", 3),
        ("-S yesterday", 10),
        ("-S tomorrow", 0),
        ("-U yesterday", 0),
        ("-U +1h", 10),
        ("--since=-1h", 10),
    ],
)
def test_letters_mean_the_same(both: Both, line: str, count: int | None) -> None:
    """The same bytes, and so many messages."""
    out = both.same(*line.split())
    if count is not None:
        assert count == sum(body in out for body in BODIES)


@pytest.mark.slow
def test_times_mean_the_same(both: Both) -> None:
    """--since and --until, alone, together and backward, between any two messages."""
    for place in range(1, len(BODIES), 2):
        both.same("-S", both.before(place))
        both.same("-U", both.before(place))
    window = ("-S", both.before(3), "-U", both.before(7))
    assert both.same(*window) == b"".join(body + b"\n" for body in BODIES[3:7])
    both.same("-r", *window)
    both.same("-r", "-n", "2", "-U", both.before(7))
    both.same("-g", "alpha", *window)


@pytest.mark.slow
def test_cursors_mean_the_same(both: Both) -> None:
    """--cursor, --after-cursor, with and without -n; a cursor file carried on by twos; --show-cursor."""
    shown = {}
    for ask in (both.msgctl, both.journalctl):
        cursor = dict(entries(ask("-o", "export"))[4])["__CURSOR"].decode()
        last = ask("--after-cursor", cursor, "-n", "1", "--show-cursor").splitlines()[-1].decode()
        assert last == "-- cursor: " + dict(entries(ask("-o", "export"))[5])["__CURSOR"].decode()
        file = both.directory / ask.__name__
        file.write_text(cursor + "\n")
        shown[ask.__name__] = [
            ask("--cursor", cursor),
            ask("-c", cursor, "-n", "2"),
            ask("--after-cursor", cursor),
            ask("--after-cursor", cursor, "-n", "2"),
            ask("--after-cursor", cursor, "-U", both.before(7)),
            *(ask("--cursor-file", os.fspath(file), "-n", "2") for _ in range(2)),
            *(ask("--cursor-file", os.fspath(file)) for _ in range(2)),
        ]
    assert shown["journalctl"] == shown["msgctl"]
    assert shown["msgctl"][1] == BODIES[4] + b"\n" + BODIES[5] + b"\n"
    assert shown["msgctl"][6] == BODIES[7] + b"\n" + BODIES[8] + b"\n"
    assert shown["msgctl"][8] == b""


@pytest.mark.slow
def test_json_is_the_same_whether_msgd_or_msgctl_wrote_it(both: Both) -> None:
    """Lines that pass through, and those that msgctl counts: byte for byte, field for field."""
    first = dict(entries(both.msgctl("-o", "export"))[0])["__CURSOR"].decode()
    through = both.msgctl("-o", "json")
    assert through == both.msgctl("-o", "json", "--cursor", first, "-n", str(len(BODIES)))
    assert through.count(b"\n") == len(BODIES)


@pytest.mark.slow
def test_chosen_fields_mean_the_same(both: Both) -> None:
    """--output-fields there, --fields here, for formats that print values."""
    for name in ("from", "peer", "seq", "stored_at_ns"):
        assert both.journalctl(f"--output-fields={name.upper()}") == both.msgctl("--fields", name)


def test_every_letter_that_both_have_is_listed() -> None:
    """What journalctl's help knows and msgctl log has, by the same letter and the same long name."""
    require("journalctl")
    from msgctl.verbs import EVERYWHERE, LOG

    text = subprocess.run(
        ["journalctl", "--help"], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=True
    ).stdout
    theirs = {}
    for line in text.splitlines():
        words = line.split()
        if words and words[0].startswith("-"):
            long = next(word for word in words if word.startswith("--")).lstrip("-").partition("=")[0]
            theirs[long.partition("[")[0]] = words[0][1] if words[0][1] != "-" else ""
    ours = {option.long: option.letter for option in (*EVERYWHERE, *LOG)}
    shared = ours.keys() & theirs.keys() - {"fields", "user"}  # these mean something else there
    assert {long: theirs[long] for long in shared} == {long: ours[long] for long in shared}
    expected = (
        "since until cursor after-cursor cursor-file grep case-sensitive output lines reverse show-cursor "
        "utc no-full follow no-tail quiet no-pager pager-end help version"
    )
    assert set(expected.split()) == shared
