"""Take a stretch of the log into a harvest, a block at a time.

What a block does not hold whole and sound is asked of the reader, one record, which tells what is wrong and
where it goes on.
"""

from collections.abc import Callable

from msgd.log.errors import Damaged
from msgd.log.harvest import Harvest
from msgd.log.reader import Reader
from msgd.log.record import prefix_of
from msgd.model import MAX_APPEND_BYTES

BLOCK_BYTES = MAX_APPEND_BYTES  # any record fits


def gather(harvest: Harvest, reader: Reader, start: int, stop: int, is_enough: Callable[[], bool]) -> int:
    """Take in the records from `start` on that begin before `stop`, until a block has brought enough.

    `start` is the place of a record; what is no longer kept is passed over. Returns the log offset where to
    go on, at least `stop` when there is nothing left. What cannot be read is noted in the harvest.
    """
    prefix = prefix_of(reader.log_id)
    at = start
    while at < stop and not is_enough():
        try:
            block = reader.block(at, BLOCK_BYTES)
        except (LookupError, Damaged):
            block = b""  # the reader will say it better
        reached = harvest.take_block(block, at, stop, prefix)
        at = reached if reached > at else _next_one(harvest, reader, at, stop)
    return at


def _next_one(harvest: Harvest, reader: Reader, at: int, stop: int) -> int:
    """Take in the next record that can be read."""
    for header in reader.headers(at, stop, on_damage=harvest.damage.append):
        payload = None
        if harvest.wants(header):
            try:
                payload = reader.payload(header)
            except Damaged as damaged:
                harvest.damage.append(damaged)
            except LookupError:
                pass  # removed meanwhile
        harvest.take(header, payload)
        return header.end
    return stop
