"""`msgctl chat` on a terminal: a pty for what is written to it, tmux for what a person sees."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd.wire.varlink import Call
from tests.chat_server import ChatServer, chat_server
from tests.control_server import Connection
from tests.nodes import wait_for
from tests.require import require
from tests.terminal import Terminal
from tests.tmux import Tmux

XTERM = {"TERM": "xterm-256color", "TZ": "UTC0"}
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ChatServer]:
    with chat_server(tmp_path) as running:
        yield running


def terminal(server: ChatServer, *words: str, **env: str) -> Terminal:
    return Terminal("--socket", server.path, "chat", "node3", *words, env={**XTERM, **env})


def tmux(server: ChatServer, tmp_path: Path, *words: str, columns: int = 90, rows: int = 24) -> Tmux:
    require("tmux")
    command = ("--socket", server.path, "chat", "node3", *words)
    return Tmux(tmp_path / "tmux", *command, columns=columns, rows=rows, env=XTERM)


@pytest.mark.slow
def test_what_comes_does_not_tear_what_is_typed(server: ChatServer, tmp_path: Path) -> None:
    """It stands above the prompt, which keeps its text and its place, and is sent whole afterwards."""
    with tmux(server, tmp_path) as t:
        t.see("node3 connected")
        t.press("half of a li")
        t.see("node3> half of a li")
        for text in ("one", "two 日本語", "three"):
            server.says(text)
        rows = t.see("three")
        assert ["one", "two 日本語", "three"] == [row.split(": ", 1)[1] for row in rows[:3]]
        rows = t.see("node3> half of a li")
        assert 1 == sum("half" in row for row in rows)
        t.press("ne", "Enter")
        rows = t.see("half of a line ✓")
        assert 6 == len(rows)  # four messages, the prompt, the status
        t.press("/quit", "Enter")
        assert 0 == t.end()
    assert ["half of a line", "adios"] == server.texts()
    assert {"chat": "left"} == server.called("SendMany")[-1]["messages"][0]["headers"]


@pytest.mark.slow
def test_terminal_that_changes_its_size_keeps_one_prompt(server: ChatServer, tmp_path: Path) -> None:
    """Narrower than the rows of the region, lower, and wide again."""
    server.state = "queued"
    for number in range(30):
        server.says_before(f"before {number}")
    with tmux(server, tmp_path, "-n", "30") as t:
        t.see("node3 connected")
        t.press("x" * 70, "Enter", "y" * 70, "Enter", "z" * 70)
        t.see("z" * 70)
        for columns, rows in ((50, 24), (40, 12), (30, 12), (100, 30), (90, 24)):
            t.resize(columns, rows)
            t.until(
                lambda seen, most=columns: sum("node3>" in row for row in seen) == 1
                and sum("zz" in row for row in seen) >= 70 // most
                and sum(" connected since" in row for row in seen) == 1
                and sum("yyy" in row for row in seen) == 1,
                f"one prompt in {columns} columns",
            )  # fmt: skip
        assert any("before 29" in row for row in t.screen())


@pytest.mark.slow
def test_nothing_is_written_while_nothing_happens(server: ChatServer) -> None:
    """Looks at the peer cost a slow link nothing, and a message some 200 bytes beside its text."""
    with terminal(server) as t:
        t.see("node3 connected")
        server.wait_looks(1)
        before = len(t.shown)
        server.says("a")
        t.see(": a")
        server.wait_looks(1)
        server.says("b")
        t.see(": b")
        assert 600 > len(t.shown) - before
        assert 1 == t.shown.count("connected since", before, before + 300)


@pytest.mark.slow
@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_are_left_out_where_they_are_not_wanted(server: ChatServer, no_color: str) -> None:
    """And what comes from outside commands nothing in either case."""
    with terminal(server, NO_COLOR=no_color) as t:
        t.see("node3 connected")
        server.says("\x1b[31mred\x1b]0;title\x07 \x9b2J", user="e\x1b[7m")
        t.see("\\x1b[31mred\\x1b]0;title\\x07 \\x9b2J")
        t.answer("mine")
        t.see("✓")
        assert "\x1b[31m" not in t.shown and "\x1b]" not in t.shown
        assert bool(no_color) == (COLOUR.search(t.shown) is None)
        t.answer("adios")
        assert 0 == t.end()


@pytest.mark.slow
def test_pasted_lines_are_sent_as_they_are(server: ChatServer) -> None:
    """Each its own message, in order, after Enter. Of what is typed a slash begins a command."""
    pasted = "  first\r\n\tsecond  \r\n\r\n/etc/passwd\r\nadios\r\n//x\r\n"
    with terminal(server) as t:
        t.see("node3 connected")
        t.press(f"\x1b[200~{pasted}\x1b[201~")
        server.wait_looks(1)
        assert [] == server.texts()
        t.answer("")
        wait_for(lambda: len(server.texts()) == 6, 20, "six lines")
        t.answer("")  # nothing: not sent
        t.answer("//x")
        t.answer("/nope")
        t.see("There is no /nope")
        t.answer("/help")
        t.see("Ctrl-D")
        t.press("\x04")
        assert 0 == t.end()
    assert ["  first", "\tsecond  ", "", "/etc/passwd", "adios", "//x", "/x", "adios"] == server.texts()


@pytest.mark.slow
def test_line_that_is_refused_is_told_and_the_chat_goes_on(server: ChatServer) -> None:
    """Also what no message can hold, and a disk that is full for a while."""
    answers = ["PermissionRefused", "StorageRefused"]

    def refuse(connection: Connection, call: Call) -> None:
        if answers:
            return connection.error(answers.pop(0), "You may not send.", "Ask somebody.")
        return server.sendmany(connection, call)

    server.script["SendMany"] = refuse
    with terminal(server) as t:
        t.see("node3 connected")
        t.answer("refused")
        t.see("You may not send. Ask somebody. Not sent: 'refused'")
        t.answer("no space")
        t.see("it is tried again")
        t.see("✓")
        t.press("\x03")  # Ctrl-C with nothing typed leaves, too
        assert 0 == t.end()
    assert ["no space", "adios"] == server.texts()


@pytest.mark.slow
def test_msgd_that_goes_away_is_waited_for_and_nothing_is_doubled(server: ChatServer) -> None:
    """Its answer is lost after it has kept the line: the same id is sent again, and kept once."""

    def cut(connection: Connection, call: Call) -> None:
        del server.script["SendMany"]
        for message in call.parameters["messages"]:
            server.keep("node3", message)
        connection.cut()

    with terminal(server) as t:
        t.see("node3 connected")
        server.script["SendMany"] = cut
        t.answer("once")
        t.see("what is typed waits in this chat")
        t.see("msgd is back")
        t.see("once")
        t.see("✓")
        t.answer("twice")
        t.see("twice")
        t.see("✓")
        t.answer("/quit")
        assert 0 == t.end()
    assert ["once", "twice", "adios"] == server.texts()
    first, again = (call["messages"][0]["id"] for call in server.called("SendMany")[:2])
    assert first == again


@pytest.mark.slow
def test_end_without_msgd_says_what_was_not_kept(server: ChatServer) -> None:
    server.script["SendMany"] = lambda connection, call: connection.cut()
    with terminal(server, "--timeout", "0.2") as t:
        t.see("node3 connected")
        t.answer("hola")
        t.see("what is typed waits")
        t.press("\x04")
        t.see("1 line could not be kept")
        assert 3 == t.end()


@pytest.mark.slow
def test_goodbye_is_not_told_as_a_line(server: ChatServer) -> None:
    """Neither where it waits, nor where it is refused with what was typed."""
    server.state = "queued"
    with terminal(server, "--timeout", "0.2") as t:
        t.see("node3 connected")
        t.press("\x04")
        assert 0 == t.end()
    assert "leaving ·" in t.shown and "on this disk" not in t.shown and "1 on the way" not in t.shown

    def refuse(connection: Connection, call: Call) -> None:
        connection.error("PermissionRefused", "You may not send.")

    server.script["SendMany"] = refuse
    with terminal(server) as t:
        t.see("node3 connected")
        t.answer("hola")
        t.see("You may not send. Not sent: 'hola'")
        t.press("\x04")
        assert 0 == t.end()
    assert 1 == t.shown.count("You may not send.")


@pytest.mark.slow
def test_slash_begins_a_command_only_in_a_line_of_one_word(server: ChatServer) -> None:
    """Ctrl-C throws a line away, and ends the chat where there is none."""
    with terminal(server) as t:
        t.see("node3 connected")
        t.answer("/etc is full")
        t.answer("/Nope")
        t.see("There is no /Nope: /help lists what there is; to send it, enter //Nope")
        t.answer("//Nope")
        t.press("thrown away")
        t.see("thrown away")
        t.press("\x03")
        t.answer("/help")
        t.see("where nothing")
        t.press("\x03")
        assert 0 == t.end()
    assert ["/etc is full", "/Nope", "adios"] == server.texts()


@pytest.mark.slow
def test_terminal_that_is_closed_ends_the_chat_and_tells_the_other_side(server: ChatServer) -> None:
    with terminal(server) as t:
        t.see("node3 connected")
        t.hang_up()
        wait_for(lambda: ["adios"] == server.texts(), 20, "the farewell")
        assert t.process.wait(20) in (0, 1)


def test_dumb_terminal_gets_plain_lines(server: ChatServer) -> None:
    with terminal(server, TERM="dumb") as t:
        server.says("hola")
        t.see("hola")
        t.answer("adios")
        assert 0 == t.end()
    assert "\x1b" not in t.shown


def test_other_side_that_leaves_is_told_and_the_chat_stays(server: ChatServer) -> None:
    with terminal(server) as t:
        t.see("node3 connected")
        server.says("adios", headers={"chat": "left"})
        t.see("ana@node3 left")
        t.answer("still here")
        t.see("still here")
        t.see("✓")
        t.answer("adios")
        assert 0 == t.end()


def test_who_leaves_twice_does_not_wait_and_hears_what_is_still_here(server: ChatServer) -> None:
    server.state = "queued"
    with terminal(server, "--timeout", "60s") as t:
        t.see("node3 connected")
        t.answer("hola")
        t.see("hola …")
        t.press("\x04")
        t.see("leaving")
        t.press("\x04")
        t.see("hola …")
        t.see("1 line on this disk")
        assert 0 == t.end()


@pytest.mark.slow
def test_who_leaves_twice_waits_for_msgd_and_the_third_time_for_nobody(server: ChatServer) -> None:
    """What msgd has kept is not said to be lost only because somebody was impatient."""
    asked, may_answer = threading.Event(), threading.Event()

    def send(connection: Connection, call: Call) -> None:
        asked.set()
        may_answer.wait(20)
        server.sendmany(connection, call)

    server.state, server.script["SendMany"] = "queued", send
    for patient in (True, False):
        with terminal(server, "--timeout", "60s") as t:
            t.see("node3 connected")
            t.answer("hola")
            assert asked.wait(20)
            t.press("\x04")
            t.see("leaving")
            t.press("\x04")
            if patient:
                may_answer.set()
                t.see("1 line on this disk")
                assert 0 == t.end()
            else:
                t.press("\x04")
                t.see("1 line could not be kept")
                assert 3 == t.end()
        asked.clear()
        may_answer.clear()
    may_answer.set()
