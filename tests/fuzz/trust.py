"""Who a stranger claims to be: certificate, chain of keys. What people copy: identity, words, invitation."""

import base64
import ssl
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from msgd.errors import UsageError
from msgd.peer.frames import Chain
from msgd.trust.identity import NodeKey, identity_text, parse_identity
from msgd.trust.invitation import PREFIX, Invitation, _check, format_invitation, parse_invitation
from msgd.trust.proof import identity_of
from msgd.trust.rotation import follow, make_rotation
from msgd.trust.tls import SessionError, peer_spki
from msgd.trust.words import parse_words, word_list
from tests.fuzz.engine import Target
from tests.fuzz.mutate import change_bytes, change_text, change_value, packed, unpacked
from tests.peer_pair import A, D


class Shown(ssl.SSLObject):
    """A session whose other end showed this certificate."""

    def __new__(cls, certificate: bytes) -> "Shown":
        return object.__new__(cls)

    def __init__(self, certificate: bytes) -> None:
        self.certificate = certificate

    def getpeercert(self, binary_form: bool = False) -> bytes:  # type: ignore[override]
        return self.certificate


@cache
def certificates() -> list[bytes]:
    """Ours, and one with a key of another kind each."""
    own = [ssl.PEM_cert_to_DER_cert(key.certificate().decode()) for key in (A, D)]
    model = x509.load_der_x509_certificate(own[0])
    others = []
    for key in (
        ec.derive_private_key(7, ec.SECP256R1()),
        ed448.Ed448PrivateKey.from_private_bytes(bytes(57)),
    ):
        builder = x509.CertificateBuilder(
            issuer_name=model.issuer,
            subject_name=model.subject,
            public_key=key.public_key(),
            serial_number=1,
            not_valid_before=model.not_valid_before_utc,
            not_valid_after=model.not_valid_after_utc,
        )
        others.append(builder.sign(A.private, None).public_bytes(Encoding.DER))
    return own + others


def run_certificate(data: bytes) -> str:
    """What a dialler reads before it says anything."""
    spki = peer_spki(Shown(data))
    assert len(spki) == 44
    return identity_of(spki).hex()[:1]


def run_identity(data: bytes) -> str:
    """As a person types it; what is taken is what was shown."""
    identity = parse_identity(data.decode(errors="replace"))
    assert identity == parse_identity(identity_text(identity))
    assert identity in (A.identity, D.identity), "a mistyped identity passed"
    return "same"


def mutate_der(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """Bytes, or one byte near: lengths and tags of DER are single bytes."""
    if not data or rng.random() < 0.3:
        return change_bytes(rng, data, corpus)
    work = bytearray(data)
    work[rng.randrange(len(work))] = rng.choice((0, 1, 2, 3, 4, 5, 0x17, 0x18, 0x30, 0x7F, 0x80, 0x84, 0xFF))
    return bytes(work)


# --- chains of keys -----------------------------------------------------------------------------------------

KEYS = [NodeKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(11, 16)]
ROTATIONS = [make_rotation(old, new) for old, new in pairwise(KEYS)]
PINNED = KEYS[2].identity
_chain = msgspec.msgpack.Decoder(tuple[Chain, bytes]).decode


def chain_seeds() -> list[bytes]:
    """Whole, begun later, without the pinned key, and one that has signed two successors."""
    other = make_rotation(KEYS[2], KEYS[4])
    chains: list[Any] = [ROTATIONS, ROTATIONS[2:], ROTATIONS[3:], [], [other]]
    return [packed([chain, KEYS[4].spki]) for chain in chains]


def run_chain(data: bytes) -> str:
    """What a chain is believed to prove, its keys have signed, entry by entry."""
    chain, spki = _chain(data)
    rotations = [(entry.spki, entry.by_old, entry.by_new) for entry in chain]
    found = follow(rotations, spki, {PINNED}, {KEYS[2].identity: KEYS[3].identity})
    if found.pinned:
        at = [identity_of(entry[0]) for entry in rotations].index(PINNED)
        assert rotations[at:] == ROTATIONS[2:], "a chain that nobody signed"
        assert spki == KEYS[4].spki
    return f"{bool(found.pinned)} {len(found.retired)} {len(found.conflicts)}"


def mutate_chain(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    value = unpacked(data)
    if not isinstance(value, list) or rng.random() < 0.2:
        return change_bytes(rng, data, corpus)
    return packed(change_value(rng, value))


# --- what people copy ---------------------------------------------------------------------------------------


def invitations() -> list[bytes]:
    """With one address and with four of all kinds."""
    addresses = ("192.168.1.5:6743", "[fd00::1]:6743", "node3.example:1", "h:65535")
    return [
        format_invitation(
            Invitation(
                identity=A.identity, invitation=bytes(8), secret=bytes(16), expires_s=2**31, addresses=some
            )
        ).encode()
        for some in (addresses[:1], addresses)
    ]


def run_invitation(data: bytes) -> str:
    """What is taken can be written, and means the same again."""
    invitation = parse_invitation(data.decode(errors="replace"))
    assert invitation == parse_invitation(format_invitation(invitation))
    return f"{len(invitation.addresses)} addresses"


def mutate_invitation(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """Letters; or what they say, with length and check set right."""
    if rng.random() < 0.4:
        return change_text(rng, data, corpus)
    letters = data.decode(errors="replace")[len(PREFIX) :].upper()
    try:
        said = base64.b32decode(letters + "=" * (-len(letters) % 8))[:-4]
    except ValueError:
        return change_text(rng, data, corpus)
    work = bytearray(said)
    for _ in range(rng.choice((1, 2, 3))):
        at = rng.randrange(57, len(work) + 1) if len(work) > 57 else len(work)
        work[at : at + rng.choice((0, 1, 1, 4))] = rng.choice(
            (
                b"",
                b"\x04",
                b"\x06",
                b"\x80",
                b"\x84",
                b"\xff",
                rng.randbytes(1),
                b"1.2.3.4",
                b"a.b",
                b"[::1]:5",
            )
        )
    del work[250:]
    work[:1] = bytes([len(work) + 4])
    whole = bytes(work) + _check(bytes(work))
    return (PREFIX + base64.b32encode(whole).decode().rstrip("=").lower()).encode()


def run_words(data: bytes) -> str:
    """What is taken are four words of the list."""
    words = parse_words(data.decode(errors="replace"))
    assert words == parse_words(" ".join(words))
    assert len([word for word in words if word in word_list()]) == 4
    return "four"


TARGETS = [
    Target("certificate", certificates, run_certificate, mutate_der, (SessionError,)),
    Target(
        "identity",
        lambda: [identity_text(key.identity).encode() for key in (A, D)],
        run_identity,
        change_text,
        (UsageError,),
    ),
    Target("chain", chain_seeds, run_chain, mutate_chain, (msgspec.MsgspecError, ValueError)),
    Target("invitation", invitations, run_invitation, mutate_invitation, (UsageError,)),
    Target("words", lambda: [b"receive action stone hire"], run_words, change_text, (UsageError,)),
]
