"""`msgctl log`, `show`, `why`, `queue`, `status`, `peer`: parameters out, lines in, foreign text harmless."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from msgctl.client import Client
from msgd.wire.varlink import Call
from tests.control_server import NODE, PEER, Connection, ControlServer
from tests.msgctl_run import Runner
from tests.nodes import wait_for
from tests.require import REPOSITORY

FIELDS = [
    "id",
    "peer",
    "direction",
    "seq",
    "kind",
    "state",
    "reason",
    "from",
    "to",
    "user",
    "sent_at",
    "sent_at_ns",
    "stored_at",
    "stored_at_ns",
    "receipt_at",
    "receipt_at_ns",
    "text",
    "headers",
]
AT_NS = 1_795_262_400_131_000_000


def keep(server: ControlServer, id: str, **fields: Any) -> None:
    message = server.keep("node3", {"id": id, "text": "hola"})
    message.update({"sent_at_ns": AT_NS, "stored_at_ns": AT_NS, "receipt_at_ns": AT_NS, **fields})


# --- lines that are ready -----------------------------------------------------------------------------------


@pytest.mark.parametrize("between", ["\n,\n", "\n,"], ids=["as now", "of an older msgd"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_ready_lines_pass_through_without_their_commas(
    server: ControlServer, run: Runner, tmp_path: Path, between: str, count: int
) -> None:
    """All of them, with the cursor of the answer; after an upgrade the old msgd may still run."""
    lines = [f'{{"id":"{number}","text":"a,b\\n,{{}}],"}}' for number in range(count)]
    cursor = tmp_path / "cursor"

    def answer(connection: Connection, call: Call) -> None:
        text = f'{{"messages":[\n{between.join(lines)}\n],"cursor":"c{count}"}}'
        connection.sock.sendall(f'{{"parameters":{text},"continues":true}}\0'.encode())
        connection.reply({"messages": []})

    server.script["Log"] = answer
    done = run("log", "-o", "json", "--cursor-file", str(cursor))
    assert (0, "".join(f"{line}\n" for line in lines)) == (done.code, done.out)
    assert f"c{count}\n" == cursor.read_text()


# --- parameters ---------------------------------------------------------------------------------------------


def test_plain_log_asks_for_everything(server: ControlServer, run: Runner) -> None:
    """No option, no parameter but that people see clock steps; as a stream."""
    assert run("log").code == 0
    assert run("log", "-q").code == 0
    assert run("log", "-o", "json").code == 0
    assert [call.parameters for call in server.calls] == [{"steps": True}, {}, {"format": "json"}]
    assert all(call.more for call in server.calls)


def test_options_become_parameters(server: ControlServer, run: Runner) -> None:
    """journalctl's letters, and ours."""
    words = (
        "-S @10 -U @20.5 -n 5 -r -g Ab+ --peer node3 --direction out --state queued --kind text --user ana"
    )
    assert run("log", *words.split(), "--id", "019a", "--after-cursor=c7").code == 0
    assert server.calls[0].parameters == {
        "steps": True,
        "since_ns": 10_000_000_000,
        "until_ns": 20_500_000_000,
        "lines": 5,
        "reverse": True,
        "grep": "Ab+",
        "peer": "node3",
        "direction": "out",
        "state": "queued",
        "kind": "text",
        "user": "ana",
        "id": "019a",
        "after_cursor": "c7",
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-n"], {"lines": 10}),
        (["-n", "all"], {}),
        (["-e"], {"lines": 1000}),
        (["-e", "-n", "5"], {"lines": 5}),
        (["-e", "-nall"], {}),
        (["-f"], {"lines": 10, "follow": True, "changes": True}),
        (["-f", "-n0"], {"lines": 0, "follow": True, "changes": True}),
        (["-f", "-n", "all"], {"follow": True, "changes": True}),
        (["-f", "-n", "5", "--no-tail"], {"follow": True, "changes": True}),
        (["-f", "-S", "@1"], {"follow": True, "changes": True, "since_ns": 1_000_000_000}),
        (["-f", "--after-cursor=c", "-n1"], {"follow": True, "changes": True, "after_cursor": "c"}),
        (["-f", "--cursor-file", "/nothing-seen-yet"], {"follow": True}),
        (["-f", "-o", "cat"], {"lines": 10, "follow": True}),
        (["-c", "l=1f;o=a0;i=3;m=77", "-n", "2"], {"after_cursor": "l=1f;o=a0;i=2"}),
        (["--cursor=l=1f;o=a0;i=0;m=77"], {"after_cursor": "l=1f;o=9f;i=0"}),
        (["--cursor=l=1f;o=0;i=0"], {"after_cursor": "l=1f;o=0;i=0"}),
        (["--cursor=x"], {"after_cursor": "x"}),
        (["--after-cursor=c", "-n", "2"], {"after_cursor": "c"}),  # the first two: counted here
        (["--after-cursor=c", "-n", "2", "-r"], {"after_cursor": "c", "lines": 2, "reverse": True}),
        (["-g", "disk full"], {"grep": "(?i)disk full"}),
        (["-g", "Disk", "--case-sensitive=no"], {"grep": "(?i)Disk"}),
        (["-g", "disk", "--case-sensitive"], {"grep": "disk"}),
        (["--search", 'disk "is full"'], {"search": 'disk "is full"'}),
    ],
)
def test_defaults_are_those_of_journalctl(
    server: ControlServer, run: Runner, words: list[str], expected: dict[str, Any]
) -> None:
    """-n alone is 10, -e the last 1000, -f begins with the last 10 and tells changes, but not to scripts."""
    assert run("log", *words).code == 0
    assert server.calls[0].parameters == expected | ({} if "cat" in words else {"steps": True})


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["-f", "-r"], "cannot be had with --reverse"),
        (["--direction=up"], "expected out, in"),
        (["--state=lost"], "expected held, queued, stored"),
        (["--kind=x"], "expected text, file"),
        (["-n-5"], "expected a number of lines, or all"),
        (["--since=soon"], "'soon' is not a time"),
        (["--after-cursor=a", "--cursor-file=b"], "--after-cursor and --cursor-file are two ways"),
        (["-c", "a", "--cursor-file=b"], "--cursor and --cursor-file are two ways"),
        (["-o", "xml"], "log has no format 'xml'"),
        (["-S", "@20", "-U", "@10"], "--since is later than --until"),
        (["--cursor-file=/"], "--cursor-file=/: expected the name of a file"),
        (["--cursor-file="], "expected the name of a file"),
        (["--cursor-file=/usr"], "cannot read the cursor file /usr: Is a directory"),
        (["--cursor-file=/nowhere/seen"], "there is no such directory"),
        (["--case-sensitive=maybe"], "expected yes or no"),
        (["--fields", "id"], "--fields chooses nothing in the format short"),
        (["-o", "json", "--fields", "id,colour"], "there is no field 'colour'"),
        (["-o", "cat", "--fields", ","], "--fields names no field"),
    ],
)
def test_wrong_log_is_a_usage_error(server: ControlServer, run: Runner, words: list[str], part: str) -> None:
    """Exit 2, and nothing is asked."""
    done = run("log", *words)
    assert (done.code, server.calls) == (2, [])
    assert part in done.err


