"""Casts in real daemons: every member gets every file once, whoever is away, whatever is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from msgctl.client import Client, full_name, new_id
from msgctl.handing import hand_over
from msgd.errors import TooLate, UnknownFile, UnknownPeer, UsageError
from msgd.files.jobs import DIRECTORY, NEW
from msgd.wire import varlink
from tests.nodes import Node, Nodes, is_connected, pair, retried, wait_for
from tests.require import REPOSITORY

pytestmark = pytest.mark.slow

GROUP = '[group.web]\npeers = ["b", "c"]\n'
OPEN = '[files]\npeers = "write"\n'


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node, Node]]:
    """A node with a group, and its two members, which take files; each test leaves them connected."""
    nodes = Nodes(tmp_path_factory.mktemp("casts"))
    try:
        a = nodes.make("a").start(GROUP, wait=False)
        b = nodes.make("b").start(OPEN, wait=False)
        c = nodes.start("c", OPEN)
        a.wait_ready()
        b.wait_ready()
        pair(a, b)
        pair(a, c)
        yield a, b, c
    finally:
        nodes.end()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Some files, small and bigger, one to be executed, and a directory in which there is nothing."""
    return grown(tmp_path / "tree")


def grown(top: Path, seed: int = 1) -> Path:
    source = random.Random(seed)
    for n in range(30):
        path = top / f"d{n % 3}" / f"f{n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(n * 1000))
    (top / "big").write_bytes(source.randbytes(6 << 20))
    (top / "big").chmod(0o755)
    (top / "bare").mkdir()
    return top


def digests(top: Path) -> dict[str, str]:
    """What a tree holds, but for what is msgd's own."""
    files = [path for path in top.rglob("*") if path.is_file() and ".msgd" not in str(path)]
    return {str(path.relative_to(top)): sha256(path.read_bytes()).hexdigest() for path in files}


def store(node: Node) -> Path:
    return node.state / "files"


def told(node: Node, peer: str, names: list[str]) -> Counter[str]:
    """How often the peer is told of each of these files."""
    rows = node.query("log", "--peer", peer, "--kind", "file", "--direction", "out")
    return Counter(row["headers"]["file"] for row in rows if row["headers"]["file"] in names)


def castings(node: Node) -> list[str]:
    """What is kept of casts that have not ended."""
    kept = store(node) / DIRECTORY
    found = kept.iterdir() if kept.exists() else ()
    return [path.name for path in found if path.is_dir() and path.suffix != NEW]


def test_a_cast_reaches_all_members_at_once_or_when_they_return(
    three: tuple[Node, Node, Node], tree: Path
) -> None:
    a, b, c = three
    c.stop()
    wait_for(lambda: not is_connected(a, c), 10, "the link to c to end")
    words = ("-d", "one", "--timeout", "20", "-o", "json", "@web")
    done = a.ctl("file", "cast", str(tree), *words, "--quorum", "1")
    assert 0 == done.returncode, done.stderr
    receipts = {r["peer"]: r for r in map(json.loads, done.stdout.splitlines())}
    assert ("stored", "queued") == (receipts["b"]["state"], receipts["c"]["state"])
    id = receipts["b"]["id"]
    assert (store(b) / "one/tree/bare").is_dir()
    assert {"one/tree/bare/": 1} == told(a, "b", ["one/tree/bare/"])
    expected = {f"one/tree/{name}": digest for name, digest in digests(tree).items()}
    assert expected == digests(store(b))
    assert Counter(dict.fromkeys(expected, 1)) == told(a, "b", [*expected])
    assert os.access(store(b) / "one/tree/big", os.X_OK)
    assert 5 == a.ctl("file", "cast", str(tree / "big"), "--wait", "--timeout", "0.2", "@web").returncode
    end_one(a, tree)
    for path in tree.rglob("f*"):
        path.unlink()  # what goes on here is no concern of the cast any more
    a.kill9()
    a.start(GROUP)
    c.start(OPEN)
    wait_for(lambda: not castings(a), 20, "the casts to end")
    assert {**expected, "big": expected["one/tree/big"]} == digests(store(c))
    assert Counter(dict.fromkeys(expected, 1)) == told(a, "c", [*expected])
    with pytest.raises(TooLate), a.client() as client:
        client.call("FileCastCancel", id=id)
    wait_for(lambda: "cast" not in a.pids(), 5, "the process to end")


