"""Where other machines may reach this one: what an invitation says when no person says otherwise."""

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Sequence

from msgd.config import Address
from msgd.errors import UsageError

MOST = 4  # that fit into an invitation
SIOCGIFADDR = 0x8915  # linux/sockios.h
IPV6_FILE = "/proc/net/if_inet6"
INTERFACES = "/sys/class/net"  # socket.if_nameindex asks by netlink, which the shipped unit forbids
GLOBAL_SCOPE = "00"
SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # for documents: nobody is there


def own_addresses(listen: Sequence[Address]) -> list[str]:
    """Up to four addresses, the best first. Raises UsageError where only this machine itself can reach it."""
    found: list[str] = []
    for address in listen:
        for host in _hosts(address.host):
            text = str(Address(host, address.port))
            if text not in found:
                found.append(text)
    if not found:
        raise UsageError(
            "No address is known at which other machines reach this one.",
            "Name one: msgctl pair invite --address HOST[:PORT]",
        )
    return found[:MOST]


def _hosts(host: str) -> Iterable[str]:
    """The host itself, or what of this machine a wildcard stands for."""
    ip = ipaddress.ip_address(host)
    if not ip.is_unspecified:
        return (host,)
    found = [_towards(socket.AF_INET), *_ipv4()]
    if ip.version == 6:
        found += [_towards(socket.AF_INET6), *_ipv6()]
    return dict.fromkeys(each for each in found if each and _is_useful(each))


def _is_useful(host: str) -> bool:
    ip = ipaddress.ip_address(host)
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)


def _towards(family: socket.AddressFamily) -> str:
    """The address that this machine shows to the outside; no packet is sent. Empty: none."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((SOMEWHERE[family], 9))
        except OSError:
            return ""
        return str(sock.getsockname()[0])


def _ipv4() -> list[str]:
    """The first address of each interface."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name in _interfaces():
            try:
                raw = fcntl.ioctl(sock, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has none
            found.append(socket.inet_ntoa(raw[20:24]))
    return found


def _interfaces() -> list[str]:
    try:
        return sorted(os.listdir(INTERFACES))
    except OSError:
        return []


def _ipv6() -> list[str]:
    try:
        with open(IPV6_FILE, encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    return [str(ipaddress.IPv6Address(bytes.fromhex(row[0]))) for row in rows if row[3] == GLOBAL_SCOPE]
