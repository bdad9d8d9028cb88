"""Where every peer stands, against a plain list of messages; and what a start makes of the same records.

`World` does what the log process does: it puts a record into a real log and calls the method named like it.
Beside it a list per peer says which messages wait, in which order, and which have which seq.
"""

import itertools
import os
import tempfile
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd import model
from msgd.delivery import Delivery
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind, Record, encode_ranges
from msgd.log.store import Store
from msgd.model import MAX_APPEND_BYTES
from msgd.peer.heads import chain, epoch_head
from msgd.pins import MAX_INVITATIONS
from msgd.standing import RANGE_MESSAGES, Batch, Ended, EpochChange, Peer, PeerChange
from tests.log_book import TestClock

encode = msgspec.msgpack.Encoder().encode


@dataclass
class Waiting:
    """A record whose messages have no seq: a held one, or a batch that an epoch made wait again."""

    offset: int
    kind: int
    live: list[int]  # the places in it that did not end
    number: int  # that the record carries


@dataclass
class Model:
    """What is true of one peer."""

    last: int = 0
    receipt: int = 0
    received: int = 0
    batches: list[tuple[int, int, int]] = field(default_factory=list)  # offset, first seq, count
    waiting: list[Waiting] = field(default_factory=list)
    removed: bool = False
    pinned: bool = True
    before: tuple[bool, bool] | None = None  # removed and pinned, as they were before an open invitation