# --- cursors ------------------------------------------------------------------------------------------------


def test_cursor_is_shown_at_the_end(server: ControlServer, run: Runner) -> None:
    """The place of the last message that was printed."""
    keep(server, "a")
    keep(server, "b")
    assert run("log", "--show-cursor", "-o", "cat").out == "hola\nhola\n-- cursor: c1\n"


def test_cursor_file_carries_on(server: ControlServer, run: Runner, tmp_path: Path) -> None:
    """Written after a run, read by the next one; unchanged where nothing came."""
    file = tmp_path / "seen"
    keep(server, "a")
    assert run("log", "--cursor-file", str(file)).code == 0
    assert file.read_text() == "c0\n"
    server.kept.clear()
    assert run("log", "--cursor-file", str(file)).code == 0
    assert [call.parameters.get("after_cursor") for call in server.calls] == [None, "c0"]
    assert file.read_text() == "c0\n"
    assert sorted(os.listdir(tmp_path)) == ["control.sock", "seen"]


def test_lines_behind_a_cursor_are_the_first_ones(server: ControlServer, run: Runner, tmp_path: Path) -> None:
    """So that a script that takes two at a time by its cursor file skips none."""
    for name in "abcde":
        keep(server, name, text=name)
    file = tmp_path / "seen"
    file.write_text("c\n")
    for form, out in (("cat", "a\nb\n"), ("json", "a b")):
        done = run("log", "-n", "2", "--cursor-file", str(file), "-o", form)
        assert out == (done.out if form == "cat" else " ".join(one["text"] for one in done.objects))
        assert file.read_text() == "c1\n"


# --- formats ------------------------------------------------------------------------------------------------


