"""kill -9 of any msgd process at any instant, on both nodes, under load: what was acknowledged is kept."""

import time

import pytest

from tests.checker import Verdict
from tests.nodes import Node, Nodes, is_connected, wait_for
from tests.require import require
from tests.storm import History, Killer, ZombieWatch, judge, writing

SETTINGS = "[limits]\nsegment_bytes = 4194304\nbackoff_max_s = 1.0\n"
DRAIN_WITHIN_S = 30

pytestmark = pytest.mark.slow


def storm(nodes: Nodes, seed: int, kills: int, acknowledged: int, every_s: float) -> None:
    """Run it, heal everything, drain, and judge; prints its figures."""
    require("root", "strace")
    pair = a, b = nodes.pair(settings=SETTINGS)
    histories = {node.name: History() for node in pair}
    killer = Killer(pair, seed, SETTINGS)
    began_s = time.monotonic()

    def kept() -> int:
        return sum(len(history.acknowledged) for history in histories.values())

    with ZombieWatch(lambda: [node.pid for node in pair]) as watch:
        with writing(pair, histories, seed):
            while killer.kills.total() < kills or kept() < acknowledged:
                time.sleep(every_s)
                killer.strike()
        for node in pair:
            node.wait_ready()
        drained_s = drain(a, b)
        for node in pair:
            assert node.stop() == 0
    verdicts = [judge(a, b, histories["a"]), judge(b, a, histories["b"])]
    print_figures(killer, histories, verdicts, watch, time.monotonic() - began_s, drained_s)
    assert [verdict.faults for verdict in verdicts] == [{}, {}]
    assert watch.found == []
    assert 3 * killer.in_flight >= killer.kills.total()
    assert all(len(history.acknowledged) > acknowledged / 20 for history in histories.values())
    assert [event for node in pair for event in node.events() if event["event"] == "epoch.opened"] == []
    assert [line for node in pair for line in node.said().splitlines() if "Traceback" in line] == []


def drain(a: Node, b: Node) -> float:
    """Until nothing waits on either node; how long it took."""
    began_s = time.monotonic()
    wait_for(lambda: is_connected(a, b) and is_connected(b, a), DRAIN_WITHIN_S, "the link to stand again")
    wait_for(lambda: not queued(a) and not queued(b), DRAIN_WITHIN_S, "everything to be stored")
    return time.monotonic() - began_s


def queued(node: Node) -> int:
    """Messages of this node that are not on the other's disk."""
    return sum(int(peer["queued"]) for peer in node.query("peer", "ls"))


def print_figures(
    killer: Killer,
    histories: dict[str, History],
    verdicts: list[Verdict],
    watch: ZombieWatch,
    seconds: float,
    drained_s: float,
) -> None:
    levels = {level: sum(h.count(level) for h in histories.values()) for level in ("queued", "stored")}
    roles = ", ".join(f"{count} {role}" for role, count in killer.kills.most_common())
    print(f"\n{killer.kills.total()} kills ({roles}), {killer.in_flight} of them with an append in flight")
    print(f"acknowledged: {levels['stored']} as stored, {levels['queued']} as queued only")
    unknown = sum(history.unknown for history in histories.values())
    recovered = sum(len(verdict.recovered) for verdict in verdicts)
    refused = sum(len(history.refused) for history in histories.values())
    print(f"{unknown} without an answer, {recovered} of them kept; {refused} refused")
    print(f"{seconds:.0f} s, drained in {drained_s:.1f} s, {watch.samples} looks for zombies")


@pytest.mark.timeout(180)
def test_what_was_acknowledged_survives_a_storm_of_kills(nodes: Nodes) -> None:
    """At least 15 kills, a third of them with an append in flight, and 10,000 acknowledged messages."""
    storm(nodes, seed=20261121, kills=18, acknowledged=10_000, every_s=0.5)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_what_was_acknowledged_survives_a_long_storm(nodes: Nodes) -> None:
    """At least 100 kills, a third of them with an append in flight, and 100,000 acknowledged messages."""
    storm(nodes, seed=1, kills=120, acknowledged=100_000, every_s=0.8)