class World:
    """A log, the standing that goes with it, and the lists beside it."""

    def __init__(self, directory: str) -> None:
        self.page = SharedPage()
        self.store = Store(directory, TestClock(), page=self.page)
        self.delivery = Delivery()
        self.store.recover(self.delivery.apply, lambda: self.delivery.checkpoint(0))
        self.reader = Reader(directory, lambda: self.page.committed)
        self.models: dict[int, Model] = {}
        self.checkpoints = [(self.store.committed, Delivery().checkpoint(0))]
        self.numbers = itertools.count(1)

    def add(self, kind: int, peer: int, **fields: object) -> int:
        offset = self.store.add(kind, peer=peer, **fields)  # type: ignore[arg-type]
        self.store.commit()
        return offset

    def change(self, number: int, action: str, **fields: object) -> Peer:
        known = self.delivery.peers.get(number)
        given = {"identity": known.identity, "name": known.name, "address": known.address} if known else {}
        change = PeerChange(action, **{**given, **fields})  # type: ignore[arg-type]
        offset = self.add(Kind.PEER, number, payload=encode(change))
        return self.delivery.peer_changed(number, change, self.reader.record(offset).wall_ns)

    def pick(self, a: int, *, pinned: bool | None = True) -> tuple[Peer, Model] | None:
        live = [n for n, m in self.models.items() if not m.removed and pinned in (None, m.pinned)]
        if not live:
            return None
        number = live[a % len(live)]
        return self.delivery.peers[number], self.models[number]

    # --- what may happen

    def pair(self, a: int, b: int) -> None:
        """A new peer, another name, one that comes again after it was removed, or who answers somewhere."""
        identity = bytes([a % 3 + 1]) * 32
        known = self.delivery.by_identity.get(identity)
        places = self.delivery.unpinned()
        if known is not None:
            number = known.number
        elif places and b % 2:
            number = places[b % len(places)].number
        else:
            number = self.delivery.next_peer
        self.change(
            number,
            "paired",
            identity=identity,
            name=f"p{number}-{b}",
            address=f"127.0.0.{b + 1}:6743",
            how="key",
        )
        model = self.models.setdefault(number, Model())
        model.removed, model.pinned, model.before = False, True, None

    def place(self, a: int, b: int) -> None:
        """Somebody sends to an address that was never paired."""
        number = self.delivery.next_peer
        address = f"192.0.2.{number}:6743"
        self.change(number, "unpaired", identity=b"", name=address, address=address)
        self.models[number] = Model(pinned=False)

    def merge(self, a: int, b: int) -> None:
        """At an address answers who is a peer: what waits for it is the peer's, each in its order."""
        place, found = self.pick(b, pinned=False), self.pick(a)
        if place is None or found is None:
            return
        peer, known = found
        self.change(place[0].number, "merged", into=peer.number)
        both = known.waiting + place[1].waiting
        del self.models[place[0].number]
        order = [offset for offset, _ in self.waiting(peer)]
        known.waiting = sorted(both, key=lambda w: order.index(w.offset))
        for number in {w.number for w in both}:
            one = [w.offset for w in known.waiting if w.number == number and w.kind == Kind.HELD]
            assert sorted(one) == one
        assert len(both) == len(order)

    def move(self, a: int, b: int) -> None:
        """A peer's key is another one, signed or not; or it only seems so."""
        if (found := self.pick(a)) is None:
            return
        peer, _ = found
        old, fresh = peer.identity, next(self.numbers).to_bytes(32, "big")
        if b % 3 == 0:
            self.change(peer.number, "rotated", identity=fresh, old=old, retired=[fresh[::-1]])
        elif b % 3 == 1:
            self.change(peer.number, "rekeyed", identity=fresh, old=old, how="rekey")
        else:
            self.change(peer.number, "key changed", old=fresh)
            if b > 4:
                self.change(peer.number, "key returned")

    def join(self, a: int, b: int) -> None:
        """An invitation is accepted here; the inviter confirms it, refuses it, or is never reached."""
        identity = bytes([a % 3 + 1]) * 32
        known = self.delivery.by_identity.get(identity)
        number = known.number if known else self.delivery.next_peer
        model = self.models.setdefault(number, Model(pinned=False))
        before = model.before or (model.removed, model.pinned)
        address = f"127.0.0.{b + 1}:6743"
        peer = self.change(
            number,
            "joining",
            identity=identity,
            name=f"j{number}",
            address=address,
            how="invitation",
            invitation=bytes(8),
            secret=bytes(16),
            addresses=[address],
        )
        model.removed, model.pinned, model.before = False, True, before
        if b % 3 == 0:
            self.change(number, "joined")
            model.before = None
        elif b % 3 == 1:
            self.change(number, "unjoined", name=peer.name if before[1] else address)
            (model.removed, model.pinned), model.before = before, None

    def remove(self, a: int, b: int) -> None:
        """Removed, or blocked and let in again: nothing of what waits or is in doubt is sent any more."""
        if b % 4 or (found := self.pick(a, pinned=None)) is None:
            return
        peer, known = found
        if b:
            self.change(peer.number, "blocked")
            self.change(peer.number, "unblocked")
        else:
            self.change(peer.number, "removed")
        known.removed, known.batches, known.waiting = not b, [], []
        known.before = known.before if b else None

    def hold(self, a: int, b: int) -> None:
        if (found := self.pick(a, pinned=None)) is None:
            return
        peer, known = found
        count, expiry = b + 1, 1000 * b if b % 2 else 0
        payload = b"x" * 10 * count
        offset = self.add(
            Kind.HELD, peer.number, direction=model.OUT, count=count, aux=expiry, payload=payload
        )
        self.delivery.held(peer, offset, self.store.end, count, len(payload), expiry)
        known.waiting.append(Waiting(offset, Kind.HELD, list(range(count)), peer.number))

    def send(self, a: int, b: int) -> None:
        """With nothing waiting a message gets its seq at once."""
        if (found := self.pick(a)) is None or found[1].waiting:
            return
        peer, known = found
        seq, count, payload = peer.out.last + 1, b + 1, b"y" * (b + 1)
        head = chain(peer.out.head, seq, count, payload)
        offset = self.add(
            Kind.OUT, peer.number, direction=model.OUT, count=count, first_seq=seq, head=head, payload=payload
        )
        batch = Batch(seq, count, offset, self.store.end - offset, len(payload), head)
        self.delivery.sent(peer, batch)
        known.batches.append((offset, seq, count))
        known.last += count

    def release(self, a: int, b: int) -> None:
        """The first records that wait get their seqs."""
        if (found := self.pick(a)) is None or not found[1].waiting:
            return
        peer, known = found
        taken, known.waiting = known.waiting[: b % 4 + 1], known.waiting[b % 4 + 1 :]
        ranges = [(w.offset, 10 * i, 10, 1) for w in taken for i in w.live]
        seq, count, size = peer.out.last + 1, len(ranges), 10 * len(ranges)
        head = chain(peer.out.head, seq, count, b"z" * size)
        offset = self.add(
            Kind.RELEASED,
            peer.number,
            direction=model.OUT,
            count=count,
            first_seq=seq,
            head=head,
            payload=encode_ranges(ranges),
        )
        batch = Batch(seq, count, offset, self.store.end - offset, size, head)
        self.delivery.released(peer, batch, [(r[0], r[3]) for r in ranges])
        known.batches.append((offset, seq, count))
        known.last += count

    def end(self, a: int, b: int) -> None:
        """Some messages that wait are cancelled or expire."""
        if (found := self.pick(a, pinned=None)) is None:
            return
        peer, known = found
        held = [w for w in known.waiting if w.kind == Kind.HELD]
        if not held:
            return
        chosen = held[b % len(held)]
        places = [(chosen.offset, i) for i in chosen.live[: b % 3 + 1]]
        self.add(
            Kind.ENDED,
            chosen.number,
            direction=model.OUT,
            count=len(places),
            payload=encode(Ended("cancelled", "by a test", places)),
        )
        owner, of = self.delivery.owner(chosen.number)
        assert owner is peer
        self.delivery.ended(peer, places, of)
        chosen.live = chosen.live[b % 3 + 1 :]
        known.waiting = [w for w in known.waiting if w.live]

    def receipt(self, a: int, b: int) -> None:
        if (found := self.pick(a)) is None or not found[1].batches:
            return
        peer, known = found
        upto = b % len(known.batches)
        _, first, count = known.batches[upto]
        head = peer.out.unreceipted[upto].head
        seq = first + count - 1
        self.add(Kind.RECEIPT, peer.number, direction=model.OUT, first_seq=seq, head=head, aux=7)
        self.delivery.receipted(peer, seq, head)
        peer.seen_ns = self.reader.record(self.last_offset()).wall_ns
        known.receipt, known.batches = seq, known.batches[upto + 1 :]

    def receive(self, a: int, b: int) -> None:
        if (found := self.pick(a)) is None:
            return
        peer, known = found
        seq, count, payload = peer.inward.last + 1, b + 1, b"i" * (b + 1)
        head = chain(peer.inward.head, seq, count, payload)
        self.add(
            Kind.IN, peer.number, direction=model.IN, count=count, first_seq=seq, head=head, payload=payload
        )
        self.delivery.received(peer, seq + count - 1, head)
        peer.seen_ns = self.reader.record(self.last_offset()).wall_ns
        known.received += count

    def epoch(self, a: int, b: int) -> None:
        """A direction begins anew above both ends' last seq."""
        if (found := self.pick(a)) is None:
            return
        peer, known = found
        direction = model.OUT if b % 2 else model.IN
        mine = peer.out if direction == model.OUT else peer.inward
        base = mine.last + b + 1
        fresh = next(self.numbers).to_bytes(16, "big")
        change = EpochChange(fresh, mine.last, mine.head, base - 1, b"\x01" * 32)
        head = epoch_head(fresh, base, change.sender_head, change.receiver_head)
        self.add(
            Kind.EPOCH,
            peer.number,
            direction=direction,
            first_seq=base,
            head=head,
            payload=encode(change),
        )
        wall_ns = self.reader.record(self.last_offset()).wall_ns
        self.delivery.epoch_opened(peer, direction, change, base, head, wall_ns)
        if direction == model.IN:
            known.received = base - 1
            return
        again = [
            Waiting(offset, Kind.OUT, list(range(count)), peer.number) for offset, _, count in known.batches
        ]
        known.waiting, known.batches = again + known.waiting, []
        known.last = known.receipt = base - 1

    def checkpoint(self, a: int, b: int) -> None:
        self.checkpoints.append((self.store.committed, self.delivery.checkpoint(0)))

    # --- what must hold

    def last_offset(self) -> int:
        return max(h.offset for h in self.reader.headers(None))

    def check(self) -> None:
        for number, known in self.models.items():
            peer = self.delivery.peers[number]
            out = peer.out
            assert (known.removed, known.pinned) == (peer.removed, peer.pinned)
            assert (known.last, known.receipt, known.received) == (out.last, out.receipt, peer.inward.last)
            assert known.batches == [(b.offset, b.first_seq, b.count) for b in out.unreceipted]
            assert sum(b.size for b in out.unreceipted) == out.unreceipted_size
            assert [(w.offset, w.live) for w in known.waiting] == self.waiting(peer)
            assert sum(len(w.live) for w in known.waiting) == out.waiting_count

    def waiting(self, peer: Peer) -> list[tuple[int, list[int]]]:
        """The records that wait by the log and the ranges, with the places in them that did not end."""
        found = []
        for r in peer.out.waiting:
            for header in self.reader.headers(r.start, r.stop):
                if r.kind == Kind.HELD:
                    number = r.peer or peer.number
                    waits = header.kind == Kind.HELD and header.peer == number and header.offset > r.after
                else:
                    waits = header.offset == r.start
                gone = peer.out.ended.get(header.offset, [])
                live = [i for i in range(header.count) if i not in gone]
                if waits and live:
                    found.append((header.offset, live))
        return found

    def check_starts(self) -> None:
        """From every checkpoint on, the records give the same state."""
        expected = state_of(self.delivery)
        for at, payloads in self.checkpoints:
            started = Delivery()
            for payload in payloads:
                started.apply(checkpoint_record(payload))
            for header in self.reader.headers(at):
                started.apply(self.reader.record(header.offset))
            assert expected == state_of(started), f"from the checkpoint at {at}"


