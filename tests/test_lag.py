"""How far the index is behind, as `systemctl status` and `msgctl status` tell it."""

from pathlib import Path

import pytest

from msgd import lag
from msgd.indexer import Indexer
from msgd.log import gather
from msgd.log.page import SharedPage
from msgd.pulse import Pulse
from msgd.systemd import Notifier
from msgd.wire.ledger import Pong
from tests.message_world import World
from tests.nodes import Nodes, wait_for

FAR = lag.READY_BYTES + 1


def test_a_small_lag_is_not_worth_telling() -> None:
    """What a query reads by itself is no news; more is told with how much is done."""
    assert ("ready", "") == (lag.state(lag.READY_BYTES, True), lag.told(lag.READY_BYTES, True, 0.5))
    assert ("rebuilding", "index rebuilding 42 %") == (lag.state(FAR, True), lag.told(FAR, True, 0.42))
    assert ("catching up", "index catching up 99 %") == (lag.state(FAR, False), lag.told(FAR, False, 0.99))


def test_status_of_the_service_tells_the_progress() -> None:
    """The last words of the log process, and nothing of the index once it is ready."""
    pulse = Pulse(SharedPage(), Notifier(), lambda ping: True, 1.0)
    pulse.heard(Pong(1, 1, 2, 0, "index rebuilding 42 %"), peers=3)
    assert "1 of 3 peers connected, 2 messages queued, index rebuilding 42 %" == pulse.status(3)
    pulse.heard(Pong(2, 1, 2, 0), peers=3)
    assert "1 of 3 peers connected, 2 messages queued" == pulse.status(3)


def test_progress_goes_from_nothing_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new index is told to be new until it has come to the end; one that goes on is not."""
    monkeypatch.setattr(gather, "BLOCK_BYTES", 1)  # no record fits, so that each counts alone
    world = World(str(tmp_path))
    for _ in range(5):
        world.send(1, 20)
        world.commit()
    indexer: Indexer = world.indexer()
    shares = [indexer.done()]
    while True:
        more = indexer.step(1)
        shares.append(indexer.done())
        if not more:
            break
        assert indexer.is_new
    assert 0 == shares[0]
    assert len(shares) >= 4
    assert sorted(shares) == shares
    assert not indexer.is_new
    assert indexer.position / world.store.committed == shares[-1]
    indexer.close()
    indexer = world.indexer()
    indexer.step()
    assert not indexer.is_new
    indexer.close()
    world.close()


@pytest.mark.slow
def test_status_tells_of_the_index(nodes: Nodes) -> None:
    """What a client is told; the index follows within seconds."""
    a, _ = nodes.pair("a", "b")
    with a.client() as client:
        for number in range(3):
            client.send("b", f"message {number}", wait="stored", timeout_s=20)
        before = client.call("Status")["node"]["index"]
        wait_for(lambda: client.call("Status")["node"]["index"]["position"] > 0, 20, "the index to follow")
        index = client.call("Status")["node"]["index"]
    assert "ready" == before["state"] == index["state"]
    assert 0 < index["position"]
    assert index["behind_bytes"] < 2000
    assert 0 < index["done"] <= 1
