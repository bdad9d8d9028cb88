"""`msgctl chat` with real daemons: peers that talk, are away, are not trusted; msgd that is killed."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.nodes import Node, Nodes, wait_for
from tests.require import REPOSITORY
from tests.terminal import Terminal

XTERM = {"TERM": "xterm-256color"}


def person(node: Node, peer: str, *words: str) -> Terminal:
    return Terminal("--socket", os.fspath(node.socket), "chat", peer, *words, env=XTERM)


@contextmanager
def script(node: Node, peer: str, output: Path, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A chat whose input is written by the test, and whose output goes to a file."""
    command = [sys.executable, "-m", "msgctl", "--socket", os.fspath(node.socket), "chat", peer, *words]
    with (
        output.open("wb") as file,
        subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=file, bufsize=0) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def say(process: "subprocess.Popen[bytes]", *lines: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(b"".join(line + b"\n" for line in lines))


def sent(node: Node, peer: str) -> list[str]:
    """The texts of what this node has sent, in the log's order."""
    return [str(m.get("text")) for m in node.query("log", "--peer", peer, "--direction", "out")]


@pytest.mark.slow
def test_two_scripts_talk_by_lines(nodes: Nodes, tmp_path: Path) -> None:
    """Each hears what the other says, byte for byte; both hear the other's farewell, and end with 0."""
    a, b = nodes.pair()
    one, other = tmp_path / "one", tmp_path / "other"
    assert 0 == a.ctl("chat", "b", stdin="before\n").returncode
    with script(a, "b", one, "-n", "0") as first, script(b, "a", other, "-o", "json", "-n", "1") as second:
        wait_for(lambda: b"adios" in other.read_bytes(), 20, "the newest from before")
        say(first, b"\xff raw", "qué".encode(), b"", b"/etc/passwd")
        wait_for(lambda: b"/etc/passwd" in other.read_bytes(), 20, "the lines there")
        say(second, b"answer")
        wait_for(lambda: b"answer\n" == one.read_bytes(), 20, "the answer, alone")
        say(first, b"adios", b"never read")
        assert 0 == first.wait(20)
        wait_for(lambda: 2 == other.read_bytes().count(b"adios"), 20, "the farewell")
        assert second.stdin is not None and second.poll() is None
        second.stdin.close()
        assert 0 == second.wait(20)
    heard = [json.loads(line) for line in other.read_text().splitlines()]
    assert ["adios", "/yByYXc=", "qué", "", "/etc/passwd", "adios"] == [
        m["data"] if "data" in m else m["text"] for m in heard
    ]
    assert {"chat": "left"} == heard[-1]["headers"]
    assert ["answer", "adios"] == sent(b, "a")


@pytest.mark.slow
def test_person_at_an_address_never_paired_sees_the_words_and_says_yes(nodes: Nodes) -> None:
    """What was typed is held, flows once both have said yes, and the chat then knows the name."""
    a, b = nodes.both()
    with person(a, b.address) as t:
        t.see(f"{b.address} is not paired")
        t.answer("hola")
        t.see("Words: ")
        t.answer("/pair")
        wait_for(lambda: b.ctl("pair", "accept", "a").returncode == 0, 20, "the request there")
        t.see("hola")
        t.see("✓")
        t.see("b>")
        t.answer("adios")
        assert 0 == t.end()
    assert ["hola", "adios"] == sent(a, "b")


@pytest.mark.slow
def test_what_is_typed_survives_both_daemons(nodes: Nodes) -> None:
    """The peer's is killed, then the own one, while lines wait and one is half typed; marks come later."""
    a, b = nodes.pair()
    with person(a, "b") as t:
        t.see("b connected")
        t.answer("first")
        t.see("✓")
        b.kill9()
        t.see("away since")
        t.answer("second")
        t.see("offline")
        t.press("thi")
        a.kill9()
        t.see("what is typed waits in this chat")
        t.press("rd\n")
        t.see("msgd is away")
        a.start()
        b.start()
        t.see("msgd is back")
        for text in ("second", "third"):
            t.see(text)
            t.see("✓")
        t.answer("/quit")
        assert 0 == t.end()
    assert ["first", "second", "third", "adios"] == sent(a, "b")
    wait_for(lambda: 4 == len(b.query("log", "--peer", "a")), 20, "all of them there")


def storm(nodes: Nodes, tmp_path: Path, seed: int, kills: int) -> None:
    """Lines go in while processes of both daemons are killed: all come out, once and in order."""
    chance = random.Random(seed)
    a, b = nodes.pair()
    output = tmp_path / "heard"
    said = 0
    with script(b, "a", output, "-n", "999999") as ear, script(a, "b", tmp_path / "none") as mouth:
        for _ in range(kills):
            count = chance.randrange(1, 40)
            say(mouth, *(b"%d" % number for number in range(said, said + count)))
            said += count
            if chance.random() < 0.5:
                last = b"%d\n" % (said - 1)
                wait_for(lambda last=last: output.read_bytes().endswith(last), 60, f"line {said}")
            kill_one(chance.choice((a, b)), chance)
        assert mouth.stdin is not None
        mouth.stdin.close()
        wait_for(lambda: output.read_bytes().endswith(b"adios\n"), 60, "the last line")
        assert 0 == mouth.wait(60)
        assert ear.poll() is None
    assert [*map(str, range(said)), "adios"] == output.read_text().split("\n")[:-1]
    assert [*map(str, range(said)), "adios"] == sent(a, "b")


def kill_one(node: Node, chance: random.Random) -> None:
    """Any process of it but the supervisor."""
    pids = [pid for role, found in node.pids().items() if role != "supervisor" for pid in found]
    if pids:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(pids), signal.SIGKILL)


@pytest.mark.slow
def test_killed_processes_cost_a_chat_no_line(nodes: Nodes, tmp_path: Path) -> None:
    storm(nodes, tmp_path, seed=1, kills=8)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 4))
def test_killed_processes_cost_a_chat_no_line_long(nodes: Nodes, tmp_path: Path, seed: int) -> None:
    storm(nodes, tmp_path, seed, kills=100)
