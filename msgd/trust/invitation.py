"""An invitation: one string that lets one node join, and the proof that its secret is known.

`msgd1` and, in base32 (lower case, no padding):

| field | type | |
|---|---|---|
| length | u8 | of all bytes, this one and the check included |
| identity | 32 | of the inviter |
| id | 8 | which invitation |
| secret | 16 | never travels |
| expiry | u32 BE | Unix seconds; for show, the inviter decides |
| count | u8 | of addresses, 1 to 4 |
| addresses | | `04` and 4 bytes, `06` and 16, or `80 \\| n` and a name of n bytes; then the port, u16 BE |
| check | 4 | first bytes of H(`msgd1` ‖ all before) |

Read in any case, white space dropped, in one or several pieces. The length stands first, so a string that was
cut says by how much.
"""

import base64
import ipaddress
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest, digest

from msgd.config import Address
from msgd.errors import UsageError

PREFIX = "msgd1"
JOIN_LABEL = b"msgd/1 join\0"
CHECK_BYTES = 4
MAX_BYTES = 255
MAX_ADDRESSES = 4
MAX_NAME_BYTES = 127

_head = struct.Struct(">B32s8s16sIB")
_port = struct.Struct(">H")
_NOT_BASE32 = re.compile("[^a-z2-7]")
_WHOLE = "Copy the whole line that `msgctl pair invite` printed."
_NEWER = "Run `msgctl pair invite` again on the other machine, or update msgd here."
_FEWER = "Name fewer or shorter addresses with --address."


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What the string says."""

    identity: bytes  # 32 bytes, of the inviter
    invitation: bytes  # 8 bytes
    secret: bytes  # 16 bytes
    expires_s: int  # Unix seconds
    addresses: tuple[str, ...]  # of the inviter, as `host:port`


def format_invitation(invitation: Invitation) -> str:
    """The string. Raises UsageError for addresses that do not fit."""
    addresses = [_pack_address(Address.parse(text)) for text in invitation.addresses]
    if not 1 <= len(addresses) <= MAX_ADDRESSES:
        raise UsageError(
            f"{len(addresses)} addresses are given; an invitation holds 1 to {MAX_ADDRESSES}.", _FEWER
        )
    size = _head.size + sum(map(len, addresses)) + CHECK_BYTES
    if size > MAX_BYTES:
        raise UsageError(f"The invitation would have {size} bytes; at most {MAX_BYTES} fit.", _FEWER)
    data = _head.pack(
        size,
        invitation.identity,
        invitation.invitation,
        invitation.secret,
        invitation.expires_s,
        len(addresses),
    ) + b"".join(addresses)
    return PREFIX + base64.b32encode(data + _check(data)).decode().rstrip("=").lower()


def parse_invitation(pieces: str | Iterable[str]) -> Invitation:
    """What the string says, in one or several pieces. Raises UsageError saying what is wrong with it."""
    text = "".join("".join((pieces,) if isinstance(pieces, str) else pieces).split()).lower()
    data = _decode(text)
    try:
        return _unpack(data)
    except (struct.error, ValueError, IndexError) as error:
        raise UsageError("This invitation has a form that this msgd does not know.", _NEWER) from error


def letters_of(size: int) -> int:
    """Letters of an invitation of this many bytes."""
    return len(PREFIX) + (size * 8 + 4) // 5


def join_proof(secret: bytes, acceptor: bytes, dialler: bytes, greet_hash: bytes) -> bytes:
    """That `dialler` knows the secret, in the connection whose greet has this hash. 32 bytes."""
    return digest(secret, JOIN_LABEL + acceptor + dialler + greet_hash, "sha256")


def is_join_proof(proof: bytes, secret: bytes, acceptor: bytes, dialler: bytes, greet_hash: bytes) -> bool:
    """Whether it is that proof; takes the same time for every wrong one."""
    return compare_digest(proof, join_proof(secret, acceptor, dialler, greet_hash))


# --- reading ------------------------------------------------------------------------------------------------


def _decode(text: str) -> bytes:
    """The bytes up to the check, which fits."""
    if not text.startswith(PREFIX):
        what = f"it begins with {text[: len(PREFIX)]!r}, expected {PREFIX!r}" if text else "it is empty"
        raise UsageError(f"This is no invitation: {what}.", _WHOLE)
    letters = text[len(PREFIX) :]
    foreign = _NOT_BASE32.search(letters)
    if foreign:
        place = len(PREFIX) + foreign.start() + 1
        raise UsageError(
            f"An invitation has no {foreign.group()!r} (letter {place}).",
            f"Behind {PREFIX} it is written with a-z and 2-7: 0 may be an o, 1 an l or i, 8 a b.",
        )
    _check_length(letters)
    data = _bytes_of(letters)
    if data is None or not compare_digest(data[-CHECK_BYTES:], _check(data[:-CHECK_BYTES])):
        raise UsageError("A letter of this invitation is wrong: its check does not fit.", _WHOLE)
    return data[:-CHECK_BYTES]


def _check_length(letters: str) -> None:
    if len(letters) < 2:  # the length is not there yet
        raise UsageError("This is only the beginning of an invitation.", _WHOLE)
    size = int.from_bytes(base64.b32decode(letters[:2].upper() + "======"), "big")
    given, expected = len(PREFIX) + len(letters), letters_of(size)
    if given < expected:
        raise UsageError(f"{given} of {expected} letters of an invitation: the rest is cut off.", _WHOLE)
    if given > expected:
        raise UsageError(f"Something follows the invitation: {given} letters, expected {expected}.", _WHOLE)


def _bytes_of(letters: str) -> bytes | None:
    """The bytes that are written just so; None where no bytes are, or their spare bits are not zero."""
    try:
        data = base64.b32decode(letters.upper() + "=" * (-len(letters) % 8))
    except ValueError:
        return None
    return data if base64.b32encode(data).decode().rstrip("=").lower() == letters else None


def _unpack(data: bytes) -> Invitation:
    """Raises ValueError, struct.error or IndexError."""
    _, identity, invitation, secret, expires_s, count = _head.unpack_from(data)
    if not 1 <= count <= MAX_ADDRESSES:
        raise ValueError("count of addresses")
    addresses, at = [], _head.size
    for _ in range(count):
        address, at = _unpack_address(data, at)
        addresses.append(str(address))
    if at != len(data):
        raise ValueError("something behind the addresses")
    return Invitation(
        identity=identity,
        invitation=invitation,
        secret=secret,
        expires_s=expires_s,
        addresses=tuple(addresses),
    )


def _unpack_address(data: bytes, at: int) -> tuple[Address, int]:
    """The address that stands there, and the place behind it."""
    kind = data[at]
    size = {4: 4, 6: 16}.get(kind, kind & 0x7F)
    raw, end = data[at + 1 : at + 1 + size], at + 1 + size
    (port,) = _port.unpack_from(data, end)
    if not (port and size and (kind in (4, 6) or kind & 0x80)):
        raise ValueError("address")
    host = _name(raw) if kind & 0x80 else str(ipaddress.ip_address(raw))
    return Address(host, port), end + _port.size


def _name(raw: bytes) -> str:
    """A host's name. Raises ValueError unless it can be written in an address, and shown."""
    name = raw.decode()
    if Address.parse(name) != Address(name) or not name.isprintable():
        raise ValueError("name of a host")
    return name


# --- writing ------------------------------------------------------------------------------------------------


def _pack_address(address: Address) -> bytes:
    return _pack_host(address.host) + _port.pack(address.port)


def _pack_host(host: str) -> bytes:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode()
        if len(name) > MAX_NAME_BYTES:
            raise UsageError(
                f"A host name of {len(name)} bytes is too long, at most {MAX_NAME_BYTES} fit.", _FEWER
            ) from None
        return bytes([0x80 | len(name)]) + name
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id:
        raise UsageError(f"{host} means nothing on another machine.", "Name another one with --address.")
    return bytes([ip.version]) + ip.packed


def _check(data: bytes) -> bytes:
    return sha256(PREFIX.encode() + data).digest()[:CHECK_BYTES]