def end_one(a: Node, tree: Path) -> None:
    """Who has not got a cast that is cancelled never gets it."""
    words = ("-d", "no", "--quorum", "1", "--timeout", "20", "@web")
    id = a.ctl("file", "cast", str(tree / "big"), *words).stdout.split()[0]
    ended = a.ctl("file", "cancel", id[:18])
    assert (0, ["stored b", "cancelled c"]) == (
        ended.returncode,
        [" ".join(line.split()[1:3]) for line in ended.stdout.splitlines()],
    )
    assert 6 == a.ctl("file", "cancel", id).returncode
    assert 7 == a.ctl("file", "cancel", "0000").returncode


@pytest.mark.long
def test_a_member_that_may_not_be_written_to_waits_for_the_permission(
    three: tuple[Node, Node, Node], tree: Path
) -> None:
    a, _, c = three
    c.restart()
    wait_for(lambda: is_connected(a, c) or retried(a, c), 20, "c to be back")
    done = a.ctl("file", "cast", str(tree / "big"), "-d", "two", "--wait", "--timeout", "1", "@web")
    assert 5 == done.returncode
    wait_for(lambda: "c does not let a write to its store" in a.ctl("file", "casts").stdout, 20, "the reason")
    c.restart(OPEN)
    wait_for(lambda: not castings(a), 30, "the cast to end")
    assert (tree / "big").read_bytes() == (store(c) / "two/big").read_bytes()


def test_what_cannot_be_cast_is_refused_as_a_whole(three: tuple[Node, Node, Node], tree: Path) -> None:
    a, _, _ = three
    for words, code in (
        ((str(tree), "web"), 2),
        (("@web",), 2),
        ((str(tree), "@nobody"), 7),
        ((str(tree / "nothing"), "@web"), 2),
        ((str(tree), "--quorum", "3", "@web"), 2),
        ((str(tree), "--wait=queued", "--quorum", "1", "@web"), 2),
    ):
        assert code == a.ctl("file", "cast", *words).returncode, words
    with a.client() as client:
        for method, asked, refusal in (
            ("FileCastBegin", {"group": "web", "transfer": new_id()}, UsageError),
            ("FileCastBegin", {"group": "web", "transfer": "../../../etc"}, UsageError),
            ("FileCast", {"group": "web", "transfer": new_id(), "files": []}, UsageError),
            ("FileCast", {"group": "no", "transfer": new_id(), "files": []}, UnknownPeer),
            ("FileCasts", {"id": "../"}, UsageError),
            ("FileCasts", {"id": "0000"}, UnknownFile),
        ):
            with pytest.raises(refusal):
                client.call(method, **asked)
    assert [] == castings(a)


def test_a_name_that_leaves_the_store_is_never_cast(three: tuple[Node, Node, Node], tree: Path) -> None:
    a, b, _ = three
    transfer = new_id()
    with a.client() as client:
        for name in ("../x", "/etc/x", ".msgd-casts/x", "a\nb", ""):
            (result,) = handed_over(client, tree / "big", name, transfer)
            assert "InvalidRequest" == result["error"]["name"], name
        with pytest.raises(UsageError, match="No files"):
            client.call("FileCastBegin", group="web", transfer=transfer)
        client.call("FileCastCancel", id=transfer)
    before = digests(store(b))
    assert "x" not in before


def handed_over(client: Client, path: Path, name: str, transfer: str) -> list[dict[str, Any]]:
    asked = {"group": "web", "files": [{"name": name}], "transfer": transfer}
    fd = os.open(path, os.O_RDONLY)
    try:
        hand_over(client, varlink.call(full_name("FileCast"), asked), [fd])
        results: list[dict[str, Any]] = client._answer(time.monotonic() + 20).parameters["results"]
        return results
    finally:
        os.close(fd)


def test_what_was_handed_over_for_no_cast_can_be_removed(three: tuple[Node, Node, Node], tree: Path) -> None:
    a, _, _ = three
    transfer, top = new_id(), store(a) / DIRECTORY
    with a.client() as client:
        handed_over(client, tree / "big", "x", transfer)
        assert (top / f"{transfer}{NEW}").is_dir()
        with pytest.raises(UnknownFile):
            client.call("FileCastCancel", id=transfer[:-1])
        assert {"cast": None} == client.call("FileCastCancel", id=transfer)
        with pytest.raises(UnknownFile):
            client.call("FileCastCancel", id=transfer)
    assert [] == list(top.glob(f"{transfer}*"))


