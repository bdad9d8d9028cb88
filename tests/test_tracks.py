"""What a log holds of a pair, and what a peer may say of its own: lies and endless answers cost nothing."""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from msgd.comparing import BROKEN_PLACES, Comparing, Questions
from msgd.log.clock import Clock
from msgd.log.reader import Reader
from msgd.log.record import ZERO_HEAD, Kind
from msgd.log.store import Store
from msgd.model import IN, OUT
from msgd.peer.errors import RemoteProtocolError
from msgd.peer.heads import chain
from msgd.peer.service import (
    WINDOW,
    Ask,
    Batches,
    Broken,
    End,
    Entry,
    Frame,
    Mark,
    Marks,
    Messages,
    Outline,
    Piece,
    Progress,
)
from msgd.recovering import NotTheSame, Recovering
from msgd.track import STEP
from msgd.tracks import Pair
from msgd.wire.codec import Message, encode

PEER = 3
SEED = 20261122
ENOUGH = 5000  # frames that a client waits for


class Book:
    """A log that a test writes batches of one message into."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(str(directory / "log"), Clock())
        self.store.recover(lambda record: None, list)
        self.heads: dict[tuple[int, int], bytes] = {}

    def add(self, kind: int, seq: int, direction: int, peer: int = PEER) -> int:
        """The log offset of the new record."""
        head = chain(self.heads.get((direction, seq - 1), ZERO_HEAD), seq, 1, payload_of(seq))
        self.heads[direction, seq] = head
        payload = payload_of(seq)
        offset = self.store.add(
            kind, peer=peer, direction=direction, count=1, first_seq=seq, head=head, payload=payload
        )
        self.store.commit()
        return offset

    def pair(self) -> Pair:
        """What is in it, read."""
        pair = Pair(Reader(self.store.directory, lambda: self.store.committed), PEER)
        pair.advance()
        return pair


def payload_of(seq: int) -> bytes:
    return encode(Message(seq.to_bytes(16, "big"), 0, 0, "ana", {}, b"x"))


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    found = Book(tmp_path)
    yield found
    found.store.close()


def test_recovered_batches_come_in_the_order_of_seqs(book: Book) -> None:
    """In whatever order they were put back, twice or beside others; any stretch of them, and any head."""
    rng = random.Random(SEED)
    for seq in (1, 2, 3, 40, 41):
        book.add(Kind.OUT, seq, OUT)
    stretches = [range(first, first + 6) for first in (4, 10, 16, 22, 28, 34)]
    for seq in itertools.chain.from_iterable(rng.sample([*stretches, *stretches], 12)):
        book.add(Kind.RECOVERED, seq, OUT)
        book.add(Kind.RECOVERED, seq, IN)
        book.add(Kind.RECOVERED, seq, OUT, PEER + 1)
    pair = book.pair()
    for first, last in [(1, 41), (5, 5), (9, 23), (34, 60), (42, 50), (0, 3)]:
        expected = [seq for seq in range(1, 42) if first <= seq <= last]
        assert expected == [header.first_seq for header in pair.headers(OUT, first, last)]
    assert list(range(4, 40)) == [header.first_seq for header in pair.headers(IN, 1, 99)]
    for seq in (2, 4, 11, 39, 40, 41):
        assert book.heads[OUT, seq - 1] == pair.head_before(OUT, seq)
    assert b"" == pair.head_before(OUT, 44)


def test_memory_of_what_was_recovered_is_not_per_batch(book: Book) -> None:
    """One run for so many."""
    for seq in range(1, 3 * STEP + 1):
        book.add(Kind.RECOVERED, seq, IN)
    pair = book.pair()
    assert 3 == len(pair.tracks[IN].runs)
    assert 3 * STEP == sum(1 for _ in pair.headers(IN, 1, 1 << 40))


def test_record_tells_its_seqs(book: Book) -> None:
    """By its place, as a finding names them."""
    offset = book.add(Kind.OUT, 1, OUT)
    book.add(Kind.OUT, 2, OUT)
    assert (1, 1) == book.pair().seqs_at(offset)
    assert (0, 0) == book.pair().seqs_at(offset + 1)


def test_what_arrives_during_a_comparison_is_not_lost(book: Book) -> None:
    """Whoever receives is read before whoever sends, here and there."""

    def more(kind: int, direction: int, first: int) -> Pair:
        for seq in range(first, first + 3):
            book.add(kind, seq, direction)
        return book.pair()

    def marks(direction: int) -> Iterator[Frame]:
        """Of the first window; since it was read, another one has come here."""
        pair = more(Kind.IN, direction, WINDOW) if direction == IN else book.pair()
        mark = next(pair.marks(direction, 0, lambda seq: None))
        yield Marks([mark if direction == IN else msgspec.structs.replace(mark, digest=b"")])

    def batches(direction: int) -> Iterator[Frame]:
        """With what came there since this log was read."""
        pair = more(Kind.OUT, direction, 2) if direction == OUT else book.pair()
        yield Batches(list(pair.entries(direction, 0, WINDOW - 1)))

    def answers(ask: Ask) -> Iterator[Frame]:
        ours = IN if ask.direction == OUT else OUT
        if ask.what == "outline":
            return iter([Outline(1, 1, [(1, 1)], [], [])])
        return marks(ours) if ask.what == "marks" else batches(ours)

    book.add(Kind.OUT, 1, OUT)
    book.add(Kind.IN, 1, IN)
    comparing = Comparing(book.pair(), questions_to(Liar(answers)), lambda direction, seq: None)
    comparing.run()
    assert ([], []) == (comparing.differences, comparing.reasons())


def test_what_goes_during_a_comparison_is_no_difference(book: Book) -> None:
    """The peer held it when it was asked first, and keeps it no longer when it shows what it holds."""
    for kind, seq in ((Kind.OUT, 1), (Kind.OUT, 2), (Kind.RECEIPT, 2)):
        book.add(kind, seq, OUT)
    held = iter([Outline(2, 2, [(1, 2)], [], []), Outline(2, 2, [(2, 2)], [], [], [(1, 1)])])
    left = list(book.pair().entries(OUT, 2, 2))

    def answers(ask: Ask) -> Iterator[Frame]:
        if ask.direction == OUT:
            return iter([Outline(0, 0, [], [], [])] if ask.what == "outline" else [])
        return iter([next(held)] if ask.what == "outline" else [Batches(left)] * (ask.what == "batches"))

    comparing = Comparing(book.pair(), questions_to(Liar(answers)), lambda direction, seq: None)
    comparing.run()
    assert [] == comparing.differences
    assert [("there", "gone", [(1, 1)])] == [known[1:] for known in comparing.reasons()]


def test_what_goes_and_what_arrives_during_a_comparison_are_no_difference(book: Book) -> None:
    """To ask again why the one is missing is no reason to forget that the other was on its way."""
    for kind, seq in ((Kind.OUT, 1), (Kind.OUT, 2), (Kind.RECEIPT, 2), (Kind.OUT, 3)):
        book.add(kind, seq, OUT)
    held = iter([Outline(2, 2, [(1, 2)], [], []), Outline(3, 3, [(2, 3)], [], [], [(1, 1)])])
    left = list(book.pair().entries(OUT, 2, 2))

    def batches() -> Iterator[Frame]:
        yield Batches(left)
        book.add(Kind.RECEIPT, 3, OUT)

    def answers(ask: Ask) -> Iterator[Frame]:
        if ask.direction == OUT:
            return iter([Outline(0, 0, [], [], [])] if ask.what == "outline" else [])
        return iter([next(held)] if ask.what == "outline" else []) if ask.what != "batches" else batches()

    comparing = Comparing(book.pair(), questions_to(Liar(answers)), lambda direction, seq: None)
    comparing.run()
    assert [] == comparing.differences
    assert [("gone", [(1, 1)]), ("pending", [(3, 3)])] == sorted(
        (r.why, r.spans) for r in comparing.reasons()
    )


def test_what_goes_while_the_log_is_read_is_known_to_be_gone(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk passes over it: so it is begun anew."""
    gaps = iter([{}, {50: 0}, {50: 0}, {50: 0}])
    begun: list[dict[int, int]] = []
    pair = book.pair()
    begin = pair._begin
    monkeypatch.setattr("msgd.tracks.gaps_of", lambda reader: next(gaps))
    monkeypatch.setattr(pair, "_begin", lambda gaps: (begun.append(gaps), begin(gaps)))
    pair.advance()
    assert [{50: 0}] == begun


