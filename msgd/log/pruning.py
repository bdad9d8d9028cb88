"""Take out of an index what it knows of stretches of the log that are not kept any more.

Receipts that lie there stay, the last of each peer: what they say about messages that are kept is still
true. The transactions are the caller's; a kill in between costs beginning anew.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from msgd.log.index import KEY, Index
from msgd.log.leaves import Leaves

Gap = tuple[int, int]  # log offsets [lo, hi)
Keep = Callable[[list[bytes]], list[bytes]]

RECEIPT_OFFSET = slice(8, 16)  # of the record, in entries whose key is something else
RECOVERED_OFFSET = slice(12, 20)
ID_OFFSET = slice(16, 24)  # the same of reports
ID_BITS = 17  # behind the offset


def prune(index: Index, gaps: Sequence[Gap], known: Sequence[Gap]) -> Iterator[None]:
    """Take out what lies in `gaps`, of which those in `known` were taken out before, a few leaves a step."""
    new = _less(gaps, known)
    if new:
        yield from _prune(index, new)
    index.db.execute("DELETE FROM gap")
    index.db.executemany("INSERT INTO gap VALUES (?, ?)", gaps)


def _prune(index: Index, new: Sequence[Gap]) -> Iterator[None]:
    for table in (index.place, index.epoch, index.control, index.release, index.ending):
        for group in list(table.groups()):
            for gap in new:
                lo, hi = map(KEY.pack, gap)
                yield from _filter(table, group, lo, hi, _outside(lo, hi))
    for group in list(index.recovered.groups()):
        yield from _filter(index.recovered, group, b"", None, _kept(new, RECOVERED_OFFSET, 0))
    for peer in list(index.receipt.groups()):
        yield from _filter(index.receipt, peer, b"", None, _last_receipts(new))
    for group in list(index.report.groups()):
        yield from _filter(index.report, group, b"", None, _kept(new, ID_OFFSET, ID_BITS))
    yield from _filter(index.id, 0, b"", None, _kept(new, ID_OFFSET, ID_BITS))
    for gap in new:
        index.db.execute("DELETE FROM zone WHERE lo >= ? AND hi <= ?", gap)
        index.db.execute("DELETE FROM damage WHERE offset >= ? AND offset < ?", gap)


def _filter(table: Leaves, group: int, lo: bytes, hi: bytes | None, keep: Keep) -> Iterator[None]:
    key: bytes | None = lo
    while key is not None and (hi is None or key < hi):
        key = table.filter(group, key, hi, keep)
        yield


def _outside(lo: bytes, hi: bytes) -> Keep:
    return lambda entries: [entry for entry in entries if not lo <= entry < hi]


def _kept(gaps: Sequence[Gap], offset: slice, bits: int) -> Keep:
    gap_of = _finder(gaps)
    return lambda entries: [e for e in entries if gap_of(int.from_bytes(e[offset], "big") >> bits) is None]


def _last_receipts(gaps: Sequence[Gap]) -> Keep:
    gap_of = _finder(gaps)

    def keep(entries: list[bytes]) -> list[bytes]:
        inside = [gap_of(int.from_bytes(entry[RECEIPT_OFFSET], "big")) for entry in entries]
        behind = [*inside[1:], None]
        return [
            e for e, gap, after in zip(entries, inside, behind, strict=True) if gap is None or gap != after
        ]

    return keep


def _finder(gaps: Sequence[Gap]) -> Callable[[int], int | None]:
    """Which of the gaps holds a log offset."""
    stops = [hi for _, hi in gaps]

    def find(offset: int) -> int | None:
        place = bisect_right(stops, offset)
        return place if place < len(gaps) and gaps[place][0] <= offset else None

    return find


def _less(gaps: Sequence[Gap], known: Sequence[Gap]) -> list[Gap]:
    """What of `gaps` is in none of those known; both are in order."""
    found = []
    for lo, hi in gaps:
        for known_lo, known_hi in known:
            if lo < known_hi and known_lo < hi:
                if lo < known_lo:
                    found.append((lo, known_lo))
                lo = known_hi
        if lo < hi:
            found.append((lo, hi))
    return found
