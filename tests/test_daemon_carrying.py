"""`msgctl export` and `msgctl import`: messages that a person carries, between real daemons."""

import json
import os
import shutil
import signal
import subprocess
import sys
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msgd.errors import MsgdError
from tests.faults import inside, own_disk
from tests.nodes import Node, Nodes, wait_for
from tests.require import REPOSITORY
from tests.terminal import Terminal

pytestmark = pytest.mark.slow

MAY_BE_THERE = "exported, may already be there"


def export(node: Node, other: Node, path: Path, first_seq: int | None = None) -> dict[str, Any]:
    """Make a parcel; what the daemon says of it."""
    with node.client() as client, path.open("wb") as file:
        for reply in client.stream("Export", peer=other.name, first_seq=first_seq):
            file.write(a2b_base64(reply.get("data") or ""))
    result: dict[str, Any] = reply["result"]
    return result


def read(node: Node, path: Path) -> tuple[int, int, int]:
    """Import a parcel: messages new here, known here, of ours confirmed by it."""
    with node.client() as client:
        client.call("ImportPart", data=b2a_base64(path.read_bytes()[:100], newline=False).decode())
        for at in range(100, path.stat().st_size, 1 << 20):
            part = path.read_bytes()[at : at + (1 << 20)]
            client.call("ImportPart", data=b2a_base64(part, newline=False).decode())
        result = client.call("Import")["result"]
    return result["messages"], result["known"], result["confirmed"]


def refused(node: Node, path: Path) -> tuple[int, str]:
    """An import that takes nothing: its exit code, and what it says."""
    before = texts(node)
    with pytest.raises(MsgdError) as error:
        read(node, path)
    assert before == texts(node)
    return error.value.code, f"{error.value.message} {error.value.hint}"


def code_of(act: Callable[[], object]) -> int:
    """The exit code of what must fail."""
    with pytest.raises(MsgdError) as error:
        act()
    return error.value.code


def texts(node: Node) -> list[str]:
    return [row["text"] for row in rows(node)]


def rows(node: Node, **wanted: Any) -> list[dict[str, Any]]:
    with node.client() as client:
        return [row for reply in client.stream("Log", **wanted) for row in reply["messages"]]


def queue(node: Node) -> list[str]:
    """Why each message waits that does."""
    with node.client() as client:
        return [row["reason"] for reply in client.stream("Queue") for row in reply["messages"]]


def send(node: Node, other: Node, *bodies: str) -> None:
    with node.client() as client:
        for at in range(0, len(bodies), 100):
            some = [{"text": body} for body in bodies[at : at + 100]]
            client.call("SendMany", peer=other.name, messages=some)


def call(node: Node, method: str, **parameters: Any) -> dict[str, Any]:
    with node.client() as client:
        answer: dict[str, Any] = client.call(method, **parameters)
        return answer


def pin(node: Node, other: Node) -> None:
    call(node, "PeerAdd", name=other.name, key=call(other, "Identity")["identity"])


def apart(nodes: Nodes) -> tuple[Node, Node]:
    """Two nodes that pinned each other and have no way to one another."""
    a, b = nodes.both()
    pin(a, b)
    pin(b, a)
    return a, b


def meet(a: Node, b: Node) -> None:
    """One gets an address of the other: a link."""
    call(a, "PeerAdd", name=b.name, address=b.address, key=call(b, "Identity")["identity"])
    linked(a, b)


def linked(a: Node, b: Node) -> None:
    def is_there() -> bool:
        return all(peer["state"] == "connected" for node in (a, b) for peer in call(node, "Peers")["peers"])

    wait_for(is_there, 20, "the link")


def check_same(a: Node, b: Node, expected: list[str]) -> None:
    """Both logs hold each message once, and prove it."""
    for node in (a, b):
        wait_for(
            lambda node=node: sorted(expected) == sorted(texts(node)),  # type: ignore[misc]
            10,
            f"{node.name} to hold all",
        )
        assert "sound" == call(node, "Verify")["result"]["state"]
    assert "same" == call(a, "Verify", peer="b")["result"]["state"]


