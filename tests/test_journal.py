"""Events: their form in each sink, and that no sink ever holds the writer up."""

import json
import os
import pty
import re
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msgd import journal
from msgd.events import EVENTS

SOON_S = 5.0


@pytest.fixture(autouse=True)
def own_journal() -> Iterator[None]:
    """Leave the module as it was: other tests in this process use it, too."""
    before = (journal._sink, journal._processors, journal._shown)
    yield
    journal._sink, journal._processors, journal._shown = before


@pytest.fixture
def pipe() -> Iterator[tuple[int, Any]]:
    """The reading descriptor and the writing file of a pipe."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(write_fd, "w") as stream:
        yield read_fd, stream
    os.close(read_fd)


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """A datagram socket in journald's place."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "journal"))
        sock.settimeout(SOON_S)
        yield sock


def to_journald(tmp_path: Path, level: str = "info") -> None:
    """Set up as below systemd: stderr is what JOURNAL_STREAM names."""
    with (tmp_path / "stderr").open("w") as stream:
        info = os.fstat(stream.fileno())
        env = {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"}
        journal.setup(level, stream=stream, env=env, journal_socket=str(tmp_path / "journal"))


def fields(datagram: bytes) -> dict[str, str]:
    """journald's native protocol: KEY=value lines, or KEY, length and value."""
    found = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        key, is_short, value = line.partition(b"=")
        if not is_short:
            (length,) = struct.unpack_from("<Q", datagram)
            value, datagram = datagram[8 : 8 + length], datagram[9 + length :]
        found[key.decode()] = value.decode()
    return found


def lines(fd: int) -> list[str]:
    """What a pipe holds now."""
    os.set_blocking(fd, False)
    data = b""
    while select.select([fd], [], [], 0)[0]:
        chunk = os.read(fd, 1 << 20)
        if not chunk:
            break
        data += chunk
    return data.decode().splitlines()


def test_a_json_line_has_time_level_event_and_fields(pipe: tuple[int, Any]) -> None:
    """One object per line, RFC 3339 UTC; a field that is None is left out."""
    journal.setup("info", stream=pipe[1], env={})
    journal.bind(worker=7)
    journal.event("link.opened", peer="b", name="n", reason=None)
    (line,) = map(json.loads, lines(pipe[0]))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("time"))
    assert line == {"level": "info", "event": "link.opened", "worker": 7, "peer": "b", "name": "n"}


def test_only_events_from_the_level_up_are_shown(pipe: tuple[int, Any]) -> None:
    """By the table's level or the caller's, and `is_shown` knows."""
    journal.setup("info", stream=pipe[1], env={})
    journal.event("message.queued", id="x")
    journal.event("link.opened", level="debug")
    journal.event("message.queued", level="warning", id="y")
    assert [json.loads(line)["id"] for line in lines(pipe[0])] == ["y"]
    assert not journal.is_shown("message.queued")
    journal.set_level("debug")
    assert journal.is_shown("message.queued")


def test_an_unknown_event_is_a_programming_error() -> None:
    """Even one that would not be shown."""
    with pytest.raises(KeyError):
        journal.event("link.sneezed")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("::ffff:192.168.1.5", "192.168.1.5"),
        ("[::ffff:192.168.1.5]:6743", "192.168.1.5:6743"),
        ("[2001:db8::1]:6743", "[2001:db8::1]:6743"),
        ("::ffff:0", "::ffff:0"),
        (b"\x01\xff", "01ff"),
        ("\udc80", "\\udc80"),
        (ValueError("no"), "no"),
        (1.5, 1.5),
        (True, True),
    ],
)
def test_values_take_a_form_that_every_sink_can_write(
    pipe: tuple[int, Any], value: object, shown: object
) -> None:
    """IPv4-mapped addresses as IPv4, bytes as hexadecimal, surrogates escaped, numbers as they are."""
    journal.setup("info", stream=pipe[1], env={})
    journal.event("link.opened", address=value)
    assert json.loads(lines(pipe[0])[0])["address"] == shown


