"""`msgctl recv` against a control server of the test's own: what it asks, prints, runs, settles."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from msgctl import consuming
from msgctl.recv import pause_s
from msgd.wire import varlink
from tests.control_server import Connection, ControlServer
from tests.msgctl_run import Runner
from tests.nodes import is_running, wait_for
from tests.require import REPOSITORY
from tests.terminal import Terminal

IDS = [f"0193{number:04x}-0000-7000-8000-000000000000" for number in range(8)]


class Consumers:
    """One consumer in memory, as the daemon would have it: what was not settled comes again."""

    def __init__(self, server: ControlServer, *bodies: str | bytes) -> None:
        self.server = server
        self.waiting = [message(server, number, body) for number, body in enumerate(bodies)]
        self.attempts: dict[str, int] = {}
        self.settled: list[tuple[str, str, str | None]] = []  # id, outcome, why
        self.cut_next = 0  # so many calls of RecvNext end with the connection instead of an answer
        self.is_new = True  # the present message is handed out for the first time since it was settled
        server.script["RecvBegin"] = lambda ch, call: ch.reply({"consumer": {}, "created": True})
        server.script["RecvNext"] = self.next
        server.script["RecvSettle"] = self.settle

    def next(self, connection: Connection, call: varlink.Call) -> None:
        self._settle(call)
        if self.cut_next:
            self.cut_next -= 1
            connection.cut()
            return
        if not self.waiting:
            connection.reply({"message": None})
            return
        id = self.waiting[0]["id"]
        self.attempts[id] = self.attempts.get(id, 0) + self.is_new
        self.is_new = False
        connection.reply({"message": self.waiting[0], "attempt": self.attempts[id]})

    def settle(self, connection: Connection, call: varlink.Call) -> None:
        self._settle(call)
        connection.reply({})

    def _settle(self, call: varlink.Call) -> None:
        for each in call.parameters.get("settle") or ():
            if each["outcome"] != "aside":  # which may be told without the attempt that was not made
                assert each["attempt"] == self.attempts[each["id"]]
            self.settled.append((each["id"], each["outcome"], each.get("why")))
            self.is_new = True
            if each["outcome"] in ("done", "aside"):
                self.waiting = [m for m in self.waiting if m["id"] != each["id"]]


def message(server: ControlServer, number: int, body: str | bytes) -> dict[str, Any]:
    given = {"text": body} if isinstance(body, str) else {"data": varlink_base64(body)}
    kept = server.keep("node3", {"id": IDS[number], "headers": {"a-b": "c d"}, **given})
    return {**kept, "direction": "in", "from": "node3", "to": "node1", "state": "received"}


def varlink_base64(body: bytes) -> str:
    import base64

    return base64.b64encode(body).decode()


def done(*numbers: int) -> list[tuple[str, str, str | None]]:
    return [(IDS[number], "done", None) for number in numbers]


def started(server: ControlServer, *words: str, **more: Any) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "msgctl", "--socket", server.path, "recv", "--as", "job", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=REPOSITORY, **{**pipes, **more})


def ran(server: ControlServer, *words: str) -> tuple[int, str, str]:
    """A process of its own: it runs commands, for which there may be no other thread."""
    process = started(server, *words)
    out, err = process.communicate(timeout=30)
    return process.returncode, out.decode(), err.decode()


# --- printing -----------------------------------------------------------------------------------------------


def test_messages_are_printed_and_then_settled(server: ControlServer, run: Runner) -> None:
    """Each is settled with the call that asks for the next one; -n counts them."""
    consumer = Consumers(server, "one", "two\n", "three")
    ended = run("recv", "--as", "job", "-n", "2", "-o", "cat")
    assert (0, "one\ntwo\n", "") == (ended.code, ended.out, ended.err)
    assert done(0, 1) == consumer.settled
    assert ["one"] == [m["text"] for m in server.kept.values()][:1]
    assert [None, [{"id": IDS[0], "outcome": "done", "attempt": 1}]] == [
        call.get("settle") or None for call in server.called("RecvNext")
    ]


def test_what_a_consumer_is_asked_for_reaches_the_daemon(server: ControlServer, run: Runner) -> None:
    Consumers(server)
    words = ("--peer", "node3", "--kind", "ring", "--from", "now", "--timeout", "0")
    assert 5 == run("recv", "--as", "job", *words).code
    (begun,) = server.called("RecvBegin")
    assert ("job", "node3", "ring", "now") == tuple(begun[name] for name in ("name", "peer", "kind", "from"))
    assert {begun["holder"]} == {call["holder"] for call in server.called("RecvNext")}


def test_json_is_as_log_prints_it(server: ControlServer, run: Runner) -> None:
    Consumers(server, b"\xff")
    (found,) = run("recv", "--as", "job", "-n", "1", "-o", "json").objects
    assert ("/w==", {"a-b": "c d"}, "received") == (found["data"], found["headers"], found["state"])


def test_nothing_within_the_timeout_is_5_and_something_is_0(server: ControlServer, run: Runner) -> None:
    """The time begins anew with each message."""
    Consumers(server, "one")
    assert 0 == run("recv", "--as", "job", "--timeout", "0").code
    assert 5 == run("recv", "--as", "job", "--timeout", "0").code


def test_what_could_not_be_written_is_not_done(server: ControlServer) -> None:
    """A reader that has gone ends it quietly; the message comes again."""
    consumer = Consumers(server, "x" * 200_000, "two")
    read_fd, write_fd = os.pipe()
    process = started(server, "-o", "cat", stdout=write_fd)
    os.close(write_fd)
    assert b"x" == os.read(read_fd, 1)
    os.close(read_fd)
    assert b"" == process.communicate(timeout=30)[1]
    assert (0, []) == (process.returncode, consumer.settled)


def test_what_was_lost_is_told(server: ControlServer, run: Runner) -> None:
    server.script["RecvBegin"] = lambda ch, call: ch.reply({"consumer": {}, "created": False})
    server.script["RecvNext"] = lambda ch, call: ch.reply({"message": None, "lost": 3})
    ended = run("recv", "--as", "job", "--timeout", "0")
    assert "3 messages of this consumer are not kept any more" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "recv needs --as NAME"),
        (("--as", "a", "-n", "0"), "-n 0: expected a number from 1 to 999999999"),
        (("--as", "a", "-n", "1000000000"), "-n 1000000000: expected a number from 1 to 999999999"),
        (("--as", "a", "--kind", "letter"), "--kind=letter: expected text, file, call, result, ring\n"),
        (("--as", "a", "--kind", "control"), "--kind=control: expected text, file, call, result, ring\n"),
        (("--as", "a", "--from", "here"), "--from=here: expected oldest or now"),
        (("--as", "a", "--max-attempts", "2"), "--max-attempts is for a command"),
        (("--as", "a", "--timeout", "soon"), "soon"),
        (("--as", "a", "--"), "no command stands behind --"),
        (("--as", "a", "-o", "json", "--", "cat"), "-o is for messages that are printed"),
        (("--as", "a", "--utc", "--", "cat"), "--utc is for messages that are printed"),
        (("--as", "a", "cat", "x y"), "msgctl recv --as a -- cat 'x y'\n"),
        (("--as", "a", "cat", "--", "-n"), "the command stands behind --, 'cat' stands before it"),
        (("--as", "a", "--", "no-such-program"), "cannot run no-such-program: there is no such program"),
        (("--as", "a", "--", "/etc/passwd"), "cannot run /etc/passwd: the file is not executable"),
        (("--as", "a", "--", "/etc"), "cannot run /etc: it is a directory"),
        (("--as", "a", "--", "cat -n"), "a program and its arguments are words of their own"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_asked(
    server: ControlServer, run: Runner, words: tuple[str, ...], said: str
) -> None:
    ended = run("recv", *words)
    assert (2, "", []) == (ended.code, ended.out, server.calls)
    assert said in ended.err


# --- commands -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_command_gets_the_body_and_the_environment(server: ControlServer, tmp_path: Path) -> None:
    """Once per message, its words as they stand: no shell, no body among them."""
    consumer = Consumers(server, "one", b"\xff\0")
    script = f'cat >> {tmp_path}/bodies; echo "$0 $1 $MSGD_ID $MSGD_ATTEMPT $MSGD_CONSUMER $MSGD_HEADER_A_B"'
    code, out, err = ran(server, "-n", "2", "--", "sh", "-c", script, "$HOME", "* ;")
    expected = "".join(f"$HOME * ; {id} 1 job c d\n" for id in IDS[:2])
    assert (0, expected, "") == (code, out, err)
    assert b"one\xff\0" == (tmp_path / "bodies").read_bytes()
    assert done(0, 1) == consumer.settled


@pytest.mark.slow
def test_what_a_peer_says_need_not_fit_the_locale(server: ControlServer) -> None:
    consumer = Consumers(server, "one")
    consumer.waiting[0]["headers"] = {"a-b": "日本"}
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = started(server, "-n", "1", "--", "sh", "-c", 'echo "$MSGD_HEADER_A_B"', env=plain)
    out, err = process.communicate(timeout=30)
    assert (0, "日本\n", b"") == (process.returncode, out.decode(), err)


@pytest.mark.slow
def test_a_failure_is_tried_again_and_then_set_aside(server: ControlServer) -> None:
    """With --max-attempts; the next one comes then. What is set aside is not handled."""
    consumer = Consumers(server, "one", "two")
    script = "read x; [ $x = two ] || exit 3"
    code, _, err = ran(server, "--max-attempts", "2", "-n", "1", "--", "sh", "-c", script)
    why = "sh ended with 3"
    assert [(IDS[0], "failed", why), (IDS[0], "aside", why), *done(1)] == consumer.settled
    assert 0 == code
    told = err.splitlines()
    assert f"msgctl: sh ended with 3 ({IDS[0]}, attempt 1): again in " in told[0]
    assert told[1].endswith("attempt 2): set aside, see `msgctl queue --as job`")


@pytest.mark.slow
def test_what_had_all_its_attempts_is_set_aside_without_one_more(server: ControlServer) -> None:
    """A command that takes recv with it never gets to fail."""
    consumer = Consumers(server, "one")
    consumer.attempts[IDS[0]] = 2
    code, out, err = ran(server, "--max-attempts", "2", "--timeout", "0", "--", "echo", "ran")
    assert [(IDS[0], "aside", "its last attempt had no end")] == consumer.settled
    assert (5, "") == (code, out)
    assert "attempt 2): set aside, see `msgctl queue --as job`" in err
    (settled,) = (each for call in server.called("RecvSettle") for each in call["settle"])
    assert 2 == settled["attempt"]  # the third was not made


@pytest.mark.slow
@pytest.mark.parametrize(("script", "code", "numbers"), [("exit 3", 5, (0,)), ("grep -q one", 0, (0, 1))])
def test_no_attempt_is_waited_for_beyond_the_timeout(
    server: ControlServer, script: str, code: int, numbers: tuple[int, ...]
) -> None:
    """The failure is told, and the message goes back with the connection. The time begins with a success."""
    consumer = Consumers(server, "one", "two")
    began_s = time.monotonic()
    ended, _, err = ran(server, "--timeout", "0.4s", "--", "sh", "-c", script)
    assert 0.4 <= time.monotonic() - began_s < 5
    assert code == ended
    assert [IDS[number] for number in numbers] == [each[0] for each in consumer.settled]
    assert "failed" == consumer.settled[-1][1]
    assert f"({IDS[numbers[-1]]}, attempt 1): not again within --timeout, it goes back\n" in err


@pytest.mark.slow
def test_with_time_left_what_has_failed_is_tried_again(server: ControlServer) -> None:
    consumer = Consumers(server, "one")
    assert 5 == ran(server, "--timeout", "1.4s", "--", "sh", "-c", "exit 3")[0]
    assert ["failed", "failed"] == [each[1] for each in consumer.settled]


@pytest.mark.slow
@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_an_outcome_that_cannot_be_noted_is_told(
    server: ControlServer, tmp_path: Path, number: signal.Signals | None
) -> None:
    """msgd went away while the command ran: --timeout holds for the wait; a signal ends it, too."""
    Consumers(server, "one")
    server.script["RecvSettle"] = lambda ch, call: ch.cut()
    timeout = ("--timeout", "0.3s") if number is None else ()
    process = started(server, "-n", "1", *timeout, "--", "true")
    if number is not None:
        wait_for(lambda: len(server.called("RecvSettle")) > 1, 10, "recv to try again")
        process.send_signal(number)
    err = process.communicate(timeout=30)[1].decode()
    assert (3 if number is None else -number) == process.returncode
    assert f"msgctl: what became of {IDS[0]} could not be noted: it may come again\n" in err


@pytest.mark.slow
def test_a_restart_while_the_command_ran_costs_nothing(server: ControlServer) -> None:
    """Whatever --timeout is: the broken connection is made again once at least."""
    consumer = Consumers(server, "one")
    cuts = iter([True])

    def settle(connection: Connection, call: varlink.Call) -> None:
        if next(cuts, False):
            connection.cut()
        else:
            consumer.settle(connection, call)

    server.script["RecvSettle"] = settle
    assert 0 == ran(server, "-n", "1", "--timeout", "0", "--", "true")[0]
    assert done(0) == consumer.settled


def test_the_pauses_double_up_to_a_minute() -> None:
    """Each somewhere between half and all of it."""
    for attempt, whole_s in ((1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1_000_000, 60)):
        pauses = [pause_s(attempt) for _ in range(50)]
        assert whole_s / 2 <= min(pauses) < max(pauses) <= whole_s


@pytest.mark.slow
def test_what_cannot_be_run_goes_back(server: ControlServer, tmp_path: Path) -> None:
    """Exit code 2, and the attempt does not count."""
    consumer = Consumers(server, "one")
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    code, _, err = ran(server, "--", str(script))
    assert (2, [(IDS[0], "release", None)]) == (code, consumer.settled)
    assert f"cannot run {script}: No such file or directory" in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("command", "outcome"), [("exit 0", "done"), ("exit 7", "release")])
def test_a_signal_is_passed_on_and_waits_for_the_command(
    server: ControlServer, tmp_path: Path, number: signal.Signals, command: str, outcome: str
) -> None:
    """What the command then did is settled before recv ends by that signal."""
    consumer = Consumers(server, "one", "two")
    script = f"trap '{command}' TERM INT; echo ready > {tmp_path}/ready; while :; do sleep 0.01; done"
    process = started(server, "--", "sh", "-c", script)
    wait_for(lambda: (tmp_path / "ready").exists(), 10, "the command to run")
    process.send_signal(number)
    process.communicate(timeout=10)
    assert [(IDS[0], outcome)] == [each[:2] for each in consumer.settled]
    assert process.returncode == (-signal.SIGTERM if number == signal.SIGTERM else 130)


@pytest.mark.slow
def test_ctrl_c_reaches_the_command_once(server: ControlServer, tmp_path: Path) -> None:
    """The terminal sends it to both; recv does not pass it on a second time."""
    consumer = Consumers(server, "one")
    hits = tmp_path / "hits"
    script = (
        f"trap 'echo hit >> {hits}' INT; echo ready; while [ ! -e {hits} ]; do sleep 0.01; done; sleep 0.1"
    )
    with Terminal("--socket", server.path, "recv", "--as", "job", "--", "sh", "-c", script) as terminal:
        terminal.see("ready")
        terminal.interrupt()
        assert 130 == terminal.end()
    assert (done(0), "hit\n") == (consumer.settled, hits.read_text())


@pytest.mark.slow
def test_a_command_dies_with_recv(server: ControlServer, tmp_path: Path) -> None:
    """kill -9 leaves nobody who might handle the message a second time."""
    consumer = Consumers(server, "one")
    process = started(
        server,
        "--",
        "sh",
        "-c",
        f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 1000",
    )
    wait_for(lambda: (tmp_path / "pid").exists(), 10, "the command to run")
    pid = int((tmp_path / "pid").read_text())
    process.kill()
    process.communicate(timeout=10)
    wait_for(lambda: not is_running(pid), 5, "the command to end")
    assert [] == consumer.settled


# --- a daemon that comes and goes ---------------------------------------------------------------------------


def test_a_lost_connection_is_made_again(
    server: ControlServer, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same holder; what was settled is said again; told once."""
    monkeypatch.setattr(consuming, "FIRST_S", 0.0)
    consumer = Consumers(server, "one", "two")
    consumer.cut_next = 3
    ended = run("recv", "--as", "job", "-n", "2", "-o", "cat")
    assert (0, "one\ntwo\n") == (ended.code, ended.out)
    assert 1 == ended.err.count("waiting until it can go on")
    assert 1 == len({call["holder"] for call in server.called("RecvNext")})


