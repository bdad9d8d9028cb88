"""Messages of kind file: what they say, and that each is told once whatever comes in between."""

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from msgd.errors import MsgdError, StorageRefused
from msgd.knowing import Knowing, Stale
from msgd.model import id_text, uuid7
from msgd.noting import Note, note_id, submit_notes
from msgd.syncing import sync_all
from msgd.wire.codec import decode_payload
from msgd.wire.ledger import Duplicates, PeerState, Submit, Submitted

PEER = cast(PeerState, SimpleNamespace(number=3, identity=b"i" * 32))
NOTES = [Note("put", f"dir/{n}", n, "ab" * 32) for n in range(3)]


class Knows:
    """A log process whose answers are a list; errors among them are raised."""

    user = "ana"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Submit, bytes]] = []

    def next_token(self) -> int:
        return len(self.asked) + 1

    def state(self, *, fresh: bool = True) -> Any:
        return SimpleNamespace(generation=7)

    def peer_state(self, number: int) -> Any:
        return SimpleNamespace(number=number + 10, identity=PEER.identity)

    def ask(self, frame: Submit, payload: bytes) -> Any:
        self.asked.append((frame, payload))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def submit(knows: Knows) -> list[str]:
    return submit_notes(cast(Knowing, knows), PEER, "transfer", NOTES)


def done() -> Submitted:
    return Submitted(1, 100, 0, 5)


def names(call: tuple[Submit, bytes]) -> list[str]:
    """Of the messages in a request."""
    frame, payload = call
    return [m.headers["file"] for m in decode_payload(payload, frame.count)]


def test_all_notes_are_one_commit_with_what_was_done_in_their_headers() -> None:
    knows = Knows(done())
    ids = submit(knows)
    ((frame, payload),) = knows.asked
    assert (3, 3, 7, "ana") == (frame.peer, frame.count, frame.generation, frame.user)
    first, second, _ = decode_payload(payload, frame.count)
    assert {"op": "put", "file": "dir/1", "size": "1", "sha256": "ab" * 32} == second.headers
    assert ("0", b"dir/0", "ana") == (first.headers["size"], bytes(first.body), first.user)
    assert [i.replace("-", "") for i in ids] == [frame.ids[n : n + 16].hex() for n in (0, 16, 32)]


def test_the_id_is_that_of_the_transfer_the_deed_and_the_name() -> None:
    same = note_id("ana", PEER, "t", NOTES[0])
    assert same == note_id("ana", PEER, "t", NOTES[0]._replace(size=99))
    others = [
        note_id("eva", PEER, "t", NOTES[0]),
        note_id("ana", PEER, "u", NOTES[0]),
        note_id("ana", PEER, "t", NOTES[0]._replace(op="get")),
        note_id("ana", PEER, "t", NOTES[1]),
        note_id("ana", cast(PeerState, SimpleNamespace(identity=b"j" * 32)), "t", NOTES[0]),
    ]
    assert 6 == len({same, *others})


def test_the_id_has_the_time_of_the_transfer() -> None:
    transfer = id_text(uuid7(0x123456789ABC, b"r" * 10))
    first, second = (note_id("ana", PEER, transfer, note) for note in NOTES[:2])
    assert ("123456789abc7", "123456789abc7") == (first.hex()[:13], second.hex()[:13])
    assert first != second
    assert first == note_id("ana", PEER, transfer, NOTES[0])
    assert "8" == note_id("ana", PEER, transfer.upper() + "0", NOTES[0]).hex()[12]


def test_what_was_told_before_is_left_out() -> None:
    known = note_id("ana", PEER, "transfer", NOTES[1])
    knows = Knows(Duplicates(1, [known]), done())
    assert 3 == len(submit(knows))
    assert [["dir/0", "dir/1", "dir/2"], ["dir/0", "dir/2"]] == [names(call) for call in knows.asked]


def test_nothing_is_left_where_all_was_told() -> None:
    knows = Knows(Duplicates(1, [note_id("ana", PEER, "transfer", note) for note in NOTES]))
    assert 3 == len(submit(knows))
    assert 1 == len(knows.asked)


def test_a_peer_that_changed_is_looked_at_anew() -> None:
    knows = Knows(Stale("It has changed."), done())
    submit(knows)
    assert [3, 13] == [frame.peer for frame, _ in knows.asked]


def test_a_refusal_is_told_and_so_is_change_without_end() -> None:
    with pytest.raises(StorageRefused):
        submit(Knows(StorageRefused("full")))
    with pytest.raises(MsgdError, match="change all the time"):
        submit(Knows(*[Stale("again")] * 3))


@pytest.mark.parametrize("count", [0, 1, 40])
def test_a_sync_that_fails_is_that_files_alone(count: int) -> None:
    fds = [os.memfd_create("synced") for _ in range(count)]
    assert [None] * count == sync_all(fds)
    read_end, write_end = os.pipe()
    failed = sync_all([*fds, read_end])
    assert [None] * count == failed[:-1]
    assert isinstance(failed[-1], OSError)
    for fd in (*fds, read_end, write_end):
        os.close(fd)