def test_a_full_pipe_holds_nobody_up_and_the_drops_are_told(pipe: tuple[int, Any]) -> None:
    """With a reader that does not read, 5,000 events take no time; read again, their number is told."""
    read_fd, stream = pipe
    journal.setup("info", stream=stream, env={})
    began_s = time.monotonic()
    for number in range(5000):
        journal.event("link.opened", number=number)
    assert time.monotonic() - began_s < SOON_S
    kept = [json.loads(line)["number"] for line in lines(read_fd)]
    assert kept == list(range(len(kept)))
    journal.event("link.closed")
    closed, dropped = map(json.loads, lines(read_fd))
    assert closed["event"] == "link.closed"
    assert (dropped["event"], dropped["count"]) == ("events.dropped", 5000 - len(kept))


def test_drops_are_told_without_another_event(pipe: tuple[int, Any]) -> None:
    """`tell_dropped` for a loop that is idle; while even that finds no room, the count stays."""
    read_fd, stream = pipe
    journal.setup("info", stream=stream, env={})
    for _ in range(5000):
        journal.event("link.opened")
    journal.tell_dropped()
    kept = len(lines(read_fd))
    journal.tell_dropped()
    journal.tell_dropped()
    assert [json.loads(line)["count"] for line in lines(read_fd)] == [5000 - kept]


def test_a_line_torn_by_a_full_pipe_does_not_spoil_the_next(pipe: tuple[int, Any]) -> None:
    """Longer than PIPE_BUF, half written: counted as dropped, and the next line stands alone."""
    read_fd, stream = pipe
    journal.setup("info", stream=stream, env={})
    journal.event("link.opened", reason="x" * 100_000)
    (torn,) = lines(read_fd)
    with pytest.raises(json.JSONDecodeError):
        json.loads(torn)
    journal.event("link.closed")
    rest = [json.loads(line) for line in lines(read_fd) if line]
    assert [line["event"] for line in rest] == ["link.closed", "events.dropped"]


def test_the_stream_of_others_stays_as_it_was(pipe: tuple[int, Any]) -> None:
    """O_NONBLOCK would be seen by the shell that shares the pipe: ours is another open file."""
    journal.setup("info", stream=pipe[1], env={})
    assert os.get_blocking(pipe[1].fileno())