def test_a_full_disk_is_waited_for(
    server: ControlServer, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was handled is settled when there is room again, on the same connection."""
    monkeypatch.setattr(consuming, "FIRST_S", 0.0)
    consumer = Consumers(server, "one")
    refusals = iter(range(2))

    def settle(connection: Connection, call: varlink.Call) -> None:
        if next(refusals, None) is None:
            consumer.settle(connection, call)
        else:
            connection.error("StorageRefused", "The disk is full.")

    server.script["RecvSettle"] = settle
    ended = run("recv", "--as", "job", "-n", "1", "-o", "cat")
    assert (0, "one\n", done(0)) == (ended.code, ended.out, consumer.settled)
    assert "msgctl: The disk is full: waiting until it can go on\n" == ended.err


def test_what_was_printed_and_cannot_be_noted_is_told(server: ControlServer, run: Runner) -> None:
    Consumers(server, "one")
    server.script["RecvSettle"] = lambda ch, call: ch.cut()
    ended = run("recv", "--as", "job", "-n", "1", "--timeout", "0.2s", "-o", "cat")
    assert (3, "one\n") == (ended.code, ended.out)
    assert f"what became of {IDS[0]} could not be noted: it may come again" in ended.err


def test_a_daemon_that_stays_away_is_waited_for_within_the_timeout(
    server: ControlServer, run: Runner
) -> None:
    """Then it is exit code 3."""
    consumer = Consumers(server)
    consumer.cut_next = 1 << 30
    began_s = time.monotonic()
    ended = run("recv", "--as", "job", "--timeout", "0.2s")
    assert 3 == ended.code
    assert 0.2 <= time.monotonic() - began_s < 5


# --- looking after consumers --------------------------------------------------------------------------------


CONSUMER = {
    "name": "job", "peer": "node3", "kind": None, "cursor": "c", "behind": 7, "open": 1, "aside": 2,
    "created_at_ns": 1, "last_ns": 1_795_262_400_000_000_000,
}  # fmt: skip
ASIDE = {
    "id": IDS[0], "peer": "node3", "state": "aside", "attempts": 5, "why": "sh ended with 3\x1b[31m",
    "since_ns": 1_795_262_400_000_000_000,
}  # fmt: skip


def test_consumers_are_listed(server: ControlServer, run: Runner) -> None:
    server.script["Consumers"] = lambda ch, call: ch.reply(
        {"consumers": [CONSUMER, {**CONSUMER, "behind": None}]}
    )
    head, line, other = run("consumer").out.splitlines()
    assert ["CONSUMER", "PEER", "BEHIND", "OPEN", "ASIDE", "LAST"] == head.split()
    assert ["job", "node3", "7", "1", "2"] == line.split()[:5]
    assert "many" == other.split()[2]
    times = {"created_at": "1970-01-01T00:00:00.000000001Z", "last_at": "2026-11-21T12:00:00.000000000Z"}
    assert [CONSUMER | times] == run("consumer", "ls", "-o", "json").objects[:1]


def test_what_a_consumer_failed_at_is_shown(server: ControlServer, run: Runner) -> None:
    server.script["ConsumerQueue"] = lambda ch, call: ch.reply({"waiting": [ASIDE]})
    out = run("queue", "--as", "job").out
    assert IDS[0] in out and "aside" in out and "sh ended with 3\\x1b[31m" in out
    assert [ASIDE] == run("queue", "--as", "job", "-o", "json").objects
    assert 2 == run("queue", "node3", "--as", "job").code
    server.script["ConsumerQueue"] = lambda ch, call: ch.reply({"waiting": []})
    assert "nothing is in work or set aside\n" == run("queue", "--as", "job").out


def test_consumers_are_mended_and_forgotten(server: ControlServer, run: Runner) -> None:
    server.script["ConsumerRetry"] = lambda ch, call: ch.reply({"count": 1})
    server.script["ConsumerRemove"] = lambda ch, call: ch.error("UnknownConsumer", "no consumer")
    assert "1 message for job will come again\n" == run("consumer", "retry", "job", IDS[0]).out
    assert [{"name": "job", "id": IDS[0]}] == server.called("ConsumerRetry")
    assert 7 == run("consumer", "rm", "job").code
