"""The log process's loop, in a process of its own: what others may ask of it, and what they hear."""

import os
import select
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from msgd import ledger, model
from msgd.config import Config, ListenAddress
from msgd.errors import OK
from msgd.log import vacuum
from msgd.log.files import REAL_FILES, Files
from msgd.log.page import SharedPage
from msgd.log.segment import list_bases
from msgd.peering import MAX_UNPINNED
from msgd.trust.identity import load_or_create
from msgd.wire.codec import Message, encode
from msgd.wire.keeping import OFFSET, STRETCH, AskNeeded, Needed, Vacuum
from msgd.wire.ledger import (
    TABLE,
    Cut,
    DialFailed,
    Done,
    Duplicates,
    Introduce,
    PeerState,
    PutPeer,
    Refused,
    Snapshot,
    State,
    Stop,
    Submit,
    Submitted,
    Watch,
)
from msgd.wire.pipe import Pipe
from msgd.wire.trust import PutRecovered, Rotate, TrustChanged
from tests import forked

WITHIN_S = 10
OWN = "127.0.0.1:6743"
THEIRS = b"\x07" * 32


class Log:
    """A log process, and the ends of channels to it."""

    def __init__(self, directory: Path) -> None:
        mine, theirs = socket.socketpair()
        self.directory = directory
        self.supervisor = Pipe(mine, TABLE)
        self.tokens = 0
        self._heard: dict[Pipe, deque[Any]] = {}
        self._links: list[Pipe] = []
        config = Config(name="a", listen=(ListenAddress.parse(OWN),), state=str(directory), socket="/x")
        self.identity = load_or_create(str(directory), None).identity
        # No thread: the receive buffer of wire/pipe is one for the whole process.
        self.pid = forked.start(
            lambda: ledger.run(theirs, SharedPage(), config, self.identity), {theirs.fileno()}
        )
        theirs.close()
        self.control = self.channel("control")

    def channel(self, kind: str) -> Pipe:
        mine, theirs = socket.socketpair()
        assert self.supervisor.offer(Introduce(kind, os.getpid(), self.identity), theirs.fileno())
        theirs.close()
        pipe = Pipe(mine, TABLE)
        if kind == "link":
            self._links.append(pipe)
        return pipe

    def ask(self, kind: type[Any], *fields: Any, payload: bytes = b"", **more: Any) -> Any:
        """The answer to this request of the control channel; what else it says is passed over."""
        self.tokens += 1
        self.control.send(kind(self.tokens, *fields, **more), payload)
        return self.hear(self.control, lambda frame: getattr(frame, "token", 0) == self.tokens)

    def hear(self, pipe: Pipe, wanted: Any) -> Any:
        """The next frame of the channel that fits; what came before it is passed over."""
        heard = self._heard.setdefault(pipe, deque())
        while True:
            while heard:
                frame = heard.popleft()
                if wanted(frame):
                    return frame
            assert select.select([pipe.sock], [], [], WITHIN_S)[0], "no answer"
            frames = pipe.receive()
            assert frames is not None
            heard.extend(frame for frame, _ in frames)

    def peers(self) -> list[PeerState]:
        state = self.ask(Snapshot)
        assert isinstance(state, State)
        return list(state.peers)

    def submit(self, number: int, raw: bytes, id: bytes) -> Any:
        generation = self.ask(Snapshot).generation
        return self.ask(Submit, number, 1, id, 0, generation, payload=raw)

    def add(self) -> int:
        done = self.ask(PutPeer, "add", "eva", identity=THEIRS, name="b", address="192.0.2.1:6743")
        assert isinstance(done, Done)
        return done.value

    def stop(self) -> None:
        with suppress(OSError):  # it has ended already: its exit code says how
            self.supervisor.offer(Stop())
        for link in self._links:  # it waits until they have said goodbye
            link.close()
        assert OK == forked.wait(self.pid, WITHIN_S)


def message(n: int) -> tuple[bytes, bytes]:
    id = bytes([n]) * 6 + b"\x7a" + bytes(9)
    return id, encode(Message(id, 0, 1, "eva", {}, b"hola"))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    running = Log(tmp_path)
    yield running
    running.stop()


