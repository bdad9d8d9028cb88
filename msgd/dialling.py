"""When to dial which peer. Pure: time and chance are given.

A peer without a link is dialled again and again: at once when msgd starts, a message waits or a person
asks, then with a backoff that doubles up to 30 s. A peer that was linked within the last ten minutes and
for which messages wait is tried at least every second: it is about to come back. What the peer's refusal
says about the next try goes before all that.
"""

from collections.abc import Callable, Iterator

from msgd.children import Backoff
from msgd.wire.ledger import KnownPeer

JUST_SEEN_S = 600.0
EAGER_CAP_S = 1.0
CONNECT_S = 10.0
EAGER_CONNECT_S = 3.0  # while it was just seen: a lost SYN must not cost the whole ordinary timeout
STABLE_S = 5.0  # a link that lasted this long begins the backoff anew
NEVER_S = float("inf")


class Course:
    """How it stands with dialling one peer."""

    __slots__ = ("backoff", "dialled_s", "linked_s", "lost_s", "next_s", "peer", "pid", "reason")

    def __init__(self, peer: KnownPeer, backoff: Backoff, now_s: float) -> None:
        self.peer = peer
        self.backoff = backoff
        self.next_s = now_s
        self.dialled_s = -NEVER_S  # when the last try began
        self.linked_s = -NEVER_S  # when its last link began
        self.lost_s = -NEVER_S  # when its last link ended
        self.pid = 0  # the worker that dials
        self.reason = ""


class Dialling:
    """All peers' courses, by number."""

    def __init__(self, random: Callable[[], float], backoff_max_s: float) -> None:
        self.courses: dict[int, Course] = {}
        self.backoff_max_s = backoff_max_s
        self._random = random

    def learn(self, peer: KnownPeer, now_s: float) -> None:
        """A peer is new or has changed: a link came, went, messages wait, its address is another."""
        course = self.courses.get(peer.number)
        if peer.removed:
            self.courses.pop(peer.number, None)
            return
        if course is None:
            self.courses[peer.number] = Course(peer, self._new_backoff(), now_s)
            return
        before, course.peer = course.peer, peer
        if before.linked and not peer.linked:
            course.lost_s = now_s
            self._wait(course, now_s, now_s - course.linked_s)
        if not before.linked and peer.linked:
            course.linked_s = now_s
            course.reason = ""
        if before.address != peer.address:
            course.backoff.reset(now_s)
            course.next_s = now_s

    def limit(self, backoff_max_s: float) -> None:
        """Another longest wait, from the next try on."""
        self.backoff_max_s = backoff_max_s
        for course in self.courses.values():
            course.backoff.cap_s = backoff_max_s

    def due(self, now_s: float) -> Iterator[Course]:
        """Whom to dial now."""
        for course in self.courses.values():
            if self._is_open(course) and course.next_s <= now_s:
                yield course

    def next_s(self) -> float:
        """When `due` will have something."""
        return min((c.next_s for c in self.courses.values() if self._is_open(c)), default=NEVER_S)

    def ask(self, number: int, eager: bool, now_s: float) -> None:
        """A message waits for this peer (`eager`: a person asks): the next try comes at once.

        A message does not begin a try that has just failed anew; the backoff goes on, shortened.
        """
        course = self.courses.get(number)
        if course is None:
            return
        if eager or course.backoff.failures == 0:
            course.next_s = now_s
        elif self.is_eager(course, now_s):
            course.next_s = min(course.next_s, now_s + EAGER_CAP_S)

    def began(self, course: Course, pid: int, now_s: float) -> None:
        """A worker was forked that dials."""
        course.pid, course.dialled_s = pid, now_s

    def ended(self, course: Course, now_s: float, retry_s: float) -> None:
        """Its worker ended: without a link, or with one whose end `learn` hears of, before or after this."""
        course.pid = 0
        if course.peer.linked or course.linked_s > course.dialled_s:
            return
        self._wait(course, now_s)
        if retry_s:
            course.next_s = now_s + retry_s if retry_s > 0 else NEVER_S

    def _wait(self, course: Course, now_s: float, lived_s: float = 0.0) -> None:
        """A try or a link is over: when the next one begins."""
        wait_s = course.backoff.failed(now_s, lived_s)
        if self.is_eager(course, now_s):
            wait_s = min(wait_s, EAGER_CAP_S)
        course.next_s = now_s + wait_s

    def is_eager(self, course: Course, now_s: float) -> bool:
        """Messages wait, and the peer was linked a moment ago."""
        return course.peer.waiting and now_s - course.lost_s < JUST_SEEN_S

    def connect_s(self, course: Course, now_s: float) -> float:
        """How long a connection may take."""
        return EAGER_CONNECT_S if self.is_eager(course, now_s) else CONNECT_S

    def by_pid(self, pid: int) -> Course | None:
        """The course whose worker this is."""
        return next((c for c in self.courses.values() if c.pid == pid), None)

    def _is_open(self, course: Course) -> bool:
        return bool(course.peer.address) and not course.peer.linked and not course.pid

    def _new_backoff(self) -> Backoff:
        return Backoff(self._random, first_s=0.2, cap_s=self.backoff_max_s, stable_s=STABLE_S)
