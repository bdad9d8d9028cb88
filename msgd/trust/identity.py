"""A node's identity: one Ed25519 key, which is its TLS key too.

| thing | value |
|---|---|
| key file | `node.key`, mode 0600, PKCS#8 in PEM, no password |
| SPKI | 44 bytes: 302a300506032b6570032100 ‖ public key; no other form |
| identity | SHA-256 of the SPKI |
| as text | base32 of identity ‖ first 3 bytes of H(`msgd/1 identity\\0` ‖ identity): 8 groups of 7 letters |
| certificate | self-signed, CN=msgd, no extensions, 1970 to 9999; a function of the key, kept nowhere |

Text is read in any case, `-` and white space dropped, 0 1 8 as O I B. A key file that others can read, or
that is not a key of ours, is refused and left as it is: nobody but a person may decide that a node becomes
another one.
"""

import base64
import os
import re
import ssl
import stat
from datetime import datetime
from hashlib import sha256
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from msgd.errors import ConfigError, UsageError
from msgd.trust.proof import identity_of, sign_hello, transcript

KEY_FILE = "node.key"
MAX_KEY_BYTES = 4096  # ours are 119
TEXT_LABEL = b"msgd/1 identity\0"
CHECK_BYTES = 3
TEXT_LETTERS = 56
GROUP = 7

_LOOKALIKES = str.maketrans("018", "OIB")
_NOT_BASE32 = re.compile("[^A-Z2-7]")


class NodeKey:
    """This node's private key, with what follows from it."""

    def __init__(self, private: Ed25519PrivateKey, *, is_ours: bool = True) -> None:
        self.private = private
        self.is_ours = is_ours  # False: systemd's credentials hold it, so it is not ours to rotate
        self.spki = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.identity = identity_of(self.spki)

    @classmethod
    def generate(cls) -> Self:
        """A key that nobody has yet."""
        return cls(Ed25519PrivateKey.generate())

    def pem(self) -> bytes:
        """The private key as it lies in its file."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign_hello(self, acceptor: bytes, greet: bytes, content: bytes, binding: bytes) -> bytes:
        """Our proof to the acceptor with this identity."""
        return sign_hello(self.private, transcript(acceptor, self.identity, greet, content, binding))

    def certificate(self) -> bytes:
        """The certificate, PEM: always the same bytes for the same key."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "msgd")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.private.public_key())
            .serial_number(int.from_bytes(self.identity[:8], "big") >> 1 | 1)
            .not_valid_before(datetime(1970, 1, 1))
            .not_valid_after(datetime(9999, 12, 31, 23, 59, 59))
        )
        return builder.sign(self.private, None).public_bytes(serialization.Encoding.PEM)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Give key and certificate to a context; `ssl` reads files only, so it gets one without a name."""
        fd = os.memfd_create("msgd-certificate", os.MFD_CLOEXEC)
        try:
            os.write(fd, self.certificate() + self.pem())
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)


def load_or_create(state_dir: str, credentials_dir: str | None = None) -> NodeKey:
    """The node's key: from systemd's credentials where it is there, else from the state directory.

    Made and synced to disk when there is none. Raises ConfigError, which says what to do.
    """
    if credentials_dir:
        credential = f"{credentials_dir}/{KEY_FILE}"
        if os.path.exists(credential):
            return load(credential, credential=True)
    path = f"{state_dir}/{KEY_FILE}"
    if not os.path.lexists(path):
        create(path)
    return load(path)


def load(path: str, *, credential: bool = False) -> NodeKey:
    """The key in this file.

    `credential`: systemd keeps the file and gives access by an ACL, which shows in the group bits; owner and
    group are then its business. Raises ConfigError.
    """
    try:
        with open(path, "rb") as file:
            _check_guarded(path, os.fstat(file.fileno()), credential)
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}, expected the node's private key",
            f"let uid {os.geteuid()} read the file and its directory",
        ) from error
    return NodeKey(_parse(path, data), is_ours=not credential)


def create(path: str) -> None:
    """Make a new key in this file, which must not exist; on disk when this returns. Raises ConfigError."""
    directory = os.path.dirname(path) or "."
    temporary = f"{path}.new"
    try:
        write_key(temporary, NodeKey.generate())  # over that of a start that died here: nobody knows it yet
        os.link(temporary, path)  # unlike rename, never over another key
        os.unlink(temporary)
        sync_directory(directory)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot make the node's key: {error.strerror}",
            f"let uid {os.geteuid()} write to {directory}",
        ) from error


def write_key(path: str, key: NodeKey) -> None:
    """Write this file, in place of what is there; the key is on disk when this returns. Raises OSError."""
    if os.path.lexists(path):
        os.unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o600)  # whatever the umask
        file.write(key.pem())
        file.flush()
        os.fsync(fd)


def sync_directory(path: str) -> None:
    """Which names stand in this directory is on disk when this returns. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def identity_text(identity: bytes) -> str:
    """An identity as people see it."""
    letters = base64.b32encode(identity + _check(identity)).decode()
    return "-".join(letters[at : at + GROUP] for at in range(0, TEXT_LETTERS, GROUP))


def parse_identity(text: str) -> bytes:
    """The identity that this text names. Raises UsageError saying what is wrong with it."""
    letters = "".join(text.split()).replace("-", "").upper().translate(_LOOKALIKES)
    foreign = _NOT_BASE32.search(letters)
    if foreign:
        raise UsageError(f"An identity has no {foreign.group()!r}.", "It is written with A-Z and 2-7.")
    if len(letters) != TEXT_LETTERS:
        raise UsageError(
            f"These are {len(letters)} of {TEXT_LETTERS} letters of an identity.",
            "Copy all 8 groups of 7 as `msgctl identity` prints them on that node.",
        )
    raw = base64.b32decode(letters)
    identity, check = raw[:-CHECK_BYTES], raw[-CHECK_BYTES:]
    if check != _check(identity):
        raise UsageError(
            "A letter of this identity is wrong: its check does not fit.",
            "Compare it with what `msgctl identity` prints on that node.",
        )
    return identity


def _check(identity: bytes) -> bytes:
    return sha256(TEXT_LABEL + identity).digest()[:CHECK_BYTES]


def _check_guarded(path: str, status: os.stat_result, credential: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path}: not a regular file, expected the node's private key", "move it aside")
    mode = stat.S_IMODE(status.st_mode)
    open_to = mode & (0o007 if credential else 0o077)
    if open_to:
        raise ConfigError(
            f"{path}: mode {mode:04o}, expected 0600: others on this machine may know the key",
            f"if nobody has read it: chmod 600 {path}",
        )
    if not credential and status.st_uid != os.geteuid():
        raise ConfigError(
            f"{path}: owner is uid {status.st_uid}, expected uid {os.geteuid()}",
            f"start msgd as the owner of its state, or: chown {os.geteuid()} {path}",
        )


def _parse(path: str, data: bytes) -> Ed25519PrivateKey:
    """The key in PEM. A key of another kind, with a password or cut off is refused."""
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _not_a_key(path, f"{len(data)} bytes that are no private key without password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(path, "a private key of another kind")
    return key


def _not_a_key(path: str, found: str) -> ConfigError:
    return ConfigError(
        f"{path}: {found}, expected an Ed25519 key as PKCS#8 in PEM",
        "restore it from a backup; or move it aside, and this node gets a new identity and must pair again",
    )
