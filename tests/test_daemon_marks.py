"""Between real daemons: a sender hears that its message was handled; answers, and whole conversations."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from msgctl.client import new_id
from tests.msgctl_run import Done, Runner
from tests.nodes import Node, Nodes, is_connected, wait_for
from tests.require import REPOSITORY
from tests.test_msgctl_follow import following

pytestmark = pytest.mark.slow

LONG = ("--timeout", "30")
Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """msgctl inside the test, against a node."""
    runner = Runner("", monkeypatch)

    def against(node: Node, *words: str) -> Done:
        return runner("--socket", os.fspath(node.socket), *words)

    return against


def ask(run: Run, node: Node, *words: str) -> list[dict[str, Any]]:
    """The objects that msgctl prints."""
    done = run(node, "-o", "json", *words)
    assert done.code == 0, done.err
    return done.objects


def begin(node: Node, *words: str) -> subprocess.Popen[str]:
    """msgctl that goes on meanwhile."""
    command = [sys.executable, "-m", "msgctl", "--socket", os.fspath(node.socket), *words]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def came(run: Run, node: Node, texts: Sequence[str]) -> list[str]:
    """The ids of messages with these texts that came in, once all are there."""
    found: dict[str, str] = {}

    def are_all() -> bool:
        found.update({row["text"]: row["id"] for row in ask(run, node, "log", "--direction", "in")})
        return set(texts) <= found.keys()

    wait_for(are_all, 20, f"{texts} to come")
    return [found[text] for text in texts]


def handled(node: Node, peer: str, *ids: str) -> None:
    """As a consumer on `node` says it."""
    with node.client() as client:
        for id in ids:
            client.send(peer, "", kind="result", headers={"handled": id, "consumer": "job"})


def test_sender_waits_until_it_is_handled(nodes: Nodes, run: Run, tmp_path: Path) -> None:
    """One message, and many at once; both nodes show the mark, and who follows sees it come."""
    a, b = nodes.pair()
    output = tmp_path / "followed"
    with following(a, output, "--direction", "out"):
        one, many = (
            begin(a, "send", "b", "--wait=handled", *LONG, "one"),
            begin(a, "send", "b", "-l", "--wait=handled", *LONG),
        )
        assert many.stdin is not None
        print("two\nthree", file=many.stdin)
        many.stdin.close()
        ids = came(run, b, ["one", "two", "three"])
        wait_for(lambda: b"three" in output.read_bytes(), 20, "the follower to see all")
        assert one.poll() is many.poll() is None
        handled(b, "a", *ids)
        said = [process.stdout.read() if process.stdout else "" for process in (one, many)]
        assert [0, 0] == [one.wait(20), many.wait(20)]
        wait_for(lambda: b"-> handled: job]: three" in output.read_bytes(), 20, "the mark to be followed")
    assert [f"{ids[0]} handled b "] == [line[:47] for line in said[0].splitlines()]
    assert "(by job, " in said[0]
    assert [f"{id} handled b " for id in ids[1:]] == [line[:47] for line in said[1].splitlines()]
    check_told(run, a, b, ids)
    parcel = tmp_path / "parcel"
    check_repeated(run, a, b, ids[0])
    check_carried(run, a, b, parcel)


def test_senders_wait_on_when_the_log_process_dies(nodes: Nodes, run: Run) -> None:
    """As if nothing had happened: to one peer, to a group, and whatever they wait for."""
    a, b = nodes.pair(settings='[group.web]\npeers = ["b"]\n')
    words = (("b", "one"), ("@web", "two"))
    waiting = [begin(a, "send", to, "--wait=handled", "--timeout", "60", text) for to, text in words]
    ids = came(run, b, ["one", "two"])
    wait_for(lambda: not ask(run, a, "queue"), 20, "the receipts")
    os.kill(a.pids()["log"][0], signal.SIGKILL)
    wait_for(lambda: is_connected(a, b), 20, "the link to come back")
    handled(b, "a", *ids)
    said = [process.communicate(timeout=30)[0] for process in waiting]
    assert [0, 0] == [process.returncode for process in waiting], said
    assert f"{ids[0]} handled b " in said[0] and " handled b " in said[1]


def test_a_key_may_be_repeated_with_a_smaller_wish(nodes: Nodes, run: Run) -> None:
    """What was to be reported may be sent again without that; for a report it is too late then."""
    a, _ = nodes.pair(settings='[group.web]\npeers = ["b"]\n')
    for to in ("b", "@web"):
        words = ("send", to, "--timeout", "100ms", "--id", f"to {to}", "x")
        assert 5 == run(a, *words, "--wait=handled").code
        done = run(a, *words, "--wait=stored")
        assert (0, True) == (done.code, "sent before" in done.out), done.err
        words = ("send", to, "--id", f"again to {to}", "x")
        assert 0 == run(a, *words, "--wait=stored", *LONG).code
        done = run(a, *words, "--wait=handled")
        assert (2, True) == (done.code, "without asking whether it is handled" in done.err), done.err


def check_told(run: Run, a: Node, b: Node, ids: list[str]) -> None:
    """What both nodes say of the three, in every form."""
    for node, state in ((a, "stored"), (b, "received")):
        rows = ask(run, node, "log", "--state", "handled")
        assert ids == sorted((row["id"] for row in rows), key=ids.index)  # two senders: in either order
        assert {(state, "job")} == {(row["state"], row["handled_by"]) for row in rows}
        assert [] == [row for row in ask(run, node, "log", "--kind", "result") if "handled_at" in row]
        (shown,) = ask(run, node, "show", ids[0])
        assert [shown] == [row for row in rows if row["id"] == ids[0]]
        (life,) = ask(run, node, "why", ids[0])
        assert ("handled", "by the consumer job on b (the clock there)") == tuple(
            life["life"][-1][name] for name in ("what", "detail")
        )
        assert "[handled: job]: one" in run(node, "log", "--id", ids[0]).out
        assert f"(result): {ids[0]} was handled by job" in run(node, "log", "--kind", "result").out
        assert (
            "job\n" * 3 == run(node, "log", "--state", "handled", "-o", "cat", "--fields", "handled_by").out
        )
        assert "HANDLED_BY=job" in run(node, "log", "--id", ids[0], "-o", "export").out


def check_repeated(run: Run, a: Node, b: Node, id: str) -> None:
    """The same message again is not sent again: its mark is known. Waiting ends with 5 where nobody acts."""
    with a.client() as client:
        parameters = {
            "peer": "b",
            "message": {"id": id, "text": "one"},
            "wait": "handled",
            "timeout_ms": 20_000,
        }
        receipt = client.call("Send", **parameters)["receipt"]
        assert ("stored", "job", True) == tuple(
            receipt[name] for name in ("state", "handled_by", "duplicate")
        )
        many = {"peer": "b", "messages": [{"id": id, "text": "one"}, {"id": new_id(), "text": "new"}]}
        answer = client.call("SendMany", **many, wait="handled", timeout_ms=0)
        assert [receipt["handled_at_ns"], None] == answer["handled"]
    done = run(a, "send", "b", "--wait=handled", "--timeout", "0.1", "never")
    assert (5, "stored b ") == (done.code, done.out[37:46])
    assert 2 == run(a, "send", "b", "--wait=handled", "-H", "report=no", "text").code
    assert 0 == run(a, "send", "b", "--wait=stored", *LONG, "plain").code
    (answer,) = ask(run, a, "why", came(run, b, ["never"])[0])
    assert "hears when a consumer on b has handled it" in answer["next"]


def check_carried(run: Run, a: Node, b: Node, parcel: Path) -> None:
    """Marks come in a parcel as well, and are there after a start that finds no index."""
    id, other = came(run, b, ["never", "plain"])
    assert a.stop() == 0
    handled(b, "a", id, other)
    parcel.write_bytes(run(b, "export", "a").raw)
    assert b.stop() == 0
    (a.state / "index.sqlite").unlink()
    a.restart()
    assert run(a, "import", os.fspath(parcel)).code == 0
    assert ["one", "two", "three", "never"] == sorted(
        (row["text"] for row in ask(run, a, "log", "--state", "handled")),
        key=["one", "two", "three", "never"].index,
    )
    (row,) = ask(run, a, "show", other)
    assert "handled_at" not in row  # it did not ask for it


def test_answers_make_a_thread(nodes: Nodes, run: Run) -> None:
    """From both sides, to a third as well; all of it is found by any of its messages."""
    a, b, c = nodes.start("a"), nodes.start("b"), nodes.start("c")
    for node in (b, c):
        a.trust(node)
        node.trust(a)
    wait_for(lambda: is_connected(a, b) and is_connected(a, c), 20, "a to reach both")
    (first,) = ask(run, a, "send", "b", "--wait=stored", *LONG, "shall we meet?")
    root = first["id"]
    (answer,) = ask(run, b, "reply", root[:13], "--wait=stored", *LONG, "tomorrow")
    assert ("stored", "a") == (answer["state"], answer["peer"])
    (again,) = ask(run, a, "reply", answer["id"], "--wait=stored", "-H", "n=1", *LONG, "at noon")
    (third,) = ask(run, a, "send", "c", "--reply-to", again["id"], "--wait=stored", *LONG, "with you?")
    ask(run, a, "send", "b", "--wait=stored", *LONG, f"not about {root}")
    (shown,) = ask(run, b, "show", again["id"])
    assert {"reply-to": answer["id"], "thread": root, "n": "1"} == shown["headers"]
    ids = [root, answer["id"], again["id"], third["id"]]
    for id in ids:
        assert ids == [row["id"] for row in ask(run, a, "log", "--thread", id)]
    assert ids[:3] == [row["id"] for row in ask(run, b, "log", "--thread", root)]
    assert ids[3:] == [row["id"] for row in ask(run, c, "log", "--thread", third["id"])]
    assert ids[1:2] == [row["id"] for row in ask(run, a, "log", "--thread", root, "--direction", "in")]
    assert ids[:1:-1] == [row["id"] for row in ask(run, a, "log", "--thread", root, "-r", "-n", "2")]
    for words in (("log", "--thread", "0123456789"), ("reply", "0123456789", "x")):
        assert 7 == run(a, *words).code
    assert 7 == run(a, "send", "b", "--reply-to", "0123456789", "x").code
    (paired, *_) = ask(run, a, "log", "--kind", "control")
    for words in (("log", "--thread", paired["id"]), ("reply", paired["id"], "x")):
        assert 2 == run(a, *words).code
    assert 0 == run(a, "reply", root).code  # the body from standard input, as by send
