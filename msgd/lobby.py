"""Connections to the peer port that have not yet said who they are: bounded, and no work is done for them.

Pure but for closing sockets: the supervisor asks before it forks. A connection waits here until its first
bytes look like a TLS handshake (`16 03`), so half-open connections and garbage cost no process. Places
also count the workers that still shake hands. Limits as in the trust protocol, section 8: 64 places, 4 per
source (an IPv4 address, an IPv6 /64); when they are full the oldest goes, strangers first, and the new one
stays; 16 more for sources where a paired peer was last seen: strangers cannot keep the known ones out.
"""

import ipaddress
import socket
from dataclasses import dataclass

TLS_HANDSHAKE = b"\x16\x03"


def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
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


class Lobby:
    """Who waits, oldest first."""

    def __init__(self, places: int, per_source: int, reserved: int, handshake_s: float) -> None:
        self.places = places
        self.per_source = per_source
        self.reserved = reserved
        self.handshake_s = handshake_s
        self.known_sources: set[str] = set()
        self.guests: list[Guest] = []

    def enter(self, sock: socket.socket, address: tuple[str, int], now_s: float) -> tuple[Guest, list[Guest]]:
        """A place for this connection, and the guests that must leave for it."""
        host, port = address[0], address[1]
        source = source_of(host)
        same = [g for g in self.guests if g.source == source]
        leaving = same[:1] if len(same) >= self.per_source else self._crowded_out(source)
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
        if guest in self.guests:
            self.guests.remove(guest)

    def by_pid(self, pid: int) -> Guest | None:
        """The guest whose worker this is."""
        return next((g for g in self.guests if g.pid == pid), None)

    def late(self, now_s: float) -> list[Guest]:
        """Those that took too long; they have left."""
        gone = [g for g in self.guests if g.deadline_s <= now_s]
        self.guests = [g for g in self.guests if g.deadline_s > now_s]
        return gone

    def next_deadline_s(self) -> float | None:
        """When `late` will find the next one."""
        return min((g.deadline_s for g in self.guests), default=None)
