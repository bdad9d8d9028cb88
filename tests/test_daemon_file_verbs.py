"""`msgctl file` between real daemons: what both disks and both logs hold, rights, what breaks and goes on."""

import array
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from msgctl.client import new_id
from msgd.errors import MsgdError, NotTrusted, PermissionRefused, Uncertain, UnknownFile, UnknownPeer
from tests.faults import unshared
from tests.nodes import Node, Nodes, children_of, command_line, pair, wait_for
from tests.require import REPOSITORY, require
from tests.test_control_varlink import Raw
from tests.test_daemon_access import as_nobody

pytestmark = pytest.mark.slow

WRITE = '[files]\npeers = "write"\n'
MIB = 1 << 20
STARTED: list[subprocess.Popen[str]] = []
TOLD_BEFORE: dict[str, int] = {}

Event = tuple[int, Callable[[], None]]  # at so many bytes of a part


@pytest.fixture(scope="module")
def pair_of_nodes() -> Iterator[tuple[Node, Node]]:
    """Below a directory that other users may enter."""
    directory = tempfile.mkdtemp(prefix="msgd-files-")
    os.chmod(directory, 0o755)
    nodes = Nodes(Path(directory))
    try:
        yield nodes.pair(settings=WRITE)
    finally:
        nodes.end()
        shutil.rmtree(directory)


