"""Local users at a real control socket: what each verb of [access] lets them do, also after a reload."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from msgctl.client import Client
from msgd.errors import NotTrusted, PermissionRefused
from tests.nodes import Node, Nodes, pair
from tests.require import require

pytestmark = pytest.mark.slow

NOBODY = 65534
RULES = '[access]\nsend = ["nobody"]\nhistory = ["%msgd"]\n'


@pytest.fixture
def two() -> Iterator[tuple[Node, Node]]:
    """A pair below a directory that other users may enter; the first lets `nobody` send."""
    require("root")
    directory = tempfile.mkdtemp(prefix="msgd-access-")
    os.chmod(directory, 0o755)
    nodes = Nodes(Path(directory))
    try:
        a, b = nodes.start("a", RULES), nodes.start("b")
        pair(a, b)
        yield a, b
    finally:
        nodes.end()
        shutil.rmtree(directory)


@contextmanager
def as_nobody(node: Node) -> Iterator[Client]:
    """A connection of the user nobody: the kernel notes who connects."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        client = Client(str(node.socket))
    finally:
        os.seteuid(0)
        os.setegid(0)
    with client:
        yield client


def test_user_who_may_only_send_sends_and_sees_his_own_message(two: tuple[Node, Node]) -> None:
    """The receipt and the message itself; not the history, and nothing that decides; each refusal names its
    rule. The sending user stands in both logs."""
    a, b = two
    b.ctl("send", "a", "for others")
    with as_nobody(a) as client:
        receipt = client.send("b", "hola", wait="stored", timeout_s=10)
        assert "stored" == receipt["state"]
        report = {"handled": receipt["id"], "consumer": "job"}
        with pytest.raises(PermissionRefused, match=r"access\.history"):
            client.send("b", "", kind="result", headers=report)
        assert "hola" == client.call("Show", id=receipt["id"])["message"]["text"]
        assert "a" == client.call("Status")["node"]["name"]
        with pytest.raises(PermissionRefused, match=r"access\.history is %msgd \(the default\)"):
            list(client.stream("Log"))
        foreign = a.query("log", "--direction", "in")[0]["id"]
        with pytest.raises(PermissionRefused, match=r"may not read the history"):
            client.call("Show", id=foreign)
        with pytest.raises(PermissionRefused, match=r"access\.pair"):
            client.call("PairInvite")
        with pytest.raises(PermissionRefused, match=r"access\.admin"):
            client.call("Reload")
    assert ["nobody"] == [message["user"] for message in b.query("log", "--direction", "in")]


def test_reload_applies_to_new_connections(two: tuple[Node, Node]) -> None:
    """Who has lost his right keeps the connection that stands, as its calls were allowed when it was made."""
    a, _ = two
    with as_nobody(a) as before:
        a.config.write_text(a.config.read_text().replace('"nobody"', '"%adm"'))
        assert 0 == a.ctl("reload").returncode
        assert before.send("b", "hola")["id"]
        with as_nobody(a) as after, pytest.raises(PermissionRefused, match=r"access\.send is %adm \(as conf"):
            after.send("b", "hola")


def test_address_is_held_for_a_person_and_not_where_nothing_may_be_held(two: tuple[Node, Node]) -> None:
    """Nobody listens there: the message is held and says so; --no-hold and known-only keep nothing."""
    a, _ = two
    done = a.ctl("send", "127.99.0.1:9", "hola")
    assert 4 == done.returncode
    assert " held 127.99.0.1:9 (unpaired" in done.stdout
    assert "here:  msgctl pair ask 127.99.0.1:9" in done.stderr
    (waiting,) = a.query("queue")
    assert ("held", "unpaired", "msgctl pair ask 127.99.0.1:9") == tuple(
        waiting[name] for name in ("state", "reason", "next")
    )
    assert waiting["expires_at_ns"] > waiting["since_ns"]
    assert (1, 0) == tuple(a.query("status")[0][name] for name in ("held", "queued"))
    assert ["unpaired"] == [p["state"] for p in a.query("peer") if not p["pinned"]]
    assert 4 == a.ctl("send", "127.99.0.2:9", "hola", "--no-hold").returncode
    a.config.write_text(f'{a.config.read_text()}[pairing]\ntrust = "known-only"\n')
    assert 0 == a.ctl("reload").returncode
    for address in ("127.99.0.1:9", "127.99.0.2:9"):
        with a.client() as client, pytest.raises(NotTrusted):
            client.send(address, "hola")
    assert 1 == len(a.query("queue"))
