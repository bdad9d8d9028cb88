"""Body of the index process: when to index. What it does to the file is `indexer`'s.

It wakes when something is committed, waits a moment so that a burst becomes one transaction, and tells
the log process how far it has come. It gives way to whoever commits: it runs at the lowest priority.
"""

import os
import select
import socket
import time

from msgd import journal
from msgd.config import Config
from msgd.indexer import Indexer
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.wire.ledger import TABLE, Indexed, Watch
from msgd.wire.pipe import Pipe

STEP_RECORDS = 512  # of up to 256 messages: the end of msgd waits for one step
GATHER_MS = 500  # a burst becomes one transaction
GATHER_ROUNDS = 4  # a longer one several: ids that are not indexed take memory in the log process
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
    told = -1
    try:
        while True:
            committed = page.committed
            while indexer.step(STEP_RECORDS) and not poll.poll(0):  # only the end comes unasked
                _give_way(page)
            if indexer.position != told:
                told = indexer.position
                pipe.send(Indexed(told))
            pipe.send(Watch(0, committed))
            poll.poll()
            if pipe.receive() is None:
                return 0
            _gather(poll, page)
    except OSError:
        return 0  # the log process is gone
    finally:
        indexer.close()


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
