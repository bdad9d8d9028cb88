"""Which segments may go: the rules one by one, and how old a segment is whatever was done to the clock."""

import pytest

from msgd.log.segment import Extent
from msgd.model import IN, OUT
from msgd.vacuuming import FIRST_NS, Ages, Facts, Going, Line, Moment, Plan, Staying, Wish, choose

DAY_NS = 86_400_000_000_000
NOW_NS = FIRST_NS + 400 * DAY_NS
BOOT, OTHER = b"boot-one", b"boot-two"
SIZE = 10


def moment(day: float, boot: bytes = BOOT, wrong_ns: int = 0) -> Moment:
    """So many days after the first; that boot began with the first."""
    return Moment(FIRST_NS + int(day * DAY_NS) + wrong_ns, int(day * DAY_NS), boot)


def facts(
    day: float = 0,
    lines: set[Line] = frozenset(),  # type: ignore[assignment]
    epochs: set[Line] = frozenset(),  # type: ignore[assignment]
    names: set[int] = frozenset(),  # type: ignore[assignment]
    is_damaged: bool = False,
) -> Facts:
    return Facts(moment(day), 7, frozenset(lines), frozenset(epochs), frozenset(names), is_damaged)


def planned(known: list[Facts], wish: Wish, needed: tuple[int, ...] = ()) -> Plan:
    """Segment n begins at 100 n; each has SIZE bytes; the newest needs no facts."""
    segments = [(Extent(100 * n, 100 * n + 100), SIZE) for n in range(len(known) + 1)]
    firsts = [each.newest for each in known]
    ages = Ages([*firsts, moment(400)], moment(400))
    return choose(segments, wish, ages, [100 * n for n in needed], lambda e: known[e.base // 100])


def numbers(plan: Plan) -> tuple[list[int], list[tuple[int, str]]]:
    return [g.base // 100 for g in plan.going], [(s.base // 100, s.why) for s in plan.staying]


ALL = Wish(0, None)


@pytest.mark.parametrize(
    ("known", "needed", "expected"),
    [
        ([facts(), facts()], (), ([0, 1], [])),
        ([facts(), facts()], (0,), ([1], [(0, "waits")])),
        ([facts(), facts(names={0}), facts()], (0,), ([2], [(0, "waits"), (1, "tells")])),
        (
            [facts(), facts(names={0}), facts(names={100})],
            (0,),
            ([], [(0, "waits"), (1, "tells"), (2, "tells")]),
        ),
        ([facts(), facts(names={0})], (), ([0, 1], [])),
        ([facts(), facts(names={-1})], (1,), ([0], [(1, "waits")])),
        ([facts(lines={(1, OUT)}), facts(epochs={(1, OUT)})], (0,), ([], [(0, "waits"), (1, "begins")])),
        ([facts(lines={(1, OUT)}), facts(epochs={(1, IN)})], (0,), ([1], [(0, "waits")])),
        ([facts(lines={(1, OUT)}), facts(epochs={(1, OUT)})], (), ([0, 1], [])),
        ([facts(epochs={(1, OUT)}), facts(lines={(1, OUT)})], (1,), ([0], [(1, "waits")])),
        ([facts(is_damaged=True), facts()], (), ([1], [(0, "damaged")])),
    ],
)
def test_a_segment_stays_for_what_is_kept(
    known: list[Facts], needed: tuple[int, ...], expected: tuple[list[int], list[tuple[int, str]]]
) -> None:
    """It stays for older ones that stay, never for younger ones."""
    assert expected == numbers(planned(known, ALL, needed))


def test_the_oldest_go_until_the_log_is_small_enough() -> None:
    """What stays counts, too: so a younger one goes in its place."""
    known = [facts(n) for n in range(4)]
    assert ([0, 1], []) == numbers(planned(known, Wish(None, 3 * SIZE)))
    assert ([1, 2], [(0, "waits")]) == numbers(planned(known, Wish(None, 3 * SIZE), (0,)))
    assert ([], []) == numbers(planned(known, Wish(None, 5 * SIZE)))
    assert ([0, 1, 2, 3], []) == numbers(planned(known, Wish(None, 0))), "but the newest stays"
    assert planned(known, Wish(None, 4 * SIZE)) == Plan([Going(0, SIZE, 7)], [])


def test_only_what_is_older_goes() -> None:
    """By the newest record of a segment."""
    known = [facts(100), facts(200), facts(300)]
    assert ([0, 1], []) == numbers(planned(known, Wish(200 * DAY_NS, None)))
    assert ([0], []) == numbers(planned(known, Wish(200 * DAY_NS + 1, None)))
    assert planned(known, Wish(200 * DAY_NS, None), (0,)).staying == [Staying(0, SIZE, "waits")]
    assert ([0, 1, 2], []) == numbers(planned(known, Wish(200 * DAY_NS, 0))), "or else by size"


def ages(firsts: list[Moment], newest: list[Moment], now: Moment) -> list[float]:
    """In days, one for each segment."""
    found = Ages([*firsts, now], now)
    return [found.newest_ns(number, each) / DAY_NS for number, each in enumerate(newest)]


def test_within_one_boot_the_wall_clock_does_not_matter() -> None:
    """It was ten years ahead, or in 1970, when the record was written."""
    for wrong_ns in (3650 * DAY_NS, -FIRST_NS):
        record = moment(100, BOOT, wrong_ns)
        assert [300] == ages([record], [record], moment(400))


def test_a_boot_counts_by_its_last_clock() -> None:
    """It began without a clock and was set later: all of it is as old as that says."""
    early, late = moment(10, OTHER, -FIRST_NS), moment(11, OTHER)
    assert [390, 389] == ages([early, late], [early, late], moment(400))


def test_a_clock_that_cannot_be_keeps_longer_and_never_removes_early() -> None:
    """In 1970 or in the future for a whole boot: as old as what comes behind it, or came before."""
    right = moment(200)
    for wrong_ns in (-FIRST_NS, 3650 * DAY_NS):
        wrong = moment(150, OTHER, wrong_ns)
        assert [200, 200] == ages([wrong, right], [wrong, right], moment(400, b"third"))
        assert [0] == ages([wrong], [wrong], moment(400, b"third")), "nothing says how old it is"
    back = moment(100, OTHER)  # really 250
    assert [200, 200] == ages([right, back], [right, back], moment(400, b"third"))
