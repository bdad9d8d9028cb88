"""Connections that have not yet said who they are: places are bounded, and known peers are not shut out."""

import socket
from collections.abc import Iterator

import pytest

from msgd.lobby import EXCHANGE_S, SEATS, Guest, Lobby, plain_host, source_of
from msgd.penalties import GARBAGE

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


def test_many_connections_may_come_from_a_known_source_at_once(sock: socket.socket) -> None:
    """Fifty clients there want files."""
    here = Lobby(64, 4, 16, HANDSHAKE_S)
    here.known_sources.add("192.0.2.1")
    assert [[]] * 16 == [here.enter(sock, ("192.0.2.1", n), 0.0)[1] for n in range(16)]
    strangers = [here.enter(sock, ("192.0.2.2", n), 0.0) for n in range(5)]
    assert [[]] * 4 + [[strangers[0][0]]] == [leaving for _, leaving in strangers]


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


def test_who_waits_for_verdicts_has_no_place_of_a_stranger(sock: socket.socket) -> None:
    here = lobby(places=2)
    first, second = fill(here, sock, 2)
    assert [] == here.seat(first, "pair", 5.0)
    assert [second] == here.guests
    _, leaving = here.enter(sock, ("198.51.100.1", 1), 5.0)
    assert [] == leaving
    assert 5.0 + EXCHANGE_S == first.deadline_s
    assert HANDSHAKE_S == here.next_deadline_s()


@pytest.mark.parametrize("want", SEATS)
def test_the_oldest_of_too_many_leaves_its_seat(sock: socket.socket, want: str) -> None:
    seats, _ = SEATS[want]
    here = lobby(places=seats + 1)
    guests = fill(here, sock, seats + 1)
    assert [[]] * seats + [[guests[0]]] == [here.seat(guest, want, 0.0) for guest in guests]
    assert guests[1:] == list(here.all())
    guests[5].pid = 77
    assert guests[5] is here.by_pid(77)
    here.leave(guests[5])
    assert guests[5] not in here.all()


def test_a_seat_for_an_exchange_is_not_for_ever(sock: socket.socket) -> None:
    here = lobby()
    one, other = fill(here, sock, 2)
    here.seat(one, "pair", 0.0)
    here.seat(other, "service", 0.0)
    assert [one] == here.late(EXCHANGE_S)
    assert [] == here.late(1e9)


def test_a_source_where_a_peer_was_last_seen_has_no_penalty(sock: socket.socket) -> None:
    """It counts again once that peer is gone, or was seen elsewhere."""
    here = lobby()
    assert not here.blame("192.0.2.1", GARBAGE, 0.0)
    assert [False, False, True] == [here.blame("192.0.2.1", GARBAGE, 0.0) for _ in range(3)]
    assert 20.0 == here.closed_s("192.0.2.1", 0.0)
    here.peer_seen(1, "192.0.2.1")
    assert 0.0 == here.closed_s("192.0.2.1", 0.0)
    assert [False] * 9 == [here.blame("192.0.2.1", GARBAGE, 0.0) for _ in range(9)]
    here.peer_seen(2, "192.0.2.1")
    here.peer_gone(1)
    assert 0.0 == here.closed_s("192.0.2.1", 0.0)
    here.peer_seen(2, "192.0.2.2")
    assert 20.0 == here.closed_s("192.0.2.1", 0.0)
    assert {"192.0.2.2"} == here.known_sources


@pytest.mark.parametrize(
    ("host", "shown"),
    [("::ffff:192.168.1.4", "192.168.1.4"), ("192.168.1.4", "192.168.1.4"), ("fe80::1%eth0", "fe80::1%eth0")],
)
def test_a_host_is_shown_as_people_write_it(host: str, shown: str) -> None:
    """Also where systemd listens on [::] for both."""
    assert shown == plain_host(host)
