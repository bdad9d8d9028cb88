"""Identity: the check values, the key's file and everything that is refused about it, the certificate."""

import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from msgd.errors import ConfigError, UsageError
from msgd.trust.identity import NodeKey, create, identity_text, load, load_or_create, parse_identity
from tests.peer_pair import A, D
from tests.require import require

TEXT_A = "7UIQ2MA-5F4DX3Y-KBJOHZT-5CBWFAD-7KZAPMQ-FF66SYB-S6J3UOP-XBDIHCP"
TEXT_D = "I7PKLDV-AB6XJIF-7ODHLWO-VN755UQ-RGICCEZ-O76YE7Y-PZ4TYMQ-BMYMPGX"


# -- text


@pytest.mark.parametrize(("key", "text"), [(A, TEXT_A), (D, TEXT_D)], ids=["A", "D"])
def test_an_identity_reads_as_the_protocol_says(key: NodeKey, text: str) -> None:
    """The check values of the trust protocol, both ways."""
    assert text == identity_text(key.identity)
    assert key.identity == parse_identity(text)


@pytest.mark.parametrize(
    "written",
    [
        TEXT_D.lower(),
        TEXT_D.replace("-", ""),
        f"  {TEXT_D[:30]}\n\t{TEXT_D[30:]} ",
        TEXT_D.replace("-", " - "),
        TEXT_D.replace("O", "0").replace("I", "1").replace("B", "8"),
    ],
)
def test_an_identity_is_read_with_tolerance(written: str) -> None:
    """In any case, with any white space, and with the digits that look like letters."""
    assert D.identity == parse_identity(written)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "0 of 56 letters"),
        (TEXT_A[:-9], "48 of 56 letters"),
        (TEXT_A + "A", "57 of 56 letters"),
        (TEXT_A.replace("7", "9", 1), "has no '9'"),
        (TEXT_A + "ñ", "has no 'Ñ'"),
        ("node3", "5 of 56 letters"),
        (TEXT_A.replace("Q", "P", 1), "check does not fit"),
        (TEXT_A[:1] + TEXT_A[2] + TEXT_A[1] + TEXT_A[3:], "check does not fit"),
    ],
)
def test_a_wrong_identity_says_what_is_wrong(written: str, why: str) -> None:
    """Cut, mistyped, swapped: a person can act on the sentence."""
    with pytest.raises(UsageError, match=why) as caught:
        parse_identity(written)
    assert caught.value.hint


@given(st.binary(min_size=32, max_size=32))
def test_every_identity_has_a_text_of_its_own(identity: bytes) -> None:
    """Written and read back."""
    assert identity == parse_identity(identity_text(identity))


@given(
    st.integers(0, 62).filter(lambda at: TEXT_A[at] != "-"),
    st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
)
def test_no_single_mistake_passes(at: int, letter: str) -> None:
    """Any other letter at any place."""
    wrong = TEXT_A[:at] + letter + TEXT_A[at + 1 :]
    if wrong != TEXT_A:
        with pytest.raises(UsageError, match="check"):
            parse_identity(wrong)


# -- the key's file


def test_a_key_is_made_once_and_read_from_then_on(tmp_path: Path) -> None:
    """The first start makes it, mode 0600 whatever the umask; nothing else is left in the directory."""
    before = os.umask(0o277)
    try:
        made = load_or_create(os.fspath(tmp_path))
    finally:
        os.umask(before)
    assert (tmp_path / "node.key").stat().st_mode & 0o7777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["node.key"]
    assert load_or_create(os.fspath(tmp_path)).identity == made.identity


def test_the_file_is_pkcs8_in_pem(tmp_path: Path) -> None:
    """`openssl pkey` and everybody else can read it."""
    path = tmp_path / "node.key"
    create(os.fspath(path))
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert path.read_bytes() == load(os.fspath(path)).pem()


