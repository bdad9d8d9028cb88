"""`msgctl send` against a real socket: bodies, receipts, exit codes, what a lost daemon means."""

import base64
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import Any

import pytest

from msgctl.client import Client
from msgd.model import MAX_MESSAGE_BYTES
from msgd.wire.varlink import Call
from tests.control_server import Connection, ControlServer
from tests.msgctl_run import Runner
from tests.require import REPOSITORY


def answer(**changes: Any) -> Any:
    """A script: keep the message, answer with a receipt that is changed so."""

    def script(connection: Connection, call: Call) -> None:
        kept = {"id": "x", "peer": call.parameters["peer"], "state": "queued", "reason": None, "seq": None}
        message = {**kept, "stored_at_ns": 1, "receipt_at_ns": None, **call.parameters["message"]}
        connection.reply({"receipt": ControlServer.receipt(message, **changes)})

    return script


# --- what is printed, and the exit code ---------------------------------------------------------------------


def test_stored_message_is_one_line_with_the_receivers_clock(server: ControlServer, run: Runner) -> None:
    """`ID stored PEER HH:MM:SS.mmm (12 ms)`, and 0."""
    server.script["Send"] = answer(state="stored", receipt_at_ns=1_795_262_400_131_000_000, elapsed_ms=12.3)
    done = run("send", "node3", "hola")
    sent = server.called("Send")[0]
    assert done.out == f"{sent['message']['id']} stored node3 12:00:00.131 (12 ms)\n"
    assert (done.code, done.err) == (0, "")
    assert sent == {
        "peer": "node3",
        "message": {"id": sent["message"]["id"], "text": "hola"},
        "wait": "stored",
        "timeout_ms": 3000,
    }
    assert sent["message"]["id"][14] == "7"


def test_queued_message_says_why_and_when_it_is_tried(server: ControlServer, run: Runner) -> None:
    """`ID queued PEER (offline, next try in 20 s)`: kept, so 0."""
    server.state = "queued"
    done = run("send", "node3", "hola")
    assert done.out.split(" ", 1)[1] == "queued node3 (offline, next try in 20 s)\n"
    assert done.code == 0


@pytest.mark.parametrize(
    ("state", "options", "code"),
    [
        ("stored", [], 0),
        ("stored", ["--wait=stored"], 0),
        ("queued", [], 0),
        ("queued", ["--wait=queued"], 0),
        ("queued", ["--wait=stored"], 5),
        ("queued", ["--wait"], 5),
        ("held", [], 4),
        ("held", ["--wait=stored"], 4),
        ("rejected", [], 6),
        ("expired", ["--wait=queued"], 6),
        ("cancelled", ["--wait=stored"], 6),
    ],
)
def test_exit_code_tells_what_was_reached(
    server: ControlServer, run: Runner, state: str, options: list[str], code: int
) -> None:
    """As in the table of exit codes."""
    server.script["Send"] = answer(state=state, reason="because")
    done = run("send", "node3", "hola", *options)
    assert done.code == code
    assert f" {state} node3 " in done.out


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("UnknownPeer", 7),
        ("NotTrusted", 4),
        ("StorageRefused", 8),
        ("InvalidRequest", 2),
        ("Uncertain", 1),
        ("PermissionRefused", 1),
        ("Unexpected", 1),
        ("NeverHeardOf", 1),
        ("org.varlink.service.MethodNotFound", 1),
        ("org.varlink.service.InvalidParameter", 2),
    ],
)
def test_error_of_the_daemon_is_a_sentence_a_hint_and_a_code(
    server: ControlServer, run: Runner, name: str, code: int
) -> None:
    """Also as one JSON object on standard error."""
    server.script["Send"] = lambda connection, call: connection.error(name, "No node9 here", "try node3")
    done = run("send", "node9", "hola")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("msgctl: ") and "Traceback" not in done.err
    if "." not in name and name != "NeverHeardOf":
        assert done.err == "msgctl: No node9 here\n  try node3\n"
        done = run("-o", "json", "send", "node9", "hola")
        assert done.err == f'{{"code":{code},"error":"No node9 here","hint":"try node3"}}\n'


def test_json_is_the_receipt_with_readable_times(server: ControlServer, run: Runner) -> None:
    """One object; `*_at` beside every `*_at_ns`."""
    server.script["Send"] = answer(state="stored", receipt_at_ns=1_795_262_400_000_000_001)
    (receipt,) = run("send", "node3", "hola", "-o", "json").objects
    assert receipt["state"] == "stored"
    assert receipt["receipt_at"] == "2026-11-21T12:00:00.000000001Z"
    assert receipt["queued_at"] == "1970-01-01T00:00:00.000000001Z"


