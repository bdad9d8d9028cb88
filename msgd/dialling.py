"""When to dial which peer. Pure: time and chance are given.

A peer without a link is dialled again and again: at once when msgd starts, a message waits or a person
asks, then with a backoff that doubles up to 30 s. A peer that was linked within the last ten minutes and
for which messages wait is tried at least every second: it is about to come back. What the peer's refusal
says about the next try goes before all that.

What a dial is for (`KnownPeer.want`: a link, an exchange of words, a join, nothing), where it goes and whom
it must find there are its aim. Another aim begins anew, at once, whatever came of the tries before.
"""

from collections.abc import Callable, Iterator

from msgd.backoff import Backoff
from msgd.peer.refusals import BACKOFF_MAX_S, reaction
from msgd.wire.ledger import KnownPeer

JUST_SEEN_S = 600.0
EAGER_CAP_S = 1.0
CONNECT_S = 10.0
EAGER_CONNECT_S = 3.0  # while it was just seen: a lost SYN must not cost the whole ordinary timeout
STABLE_S = 5.0  # a link that lasted this long begins the backoff anew
NEVER_S = float("inf")


class Course:
    """How it stands with dialling one peer."""

    __slots__ = (
        "backoff",
        "dialled_s",
        "is_asked",
        "linked_s",
        "lost_s",
        "next_s",
        "peer",
        "pid",
        "reason",
    )

    def __init__(self, peer: KnownPeer, backoff: Backoff, now_s: float) -> None:
        self.peer = peer
        self.backoff = backoff
        self.next_s = now_s
        self.dialled_s = -NEVER_S  # when the last try began
        self.linked_s = -NEVER_S  # when its last link began
        self.lost_s = -NEVER_S  # when its last link ended
        self.pid = 0  # the worker that dials
        self.is_asked = False  # since that worker began, a person asked, or the aim became another
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
        if aim_of(before) != aim_of(peer):
            self._begin_anew(course, now_s)

    def peers(self) -> int:
        """How many peers there are; an address that was never paired is none."""
        return sum(1 for course in self.courses.values() if course.peer.identity)

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

    def begin_anew(self, now_s: float) -> None:
        """This node is another one to all its peers: each is dialled now."""
        for course in self.courses.values():
            self._begin_anew(course, now_s)

    def _begin_anew(self, course: Course, now_s: float) -> None:
        course.backoff.reset(now_s)
        course.next_s = now_s
        course.is_asked = True

    def ask(self, number: int, eager: bool, now_s: float) -> None:
        """A message waits for this peer (`eager`: a person asks): the next try comes at once.

        A message does not begin a try that has just failed anew; the backoff goes on, shortened.
        """
        course = self.courses.get(number)
        if course is None:
            return
        if eager or course.backoff.failures == 0:
            course.next_s = now_s
            course.is_asked = course.is_asked or eager
        elif self.is_eager(course, now_s):
            course.next_s = min(course.next_s, now_s + EAGER_CAP_S)

    def began(self, course: Course, pid: int, now_s: float) -> None:
        """A worker was forked that dials."""
        course.pid, course.dialled_s, course.is_asked = pid, now_s, False

    def ended(self, course: Course, now_s: float, retry_s: float, code: str = "") -> None:
        """Its worker ended: without a link, or with one whose end `learn` hears of, before or after this.

        `code` is that of the peer's refusal: some let the waits grow further than others.
        """
        course.pid = 0
        if course.peer.linked or course.linked_s > course.dialled_s:
            return
        if course.is_asked:
            self._begin_anew(course, now_s)
            return
        slow_s = reaction(code).backoff_max_s if code else BACKOFF_MAX_S
        is_slow = slow_s > BACKOFF_MAX_S
        course.backoff.cap_s = max(self.backoff_max_s, slow_s) if is_slow else self.backoff_max_s
        self._wait(course, now_s, is_slow=is_slow)
        if retry_s:
            course.next_s = now_s + retry_s if retry_s > 0 else NEVER_S

    def _wait(self, course: Course, now_s: float, lived_s: float = 0.0, *, is_slow: bool = False) -> None:
        """A try or a link is over: when the next one begins."""
        wait_s = course.backoff.failed(now_s, lived_s)
        if self.is_eager(course, now_s) and not is_slow:
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
        peer = course.peer
        return bool(peer.want and peer.address) and not peer.linked and not course.pid

    def _new_backoff(self) -> Backoff:
        return Backoff(self._random, first_s=0.2, cap_s=self.backoff_max_s, stable_s=STABLE_S)


def aim_of(peer: KnownPeer) -> tuple[str, str, list[str], bytes]:
    """What a dial is for, where it goes, whom it must find."""
    return peer.want, peer.address, peer.others, peer.identity
