"""Files between real daemons: many at once, a worker that dies at any moment, a setting that changes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msgd.config import load
from msgd.errors import NotTrusted
from msgd.node import node_of
from msgd.shipping import Outcome, Remote, Source, Target
from msgd.trust.identity import load_or_create
from tests.file_world import nobody, only
from tests.nodes import Node, Nodes, children_of, command_line, wait_for

WRITE = '[files]\npeers = "write"\n'


def store(asker: Node, giver: Node, patience_s: float = 60.0) -> Remote:
    """The store of `giver`, asked with the key of `asker`, as its control workers do."""
    config = load(str(asker.config), {}, os.geteuid())
    place = SimpleNamespace(node=node_of(config, load_or_create(config.state, None)), config=config)
    knowing: Any = SimpleNamespace(place=place, addresses_of=lambda peer: [giver.address])
    identity = bytes.fromhex(hashlib.sha256(spki(giver)).hexdigest())
    peer: Any = SimpleNamespace(name=giver.name, identity=identity, pinned=True, removed=False)
    return Remote(knowing, peer, patience_s)


def spki(node: Node) -> bytes:
    return load_or_create(str(node.state), None).spki


def file_of(path: Path, content: bytes) -> tuple[int, os.stat_result]:
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    return fd, os.fstat(fd)


def put(asker: Node, giver: Node, path: Path, name: str, content: bytes) -> Outcome:
    fd, status = file_of(path, content)
    there = store(asker, giver)
    source = Source(name, fd, status.st_size, status.st_mtime_ns, False)
    outcome = only(list(there.put([source], nobody)))
    there.close()
    os.close(fd)
    return outcome


@pytest.fixture
def pair(nodes: Nodes) -> tuple[Node, Node]:
    """`a` gives, `b` asks; b need not run for that, and its log is not of interest."""
    a, b = nodes.both(settings=WRITE)
    a.trust(b)
    b.trust(a)
    return a, b


@pytest.mark.slow
def test_fifty_get_one_file_at_once(pair: tuple[Node, Node], tmp_path: Path) -> None:
    """All through one peer's connections, more than may shake hands at once: who is too many comes again."""
    a, b = pair
    content = random.Random(1).randbytes(300_000)
    assert None is put(b, a, tmp_path / "f", "f", content).error
    outcomes: list[Outcome] = []

    def get(number: int) -> None:
        fd, _ = file_of(tmp_path / f"t{number}", b"")
        there = store(b, a)
        outcomes.extend(there.get([Target("f", fd)], nobody))
        there.close()
        os.close(fd)

    threads = [threading.Thread(target=get, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [None] * 50 == [outcome.error for outcome in outcomes]
    assert {content} == {(tmp_path / f"t{n}").read_bytes() for n in range(50)}


def sharing_pids(node: Node) -> list[int]:
    """Workers that serve files."""
    return [pid for pid in children_of(node.pid) if "msgd: files" in command_line(pid)]


def killer(node: Node, rng: random.Random, times: int, done: threading.Event) -> Iterator[None]:
    """Kill workers that serve files, each a moment after it is there."""
    for _ in range(times):
        wait_for(lambda: done.is_set() or sharing_pids(node), 60, "a worker that serves files")
        if done.wait(rng.random() * 0.05):
            return
        for pid in sharing_pids(node):
            os.kill(pid, signal.SIGKILL)
            yield


def broken_off(pair: tuple[Node, Node], directory: Path, size: int, times: int, seed: int) -> int:
    """Put a big file and many small ones, and get them back, while workers are killed; how many were."""
    a, b = pair
    rng, done = random.Random(seed), threading.Event()
    kills: list[None] = []
    thread = threading.Thread(target=lambda: kills.extend(killer(a, rng, times, done)))
    thread.start()
    contents = [rng.randbytes(size), *(rng.randbytes(rng.randrange(9000)) for _ in range(200))]
    files = [file_of(directory / f"s{n}", content) for n, content in enumerate(contents)]
    there = store(b, a)
    sources = [Source(f"d/{n}", fd, s.st_size, s.st_mtime_ns, False) for n, (fd, s) in enumerate(files)]
    assert [None] * 201 == [o.error for o in there.put(sources, nobody)]
    targets = [file_of(directory / f"t{n}", b"") for n in range(201)]
    got = list(there.get([Target(f"d/{n}", fd) for n, (fd, _) in enumerate(targets)], nobody))
    done.set()
    thread.join()
    there.close()
    for fd, _ in (*files, *targets):
        os.close(fd)
    assert [None] * 201 == [o.error for o in got]
    assert contents == [(directory / f"t{n}").read_bytes() for n in range(201)]
    assert contents == [(a.state / "files" / "d" / f"{n}").read_bytes() for n in range(201)]
    return len(kills)


@pytest.mark.slow
def test_a_worker_may_die_at_any_moment(pair: tuple[Node, Node], tmp_path: Path) -> None:
    """It costs a new connection: what is there is gone on with."""
    assert broken_off(pair, tmp_path, 40 << 20, 10, 1) >= 3


@pytest.mark.long
def test_workers_die_two_hundred_times(pair: tuple[Node, Node], tmp_path: Path) -> None:
    killed, seed = 0, 0
    while killed < 200:
        seed += 1
        killed += broken_off(pair, tmp_path, 200 << 20, 20, seed)


@pytest.mark.long
@pytest.mark.parametrize("is_sparse", [True, False])
def test_a_file_of_one_gib(pair: tuple[Node, Node], tmp_path: Path, is_sparse: bool) -> None:
    a, b = pair
    path, rng = tmp_path / "big", random.Random(3)
    with path.open("wb") as file:
        if is_sparse:
            file.truncate(1 << 30)
        else:
            for _ in range(1024):
                file.write(rng.randbytes(1 << 20))
    fd = os.open(path, os.O_RDONLY)
    status = os.fstat(fd)
    there = store(b, a)
    put = only(list(there.put([Source("big", fd, 1 << 30, status.st_mtime_ns, False)], nobody)))
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == put.sha256
    back, _ = file_of(tmp_path / "back", b"")
    assert put.sha256 == only(list(there.get([Target("big", back)], nobody))).sha256
    there.close()
    os.close(fd)
    os.close(back)


@pytest.mark.slow
def test_a_reload_gives_and_takes_the_right(nodes: Nodes, tmp_path: Path) -> None:
    """At once, also from who is connected."""
    a, b = nodes.both()
    a.trust(b)
    b.trust(a)
    assert isinstance(put(b, a, tmp_path / "f", "f", b"x").error, NotTrusted)
    a.config.write_text(a.config.read_text() + '[peer.b]\nfiles = "write"\n')
    assert 0 == a.ctl("reload").returncode
    assert None is put(b, a, tmp_path / "f", "f", b"x").error
    there = store(b, a)
    assert ["f"] == [entry.name for entry in there.ls()]
    a.config.write_text(a.config.read_text().replace('files = "write"', 'files = "none"'))
    assert 0 == a.ctl("reload").returncode
    with pytest.raises(NotTrusted, match="a does not let b read its store"):
        list(there.ls())
    there.close()


@pytest.mark.slow
def test_a_peer_that_is_removed_gets_nothing_more(pair: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = pair
    assert None is put(b, a, tmp_path / "f", "f", b"x").error
    there = store(b, a)
    assert ["f"] == [entry.name for entry in there.ls()]
    assert 0 == a.ctl("peer", "rm", "b").returncode
    with pytest.raises(NotTrusted):
        list(there.ls())
    there.close()
