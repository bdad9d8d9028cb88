"""What of a record goes into the index: taken from one record after another, put in all at once.

The index process fills the file with it, and a query the part of the log that the file does not hold yet.
Only `released` and `ended` records must be decoded for that; the ids of messages only where they are asked
for (`with_ids`), and then nothing of a message but its id.
"""

import struct
from collections.abc import Iterable
from itertools import islice

import msgspec

from msgd import model
from msgd.log.ahead import Ahead
from msgd.log.errors import Damaged
from msgd.log.index import (
    CONTROL,
    ENDING,
    EPOCH,
    ID,
    KEY,
    LANES,
    NUMBERED,
    PLACE,
    RECEIPT,
    RECEIVED,
    RECOVERED,
    RECOVERED_IN,
    RECOVERED_OUT,
    RELEASE,
    WAITING,
    ZONE,
    Index,
)
from msgd.log.leaves import Leaves
from msgd.log.record import Header, Kind, Record, decode_ranges

ID_BYTES = 16
OUT, IN, HELD = Kind.OUT, Kind.IN, Kind.HELD
WITHOUT_IDS = frozenset({Kind.RELEASED, Kind.ENDED})  # kinds of which the payload is wanted
PLACE_KINDS = frozenset({OUT, IN, HELD})
WITH_IDS = WITHOUT_IDS | PLACE_KINDS | {Kind.RECOVERED}
CONTROL_KINDS = frozenset({Kind.PEER, Kind.EPOCH, Kind.CLOCK_STEP})
FIRST_ID = slice(3, 3 + ID_BYTES)  # in a message: behind the array's head and the two bytes of `bin 16`
FIRST_ID_HEAD = b"\xc4\x10"


class _OnlyId(msgspec.Struct, array_like=True, gc=False):
    id: bytes


class EndedPlaces(msgspec.Struct, array_like=True, frozen=True):
    """The payload of an `ended` record: a final state, why, and the messages, by record offset and index."""

    state: str
    reason: str
    places: list[tuple[int, int]]


_decode_ids = msgspec.msgpack.Decoder(list[_OnlyId]).decode
decode_ended = msgspec.msgpack.Decoder(EndedPlaces).decode

Grouped = dict[int, list[bytes]]