def test_a_request_that_fails_is_refused_and_the_next_one_is_answered(log: Log) -> None:
    id, raw = message(1)
    answer = log.submit(99, raw, id)
    assert isinstance(answer, Refused)
    assert "Unexpected" == answer.name
    number = log.add()
    assert isinstance(log.submit(number, raw, id), Submitted)


def test_an_address_is_held_once_and_is_never_this_node_s_own(log: Log) -> None:
    first = log.ask(PutPeer, "hold", "eva", address="192.0.2.9")
    again = log.ask(PutPeer, "hold", "eva", address="192.0.2.9:6743")
    assert (True, False, first.value) == (first.changed, again.changed, again.value)
    for wrong in (OWN, "127.0.0.1", "192.0.2.9:99999", "a b"):
        assert "InvalidRequest" == log.ask(PutPeer, "hold", "eva", address=wrong).name
    log.ask(PutPeer, "remove", "eva", first.value)
    assert first.value == log.ask(PutPeer, "hold", "eva", address="192.0.2.9").value
    (peer,) = log.peers()
    assert ("192.0.2.9:6743", b"", False, "unpaired") == (peer.name, peer.identity, peer.pinned, peer.hold)


@pytest.mark.slow
def test_there_is_a_most_of_addresses_and_idle_ones_make_room(log: Log) -> None:
    for n in range(MAX_UNPINNED):
        assert log.ask(PutPeer, "hold", "eva", address=f"192.0.2.1:{n + 1}").changed
    id, raw = message(1)
    assert isinstance(log.submit(1, raw, id), Submitted)
    assert log.ask(PutPeer, "hold", "eva", address="192.0.2.2").changed
    assert [2] == [peer.number for peer in log.peers() if peer.removed], "the oldest for which nothing waits"


def test_the_name_of_another_peer_is_refused_and_says_whose_it_is(log: Log) -> None:
    log.add()
    refused = log.ask(PutPeer, "add", "eva", identity=b"\x08" * 32, name="b", address="192.0.2.2:6743")
    assert ("InvalidRequest", True) == (refused.name, "rekey b" in refused.hint)


def test_what_a_refusal_says_holds_what_waits_and_watchers_hear_of_it(log: Log) -> None:
    number = log.add()
    id, raw = message(1)
    log.submit(number, raw, id)
    log.control.send(Watch(number))
    assert ("", 0, 1) == next((p.hold, p.held, p.queued) for p in log.peers())
    worker = log.channel("link")
    worker.send(DialFailed(number, "has our request", 0.0, "pending"))
    failed = log.hear(log.supervisor, lambda frame: isinstance(frame, DialFailed))
    assert (number, "pending", False) == (failed.peer, failed.code, failed.is_linked)
    assert TrustChanged(number) == log.hear(log.control, lambda frame: isinstance(frame, TrustChanged))
    (peer,) = log.peers()
    assert ("unpaired", 1, 0) == (peer.hold, peer.held, peer.queued)
    assert "msgctl pair" in peer.hold_detail
    worker.sock.close()


def test_a_worker_that_was_forked_with_a_former_key_is_told_to_end(log: Log) -> None:
    before = log.channel("link")
    assert isinstance(log.ask(Rotate, "eva"), Done)
    after = log.channel("link")  # the supervisor has not heard of the new key yet
    for worker in (before, after):
        assert Cut("key rotated") == log.hear(worker, lambda frame: isinstance(frame, Cut))
        worker.sock.close()


def test_what_a_peer_gives_back_is_kept_and_its_ids_are_known(log: Log) -> None:
    id, raw = message(1)
    fields = (model.OUT, 1, 1, bytes(32))
    assert "UnknownPeer" == log.ask(PutRecovered, 1, *fields, payload=raw).name
    number = log.add()
    assert isinstance(log.ask(PutRecovered, number, *fields, payload=raw), Done)
    assert isinstance(log.submit(number, raw, id), Duplicates)
    other = message(2)
    incoming = (model.IN, 1, 1, bytes(32))
    assert isinstance(log.ask(PutRecovered, number, *incoming, payload=other[1]), Done)
    assert isinstance(log.submit(number, other[1], other[0]), Submitted)


