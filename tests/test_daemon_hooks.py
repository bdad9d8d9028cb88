"""Hooks under a real daemon: run for what comes, through reloads, deaths and stops."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.nodes import Node, Nodes, is_running, wait_for

pytestmark = pytest.mark.slow

SOON_S = 20.0
# One line for each run, written when it begins; the body says what it does then.
SCRIPT = """read word; sleep 1000 & echo "$word $MSGD_ATTEMPT $$ $!" >> {book}
case $word in wait*) {wait};; fail*) exit 3;; esac"""
SAYING = """
[hook.says]
command = ["/bin/sh", "-c", 'echo "$MSGD_SOCKET $MSGD_HEADER_A_B"; echo "<$(cat)>" >&2']
"""
WAIT = "while [ ! -e {book}.go ]; do sleep 0.01; done; echo over >> {book}"


class Book:
    """A hook's command that keeps a book of its runs."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / name
        self.gate = directory / f"{name}.go"
        wait = WAIT.format(book=self.path)
        self.script = SCRIPT.format(book=self.path, wait=wait)

    @property
    def settings(self) -> str:
        return f"command = ['/bin/sh', '-c', '''{self.script}''']"

    @property
    def lines(self) -> list[list[str]]:
        """Of each run: word, attempt, pid, that of a child; of one that was let go: over."""
        return [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []

    @property
    def words(self) -> list[str]:
        return [line[0] for line in self.lines]

    def wait_for(self, *words: str) -> None:
        wait_for(lambda: list(words) == self.words, SOON_S, f"{words}, there is {self.words}")

    def open(self) -> None:
        """Let a run that waits go on."""
        self.gate.touch()


def hook(name: str, book: Book, more: str = "") -> str:
    return f"[hook.{name}]\n{book.settings}\n{more}\n"


def with_hooks(nodes: Nodes, *settings: str) -> tuple[Node, Node]:
    """Two nodes; the second has hooks."""
    a, b = nodes.pair()
    configure(b, *settings)
    return a, b


def configure(node: Node, *settings: str) -> None:
    parts = node.directory / "msgd.d"
    parts.mkdir(exist_ok=True)
    (parts / "hooks.toml").write_text("".join(settings))
    done = node.ctl("reload")
    assert done.returncode == 0, done.stderr


def sent(node: Node, text: str, *words: str) -> str:
    (message,) = node.query("send", "b", f"{text}\n", "--wait=stored", *words)
    return str(message["id"])


def hook_pid(node: Node, name: str = "x") -> int:
    (pid,) = node.pids()[f"hook {name}"]
    return pid


def told(node: Node, event: str, **fields: Any) -> list[dict[str, Any]]:
    return [e for e in node.events() if e["event"] == event and fields.items() <= e.items()]


def handled(node: Node, name: str = "hook-x") -> bool:
    """Whether the consumer has nothing before it."""
    (consumer,) = (one for one in node.query("consumer") if one["name"] == name)
    return (consumer["behind"], consumer["open"]) == (0, 0)


def test_a_hook_runs_for_each_message_in_order(nodes: Nodes, tmp_path: Path) -> None:
    """What came before it was configured, too; a failure holds the next one up, or is set aside.

    A command knows the control socket; its lines are events of the message.
    """
    a, b = nodes.pair()
    sent(a, "one")
    x, y = Book(tmp_path, "x"), Book(tmp_path, "y")
    others = f"{SAYING}[hook.absent]\ncommand = ['/nonexistent/program']\n"
    configure(b, hook("x", x, "max_attempts = 2"), hook("y", y, 'start = "now"\nkind = "text"'), others)
    wait_for(lambda: any(c["name"] == "hook-y" for c in b.query("consumer")), SOON_S, "hook y to begin")
    failing = sent(a, "fail", "-H", "a-b=c d")
    sent(a, "two")
    x.wait_for("one", "fail", "fail", "two")
    assert ["1", "2"] == [line[1] for line in x.lines if line[0] == "fail"]
    assert [(failing, "aside", 2, "it ended with 3")] == [
        (m["id"], m["state"], m["attempts"], m["why"]) for m in b.query("queue", "--as", "hook-x")
    ]
    assert ["fail"] * len(y.words) == y.words  # it tries for ever
    reasons = [(e["attempt"], e["reason"]) for e in told(b, "hook.failed", hook="x")]
    assert [(1, "it ended with 3"), (2, "it ended with 3")] == reasons
    (refused,) = told(b, "hook.refused")
    assert ("absent", "its command /nonexistent/program is not there") == (refused["hook"], refused["reason"])
    said = {e["text"] for e in told(b, "hook.said", hook="says", id=failing, peer="a")}
    assert {f"{b.socket} c d", "<fail>"} <= said


def test_a_reload_lets_a_command_finish_under_its_old_settings(nodes: Nodes, tmp_path: Path) -> None:
    """Then the new ones hold; a hook that is gone from the configuration runs no more."""
    old, new = Book(tmp_path, "old"), Book(tmp_path, "new")
    a, b = with_hooks(nodes, hook("x", old))
    sent(a, "wait")
    old.wait_for("wait")
    pid = hook_pid(b)
    configure(b, hook("x", new))
    sent(a, "two")
    assert pid == hook_pid(b)
    old.open()
    new.wait_for("two")
    assert ["wait", "over"] == old.words
    configure(b, "")
    wait_for(lambda: "hook x" not in b.pids(), SOON_S, "the hook to end")
    configure(b, hook("x", new, 'peer = "a"'))
    wait_for(lambda: told(b, "hook.refused"), SOON_S, "another filter to be refused")
    (refused,) = told(b, "hook.refused")
    assert "that is fixed" in refused["reason"]


def test_no_death_loses_a_message_or_handles_one_twice(nodes: Nodes, tmp_path: Path) -> None:
    """Of the hook's process, the log process, msgd itself, while a command runs; and an orderly stop."""
    book = Book(tmp_path, "x")
    a, b = with_hooks(nodes, hook("x", book))
    sent(a, "wait1")
    book.wait_for("wait1")
    os.kill(hook_pid(b), signal.SIGKILL)
    wait_for(lambda: not is_running(int(book.lines[0][2])), SOON_S, "the command to die with it")
    book.wait_for("wait1", "wait1")
    wait_for(lambda: not is_running(int(book.lines[0][3])), SOON_S, "what it had started to end")
    assert ["1", "2"] == [line[1] for line in book.lines]  # the command died: a second attempt

    (log,) = b.pids()["log"]
    os.kill(log, signal.SIGKILL)
    wait_for(lambda: b.pids().get("log", [log]) != [log], SOON_S, "another log process")
    book.open()
    sent(a, "two")
    book.wait_for("wait1", "wait1", "over", "two")  # its command ended with 0 when nobody could be told
    wait_for(lambda: handled(b), SOON_S, "all to be handled")

    book.gate.unlink()
    sent(a, "wait3")
    book.wait_for("wait1", "wait1", "over", "two", "wait3")
    assert 0 == b.stop()
    assert not is_running(int(book.lines[-1][2]))
    b.start()
    book.wait_for("wait1", "wait1", "over", "two", "wait3", "wait3")
    assert "1" == book.lines[-1][1]  # ended by us: no failure of its own
    b.kill9()
    wait_for(lambda: not is_running(int(book.lines[-1][2])), SOON_S, "the command to die with msgd")
    book.open()
    b.start()
    book.wait_for("wait1", "wait1", "over", "two", "wait3", "wait3", "wait3", "over")


def test_a_hook_whose_consumer_is_forgotten_begins_anew_at_once(nodes: Nodes, tmp_path: Path) -> None:
    """At its start, so what comes from then on is handled."""
    book = Book(tmp_path, "x")
    a, b = with_hooks(nodes, hook("x", book, 'start = "now"'))
    wait_for(lambda: len(told(b, "hook.begun", hook="x")) == 1, SOON_S, "the hook to begin")
    assert 0 == b.ctl("consumer", "rm", "hook-x").returncode
    wait_for(lambda: len(told(b, "hook.begun", hook="x")) == 2, SOON_S, "the hook to begin anew")
    sent(a, "one")
    book.wait_for("one")
    assert [] == told(b, "hook.refused")


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_with_log_processes_that_die_each_message_is_handled_once(nodes: Nodes, tmp_path: Path) -> None:
    """At any moment: exit 0 was seen, so it counts."""
    kills, chance = 100, random.Random(7)
    book = Book(tmp_path, "x")
    a, b = with_hooks(nodes, hook("x", book))
    words = [f"word{number}" for number in range(20 * kills)]
    process = a.ctl("send", "b", "--lines", stdin="".join(f"{word}\n" for word in words), within_s=120)
    assert 0 == process.returncode
    for _ in range(kills):
        before = len(book.lines)
        wanted = min(len(words), before + chance.randrange(1, 12))
        wait_for(lambda wanted=wanted: len(book.lines) >= wanted, SOON_S, "some to be handled")
        for pid in b.pids().get("log", ()):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(book.lines) >= len(words), 60 + kills, "all to be handled")
    assert words == book.words
