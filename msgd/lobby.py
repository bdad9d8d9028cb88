"""Connections to the peer port that have not yet said who they are: bounded, and no work is done for them.

Pure: the supervisor asks before it forks. A connection waits here until its first bytes look like a TLS
handshake (`16 03`), so half-open connections and garbage cost no process. Places also count the workers that
still shake hands. Limits as in the trust protocol, section 8: 64 places, 4 per source (an IPv4 address, an
IPv6 /64); when they are full the oldest goes, strangers first, and the new one stays; 16 more for sources
where a paired peer was last seen: strangers cannot keep the known ones out.

A source that misbehaves is closed at accept for a while (`penalties`), unless a paired peer was last seen
there. Who has said who it is, and stays for something else than a link, has a seat beside the places: 16 for
exchanges whose persons have not yet decided, 16 for services; the oldest goes. Files have seats for all.
"""

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from msgd.penalties import Penalties

TLS_HANDSHAKE = b"\x16\x03"
NEVER_S = float("inf")
EXCHANGE_S = 630.0  # its worker ends by itself after ten minutes
# How many, for how long. Of those for files the log process refuses before they are taken.
SEATS = {"pair": (16, EXCHANGE_S), "service": (16, NEVER_S), "files": (200, NEVER_S)}


def plain_host(host: str) -> str:
    """A host as people write it: one that came to an IPv6 listener over IPv4 has its IPv4 address."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return host


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 one."""
    ip = ipaddress.ip_address(plain_host(host).partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


@dataclass(slots=True)
class Guest:
    """One unauthenticated connection. `sock` until its worker is forked, then `pid`."""

    address: str  # as people write it, with port
    source: str
    deadline_s: float  # CLOCK_MONOTONIC
    sock: socket.socket | None
    pid: int = 0
    is_admitted: bool = False  # it has a seat


class Lobby:
    """Who waits, oldest first."""

    def __init__(self, places: int, per_source: int, reserved: int, handshake_s: float) -> None:
        self.places = places
        self.per_source = per_source
        self.reserved = reserved
        self.handshake_s = handshake_s
        self.penalties = Penalties()
        self.known_sources: set[str] = set()
        self.guests: list[Guest] = []
        self.seated: dict[str, list[Guest]] = {want: [] for want in SEATS}
        self._source_of_peer: dict[int, str] = {}

    # --- sources ----------------------------------------------------------------------------------------

    def peer_seen(self, number: int, source: str) -> None:
        """A link with this peer stands: its source is known, and counts as a stranger's no more."""
        self._source_of_peer[number] = source
        self.known_sources = set(self._source_of_peer.values())

    def peer_gone(self, number: int) -> None:
        """It is no peer any more."""
        if self._source_of_peer.pop(number, None) is not None:
            self.known_sources = set(self._source_of_peer.values())

    def closed_s(self, source: str, now_s: float) -> float:
        """For how long nothing is accepted from this source; 0 when it may come in."""
        return 0.0 if source in self.known_sources else self.penalties.left_s(source, now_s)

    def blame(self, source: str, misdeed: int, now_s: float) -> bool:
        """A guest from there did that; whether its source is closed from now on, and was not before."""
        return source not in self.known_sources and self.penalties.add(source, misdeed, now_s)

    # --- guests -----------------------------------------------------------------------------------------

    def enter(self, sock: socket.socket, address: tuple[str, int], now_s: float) -> tuple[Guest, list[Guest]]:
        """A place for this connection, and the guests that must leave for it."""
        host, port = address[0], address[1]
        source = source_of(host)
        same = [g for g in self.guests if g.source == source]
        is_known = source in self.known_sources  # many at once may want files
        most = max(self.per_source, self.reserved) if is_known else self.per_source
        leaving = same[:1] if len(same) >= most else self._crowded_out(source)
        for guest in leaving:
            self.guests.remove(guest)
        text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        guest = Guest(text, source, now_s + self.handshake_s, sock)
        self.guests.append(guest)
        return guest, leaving

    def _crowded_out(self, source: str) -> list[Guest]:
        """Who must leave for a newcomer from `source`, when the places it may have are taken."""
        known = [g for g in self.guests if g.source in self.known_sources]
        strangers = [g for g in self.guests if g.source not in self.known_sources]
        if source in self.known_sources and len(known) < self.reserved:
            return []
        taken = len(strangers) + max(0, len(known) - self.reserved)
        return (strangers or known)[:1] if taken >= self.places else []

    def leave(self, guest: Guest) -> None:
        """The guest went, or became a link."""
        for where in (self.guests, *self.seated.values()):
            if guest in where:
                where.remove(guest)

    def seat(self, guest: Guest, want: str, now_s: float) -> list[Guest]:
        """The guest has said who it is and stays for this, a key of `SEATS`; who must leave for it."""
        self.leave(guest)
        seats, most_s = SEATS[want]
        seated = self.seated[want]
        leaving = seated[: max(0, len(seated) + 1 - seats)]
        del seated[: len(leaving)]
        guest.deadline_s, guest.is_admitted = now_s + most_s, True
        seated.append(guest)
        return leaving

    def by_pid(self, pid: int) -> Guest | None:
        """The guest whose worker this is."""
        return next((g for g in self.all() if g.pid == pid), None)

    def late(self, now_s: float) -> list[Guest]:
        """Those that took too long; they have left."""
        gone = [g for g in self.all() if g.deadline_s <= now_s]
        for guest in gone:
            self.leave(guest)
        return gone

    def next_deadline_s(self) -> float | None:
        """When `late` will find the next one."""
        return min((g.deadline_s for g in self.all()), default=None)

    def all(self) -> Iterator[Guest]:
        """Those with a place or a seat."""
        return chain(self.guests, *self.seated.values())