def test_json_has_exactly_the_fields_of_the_contract(server: ControlServer, run: Runner) -> None:
    """In their order, one object a line; `data` instead of `text` where the body is not UTF-8."""
    keep(server, "a", text="é\n\x1b")
    keep(server, "b", text=None, data="/wA=")
    done = run("log", "-o", "json")
    text, data = done.objects
    assert list(text) == FIELDS
    assert list(data) == [name if name != "text" else "data" for name in FIELDS]
    assert (text["text"], data["data"]) == ("é\n\x1b", "/wA=")
    assert "é" in done.out


def test_pretty_json_is_the_same_on_many_lines(server: ControlServer, run: Runner) -> None:
    """For people who read JSON."""
    keep(server, "a")
    assert list(json.loads(run("log", "-o", "json-pretty").out)) == FIELDS


def test_short_is_one_line(server: ControlServer, run: Runner) -> None:
    """When, from and to, the state where it is not as it should be, the text; further lines indented."""
    keep(server, "a")
    keep(server, "b", state="rejected", reason="too big", text="one\ntwo\n")
    keep(server, "c", kind="file", state="received", text=None, data="/wA=")
    keep(server, "d", kind="file", text="a.txt", headers={"op": "put", "file": "a.txt"})
    assert run("log").out == (
        "Nov 21 12:00:00 node1 -> node3: hola\n"
        "Nov 21 12:00:00 node1 -> node3 [rejected: too big]: one\n    two\n"
        "Nov 21 12:00:00 node1 -> node3 (file): [2 bytes of data]\n"
        "Nov 21 12:00:00 node1 -> node3 (file put): a.txt\n"
    )
    assert run("log", "-o", "short-iso").out.startswith("2026-11-21T12:00:00+0000 node1 -> node3: hola\n")