# --- a peer that lies ---------------------------------------------------------------------------------------


class Gone(Exception):
    """The client does not wait any more."""


class Liar:
    """The other end of a talk: answers each question with what `answers` makes of it, then ends it."""

    def __init__(self, answers: Callable[[Ask], Iterator[Frame]]) -> None:
        self._answers = answers
        self._now: Iterator[Frame] = iter(())
        self.said = 0

    def say(self, ask: Frame) -> None:
        assert isinstance(ask, Ask)
        self._now = itertools.chain(self._answers(ask), [End(ask.number)])

    def hear(self) -> Frame:
        self.said += 1
        return next(self._now)


def questions_to(liar: Liar) -> Questions:
    def check_client() -> None:
        if liar.said > ENOUGH:
            raise Gone

    talk: Any = liar
    return Questions(talk, lambda direction, seq: None, check_client)


def lying(what: str, frames: Callable[[], Iterator[Frame]]) -> Liar:
    """A peer that says so to one question, and something fitting to the others."""
    usual: dict[str, list[Frame]] = {
        "outline": [Outline(9, 9, [(1, 9)], [], [])],
        "marks": [Marks([Mark(0, 1, 9, 1, bytes(32), bytes(32))])],
        "batches": [Batches([Entry(1, 1, b"\1" * 32, bytes(32))])],
    }
    return Liar(lambda ask: frames() if ask.what == what else iter(usual.get(ask.what, [])))


