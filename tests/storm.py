"""A storm over two real nodes: clients that send, a hand that kills, an eye for zombies, the reading after.

Whether a kill meets an append in flight is not guessed. `Killer` waits until /proc/PID/syscall shows the log
process in a write or a sync of the log, stops it with SIGSTOP, and looks again once it stands: a process that
was stopped there has not run one line of its own since, so nobody has been told that the append is kept.
Only then does the victim get its SIGKILL, and only then is the kill counted as one in flight.

That is behind the write. Every second such kill of a log process comes before it: strace kills it as it
enters the write, which then does not happen, so that an answer given too early is found out, too.
"""

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgctl.client import Client
from msgctl.pipeline import Call, Pipeline
from msgd.errors import MsgdError, Uncertain, Unreachable
from msgd.log.files import REAL_FILES
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind
from msgd.log.scan import SegmentReader, scan_segment
from msgd.log.segment import list_bases, segment_path
from tests.checker import Verdict, check
from tests.nodes import Node, children_of

APPENDING = {18: "pwrite64", 75: "fdatasync", 296: "pwritev", 328: "pwritev2"}  # system calls of x86-64
ROLES = (
    "log",
    "log",
    "log",
    "log",
    "supervisor",
    "supervisor",
    "link",
    "link",
    "control",
    "control",
    "index",
)
AIM_WITHIN_S = 3.0
ZOMBIE_S = 1.0
LONG_BYTES = 20_000


class History:
    """What the clients of one node saw. Each writer is one thread."""

    def __init__(self) -> None:
        self.attempted: dict[str, list[bytes]] = {}
        self.acknowledged: dict[bytes, tuple[str, str]] = {}  # body -> level, id
        self.refused: set[bytes] = set()
        self.unknown = 0
        self.lock = threading.Lock()

    def acknowledge(self, bodies: list[bytes], ids: list[str], level: str) -> None:
        with self.lock:
            self.acknowledged.update({b: (level, i) for b, i in zip(bodies, ids, strict=True)})

    def count(self, level: str) -> int:
        with self.lock:
            return sum(1 for have, _ in self.acknowledged.values() if have == level)