def test_two_nodes_that_no_network_joins_talk(nodes: Nodes, tmp_path: Path) -> None:
    """Parcels bring messages and receipts, any number of times; the link that comes later agrees."""
    a, b = apart(nodes)
    send(a, b, "one")
    assert 0 == a.ctl("send", "b", "two", "--wait=queued", "--ttl=1h").returncode
    assert [False, True] == [bool(row["expires_at_ns"]) for row in a.query("queue")]
    send(b, a, "eins")
    assert 2 == export(a, b, tmp_path / "a1")["messages"]
    assert [MAY_BE_THERE] * 2 == queue(a)
    assert [None] * 2 == [row["expires_at_ns"] for row in a.query("queue")], "it expires no more"
    first = rows(a, direction="out")[0]["id"]
    assert MAY_BE_THERE in call(a, "Why", id=first)["next"]
    assert 6 == code_of(lambda: call(a, "Cancel", id=first))
    assert (2, 0, 0) == read(b, tmp_path / "a1")
    send(a, b, "three")
    assert 3 == export(a, b, tmp_path / "a2")["messages"], "no receipt is back: all of it again"
    assert (0, 2, 0) == read(b, tmp_path / "a1")
    assert (1, 2, 0) == read(b, tmp_path / "a2")
    assert (0, 2, 0) == read(b, tmp_path / "a1"), "an older one after a newer one"
    export(b, a, tmp_path / "b1")
    assert (1, 0, 3) == read(a, tmp_path / "b1")
    assert [] == queue(a)
    assert {"stored"} == {row["state"] for row in rows(a, direction="out")}
    assert (0, 1, 0) == read(a, tmp_path / "b1")
    told = [row["headers"]["record"] for row in rows(a, kind="control")]
    assert ["exported", "exported", "imported"] == [each for each in told if each[-6:] == "ported"]
    a.restart()
    meet(a, b)
    wait_for(lambda: queue(b) == [], 10, "the link to bring b's receipt")
    assert (0, 3, 0) == read(b, tmp_path / "a2")
    linked(a, b)
    send(a, b, "four")
    check_same(a, b, ["one", "two", "three", "four", "eins"])


def test_parcels_beside_a_link_that_breaks_repeat_and_lose_nothing(nodes: Nodes, tmp_path: Path) -> None:
    """Link workers are killed while messages flow and parcels are made and read on both sides."""
    a, b = nodes.pair()
    expected: list[str] = []
    for number in range(6):
        bodies = [f"{number} {n}" for n in range(150)]
        expected += bodies
        send(a, b, *bodies)
        for pid in (b if number % 2 else a).pids().get(f"peer {'a' if number % 2 else 'b'}", []):
            os.kill(pid, signal.SIGKILL)
        send(a, b, f"{number} last")
        expected.append(f"{number} last")
        export(a, b, tmp_path / f"a{number}")
        read(b, tmp_path / f"a{number}")
        export(b, a, tmp_path / f"b{number}")
        call(a, "Retry", peer="b")
        read(a, tmp_path / f"b{number}")
    for number in range(6):
        assert 0 == read(b, tmp_path / f"a{number}")[0]
    wait_for(lambda: queue(a) == [], 20, "the receipts")
    assert expected == texts(b)
    check_same(a, b, expected)


def test_the_first_link_sends_what_was_exported_under_the_same_numbers(nodes: Nodes, tmp_path: Path) -> None:
    """Far more than its window, and before the parcel is read, which then brings nothing new."""
    settings = "[limits]\nwindow_bytes = 1048576\nwindow_batches = 3"
    a, b = apart(nodes)
    bodies = [f"{n} {'x' * 2000}" for n in range(3000)]
    send(a, b, *bodies)
    result = export(a, b, tmp_path / "big")
    assert (3000, (tmp_path / "big").stat().st_size) == (result["messages"], result["bytes"])
    a.restart(settings)
    send(a, b, "behind")
    meet(a, b)
    wait_for(lambda: queue(a) == [], 20, "the receipts")
    assert (0, 3000, 0) == read(b, tmp_path / "big")
    assert [(n + 1, body) for n, body in enumerate([*bodies, "behind"])] == [
        (row["seq"], row["text"]) for row in rows(b)
    ]


