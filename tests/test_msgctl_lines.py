"""Many messages over one connection: `send --lines` and `send_many`, against a real socket."""

import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from msgctl.client import Client, new_ids
from msgctl.lines import _by_state
from msgctl.pipeline import BATCH_BYTES, batches, send_many
from msgctl.receipts import reached
from msgd.errors import StorageRefused
from msgd.model import MAX_MESSAGE_BYTES
from msgd.wire import varlink
from msgd.wire.varlink import Call
from tests.control_server import Connection, ControlServer
from tests.msgctl_run import Runner
from tests.require import REPOSITORY


def texts(server: ControlServer) -> list[str | None]:
    return [message["text"] for message in server.kept.values()]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_every_line_is_a_message_in_order(server: ControlServer, run: Runner, end: bytes) -> None:
    """Empty lines, too; the last one with or without its line end; nothing else is stripped."""
    lines = ["one", "", " two\t", "é\r", *(f"line {n}" for n in range(1000))]
    done = run("send", "-l", "node3", stdin="\n".join(lines).encode() + end)
    assert (done.code, done.err) == (0, "")
    assert texts(server) == lines
    printed = [line.split(" ")[:3] for line in done.out.splitlines()]
    assert printed == [[id, "stored", "node3"] for id in server.kept]
    assert max(len(call.parameters.get("messages", "x")) for call in server.calls) <= 256


def test_lines_that_are_not_utf8_go_as_data(server: ControlServer, run: Runner) -> None:
    """Their neighbours stay text."""
    assert run("send", "-lq", "node3", stdin=b"a\n\xff\nb\n").code == 0
    assert [(m["text"], m["data"]) for m in server.kept.values()] == [
        ("a", None),
        (None, "/w=="),
        ("b", None),
    ]


def test_file_and_headers_and_json(server: ControlServer, run: Runner, tmp_path: Path) -> None:
    """-f, -H, --ttl and -o json work as for one message."""
    file = tmp_path / "lines"
    file.write_text("a\nb\n")
    done = run("send", "-l", "-f", str(file), "node3", "-H", "k=v", "--ttl=60", "-o", "json")
    (call,) = server.called("SendMany")
    assert [m["headers"] for m in call["messages"]] == [{"k": "v"}, {"k": "v"}]
    assert (call["ttl_ms"], call["wait"]) == (60_000, "queued")
    found = done.objects
    assert [(one["id"], one["seq"], one["state"]) for one in found] == [
        (id, at, "stored") for at, id in enumerate(server.kept, 1)
    ]


def test_no_input_is_no_message(server: ControlServer, run: Runner) -> None:
    """And success."""
    done = run("send", "-l", "node3", stdin=b"")
    assert (done.code, done.out, server.called("Send"), server.called("SendMany")) == (0, "", [], [])


def test_big_lines_go_alone(server: ControlServer, run: Runner) -> None:
    """No call is over the limit of a call, whatever the lines are."""
    lines = ["x" * 300_000, "y", "\x01" * 900_000, "z" * (BATCH_BYTES - 1), "é" * 200_000]
    assert run("send", "-lq", "node3", stdin="\n".join(lines).encode()).code == 0
    sent = [m["text"] or m["data"] for m in server.kept.values()]
    assert [len(text) for text in sent] == [300_000, 1, 1_200_000, BATCH_BYTES - 1, 200_000]


def test_line_over_the_limit_is_named_and_ends_it(server: ControlServer, run: Runner) -> None:
    """Exit 2 with its number and the limit; what stood before it is sent, and the error says so."""
    lines = b"a\nb\n" * 3 + b"x" * (MAX_MESSAGE_BYTES + 1) + b"\nc\n"
    done = run("send", "-lq", "node3", stdin=lines)
    assert done.code == 2
    assert "line 7 has" in done.err and str(MAX_MESSAGE_BYTES) in done.err
    assert "(6 lines were sent, 6 stored)" in done.err
    assert texts(server) == ["a", "b"] * 3


def test_refusal_stops_the_lines_and_counts_what_was_kept(server: ControlServer, run: Runner) -> None:
    """The code of the error, the number of lines before it."""
    real = server.sendmany

    def once(connection: Connection, call: Call) -> None:
        if len(server.called("SendMany")) == 1:
            real(connection, call)
        else:
            connection.error("StorageRefused", "the disk is full")

    server.script["SendMany"] = once
    done = run("send", "-lq", "node3", stdin=b"x\n" * 1000)
    assert done.code == 8
    assert "the disk is full (256 lines were sent, 256 stored)" in done.err


def test_lost_connection_says_how_much_is_unknown(server: ControlServer, run: Runner) -> None:
    """Exit 1: kept, and unknown."""
    real = server.sendmany

    def once(connection: Connection, call: Call) -> None:
        if len(server.called("SendMany")) == 1:
            real(connection, call)
        else:
            connection.cut()

    server.script["SendMany"] = once
    done = run("send", "-lq", "node3", stdin=b"x\n" * 1000)
    assert done.code == 1
    assert "256 lines were kept, of " in done.err and "it is unknown" in done.err


