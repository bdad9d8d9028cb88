"""Who follows the history: changes of state, steps of the clock, readers that do not read."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from msgd import model
from msgd.lines import BETWEEN
from msgd.parts import Part, Step, Steps
from msgd.rows import Cursor, Filter
from msgd.wire import varlink
from tests.message_world import World
from tests.nodes import Node, Nodes, wait_for
from tests.test_history_model import STEPS, play, small_measures

__all__ = ["small_measures"]

SOON_S = 10.0
CALM = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
SOME = st.lists(STEPS.filter(lambda s: s[0] != "restart"), max_size=12)
WANTED = st.builds(
    Filter,
    peer=st.none() | st.integers(1, 2),
    direction=st.none() | st.sampled_from((model.OUT, model.IN)),
    state=st.none() | st.sampled_from((*model.STATES, model.HANDLED)),
    user=st.none() | st.just("bob"),
    grep=st.none() | st.just("h"),
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(str(tmp_path))
    yield world
    world.close()


@pytest.mark.slow
@settings(CALM, max_examples=80)
@given(SOME, st.lists(st.tuples(SOME, st.sets(st.integers(1, 2))), min_size=1, max_size=3), WANTED)
@example([("hold", 1, 1, 0)], [([("end waiting", 1, 0, 1)], {1})], Filter())
@example([("send", 1, 1, 0), ("end doubtful", 1)], [([("end doubtful", 1)], set())], Filter())
def test_changes_lead_from_each_state_to_the_next(
    before: list[Any], later: list[tuple[list[Any], set[int]]], wanted: Filter
) -> None:
    """Of every message whose state is another than it was, and of no other; asked for in any way."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        history = world.history()
        play(world, before)
        for steps, held in later:
            was = {m: world.state_of(m)[0] for m in world.known}
            since, turned = world.page.committed, held ^ world.held_peers
            flipped = {peer: world.open_from(peer) for peer in turned}
            play(world, steps)
            world.held_peers ^= turned
            bounds = (since, world.page.committed)
            found = list(
                history.changes(msgspec.structs.replace(wanted, state=None), *bounds, flipped=flipped)
            )
            fit = set(world.expected(msgspec.structs.replace(wanted, state=None)))
            for m, state in was.items():
                pairs = [(p.was, r.state) for p in found for r in p.rows if r.location == m.location]
                told = [(a, b) for a, b in pairs if a != b]
                chain = [state, *(state for _, state in told)] if m in fit else [state]
                assert [(a, b) for a, b in itertools.pairwise(chain)] == told
                assert m not in fit or world.state_of(m)[0] == chain[-1]
                report = world.report_of(m) if m in fit and len(chain) == 1 else None
                is_marked = report is not None and report.location[0] >= since
                assert [(state, state)] * is_marked == [pair for pair in pairs if pair not in told]
            told_at_all = [r for p in found for r in p.rows]
            rows = [r for r in told_at_all if wanted.state in (None, r.state, r.handled_by and "handled")]
            assert rows == [r for p in history.changes(wanted, *bounds, flipped=flipped) for r in p.rows]
        history.close()
        world.close()


def test_line_of_a_change_says_what_was(world: World) -> None:
    """At its end."""
    world.send(1, 1)
    world.commit()
    since = world.page.committed
    world.receipt(1, 1)
    world.commit()
    (part,) = world.history().changes(Filter(), since, world.page.committed, as_lines=True)
    (message,) = [varlink.loads(line) for line in part.lines.split(BETWEEN)]
    assert ("stored", "queued") == (message["state"], message["was"])
    assert "was" == list(message)[-1]


# --- steps of the clock ---------------------------------------------------------------------------------


def plot(world: World) -> list[str]:
    """Messages and steps in turn; what a reader hears of them, as letters."""
    for step_ns in (0, 3_600_000_000_000, -7_200_000_000_000, 0):
        if step_ns:
            world.set_clock(step_ns)
        world.send(1, 2)
        world.commit()
    return ["m2", "+", "m2", "-", "m4"]


