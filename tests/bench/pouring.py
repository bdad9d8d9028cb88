"""How fast this machine can carry bytes at all: onto its disk, over TLS, over TLS with their digest."""

import hashlib
import os
import socket
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from msgd.trust.identity import NodeKey
from msgd.trust.tls import acceptor_context, dialler_context

CHUNK_BYTES = 256 << 10
MIB = 1 << 20


def disk_mib_s(directory: Path, size: int) -> float:
    """A file written and synced."""
    path, data = directory / "pour", os.urandom(MIB)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        began = time.perf_counter()
        for _ in range(size // MIB):
            os.write(fd, data)
        os.fdatasync(fd)
        return size / MIB / (time.perf_counter() - began)
    finally:
        os.close(fd)
        path.unlink()


def tls_mib_s(size: int, *, hashes: bool) -> float:
    """Bytes to another process on loopback; each end is one thread and, with `hashes`, takes the digest."""
    listener = socket.create_server(("127.0.0.1", 0))
    pid = os.fork()
    if pid == 0:
        try:
            _receive(listener.accept()[0], size, hashes)
        finally:
            os._exit(0)
    try:
        sock = socket.create_connection(listener.getsockname())
        with dialler_context().wrap_socket(sock) as session:
            data, sha = memoryview(os.urandom(CHUNK_BYTES)), hashlib.sha256()
            began = time.perf_counter()
            for _ in range(size // CHUNK_BYTES):
                if hashes:
                    sha.update(data)
                at = 0
                while at < CHUNK_BYTES:
                    at += session.send(data[at:])
            session.recv(1)
            return size / MIB / (time.perf_counter() - began)
    finally:
        listener.close()
        os.waitpid(pid, 0)


def _receive(sock: socket.socket, size: int, hashes: bool) -> None:
    session = acceptor_context(NodeKey(Ed25519PrivateKey.generate())).wrap_socket(sock, server_side=True)
    view, sha, left = memoryview(bytearray(CHUNK_BYTES)), hashlib.sha256(), size
    while left:
        at = 0
        while at < CHUNK_BYTES:
            at += session.recv_into(view[at:])
        if hashes:
            sha.update(view)
        left -= CHUNK_BYTES
    session.send(b"x")
