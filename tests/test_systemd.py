"""systemd: what is said to it, and the sockets it passes."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd.errors import ConfigError
from msgd.systemd import FIRST_FD, Notifier, listen_fds, watchdog_s
from tests.forked import in_child

SOON_S = 5.0


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A datagram socket in the service manager's place."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(SOON_S)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield sock


def heard(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode("ascii").split("\n")


def test_each_notification_is_one_datagram_of_its_lines(manager: socket.socket) -> None:
    """As sd_notify(3) wants them."""
    notifier = Notifier()
    assert notifier.is_on
    notifier.ready("2 peers")
    assert heard(manager) == ["READY=1", "STATUS=2 peers"]
    notifier.stopping("bye")
    assert heard(manager) == ["STOPPING=1", "STATUS=bye"]
    notifier.watchdog()
    assert heard(manager) == ["WATCHDOG=1"]
    notifier.failed("disk", errno=5)
    assert heard(manager) == ["STATUS=disk", "ERRNO=5"]
    notifier.failed("name")
    assert heard(manager) == ["STATUS=name"]


def test_reloading_states_the_monotonic_clock_in_the_same_datagram(manager: socket.socket) -> None:
    """Otherwise systemd cannot tell this reload from an older one."""
    before_us = time.monotonic_ns() // 1000
    Notifier().reloading()
    reloading, clock = heard(manager)
    assert reloading == "RELOADING=1"
    assert before_us <= int(clock.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_a_status_is_ascii_on_one_line(manager: socket.socket) -> None:
    """sdnotify would lose other letters silently, and a line break would begin another assignment."""
    Notifier().status("Büro ☃\nREADY=1")
    assert heard(manager) == ["STATUS=B?ro ? READY=1"]


def test_a_manager_that_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    """A stuck service manager costs notifications, not the supervisor's loop."""
    notifier = Notifier()
    began_s = time.monotonic()
    for _ in range(3000):
        notifier.watchdog()
    assert time.monotonic() - began_s < SOON_S


def test_a_manager_that_is_gone_hurts_nobody(manager: socket.socket) -> None:
    """Its socket closed, or none at all from the beginning."""
    notifier = Notifier()
    manager.close()
    notifier.ready("fine")
    assert not Notifier().is_on
    Notifier().ready("fine")


def test_without_a_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started from a shell."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier()
    assert not notifier.is_on
    notifier.ready("fine")


def passed(names: str, *fds: int) -> dict[str, str]:
    """Put descriptors where systemd puts them; in a child only."""
    for place, fd in enumerate([os.dup2(fd, 100 + at) for at, fd in enumerate(fds)]):
        os.dup2(fd, FIRST_FD + place, inheritable=True)
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names, "A": "b"}


def tcp(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family)
    sock.bind(("127.78.0.1" if family == socket.AF_INET else "::1", 0))
    sock.listen()
    return sock


def unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_passed_sockets_come_by_name_in_any_order(tmp_path: Path) -> None:
    """Several of one name, too; the environment is cleared, programs we start do not inherit them."""

    def body() -> tuple[object, object, object]:
        control, four, six = unix(tmp_path / "c"), tcp(), tcp(socket.AF_INET6)
        env = passed("peer:control:peer", six.fileno(), control.fileno(), four.fileno())
        found = listen_fds(env)
        kinds = [(name, sock.family.name) for name, sock in found]
        flags = [(sock.get_inheritable(), sock.getblocking()) for _, sock in found]
        return kinds, flags, env

    kinds, flags, env = in_child(body)
    assert kinds == [("peer", "AF_INET6"), ("control", "AF_UNIX"), ("peer", "AF_INET")]
    assert flags == [(False, False)] * 3
    assert env == {"A": "b"}


def test_sockets_for_another_process_are_left_alone() -> None:
    """LISTEN_PID names somebody else: the variables were inherited by accident."""
    env = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c"}
    assert listen_fds(env) == []
    assert env == {}
    assert listen_fds({}) == []


def test_what_is_no_socket_is_closed_and_passed_over() -> None:
    """Something in the descriptor store does not keep msgd from starting."""

    def body() -> object:
        read_fd, _ = os.pipe()
        sock = tcp()
        found = listen_fds(passed("stored:peer", read_fd, sock.fileno()))
        return [name for name, _ in found], os.path.exists(f"/proc/self/fd/{FIRST_FD}")

    assert in_child(body) == (["peer"], False)


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("msgd.socket", "tcp", "but that name is unknown; expected FileDescriptorName=control or"),
        ("", "tcp", "named '', but that name is unknown"),
        ("control", "tcp", "but it is AF_INET SOCK_STREAM; expected a Unix socket in ListenStream="),
        ("peer", "unix", "but it is AF_UNIX SOCK_STREAM; expected a TCP socket in ListenStream="),
        ("peer", "udp", "but it is AF_INET SOCK_DGRAM; expected a TCP socket in ListenStream="),
        ("peer", "connection", "but it is a connection, not a listener; expected Accept=no"),
    ],
)
def test_a_socket_of_the_wrong_kind_is_an_error(tmp_path: Path, name: str, kind: str, sentence: str) -> None:
    """Closed in silence, its clients would wait for ever; so msgd says what is wrong in the unit."""

    def body() -> str:
        listener = tcp()
        sock = {
            "tcp": lambda: listener,
            "unix": lambda: unix(tmp_path / "u"),
            "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "connection": lambda: socket.create_connection(listener.getsockname()),
        }[kind]()
        try:
            listen_fds(passed(name, sock.fileno()))
        except ConfigError as error:
            return error.message
        return "no error"

    assert sentence in in_child(body)


@pytest.mark.parametrize(
    ("env", "period_s"),
    [
        ({"WATCHDOG_USEC": "15000000"}, 15.0),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_period_is_ours_only(env: dict[str, str], period_s: float | None) -> None:
    """In seconds; None when there is none or it is meant for another process."""
    assert watchdog_s(env) == period_s