def heard(told: Iterator[Part | Step]) -> list[str]:
    """How many messages in a row, `+` and `-` for steps."""
    names: list[str] = []
    for is_part, some in itertools.groupby(told, key=lambda each: isinstance(each, Part)):
        if is_part:
            names.append(f"m{sum(part.size for part in some if isinstance(part, Part))}")
        else:
            names += ["+" if step.clock_step_ns > 0 else "-" for step in some if isinstance(step, Step)]
    return names


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize("as_lines", [False, True])
def test_steps_stand_between_the_messages(world: World, is_indexed: bool, as_lines: bool) -> None:
    """In their places, forwards and backwards; none before the first message that is told."""
    world.set_clock(5_000_000_000)
    expected = plot(world)
    world.set_clock(1_000_000_000)
    world.commit()
    if is_indexed:
        world.index_all().close()
    history = world.history()
    assert expected == heard(history.told(Filter(), as_lines=as_lines, steps=Steps()))
    assert expected[::-1] == heard(history.told(Filter(reverse=True), as_lines=as_lines, steps=Steps()))
    assert ["m1", "-", "m4"] == heard(history.told(Filter(lines=5), as_lines=as_lines, steps=Steps()))
    assert ["m8"] == heard(history.told(Filter(), as_lines=as_lines))
    history.close()


def test_who_follows_hears_of_a_step_at_once(world: World) -> None:
    """Also where no message comes with it; and once."""
    world.send(1, 1)
    world.commit()
    history, steps = world.history(), Steps(follows=True)
    names = []
    for change in (
        lambda: world.set_clock(9_000_000_000),
        lambda: world.send(1, 1),
        lambda: world.send(1, 1),
    ):
        behind = Cursor(world.store.log_id, (world.page.committed - 1, 0), None).text
        change()
        world.commit()
        names.append(heard(history.told(Filter(after=behind), steps=steps)))
    assert [["+"], ["m1"], ["m1"]] == names
    history.close()


# --- the daemon -----------------------------------------------------------------------------------------


def follow(node: Node, **parameters: object) -> Iterator[dict[str, Any]]:
    """The messages and steps that a client hears."""
    client = node.client()
    for answer in client.stream("Log", endless=True, follow=True, **parameters):
        yield from answer["messages"]
        yield from answer.get("steps") or []


def memory_kib(pid: int, what: str) -> int:
    """A line of /proc/PID/status: VmRSS is what a process holds now, VmHWM the most so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def workers(node: Node) -> list[int]:
    return [pid for role, pids in node.pids().items() if role.startswith("control") for pid in pids]


@pytest.mark.slow
def test_follower_hears_of_each_change(nodes: Nodes) -> None:
    """Queued while the peer is away, stored when it is back."""
    a, b = nodes.pair("a", "b")
    b.stop()
    heard = follow(a, changes=True)
    a.ctl("send", "--wait=queued", "b", "hola")
    first = next(heard)
    assert ("hola", "queued", None) == (first["text"], first["state"], first.get("was"))
    b.start()
    second = next(heard)
    assert (first["id"], "stored", "queued") == (second["id"], second["state"], second["was"])


@pytest.mark.slow
def test_reader_that_does_not_read_costs_nobody_memory(nodes: Nodes) -> None:
    """Its worker waits with one answer; then it hears all, and a worker ends with a client that is gone."""
    node = nodes.start("a")
    node.ctl("peer", "add", "b", "127.0.0.1:9", "--key", nodes.start("b").identity)
    idle, gone = node.client(), node.client()
    call = varlink.call("org.msgd.Control.Log", {"follow": True}, more=True)
    for client in (idle, gone):
        client.sock.sendall(call)
    wait_for(lambda: len(workers(node)) == 2, SOON_S, "two workers")
    before = {pid: memory_kib(pid, "VmRSS") for pid in workers(node)}
    count = 12_000
    done = node.ctl("send", "-q", "--lines", "--wait=queued", "b", stdin=f"{'x' * 1000}\n" * count)
    assert 0 == done.returncode, done.stderr
    heard = 0
    while heard < count:
        reply = idle.next_reply()
        if reply is None:
            idle.feed(idle.sock.recv(1 << 18))
        else:
            heard += len(reply.parameters["messages"])
    assert count == heard
    assert all(memory_kib(pid, "VmHWM") - kib < 10_000 for pid, kib in before.items())
    gone.close()
    wait_for(lambda: len(workers(node)) == 1, SOON_S, "the worker to end")
    idle.close()
