"""One message to many peers in the log process: all or nothing, a record each, none of them twice."""

import itertools
from typing import Any

import pytest

from msgd import opening
from msgd.config import Config
from msgd.indexer import Indexer
from msgd.log.errors import StorageFull
from msgd.log.page import SharedPage
from msgd.log.record import FLAG_GROUP, Kind
from msgd.model import MAX_MESSAGE_BYTES, OUT, uuid7, uuid8
from msgd.spreading import Spreading
from msgd.wire.codec import Message, encode
from msgd.wire.groups import Placed, Spread
from msgd.wire.ledger import Duplicates, PutPeer, Refused, Submit, Submitted
from tests.gate_world import Node, Worker, here

__all__ = ["here"]

ID = uuid7(1_800_000_000_000, bytes(10))


class Group:
    """The log process as a control worker meets it, with three peers."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.peers = [node.add(letter, f"node-{letter}").number for letter in "bcd"]
        self.spreading = Spreading(node.outgoing)
        self.others = itertools.count(1_700_000_000_000)

    def spread(self, peers: list[int], raw: bytes = ID, body: bytes = b"hola", **more: Any) -> Any:
        """The answer to a Spread, after its commit."""
        channel = Worker("control")
        payload = encode(Message(raw, 0, 1, "eva", {"group": "web"}, body))
        generation = more.pop("generation", self.node.books.generation)
        frame = Spread(1, peers, raw, 0, generation, "eva", **more)
        self.spreading.spread(channel, frame, memoryview(payload))
        self.node.commit()
        return channel.take()

    def submit(self, peer: int, raw: bytes = ID) -> Any:
        """The same for one peer, as a send to it alone."""
        channel = Worker("control")
        payload = encode(Message(raw, 0, 1, "eva", {}, b"hola"))
        frame = Submit(1, peer, 1, raw, 0, self.node.books.generation, "eva")
        self.node.outgoing.submit(channel, frame, memoryview(payload))
        self.node.commit()
        return channel.take()

    def members(self) -> list[int]:
        """For whom the log has a message of ours, in its order."""
        headers = self.node.books.reader.headers()
        return [h.peer for h in headers if h.kind == Kind.HELD and h.flags & FLAG_GROUP]

    def index(self) -> None:
        """Bring the index up to the log, of whose end it leaves out the last append."""
        self.submit(self.peers[0], uuid7(next(self.others), bytes(10)))
        reader, page = self.node.books.reader, self.node.books.page
        path = self.node.outgoing.index_path
        indexer = Indexer(path, reader, lambda: page.committed, lambda name, /, **fields: None)
        while indexer.step():
            pass
        self.indexed = indexer.position
        indexer.close()

    def forget(self) -> None:
        """As after a start whose newest segment has none of these messages."""
        books = self.node.books
        books.recent = type(books.recent)(horizon_ms=1_900_000_000_000)
        books.recent.start = self.indexed

    def remember(self) -> None:
        """As after a kill and a start: what is known comes from the newest segment."""
        self.node.books.store.close()
        page = SharedPage()
        config = Config(name="here", state=self.node.state, socket="/tmp/none")
        again = opening.open_books(config, page)
        again.store.close()
        self.node.restart()
        self.node.books.recent = again.recent
        self.spreading = Spreading(self.node.outgoing)


@pytest.fixture
def group(here: Node) -> Group:
    return Group(here)


def known(answer: Any) -> tuple[list[int], list[int], bool]:
    """For whom it was put into the log, for whom it was there, and whether nothing was kept."""
    assert isinstance(answer, Placed), answer
    return [number for number, _, _ in answer.places], answer.known, answer.is_known


def test_each_member_has_a_record_that_says_that_it_is_a_groups(group: Group) -> None:
    b, c, d = group.peers
    assert ([b, c, d], [], False) == known(group.spread(group.peers))
    records = [h for h in group.node.books.reader.headers() if h.kind == Kind.HELD]
    assert [(b, 1), (c, 1), (d, 1)] == [(h.peer, h.count) for h in records]
    assert all(h.flags & FLAG_GROUP for h in records)
    assert 1 == len({h.begin for h in records}), "one append has all of them"


def test_a_call_that_is_repeated_keeps_nothing_and_says_who_has_it(group: Group) -> None:
    b, c, _ = group.peers
    group.spread([b, c])
    assert ([], [b, c], True) == known(group.spread(group.peers))
    assert [b, c] == group.members()


def test_whoever_was_missed_gets_it_and_nobody_twice(group: Group) -> None:
    b, c, d = group.peers
    group.spread([b, c])
    assert ([d], [b, c], False) == known(group.spread(group.peers, is_first=False))
    assert ([], [b, c, d], False) == known(group.spread(group.peers, is_first=False))
    assert [b, c, d] == group.members()


def test_a_repetition_for_others_alone_is_one_all_the_same(group: Group) -> None:
    """Else the new ones would get other bytes than those before them."""
    b, c, d = group.peers
    group.spread([b, c])
    assert ([], [], True) == known(group.spread([d]))


@pytest.mark.parametrize("raw", [ID, uuid8(b"k" * 16)])
def test_after_a_kill_it_is_still_known_who_has_it(group: Group, raw: bytes) -> None:
    b, c, d = group.peers
    group.spread([b, c], raw)
    group.index()
    group.remember()
    assert ([d], [b, c], False) == known(group.spread(group.peers, raw, is_first=False))
    assert [b, c, d] == group.members()


@pytest.mark.parametrize("raw", [ID, uuid8(b"k" * 16)])
def test_the_index_knows_for_whom_a_message_was(group: Group, raw: bytes) -> None:
    b, c, d = group.peers
    group.spread([b, c], raw)
    group.index()
    group.forget()
    assert ([], [b, c], True) == known(group.spread(group.peers, raw))
    assert ([d], [b, c], False) == known(group.spread(group.peers, raw, is_first=False))


def test_an_index_that_is_behind_cannot_tell(group: Group) -> None:
    group.spread(group.peers)
    group.index()
    group.forget()
    group.node.books.recent.start += 1
    answer = group.spread(group.peers)
    assert isinstance(answer, Refused)
    assert "catching up" in answer.message


def test_an_id_is_either_a_groups_or_a_single_peers(group: Group) -> None:
    b, c, d = group.peers
    other = uuid7(1_800_000_000_001, bytes(10))
    assert isinstance(group.submit(b), Submitted)
    assert isinstance(group.spread([c, d]), Refused)
    assert known(group.spread([c], other))[0] == [c]
    assert Duplicates(1, [other]) == group.submit(b, other)
    group.index()
    group.forget()
    assert isinstance(group.spread([c, d]), Refused)
    assert Duplicates(1, [other]) == group.submit(b, other)


@pytest.mark.parametrize("is_indexed", [False, True])
def test_what_was_got_back_from_a_member_counts(group: Group, is_indexed: bool) -> None:
    """Such a record has many messages, and does not say which of them were a group's."""
    b, c, _ = group.peers
    payload = encode(Message(ID, 0, 1, "eva", {"group": "web"}, b"hola"))
    fields = {"peer": b, "direction": OUT, "count": 1, "first_seq": 1}
    group.node.books.add(Kind.RECOVERED, payload=payload, **fields)  # type: ignore[arg-type]
    group.node.commit()
    if is_indexed:
        group.index()
        group.forget()
    else:
        group.remember()
    assert ([], [b], True) == known(group.spread([b, c]))
    assert ([c], [b], False) == known(group.spread([b, c], is_first=False))


