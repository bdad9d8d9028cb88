"""`msgctl chat` without a terminal: lines in, lines out, how it ends."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msgd.wire.varlink import Call
from tests.chat_server import ChatServer, chat_server
from tests.control_server import Connection
from tests.msgctl_run import Runner
from tests.nodes import wait_for
from tests.require import REPOSITORY
from tests.test_msgctl_pairing import PAIRING

LEFT = {"chat": "left"}
CHAT = ("chat", "node3", "--timeout", "100ms")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ChatServer]:
    with chat_server(tmp_path) as running:
        yield running


def bodies(server: ChatServer) -> list[str]:
    """What was sent, in order; `data` in base64."""
    sent = [m for call in server.called("SendMany") for m in call["messages"]]
    return [m["text"] if "text" in m else m["data"] for m in sent]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"", ["adios"]),
        (b"one\ntwo\n", ["one", "two", "adios"]),
        (b"one\n\nlast", ["one", "", "last", "adios"]),
        (b" as it is \r\n\xff\n/help\n", [" as it is \r", "/w==", "/help", "adios"]),
        (b"one\nadios\nnever\n", ["one", "adios"]),
        (b"one\n/quit\nnever\n", ["one", "adios"]),
        (b"one\n \tADI\xc3\x93S \r\nnever\n", ["one", "adios"]),
        (b"adios all\n//quit\n /QUIT\nnever\n", ["adios all", "//quit", "adios"]),
    ],
)
def test_every_line_is_a_message_and_the_end_is_told(
    run: Runner, server: ChatServer, given: bytes, expected: list[str]
) -> None:
    done = run("chat", "node3", stdin=given)
    assert (0, expected) == (done.code, bodies(server)), done.err
    headers = [m.get("headers") for call in server.called("SendMany") for m in call["messages"]]
    assert [None] * (len(expected) - 1) + [LEFT] == headers


def test_many_lines_go_in_few_calls_and_in_order(run: Runner, server: ChatServer) -> None:
    lines = [str(number) for number in range(5000)]
    assert 0 == run("chat", "node3", stdin="\n".join(lines).encode()).code
    assert [*lines, "adios"] == server.texts()
    assert 100 > len(server.called("SendMany"))


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ("queued", 5, "1 line on this disk, not stored there yet"),
        ("held", 4, "1 line on this disk, not stored there yet"),
        ("expired", 6, "1 line expired"),
    ],
)
def test_end_tells_what_became_of_the_lines(
    run: Runner, server: ChatServer, state: str, code: int, words: str
) -> None:
    """The goodbye is none of them; it is told where nothing else is to tell."""
    server.state = state
    hint = "" if state == "expired" else "nothing is lost: see `msgctl queue`"
    told = f"msgctl: {words}\n" + (f"  {hint}\n" if hint else "")
    done = run(*CHAT, stdin=b"hola\n")
    assert (code, told) == (done.code, done.err)
    done = run(*CHAT, stdin=b"")
    assert (code, told.replace("1 line", "the goodbye")) == (done.code, done.err)
    done = run(*CHAT, "-o", "json", stdin=b"hola\n")
    assert (code, {"code": code, "error": words, "hint": hint}) == (done.code, json.loads(done.err))


def test_held_lines_end_it_as_soon_as_the_words_are_known(run: Runner, server: ChatServer) -> None:
    """Nothing more happens before a person acts, so the timeout is not waited for; the next step is told."""
    server.state = "held"

    def send(connection: Connection, call: Call) -> None:
        held = next(iter(server.kept.values()))
        connection.reply({"receipt": server.receipt(held, pairing=PAIRING)})

    server.script["Send"] = send
    for more in ((), ("-o", "json")):
        done = run("chat", "node3", "--timeout", "60s", *more, stdin=b"hola\n")
        assert 4 == done.code
        assert PAIRING["words"] in done.err and PAIRING["next"] in done.err
    assert 4 == json.loads(done.err)["code"]


@pytest.mark.parametrize(
    ("methods", "error", "code"),
    [
        (("Log", "SendMany"), "UnknownPeer", 7),
        (("SendMany",), "NotTrusted", 4),
        (("SendMany",), "PermissionRefused", 1),
    ],
)
def test_what_is_refused_ends_with_its_code(
    run: Runner, server: ChatServer, methods: tuple[str, ...], error: str, code: int
) -> None:
    for method in methods:
        server.script[method] = lambda connection, call: connection.error(error, "No, for a reason.", "Ask.")
    done = run(*CHAT, stdin=b"hola\n")
    assert code == done.code and 1 == done.err.count("No, for a reason.")
    assert "adios" not in done.err and "more line" not in done.err
    done = run(*CHAT, "-o", "json", stdin=b"hola\n")
    told = {"code": code, "error": "No, for a reason.", "hint": "Ask."}
    assert (code, told) == (done.code, json.loads(done.err))


def test_line_that_no_message_can_hold_ends_it_behind_those_before(run: Runner, server: ChatServer) -> None:
    done = run(*CHAT, stdin=b"fits\n" + b"x" * (1 << 20) + b"\nnever\n")
    assert 2 == done.code and "a message has at most" in done.err
    assert ["fits", "adios"] == bodies(server)


def test_line_that_is_refused_before_its_end_has_more_than_was_read(run: Runner, server: ChatServer) -> None:
    done = run(*CHAT, "-o", "json", stdin=b"fits\n" + b"x" * (4 << 20))
    told = json.loads(done.err)
    assert (2, 2) == (done.code, told["code"]) and told["error"].startswith("the line has more than 1")
    assert ["fits", "adios"] == bodies(server)


def test_lines_that_cannot_be_kept_are_counted_without_the_goodbye(run: Runner, server: ChatServer) -> None:
    server.script["SendMany"] = lambda connection, call: connection.cut()
    for given, what in ((b"hola\n", "1 line"), (b"", "the goodbye")):
        done = run(*CHAT, stdin=given)
        assert 3 == done.code and f"msgctl: {what} could not be kept: msgd does not answer\n" in done.err
    done = run(*CHAT, "-o", "json", stdin=b"one\ntwo\n")
    assert 3 == done.code
    assert "2 lines could not be kept: msgd does not answer" == json.loads(done.err)["error"]


def test_history_has_a_limit_that_is_named(run: Runner, server: ChatServer) -> None:
    done = run("chat", "node3", "-n", "1000000", stdin=b"")
    assert 2 == done.code and "-n 1000000: at most 999999 messages" in done.err
    assert 0 == run("chat", "node3", "-n", "0" * 5000 + "1", stdin=b"").code


@pytest.mark.parametrize("words", [("-n", "x"), ("-n", "-1"), ("--timeout", "soon"), ("-o", "yaml")])
def test_wrong_option_is_refused_before_anything_is_sent(
    run: Runner, server: ChatServer, words: tuple[str, ...]
) -> None:
    assert 2 == run("chat", "node3", *words, stdin=b"hola\n").code
    assert [] == server.called("SendMany")


@pytest.mark.parametrize(
    ("form", "expected"), [("cat", "hola\n"), ("short", "node3 -> node1: hola"), ("json", '"text":"hola"')]
)
def test_peers_lines_come_out_in_the_formats_of_log(
    run: Runner, server: ChatServer, form: str, expected: str
) -> None:
    """Only the peer's, and with -n those from before."""
    server.keep("node3", {"text": "mine"})
    server.says_before("hola")["to"] = "node1"
    done = run("chat", "node3", "-n", "2", "-o", form, stdin=b"")
    assert 0 == done.code and expected in done.out and "mine" not in done.out
    assert "" == run("chat", "node3", "-o", form, stdin=b"").out


