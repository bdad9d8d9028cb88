"""Strings of the trust protocol made beside its code, from the protocol's tables alone."""

from base64 import b32encode
from hashlib import sha256


def pack_invitation(body: bytes) -> str:
    """An invitation with this between length and check: both are right whatever it says."""
    data = bytes([len(body) + 5]) + body
    data += sha256(b"msgd1" + data).digest()[:4]
    return "msgd1" + b32encode(data).decode().rstrip("=").lower()
