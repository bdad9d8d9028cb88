"""What this machine can do at all: the limits that every other figure stands beside."""

import os
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from msgd.trust.identity import NodeKey
from msgd.trust.tls import acceptor_context, dialler_context

MESSAGE = b"x" * 100


def fdatasync_us(directory: Path, count: int = 1000) -> float:
    """Median of a 128-byte append and its fdatasync, in a preallocated file."""
    path = directory / "fdatasync"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(fd, 0, 1 << 20)
        os.fsync(fd)
        times = []
        for _ in range(count):
            began = time.perf_counter()
            os.write(fd, b"y" * 128)
            os.fdatasync(fd)
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e6
    finally:
        os.close(fd)
        path.unlink()


def tls_round_trip_us(count: int = 2000) -> float:
    """Median of 100 bytes there and back over TLS 1.3 on loopback, Python at both ends."""
    with _echo() as session:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            session.sendall(MESSAGE)
            session.recv(4096)
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e6


@contextmanager
def _echo() -> Iterator[ssl.SSLSocket]:
    """A TLS session with another process that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))
    pid = os.fork()
    if pid == 0:
        try:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = acceptor_context(NodeKey(Ed25519PrivateKey.generate())).wrap_socket(sock, server_side=True)
            while data := peer.recv(4096):
                peer.sendall(data)
        finally:
            os._exit(0)
    try:
        sock = socket.create_connection(listener.getsockname())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with dialler_context().wrap_socket(sock) as session:
            yield session
    finally:
        listener.close()
        os.waitpid(pid, 0)


def python_ms(count: int = 10) -> float:
    """Median wall time of `python3 -c pass`, the floor of any tool in Python."""
    return whole_process_ms([sys.executable, "-c", "pass"], count)


def whole_process_ms(command: list[str], count: int) -> float:
    """Median wall time of a command as a whole."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3
