"""What a dialler signs in its hello, and how an acceptor checks it. Pure: bytes and keys.

T = acceptor's identity ‖ dialler's identity ‖ H(greet body) ‖ H(content) ‖ H(binding's value, empty if none);
H = SHA-256, 160 bytes, the same at both ends. signature = Ed25519 by the dialler over `msgd/1 hello\\0` ‖ T.

The label begins with `m`: what TLS signs begins with 64 spaces, what X.509 signs with 0x30, so a signature
of one kind never passes as another, though one key makes them all. The acceptor signs nothing more: TLS
has just proved its key.
"""

from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

HELLO_LABEL = b"msgd/1 hello\0"
SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")  # what stands before every Ed25519 public key
SPKI_BYTES = 44


def identity_of(spki: bytes) -> bytes:
    """The identity of a public key."""
    return sha256(spki).digest()


def is_spki(spki: bytes) -> bool:
    """Whether these bytes are a public key in the only form that version 1 takes."""
    return len(spki) == SPKI_BYTES and spki.startswith(SPKI_PREFIX)


def public_key(spki: bytes) -> Ed25519PublicKey:
    """The key of these bytes. Raises ValueError."""
    if not is_spki(spki):
        raise ValueError("not the SPKI of an Ed25519 key")
    return Ed25519PublicKey.from_public_bytes(spki[len(SPKI_PREFIX) :])


def transcript(acceptor: bytes, dialler: bytes, greet: bytes, content: bytes, binding: bytes) -> bytes:
    """T, from both identities, the greet's and the hello's bytes as sent, and the binding's value or b""."""
    return b"".join(
        (
            acceptor,
            dialler,
            sha256(greet).digest(),
            sha256(content).digest(),
            sha256(binding).digest(),
        )
    )


def transcript_hash(t: bytes) -> bytes:
    """H(T): what a record says of the exchange."""
    return sha256(t).digest()


def sign_hello(key: Ed25519PrivateKey, t: bytes) -> bytes:
    """The dialler's signature over T."""
    return key.sign(HELLO_LABEL + t)


def verify_hello(
    acceptor: bytes, spki: bytes, greet: bytes, content: bytes, binding: bytes, signature: bytes
) -> bool:
    """Whether whoever holds the key of `spki` has signed just this hello to this acceptor."""
    t = transcript(acceptor, identity_of(spki), greet, content, binding)
    try:
        public_key(spki).verify(signature, HELLO_LABEL + t)
    except (InvalidSignature, ValueError):
        return False
    return True