def test_who_is_not_kept_any_more_gets_it_again_once(group: Group) -> None:
    b, c, d = group.peers
    group.spread(group.peers)
    upto = group.node.books.page.committed
    again = {"is_first": False, "gone": [c], "gone_upto": upto}
    assert ([c], [b, d], False) == known(group.spread(group.peers, **again))
    assert ([], [b, c, d], False) == known(group.spread(group.peers, **again)), "what it saw is older"


def test_without_room_for_all_nobody_gets_it(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def room(size: int, *, essential: bool = False) -> None:
        asked.append(size)
        raise StorageFull("no room")

    monkeypatch.setattr(group.node.books.store, "room", room)
    answer = group.spread(group.peers)
    assert isinstance(answer, Refused)
    assert ("StorageRefused", []) == (answer.name, group.members())
    assert asked[0] > 3 * len(b"hola"), "room for all of them"


def test_a_commit_that_is_refused_leaves_nobody_known(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    books = group.node.books

    def commit() -> int:
        books.store.end = books.store.committed
        raise StorageFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(books.store, "commit", commit)
        assert "StorageRefused" == group.spread(group.peers).name
    books.store._added = 0
    books.store._pieces = []
    assert [] == books.recent.seen([ID])


def test_a_group_that_passes_an_append_begins_with_a_new_one(group: Group) -> None:
    """So that it is never half kept: what waited before it is committed first."""
    b, c, d = group.peers
    channel = Worker("control")
    big = encode(Message(uuid7(1, bytes(10)), 0, 1, "eva", {}, bytes(MAX_MESSAGE_BYTES - 100)))
    books = group.node.books
    submit = Submit(1, b, 1, uuid7(1, bytes(10)), 0, books.generation, "eva")
    group.node.outgoing.submit(channel, submit, memoryview(big))
    assert [b, c, d] == known(group.spread(group.peers, body=bytes(2000)))[0]
    begins = [h.begin for h in books.reader.headers() if h.kind == Kind.HELD]
    assert begins[0] < begins[1] == begins[2] == begins[3]


def test_who_sends_by_what_it_knew_before_is_told_so(group: Group) -> None:
    answer = group.spread(group.peers, generation=1)
    assert ("Stale", []) == (answer.name, group.members())


def test_to_a_blocked_member_nothing_goes_and_so_to_nobody(group: Group) -> None:
    _, c, _ = group.peers
    group.node.person(PutPeer(1, "block", "eva", number=c))
    answer = group.spread(group.peers)
    assert ("NotTrusted", []) == (answer.name, group.members())