@pytest.mark.parametrize("family", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_socket_as_stderr_is_never_waited_for(family: socket.SocketKind) -> None:
    """As below a container's shim: full means dropped."""
    reader, writer = socket.socketpair(socket.AF_UNIX, family)
    with reader, writer, writer.makefile("w") as stream:
        journal.setup("info", stream=stream, env={})
        for _ in range(10_000):
            journal.event("link.opened")
        assert journal._sink is not None
        assert journal._sink.dropped > 0
        assert b"link.opened" in reader.recv(4096)


def test_a_regular_file_takes_everything(tmp_path: Path) -> None:
    """`msgd --daemon`: stderr is a file, appended to."""
    with (tmp_path / "out").open("a") as stream:
        journal.setup("info", stream=stream, env={})
        for _ in range(100):
            journal.event("link.opened")
        assert journal.fds() == [stream.fileno()]
    assert len((tmp_path / "out").read_text().splitlines()) == 100


def test_a_terminal_shows_people_a_line_and_no_control_characters() -> None:
    """Foreign text cannot drive the terminal; a traceback keeps its lines."""
    main, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream:
        journal.setup("info", stream=stream, env={})
        journal.event("link.closed", reason="\x1b]0;owned\x07", exception="one\ntwo\x1b[2J")
        assert select.select([main], [], [], SOON_S)[0]
        shown = os.read(main, 1 << 16).decode()
    os.close(main)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "link.closed" in plain
    assert "\x1b" not in plain
    assert "\\x1b]0;owned\\x07" in plain
    assert "one\r\ntwo\\x1b[2J" in plain


def test_journald_gets_our_fields_under_their_names(journald: socket.socket, tmp_path: Path) -> None:
    """So `journalctl PEER=node3` finds it, and MESSAGE is a sentence for people."""
    to_journald(tmp_path)
    journal.bind(worker=42)
    journal.event(
        "link.closed", peer="node3", identity="AB-C", id="0198", link=b"\x01", reason="two\nlines", tls=1
    )
    assert fields(journald.recv(1 << 16)) == {
        "MESSAGE": "link with node3 closed: two\nlines",
        "MESSAGE_ID": EVENTS["link.closed"].message_id,
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "msgd",
        "EVENT": "link.closed",
        "WORKER_PID": "42",
        "PEER": "node3",
        "PEER_ID": "AB-C",
        "MSG_ID": "0198",
        "LINK_ID": "01",
        "REASON": "two\nlines",
        "TLS": "1",
    }


def test_a_sentence_with_a_missing_field_is_still_a_sentence(journald: socket.socket, tmp_path: Path) -> None:
    """No event is lost because its writer did not know everything."""
    to_journald(tmp_path)
    journal.event("link.closed", peer="b")
    assert fields(journald.recv(1 << 16))["MESSAGE"] == "link with b closed: ?"


def test_a_stopped_journald_holds_nobody_up_and_the_drops_are_told(
    journald: socket.socket, tmp_path: Path
) -> None:
    """The datagrams that fit are kept in order, the rest counted and told when there is room again."""
    to_journald(tmp_path)
    began_s = time.monotonic()
    for number in range(3000):
        journal.event("link.opened", number=number)
    assert time.monotonic() - began_s < SOON_S
    kept = drain(journald)
    assert [int(one["NUMBER"]) for one in kept] == list(range(len(kept)))
    assert 0 < len(kept) < 3000
    journal.event("link.closed", peer="b")
    closed, dropped = drain(journald)
    assert closed["EVENT"] == "link.closed"
    assert (dropped["EVENT"], dropped["COUNT"]) == ("events.dropped", str(3000 - len(kept)))
    assert dropped["PRIORITY"] == "4"


def drain(sock: socket.socket) -> list[dict[str, str]]:
    """All datagrams that wait now."""
    found = []
    while select.select([sock], [], [], 0)[0]:
        found.append(fields(sock.recv(1 << 16)))
    return found


def test_events_go_on_after_journald_was_replaced(journald: socket.socket, tmp_path: Path) -> None:
    """A restart of journald makes a new socket of the same name; what came between is counted."""
    to_journald(tmp_path)
    journald.close()
    journal.event("link.opened")
    (tmp_path / "journal").unlink()
    journal.event("link.opened")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(str(tmp_path / "journal"))
        journal.event("link.closed", peer="b")
        closed, dropped = drain(again)
    assert (closed["EVENT"], dropped["COUNT"]) == ("link.closed", "2")


def test_an_event_too_big_for_a_datagram_goes_in_a_file(journald: socket.socket, tmp_path: Path) -> None:
    """A traceback of a megabyte arrives whole, by a sealed memfd, still without waiting."""
    to_journald(tmp_path)
    journal.event("child.failed", exception="x" * (1 << 20))
    _, passed, _, _ = socket.recv_fds(journald, 64, 1)
    with os.fdopen(passed[0], "rb") as file:
        file.seek(0)
        assert fields(file.read())["EXCEPTION"] == "x" * (1 << 20)


def test_without_journals_stream_or_socket_events_are_lines(pipe: tuple[int, Any], tmp_path: Path) -> None:
    """A stream that JOURNAL_STREAM does not name, or a journal that is not there, changes the sink."""
    info = os.fstat(pipe[1].fileno())
    here = {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"}
    for env in ({"JOURNAL_STREAM": "1:2"}, {}, here):
        journal.setup("info", stream=pipe[1], env=env, journal_socket=str(tmp_path / "absent"))
        journal.event("link.opened")
        assert json.loads(lines(pipe[0])[0])["event"] == "link.opened"


def test_fds_names_what_a_child_must_keep(journald: socket.socket, tmp_path: Path) -> None:
    """With this one descriptor and 0, 1, 2 a child can write events; a program that it starts has it not."""
    to_journald(tmp_path)
    (fd,) = journal.fds()
    assert fd > 2
    assert not os.get_inheritable(fd)
