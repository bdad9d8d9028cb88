"""The body of the index process: follow the log, fill the index, in large transactions.

`step` takes in some records that are committed and not indexed yet, in one transaction with the new
position. The last append always stays out: a start writes it anew in another place (`log.recovery`), and
with it the checkpoint right before it, if there is one. So no log offset in the index ever becomes wrong;
a query reads so little of the log by itself anyway.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from msgd.keeper import Event, Keeper
from msgd.log.filling import store
from msgd.log.gather import gather
from msgd.log.harvest import Harvest
from msgd.log.index import Index
from msgd.log.pruning import prune
from msgd.log.reader import Reader
from msgd.log.record import Kind
from msgd.log.segment import gaps_of
from msgd.model import MAX_APPEND_BYTES

STEP_ROWS = 32_768  # messages and records of one transaction: 0.05 s, for which the end of msgd waits
PRUNE_STEPS = 16  # of 64 leaves
STEP_BYTES = 32 << 20  # of the log, where they are large


class Indexer(Keeper[Index]):
    """Fills the index at `path` from the log that `reader` reads."""

    kind = Index
    budget = STEP_ROWS

    def __init__(self, path: str, reader: Reader, committed: Callable[[], int], event: Event) -> None:
        super().__init__(path, reader, committed, event)
        self._pruning: Iterator[None] | None = None

    def _step(self, index: Index, budget: int) -> bool:
        committed = self._committed()
        harvest = Harvest(self._reader.directory, with_ids=True)

        def is_enough() -> bool:
            some = harvest.messages + harvest.records >= budget or harvest.bytes >= STEP_BYTES
            return some and harvest.last >= harvest.group[0]  # never right behind a checkpoint

        # no record that begins before this place is of the last append
        at = gather(harvest, self._reader, index.position, committed - MAX_APPEND_BYTES, is_enough)
        if not is_enough():
            at = self._to_the_end(harvest, at, is_enough)
        more = is_enough()
        for damaged in harvest.damage:
            self._tell(damaged)
        if at > index.position:
            self._store(index, harvest, at)
        return more or self._prune(index)

    def _to_the_end(self, harvest: Harvest, at: int, is_enough: Callable[[], bool]) -> int:
        """Take in more, but not what a start would move together: the last append, checkpoints before it."""
        first, end = harvest.group
        stop = start = first if end == at else at
        begin, is_checkpoint = -1, True
        for header in self._reader.headers(start, on_damage=self._tell):
            if header.begin != begin and not is_checkpoint:
                stop = header.offset
            begin, is_checkpoint = header.begin, header.kind == Kind.CHECKPOINT
        return min(gather(harvest, self._reader, at, stop, is_enough), stop)

    def _store(self, index: Index, harvest: Harvest, position: int) -> None:
        index.db.execute("BEGIN IMMEDIATE")
        last = harvest.last
        store(index, harvest)
        self._commit(index, position, last)

    def _prune(self, index: Index) -> bool:
        """Forget some of what is not kept any more; whether there is more of that."""
        if self._pruning is None:
            known = list(index.db.execute("SELECT lo, hi FROM gap ORDER BY lo"))
            gaps = gaps_of(self._reader.extents())
            gaps = [gap for gap in gaps if gap[1] <= index.position or gap in known]
            if gaps == known:
                return False
            self._pruning = prune(index, gaps, known)
        index.db.execute("BEGIN IMMEDIATE")
        steps = sum(1 for _ in islice(self._pruning, PRUNE_STEPS))
        index.db.execute("COMMIT")
        if steps == PRUNE_STEPS:
            return True
        self._pruning = None
        return False

    def _made(self, index: Index) -> None:
        gaps = gaps_of(self._reader.extents())
        index.db.executemany("INSERT INTO gap VALUES (?, ?)", gaps)  # nothing of those will come in

    def _drop(self) -> None:
        self._pruning = None
        super()._drop()
