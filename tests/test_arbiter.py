"""Which link stands when both ends dial: the rules, and every order in which dials, answers and ends arrive.

`World` is two ends with the real `Arbiter` each, and what is under way between them. A dial is a hello that
arrives, an answer that comes back, and the end of the connection, seen by each side in its own time. So a
hello may arrive long after its dial was dropped.
"""

import copy
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd.arbiter import FRESH_S, PAST_STARTS, Arbiter

SMALL, BIG = b"\x01" * 32, b"\x02" * 32
START = (b"start of small..", b"start of big....")


def arbiters() -> tuple[Arbiter, Arbiter]:
    return Arbiter(SMALL, BIG), Arbiter(BIG, SMALL)


# --- the rules, one by one ----------------------------------------------------------------------------------


def test_the_first_hello_is_taken() -> None:
    """With nothing else about, a hello becomes the standing link, and its worker's end ends that."""
    small, _ = arbiters()
    assert ("", []) == small.take(7, START[1], 1, 0.0)
    assert small.standing is not None and small.standing.link == 7 and not small.standing.dialled
    assert small.gone(7)
    assert small.standing is None


def test_nobody_says_hello_where_a_link_stands_or_another_dial_asks() -> None:
    small, _ = arbiters()
    assert small.may_ask(3)
    assert not small.may_ask(4)
    assert small.opened(3, START[1], 0.0)
    assert not small.may_ask(5)


def test_a_dial_that_ends_makes_room_for_the_next() -> None:
    small, _ = arbiters()
    assert small.may_ask(3)
    assert not small.gone(3), "it never stood"
    assert small.may_ask(4)


def test_a_hello_with_a_dial_not_above_the_highest_taken_is_late() -> None:
    """Rule 1: dials of one start are numbered, so a hello that lingered is known."""
    small, _ = arbiters()
    assert small.take(1, START[1], 5, 0.0)[0] == ""
    for late in (5, 4, 1, 0):
        assert ("duplicate", []) == small.take(2, START[1], late, 1.0)
    assert ("", [1]) == small.take(3, START[1], 6, 1.0)


def test_while_both_ask_the_smaller_refuses_and_the_bigger_gives_way() -> None:
    """Rule 2: exactly one of two crossing hellos is taken, and it is the one of the smaller identity."""
    small, big = arbiters()
    assert small.may_ask(1)
    assert big.may_ask(2)
    assert ("duplicate", []) == small.take(3, START[1], 1, 0.0)
    assert ("", [2]) == big.take(4, START[0], 1, 0.0)
    assert not big.opened(2, START[0], 0.0), "its own dial was dropped"
    assert small.opened(1, START[1], 0.0)


def test_the_smaller_keeps_a_fresh_link_that_it_dialled() -> None:
    """Rule 3: for 10 s and to the same start; after that, or by a new start, it is replaced."""
    for start, at_s, code in (
        (START[1], FRESH_S, "duplicate"),
        (START[1], FRESH_S + 0.001, ""),
        (b"another start...", 0.0, ""),
    ):
        small, _ = arbiters()
        assert small.may_ask(1)
        assert small.opened(1, START[1], 0.0)
        assert small.take(2, start, 1, at_s) == (code, [] if code else [1])


def test_the_bigger_lets_a_fresh_link_be_replaced() -> None:
    _, big = arbiters()
    assert big.may_ask(1)
    assert big.opened(1, START[0], 0.0)
    assert ("", [1]) == big.take(2, START[0], 1, 0.0)


def test_an_earlier_start_that_speaks_beside_a_link_is_a_clone() -> None:
    """Two nodes with one key: the one that came first is refused while the later one is linked."""
    small, _ = arbiters()
    assert small.take(1, b"first start.....", 1, 0.0)[0] == ""
    assert ("", [1]) == small.take(2, b"second start....", 1, 1.0)
    assert ("clone", []) == small.take(3, b"first start.....", 2, 2.0)
    assert small.gone(2)
    assert small.take(4, b"first start.....", 3, 3.0)[0] == "", "alone, it is as good as any"


