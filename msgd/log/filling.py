"""Put a harvest into the tables of an index: behind what it holds, or before it.

An index is filled forwards, as the log grows. One that is private to a query is also filled backwards, a
stretch at a time, as far as the query goes. The transaction is the caller's.
"""

from collections import defaultdict
from itertools import islice

from msgd.log.harvest import Harvest
from msgd.log.index import KEY, PUT_ZONE, RECEIPT, ZONE, Index

FRONT_ZONES = 1 << 32  # numbers for the zones of one stretch


class Front:
    """A stretch that is put before all that an index holds, in several harvests, forwards in itself."""

    def __init__(self, index: Index) -> None:
        least = index.db.execute("SELECT min(zone) FROM zone").fetchone()[0] or 0
        self.zone = (least // FRONT_ZONES - 1) * FRONT_ZONES
        self.most: dict[int, int] = defaultdict(lambda: -1)  # peer -> seq up to which a receipt was seen


def store(index: Index, harvest: Harvest, front: Front | None = None) -> None:
    """Put everything into the tables, behind what is there or in front of it, and begin the harvest anew."""
    grouped = (
        (harvest.places, index.place),
        (harvest.epochs, index.epoch),
        (harvest.recovered, index.recovered),
        (harvest.control, index.control),
        (harvest.reports, index.report),
    )
    for groups, table in grouped:
        for group, entries in groups.items():
            table.add(group, sorted(entries))
    for peer, entries in harvest.receipts.items():
        _store_receipts(index, peer, entries, front)
    index.release.add(0, sorted(harvest.releases))
    index.ending.add(0, sorted(harvest.endings))
    index.id.add(0, sorted(harvest.ids))
    _store_zones(index, harvest, front)
    damage = [(damaged.offset, damaged.segment, damaged.why) for damaged in harvest.damage]
    index.db.executemany("REPLACE INTO damage VALUES (?, ?, ?)", damage)
    harvest.clear()


def _store_receipts(index: Index, peer: int, entries: list[bytes], front: Front | None) -> None:
    """Only those that tell more than every one before: the first to cover a seq is always among them."""
    table = index.receipt
    if front is not None:
        most = front.most[peer]
    else:
        last = table.last(peer)
        most = -1 if last is None else RECEIPT.unpack(last)[0]
    kept = sorted(entries)
    if kept != entries or RECEIPT.unpack(kept[0])[0] <= most:  # else each tells more, as is usual
        kept = _advances(most, entries)
    if front is not None and kept:
        front.most[peer] = RECEIPT.unpack(kept[-1])[0]
        _overtaken(index, peer, most + 1, front.most[peer])
    table.add(peer, kept)


def _advances(most: int, entries: list[bytes]) -> list[bytes]:
    kept = []
    for entry in entries:
        seq = RECEIPT.unpack(entry)[0]
        if seq > most:
            most = seq
            kept.append(entry)
    return kept


def _overtaken(index: Index, peer: int, first: int, last: int) -> None:
    """Remove the receipts for these seqs: they tell no more than older ones, which come now."""
    lo, hi = KEY.pack(first), KEY.pack(last + 1)
    if next(index.receipt.scan(peer, lo, hi), None) is None:
        return
    key: bytes | None = lo
    while key is not None and key < hi:
        key = index.receipt.filter(peer, key, hi, lambda some: [e for e in some if not lo <= e < hi])


def _store_zones(index: Index, harvest: Harvest, front: Front | None) -> None:
    zones = harvest.zones()
    if front is not None:
        number = front.zone
    else:
        last = index.db.execute("SELECT * FROM zone ORDER BY zone DESC LIMIT 1").fetchone()
        if last is not None and last[3] < ZONE:
            zone, lo, hi, places, wall_min, wall_max, _ = last
            more = list(islice(zones, ZONE - places))
            walls = [wall_min, wall_max, *(wall for _, wall in more)]
            hi = more[-1][0] + 1 if more else hi
            row = (zone, lo, hi, places + len(more), min(walls), max(walls))
            index.db.execute(PUT_ZONE, row)
        number = 1 if last is None else last[0] + 1
    while more := list(islice(zones, ZONE)):
        walls = [wall for _, wall in more]
        row = (number, more[0][0], more[-1][0] + 1, len(more), min(walls), max(walls))
        index.db.execute(PUT_ZONE, row)
        number += 1
    if front is not None:
        front.zone = number