def test_quiet_prints_nothing_but_errors(server: ControlServer, run: Runner) -> None:
    """And keeps the exit code."""
    server.state = "queued"
    done = run("send", "-q", "node3", "hola", "--wait=stored")
    assert (done.code, done.out, done.err) == (5, "", "")


def test_options_reach_the_daemon(server: ControlServer, run: Runner) -> None:
    """--ttl, --timeout, --id, -H; a message with a key gets its id from the daemon."""
    run("send", "node3", "x", "--ttl", "2h", "--timeout=500ms", "--wait", "--id=k", "-H", "a=1", "-Hb=x=y")
    (sent,) = server.called("Send")
    assert sent == {
        "peer": "node3",
        "message": {"text": "x", "headers": {"a": "1", "b": "x=y"}},
        "ttl_ms": 7_200_000,
        "key": "k",
        "wait": "stored",
        "timeout_ms": 500,
    }


# --- bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"hola\n", b"\n\n", "é\u2028\n".encode(), b"\xff\x00\xfe", b"a\0b", b"\x1b[31m"]
)
def test_standard_input_is_sent_byte_for_byte(server: ControlServer, run: Runner, body: bytes) -> None:
    """As text where it is UTF-8, else as data; nothing is stripped."""
    for words in (["send", "node3"], ["send", "node3", "-"], ["send", "-f", "-", "node3"]):
        assert run(*words, stdin=body).code == 0
        message = server.called("Send")[-1]["message"]
        got = message["text"].encode() if "text" in message else base64.b64decode(message["data"])
        assert got == body
        assert ("text" in message) == (b"\xff" not in body)


def test_argument_that_is_not_utf8_is_sent_as_data(server: ControlServer, run: Runner) -> None:
    """Python hands it over with surrogates; the bytes are what counts."""
    assert run("send", "node3", os.fsdecode(b"caf\xe9")).code == 0
    assert base64.b64decode(server.called("Send")[0]["message"]["data"]) == b"caf\xe9"


def test_file_is_sent_byte_for_byte(server: ControlServer, run: Runner, tmp_path: Path) -> None:
    """-f FILE."""
    file = tmp_path / "body"
    file.write_bytes(b"from a file\n")
    assert run("send", "node3", "-f", str(file)).code == 0
    assert server.called("Send")[0]["message"]["text"] == "from a file\n"


def test_long_body_of_escapes_goes_as_data(server: ControlServer, run: Runner) -> None:
    """As JSON text a megabyte of control characters would pass the limit of a call six times over."""
    body = b"\x01" * (MAX_MESSAGE_BYTES - 100)
    assert run("send", "node3", stdin=body).code == 0
    assert base64.b64decode(server.called("Send")[0]["message"]["data"]) == body


def test_message_over_the_limit_is_a_usage_error(server: ControlServer, run: Runner, tmp_path: Path) -> None:
    """The sentence names the size and the limit, the hint names files; nothing was sent."""
    file = tmp_path / "big"
    file.write_bytes(b"x" * 2_000_000)
    for words, size in ((["-f", str(file)], "2000000"), (["-"], str(MAX_MESSAGE_BYTES + 1))):
        done = run("send", "node3", *words, stdin=b"x" * (MAX_MESSAGE_BYTES + 1))
        assert done.code == 2
        assert size in done.err and str(MAX_MESSAGE_BYTES) in done.err and "file" in done.err
    done = run("send", "node3", "-H", f"a={'x' * 100}", stdin=b"x" * (MAX_MESSAGE_BYTES - 50))
    assert done.code == 2
    assert server.calls == []


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["node3", "x", "-f", "/etc/hostname"], "either from TEXT or from --file"),
        (["node3", "-f", "/nonexistent"], "cannot read /nonexistent: No such file"),
        (["node3", "-f", "/"], "cannot read /: Is a directory"),
        (["node3", "x", "--wait=read"], "expected queued, stored or handled"),
        (["node3", "x", "--timeout=soon"], "'soon' is not a duration"),
        (["node3", "x", "--quorum", "1"], "counts the members of a group"),
        (["node3", "x", "-H", "novalue"], "expected NAME=VALUE"),
        (["node3", "x", "-o", "cat"], "send has no format 'cat'"),
        (["-l", "node3", "x"], "--lines reads standard input"),
        (["-l", "node3", "--id=k"], "--id names one message"),
        (["node3", "x", "--id="], "a key that is not empty"),
        ([os.fsdecode(b"\xff"), "x"], "is not UTF-8"),
    ],
)
def test_wrong_send_is_a_usage_error(server: ControlServer, run: Runner, words: list[str], part: str) -> None:
    """Exit 2, and nothing is sent."""
    done = run("send", *words)
    assert done.code == 2
    assert part in done.err
    assert server.calls == []


