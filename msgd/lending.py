"""What settling and lending comes to, pure: which steps a request makes, and which message its holder gets.

Nothing is changed here: the steps go into the log first, and `cursors` then says what they do.
"""

from collections.abc import Iterable, Sequence

import msgspec

from msgd.cursors import (
    AGAIN,
    ASIDE,
    DONE,
    FAILED,
    GONE,
    RELEASE,
    TAKE,
    Consumer,
    Cursors,
    Location,
    Step,
)
from msgd.errors import UsageError
from msgd.wire.consuming import Receive, Settle

OUTCOMES = (DONE, FAILED, ASIDE, RELEASE, GONE)
MAX_TAKEN = 256  # of one consumer
MAX_TAKEN_IN_ALL = 8192
MAX_ASIDE = 4096  # of one consumer, with what waits
MAX_ASIDE_IN_ALL = 16_384  # at most 14 MB in a checkpoint, and 3 MB where reasons are short
WHY_LETTERS = 200

Steps = dict[Location, Step]


class Plan(msgspec.Struct):
    """What a request is going to do: `steps`, and what is lent then, with its attempt."""

    steps: list[Step]
    lent: Location | None = None
    attempt: int = 0


def plan(cursors: Cursors, asked: Receive) -> Plan:
    """What this request comes to. Raises UnknownConsumer, UsageError."""
    consumer = cursors.get(asked.name, asked.born)
    steps: Steps = {}
    found = Plan([])
    for settle in asked.settled:
        made = _settle(consumer, asked.holder, settle)
        if made and made[-1].place not in steps:
            steps[made[-1].place] = made[-1]
            found.steps += made
    _check_room(cursors, consumer, steps.values())
    if asked.wants and not _lend_again(consumer, asked.holder, steps, found):
        _lend_new(cursors, consumer, asked, steps, found)
    return found


# --- settling ---------------------------------------------------------------------------------------------


def _settle(consumer: Consumer, holder: bytes, settle: Settle) -> Sequence[Step]:
    """What this comes to, the outcome last; nothing where the holder does not have the message any more.

    What waits may still be done or set aside: nobody has it, and who had it last comes late. What is set
    aside with the attempt before the present one was lent once more, but not tried: that does not count.
    """
    outcome = settle.outcome
    if outcome not in OUTCOMES:
        raise UsageError(f"There is no outcome {outcome!r}.", f"Known: {', '.join(OUTCOMES)}.")
    at = _place_of(consumer, holder, settle.id)
    if at is None or (at in consumer.waiting and outcome in (FAILED, RELEASE)):
        return ()
    entry = consumer.waiting.get(at) or consumer.taken[at]
    is_former = settle.attempt not in (0, entry.attempts) or (outcome == FAILED and entry.has_failed)
    if is_former and outcome in (FAILED, RELEASE):
        return ()
    step = Step(outcome, *at, why=settle.why[:WHY_LETTERS])
    is_untried = at in consumer.taken and not entry.has_failed and 0 < settle.attempt == entry.attempts - 1
    return (Step(RELEASE, *at), step) if outcome == ASIDE and is_untried else (step,)


def _place_of(consumer: Consumer, holder: bytes, raw_id: bytes) -> Location | None:
    own = (at for at, entry in consumer.taken.items() if entry.id == raw_id and entry.holder == holder)
    at = next(own, None)
    if at is None:
        at = next((at for at, entry in consumer.waiting.items() if entry.id == raw_id), None)
    return at


def _check_room(cursors: Cursors, consumer: Consumer, steps: Iterable[Step]) -> None:
    more = sum(1 for step in steps if step.what == ASIDE and step.place not in consumer.waiting)
    if not more:
        return
    here = len(consumer.aside) + len(consumer.waiting)
    in_all = sum(len(each.aside) + len(each.waiting) for each in cursors.all)
    if here + more > MAX_ASIDE or in_all + more > MAX_ASIDE_IN_ALL:
        name = consumer.name
        raise UsageError(
            f"So many messages were set aside by {name} or other consumers that no more can be.",
            f"See `msgctl queue --as {name}`; `msgctl consumer retry {name}` has them come again.",
        )


# --- lending ----------------------------------------------------------------------------------------------


def _lend_again(consumer: Consumer, holder: bytes, steps: Steps, found: Plan) -> bool:
    """What the holder has already, else what waits; whether there is any."""
    taken, waiting = consumer.taken, consumer.waiting
    own = [
        at
        for at, entry in taken.items()
        if entry.holder == holder and (at not in steps or steps[at].what == FAILED)
    ]
    released = [at for at, step in steps.items() if step.what == RELEASE]
    free = [] if own else released + [at for at in waiting if at not in steps]
    if not own and not free:
        return False
    at = found.lent = min(own or free)
    entry = waiting.get(at) or taken[at]
    found.attempt = entry.attempts - (at in released)
    if free or entry.has_failed or at in steps:
        found.attempt += 1
        found.steps.append(Step(AGAIN, *at, holder))
    return True


def _lend_new(cursors: Cursors, consumer: Consumer, asked: Receive, steps: Steps, found: Plan) -> None:
    """What the receiver has found, unless another one was faster."""
    new = asked.found
    if new is None or (new.offset, new.index) < consumer.high:
        return
    _check_taken(cursors, consumer, steps.values())
    place, behind = (new.offset, new.index), (new.next_offset, new.next_index)
    step = Step(TAKE, *place, asked.holder, "", new.id, new.peer, new.asks, behind, new.seq)
    found.steps.append(step)
    found.lent, found.attempt = place, 1


def _check_taken(cursors: Cursors, consumer: Consumer, steps: Iterable[Step]) -> None:
    left = sum(1 for step in steps if step.what != FAILED and step.place in consumer.taken)
    is_full = len(consumer.taken) - left >= MAX_TAKEN
    if is_full or sum(len(each.taken) for each in cursors.all) - left >= MAX_TAKEN_IN_ALL:
        raise UsageError(
            f"{len(consumer.taken)} messages are out with programs that receive as {consumer.name}.",
            f"`msgctl queue --as {consumer.name}` shows them. They have to settle some first.",
        )