@pytest.mark.parametrize(
    ("state", "words", "code"),
    [
        ("stored", ["--wait"], 0),
        ("queued", [], 0),
        ("queued", ["--wait"], 5),
        ("held", [], 4),
        ("rejected", [], 6),
    ],
)
def test_worst_line_is_the_exit_code(
    server: ControlServer, run: Runner, state: str, words: list[str], code: int
) -> None:
    """As in the table of exit codes."""
    server.state = state
    assert run("send", "-lq", "node3", *words, stdin=b"a\nb\n").code == code


def test_lines_stop_waiting_once_the_peer_is_away(server: ControlServer, run: Runner) -> None:
    """--wait=stored waits for the first batches; when one is not stored, the rest is only queued."""
    server.state = "queued"
    assert run("send", "-lq", "node3", "--wait=stored", "--timeout=1", stdin=b"x\n" * 256 * 100).code == 5
    waits = [call["wait"] for call in server.called("SendMany")]
    assert len(waits) == 100
    assert waits[0] == "stored" and waits[-1] == "queued" and waits.count("stored") < 80


@pytest.mark.slow
def test_slow_lines_are_sent_as_they_come(server: ControlServer) -> None:
    """`tail -f | msgctl send -l`: a line does not wait for the next one."""
    command = [sys.executable, "-m", "msgctl", "--socket", server.path, "send", "-l", "node3"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for text in (b"one\n", b"two\n"):
            process.stdin.write(text)
            process.stdin.flush()
            assert b" stored node3" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(20) == 0
    assert texts(server) == ["one", "two"]


@pytest.mark.slow
def test_full_buffers_on_both_sides_are_no_deadlock(tmp_path: Path) -> None:
    """A server that answers at length, and reads nothing more until its answer is gone."""
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        sock, _ = listener.accept()
        splitter = varlink.Splitter()
        while data := sock.recv(4096):
            splitter.feed(data)
            while (frame := splitter.next()) is not None:
                count = len(varlink.parse_call(frame).parameters["messages"])
                sock.sendall(varlink.reply({"count": count, "state": "queued", "reason": "x" * 500_000}))
        sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with Client(path, timeout_s=30) as client:
            bodies = ["y" * 1000] * 256 * 100
            assert sum(len(ids) for ids, _ in send_many(client, "p", bodies)) == 256 * 100
    finally:
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


def test_send_many_gives_ids_and_answers_in_order(server: ControlServer) -> None:
    """For tests and scripts: bodies of any kind, from any iterable."""
    with Client(server.path) as client:
        answers = list(send_many(client, "node3", (f"m{n}" for n in range(600)), headers={"a": "b"}))
    assert [len(ids) for ids, _ in answers] == [256, 256, 88]
    assert [id for ids, _ in answers for id in ids] == list(server.kept)
    assert texts(server) == [f"m{n}" for n in range(600)]
    assert {answer["state"] for _, answer in answers} == {"stored"}


def test_send_many_raises_the_error_of_a_call(server: ControlServer) -> None:
    """As the exception of that name."""
    server.script["SendMany"] = lambda connection, call: connection.error("StorageRefused", "full")
    with Client(server.path) as client, pytest.raises(StorageRefused, match="full"):
        list(send_many(client, "node3", ["a", "b"]))


def test_batches_keep_to_both_limits() -> None:
    """256 messages, 256 KiB; a bigger body alone; nothing is lost."""
    bodies = [b"x" * size for size in (0, 100_000, 200_000, 300_000, 1, BATCH_BYTES, 5)] + [b"y"] * 300
    found = list(batches(bodies))
    assert [body for batch in found for body in batch] == bodies
    assert all(len(b) <= 256 and (len(b) == 1 or sum(map(len, b)) <= BATCH_BYTES) for b in found)


def test_ids_made_in_bulk_are_uuid7() -> None:
    """Version, variant and time; no two alike."""
    ids = [uuid.UUID(text) for text in new_ids(300)]
    assert len(set(ids)) == 300
    assert {(id.variant, id.version) for id in ids} == {(uuid.RFC_4122, 7)}
    assert [str(id) for id in ids] == [str(id).lower() for id in ids]
    assert abs((ids[0].int >> 80) - time.time() * 1000) < 60_000


def test_each_line_tells_its_own_mark() -> None:
    """Of those that were stored only some may have been handled when the time was over."""
    answer = {"state": "stored", "first_seq": 7, "states": None, "handled": [None, 5]}
    told = [(ids, one["first_seq"], reached(one)) for ids, one in _by_state(["a", "b"], answer)]
    assert [(["a"], 7, "stored"), (["b"], 8, "handled")] == told
    ended = {**answer, "states": ["stored", "expired"], "reason": "late", "handled": [5, None]}
    told = [(ids, one["first_seq"], reached(one)) for ids, one in _by_state(["a", "b"], ended)]
    assert [(["a"], None, "handled"), (["b"], None, "expired")] == told