def test_only_a_few_past_starts_are_remembered() -> None:
    """A peer that restarts for ever costs no memory; the newest starts are the ones that count."""
    small, _ = arbiters()
    for number in range(10 * PAST_STARTS):
        assert small.take(number, number.to_bytes(16, "big"), 1, float(number))[0] == ""
    last = 10 * PAST_STARTS - 1
    assert "clone" == small.take(-1, (last - PAST_STARTS + 1).to_bytes(16, "big"), 2, 0.0)[0]
    assert "" == small.take(-1, (last - PAST_STARTS).to_bytes(16, "big"), 1, 0.0)[0]


# --- every order --------------------------------------------------------------------------------------------

HELLO, WELCOME, REFUSE, END = "hello", "welcome", "refuse", "end"


class World:
    """Two ends; node 0 has the smaller identity. A link's number is the same at both ends."""

    def __init__(self, dials: int, losses: int) -> None:
        self.ends = list(arbiters())
        self.left = [dials, dials]
        self.losses = losses
        self.dialler: list[int] = []  # of each connection
        self.number: list[int] = []  # of each connection's dial
        self.alive: list[tuple[bool, bool]] = []  # the workers of each connection
        self.under_way: frozenset[tuple[str, int, int]] = frozenset()  # what, connection, to which node

    def copy(self) -> "World":
        new = copy.copy(self)
        new.ends = [copy.copy(end) for end in self.ends]
        for end in new.ends:
            end._highest = dict(end._highest)
        new.left, new.alive = self.left[:], self.alive[:]
        new.dialler, new.number = self.dialler[:], self.number[:]
        return new

    def key(self) -> object:
        ends = tuple(
            (e.asking, e.standing and (e.standing.link, e.standing.dialled), tuple(e._highest.items()))
            for e in self.ends
        )
        return ends, *self.left, self.losses, tuple(self.dialler), tuple(self.alive), self.under_way

    def choices(self) -> Iterator[tuple[str, int, int]]:
        """What may happen next."""
        yield from sorted(e for e in self.under_way if not self._waits_for_hello(e))
        for node in (0, 1):
            if self.left[node] and self.ends[node].standing is None and self.ends[node].asking is None:
                yield "dial", -1, node
        if self.losses and self.good() is not None:
            yield "lose", self.good() or 0, -1

    def good(self) -> int | None:
        """The link that stands at both ends with both workers alive."""
        links = {end.standing.link if end.standing else None for end in self.ends}
        link = links.pop()
        return link if not links and link is not None and all(self.alive[link]) else None

    def do(self, choice: tuple[str, int, int]) -> None:
        what, link, node = choice
        self.under_way -= {choice}
        if what == "dial":
            self._dial(node)
        elif what == "lose":
            self.losses -= 1
            self._kill(link, 0)
            self._kill(link, 1)
        elif what == HELLO:
            self._hello(link, node)
        elif self.alive[link][node]:
            self._hear(what, link, node)

    def _waits_for_hello(self, event: tuple[str, int, int]) -> bool:
        """What was said before on the same connection arrives before."""
        what, link, node = event
        if what != END:
            return False
        return any((earlier, link, node) in self.under_way for earlier in (HELLO, WELCOME, REFUSE))

    def _dial(self, node: int) -> None:
        link = len(self.dialler)
        self.dialler.append(node)
        self.number.append(1 + sum(1 for d in self.dialler[:-1] if d == node))
        self.alive.append((True, True))
        assert self.ends[node].may_ask(link)
        self.left[node] -= 1
        self.under_way |= {(HELLO, link, 1 - node)}

    def _hello(self, link: int, node: int) -> None:
        if not self.alive[link][node]:
            return
        good, late = self.good(), not self.alive[link][1 - node]
        code, cut = self.ends[node].take(link, START[1 - node], self.number[link], 0.0)
        assert code or not late or good is None, f"the late hello {link} cuts the good link {good}"
        self.under_way |= {(REFUSE if code else WELCOME, link, 1 - node)}
        for other in cut:
            self._kill(other, node)
        if code:
            self._kill(link, node)

    def _hear(self, what: str, link: int, node: int) -> None:
        """An answer or an end arrives at a worker that lives."""
        if what == WELCOME and self.ends[node].opened(link, START[1 - node], 0.0):
            return
        self._kill(link, node)

    def _kill(self, link: int, node: int) -> None:
        """The worker at this end ends; the other end will see that."""
        if not self.alive[link][node]:
            return
        alive = list(self.alive[link])
        alive[node] = False
        self.alive[link] = (alive[0], alive[1])
        self.ends[node].gone(link)
        self.under_way |= {(END, link, 1 - node)}

    def check(self) -> None:
        """What must hold once nothing is under way any more."""
        links = [end.standing.link if end.standing else None for end in self.ends]
        assert links[0] == links[1], f"two different links stand: {links}"
        assert [None, None] == [end.asking for end in self.ends], "a dial was forgotten"
        if links[0] is not None:
            assert self.good() == links[0]

    def settle(self) -> None:
        """Everything arrives."""
        while self.under_way:
            self.do(next(e for e in sorted(self.under_way) if not self._waits_for_hello(e)))