def test_times_are_local_unless_utc_is_asked_for(
    server: ControlServer, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--utc."""
    import time

    keep(server, "a")
    monkeypatch.setenv("TZ", "EET-2")
    time.tzset()
    try:
        assert run("log").out.startswith("Nov 21 14:00:00 ")
        assert run("log", "--utc").out.startswith("Nov 21 12:00:00 ")
    finally:
        monkeypatch.setenv("TZ", "UTC0")
        time.tzset()


def test_verbose_has_every_field(server: ControlServer, run: Runner) -> None:
    """Each on its line; `show` prints so."""
    keep(server, "a", headers={"subject": "x\ny"})
    done = run("show", "a")
    assert done.code == 0
    for part in (
        "a\n    peer:      node3\n",
        "sent:      2026-11-21 12:00:00.131000000 +0000\n",
        "from:      node1 (user ana)\n",
        "header:    subject=x\\ny\n",
        "text:      hola\n",
    ):
        assert part in done.out


def test_cat_is_the_body_and_a_line_end(server: ControlServer, run: Runner) -> None:
    """Bytes as they are; `show` adds nothing at all."""
    keep(server, "a", text="no end")
    keep(server, "b", text="end\n")
    keep(server, "c", text=None, data="/wA=")
    assert run("log", "-o", "cat").raw == b"no end\nend\n\xff\x00\n"
    assert run("show", "-o", "cat", "a").raw == b"no end"


# --- a terminal ---------------------------------------------------------------------------------------------


EVIL = "a\x1b]0;owned\x07\x9b31m\u202eb\x7f"


@pytest.mark.parametrize(
    "words",
    [
        *(["-o", form] for form in ("short", "short-iso", "verbose", "cat", "json", "json-pretty", "export")),
        ["--no-full"],
        ["-o", "json", "--fields", "text,from,headers"],
        ["-o", "cat", "--fields", "text,from,headers"],
    ],
)
def test_nothing_foreign_commands_a_terminal(
    server: ControlServer, run: Runner, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Control characters, also C1, and marks that turn the direction: in texts, names, users, headers."""
    monkeypatch.setenv("NO_COLOR", "1")  # colours are control characters, too, but ours
    keep(
        server,
        "a",
        text=EVIL,
        user=EVIL,
        headers={EVIL: EVIL},
        reason=EVIL,
        state="rejected",
        **{"from": EVIL},
    )
    out = run("log", *words, terminal=True).out
    assert "31m" in out and out.replace("\n", "").isprintable()
    if "json" in words[-1]:
        assert json.loads(out)["text"] == EVIL


def test_in_a_pipe_bodies_pass_but_fields_stay_in_their_line(server: ControlServer, run: Runner) -> None:
    """A header with a line end cannot forge a field."""
    keep(server, "a", text="\x1b[31mred", user="x\n    state:     stored")
    out = run("show", "a").out
    assert "\x1b[31mred" in out
    assert "user x\\n    state" in out


def test_words_of_all_the_world_stay_readable(server: ControlServer, run: Runner) -> None:
    """Accents, wide spaces, Persian joiners and joined emoji are no control characters."""
    text = "żółć 日本\u3000語 می\u200cخواهم 👩\u200d🚀 10\u00a0€\tend"
    keep(server, "a", text=text)
    assert run("log", "-o", "cat", terminal=True).out == text + "\n"


def test_colours_only_where_they_are_wanted(
    server: ControlServer, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, without NO_COLOR, not with TERM=dumb."""
    keep(server, "a")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" not in run("log").out
    assert "\x1b[1m" in run("log", terminal=True).out
    assert "\x1b[" in run("status", terminal=True).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("log", terminal=True).out + run("status", terminal=True).out


# --- the other verbs ----------------------------------------------------------------------------------------


def test_status_json_begins_with_the_node(server: ControlServer, run: Runner) -> None:
    """Then one object for each peer, with the daemon's own fields."""
    assert run("status", "-o", "json").objects == [NODE, PEER]
    assert run("peer", "-o", "json").objects == [PEER]


def test_status_is_a_table_for_people(server: ControlServer, run: Runner) -> None:
    """Aligned columns; a reason from afar is harmless even in a pipe."""
    lines = run("status").out.splitlines()
    assert lines[0] == "node1  msgd 0.1.0, up 12 s"
    head, row = lines[-2:]
    assert row.index("away") == head.index("STATE")
    assert "refused \\x1b[31m" in row and "-1.50 ms" in row and "in 20 s" in row


def test_queue_is_streamed(server: ControlServer, run: Runner) -> None:
    """One table, or one object a line."""
    one = {"id": "a", "peer": "node3", "state": "queued", "reason": "offline", "since_ns": AT_NS, "size": 4}
    one |= {"next_try_s": 20.0, "expires_at_ns": None}

    def queue(connection: Connection, call: Call) -> None:
        connection.reply({"messages": [one]}, continues=True)
        connection.reply({"messages": [{**one, "id": "b"}]})

    server.script["Queue"] = queue
    assert [found["id"] for found in run("queue", "-o", "json", "node3").objects] == ["a", "b"]
    assert server.calls[0].parameters == {"peer": "node3"}
    lines = run("queue").out.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "a", "b"]
    server.script["Queue"] = lambda connection, call: connection.reply({"messages": []})
    assert run("queue").out == "nothing waits\n"


def test_why_tells_the_life(server: ControlServer, run: Runner) -> None:
    """The message, its events, what comes next."""
    keep(server, "a")
    life = [{"at_ns": AT_NS, "what": "queued", "detail": "on this disk"}]
    server.script["Why"] = lambda connection, call: connection.reply(
        {"message": server.kept["a"], "life": life, "next": "Nothing."}
    )
    done = run("why", "a")
    assert done.out.splitlines()[1:] == [
        "    Nov 21 12:00:00.131  queued     on this disk",
        "    next: Nothing.",
    ]
    (found,) = run("why", "a", "-o", "json").objects
    assert (list(found["message"]), found["life"], found["next"]) == (FIELDS, life, "Nothing.")


def test_verbs_that_change_call_their_methods(server: ControlServer, run: Runner) -> None:
    """With the parameters of the interface; their answers are one line or one object."""
    keep(server, "a", state="cancelled", reason="by hand")
    receipt = {"receipt": server.receipt(server.kept["a"])}
    answers: dict[str, dict[str, Any]] = {
        "Cancel": receipt,
        "Retry": {"next_try_s": 0.0},
        "PeerAdd": {"changed": True, "peer": PEER},
        "PeerRemove": {"cancelled": 2},
        "PeerRename": {"peer": PEER},
    }
    for method, answer in answers.items():
        server.script[method] = lambda connection, call, answer=answer: connection.reply(answer)
    added = "node3 is a peer now\n"
    for line, method, parameters, out in (
        ("cancel a", "Cancel", {"id": "a"}, "a cancelled node3 (by hand)\n"),
        ("retry node3", "Retry", {"peer": "node3"}, "node3: next try now\n"),
        ("reload", "Reload", {}, ""),
        ("peer add n h --key K", "PeerAdd", {"name": "n", "address": "h", "key": "K"}, added),
        ("peer add n --key K", "PeerAdd", {"name": "n", "key": "K"}, added),
        ("peer rm n", "PeerRemove", {"peer": "n"}, "n is no peer any more; 2 messages to it cancelled\n"),
        ("peer rename n m", "PeerRename", {"peer": "n", "name": "m"}, "n is called node3 now\n"),
    ):  # fmt: skip
        done = run(*line.split())
        assert (done.code, done.out, done.err) == (0, out, "")
        assert server.called(method)[-1] == parameters
        assert len(run(*line.split(), "-o", "json").objects) == (1 if out else 0)
    assert run("peer", "add", "node3", "h:1").code == 2


# --- how it ends --------------------------------------------------------------------------------------------


def start(server: ControlServer, *words: str, **more: Any) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "msgctl", "--socket", server.path, *words]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def follow(connection: Connection, call: Call) -> None:
    """An answer, and then none."""
    connection.reply({"messages": [MESSAGE]}, continues=True)


