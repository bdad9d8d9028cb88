"""The control socket for foreign programs: the PyPI varlink client, and clients that talk nonsense."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from varlink import Client as ForeignClient
from varlink import VarlinkError

from tests.nodes import Node, Nodes, children_of, is_running, wait_for

pytestmark = pytest.mark.slow

CONTROL, SERVICE = "org.msgd.Control", "org.varlink.service"
SOON_S = 10.0


class Raw:
    """A client that writes what it likes and reads replies one by one."""

    def __init__(self, node: Node) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SOON_S)
        self.sock.connect(str(node.socket))
        self.rest = b""

    def say(self, *calls: dict[str, Any] | bytes) -> None:
        """Everything in one write."""
        data = b"".join(c if isinstance(c, bytes) else json.dumps(c).encode() + b"\0" for c in calls)
        try:
            self.sock.sendall(data)
        except ConnectionError:
            pass  # it may have closed already, with a reason that can still be read

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.say({"method": f"{CONTROL}.{method}", "parameters": parameters})
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """The next reply. Raises EOFError at the end."""
        while b"\0" not in self.rest:
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self.rest += data
        frame, _, self.rest = self.rest.partition(b"\0")
        reply: dict[str, Any] = json.loads(frame)
        return reply

    def rest_until_end(self) -> list[dict[str, Any]]:
        """All replies until the daemon closes."""
        found = []
        try:
            while True:
                found.append(self.hear())
        except EOFError:
            return found

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def node(nodes: Nodes) -> Node:
    return nodes.start("a")


@pytest.fixture
def raw(node: Node) -> Iterator[Raw]:
    client = Raw(node)
    yield client
    client.close()


def alive(node: Node, before: dict[str, list[int]]) -> None:
    """The daemon is as it was: the same log and index process, and it answers."""
    after = node.pids()
    assert (before["log"], before["index"]) == (after["log"], after["index"])
    assert node.ctl("status").returncode == 0


# --- the foreign client -------------------------------------------------------------------------------------


def test_a_foreign_client_finds_out_what_there_is(node: Node) -> None:
    with ForeignClient(f"unix:{node.socket}") as client, client.open(SERVICE) as service:
        info = service.GetInfo()
        assert info["product"] == "msgd"
        assert {SERVICE, CONTROL} <= set(info["interfaces"])
        assert "method SendMany(" in service.GetInterfaceDescription(CONTROL)["description"]
        with pytest.raises(VarlinkError, match="InterfaceNotFound"):
            service.GetInterfaceDescription("org.example.Nothing")


def test_a_foreign_client_sends_and_follows_the_log(nodes: Nodes) -> None:
    """It makes its calls out of the description that the daemon gives, whose types it checks."""
    a, b = nodes.pair()
    with ForeignClient(f"unix:{a.socket}") as client, client.open(CONTROL) as control:
        receipt = control.Send(peer="b", message={"text": "hola"}, wait="stored", timeout_ms=10_000)[
            "receipt"
        ]
        assert ("stored", "b", 1) == (receipt["state"], receipt["peer"], receipt["seq"])
        raw = b"\xff\x00"
        control.Send(peer="b", message={"data": base64.b64encode(raw).decode()}, wait="stored")
        shown = control.Show(receipt["id"])["message"]
        assert ("hola", "text", "out") == (shown["text"], shown["kind"], shown["direction"])
        assert control.Status()["node"]["name"] == "a"
    with ForeignClient(f"unix:{b.socket}") as client, client.open(CONTROL) as control:
        parts = list(control.Log(_more=True))
        bodies = [m.get("text") or base64.b64decode(m["data"]) for part in parts for m in part["messages"]]
        assert ["hola", raw] == bodies
    with ForeignClient(f"unix:{b.socket}") as client, client.open(CONTROL) as control:
        stream = control.Log(_more=True, follow=True)
        seen = list(next(stream)["messages"])
        assert a.ctl("send", "--wait=stored", "b", "later").returncode == 0
        deadline_s = time.monotonic() + SOON_S
        while "later" not in [m.get("text") for m in seen] and time.monotonic() < deadline_s:
            seen += next(stream)["messages"]
        assert ["hola", None, "later"] == [m.get("text") for m in seen]


def test_a_foreign_client_gets_errors_by_name(node: Node) -> None:
    with ForeignClient(f"unix:{node.socket}") as client, client.open(CONTROL) as control:
        with pytest.raises(VarlinkError) as caught:
            control.Send(peer="nobody", message={"text": "hola"})
        assert f"{CONTROL}.UnknownPeer" == caught.value.error()
        assert "nobody" in caught.value.parameters()["message"]
        with pytest.raises(VarlinkError) as caught:
            control.Show("0123456789")
        assert f"{CONTROL}.UnknownMessage" == caught.value.error()
        assert control.Status()["node"]["name"] == "a", "the connection goes on"


# --- what is not as it should be ----------------------------------------------------------------------------

BAD_CALLS: list[tuple[dict[str, Any], str]] = [
    ({"method": f"{CONTROL}.Nothing"}, f"{SERVICE}.MethodNotFound"),
    ({"method": "org.example.Thing.Do"}, f"{SERVICE}.InterfaceNotFound"),
    ({"method": "nonsense"}, f"{SERVICE}.InterfaceNotFound"),
    ({"method": f"{CONTROL}.Send"}, f"{CONTROL}.InvalidRequest"),
    ({"method": f"{CONTROL}.Send", "parameters": {"peer": 5}}, f"{CONTROL}.InvalidRequest"),
    ({"method": f"{CONTROL}.Show", "parameters": {"id": ["x"]}}, f"{CONTROL}.InvalidRequest"),
    ({"method": f"{CONTROL}.Show", "parameters": {"id": "zz"}}, f"{CONTROL}.InvalidRequest"),
    ({"method": f"{CONTROL}.Log", "parameters": {"lines": "many"}}, f"{CONTROL}.InvalidRequest"),
    ({"method": f"{CONTROL}.Log", "parameters": {"direction": "up"}}, f"{CONTROL}.InvalidRequest"),
    ({"method": f"{CONTROL}.Log", "parameters": {"after_cursor": "x"}}, f"{CONTROL}.InvalidRequest"),
    ({"method": f"{CONTROL}.PeerAdd", "parameters": {"name": "x", "key": "y"}}, f"{CONTROL}.InvalidRequest"),
    ({"method": f"{CONTROL}.Show", "parameters": [1]}, f"{CONTROL}.InvalidRequest"),
    ({"method": f"{CONTROL}.Retry", "parameters": {"peer": "x"}}, f"{CONTROL}.UnknownPeer"),
    ({"method": f"{CONTROL}.Cancel", "parameters": {"id": "00000000"}}, f"{CONTROL}.UnknownMessage"),
]


@pytest.mark.parametrize(
    ("call", "error"), BAD_CALLS, ids=lambda v: str(v)[:60] if isinstance(v, dict) else ""
)
def test_a_bad_call_costs_an_error_reply_and_nothing_else(
    bad_calls_node: Node, call: dict[str, Any], error: str
) -> None:
    client = Raw(bad_calls_node)
    client.say(call, {"method": f"{SERVICE}.GetInfo", "parameters": None})
    assert error == client.hear()["error"]
    assert "msgd" == client.hear()["parameters"]["product"]
    client.close()


@pytest.fixture(scope="module")
def bad_calls_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    nodes = Nodes(tmp_path_factory.mktemp("bad"))
    yield nodes.start("a")
    nodes.end()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n\0",
        b"\xff\xfe\x00",
        b"[]\0",
        b'"text"\0',
        b"{}\0",
        b'{"method": 5}\0',
        b'{"method": "x", "more": "yes"}\0',
        b'{"method": "\xff"}\0',
        b"[" * 100_000 + b"\0",
    ],
    ids=lambda g: repr(g[:20]),
)
def test_garbage_costs_its_connection_and_nothing_else(bad_calls_node: Node, garbage: bytes) -> None:
    """With an error reply that says what is wrong."""
    before = bad_calls_node.pids()
    client = Raw(bad_calls_node)
    client.say(garbage)
    replies = client.rest_until_end()
    assert [f"{CONTROL}.InvalidRequest"] == [r["error"] for r in replies]
    client.close()
    alive(bad_calls_node, before)


def test_text_that_is_no_utf8_costs_an_error_reply(bad_calls_node: Node) -> None:
    client = Raw(bad_calls_node)
    client.say(
        b'{"method": "org.msgd.Control.Show", "parameters": {"id": "\xff"}}\0',
        {"method": f"{SERVICE}.GetInfo"},
    )
    assert f"{CONTROL}.InvalidRequest" == client.hear()["error"]
    assert "msgd" == client.hear()["parameters"]["product"]
    client.close()


def test_a_call_of_3_mib_costs_its_connection_and_no_memory(node: Node, raw: Raw) -> None:
    before = node.pids()
    raw.say(b'{"method": "org.msgd.Control.Send", "parameters": {"peer": "' + b"x" * (3 << 20))
    assert [f"{CONTROL}.InvalidRequest"] == [r["error"] for r in raw.rest_until_end()]
    alive(node, before)


def test_half_a_call_is_waited_for_and_its_end_is_the_end(node: Node, raw: Raw) -> None:
    data = json.dumps({"method": f"{SERVICE}.GetInfo"}).encode() + b"\0"
    raw.say(data[:10])
    workers = children_of(node.pid)
    assert node.ctl("status").returncode == 0, "others are served meanwhile"
    raw.say(data[10:])
    assert "msgd" == raw.hear()["parameters"]["product"]
    raw.say(data[:10])
    raw.close()
    wait_for(lambda: "control uid 0" not in node.pids(), SOON_S, "its process to end")
    assert all(is_running(pid) for pid in workers if pid in (*node.pids()["log"], *node.pids()["index"]))


def test_replies_come_in_the_order_of_the_calls(nodes: Nodes) -> None:
    """Also when a later one is refused at once, and when an earlier one has to wait."""
    a, b = nodes.pair()
    assert b.stop() == 0
    client = Raw(a)
    send = f"{CONTROL}.Send"
    wait = {"wait": "stored", "timeout_ms": 300}
    client.say(
        {"method": send, "parameters": {"peer": "b", "message": {"text": "1"}, **wait}},
        {"method": send, "parameters": {"peer": "nobody", "message": {"text": "2"}}},
        {"method": send, "parameters": {"peer": "b", "message": {"text": "3"}}},
        {"method": send, "parameters": {"peer": 7}},
        {"method": f"{CONTROL}.Nothing"},
        {"method": send, "parameters": {"peer": "b", "message": {"text": "4"}}},
        {"method": f"{SERVICE}.GetInfo"},
    )
    replies = [client.hear() for _ in range(7)]
    told = [
        r.get("error") or r["parameters"].get("receipt", r["parameters"]).get("state", "info")
        for r in replies
    ]
    assert [
        "queued",
        f"{CONTROL}.UnknownPeer",
        "queued",
        f"{CONTROL}.InvalidRequest",
        f"{SERVICE}.MethodNotFound",
        "queued",
        "info",
    ] == told
    client.close()
    assert ["1", "3", "4"] == [row["text"] for row in a.query("log")]


def test_200_sends_under_way_at_once_are_answered_in_order(nodes: Nodes) -> None:
    """More than fit at a time, to a peer that is away: each answer says why it waits."""
    a, b = nodes.pair()
    assert b.stop() == 0
    client = Raw(a)
    ids = [f"01900000-0000-7000-8000-{n:012x}" for n in range(200)]
    client.say(
        *(
            {"method": f"{CONTROL}.Send", "parameters": {"peer": "b", "message": {"id": id, "text": id}}}
            for id in ids
        )
    )
    receipts = [client.hear()["parameters"]["receipt"] for _ in ids]
    assert ids == [r["id"] for r in receipts]
    assert {"queued"} == {r["state"] for r in receipts}
    assert all("offline" in r["reason"] for r in receipts)
    client.close()


def test_with_more_the_first_reply_is_queued_and_the_last_is_stored(nodes: Nodes) -> None:
    a, b = nodes.pair()
    assert b.stop() == 0
    client = Raw(a)
    parameters = {"peer": "b", "message": {"text": "hola"}, "wait": "stored", "timeout_ms": 20_000}
    client.say({"method": f"{CONTROL}.Send", "parameters": parameters, "more": True})
    first = client.hear()
    assert first["continues"] is True
    assert "queued" == first["parameters"]["receipt"]["state"]
    b.start()
    last = client.hear()
    assert not last.get("continues")
    assert "stored" == last["parameters"]["receipt"]["state"]
    client.close()


def test_a_oneway_call_is_done_and_not_answered(nodes: Nodes) -> None:
    a, b = nodes.pair()
    client = Raw(a)
    for text in ("1", "2"):
        client.say(
            {
                "method": f"{CONTROL}.Send",
                "parameters": {"peer": "b", "message": {"text": text}},
                "oneway": True,
            },
            {"method": f"{CONTROL}.Send", "parameters": {"peer": "nobody"}, "oneway": True},
            {"method": f"{CONTROL}.Nothing", "oneway": True},
            {"method": f"{CONTROL}.Status", "oneway": True},
        )
    client.say({"method": f"{SERVICE}.GetInfo"})
    assert "msgd" == client.hear()["parameters"]["product"]
    client.close()
    wait_for(lambda: ["1", "2"] == [row["text"] for row in b.query("log")], SOON_S, "both messages")


def test_many_calls_behind_one_that_waits_stay_in_the_clients_memory(nodes: Nodes) -> None:
    """32 MiB of calls: the daemon's process reads them when their turn comes."""
    a, b = nodes.pair()
    assert b.stop() == 0
    client = Raw(a)
    parameters = {"peer": "b", "message": {"text": "hola"}, "wait": "stored", "timeout_ms": 60_000}
    client.say({"method": f"{CONTROL}.Send", "parameters": parameters})
    call = json.dumps({"method": f"{CONTROL}.Status", "parameters": {"x": "y" * 1000}}).encode() + b"\0"
    client.sock.settimeout(0.5)
    written = 0
    with pytest.raises(TimeoutError):
        while written < 32 << 20:
            written += client.sock.send(call * 100)
    client.sock.settimeout(SOON_S)
    b.start()
    assert "stored" == client.hear()["parameters"]["receipt"]["state"]
    client.close()
    wait_for(lambda: "control uid 0" not in a.pids(), SOON_S, "its process to end")


def test_one_user_has_64_connections_and_the_65th_is_told(node: Node) -> None:
    wait_for(lambda: len(children_of(node.pid)) == 2, SOON_S, "earlier clients to be gone, but log and index")
    clients = [Raw(node) for _ in range(64)]
    try:
        for client in clients:
            assert "a" == client.call("Status")["parameters"]["node"]["name"]
        one_more = Raw(node)
        (refusal,) = one_more.rest_until_end()
        assert "64 connections" in refusal["parameters"]["message"]
        one_more.close()
        everyone = len(children_of(node.pid))
        clients.pop().close()
        wait_for(lambda: len(children_of(node.pid)) < everyone, SOON_S, "its process to be reaped")
        another = Raw(node)
        assert "a" == another.call("Status")["parameters"]["node"]["name"]
        another.close()
    finally:
        for client in clients:
            client.close()
    wait_for(lambda: "control uid 0" not in node.pids(), SOON_S, "all to be gone")