def check_all_orders(dials: int, losses: int) -> int:
    """Search through every order; the number of states."""
    first = World(dials, losses)
    seen = {first.key()}
    open_ends = [first]
    while open_ends:
        world = open_ends.pop()
        choices = list(world.choices())
        if not world.under_way:
            world.check()
        for choice in choices:
            then = world.copy()
            then.do(choice)
            key = then.key()
            if key not in seen:
                seen.add(key)
                open_ends.append(then)
    return len(seen)


def test_every_order_of_one_dial_each_leaves_one_link() -> None:
    assert check_all_orders(1, 1) > 30


@pytest.mark.slow
def test_every_order_of_two_dials_each_and_a_lost_link_leaves_one_link() -> None:
    """Never two different links, never a good one cut by a late hello."""
    assert check_all_orders(2, 1) > 1000


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_order_of_three_dials_each_and_two_lost_links_leaves_one_link(data: st.DataObject) -> None:
    """After it, one more dial of either end gives a link that stands at both."""
    world = World(3, 2)
    while choices := list(world.choices()):
        world.do(data.draw(st.sampled_from(choices)))
        if not world.under_way:
            world.check()
    world.check()
    if world.good() is None:
        node = data.draw(st.integers(0, 1))
        world.left[node] = 1
        world.do(("dial", -1, node))
        world.settle()
        world.check()
        assert world.good() is not None


# --- exchanges of words -------------------------------------------------------------------------------------


def test_an_exchange_follows_the_rules_of_links_beside_a_link_that_stands() -> None:
    """A late hello and a crossing one are refused; a link is left alone, since only words are exchanged."""
    small, big = arbiters()
    assert ("", []) == small.take(1, START[1], 5, 0.0)
    assert "duplicate" == small.take_exchange(2, START[1], 5, 0.0)[0]
    assert ("", []) == small.take_exchange(2, START[1], 6, 0.0)
    assert ("", [2]) == small.take_exchange(3, START[1], 7, 0.0)
    assert small.standing is not None and small.standing.link == 1
    assert big.may_ask(4)
    assert ("", [4]) == big.take_exchange(5, START[0], 1, 0.0)


def test_no_hello_is_sent_while_words_are_exchanged() -> None:
    small, _ = arbiters()
    small.take_exchange(1, START[1], 1, 0.0)
    assert not small.may_ask(2)
    small.exchanged(1, 0.0)
    assert small.may_ask(2)
    small.exchanged(2, 0.0)
    assert small.is_idle
    small.take_exchange(3, START[1], 2, FRESH_S + 1)
    small.gone(3)
    assert small.is_idle


