"""What a filter leaves in, before the log is read: lanes of the index, stretches of time, single messages."""

import re
from collections.abc import Callable

from msgd import model
from msgd.layers import Layer
from msgd.log.index import IN_LANES, NUMBERED, RECOVERED_OUT, WAITING
from msgd.rows import Filter
from msgd.wire.codec import Message

ANY_TIME = 1 << 62  # ns: later than any clock of ours
OUT_LANES = frozenset({NUMBERED, WAITING, RECOVERED_OUT})

Fits = Callable[[Message], bool]


def lanes_of(wanted: Filter) -> frozenset[int]:
    """The lanes in which something may fit."""
    lanes = IN_LANES | OUT_LANES
    if wanted.direction is not None:
        lanes &= IN_LANES if wanted.direction == model.IN else OUT_LANES
    if wanted.state is not None:
        lanes &= IN_LANES if wanted.state == model.RECEIVED else OUT_LANES
    return lanes


def windows(layer: Layer, wanted: Filter, reverse: bool) -> list[tuple[int, int]]:
    """The stretches of a layer where the stored time may fit."""
    if wanted.since_ns is None and wanted.until_ns is None:
        return [(layer.lo, layer.hi)]
    since = -ANY_TIME if wanted.since_ns is None else max(wanted.since_ns, -ANY_TIME)
    until = ANY_TIME if wanted.until_ns is None else min(wanted.until_ns, ANY_TIME)
    found = layer.index.windows(since, until)
    return found[::-1] if reverse else found


def content_test(wanted: Filter) -> Fits | None:
    """Whether a message fits by what is in it; None when nothing of that is asked."""
    tests: list[Fits] = []
    if wanted.id is not None:
        prefix = wanted.id
        tests.append(lambda message: message.id.hex().startswith(prefix))
    if wanted.kind is not None:
        tests.append(lambda message: message.kind == wanted.kind)
    if wanted.user is not None:
        tests.append(lambda message: message.user == wanted.user)
    if wanted.grep is not None:
        search = re.compile(wanted.grep).search
        tests.append(lambda message: search(message.body.decode("utf-8", "replace")) is not None)
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else lambda message: all(test(message) for test in tests)