class Harvest:
    """Entries for an index, gathered in memory. `records` counts what was taken since the last `store`."""

    def __init__(self, with_ids: bool) -> None:
        self._with_ids = with_ids
        self._clear()

    def _clear(self) -> None:
        self.records = 0
        self._places: Grouped = {}
        self._receipts: Grouped = {}
        self._epochs: Grouped = {}
        self._releases: list[bytes] = []
        self._endings: list[bytes] = []
        self._recovered: Grouped = {}
        self._control: Grouped = {}
        self._ids: list[bytes] = []
        self._walls: list[tuple[int, int]] = []  # (offset, wall_ns) of places
        self._damage: list[tuple[int, str, str]] = []

    def take_all(self, headers: Iterable[Header], ahead: Ahead) -> list[Damaged]:
        """Take in these records, which come in the order of the log; what of them cannot be read."""
        damage = []
        wanted = WITH_IDS if self._with_ids else WITHOUT_IDS
        for header in headers:
            payload = None
            try:
                if header[0] in wanted:
                    payload = ahead.payload(header)
            except Damaged as damaged:
                damage.append(damaged)
            try:
                self.take(header, payload)
            except (msgspec.MsgspecError, ValueError, struct.error) as error:
                damage.append(Damaged(ahead.directory, header.offset, f"not what its kind says: {error}"))
        self._damage += [(damaged.offset, damaged.segment, damaged.why) for damaged in damage]
        return damage

    def take(self, header: Header | Record, payload: bytes | None) -> None:
        """Take in one record. `payload` is None where it is not wanted or cannot be read.

        Raises msgspec.MsgspecError or ValueError when it is not what the kind says. Even then it is known
        that the record is there.
        """
        kind, peer, offset = header.kind, header.peer, header.offset
        self.records += 1
        if kind in PLACE_KINDS:
            group = peer * LANES + (RECEIVED if kind == IN else WAITING if kind == HELD else NUMBERED)
            self._take_place(group, PLACE.pack(offset, header.count, kind, header.first_seq))
            self._walls.append((offset, header.wall_ns))
            if payload is not None:
                self._take_ids(payload, header.count, offset << 17 | (kind == IN))
        elif kind == Kind.RECEIPT:
            self._receipts.setdefault(peer, []).append(RECEIPT.pack(header.first_seq, offset))
        elif kind == Kind.RELEASED:
            self._take_place(
                peer * LANES + NUMBERED, PLACE.pack(offset, header.count, kind, header.first_seq)
            )
            self._take_released(payload or b"", header.first_seq, offset)
        elif kind == Kind.ENDED and payload is not None:
            ended = decode_ended(payload)
            state = model.STATES.index(ended.state)
            self._endings += [ENDING.pack(record, index, offset, state) for record, index in ended.places]
        elif kind == Kind.EPOCH:
            group = peer * LANES + (RECEIVED if header.direction == model.IN else NUMBERED)
            self._epochs.setdefault(group, []).append(EPOCH.pack(offset, header.first_seq))
        elif kind == Kind.RECOVERED and header.count:  # without messages it is the beginning of an epoch
            self._take_recovered(header, payload)
        if kind in CONTROL_KINDS:
            self._control.setdefault(peer, []).append(CONTROL.pack(offset, kind))

    def take_damage(self, damaged: Damaged) -> None:
        """Remember that something cannot be read, so that later queries tell it, too."""
        self._damage.append((damaged.offset, damaged.segment, damaged.why))

    def _take_place(self, group: int, entry: bytes) -> None:
        entries = self._places.get(group)
        if entries is None:
            self._places[group] = [entry]
        else:
            entries.append(entry)

    def _take_recovered(self, header: Header | Record, payload: bytes | None) -> None:
        is_in = header.direction == model.IN
        group = header.peer * LANES + (RECOVERED_IN if is_in else RECOVERED_OUT)
        self._take_place(group, PLACE.pack(header.offset, header.count, header.kind, header.first_seq))
        entry = RECOVERED.pack(header.first_seq, header.count, header.offset)
        self._recovered.setdefault(group, []).append(entry)
        self._walls.append((header.offset, header.wall_ns))
        if payload is not None:
            self._take_ids(payload, header.count, header.offset << 17 | is_in)

    def _take_ids(self, payload: bytes, count: int, at: int) -> None:
        if count == 1 and payload[1:3] == FIRST_ID_HEAD:
            self._ids.append(payload[FIRST_ID] + KEY.pack(at))
            return
        found = _decode_ids(b"\xdd" + count.to_bytes(4, "big") + payload)
        self._ids += [ID.pack(m.id, at + (index << 1)) for index, m in enumerate(found)]

    def _take_released(self, payload: bytes, seq: int, offset: int) -> None:
        entries = []
        for record, start, _, count in decode_ranges(payload):
            entries.append(RELEASE.pack(record, start, count, seq, offset))
            seq += count
        self._releases += entries

    def store(self, index: Index) -> None:
        """Put everything into the index's tables, and begin anew. The transaction is the caller's."""
        grouped = (
            (self._places, index.place),
            (self._epochs, index.epoch),
            (self._recovered, index.recovered),
            (self._control, index.control),
        )
        for groups, table in grouped:
            for group, entries in groups.items():
                table.add(group, sorted(entries))
        for peer, entries in self._receipts.items():
            index.receipt.add(peer, _advances(index.receipt, peer, entries))
        index.release.add(0, sorted(self._releases))
        index.ending.add(0, sorted(self._endings))
        index.id.add(0, sorted(self._ids))
        self._store_zones(index)
        index.db.executemany("REPLACE INTO damage VALUES (?, ?, ?)", self._damage)
        self._clear()

    def _store_zones(self, index: Index) -> None:
        walls = iter(self._walls)
        last = index.db.execute("SELECT * FROM zone ORDER BY zone DESC LIMIT 1").fetchone()
        if last is not None and last[3] < ZONE:
            zone, lo, hi, places, wall_min, wall_max = last
            more = list(islice(walls, ZONE - places))
            times = [wall_min, wall_max, *(wall for _, wall in more)]
            hi = more[-1][0] + 1 if more else hi
            row = (zone, lo, hi, places + len(more), min(times), max(times))
            index.db.execute("REPLACE INTO zone VALUES (?, ?, ?, ?, ?, ?)", row)
        while more := list(islice(walls, ZONE)):
            times = [wall for _, wall in more]
            row = (None, more[0][0], more[-1][0] + 1, len(more), min(times), max(times))
            index.db.execute("INSERT INTO zone VALUES (?, ?, ?, ?, ?, ?)", row)


def _advances(table: Leaves, peer: int, entries: list[bytes]) -> list[bytes]:
    """Those receipts that tell more than every one before: the first to cover a seq is always among them."""
    last = table.last(peer)
    most = -1 if last is None else RECEIPT.unpack(last)[0]
    kept = []
    for entry in entries:
        seq = RECEIPT.unpack(entry)[0]
        if seq > most:
            most = seq
            kept.append(entry)
    return kept
