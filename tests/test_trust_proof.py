"""The proof: its check values, and every part of T that makes a signature useless elsewhere."""

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from msgd.trust.proof import HELLO_LABEL, identity_of, sign_hello, transcript, verify_hello
from tests.peer_pair import A, D

T = transcript(A.identity, D.identity, b"greet", b"content", b"")
SIGNATURE = sign_hello(D.private, T)


def test_t_and_signature_are_the_check_values() -> None:
    """Section 10 of the trust protocol."""
    assert len(T) == 160
    digest = sha256(T).hexdigest()
    assert (digest[:8], digest[-8:]) == ("b7c84b58", "cb933e42")
    assert (SIGNATURE.hex()[:8], SIGNATURE.hex()[-8:]) == ("c8b2026f", "60caf20d")
    assert D.sign_hello(A.identity, b"greet", b"content", b"") == SIGNATURE


def test_a_good_proof_is_good() -> None:
    """With and without a channel binding."""
    assert verify_hello(A.identity, D.spki, b"greet", b"content", b"", SIGNATURE)
    bound = D.sign_hello(A.identity, b"greet", b"content", b"finished")
    assert verify_hello(A.identity, D.spki, b"greet", b"content", b"finished", bound)


@pytest.mark.parametrize(
    "changes",
    [
        {"acceptor": D.identity},
        {"spki": A.spki},
        {"greet": b"another nonce"},
        {"content": b"contents"},
        {"binding": b"finished"},
        {"signature": bytes(64)},
        {"signature": SIGNATURE[:-1] + bytes([SIGNATURE[-1] ^ 1])},
        {"signature": SIGNATURE[:-1]},
        {"signature": b""},
        {"spki": D.spki[:-1]},
        {"spki": D.spki + b"\0"},
        {"spki": b"\x31" + D.spki[1:]},
        {"spki": b""},
    ],
)
def test_a_proof_is_good_nowhere_else(changes: dict[str, bytes]) -> None:
    """Other roles, keys, nonce, words or connection; and what is no signature or key at all."""
    said = {
        "acceptor": A.identity,
        "spki": D.spki,
        "greet": b"greet",
        "content": b"content",
        "binding": b"",
        "signature": SIGNATURE,
    }
    assert not verify_hello(**{**said, **changes})


def test_a_signature_of_another_kind_is_no_proof() -> None:
    """The label keeps the uses of the one key apart."""
    assert not verify_hello(A.identity, D.spki, b"greet", b"content", b"", D.private.sign(T))
    tls = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + T
    assert not verify_hello(A.identity, D.spki, b"greet", b"content", b"", D.private.sign(tls))
    assert HELLO_LABEL.startswith(b"m")


def test_an_identity_is_the_digest_of_the_spki() -> None:
    """Of the whole 44 bytes."""
    assert len(A.spki) == 44
    assert identity_of(A.spki) == sha256(A.spki).digest() == A.identity
    assert Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32).public_key() == A.private.public_key()
