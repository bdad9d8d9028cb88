"""Body of the index process: when to index. What it does to the files is `indexer`'s and `wording`'s.

It wakes when something is committed, waits a moment so that a burst becomes one transaction, and tells
the log process how far it has come. It gives way to whoever commits: it runs at the lowest priority.
"""

import os
import select
import socket
import time

from msgd import journal, keeper
from msgd.config import Config
from msgd.indexer import Indexer
from msgd.log import words
from msgd.log.clock import Clock
from msgd.log.errors import Damaged
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.surveying import Survey
from msgd.wire.keeping import Needed
from msgd.wire.ledger import TABLE, Indexed, Watch
from msgd.wire.pipe import Pipe
from msgd.wording import Wording

GATHER_MS = 500  # a burst becomes one transaction
GATHER_ROUNDS = 4  # a longer one several: ids that are not indexed take memory in the log process
LOOK_MS = 15_000  # how often a node without traffic looks whether the file is still what it was
PROGRESS_S = 1.0
NICE = 10


def run(channel: socket.socket, config: Config, reader: Reader, page: SharedPage) -> int:
    """Follow the log until the log process is gone."""
    try:
        os.nice(NICE)
    except OSError:
        pass  # systemd's filter forbids it; the scheduler shares fairly even so
    pipe = Pipe(channel, TABLE)
    path = os.path.join(config.state, "index.sqlite")
    indexer = Indexer(path, reader, lambda: page.committed, journal.event)
    poll = select.poll()
    poll.register(channel, select.POLLIN)

    needed: list[Needed] = []  # asked, and not yet answered: the last one counts

    def hear(offset: int) -> None:
        """Between two parts of a long survey. Raises ConnectionError."""
        if poll.poll(0):
            frames = pipe.receive()
            if frames is None:
                raise ConnectionError("the log process is gone")
            needed.extend(frame for frame, _ in frames if isinstance(frame, Needed))
        _give_way(page)

    survey = Survey(reader, Clock(), hear)
    progress = _Progress(pipe, indexer)
    wording = _wording(config, reader, page, indexer)
    watched = -1
    try:
        while True:
            committed = page.committed
            # words when the index has caught up
            while (indexer.step() or (wording and wording.step())) and not poll.poll(0):
                _give_way(page)  # only the end comes unasked
                progress.tell()
            progress.tell(at_once=True)
            if committed != watched:
                watched = committed
                pipe.send(Watch(0, committed))
            if not poll.poll(LOOK_MS):
                continue  # the file may be gone, or a part of the log
            frames = pipe.receive()
            if frames is None:
                return 0
            needed += [frame for frame, _ in frames if isinstance(frame, Needed)]
            while needed:
                last = needed[-1]
                needed.clear()
                _tidy(pipe, survey, last)
            _gather(poll, page)
    except OSError:
        return 0  # the log process is gone
    finally:
        indexer.close()
        if wording:
            wording.close()


def _wording(config: Config, reader: Reader, page: SharedPage, indexer: Indexer) -> Wording | None:
    """What fills the file of words. Where nobody wants one, the words of messages do not lie around."""
    path = os.path.join(config.state, words.NAME)
    if config.history.search:
        return Wording(path, reader, lambda: page.committed, lambda: indexer.position, journal.event)
    try:
        keeper.remove(path)
    except OSError as error:
        journal.event("index.write_failed", file=words.NAME, reason=str(error))
    return None


class _Progress:
    """Tells the log process how far the index is, at most once in PROGRESS_S while it is at work."""

    def __init__(self, pipe: Pipe, indexer: Indexer) -> None:
        self._pipe = pipe
        self._indexer = indexer
        self._told: Indexed | None = None
        self._due_s = 0.0

    def tell(self, at_once: bool = False) -> None:
        now_s = time.monotonic()
        if not at_once and now_s < self._due_s:
            return
        self._due_s = now_s + PROGRESS_S
        indexer = self._indexer
        told = Indexed(indexer.position, indexer.is_new, indexer.done())
        if told != self._told:
            self._told = told
            self._pipe.send(told)


def _tidy(pipe: Pipe, survey: Survey, needed: Needed) -> None:
    """Find what the configuration wants removed, and have it removed."""
    try:
        vacuum = survey.wanted(needed)
    except (Damaged, LookupError) as error:
        journal.event("vacuum.failed", reason=str(error), segments="some")
        return
    if vacuum is not None:
        pipe.send(vacuum)


def _gather(poll: "select.poll", page: SharedPage) -> None:
    """Wait until a burst is over, at most GATHER_ROUNDS: who commits needs the processors now."""
    for _ in range(GATHER_ROUNDS):
        committed = page.committed
        if poll.poll(GATHER_MS) or page.committed == committed:  # only the end comes unasked
            return


def _give_way(page: SharedPage) -> None:
    """Commits that wait go first: let the disk have them, for a moment at most."""
    if page.syncing_since_ns:
        time.sleep(0.005)