class Writer(threading.Thread):
    """One client: connects again and again, sends in its own way, remembers what it is told."""

    def __init__(self, node: Node, peer: str, way: str, history: History, seed: int) -> None:
        super().__init__(name=f"{node.name}/{way}", daemon=True)
        self.error: BaseException | None = None
        self._node, self._peer, self._way, self._history = node, peer, way, history
        self._random = random.Random(f"{seed} {self.name}")
        self._attempted = history.attempted.setdefault(self.name, [])
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        send = {"pipeline": self._pipeline, "keyed": self._keyed}.get(self._way, self._single)
        try:
            while not self._ended.is_set():
                try:
                    with Client(str(self._node.socket), timeout_s=20) as client:
                        send(client)
                except Unreachable:
                    self._ended.wait(0.02)
        except BaseException as error:
            self.error = error

    def _body(self) -> bytes:
        size = LONG_BYTES if self._random.random() < 0.01 else self._random.randrange(200)
        body = (
            f"{self.name} {len(self._attempted)} ".encode() + self._random.randbytes(size // 2).hex().encode()
        )
        self._attempted.append(body)
        return body

    def _single(self, client: Client) -> None:
        while not self._ended.is_set():
            body = self._body()
            try:
                self._note(body, client.send(self._peer, body, wait=self._way, timeout_s=2))
            except (Uncertain, Unreachable):
                self._history.unknown += 1
                return
            except MsgdError:
                self._history.refused.add(body)

    def _keyed(self, client: Client) -> None:
        """Sent again with the same key until it is acknowledged: kept once, however often it was sent."""
        while not self._ended.is_set():
            if not self._attempted or self._attempted[-1] in self._history.acknowledged:
                self._body()
            body = self._attempted[-1]
            try:
                key = f"{self.name} {len(self._attempted)}"
                self._note(body, client.send(self._peer, body, key=key))
            except Uncertain:
                return
            except MsgdError as error:
                if "catching up" not in error.message:
                    raise
                self._ended.wait(0.05)

    def _note(self, body: bytes, receipt: dict[str, object]) -> None:
        level = "stored" if receipt["state"] == "stored" else "queued"
        self._history.acknowledge([body], [str(receipt["id"])], level)

    def _pipeline(self, client: Client) -> None:
        """Calls of SendMany, some under way at a time; without an answer, at the end, it is unknown."""
        call = Call(self._peer, wait=self._random.choice(("queued", "stored")), timeout_s=5)
        pipeline = Pipeline(client, 4)
        bodies_of: dict[str, list[bytes]] = {}
        try:
            while not self._ended.is_set() or pipeline.under_way:
                if not pipeline.full and not self._ended.is_set():
                    bodies = [self._body() for _ in range(self._random.randrange(2, 60))]
                    frame, batch = call.frame(bodies)
                    bodies_of[batch.ids[0]] = bodies
                    pipeline.put(frame, batch)
                pipeline.wait()
                for ids, answer in pipeline.answers():
                    self._take(bodies_of.pop(ids[0]), ids, answer)
        except Unreachable:
            self._history.unknown += sum(map(len, bodies_of.values()))

    def _take(self, bodies: list[bytes], ids: list[str], answer: object) -> None:
        if isinstance(answer, dict):
            self._history.acknowledge(bodies, ids, "stored" if answer["state"] == "stored" else "queued")
        elif isinstance(answer, Uncertain):
            self._history.unknown += len(bodies)
        else:
            with self._history.lock:
                self._history.refused.update(bodies)


@contextmanager
def writing(nodes: tuple[Node, Node], histories: dict[str, History], seed: int) -> Iterator[list[Writer]]:
    """Four clients on each node, until the block ends; what broke one of them is raised."""
    a, b = nodes
    ways = ("queued", "stored", "keyed", "pipeline")
    writers = [
        Writer(node, peer.name, way, histories[node.name], seed)
        for node, peer in ((a, b), (b, a))
        for way in ways
    ]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        for writer in writers:
            writer.end()
        for writer in writers:
            writer.join(60)
    for writer in writers:
        assert not writer.is_alive(), f"{writer.name} hangs"
        if writer.error is not None:
            raise writer.error


class Killer:
    """SIGKILL to one process at a time, of either node, chosen by `seed`."""

    def __init__(self, nodes: tuple[Node, Node], seed: int, settings: str) -> None:
        self.kills: Counter[str] = Counter()
        self.in_flight = 0
        self._nodes = nodes
        self._settings = settings
        self._random = random.Random(seed)
        self._bag: list[str] = []  # so that a short storm has all roles, too

    def strike(self) -> None:
        """Kill one process; a supervisor is started again at once, as an init would."""
        node = self._random.choice(self._nodes)
        if not self._bag:
            self._bag = self._random.sample(ROLES, len(ROLES))
        role = self._bag.pop()
        aimed = self._random.random() < 0.7
        log = self._log_of(node)
        if aimed and role == "log" and self.kills["log"] % 2 and kill_before_write(log):
            self.kills["log"] += 1
            self.in_flight += 1
        elif aimed and hold_in_append(log):
            try:
                self._kill(node, role)
                self.in_flight += 1
            finally:
                _signal(log, signal.SIGCONT)
        else:
            self._kill(node, role)
        if not node.is_running:
            node.start(self._settings, wait=False)

    def _log_of(self, node: Node) -> int:
        deadline_s = time.monotonic() + 15
        while True:
            assert node.is_running, f"{node.name} ended by itself:\n{node.said()[-2000:]}"
            found = node.pids().get("log")
            if found:
                return found[0]
            assert time.monotonic() < deadline_s, f"{node.name} has no log process:\n{node.said()[-2000:]}"
            time.sleep(0.005)

    def _kill(self, node: Node, role: str) -> None:
        pids = node.pids()
        named = {
            "link": [n for n in pids if n.startswith("peer")],
            "control": [n for n in pids if n.startswith("control")],
        }
        candidates = [pid for name in named.get(role, [role]) for pid in pids.get(name, [])]
        if not candidates:
            role, candidates = "log", pids.get("log", [node.pid])
        self.kills[role] += 1
        victim = self._random.choice(sorted(candidates))
        os.kill(victim, signal.SIGKILL)
        if victim == node.pid:
            node.end(signal.SIGKILL, 10)


def hold_in_append(pid: int) -> bool:
    """Stop a log process in the middle of an append; False, and it runs on, if it does not come to one."""
    deadline_s = time.monotonic() + AIM_WITHIN_S
    while time.monotonic() < deadline_s and state_of(pid) not in "ZX":
        if system_call(pid) not in APPENDING:
            continue
        if not _signal(pid, signal.SIGSTOP):
            return False
        while state_of(pid) not in "TZX" and time.monotonic() < deadline_s + 10:
            pass
        if system_call(pid) in APPENDING:
            return True
        _signal(pid, signal.SIGCONT)
    return False


def kill_before_write(pid: int) -> bool:
    """SIGKILL to a log process as it enters the write of an append; False if it does not come to one."""
    inject = "inject=pwritev,pwritev2:signal=KILL:when=1"
    command = [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=pwritev,pwritev2",
        "-e",
        inject,
        "-p",
        str(pid),
    ]
    try:
        subprocess.run(command, timeout=AIM_WITHIN_S, stderr=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        return False
    return state_of(pid) in "ZX"


def system_call(pid: int) -> int:
    """The number of the system call that a process waits in or was stopped in; -1 for none."""
    try:
        word = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    except (OSError, IndexError):
        return -1
    return int(word) if word.lstrip("-").isdigit() else -1


def state_of(pid: int) -> str:
    """One letter as in ps; X when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class ZombieWatch(threading.Thread):
    """Looks at the children of the supervisors all the time: who is dead for more than a second is told."""

    def __init__(self, supervisors: Callable[[], list[int]]) -> None:
        super().__init__(name="zombie watch", daemon=True)
        self.found: list[str] = []
        self.samples = 0
        self._supervisors = supervisors
        self._since_s: dict[int, float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            self.samples += 1
            dead = {
                pid for parent in self._supervisors() for pid in children_of(parent) if state_of(pid) == "Z"
            }
            now_s = time.monotonic()
            self._since_s = {pid: self._since_s.get(pid, now_s) for pid in dead}
            old = [
                f"{pid} for {now_s - since_s:.1f} s"
                for pid, since_s in self._since_s.items()
                if now_s - since_s > ZOMBIE_S
            ]
            self.found += old

    def __enter__(self) -> "ZombieWatch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(10)


# --- reading, when the daemons have stopped -----------------------------------------------------------------


class Batch:
    """One batch of a direction, as it lies in one log."""

    def __init__(self, header: Header, payload: bytes, messages: list[tuple[str, bytes]]) -> None:
        self.first_seq, self.count, self.head = header.first_seq, header.count, header.head
        self.payload = payload
        self.messages = messages  # id, body

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and vars(self) == vars(other)


def batches(node: Node, *kinds: int) -> list[Batch]:
    """What a stopped node's log holds of one direction, in the order of the log."""
    directory = str(node.state / "log")
    end = log_end(directory)
    reader = Reader(directory, lambda: end)
    found = [
        Batch(h, reader.batch(h), [(m.id.hex(), m.body) for m in reader.messages(h)])
        for h in reader.headers()
        if h.kind in kinds
    ]
    reader.close()
    return found


def log_end(directory: str) -> int:
    """The log offset behind the last sound record."""
    base = list_bases(REAL_FILES, directory)[-1]
    path = segment_path(directory, base)
    fd = os.open(path, os.O_RDONLY)
    try:
        return scan_segment(SegmentReader(REAL_FILES, path, base, fd), lambda _: None).stop
    finally:
        os.close(fd)


def judge(sender: Node, receiver: Node, history: History) -> Verdict:
    """Both logs against each other and against what the clients saw, for one direction."""
    sent, received = batches(sender, Kind.OUT, Kind.RELEASED), batches(receiver, Kind.IN)
    for here, there in zip(sent, received, strict=False):
        assert here == there, f"batch {here.first_seq} of {sender.name} differs from {there.first_seq}"
    assert len(sent) == len(received)
    seq = 1
    for batch in sent:
        assert (batch.first_seq, batch.count) == (seq, len(batch.messages))
        seq += batch.count
    read = [message for batch in received for message in batch.messages]
    ids = {body: id for id, body in read}
    assert len({id for id, _ in read}) == len(read), "an id is there twice"
    for body, (_, id) in history.acknowledged.items():
        assert ids.get(body, "") in ("", id.replace("-", "")), f"{id} holds another body"
    return check(history.attempted, history.acknowledged, history.refused, [body for _, body in read])