def test_what_stands_before_the_last_line_is_shown_however_late_the_log_tells_it(
    run: Runner, server: ChatServer
) -> None:
    def log(connection: Connection, call: Call) -> None:
        if call.parameters.get("follow"):
            wait_for(lambda: server.texts() == ["adios"], 20, "the last line")
            server.wait_looks(2)  # on the connection that the line went over: its answer was heard
        server.log(connection, call)

    server.says_before("hola")
    server.script["Log"] = log
    assert "hola\n" == run("chat", "node3", "-n", "1", stdin=b"").out


def chat(server: ChatServer, **given: Any) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "msgctl", "--socket", server.path, "chat", "node3"]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, bufsize=0, **given)


@pytest.mark.slow
def test_output_that_nobody_reads_does_not_keep_lines_from_being_sent(server: ChatServer) -> None:
    """Neither while the reader sleeps nor when it is gone."""
    with chat(server, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for number in range(300):
            server.says(f"{number}" * 1000)
        process.stdin.write(b"while it sleeps\n")
        wait_for(lambda: ["while it sleeps"] == server.texts(), 20, "the line")
        assert select.select([process.stdout], [], [], 0)[0]
        process.stdout.close()
        server.says("to nobody")
        process.stdin.write(b"when it is gone\n")
        process.stdin.close()
        assert 0 == process.wait(20)
    assert ["while it sleeps", "when it is gone", "adios"] == server.texts()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "reason"), [("/dev/full", "No space left on device"), (None, "Bad file descriptor")]
)
def test_output_that_cannot_be_written_is_told_at_the_end(
    server: ChatServer, output: str | None, reason: str
) -> None:
    """A full disk, and one that is closed; the lines are sent all the same."""
    server.says_before("hola")
    for form in ("cat", "json"):
        command = [sys.executable, "-m", "msgctl", "--socket", server.path, "chat", "node3", "-n", "9"]
        redirected = ["sh", "-c", f'exec "$@" >{output or "&-"}', "sh", *command, "-o", form]
        done = subprocess.run(redirected, cwd=REPOSITORY, input=b"one\ntwo\n", stderr=-1, timeout=30)
        told = f"cannot write the output: {reason}"
        assert 1 == done.returncode
        if form == "cat":
            assert f"msgctl: {told}\n" == done.stderr.decode()
        else:
            assert {"code": 1, "error": told, "hint": ""} == json.loads(done.stderr)
    assert 2 * ["one", "two", "adios"] == server.texts()