@pytest.fixture
def two(pair_of_nodes: tuple[Node, Node]) -> Iterator[tuple[Node, Node]]:
    """The same for all tests, with empty stores; nothing that a test started goes on after it."""
    for node in pair_of_nodes:
        for path in node.state.glob("files/[!.]*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        TOLD_BEFORE[node.name] = len(heard(node))
    yield pair_of_nodes
    for process in STARTED:
        process.kill()
        process.communicate()
    STARTED.clear()


def plant(path: Path, size: int, seed: int = 0) -> Path:
    """A file of content that is its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def stored(node: Node, name: str) -> Path:
    return node.state / "files" / name


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def heard(node: Node) -> list[dict[str, Any]]:
    return [message["headers"] for message in node.query("log", "--kind", "file")]


def told(node: Node) -> list[dict[str, Any]]:
    """The messages of kind file of this test in its log, by their headers."""
    return heard(node)[TOLD_BEFORE[node.name] :]


def ok(node: Node, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = node.ctl("file", *words, **options)
    assert done.returncode == 0, done.stderr
    return done


# --- there and back -----------------------------------------------------------------------------------------


def test_files_go_there_and_back_and_both_logs_tell(two: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = two
    report = plant(tmp_path / "report", 3 * MIB + 17)
    report.chmod(0o755)
    words = ok(a, "put", "b", str(report), "2026/report").stdout.split()
    assert ["put", "b", "2026/report", "(3.0M)"] == words[1:]
    assert report.read_bytes() == stored(b, "2026/report").read_bytes()
    assert report.stat().st_mtime_ns == stored(b, "2026/report").stat().st_mtime_ns
    assert os.access(stored(b, "2026/report"), os.X_OK)
    listed = a.query("file", "ls", "b", "-r")
    found = [(entry["name"], entry["size"], entry["sha256"]) for entry in listed]
    assert [("2026/report", report.stat().st_size, digest(report))] == found
    ok(a, "dup", "b", "2026/report", "copy")
    ok(a, "get", "b", "copy", str(tmp_path / "back"))
    assert digest(report) == digest(tmp_path / "back")
    assert report.stat().st_mtime_ns == (tmp_path / "back").stat().st_mtime_ns
    ok(a, "rm", "b", "2026/report")
    assert not stored(b, "2026/report").exists()
    same = {"size": str(report.stat().st_size), "sha256": digest(report)}
    expected = [
        {"op": "put", "file": "2026/report", **same},
        {"op": "dup", "file": "copy", "source": "2026/report", **same},
        {"op": "get", "file": "copy", **same},
        {"op": "rm", "file": "2026/report"},
    ]
    assert expected == told(a)
    wait_for(lambda: expected == told(b), 10, "b to have the same messages")
    message = a.query("show", words[0])[0]
    assert ("file", "2026/report") == (message["kind"], message["text"])
    wait_for(lambda: "stored" == a.query("show", words[0])[0]["state"], 10, "the receipt")


@pytest.mark.parametrize("peer", ["b", "a"])
def test_every_size_is_the_same_there_and_back(peer: str, two: tuple[Node, Node], tmp_path: Path) -> None:
    """Around each border: of a block, of a piece on the wire; at a peer, in one's own store."""
    a, b = two
    sizes = [0, 1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 2 * MIB]
    for size in sizes:
        plant(tmp_path / "t" / str(size), size, size)
    ok(a, "put", peer, str(tmp_path / "t"))
    ok(a, "get", peer, "t", str(tmp_path / "back"))
    for size in sizes:
        there = stored(b if peer == "b" else a, f"t/{size}")
        expected = (tmp_path / "t" / str(size)).read_bytes()
        assert expected == there.read_bytes() == (tmp_path / "back" / str(size)).read_bytes()
    assert (2 * len(sizes) if peer == "b" else 0) == len(told(a))  # of one's own store nobody is told
    listed = a.query("file", "ls", peer, "t")
    assert sorted(map(str, sizes)) == [entry["name"].removeprefix("t/") for entry in listed]


@pytest.mark.parametrize("peer", ["b", "a"])
def test_a_tree_comes_back_as_it_was(peer: str, two: tuple[Node, Node], tmp_path: Path) -> None:
    """With directories in which there is nothing."""
    a, _ = two
    plant(tmp_path / "t/d/file", 10)
    for name in ("t/bare", "t/d/deep/er"):
        (tmp_path / name).mkdir(parents=True)
    for _ in range(2):
        ok(a, "put", peer, str(tmp_path / "t"))
    ok(a, "get", peer, "t", str(tmp_path / "back"))
    trees = [
        {path.relative_to(tmp_path / top) for path in (tmp_path / top).rglob("*")} for top in ("t", "back")
    ]
    assert trees[0] == trees[1]
    puts = [headers["file"] for headers in told(a) if headers["op"] == "put"]
    assert (["t/bare/", "t/d/deep/er/", "t/d/file"] * 2 if peer == "b" else []) == puts
    ok(a, "rm", "-r", peer, "t/bare")
    assert 7 == a.ctl("file", "get", peer, "t/bare", str(tmp_path / "gone")).returncode


def flowed(node: Node, count: str) -> tuple[int, int]:
    """How many connections of its store have ended, and the bytes of content on them."""
    ended = [event for event in node.events() if event["event"] == "files.closed"]
    return len(ended), sum(event[count] for event in ended)


def flows(node: Node, count: str, act: Callable[[], object]) -> int:
    """Bytes of content on the connections of its store while `act` uses it."""
    wait_for(lambda: not workers(node, "files"), 20, "earlier connections to end")
    ended, before = flowed(node, count)
    act()
    wait_for(lambda: flowed(node, count)[0] > ended and not workers(node, "files"), 20, "its end")
    return flowed(node, count)[1] - before


def test_a_tree_that_is_there_already_is_not_carried_again(two: tuple[Node, Node], tmp_path: Path) -> None:
    """There and back; and what only looks the same is carried whole."""
    a, b = two
    top, back = tmp_path / "t", tmp_path / "back"
    files = [plant(top / name, 3 * MIB, seed) for seed, name in enumerate(("x", "y", "d/z"))]

    def put() -> int:
        return flows(b, "received_bytes", lambda: ok(a, "put", "b", str(top)))

    def get() -> int:
        return flows(b, "sent_bytes", lambda: ok(a, "get", "b", "-d", str(back), "t"))

    def is_same() -> bool:
        names = [str(path.relative_to(top)) for path in files]
        digests = [[digest(place / name) for name in names] for place in (top, stored(b, "t"), back / "t")]
        return digests[0] == digests[1] == digests[2]

    assert [9 * MIB, 9 * MIB, 0, 0] == [put(), get(), put(), get()]
    assert is_same()
    status = files[1].stat()
    plant(files[1], 3 * MIB, 77)
    os.utime(files[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not is_same()
    assert [3 * MIB, 3 * MIB, 0, 0] == [put(), get(), put(), get()]
    assert is_same()
    assert 0 == part_size(back) == part_size(b.state / "files")
    assert ["put", "get"] * 4 == [headers["op"] for headers in told(a)[::3]]


def test_standard_input_and_output_have_the_content_alone(two: tuple[Node, Node]) -> None:
    a, _ = two
    content = "line\n" * 1000
    ok(a, "put", "b", "-", "text", stdin=content)
    assert content == ok(a, "get", "b", "text", "-").stdout


# --- who may what -------------------------------------------------------------------------------------------


def test_a_store_is_closed_until_it_is_opened_and_takes_what_it_has_room_for(
    two: tuple[Node, Node], nodes: Nodes, tmp_path: Path
) -> None:
    """None by default; read is not write; a reload applies it, a quota too. The way out is said."""
    require("root", "namespaces")
    a, _ = two
    store = tmp_path / "store"
    store.mkdir()
    small_disk = unshared(f"mount -t tmpfs -o size=8m,mode=700 tmpfs '{store}'")
    c = nodes.make("c").start(f'[files]\nstore = "{store}"', within=small_disk)
    pair(a, c)
    file = plant(tmp_path / "x", 2 * MIB)
    done = a.ctl("file", "ls", "c")
    assert 4 == done.returncode, done.stderr
    assert "[peer.a]" in done.stderr
    reload(c, '[peer.a]\nfiles = "read"')
    done = a.ctl("file", "put", "c", str(file))
    assert 4 == done.returncode, done.stderr
    assert [] == c.query("file", "ls")
    reload(c, 'files = "write"\nquota = "3M"', former='files = "read"')
    ok(a, "put", "c", str(file))
    done = a.ctl("file", "put", "c", str(plant(tmp_path / "more", 2 * MIB)))
    assert 8 == done.returncode, done.stderr
    assert "quota" in done.stderr
    done = c.ctl("file", "put", "c", str(plant(tmp_path / "huge", 20 * MIB)))
    assert 8 == done.returncode, done.stderr
    assert ["x"] == [entry["name"] for entry in c.query("file", "ls")]
    ok(a, "get", "c", "x", str(tmp_path / "back"))
    assert digest(file) == digest(tmp_path / "back")


def reload(node: Node, settings: str, *, former: str = "") -> None:
    """Other settings, in force."""
    text = node.config.read_text()
    node.config.write_text(text.replace(former, settings) if former else f"{text}{settings}\n")
    assert 0 == node.ctl("reload").returncode


def test_a_removal_whose_message_is_uncertain_says_what_is_gone(two: tuple[Node, Node]) -> None:
    a, b = two
    for n in range(2):
        plant(stored(b, f"t/{n}"), 10)
    raised: list[MsgdError] = []
    with a.client() as client:
        client.call("FileList", peer="b")  # now it knows the peer, and is connected

        def remove() -> None:
            try:
                client.call("FileRemove", peer="b", name="t", recursive=True, transfer=new_id())
            except MsgdError as error:
                raised.append(error)

        log = a.pids()["log"][0]
        os.kill(log, signal.SIGSTOP)
        thread = threading.Thread(target=remove)
        thread.start()
        try:
            wait_for(lambda: not stored(b, "t").exists(), 10, "the tree to go")
        finally:
            os.kill(log, signal.SIGKILL)
            thread.join(20)
    [error] = raised
    assert isinstance(error, Uncertain)
    assert error.message.startswith("2 files were removed at b; only whether the message"), error.message
    assert "msgctl log --kind file" in error.hint
    a.wait_ready()


def test_who_is_no_peer_and_what_is_not_there_is_refused(two: tuple[Node, Node], tmp_path: Path) -> None:
    a, _ = two
    with a.client() as client:
        for error, method, asked in (
            (UnknownPeer, "FileList", {"peer": "nobody"}),
            (NotTrusted, "FileList", {"peer": "127.0.0.9"}),
            (UnknownFile, "FileList", {"peer": "b", "pattern": "missing"}),
            (UnknownFile, "FileRemove", {"peer": "b", "name": "missing", "transfer": "t"}),
            (UnknownFile, "FileDup", {"peer": "b", "name": "missing", "new": "n", "transfer": "t"}),
        ):
            with pytest.raises(error):
                client.call(method, **asked)
    assert 7 == a.ctl("file", "get", "b", "missing", str(tmp_path)).returncode


def test_hostile_names_reach_no_store(two: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = two
    fd, directory = os.open(plant(tmp_path / "x", 10), os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    names = ["", ".", "..", "../x", "/x", "/../x", "a/../../x", "a\n", "./x", "a//b", "a\0", "x" * 256]
    names += [".msgd-parts/x", "a/" * 600 + "x", "\x7f"]
    raw = Raw(a)
    for peer in ("a", "b"):
        for name in names:
            reply = give(raw, "FilePut", [fd], peer=peer, files=[{"name": name}])
            result = reply["parameters"]["results"][0]
            assert "InvalidRequest" == result["error"]["name"], (name, reply)
        for name in ("/", "../", "a//", "../x/", ".msgd-parts/", "a/\n/"):
            reply = give(raw, "FilePut", [directory], peer=peer, files=[{"name": name}])
            assert "InvalidRequest" == reply["parameters"]["results"][0]["error"]["name"], (name, reply)
    raw.close()
    os.close(fd)
    os.close(directory)
    assert [] == a.query("file", "ls", "-r") == b.query("file", "ls", "-r")
    assert not told(a)


def test_local_users_need_the_rule_files(two: tuple[Node, Node]) -> None:
    require("root")
    with as_nobody(two[0]) as client, pytest.raises(PermissionRefused, match=r"access\.files is %msgd"):
        client.call("FileList")


# --- descriptors --------------------------------------------------------------------------------------------


@pytest.fixture
def raw(two: tuple[Node, Node]) -> Iterator[Raw]:
    client = Raw(two[0])
    yield client
    client.close()


def say(raw: Raw, method: str, fds: list[int], **parameters: Any) -> None:
    """A call with descriptors."""
    call = {"method": f"org.msgd.Control.{method}", "parameters": {"transfer": "t", **parameters}}
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    raw.sock.sendmsg([json.dumps(call).encode() + b"\0"], rights)


def give(raw: Raw, method: str, fds: list[int], **parameters: Any) -> dict[str, Any]:
    """A call with descriptors, and its answer."""
    say(raw, method, fds, **parameters)
    return raw.hear()


def test_descriptors_that_do_not_fit_are_refused_and_closed(
    two: tuple[Node, Node], raw: Raw, tmp_path: Path
) -> None:
    file = os.open(plant(tmp_path / "x", 10), os.O_RDONLY)
    write_only = os.open(tmp_path / "w", os.O_WRONLY | os.O_CREAT)
    path_only = os.open(tmp_path / "x", os.O_PATH)
    directory = os.open(tmp_path, os.O_RDONLY)
    pipe_out, pipe_in = os.pipe()
    one = [{"name": "x"}]
    assert "a" == raw.call("Status")["parameters"]["node"]["name"]
    control = max(pid for pid in children_of(two[0].pid) if "control" in command_line(pid))
    before = len(os.listdir(f"/proc/{control}/fd"))
    for method in ("FilePut", "FileGet"):
        for fds in ([write_only], [path_only], [directory], [pipe_out], [file, file]):
            reply = give(raw, method, fds, files=one)
            assert reply.get("error", "").endswith("InvalidRequest"), (method, fds, reply)
    assert give(raw, "FileGet", [file], files=one)["error"].endswith("InvalidRequest")  # for reading only
    assert give(raw, "FilePut", [file], files=[{"name": "x/"}])["error"].endswith("InvalidRequest")
    assert raw.call("FilePut", files=one, transfer="t")["error"].endswith("InvalidRequest")
    assert raw.call("FilePut", files=[], transfer="t")["error"].endswith("InvalidRequest")
    assert "error" not in give(raw, "Status", [file, directory])  # what nobody asked for
    assert give(raw, "Nonsense", [file])["error"].endswith("MethodNotFound")
    wait_for(lambda: before == len(os.listdir(f"/proc/{control}/fd")), 5, "all to be closed")
    result = give(raw, "FilePut", [file], peer="a", files=one)["parameters"]["results"][0]
    assert ("x", 10, None) == (result["name"], result["size"], result["message"])
    assert "error" not in raw.call("Status")  # what was handed over is closed behind an answer
    assert str(tmp_path / "x") not in [os.readlink(link) for link in Path(f"/proc/{control}/fd").iterdir()]
    for fd in (file, write_only, path_only, directory, pipe_in, pipe_out):
        os.close(fd)


def test_calls_without_more_have_one_answer_each(two: tuple[Node, Node], raw: Raw, tmp_path: Path) -> None:
    """Also where several lie ready and are one run."""
    _, b = two
    fds = [os.open(plant(tmp_path / str(n), 1000 + n, n), os.O_RDONLY) for n in range(6)]
    names = [["0", "1"], ["2", "3"], ["4", "../5"]]
    for at, two_names in enumerate(names):
        files = [{"name": name} for name in two_names]
        say(raw, "FilePut", fds[2 * at : 2 * at + 2], peer="b", files=files)
    for two_names in names:
        results = raw.hear()["parameters"]["results"]
        expected = [(at, name, ".." in name) for at, name in enumerate(two_names)]
        assert expected == [(r["index"], r["name"], "error" in r) for r in results]
    assert [1000 + n for n in range(5)] == [stored(b, str(n)).stat().st_size for n in range(5)]
    assert "error" not in raw.call("Status")
    for fd in fds:
        os.close(fd)


def test_the_same_transfer_is_told_once(two: tuple[Node, Node], raw: Raw, tmp_path: Path) -> None:
    fd = os.open(plant(tmp_path / "x", 10), os.O_RDONLY)
    replies = [give(raw, "FilePut", [fd], peer="b", files=[{"name": "x"}]) for _ in range(3)]
    ids = {reply["parameters"]["results"][0]["message"] for reply in replies}
    assert 1 == len(ids) == len(told(two[0]))
    os.close(fd)


# --- what breaks --------------------------------------------------------------------------------------------


def start(node: Node, *words: str) -> subprocess.Popen[str]:
    """msgctl file …, in the background."""
    process = subprocess.Popen(
        [sys.executable, "-m", "msgctl", "--socket", str(node.socket), "file", *words],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def ended_well(process: subprocess.Popen[str], within_s: float = 100) -> str:
    out, err = process.communicate(timeout=within_s)
    assert process.returncode == 0, err
    return out


def part_size(directory: Path) -> int:
    """Bytes of the biggest part below it."""
    sizes = [0]
    for top, _, names in os.walk(directory):
        for name in names:
            if "msgd-part" in top + name:
                try:
                    sizes.append(os.stat(os.path.join(top, name)).st_size)  # the room is reserved before
                except OSError:
                    pass  # it took its place meanwhile
    return max(sizes)


def workers(node: Node, role: str) -> list[int]:
    return [pid for name, pids in node.pids().items() if name.startswith(role) for pid in pids]


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def breaks(a: Node, b: Node) -> dict[str, Callable[[], None]]:
    """What may befall a transfer of a's with b."""

    def restart(node: Node) -> None:
        node.kill9()
        node.start(WRITE)

    return {
        "control worker": lambda: kill(workers(a, "control")),
        "files worker": lambda: kill(workers(b, "files")),
        "link workers": lambda: kill(workers(a, "peer") + workers(b, "peer")),
        "log process here": lambda: kill(workers(a, "log")),
        "log process there": lambda: kill(workers(b, "log")),
        "daemon here": lambda: restart(a),
        "daemon there": lambda: restart(b),
    }


def broken(a: Node, b: Node, op: str, source: Path, name: str, events: list[Event]) -> int:
    """A put of `source` as `name`, or a get of `there`, while things happen: how many. Content is right."""
    into = source.parent / name
    into.mkdir()
    words = ("put", "b", str(source), name) if op == "put" else ("get", "b", "there", str(into))
    parts = b.state / "files" if op == "put" else into
    running, happened = start(a, *words), 0
    for at, event in events:
        wait_for(lambda at=at: part_size(parts) >= at or running.poll() is not None, 60, f"{at} bytes")
        if running.poll() is not None:
            break
        event()
        happened += 1
    ended_well(running)
    result = stored(b, name) if op == "put" else into / "there"
    assert digest(source) == digest(result)
    assert 0 == part_size(into)
    result.unlink()
    return happened


@pytest.mark.parametrize("op", ["put", pytest.param("get", marks=pytest.mark.long)])
@pytest.mark.timeout(240)
def test_a_transfer_survives_whatever_is_killed(op: str, two: tuple[Node, Node], tmp_path: Path) -> None:
    """Each of them once, in one transfer; it is told once, in both logs."""
    a, b = two
    size, rng = 64 * MIB, random.Random(op)
    source = plant(tmp_path / "big", size)
    ok(b, "put", "b", str(source), "there")
    kinds = [*breaks(a, b).values()]
    rng.shuffle(kinds)
    points = sorted(rng.randrange(size // 2) for _ in kinds)
    assert 4 <= broken(a, b, op, source, "new", [*zip(points, kinds, strict=True)])
    wait_for(lambda: 1 == len(told(a)) == len(told(b)), 30, "one message in both logs")


def test_many_files_survive_whatever_is_killed(two: tuple[Node, Node], tmp_path: Path) -> None:
    """Each is there, and told once, in both logs and on the screen."""
    a, b = two
    count = 600
    for number in range(count):
        plant(tmp_path / "many" / f"{number:03}", 500, number)
    running = start(a, "put", "b", str(tmp_path / "many"))
    kills = [event for name, event in breaks(a, b).items() if "daemon" not in name]
    place = stored(b, "many")
    for at, event in enumerate(kills):
        least = 30 + at * count // len(kills)
        wait_for(lambda least=least: place.exists() and len(os.listdir(place)) >= least, 60, f"{least} files")
        event()
    out = ended_well(running)
    names = [f"many/{number:03}" for number in range(count)]
    assert names == sorted(line.split()[3] for line in out.splitlines())
    assert names == [entry["name"] for entry in b.query("file", "ls", "-r")]
    for number in range(count):
        assert random.Random(number).randbytes(500) == stored(b, names[number]).read_bytes()
    assert names == sorted(headers["file"] for headers in told(a))
    wait_for(lambda: count == len(told(b)), 30, "b to hear of all")


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_transfers_survive_two_hundred_breaks(two: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = two
    size, rng, left, transfers = 192 * MIB, random.Random(5), 200, 0
    source = plant(tmp_path / "big", size)
    ok(b, "put", "b", str(source), "there")
    kinds = [*breaks(a, b).values()]
    while left > 0:
        points = sorted(rng.randrange(size * 3 // 4) for _ in range(8))
        events = [(at, rng.choice(kinds)) for at in points]
        left -= broken(a, b, rng.choice(("put", "get")), source, f"new{transfers}", events)
        transfers += 1
    wait_for(lambda: transfers == len(told(a)) == len(told(b)), 30, "one message for each in both logs")


@pytest.mark.parametrize("op", ["put", "get"])
@pytest.mark.timeout(240)
def test_msgctl_that_is_killed_goes_on_where_it_was(op: str, two: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = two
    size, into = 64 * MIB, tmp_path / "got"
    source = plant(tmp_path / "big", size)
    ok(b, "put", "b", str(source), "there")
    into.mkdir()
    parts = b.state / "files" if op == "put" else into
    words = ("put", "b", str(source), "new") if op == "put" else ("get", "b", "there", str(into))
    for at in (size // 4, size // 2):
        running = start(a, *words)
        wait_for(lambda at=at: part_size(parts) >= at, 60, f"{at} bytes")
        running.kill()
        running.communicate()
        wait_for(lambda: not workers(a, "control"), 10, "its worker to notice")
        assert at <= part_size(parts)
    ok(a, *words)
    result = stored(b, "new") if op == "put" else into / "there"
    assert digest(source) == digest(result)
    assert MIB > part_size(parts)  # of small files that a killed worker left there


def test_a_peer_that_is_away_is_5_in_time_and_says_how_to_go_on(
    two: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = two
    file = plant(tmp_path / "x", 1000)
    b.stop()
    began_s = time.monotonic()
    done = a.ctl("file", "put", "b", "--timeout", "1", str(file))
    assert 5 == done.returncode, done.stderr
    assert 1 < time.monotonic() - began_s < 10
    assert "b cannot be reached" in done.stderr
    assert "goes on where it stopped" in done.stderr
    later = start(a, "put", "b", str(file))
    b.start(WRITE)
    ended_well(later)
    assert digest(file) == digest(stored(b, "x"))


def test_a_file_that_changes_while_it_is_sent_is_told_and_not_kept(
    two: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = two
    file, stop = plant(tmp_path / "x", 48 * MIB), threading.Event()

    def change() -> None:
        with file.open("r+b", buffering=0) as out:
            while not stop.is_set():
                out.seek(0)
                out.write(os.urandom(10))

    writer = threading.Thread(target=change)
    writer.start()
    try:
        done = a.ctl("file", "put", "b", str(file))
    finally:
        stop.set()
        writer.join()
    assert 1 == done.returncode, done.stderr
    assert "changed" in done.stderr
    assert not stored(b, "x").exists()
    assert not told(a)


def test_two_writers_of_one_name_do_not_mix(two: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = two
    one, other = plant(tmp_path / "1", 16 * MIB, 1), plant(tmp_path / "2", 16 * MIB, 2)
    running = [start(a, "put", "b", str(one), "x"), start(b, "put", "b", str(other), "x")]
    for each in running:
        ended_well(each)
    assert digest(stored(b, "x")) in (digest(one), digest(other))
