"""Connections that have not yet said who they are: places are bounded, and known peers are not shut out."""

import socket
from collections.abc import Iterator

import pytest

from msgd.lobby import Guest, Lobby, source_of

HANDSHAKE_S = 10.0


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


def lobby(places: int = 4, per_source: int = 2, reserved: int = 2) -> Lobby:
    return Lobby(places, per_source, reserved, HANDSHAKE_S)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_source_is_an_ipv4_address_or_an_ipv6_network(address: str, source: str) -> None:
    assert source == source_of(address)


def test_who_enters_has_a_place_and_a_deadline(sock: socket.socket) -> None:
    here = lobby()
    guest, leaving = here.enter(sock, ("192.0.2.1", 5000), 100.0)
    assert ("192.0.2.1:5000", 100.0 + HANDSHAKE_S, []) == (guest.address, guest.deadline_s, leaving)
    other, _ = here.enter(sock, ("2001:db8::1", 5000), 100.0)
    assert "[2001:db8::1]:5000" == other.address


def test_one_source_has_few_places_and_loses_its_own_oldest(sock: socket.socket) -> None:
    here = lobby()
    first, _ = here.enter(sock, ("192.0.2.1", 1), 0.0)
    here.enter(sock, ("192.0.2.2", 1), 0.0)
    here.enter(sock, ("192.0.2.1", 2), 0.0)
    _, leaving = here.enter(sock, ("192.0.2.1", 3), 0.0)
    assert [first] == leaving


def fill(here: Lobby, sock: socket.socket, count: int, net: str = "192.0.2.") -> list[Guest]:
    made = []
    for n in range(count):
        guest, leaving = here.enter(sock, (f"{net}{n + 1}", 1), 0.0)
        assert leaving == []
        made.append(guest)
    return made


def test_when_all_places_are_taken_the_oldest_leaves(sock: socket.socket) -> None:
    here = lobby()
    guests = fill(here, sock, 4)
    _, leaving = here.enter(sock, ("198.51.100.1", 1), 1.0)
    assert [guests[0]] == leaving
    assert 4 == len(here.guests)


def test_strangers_cannot_shut_out_a_known_source(sock: socket.socket) -> None:
    here = lobby()
    fill(here, sock, 4)
    here.known_sources.add("198.51.100.1")
    known, leaving = here.enter(sock, ("198.51.100.1", 1), 0.0)
    assert [] == leaving
    for n in range(20):
        _, leaving = here.enter(sock, (f"203.0.113.{n}", 1), 0.0)
        assert known not in leaving
    assert known in here.guests


def test_known_sources_use_ordinary_places_when_the_reserved_ones_are_taken(sock: socket.socket) -> None:
    """After a cut of the network all peers come back at once: reserved places are more places, not fewer."""
    here = lobby()
    here.known_sources = {f"192.0.2.{n}" for n in range(1, 20)}
    guests = fill(here, sock, 6)  # 4 and 2 reserved
    _, leaving = here.enter(sock, ("192.0.2.19", 1), 0.0)
    assert [guests[0]] == leaving


def test_a_known_source_takes_the_place_of_a_stranger_first(sock: socket.socket) -> None:
    here = lobby()
    here.known_sources = {f"198.51.100.{n}" for n in range(1, 20)}
    fill(here, sock, 2, "198.51.100.")
    strangers = fill(here, sock, 4)
    _, leaving = here.enter(sock, ("198.51.100.9", 1), 0.0)
    assert [strangers[0]] == leaving


@pytest.mark.parametrize("known", [False, True])
def test_no_reserved_places_are_allowed(sock: socket.socket, known: bool) -> None:
    """`reserved_for_peers = 0` is a legal setting."""
    here = lobby(places=2, reserved=0)
    if known:
        here.known_sources = {f"192.0.2.{n}" for n in range(1, 4)}
    guests = fill(here, sock, 2)
    _, leaving = here.enter(sock, ("192.0.2.3", 1), 0.0)
    assert [guests[0]] == leaving


def test_the_late_ones_leave_at_their_deadline(sock: socket.socket) -> None:
    here = lobby()
    assert here.next_deadline_s() is None
    first, _ = here.enter(sock, ("192.0.2.1", 1), 0.0)
    second, _ = here.enter(sock, ("192.0.2.2", 1), 5.0)
    assert HANDSHAKE_S == here.next_deadline_s()
    assert [] == here.late(HANDSHAKE_S - 0.001)
    assert [first] == here.late(HANDSHAKE_S)
    assert [second] == here.guests


def test_a_guest_leaves_once_and_is_found_by_its_worker(sock: socket.socket) -> None:
    here = lobby()
    guest, _ = here.enter(sock, ("192.0.2.1", 1), 0.0)
    guest.pid = 77
    assert guest is here.by_pid(77)
    here.leave(guest)
    here.leave(guest)
    assert here.by_pid(77) is None