def test_an_exchange_that_is_over_keeps_nobody_out() -> None:
    """A person said no: the other one may ask at once."""
    small, _ = arbiters()
    assert small.may_ask(1)
    small.exchanged(1, 0.0)
    assert "duplicate" == small.take_exchange(2, START[1], 1, 0.5)[0]
    small.gone(1)
    assert ("", []) == small.take_exchange(3, START[1], 2, 0.5)


def test_right_after_its_own_exchange_the_smaller_refuses_a_late_hello() -> None:
    for at_s, code in ((FRESH_S, "duplicate"), (FRESH_S + 0.001, "")):
        small, big = arbiters()
        for end in (small, big):
            assert end.may_ask(1)
            end.exchanged(1, 0.0)
        assert code == small.take_exchange(2, START[1], 1, at_s)[0]
        assert "" == big.take_exchange(2, START[0], 1, at_s)[0]


class Words:
    """Two ends whose persons both ask once: what each says on a connection arrives there in its order."""

    STEPS = ("hello", "commit", "nonce", "reveal")  # said by dialler and acceptor in turn

    def __init__(self) -> None:
        self.ends = arbiters()
        self.dialled = [False, False]
        self.alive: dict[int, list[bool]] = {}  # of each connection, which is named by its dialler
        self.queues: dict[tuple[int, int], list[str]] = {}  # connection and node -> what arrives there
        self.known: list[int | None] = [None, None]  # the connection whose words each end shows

    def choices(self) -> list[tuple[int, int]]:
        """(-1, node): it dials; (connection, node): something arrives."""
        dials = [
            (-1, n) for n in (0, 1) if not self.dialled[n] and self.ends[n].is_idle and self.known[n] is None
        ]
        return dials + sorted(at for at, queue in self.queues.items() if queue)

    def do(self, choice: tuple[int, int]) -> None:
        link, node = choice
        if link < 0:
            self.dialled[node] = self.ends[node].may_ask(node)
            self.alive[node] = [True, True]
            self.queues[node, 1 - node] = ["hello"]
            self.queues[node, node] = []
            return
        said = self.queues[link, node].pop(0)
        if self.alive[link][node]:
            self._hear(link, node, said)

    def _hear(self, link: int, node: int, said: str) -> None:
        if said == "end":
            self._kill(link, node)
            return
        if said == "hello":
            code, cut = self.ends[node].take_exchange(link, START[1 - node], 1, 0.0)
            for other in cut:
                self._kill(other, node)
            if code:
                self._kill(link, node)
                return
        if said in ("nonce", "reveal"):
            self.ends[node].exchanged(link, 0.0)
            before, self.known[node] = self.known[node], link
            if before not in (None, link):
                self._kill(before or 0, node)
        step = self.STEPS.index(said) + 1
        if step < len(self.STEPS):
            self.queues[link, 1 - node].append(self.STEPS[step])

    def _kill(self, link: int, node: int) -> None:
        if self.alive[link][node]:
            self.alive[link][node] = False
            self.ends[node].gone(link)
            self.queues[link, 1 - node].append("end")

    def key(self) -> object:
        ends = tuple((e.asking, e.exchange, e._exchanged_s, tuple(e._highest)) for e in self.ends)
        alive = tuple((link, *both) for link, both in sorted(self.alive.items()))
        queues = tuple((at, *queue) for at, queue in sorted(self.queues.items()))
        return ends, *self.dialled, alive, queues, *self.known


def test_every_order_of_two_persons_asking_shows_the_same_words_at_both() -> None:
    """Whoever is first, however their hellos cross: one exchange, known at both ends, its connection open."""
    open_ends, seen, ends = [Words()], set(), 0
    while open_ends:
        world = open_ends.pop()
        choices = world.choices()
        if not choices:
            ends += 1
            first, second = world.known
            assert first is not None and first == second
            assert [True, True] == world.alive[first]
            assert all(end.is_idle for end in world.ends)
        for choice in choices:
            then = copy.deepcopy(world)
            then.do(choice)
            if then.key() not in seen:
                seen.add(then.key())
                open_ends.append(then)
    assert ends >= 2 and len(seen) > 30, "either one's exchange may be the one"