def test_a_start_that_died_while_making_the_key_is_no_obstacle(tmp_path: Path) -> None:
    """Its temporary file is nobody's key."""
    (tmp_path / "node.key.new").write_bytes(b"half a k")
    load_or_create(os.fspath(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["node.key"]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    """Making one where there is one is refused."""
    path = tmp_path / "node.key"
    path.write_bytes(A.pem())
    with pytest.raises(ConfigError, match="cannot make the node's key: File exists"):
        create(os.fspath(path))
    assert path.read_bytes() == A.pem()


def test_a_credential_comes_first(tmp_path: Path) -> None:
    """What systemd hands over is the key; its group bits are an ACL's mask."""
    state, credentials = tmp_path / "state", tmp_path / "credentials"
    state.mkdir()
    credentials.mkdir()
    assert load_or_create(os.fspath(state), os.fspath(credentials)).identity != D.identity
    (credentials / "node.key").write_bytes(D.pem())
    (credentials / "node.key").chmod(0o440)
    assert load_or_create(os.fspath(state), os.fspath(credentials)).identity == D.identity


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o777])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    """Path, what was read, what was expected, what to do."""
    path = tmp_path / "node.key"
    path.write_bytes(A.pem())
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"^{path}: mode {mode:04o}, expected 0600") as caught:
        load(os.fspath(path))
    assert f"chmod 600 {path}" in caught.value.hint


def test_a_credential_that_the_world_can_read_is_refused(tmp_path: Path) -> None:
    """The ACL excuses the group, nobody else."""
    path = tmp_path / "node.key"
    path.write_bytes(A.pem())
    path.chmod(0o444)
    with pytest.raises(ConfigError, match="mode 0444"):
        load(os.fspath(path), credential=True)


def test_a_key_of_another_owner_is_refused(tmp_path: Path) -> None:
    """Started as root over a service's state, for instance: root could read it, and must not."""
    require("root")  # only root can give a file away
    path = tmp_path / "node.key"
    path.write_bytes(A.pem())
    path.chmod(0o600)
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="owner is uid 12345, expected uid 0") as caught:
        load(os.fspath(path))
    assert "chown 0" in caught.value.hint


def bad_keys() -> dict[str, bytes]:
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    foreign = generate_private_key(SECP256R1()).private_bytes(pem, serialization.PrivateFormat.PKCS8, none)
    locked = A.private.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    return {
        "empty": b"",
        "zeros": bytes(119),
        "cut": A.pem()[:60],
        "raw": bytes(32),
        "of another kind": foreign,
        "with a password": locked,
        "public": A.private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
    }


BAD_KEYS = bad_keys()


@pytest.mark.parametrize("name", BAD_KEYS)
def test_what_is_not_our_key_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    """No new identity is made in its place: only a person may decide that."""
    path = tmp_path / "node.key"
    path.write_bytes(BAD_KEYS[name])
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=f"^{path}: .*expected an Ed25519 key as PKCS#8 in PEM") as caught:
        load_or_create(os.fspath(tmp_path))
    assert "backup" in caught.value.hint
    assert path.read_bytes() == BAD_KEYS[name]


def test_no_file_and_no_regular_file_are_refused(tmp_path: Path) -> None:
    """One sentence each."""
    with pytest.raises(ConfigError, match="No such file or directory, expected the node's private key"):
        load(os.fspath(tmp_path / "node.key"))
    (tmp_path / "node.key").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        load(os.fspath(tmp_path / "node.key"))
    with pytest.raises(ConfigError, match="not a regular file"):
        load("/dev/null")
    with pytest.raises(ConfigError, match="cannot make the node's key: No such file or directory"):
        load_or_create(os.fspath(tmp_path / "missing"))


def test_a_link_to_nowhere_is_not_replaced_by_a_new_key(tmp_path: Path) -> None:
    """The key lies on a disk that is not mounted: a new identity would be the wrong answer."""
    (tmp_path / "node.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="No such file"):
        load_or_create(os.fspath(tmp_path))


# -- the certificate


def test_the_certificate_is_a_function_of_the_key() -> None:
    """The same bytes at each start, with the fields of the protocol and no others."""
    assert A.certificate() == A.certificate() != D.certificate()
    certificate = x509.load_pem_x509_certificate(A.certificate())
    assert certificate.version == x509.Version.v3
    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string() == "CN=msgd"
    assert certificate.not_valid_before_utc.isoformat() == "1970-01-01T00:00:00+00:00"
    assert certificate.not_valid_after_utc.isoformat() == "9999-12-31T23:59:59+00:00"
    assert certificate.serial_number == int.from_bytes(A.identity[:8], "big") >> 1 | 1
    assert list(certificate.extensions) == []
    certificate.verify_directly_issued_by(certificate)


def test_the_key_never_lies_in_a_file_for_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memfd without a name, closed at once."""
    monkeypatch.chdir(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    A.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(tmp_path.iterdir()) == []