def test_a_hand_over_that_fails_leaves_nothing_and_the_next_one_sweeps(
    three: tuple[Node, Node, Node], tree: Path
) -> None:
    a, _, _ = three
    top, old, young = store(a) / DIRECTORY, new_id(), new_id()
    for transfer, age_s in ((old, 90_000), (young, 80_000)):
        (top / f"{transfer}{NEW}" / "files").mkdir(parents=True)
        os.utime(top / f"{transfer}{NEW}", (0, time.time() - age_s))
    (tree / "d1" / "\x01").touch()
    assert 2 == a.ctl("file", "cast", str(tree), "@web").returncode
    assert [f"{young}{NEW}"] == [path.name for path in top.glob(f"*{NEW}")]
    assert 0 == a.ctl("file", "cancel", young).returncode
    assert [] == [*top.glob(f"*{NEW}")]


def test_a_hand_over_that_is_interrupted_leaves_nothing(
    three: tuple[Node, Node, Node], tmp_path: Path
) -> None:
    a, _, _ = three
    for n in range(3):
        with (tmp_path / f"big{n}").open("wb") as file:
            file.truncate(200 << 20)
    sender = subprocess.Popen(
        [sys.executable, "-m", "msgctl", "--socket", str(a.socket), "file", "cast", str(tmp_path), "@web"],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
    )
    parts = store(a) / DIRECTORY
    wait_for(lambda: [*parts.glob(f"*{NEW}/files/.msgd-parts/*/*")], 10, "the hand-over to begin")
    sender.send_signal(signal.SIGINT)
    _, err = sender.communicate(timeout=20)
    assert 130 == sender.returncode, err
    assert [] == [path.name for path in parts.glob(f"*{NEW}")]
    assert [] == castings(a)
    wait_for(lambda: not [role for role in a.pids() if role.startswith("control")], 10, "who took it to end")
    assert [] == [path.name for path in parts.glob(f"*{NEW}")], "it brings nothing back"


def test_a_store_that_is_none_is_told(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    a = nodes.start("a", f'[files]\nstore = "{tmp_path}/none"\n')
    for words in (("casts",), ("cancel", new_id()), ("cancel", "0000")):
        done = a.ctl("file", *words)
        assert (8, True) == (done.returncode, "Not a directory" in done.stderr), done.stderr


def killed_often(three: tuple[Node, Node, Node], top: Path, kills: int, seed: int) -> None:
    """Cast while processes on both sides are killed: all there, told once, nothing left behind."""
    a, b, c = three
    choice = random.Random(seed)
    for n in range(kills):
        tree = grown(top / f"tree{seed}-{n}", n)
        sender = subprocess.Popen(
            [sys.executable, "-m", "msgctl", "--socket", str(a.socket), "file", "cast", str(tree), "@web"],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        role = choice.choice(("cast", "cast", "log", "control", "receiver", "supervisor"))
        wait_for(partial(is_begun, a, sender, role), 10, "msgctl to be at work")
        time.sleep(choice.uniform(0, 0.15))
        kill(a, b, role)
        out, err = sender.communicate(timeout=60)
        assert 0 == sender.returncode, f"kill {n} of {role}: {err.decode()}"
        assert out
        wait_for(lambda: not castings(a), 60, f"the cast to end after kill {n} of {role}")
        expected = {f"{tree.name}/{name}": digest for name, digest in digests(tree).items()}
        for member in (b, c):
            found = digests(store(member))
            assert expected == {name: found.get(name) for name in expected}, f"kill {n} of {role}"
            assert Counter(dict.fromkeys(expected, 1)) == told(a, member.name, [*expected])
    wait_for(lambda: "cast" not in a.pids(), 10, "the process to end")


def is_begun(node: Node, sender: subprocess.Popen[bytes], role: str) -> bool:
    wanted = "cast" if role == "cast" else f"control uid {os.getuid()}"
    return wanted in node.pids() or sender.poll() is not None


def kill(a: Node, b: Node, role: str) -> None:
    """One side's process; with a supervisor all of them end, and it is started again."""
    if role == "supervisor":
        a.kill9()
        a.start(GROUP)
        return
    of, name = {"receiver": (b, "files a"), "control": (a, f"control uid {os.getuid()}")}.get(role, (a, role))
    for pid in of.pids().get(name, []):
        with suppress(ProcessLookupError):
            os.kill(pid, 9)


@pytest.mark.timeout(300)
def test_deaths_lose_and_double_nothing(three: tuple[Node, Node, Node], tmp_path: Path) -> None:
    killed_often(three, tmp_path, kills=2, seed=20261122)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_deaths_lose_and_double_nothing(three: tuple[Node, Node, Node], tmp_path: Path) -> None:
    killed_often(three, tmp_path, kills=60, seed=int(time.time()))