ENDLESS: list[tuple[str, Callable[[], Iterator[Frame]]]] = [
    ("outline", lambda: itertools.repeat(Outline(9, 9, [], [], []))),
    ("marks", lambda: (Broken("x.log", offset, "no") for offset in itertools.count())),
    ("marks", lambda: itertools.repeat(Progress(1))),
    ("marks", lambda: itertools.repeat(Marks([]))),
    (
        "marks",
        lambda: (Marks([Mark(n, n * WINDOW, n * WINDOW, 1, b"", bytes(32))]) for n in itertools.count(1)),
    ),
    ("batches", lambda: itertools.repeat(Batches([]))),
    ("messages", lambda: itertools.repeat(Messages(1, [(bytes(16), bytes(32))] * 100))),
]


@pytest.mark.parametrize(("what", "frames"), ENDLESS)
def test_endless_answer_ends_with_the_client(
    book: Book, what: str, frames: Callable[[], Iterator[Frame]]
) -> None:
    """And fills no memory meanwhile."""
    book.add(Kind.OUT, 1, OUT)
    questions = questions_to(lying(what, frames))
    comparing = Comparing(book.pair(), questions, lambda direction, seq: None)
    with pytest.raises(Gone):
        comparing.run()
    assert BROKEN_PLACES >= len(questions.broken)
    assert all(len(known) <= 4096 for known in comparing.known.values())


@pytest.mark.parametrize(
    ("what", "frame"),
    [
        ("marks", Marks([Mark(0, 1, 9, 1, b"", bytes(32))] * 2)),
        ("marks", Marks([Mark(1, 1, 9, 1, b"", bytes(32))])),
        ("marks", Marks([Mark(0, 9, 1, 1, b"", bytes(32))])),
        ("batches", Batches([Entry(WINDOW, 1, b"", bytes(32))])),
        ("batches", Batches([Entry(5, 1, b"", bytes(32)), Entry(5, 1, b"", bytes(32))])),
    ],
)
def test_answer_that_was_not_asked_for_is_refused(book: Book, what: str, frame: Frame) -> None:
    """Windows and batches go upwards, within what the question names."""
    book.add(Kind.OUT, 1, OUT)
    questions = questions_to(lying(what, lambda: iter([frame])))
    with pytest.raises(RemoteProtocolError):
        Comparing(book.pair(), questions, lambda direction, seq: None).run()


def piece(seq: int, before: bytes, payload: bytes) -> Piece:
    return Piece(seq, 1, before, chain(before, seq, 1, payload), 5, memoryview(payload))


FIRST = piece(2, ZERO_HEAD, payload_of(2))


@pytest.mark.parametrize(
    "pieces",
    [
        [FIRST, FIRST],
        [piece(1, ZERO_HEAD, payload_of(7))],
        [piece(2, ZERO_HEAD, b"no message")],
        [piece(2, ZERO_HEAD, encode(Message(b"short", 0, 0, "", {}, b"")))],
    ],
)
def test_recover_takes_only_what_was_lost(book: Book, pieces: list[Piece]) -> None:
    """Not what is here already, not twice, nothing that is no messages."""
    book.add(Kind.OUT, 1, OUT)
    book.add(Kind.OUT, 9, OUT)
    put: list[int] = []
    recovering = Recovering(
        book.pair(),
        questions_to(lying("fetch", lambda: iter(pieces))),
        lambda direction, first, *rest: put.append(first),
        lambda epoch: b"",
        lambda direction, seq: None,
    )
    out, _ = recovering.missing()
    assert [(2, 8)] == out.spans
    with pytest.raises(NotTheSame):
        recovering.fetch(out)
    assert put in ([], [2])
