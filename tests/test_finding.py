"""Which peer a person means."""

import pytest

from msgd.errors import NotTrusted, UnknownPeer, UsageError
from msgd.finding import find_peer, looks_like_address, parse_address
from msgd.trust.identity import identity_text
from msgd.wire.ledger import PeerState

ONE, OTHER, OLD = b"1" * 32, b"2" * 32, b"3" * 32


def peer(number: int, name: str, address: str, identity: bytes = b"", **changes: object) -> PeerState:
    common = {
        "removed": False,
        "connected": False,
        "since_ns": 0,
        "reason": "",
        "next_mono_ns": 0,
        "queued": 0,
        "unreceipted": 0,
        "sent": 0,
        "received": 0,
        "seen_ns": 0,
        "offset_ns": 0,
        "round_trip_ns": 0,
        "pinned": bool(identity),
    }
    return PeerState(number, identity, name, address, **{**common, **changes})  # type: ignore[arg-type]


PEERS = [
    peer(1, "10.0.0.5:7000", "10.0.0.5:7000"),
    peer(2, "node3", "10.0.0.5:6743", ONE, retired=[OLD]),
    peer(3, "10.0.0.9:6743", "10.0.0.9:6743", into=2),
    peer(4, "gone", "10.0.0.7:6743", OTHER, removed=True),
    peer(5, "six", "[fe80::1]:6743", b"5" * 32),
]


@pytest.mark.parametrize(
    ("who", "number"),
    [
        ("node3", 2),
        ("10.0.0.5", 2),
        ("10.0.0.5:7000", 1),
        ("10.0.0.9", 2),
        ("fe80::1", 5),
        ("[fe80::1]:6743", 5),
        (identity_text(ONE), 2),
        (identity_text(OLD), 2),
    ],
)
def test_peer_is_found(who: str, number: int) -> None:
    """By name, by address (the whole one first, a pinned peer first), by an identity that it has or had;
    an address whose messages became a peer's means that peer."""
    assert number == find_peer(PEERS, who).number


def test_one_that_was_a_peer_is_found_where_it_is_asked_for() -> None:
    assert 4 == find_peer(PEERS, "gone", removed=True).number
    with pytest.raises(UnknownPeer, match=r"No peer is called 'gone' \(peers: node3, six\)"):
        find_peer(PEERS, "gone")


def test_a_group_is_no_peer() -> None:
    with pytest.raises(UsageError, match="@web is a group; here one peer is meant"):
        find_peer(PEERS, "@web")


def test_unknown_name_and_unknown_address_are_two_errors() -> None:
    """Each names its own next step."""
    with pytest.raises(UnknownPeer) as name:
        find_peer(PEERS, "node9")
    assert "msgctl send ADDRESS" in name.value.hint and "msgctl pair join" in name.value.hint
    with pytest.raises(NotTrusted) as address:
        find_peer(PEERS, "10.0.0.8")
    assert "msgctl pair ask 10.0.0.8" == address.value.hint


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.1.5", "192.168.1.5:6743"),
        ("192.168.1.5:7000", "192.168.1.5:7000"),
        ("::1", "[::1]:6743"),
        ("[::1]:7000", "[::1]:7000"),
        ("Node3.Example", "node3.example:6743"),
        ("node3:6743", "node3:6743"),
        ("node3", None),
        ("192.168.1.500", None),
        ("...", None),
        ("-x.example", None),
        ("node3:0", None),
        ("a b.example", None),
        ("", None),
    ],
)
def test_address_is_told_from_a_name(text: str, address: str | None) -> None:
    """An IP, a host name with a dot, or either with a port; what cannot be an address is a name."""
    assert (address is not None) == looks_like_address(text)
    if address is not None:
        assert address == parse_address(text)
