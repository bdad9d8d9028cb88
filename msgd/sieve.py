"""What a filter leaves in, before the log is read: lanes of the index, stretches of time, single messages."""

import re
from collections.abc import Callable

from msgd import model
from msgd.audit import CONTROL
from msgd.layers import Layer
from msgd.log.index import IN_LANES, NUMBERED, RECEIVED, RECOVERED_OUT, WAITING
from msgd.log.terms import Terms
from msgd.needle import needle_test
from msgd.rows import Filter
from msgd.wire.codec import Message
from msgd.wire.reports import NEEDLE, asks

ANY_TIME = 1 << 62  # ns: later than any clock of ours
ID_DIGITS = 32  # of a whole id
OUT_LANES = frozenset({NUMBERED, WAITING, RECOVERED_OUT})

Fits = Callable[[Message], bool]


def lanes_of(wanted: Filter) -> frozenset[int]:
    """The lanes in which something may fit."""
    lanes = IN_LANES | OUT_LANES
    if wanted.direction is not None:
        lanes &= IN_LANES if wanted.direction == model.IN else OUT_LANES
    if wanted.state not in (None, model.HANDLED):
        lanes &= IN_LANES if wanted.state == model.RECEIVED else OUT_LANES
    return lanes


def lane_of(direction: int) -> int:
    """One of the lanes of a direction."""
    return RECEIVED if direction == model.IN else NUMBERED


def windows(layer: Layer, wanted: Filter, reverse: bool) -> list[tuple[int, int]]:
    """The stretches of a layer where the stored time may fit."""
    if wanted.since_ns is None and wanted.until_ns is None:
        return [(layer.lo, layer.hi)]
    since = -ANY_TIME if wanted.since_ns is None else max(wanted.since_ns, -ANY_TIME)
    until = ANY_TIME if wanted.until_ns is None else min(wanted.until_ns, ANY_TIME)
    found = layer.index.windows(since, until)
    return found[::-1] if reverse else found


class Sieve:
    """What a filter asks of a record and of the messages in it, beyond what the index knows."""

    def __init__(self, wanted: Filter) -> None:
        self._since_ns = -ANY_TIME if wanted.since_ns is None else wanted.since_ns
        self._until_ns = ANY_TIME if wanted.until_ns is None else wanted.until_ns
        self.is_timed = wanted.since_ns is not None or wanted.until_ns is not None
        self.fits = _content_test(wanted)
        self.terms = None if wanted.search is None else Terms(wanted.search)
        self.may_fit = _bytes_test(wanted, self.terms)  # of bytes that hold a body

    @property
    def reads(self) -> bool:
        """Whether a record must be read to know."""
        return self.is_timed or self.fits is not None or self.terms is not None

    def takes(self, message: Message) -> bool:
        """Whether the message may be shown by what is in it."""
        if self.fits is not None and not self.fits(message):
            return False
        return self.terms is None or self.terms.fits(message.body)

    def fits_time(self, wall_ns: int) -> bool:
        """Whether what was stored then may be shown."""
        return self._since_ns <= wall_ns <= self._until_ns


def _bytes_test(wanted: Filter, terms: Terms | None) -> Callable[[bytes], bool] | None:
    """Whether a payload may hold a message that fits; None when that is not worth asking."""
    if wanted.kind == CONTROL:
        return None  # what was done here is told in words that do not stand in its record
    grep = None if wanted.grep is None else needle_test(wanted.grep)
    of_body = terms.may_fit if grep is None and terms is not None else grep
    of_headers = _bytes_of_headers(wanted)
    if of_body is None or of_headers is None:
        return of_body or of_headers
    return lambda data: of_headers(data) and of_body(data)


def _bytes_of_headers(wanted: Filter) -> Callable[[bytes], bool] | None:
    """The same as far as headers and ids go."""
    if wanted.thread is not None:
        text, raw = wanted.thread.encode(), _raw_id(wanted.thread)
        return lambda data: text in data or (raw is not None and raw in data)
    return None if wanted.state != model.HANDLED else lambda data: NEEDLE in data


def _raw_id(text: str) -> bytes | None:
    digits = model.id_prefix(text)
    return None if digits is None or len(digits) < ID_DIGITS else bytes.fromhex(digits)


def _content_test(wanted: Filter) -> Fits | None:
    """Whether a message fits by what is in it; None when nothing of that is asked."""
    tests: list[Fits] = []
    if wanted.id is not None:
        prefix = wanted.id
        tests.append(lambda message: message.id.hex().startswith(prefix))
    if wanted.kind is not None:
        tests.append(lambda message: message.kind == wanted.kind)
    if wanted.user is not None:
        tests.append(lambda message: message.user == wanted.user)
    if wanted.thread is not None:
        tests.append(_of_thread(wanted.thread))
    if wanted.state == model.HANDLED:
        tests.append(asks)  # whether it is marked, `marks` says
    if wanted.grep is not None:
        tests.append(_grep(wanted.grep))
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else lambda message: all(test(message) for test in tests)


def _of_thread(thread: str) -> Fits:
    """Whether it is the first message of a thread, or says that it belongs to it."""
    raw = _raw_id(thread)
    return lambda message: message.id == raw or message.headers.get(model.THREAD) == thread


def _grep(pattern: str) -> Fits:
    search, may_fit = re.compile(pattern).search, needle_test(pattern)
    if may_fit is None:
        return lambda message: search(message.body.decode("utf-8", "replace")) is not None
    return lambda message: (
        may_fit(message.body) and search(message.body.decode("utf-8", "replace")) is not None
    )
