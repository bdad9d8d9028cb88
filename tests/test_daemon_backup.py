"""A backup is a copy of the state directory, taken with cp or tar from a msgd that is at work."""

import itertools
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msgctl.pipeline import send_many
from msgd.log.files import REAL_FILES
from msgd.log.reader import Reader
from msgd.log.record import Kind
from msgd.log.segment import list_bases
from msgd.verifying import Check
from tests.nodes import Node, Nodes, wait_for
from tests.storm import log_end

pytestmark = pytest.mark.slow

SMALL_SEGMENTS = "[limits]\nsegment_bytes = 2097152\n"
COPIES = 6  # in turn of the sender's state and of the receiver's
BETWEEN = 3000  # messages that are acknowledged between two copies


class Load(threading.Thread):
    """Messages 0, 1, 2 … as fast as they go; `stored` are on both disks, and this client has heard of it."""

    def __init__(self, node: Node, peer: str) -> None:
        super().__init__()
        self._node = node
        self._peer = peer
        self._ended = threading.Event()
        self.stored = 0

    def run(self) -> None:
        with self._node.client() as client:
            for ids, answer in send_many(client, self._peer, self._bodies(), wait="stored", timeout_s=60):
                assert answer["state"] == "stored"
                self.stored += len(ids)

    def _bodies(self) -> Iterator[bytes]:
        for number in itertools.takewhile(lambda _: not self._ended.is_set(), itertools.count()):
            yield b"%d %s" % (number, b"x" * (number * 7 % 3000))

    def __enter__(self) -> "Load":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(60)


def with_cp(state: Path, target: Path) -> None:
    run("cp", "-a", str(state), str(target))


def with_tar(state: Path, target: Path) -> None:
    archive = target.with_suffix(".tar")
    run("tar", "-C", str(state), "-cf", str(archive), ".")
    target.mkdir()
    run("tar", "-C", str(target), "-xf", str(archive))
    archive.unlink()


def run(*command: str) -> None:
    """Both end with 1 where a file changed or went while they read it, and copy the rest."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1), done.stderr


def numbers_in(log: Path, *kinds: int) -> list[int]:
    """The messages of a copy in the order of its log; everything in it must be sound and follow."""
    end = log_end(str(log))
    reader = Reader(str(log), lambda: end)
    check = Check(reader, str, lambda offset: None)
    check.run()
    assert [] == check.findings
    return [
        int(message.body.split()[0])
        for header in reader.headers()
        if header.kind in kinds
        for message in reader.messages(header)
    ]


@pytest.mark.parametrize("take", [with_cp, with_tar])
def test_copy_under_load_has_all_that_was_acknowledged(
    nodes: Nodes, tmp_path: Path, take: Callable[[Path, Path], None]
) -> None:
    """On both nodes, over segment changes; the copies are sound logs, and one of them is a node again."""
    a, b = nodes.pair(settings=SMALL_SEGMENTS)
    promised = []
    with Load(a, "b") as load:
        for number in range(COPIES):
            wait_for(lambda: load.stored > BETWEEN * number, 30, "messages")  # noqa: B023
            promised.append(load.stored)
            take((a, b)[number % 2].state, tmp_path / str(number))
        wait_for(lambda: load.stored > BETWEEN * COPIES, 30, "messages after the last copy")
    rolled = set()
    for number, stored in enumerate(promised):
        log = tmp_path / str(number) / "log"
        kinds = (Kind.IN,) if number % 2 else (Kind.OUT, Kind.RELEASED)
        found = numbers_in(log, *kinds)
        assert list(range(len(found))) == found
        assert stored <= len(found)
        rolled.add(len(list_bases(REAL_FILES, str(log))))
    assert len(rolled) > 2, "no segment changed meanwhile"

    a.stop()
    shutil.rmtree(a.state)
    shutil.copytree(tmp_path / "0", a.state)
    a.start(SMALL_SEGMENTS)
    assert a.ctl("verify").returncode == 0
    kept = [message["text"].split()[0] for message in a.query("log", "--direction", "out")]
    assert [str(number) for number in range(len(kept))] == kept
    assert promised[0] <= len(kept)
    wait_for(lambda: a.ctl("send", "b", "--wait=stored", "after").returncode == 0, 30, "a message to b")