@pytest.mark.slow
def test_connection_that_breaks_is_made_again(server: ChatServer) -> None:
    """What came meanwhile is heard, what was not answered is sent again with its id; nothing comes twice."""

    def cut(connection: Connection, call: Call) -> None:
        del server.script["SendMany"]
        server.keep("node3", call.parameters["messages"][0])
        for follower in server.followers:
            follower.cut()
        server.followers.clear()
        server.says_before("meanwhile")
        connection.cut()

    with chat(server, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        server.says("before")
        assert b"before\n" == process.stdout.readline()
        server.script["SendMany"] = cut
        process.stdin.write(b"hola\n")
        assert b"meanwhile\n" == process.stdout.readline()
        process.stdin.close()
        assert b"" == process.stdout.read()
        assert 0 == process.wait(20)
    assert ["hola", "adios"] == server.texts()
    first, again = (call["messages"][0]["id"] for call in server.called("SendMany")[:2])
    assert first == again


@pytest.mark.slow
def test_script_needs_no_terminal_library(server: ChatServer) -> None:
    """prompt_toolkit is for people."""
    code = "import sys\nfrom msgctl.cli import main\nmain()\nassert 'prompt_toolkit' not in sys.modules"
    command = [sys.executable, "-c", code, "--socket", server.path, "chat", "node3"]
    subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, timeout=30, check=True, env=os.environ)


@pytest.mark.slow
def test_nothing_is_sent_before_it_is_known_where_to_begin(run: Runner, server: ChatServer) -> None:
    """Of what stands before that place no change is told: the marks of such lines would never come."""
    early: list[list[dict[str, Any]]] = []

    def log(connection: Connection, call: Call) -> None:
        if not call.parameters.get("follow"):
            server.wait_looks(2)
            early.append(server.called("SendMany"))
        server.log(connection, call)

    server.script["Log"] = log
    assert 0 == run("chat", "node3", stdin=b"hola\n").code
    assert [[]] == early
    assert ["hola", "adios"] == server.texts()
