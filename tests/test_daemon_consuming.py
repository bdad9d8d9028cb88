"""Consumers at the control socket of real daemons: what a program meets, whatever is killed meanwhile."""

import base64
import os
import pwd
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from msgctl.client import Client
from msgd.errors import MsgdError, UnknownConsumer, UnknownMessage, UnknownPeer, UsageError
from tests.nodes import Node, Nodes, wait_for

pytestmark = pytest.mark.slow

SOON_S = 30.0


class Program:
    """A program that receives as one holder."""

    def __init__(self, node: Node, name: str = "job") -> None:
        self.node = node
        self.name = name
        self.holder = base64.b64encode(os.urandom(16)).decode()
        self.client: Client = node.client()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.client.call(method, name=self.name, holder=self.holder, **parameters)

    def next(self, *settle: dict[str, str], timeout_ms: int | None = 0) -> dict[str, Any]:
        return self.call("RecvNext", settle=list(settle), timeout_ms=timeout_ms)

    def close(self) -> None:
        self.client.close()


@pytest.fixture(scope="module")
def ab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    """One pair for all: each test has a consumer of its own, that begins now."""
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    yield nodes.pair("a", "b")
    nodes.end()


def sent(node: Node, *texts: str, **more: Any) -> list[str]:
    """The ids of messages that are stored at b."""
    with node.client() as client:
        return [client.send("b", text, wait="stored", timeout_s=SOON_S, **more)["id"] for text in texts]


def test_what_a_program_meets(ab: tuple[Node, Node]) -> None:
    """One after the other, since a pair of daemons is dear."""
    a, b = ab
    program = Program(b)
    first, second, third = sent(a, "one", "two", "three", headers={"report": "handled"})

    begun = program.call("RecvBegin", peer="a", kind="text")
    assert (True, "job", "a", "text", 3) == (
        begun["created"],
        *(begun["consumer"][field] for field in ("name", "peer", "kind", "behind")),
    )
    assert not program.call("RecvBegin", peer="a", kind="text")["created"]
    for wanted in ({}, {"peer": "a"}, {"peer": "a", "kind": "file"}):
        with pytest.raises(UsageError, match="peer a and kind text"):
            program.call("RecvBegin", **wanted)

    taken = program.next()
    assert (1, program.client.call("Show", id=first)["message"]) == (taken["attempt"], taken["message"])
    taken = program.next({"id": first, "outcome": "failed", "why": "exit 1"})
    assert (2, "one") == (taken["attempt"], taken["message"]["text"])
    taken = program.next({"id": first, "outcome": "aside", "why": "exit 1"})
    assert "two" == taken["message"]["text"]
    program.call("RecvSettle", settle=[{"id": second, "outcome": "done"}])
    assert "three" == program.next()["message"]["text"]

    (one, other) = program.client.call("ConsumerQueue", name="job")["waiting"]
    assert (first, "aside", 1 + 1, "exit 1", "a") == tuple(
        one[field] for field in ("id", "state", "attempts", "why", "peer")
    )
    assert (third, "taken", 1, None) == tuple(other[field] for field in ("id", "state", "attempts", "why"))
    (consumer,) = program.client.call("Consumers")["consumers"]
    assert (1, 1, 1) == tuple(consumer[field] for field in ("behind", "open", "aside"))

    rival = Program(b)
    assert rival.next() == {"message": None}
    program.close()
    assert "three" == rival.next(timeout_ms=None)["message"]["text"]
    with pytest.raises(UnknownMessage, match="set no message aside"):
        rival.client.call("ConsumerRetry", name="job", id=second)
    assert {"count": 1} == rival.client.call("ConsumerRetry", name="job", id=first[:20])
    assert "one" == rival.next({"id": third, "outcome": "done"})["message"]["text"]
    rival.call("RecvSettle", settle=[{"id": first, "outcome": "done"}])

    wait_for(lambda: 3 == len(a.query("log", "--kind", "result")), SOON_S, "the reports")
    told = {message["headers"]["handled"] for message in a.query("log", "--kind", "result")}
    assert {first, second, third} == told
    assert 0 == b.ctl("verify").returncode

    b.restart()
    again = Program(b)
    assert again.next() == {"message": None}
    assert {} == again.client.call("ConsumerRemove", name="job")
    with pytest.raises(UnknownConsumer):
        again.next()
    assert [] == again.client.call("Consumers")["consumers"]
    done = [
        m["text"] for m in b.query("log", "--kind", "control") if m["headers"]["record"][:8] == "consumer"
    ]
    user = pwd.getpwuid(os.getuid()).pw_name
    assert [f"{user} began to receive as consumer job", f"{user} removed consumer job"] == done
    rival.close()
    again.close()


@pytest.mark.parametrize(
    ("method", "parameters", "words"),
    [
        ("RecvNext", {"holder": "abc"}, "is no holder"),
        ("RecvNext", {"holder": base64.b64encode(bytes(15)).decode()}, "is no holder"),
        ("RecvNext", {"settle": [{"id": "0123", "outcome": "done"}]}, "not the id"),
        ("RecvNext", {"settle": [{"id": "0" * 32, "outcome": "gone"}]}, "no outcome 'gone'"),
        ("RecvNext", {"settle": [{"id": "0" * 32, "outcome": "done"}] * 1025}, "1025 messages"),
        ("RecvNext", {"settle": [{}]}, "missing required field"),
        ("RecvNext", {"settle": [{"id": "0" * 32, "outcome": "done", "attempt": 1 << 70}]}, "attempt"),
        ("RecvNext", {"timeout_ms": -1}, "timeout_ms"),
        ("RecvNext", {"timeout_ms": 1 << 64}, "timeout_ms"),
        ("RecvBegin", {"from": "then"}, "cannot begin at 'then'"),
        ("RecvBegin", {"name": "Job!"}, "cannot name a consumer"),
        ("RecvBegin", {"kind": "control"}, "No message of kind 'control'"),
    ],
)
def test_wrong_calls_are_refused_with_a_reason(
    ab: tuple[Node, Node], method: str, parameters: dict[str, Any], words: str
) -> None:
    program = Program(ab[1], "wrong")
    program.call("RecvBegin", **{"from": "now"})
    with pytest.raises(UsageError, match=words):
        program.client.call(method, **{"name": "wrong", "holder": program.holder, **parameters})
    assert {"message": None} == program.next()
    program.close()