def test_what_cannot_be_taken_is_refused_whole(nodes: Nodes, tmp_path: Path) -> None:
    a, b = apart(nodes)
    c = nodes.start("c")
    send(a, b, "one", "two")
    good = tmp_path / "good"
    export(a, b, good)
    data = good.read_bytes()
    for name, broken, code, told in (
        ("text", b"hola\n", 2, "no parcel"),
        ("newer", data.replace(b"parcel 1", b"parcel 2", 1), 2, "version 2"),
        ("cut", data[:-40], 8, "the rest is missing"),
        ("flipped", data.replace(b"two", b"twp", 1), 8, "damaged"),
        ("longer", data + b"\n", 8, "behind its end"),
    ):
        (tmp_path / name).write_bytes(broken)
        assert (code, True) == (refused(b, tmp_path / name)[0], told in refused(b, tmp_path / name)[1])
    assert (2, True) == (refused(a, good)[0], "for another node" in refused(a, good)[1])
    assert 2 == refused(c, good)[0]
    call(b, "PeerBlock", peer="a")
    assert (4, True) == (refused(b, good)[0], "is blocked here" in refused(b, good)[1])
    assert 4 == code_of(lambda: export(b, a, tmp_path / "x"))
    call(b, "PeerUnblock", peer="a")
    call(b, "PeerRemove", peer="a")
    assert (4, True) == (refused(b, good)[0], "no peer any more" in refused(b, good)[1])
    assert 7 == code_of(lambda: export(b, a, tmp_path / "x"))
    pin(b, a)
    assert (2, 0, 0) == read(b, good)
    pin(c, b)
    export(c, b, tmp_path / "stranger")
    code, told = refused(b, tmp_path / "stranger")
    assert (4, True) == (code, "calls itself c" in told and "not paired" in told)
    assert 2 == code_of(lambda: call(b, "Import"))


def test_a_log_that_was_set_back_is_told_and_catches_up(nodes: Nodes, tmp_path: Path) -> None:
    """The receiver's: it names what is missing, the sender puts it into a parcel again. The sender's: it is
    told, and begins anew as the person decides."""
    a, b = apart(nodes)
    send(a, b, "one")
    export(a, b, tmp_path / "a1")
    read(b, tmp_path / "a1")
    b.stop()
    shutil.copytree(b.state, tmp_path / "copy")
    b.start()
    send(a, b, "two", "three")
    export(a, b, tmp_path / "a2")
    read(b, tmp_path / "a2")
    export(b, a, tmp_path / "b1")
    assert (0, 0, 3) == read(a, tmp_path / "b1")
    send(a, b, "four")
    export(a, b, tmp_path / "a3")
    b.stop()
    shutil.rmtree(b.state)
    shutil.copytree(tmp_path / "copy", b.state)
    b.start()
    code, told = refused(b, tmp_path / "a3")
    assert (9, True) == (code, "messages 2 to 3 are missing" in told and "export b --from 2" in told)
    for wrong in (0, 3):  # before the first one, and inside a batch
        assert 2 == code_of(lambda first=wrong: export(a, b, tmp_path / "x", first))  # type: ignore[misc]
    assert 3 == export(a, b, tmp_path / "a4", 2)["messages"]
    assert (3, 0, 0) == read(b, tmp_path / "a4")
    assert ["one", "two", "three", "four"] == texts(b)
    a.stop()
    for name in ("log", "index.sqlite"):
        path = a.state / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    a.start()
    pin(a, b)
    send(a, b, "anew")
    export(a, b, tmp_path / "a5")
    code, told = refused(b, tmp_path / "a5")
    assert (9, True) == (code, "began anew" in told and "export a" in told)
    export(b, a, tmp_path / "b2")
    assert (0, 0, 0) == read(a, tmp_path / "b2")
    export(a, b, tmp_path / "a6")
    assert (1, 0, 0) == read(b, tmp_path / "a6")
    assert (0, 0, 1) == (export(b, a, tmp_path / "b3") and read(a, tmp_path / "b3"))
    assert ["one", "two", "three", "four", "anew"] == texts(b)


def test_a_rotated_key_is_followed_by_a_parcel(nodes: Nodes, tmp_path: Path) -> None:
    """Both rotate: the reader follows the writer's new key, and is still who the parcel names."""
    a, b = apart(nodes)
    send(a, b, "one")
    export(a, b, tmp_path / "old")
    for node in (a, b):
        call(node, "IdentityRotate")
    send(a, b, "two")
    export(a, b, tmp_path / "new")
    assert (2, 0, 0) == read(b, tmp_path / "new")
    code, told = refused(b, tmp_path / "old")
    assert (4, True) == (code, "was replaced" in told)


