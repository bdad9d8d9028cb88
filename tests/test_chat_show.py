"""How the lines of a chat look."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from msgctl.chat_show import Scrollback, open_line, status
from msgctl.chat_talk import Talk
from msgctl.columns import width
from msgctl.output import Screen
from tests.control_server import PEER
from tests.test_chat_talk import NOW_NS, told

THERE: Any = SimpleNamespace(is_up=True, has_looked=True, is_there=True)
DAY_NS = 86_400_000_000_000


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal without colours, in UTC."""
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 1)
    return Screen({"TERM": "xterm", "NO_COLOR": "1"}, utc=True)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (told("hola", "received", way="in"), "12:00:00 ana@node1: hola\n"),
        (told("hola", "received", way="in", user=""), "12:00:00 node1: hola\n"),
        (told("hola"), "12:00:00 ana@node1: hola ✓ 12:00:00\n"),
        (told("hola", "expired", reason="ttl"), "12:00:00 ana@node1: hola ✗ expired: ttl\n"),
        (told("a\nb", "received", way="in"), "12:00:00 ana@node1: a\n    b\n"),
        (told("\x1b[31m\r", "received", way="in"), "12:00:00 ana@node1: \\x1b[31m\\r\n"),
        (told("x", "received", way="in", user="e\x07"), "12:00:00 e\\x07@node1: x\n"),
        (told("x", "received", way="in", text=None, data="AAE="), "12:00:00 ana@node1: [2 bytes of data]\n"),
        (told("adios", "received", way="in", headers={"chat": "left"}), "12:00:00 -- ana@node1 left --\n"),
        (told("x", "received", way="in", kind="result", headers={"handled": "y"}), ""),
        (told("x", "received", way="in", kind="ring"), "12:00:00 ana@node1: (ring) x\n"),
        (
            told("", "received", way="in", kind="file", headers={"op": "put", "file": "a\n.txt"}),
            "12:00:00 ana@node1: [file put a\\n.txt]\n",
        ),
    ],
)
def test_message_in_the_scrollback(screen: Screen, message: dict[str, Any], expected: str) -> None:
    """With the sender's clock; nothing in it commands the terminal."""
    assert expected == Scrollback(screen, NOW_NS).text([message])


def test_another_day_is_said_once(screen: Screen) -> None:
    back = Scrollback(screen, NOW_NS)
    days = [told("a", sent_at_ns=NOW_NS - DAY_NS), told("b", sent_at_ns=NOW_NS - DAY_NS), told("c")]
    rows = back.text(days).splitlines()
    assert ["-- Fri 2026-11-20 --", "-- Sat 2026-11-21 --"] == [row for row in rows if row[0] == "-"]
    assert [0, 3] == [place for place, row in enumerate(rows) if row[0] == "-"]


@pytest.mark.parametrize("columns", [1, 10, 40, 80])
@pytest.mark.parametrize("text", ["short", "x" * 200, "日本語" * 40, "two\nlines \x1b[2J"])
def test_line_on_its_way_takes_one_row(screen: Screen, columns: int, text: str) -> None:
    """However narrow the terminal is, its state can be seen at the end."""
    line = Talk("ana", "node1", adopts=True).typed("one", text.encode(), {}, NOW_NS)
    row = open_line(screen, line, THERE, columns)
    assert columns >= width(row) and row.isprintable()
    assert row.endswith("…")


def test_a_narrow_terminal_shows_what_was_typed(screen: Screen) -> None:
    line = Talk("ana", "node1", adopts=True).typed("one", b"hola node3", {}, NOW_NS)
    assert "hola node3 …" == open_line(screen, line, THERE, 24)


@pytest.mark.parametrize(
    ("state", "reason", "flow", "expected"),
    [
        ("queued", "", {}, "12:00:00 ana@node1: hola …"),
        ("queued", "offline: Connection refused", {}, "12:00:00 ana@node1: hola …"),
        ("queued", "", {"is_there": False}, "12:00:00 ana@node1: hola … offline"),
        ("queued", "", {"is_there": False, "has_looked": False}, "12:00:00 ana@node1: hola …"),
        ("held", "unpaired", {"is_there": False}, "12:00:00 ana@node1: hola … held: unpaired"),
        ("queued", "", {"is_up": False}, "12:00:00 ana@node1: hola … msgd is away"),
    ],
)
def test_line_on_its_way_says_why(
    screen: Screen, state: str, reason: str, flow: dict[str, bool], expected: str
) -> None:
    line = Talk("ana", "node1", adopts=True).typed("one", b"hola", {}, NOW_NS)
    line.state, line.reason = state, reason
    stands: Any = SimpleNamespace(**{**vars(THERE), **flow})
    assert expected == open_line(screen, line, stands, 80)


@pytest.mark.parametrize(
    ("peer", "waiting", "expected"),
    [
        ({"state": "connected", "reason": None}, 0, "node3 connected since 12:00:00"),
        ({"state": "connected", "reason": None, "clock_offset_ms": -61_000.0}, 2,
         "node3 connected since 12:00:00 · 2 on the way · its clock is 1 min 1 s behind"),
        ({"reason": "offline: refused \x1b[31m"}, 0, "node3 away since 12:00:00 (refused \\x1b[31m)"),
        ({"reason": "offline"}, 1, "node3 away since 12:00:00 · 1 on the way"),
    ],
)  # fmt: skip
def test_status_says_how_the_peer_stands(
    screen: Screen, peer: dict[str, Any], waiting: int, expected: str
) -> None:
    flow: Any = SimpleNamespace(peer={**PEER, **peer}, name="node3", is_up=True, has_looked=True)
    assert expected == status(screen, flow, waiting)