MESSAGE: dict[str, Any] = {
    "id": "a", "peer": "node3", "direction": "in", "seq": 1, "kind": "text", "state": "received",
    "from": "node3", "to": "node1", "user": "ana", "sent_at": "", "sent_at_ns": 1, "stored_at": "",
    "stored_at_ns": 1, "text": "hola", "headers": {}, "cursor": "c9",
}  # fmt: skip


@pytest.mark.slow
def test_interrupt_ends_follow_quietly(server: ControlServer, tmp_path: Path) -> None:
    """Ctrl-C: 130, nothing on standard error, and the cursor file is where it was read to."""
    server.script["Log"] = follow
    file = tmp_path / "seen"
    with start(server, "log", "-f", "-o", "cat", "--cursor-file", str(file)) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"hola\n"
        while not file.exists():  # written right after the line; pytest-timeout bounds it
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        assert (process.wait(20), process.stderr.read()) == (130, b"")
    assert file.read_text() == "c9\n"


@pytest.mark.slow
@pytest.mark.parametrize("endless", [True, False])
def test_interrupt_right_before_a_wait_is_not_lost(server: ControlServer, endless: bool) -> None:
    """Python runs a handler when a call returns; a signal that comes before the call does not end it. Here
    another thread receives it, so that the wait is certainly not interrupted."""

    def interrupt() -> None:
        wait_for(lambda: server.called("Log"), 20, "the call")
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    server.script["Log"] = lambda connection, call: None
    thread = threading.Thread(target=interrupt)
    with Client(server.path) as client, pytest.raises(KeyboardInterrupt):
        thread.start()
        next(client.stream("Log", endless=endless))
    thread.join()


@pytest.mark.slow
def test_reader_that_goes_away_ends_follow_quietly(server: ControlServer) -> None:
    """`msgctl log -f | head -1`: 0 and no complaint, as soon as there is more to print."""

    def twice(connection: Connection, call: Call) -> None:
        follow(connection, call)
        head_is_gone.wait(20)
        follow(connection, call)

    head_is_gone = threading.Event()
    server.script["Log"] = twice
    with start(server, "log", "-f", "-o", "cat") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"hola\n"
        process.stdout.close()
        head_is_gone.set()
        assert (process.wait(20), process.stderr.read()) == (0, b"")


@pytest.mark.slow
def test_output_that_takes_nothing_is_an_error(server: ControlServer) -> None:
    """A full disk behind `> file` does not pass for success."""
    keep(server, "a")
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "msgctl", "--socket", server.path, "log"]
        done = subprocess.run(
            command, cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, timeout=20, check=False
        )
    assert (done.returncode, done.stderr) == (
        1,
        b"msgctl: cannot write the output: No space left on device\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("closed", "words", "code", "complaint"),
    [
        (">&-", ["log"], 1, b"msgctl: cannot write the output: Bad file descriptor\n"),
        ("<&-", ["send", "node3"], 2, b"msgctl: cannot read standard input: Bad file descriptor\n"),
        ("2>&-", ["log", "-S", "soon"], 2, b""),
    ],
)
def test_closed_output_or_input_is_never_the_socket(
    server: ControlServer, closed: str, words: list[str], code: int, complaint: bytes
) -> None:
    """The lowest free number would be the connection's: messages would be written to msgd as calls."""
    keep(server, "a")
    msgctl = [sys.executable, "-m", "msgctl", "--socket", server.path, *words]
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *msgctl]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", complaint)


def test_error_after_messages_is_still_told(server: ControlServer, run: Runner) -> None:
    """A damaged segment: what is sound is printed, then exit 8."""

    def damaged(connection: Connection, call: Call) -> None:
        connection.reply({"messages": [MESSAGE]}, continues=True)
        connection.error("StorageRefused", "part of the log could not be read")

    server.script["Log"] = damaged
    done = run("log", "-o", "cat")
    assert (done.code, done.out) == (8, "hola\n")
    assert "could not be read" in done.err