def test_a_removed_or_blocked_peer_takes_no_messages(log: Log) -> None:
    number = log.add()
    id, raw = message(1)
    assert log.ask(PutPeer, "block", "eva", number).changed
    refused = log.submit(number, raw, id)
    assert ("NotTrusted", "msgctl peer unblock b") == (refused.name, refused.hint)
    assert log.ask(PutPeer, "unblock", "eva", number).changed
    assert isinstance(log.submit(number, raw, id), Submitted)
    assert 1 == log.ask(PutPeer, "remove", "eva", number).value
    assert "NotTrusted" == log.submit(number, *reversed(message(2))).name
    assert "UnknownPeer" == log.ask(PutPeer, "rename", "eva", number, name="c").name


def needed(log: Log, older_ns: int = 0) -> tuple[list[int], list[tuple[int, int]]]:
    """What of the log is not final."""
    answer = log.ask(AskNeeded, older_ns)
    assert isinstance(answer, Needed)
    return [at for (at,) in OFFSET.iter_unpack(answer.records)], [*STRETCH.iter_unpack(answer.waiting)]


def test_what_is_not_final_is_named_and_never_removed(log: Log) -> None:
    number = log.add()
    id, raw = message(1)
    offset = log.submit(number, raw, id).offset
    records, ((start, stop),) = needed(log, 1)  # and the segment, which is older than 1 ns, is ended
    assert ([], True) == (records, start == offset < stop)
    refused = log.ask(Vacuum, [0], "eva", "all", 1, 100)
    assert ("Unexpected", True) == (refused.name, "not all of that is final" in refused.message)
    assert 1 == log.ask(PutPeer, "remove", "eva", number).value
    assert ([], []) == needed(log)
    assert 1 == log.ask(Vacuum, [0], "eva", "all", 1, 100).value
    refused = log.ask(Vacuum, [0], "eva", "all", 1, 100)
    assert ("Unexpected", True) == (refused.name, "has gone meanwhile" in refused.message), (
        "found too long ago"
    )


def test_the_record_of_a_removal_is_no_reason_for_the_next(log: Log) -> None:
    """Else an idle node would end and remove a segment for ever, each with the record of the one before."""
    directory = str(log.directory / "log")
    log.add()
    needed(log, 1)  # ends the segment
    log.ask(Vacuum, [0], "eva", "all", 0, 100)
    left = list_bases(REAL_FILES, directory)
    needed(log, 1)
    assert ([1], left) == ([len(left)], list_bases(REAL_FILES, directory))


def test_an_id_is_forgotten_only_by_who_has_looked_since_it_came_again(log: Log) -> None:
    """Two clients that found out at the same time that it is free do not both use it."""
    number, (id, raw) = log.add(), message(1)
    first = log.submit(number, raw, id)
    fields = (Submit, number, 1, id, 0, log.ask(Snapshot).generation)
    assert isinstance(log.ask(*fields, payload=raw), Duplicates)
    free = {"gone": [id], "gone_upto": first.offset + 1000}
    assert isinstance(log.ask(*fields, payload=raw, **free), Submitted)
    free["gone_upto"] = first.offset
    assert isinstance(log.ask(*fields, payload=raw, **free), Duplicates)


def test_a_removal_that_died_is_finished_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of it is there since before the first segment went, and says no more than what goes."""
    remove, calls = vacuum.remove, iter(range(2))

    def dies(files: Files, directory: str, bases: Sequence[int]) -> None:
        if next(calls):
            os._exit(9)
        remove(files, directory, bases)

    with monkeypatch.context() as patch:
        patch.setattr(vacuum, "remove", dies)
        log = Log(tmp_path)
    number = log.add()
    for n in (1, 2, 3):
        id, raw = message(n)
        log.submit(number, raw, id)
        needed(log, 1)  # ends the segment
    log.ask(PutPeer, "remove", "eva", number)
    bases = list_bases(REAL_FILES, str(tmp_path / "log"))
    log.control.send(Vacuum(100, bases[:3], "eva", "all", 3, 300))
    assert 9 == forked.wait(log.pid, WITHIN_S)
    assert bases[1:] == list_bases(REAL_FILES, str(tmp_path / "log"))
    log = Log(tmp_path)
    for _ in bases[1:3]:  # one in each round, before it answers
        needed(log)
    assert bases[3:] == list_bases(REAL_FILES, str(tmp_path / "log"))[: len(bases[3:])]
    log.stop()