def test_nothing_to_send_at_a_terminal(
    server: ControlServer, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, instead of waiting for typing that nobody expects."""
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 0)
    done = run("send", "node3")
    assert (done.code, done.err.split("\n")[0]) == (2, "msgctl: nothing to send")


# --- a daemon that is lost ----------------------------------------------------------------------------------


def test_daemon_that_is_absent_is_one_sentence_and_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 3; the same as JSON."""
    run = Runner(str(tmp_path / "none.sock"), monkeypatch)
    done = run("send", "node3", "hola")
    assert (done.code, done.out) == (3, "")
    assert "msgd is not running" in done.err and "systemctl start msgd" in done.err and "lab up" in done.err
    assert run("send", "node3", "hola", "-o", "json").err.startswith('{"code":3,"error":"msgd is not running')


def test_path_too_long_for_a_socket_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the kernel's words."""
    done = Runner("/tmp/" + "x" * 110, monkeypatch)("status")
    assert done.code == 2
    assert "has 115 bytes, but at most 107 fit" in done.err


def test_lost_answer_is_found_out_by_the_id(server: ControlServer, run: Runner) -> None:
    """The daemon kept the message and went away before it answered: the client asks again and knows."""

    def keep_and_cut(connection: Connection, call: Call) -> None:
        server.keep(call.parameters["peer"], call.parameters["message"])
        connection.cut()

    server.script["Send"] = keep_and_cut
    done = run("send", "node3", "hola")
    assert (done.code, done.err) == (0, "")
    assert " stored node3 " in done.out and "sent before" in done.out
    assert len(server.called("Send")) == 1
    assert server.called("Show") == [{"id": server.called("Send")[0]["message"]["id"]}]


def test_lost_answer_is_uncertain_where_the_id_is_not_there(server: ControlServer, run: Runner) -> None:
    """Never told as a refusal: exit 1, and how to find out later."""
    server.script["Send"] = lambda connection, call: connection.cut()
    done = run("send", "node3", "hola")
    assert (done.code, done.out) == (1, "")
    id = server.called("Send")[0]["message"]["id"]
    assert "unknown whether the message was kept" in done.err and f"msgctl show {id}" in done.err


def test_lost_answer_is_uncertain_where_the_daemon_is_gone(server: ControlServer, run: Runner) -> None:
    """Not "unreachable": the call was made."""

    def go(connection: Connection, call: Call) -> None:
        os.rename(server.path, server.path + ".gone")
        connection.cut()

    server.script["Send"] = go
    done = run("send", "node3", "hola")
    os.rename(server.path + ".gone", server.path)
    assert done.code == 1
    assert "unknown whether" in done.err


def test_send_with_a_key_is_repeated(server: ControlServer, run: Runner) -> None:
    """A key is kept once, so the second call cannot send it twice."""

    def first_cut(connection: Connection, call: Call) -> None:
        if len(server.called("Send")) == 1:
            connection.cut()
        else:
            answer(state="queued", duplicate=True)(connection, call)

    server.script["Send"] = first_cut
    done = run("send", "node3", "hola", "--id", "k1")
    assert (done.code, done.err) == (0, "")
    calls = [(sent["key"], sent["wait"]) for sent in server.called("Send")]
    assert [("k1", "stored"), ("k1", "queued"), ("k1", "stored")] == calls


def test_who_waits_goes_on_when_msgd_loses_a_process(server: ControlServer, run: Runner) -> None:
    """With the same id, for the rest of the time, and as one send: an early answer is no end of the time."""

    def send(connection: Connection, call: Call) -> None:
        count = len(server.called("Send"))
        if count == 1:
            answer(state="queued", reason="msgd is starting again")(connection, call)
        elif count == 2:
            connection.error("Unexpected", "The log process is gone.")
        else:
            answer(state="stored", duplicate=True)(connection, call)

    server.script["Send"] = send
    done = run("send", "node3", "hola", "--wait=stored", "--timeout", "20s")
    assert (done.code, done.err) == (0, "")
    assert " stored node3 " in done.out and "sent before" not in done.out
    first, *again = server.called("Send")
    assert [first["message"]] * 2 == [call["message"] for call in again]
    assert 20_000 == first["timeout_ms"] > again[0]["timeout_ms"] > again[1]["timeout_ms"] > 0


def test_what_does_not_pass_is_not_tried_again(server: ControlServer, run: Runner) -> None:
    def send(connection: Connection, call: Call) -> None:
        if len(server.called("Send")) == 1:
            answer(state="queued", reason="msgd is starting again")(connection, call)
        else:
            connection.error("PermissionRefused", "You may not send.")

    server.script["Send"] = send
    done = run("send", "node3", "hola", "--wait=stored", "--timeout", "20s")
    assert (1, True, 2) == (done.code, "You may not send." in done.err, len(server.called("Send")))


def test_what_is_missing_of_handled_is_said(server: ControlServer, run: Runner) -> None:
    server.state = "stored"
    done = run("send", "node3", "hola", "--wait=handled")
    assert (5, True) == (done.code, "(not handled yet" in done.out), done.out


@pytest.mark.parametrize("header", ["thread=x", "reply-to=x"])
def test_where_an_answer_belongs_is_not_given(server: ControlServer, run: Runner, header: str) -> None:
    id = server.keep("node3", {"text": "hola"})["id"]
    done = run("reply", id, "-H", header, "hi")
    assert (2, []) == (done.code, server.called("Send"))
    assert f"-H {header}: " in done.err


def test_connection_lost_after_queued_takes_nothing_back(server: ControlServer, run: Runner) -> None:
    """The first answer was given after fdatasync: queued it is; --wait=stored ends with 5."""

    def queued_and_cut(connection: Connection, call: Call) -> None:
        message = server.keep(call.parameters["peer"], call.parameters["message"], "queued")
        connection.reply({"receipt": server.receipt(message)}, continues=True)
        connection.cut()

    server.script["Send"] = queued_and_cut
    assert " queued node3 " in (done := run("send", "node3", "hola")).out
    assert done.code == 0
    assert run("send", "node3", "hola", "--wait=stored").code == 5


def test_refusal_before_the_call_is_read_is_heard(server: ControlServer) -> None:
    """A daemon that answers with an error and closes, as at its limit of connections, is understood."""

    def refuse(connection: Connection, call: Call) -> None:
        connection.error("PermissionRefused", "too many connections")
        connection.cut()

    server.script["Status"] = refuse
    with Client(server.path) as client, pytest.raises(Exception, match="too many connections"):
        client.call("Status")


def test_answer_that_is_no_varlink_is_said(server: ControlServer, run: Runner) -> None:
    """A foreign program behind the socket."""

    def garbage(connection: Connection, call: Call) -> None:
        connection.sock.sendall(b"HTTP/1.1 400 Bad Request\0")

    server.script["Status"] = garbage
    done = run("status")
    assert done.code == 1
    assert "what answers is not msgd" in done.err


@pytest.mark.slow
def test_daemon_that_does_not_answer_is_given_up(server: ControlServer) -> None:
    """After the client's own timeout, told as lost."""
    server.script["Status"] = lambda connection, call: None
    with (
        Client(server.path, timeout_s=0.3) as client,
        pytest.raises(Exception, match="did not answer in time"),
    ):
        client.call("Status")


@pytest.mark.slow
def test_interrupt_while_waiting_tells_what_is_known(server: ControlServer) -> None:
    """Ctrl-C after the message was queued: its line, and 130; the message is on its way all the same."""
    answered = threading.Event()
    sockets: list[socket.socket] = []

    def queued(connection: Connection, call: Call) -> None:
        message = server.keep(call.parameters["peer"], call.parameters["message"], "queued")
        connection.reply({"receipt": server.receipt(message)}, continues=True)
        sockets.append(connection.sock)
        answered.set()

    server.script["Send"] = queued
    command = [
        sys.executable,
        "-m",
        "msgctl",
        "--socket",
        server.path,
        "send",
        "node3",
        "hola",
        "--timeout=60",
    ]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert answered.wait(20)
        while not (is_read(sockets[0]) and is_asleep(process.pid)):
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")
    assert b" queued node3 (offline" in out


def is_read(sock: socket.socket) -> bool:
    """Whether the other end has taken all that was sent."""
    return fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4) == b"\0" * 4


def is_asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_closed_output_does_not_change_what_a_send_says(server: ControlServer, run: Runner) -> None:
    """A reader that went away does not turn a kept message into a failure, nor a failure into success."""
    server.state = "queued"
    reader, writer = os.pipe()
    os.close(reader)
    saved = os.dup(1)
    try:
        os.dup2(writer, 1)
        os.close(writer)
        from msgctl.cli import main

        words = ["--socket", server.path, "send", "node3", "hola"]
        codes = (main(words), main([*words, "--wait=stored"]), main(["--socket", server.path, "log"]))
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert codes == (0, 5, 0)