def state_of(delivery: Delivery) -> object:
    peers = {n: msgspec.to_builtins(p) for n, p in sorted(delivery.peers.items())}
    same = {identity: p.number for identity, p in sorted(delivery.by_identity.items())}
    former = {identity: p.number for identity, p in sorted(delivery.by_retired.items())}
    return peers, same, former, delivery.next_peer, delivery.invitations, delivery.rotations


def checkpoint_record(payload: bytes) -> Record:
    header = Header(Kind.CHECKPOINT, 0, 0, len(payload), 0, 0, 0, 0, 0, bytes(32), 0, 0, bytes(16), 0)
    return Record(*header[:-1], offset=0, payload=payload)


STEPS = {
    "pair": World.pair,
    "hold": World.hold,
    "send": World.send,
    "release": World.release,
    "end": World.end,
    "receipt": World.receipt,
    "receive": World.receive,
    "epoch": World.epoch,
    "remove": World.remove,
    "place": World.place,
    "merge": World.merge,
    "move": World.move,
    "join": World.join,
    "checkpoint": World.checkpoint,
}
OFTEN = [*STEPS, "hold", "hold", "release", "release", "end", "end", "receipt"]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(OFTEN), st.integers(0, 5), st.integers(0, 7)), min_size=20, max_size=80
    )
)
def test_the_standing_is_what_a_list_says_and_every_start_finds_it(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens in whatever order: the live state, the list, and each replay agree."""
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shm) as directory:
        world = World(directory)
        world.pair(0, 0)
        world.pair(1, 1)
        for what, a, b in steps:
            STEPS[what](world, a, b)
            world.check()
        world.check_starts()
        world.store.close()
        world.reader.close()


def paired() -> tuple[Delivery, Peer]:
    delivery = Delivery()
    return delivery, delivery.peer_changed(1, PeerChange("paired", b"\x01" * 32, "p", "192.0.2.1:6743"))


def test_a_peer_is_found_by_name_address_and_identity() -> None:
    delivery, peer = paired()
    for who in ("p", "192.0.2.1:6743", "192.0.2.1", b"\x01" * 32):
        assert peer is delivery.find(who)
    assert delivery.find("192.0.2") is None
    delivery.peer_changed(1, PeerChange("removed", peer.identity, "p", "192.0.2.1:6743"))
    for who in ("p", "192.0.2.1:6743", "192.0.2.1", b"\x01" * 32):
        assert delivery.find(who) is None


def test_the_number_of_a_peer_is_never_given_again() -> None:
    delivery, peer = paired()
    delivery.peer_changed(1, PeerChange("removed", peer.identity, "p"))
    assert 2 == delivery.next_peer


def test_what_waits_is_kept_in_few_ranges() -> None:
    """One range per 1,024 messages: the state of a peer that is away for weeks stays small."""
    delivery, peer = paired()
    for n in range(10 * RANGE_MESSAGES):
        delivery.held(peer, n * 200, n * 200 + 200, 1, 50, 0)
    assert 10 == len(peer.out.waiting)
    assert 10 * RANGE_MESSAGES == peer.out.waiting_count


def test_the_window_counts_batches_and_bytes() -> None:
    delivery, peer = paired()
    assert delivery.has_window(peer.out, 100, 2)
    delivery.sent(peer, Batch(1, 1, 0, 200, 100, bytes(32)))
    assert not delivery.has_window(peer.out, 100, 2)
    assert delivery.has_window(peer.out, 101, 2)
    delivery.sent(peer, Batch(2, 1, 200, 200, 0, bytes(32)))
    assert not delivery.has_window(peer.out, 101, 2)
    delivery.receipted(peer, 1, bytes(32))
    assert delivery.has_window(peer.out, 100, 2)


def test_the_earliest_expiry_of_all_that_waits_is_the_next() -> None:
    delivery, peer = paired()
    assert 0 == delivery.next_expiry_ns()
    for offset, expires_ns in ((0, 0), (200, 50), (400, 30), (600, 40), (800, 0)):
        delivery.held(peer, offset, offset + 200, 1, 50, expires_ns)
    assert 30 == delivery.next_expiry_ns()


def test_what_ended_while_it_waited_is_forgotten_once_it_is_passed() -> None:
    """Batches smaller than a range pass by records that ended whole: nothing of them stays behind."""
    delivery, peer = paired()
    for n in range(100):
        delivery.held(peer, n * 200, n * 200 + 200, 1, 50, 0)
    delivery.ended(peer, [(40 * 200, 0)])
    live = [n for n in range(100) if n != 40]
    for seq, part in ((1, live[:60]), (61, live[60:])):
        batch = Batch(seq, len(part), 100_000 + seq, 100, 50, bytes(32))
        delivery.released(peer, batch, [(n * 200, 1) for n in part])
    assert [] == peer.out.waiting
    assert {} == peer.out.ended


def test_a_checkpoint_of_a_peer_with_very_much_that_waits_is_cut_into_parts() -> None:
    """No payload outgrows an append, and together they give the same standing."""
    delivery, peer = paired()
    for n in range(200_000):
        delivery.held(peer, n * 200, n * 200 + 200, 1, 50, 0)
    delivery.ended(peer, [(n * 200, 0) for n in range(0, 200_000, 2)])
    payloads = delivery.checkpoint(0)
    assert max(map(len, payloads)) < MAX_APPEND_BYTES // 2
    started = Delivery()
    for payload in payloads:
        started.apply(checkpoint_record(payload))
    assert state_of(delivery) == state_of(started)


ROTATION = (b"spki", b"by the old", b"by the new")


def test_invitations_are_counted_used_and_ended_and_a_start_finds_them() -> None:
    delivery, start = Delivery(), b"boot-id-start-01"
    for n in range(5):
        change = PeerChange("invited", b"", "", user="eva", invitation=bytes([n]) * 8, secret=b"s" * 16)
        change.expires_s, change.expires_boot_ns = 100 + n, 7
        delivery.node_changed(change, start)
    delivery.node_changed(PeerChange("wrong proof", b"", "", invitation=bytes(8)), start)
    ended = PeerChange("invitation ended", b"", "", invitation=b"\x01" * 8, reason="dead")
    delivery.node_changed(ended, start)
    delivery.peer_changed(1, PeerChange("paired", b"\x07" * 32, "p", invitation=b"\x02" * 8), 9)
    assert [1, 0, 0, 0, 0] == [i.wrong for i in delivery.invitations.values()]
    assert ["", "dead", "used", "", ""] == [i.ended for i in delivery.invitations.values()]
    assert (b"\x07" * 32, start) == (
        delivery.invitations[b"\x02" * 8].used_by,
        delivery.invitations[bytes(8)].start,
    )
    own = PeerChange("own rotated", b"\x09" * 32, "", old=b"\x08" * 32, rotation=ROTATION)
    delivery.node_changed(own, start)
    assert ["expired", "dead", "used", "expired", "expired"] == [
        i.ended for i in delivery.invitations.values()
    ]
    started = Delivery()
    for payload in delivery.checkpoint(0):
        started.apply(checkpoint_record(payload))
    assert state_of(delivery) == state_of(started)
    assert ([ROTATION], b"\x09" * 32) == (started.rotations, started.own_identity)


def test_only_so_many_invitations_are_remembered_and_ended_ones_go_first() -> None:
    delivery = Delivery()
    for n in range(MAX_INVITATIONS + 2):
        id = n.to_bytes(8, "big")
        delivery.node_changed(PeerChange("invited", b"", "", invitation=id), bytes(16))
        if n == 5:
            delivery.node_changed(
                PeerChange("invitation ended", b"", "", invitation=id, reason="dead"), bytes(16)
            )
    left = [int.from_bytes(id, "big") for id in delivery.invitations]
    assert [n for n in range(1, MAX_INVITATIONS + 2) if n != 5] == left


def test_a_checkpoint_of_an_older_msgd_is_read() -> None:
    """What it does not say was so by itself then: pinned, not blocked, nothing else known."""
    delivery, peer = paired()
    delivery.held(peer, 0, 200, 1, 50, 0)
    first, second = delivery.checkpoint(0)
    old_first = {
        k: v for k, v in msgspec.msgpack.decode(first).items() if k in ("next_peer", "id_horizon_ms")
    }
    keys = ("number", "identity", "name", "address", "removed", "seen_ns", "out", "inward")
    old_second = [{k: v for k, v in each.items() if k in keys} for each in msgspec.msgpack.decode(second)]
    for each in old_second:
        each["out"]["waiting"] = [r[:7] for r in each["out"]["waiting"]]
    started = Delivery()
    for payload in (old_first, old_second):
        started.apply(checkpoint_record(encode(payload)))
    peer.how, peer.paired_ns = "", 0
    assert state_of(delivery) == state_of(started)


def test_a_key_is_retired_by_one_peer_only_and_not_while_it_is_in_use() -> None:
    delivery, peer = paired()
    first, second = peer.identity, b"\x02" * 32
    delivery.peer_changed(1, PeerChange("rekeyed", second, "p", old=first), 5)
    assert ([first], 5, "rekey") == (peer.retired, peer.paired_ns, peer.how)
    assert (peer, None, peer) == (
        delivery.by_retired[first],
        delivery.find(first),
        delivery.find(second),
    )
    delivery.peer_changed(1, PeerChange("rekeyed", first, "p", old=second), 6)
    assert ([second], {second: peer}) == (peer.retired, delivery.by_retired)
    assert peer is delivery.find(first)