def test_an_import_that_fills_the_disk_goes_on_where_it_was(nodes: Nodes, tmp_path: Path) -> None:
    """It says what was taken by then."""
    a, b = nodes.start("a"), nodes.make("b")
    b.start(within=own_disk(b, "14m"))
    pin(a, b)
    pin(b, a)
    bodies = [f"{n} {'z' * 3000}" for n in range(1500)]
    send(a, b, *bodies)
    export(a, b, tmp_path / "a1")
    ballast = inside(b) / "ballast"
    ballast.write_bytes(bytes(6 << 20))
    with pytest.raises(MsgdError) as error:
        read(b, tmp_path / "a1")
    taken = len(texts(b))
    assert 0 < taken < 1500
    assert (8, True) == (error.value.code, f"{taken} of 1500 messages were taken" in error.value.message)
    ballast.unlink()
    assert (1500 - taken, taken, 0) == read(b, tmp_path / "a1")
    assert bodies == texts(b)


@pytest.mark.long
def test_nothing_is_lost_or_doubled_where_both_are_killed(nodes: Nodes, tmp_path: Path) -> None:
    """`kill -9` in the midst of an export and of an import, at different moments; then all of it again."""
    a, b = apart(nodes)
    bodies = [f"{n} {'y' * 1500}" for n in range(4000)]
    send(a, b, *bodies)
    _killed(a, 0.12, "export", "b", output=tmp_path / "half")
    whole = tmp_path / "whole"
    assert 4000 == export(a, b, whole)["messages"]
    if (tmp_path / "half").stat().st_size < whole.stat().st_size:
        assert refused(b, tmp_path / "half")[0] in (2, 8)
    for after_s in (0.15, 0.25, 0.35):
        _killed(b, after_s, "import", str(whole))
        assert bodies[: len(texts(b))] == texts(b)
    new, known, _ = read(b, whole)
    assert (4000, bodies) == (new + known, texts(b))
    assert [] == [path.name for path in b.state.iterdir() if path.name.startswith("tmp")]


def _killed(node: Node, after_s: float, *words: str, output: Path | None = None) -> None:
    """Kill the daemon so long after this command began, and start it again."""
    with (output or Path("/dev/null")).open("wb") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "msgctl", "--socket", str(node.socket), *words],
            cwd=REPOSITORY,
            stdout=file,
            stderr=subprocess.DEVNULL,
        )
        try:
            running.wait(after_s)
        except subprocess.TimeoutExpired:
            pass
        node.kill9()
        running.wait(20)
    node.start()


def test_a_parcel_goes_through_files_and_pipes(nodes: Nodes, tmp_path: Path) -> None:
    """As people type it; and not onto a terminal."""
    a, b = apart(nodes)
    send(a, b, "one")
    with (tmp_path / "a1").open("wb") as file:
        made = _msgctl(a, "export", "b", stdout=file)
    told = b"1 message for b, %d bytes; confirms 0 of b's." % (tmp_path / "a1").stat().st_size
    assert (0, told) == (made.returncode, made.stderr[: len(told)])
    taken = _msgctl(b, "import", "-", input=(tmp_path / "a1").read_bytes(), stdout=subprocess.PIPE)
    assert b"from a: 1 new message; it confirms nothing new\n" == taken.stdout
    again = _msgctl(b, "import", str(tmp_path / "a1"), "-ojson", stdout=subprocess.PIPE)
    assert (0, 1) == (json.loads(again.stdout)["messages"], json.loads(again.stdout)["known"])
    assert 2 == _msgctl(b, "import", str(tmp_path / "none")).returncode
    reads, writes = os.pipe()
    os.close(reads)
    broken = _msgctl(a, "export", "b", stdout=writes)
    os.close(writes)
    assert (1, True) == (broken.returncode, b"not whole" in broken.stderr)
    with Terminal("--socket", str(a.socket), "export", "b") as terminal:
        terminal.see("no text for a terminal")
        assert 2 == terminal.end()


def _msgctl(node: Node, *words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "msgctl", "--socket", str(node.socket), *words],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
        **more,
    )