def test_what_was_refused_is_none_of_the_consumers_of_a_connection(ab: tuple[Node, Node]) -> None:
    program = Program(ab[1], "room")
    for number in range(70):
        program.name = f"no-{number}"
        with pytest.raises(UnknownPeer):
            program.call("RecvBegin", peer="nobody")
        with pytest.raises(UnknownConsumer):
            program.next()
    program.name = "room"
    program.call("RecvBegin", **{"from": "now"})
    assert {"message": None} == program.next()
    program.close()


def test_a_message_is_handed_out_as_soon_as_it_is_here(ab: tuple[Node, Node]) -> None:
    program = Program(ab[1], "soon")
    program.call("RecvBegin", **{"from": "now"})
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(program.next(timeout_ms=10**15)))
    waiting.start()
    (raw,) = sent(ab[0], "hola")
    waiting.join(SOON_S)
    program.close()
    assert [raw] == [answer["message"]["id"] for answer in found]


# --- kills -----------------------------------------------------------------------------------------------


class Handler(threading.Thread):
    """A program that handles one message after the other, and comes back when it loses its connection."""

    def __init__(self, node: Node, story: "Story") -> None:
        super().__init__(daemon=True)
        self.node = node
        self.story = story
        self.dies = threading.Event()  # as if it were killed and started anew
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.story.is_over.is_set():
                self._live()
        except BaseException as error:
            self.failure = error
            raise

    def _live(self) -> None:
        """One program from its start to its end; its connections come and go."""
        holder = base64.b64encode(os.urandom(16)).decode()
        settle: list[dict[str, str]] = []
        while not self.story.is_over.is_set():
            try:
                with self.node.client() as client:
                    client.call("RecvBegin", name="handlers", holder=holder, **{"from": "now"})
                    self._handle(client, holder, settle)
                    self.story.forget(settle)
                    return
            except MsgdError:
                self.story.is_over.wait(0.02)

    def _handle(self, client: Client, holder: str, settle: list[dict[str, str]]) -> None:
        """`settle`: what is done and not yet acknowledged."""
        while not (self.dies.is_set() or self.story.is_over.is_set()):
            answer = client.call("RecvNext", name="handlers", holder=holder, settle=settle, timeout_ms=100)
            self.story.acknowledged(settle)
            settle.clear()
            if answer["message"] is not None:
                settle.append({"id": self.story.handle(answer["message"]["id"]), "outcome": "done"})
        self.dies.clear()


class Story:
    """What the handlers did."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.lock = threading.Lock()
        self.handled: Counter[str] = Counter()
        self.acked: set[str] = set()
        self.forgotten: set[str] = set()  # done by a program that ended before it was acknowledged
        self.late: set[str] = set()  # came again though acknowledged

    def handle(self, raw: str) -> str:
        with self.lock:
            self.handled[raw] += 1
            if raw in self.acked:
                self.late.add(raw)
        return raw

    def has(self, count: int) -> bool:
        return len(self.handled) >= count

    def acknowledged(self, settle: list[dict[str, str]]) -> None:
        with self.lock:
            self.acked |= {each["id"] for each in settle}

    def forget(self, settle: list[dict[str, str]]) -> None:
        with self.lock:
            self.forgotten |= {each["id"] for each in settle}


VICTIMS = ("control", "log", "daemon", "program", "control", "log")


def kill(node: Node, victim: str, handler: Handler, chance: random.Random) -> None:
    """SIGKILL to one of them; a daemon is started again."""
    if victim == "daemon":
        node.kill9()
        node.start()
        return
    if victim == "program":
        handler.dies.set()
        return
    pids = [pid for role, found in node.pids().items() if role.startswith(victim) for pid in found]
    if pids:
        try:
            os.kill(chance.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was about to end


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_no_message_is_lost_and_none_comes_again_once_it_is_done(ab: tuple[Node, Node], kills: int) -> None:
    a, b = ab
    chance, story = random.Random(kills), Story()
    handlers = [Handler(b, story) for _ in range(2)]
    ids: set[str] = set()
    Program(b, "handlers").call("RecvBegin", **{"from": "now"})
    with a.client() as client:
        for number in range(kills):
            more = {client.send("b", f"{number}.{n}")["id"] for n in range(20)}
            ids |= more
            if not number:
                for handler in handlers:
                    handler.start()
            wanted = len(ids) - chance.randrange(20)
            wait_for(partial(story.has, wanted), SOON_S, "messages to be handled")
            kill(b, VICTIMS[number % len(VICTIMS)], chance.choice(handlers), chance)
    wait_for(lambda: story.acked | story.forgotten >= ids, SOON_S, "all to be acknowledged")
    story.is_over.set()
    for handler in handlers:
        handler.join(SOON_S)
    assert [None, None] == [handler.failure for handler in handlers]
    assert ids == set(story.handled)
    assert set() == story.late
    twice = {raw for raw, times in story.handled.items() if times > 1}
    assert twice <= story.forgotten
    assert 0 == b.ctl("verify").returncode
